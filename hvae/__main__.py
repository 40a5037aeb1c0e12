"""`python -m hvae`, which is `hvae`; torchrun needs a module."""

from hvae.cli.main import main

if __name__ == "__main__":
    main()
