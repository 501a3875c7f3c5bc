"""Write the report of a run again.

python -m report OUTPUT_DIR
"""

import argparse
from pathlib import Path

from machine import print_anything
from report.page import build


def main(argv: list[str] | None = None) -> None:
    """Write report.html; a user's mistake ends in one message."""
    print_anything()
    parser = argparse.ArgumentParser(prog="python -m report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUTPUT_DIR")
    folder = parser.parse_args(argv).folder
    try:
        (folder / "report.html").write_text(build(folder), encoding="utf-8")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
