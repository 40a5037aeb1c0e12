"""A kept record of a benchmark as a table, or one beside an older one.

python benchmarks/report.py RECORD.json [OLD.json]
"""

import sys
from pathlib import Path

from hvae.bench import report
from hvae.bench.record import Record
from hvae.errors import UserError


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit("usage: python benchmarks/report.py RECORD.json [OLD.json]")
    try:
        print(report.text(*(Record.read(Path(file)) for file in arguments)))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
