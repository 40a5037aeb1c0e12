"""The command line: `main` and one file per verb.

Verbs import what they run inside their functions, so that `hvae --help` does not wait for torch.
"""
