"""Rewrite the report of a run, write what a paper needs of it, or compare runs with the first on shared test images.

python -m report OUTPUT_DIR
python -m report paper OUTPUT_DIR [--output-dir OUTPUT_DIR/paper]
python -m report compare RUN RUN ... [--output-dir comparison] [--paper]
"""

import sys
from pathlib import Path

import settings
from report import page
from report.comparison import compare_runs
from report.folder import RunFolder
from report.paper import write_paper
from report.run import refusing_damage


def main(argv: list[str] | None = None) -> None:
    """Write report.html, a paper's files or a comparison; a user's mistake ends in one message."""
    argv = sys.argv[1:] if argv is None else argv
    command = argv[0] if argv[:1] in (["compare"], ["paper"]) else ""  # a folder of that name can be given as ./compare
    parser = settings.Parser(prog="python -m report", description=__doc__)
    if command:
        parser.add_argument(command, choices=[command], metavar=command)
    if command == "compare":
        parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
        parser.add_argument("--output-dir", type=Path, default=Path("comparison"), help="folder to write [comparison]")
        parser.add_argument("--paper", action="store_true", help="also write tables and figure for a manuscript")
    else:
        parser.add_argument("folder", type=Path, metavar="OUTPUT_DIR")
    if command == "paper":
        parser.add_argument("--output-dir", type=Path, help="folder to write [OUTPUT_DIR/paper]")
    options = parser.parse_args(argv)
    try:
        if command == "compare":
            print(compare_runs(options.runs, options.output_dir, options.paper))
            print(f"\nSaved as a page and as JSON in {options.output_dir}; open comparison.html there")
            if options.paper:
                print(f"For a manuscript: {options.output_dir / 'paper'}")
        elif command == "paper":
            print(*write_paper(options.folder, options.output_dir), sep="\n")
        else:
            rewrite(RunFolder(options.folder))
            print(f"Rewritten: {options.folder / 'report.html'}")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")


def rewrite(folder: RunFolder) -> None:
    """Write the pages of a run again. Raises ValueError if the run is unfinished, and as `page.build`."""
    folder.take_record()
    if not folder.record.get("finished", True):
        raise ValueError(f"The run in {folder.path} is not finished: resume it by its own command with --resume.")
    with refusing_damage(folder.path):
        pages = page.pages_of(folder.path)
    page.write(folder, pages)


if __name__ == "__main__":
    main()
