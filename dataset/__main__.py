"""Download HAM10000, check how main.py would read a data folder, or draw a synthetic one.

python -m dataset download FOLDER [--official-test]
python -m dataset check FOLDER
python -m dataset draw FOLDER
"""

from pathlib import Path

import machine
import settings
from dataset.check import check
from dataset.download import HAM10000_RELEASE, LICENCE, OFFICIAL_TEST, download
from dataset.holdout import columns_in
from dataset.largeset import write_large
from dataset.prepare import Reading, Splitting
from dataset.synthetic import write_dataset


def main(argv: list[str] | None = None) -> None:
    """Download, check or draw; report a user's mistake in one message."""
    parser = settings.Parser(prog="python -m dataset", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("download", help="download HAM10000 (2.8 GB) from Harvard Dataverse")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--official-test", action="store_true", help="download the ISIC 2018 Task 3 test set instead")
    command = commands.add_parser("check", help="report how main.py would read a folder; change nothing")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--image-size", type=int, default=224, help="pixels, to estimate memory and disk [224]")
    command.add_argument("--classes", nargs="+", default=(), help="as in main.py: NAME or NAME=ONE,ANOTHER")
    command.add_argument("--zeros", default="", help="as in main.py: class of rows with a 0 for every class")
    command.add_argument("--split-file", default="", help="as in main.py: a table of image,split, or none")
    command.add_argument("--invert-masks", action="store_true", help="as in main.py: the lesion is black in the masks")
    command.add_argument("--stretch-masks", action="store_true", help="as in main.py: masks were stretched")
    command.add_argument("--test-where", nargs="+", default=(), help="as in main.py: COLUMN=VALUE of the test images")
    command.add_argument("--subgroups", nargs="+", default=(), help="as in main.py: columns to report scores by")
    command = commands.add_parser(
        "draw", help="draw synthetic lesions into a new folder: the demo's, or as many as asked"
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--images", type=int, help="draw so many, with rare malignant lesions, as in ISIC 2024")
    command.add_argument("--size", type=int, help="with --images: side of the images in pixels [64]")
    command.add_argument("--hdf5", action="store_true", help="with --images: write one HDF5 file")
    options = parser.parse_args(argv)
    if options.command == "check" and not 32 <= options.image_size <= 4096:
        parser.error(f"--image-size must lie in [32, 4096], not {options.image_size}")
    if options.command == "draw" and options.images is None and (options.size is not None or options.hdf5):
        parser.error("--size and --hdf5 need --images: the demo's set has one size and is a folder")
    try:
        if options.command == "check":
            choices = (options.classes, options.zeros, options.split_file, options.invert_masks, options.stretch_masks)
            reading = Reading(*choices, (*options.subgroups, *columns_in(options.test_where)))
            splitting = Splitting(test_where=options.test_where)
            report, problem = check(options.folder, options.image_size, reading, splitting)
            print(report, flush=True)
            if problem:
                parser.exit(2, f"{problem}\n")
        elif options.command == "draw" and options.images is not None:
            write_large(options.folder, options.images, 64 if options.size is None else options.size, options.hdf5)
        elif options.command == "draw":
            write_dataset(options.folder)
        else:
            release = OFFICIAL_TEST if options.official_test else HAM10000_RELEASE
            print(*filter(None, (LICENCE, release.remark)), sep="\n", flush=True)
            download(options.folder, release)
            print(f"{options.folder} is complete. Next: python main.py {release.usage} {options.folder}")
    except KeyboardInterrupt:
        parser.exit(130, "Stopped. The same command resumes from here.\n")
    except ConnectionError as error:
        parser.exit(1, f"{error}\n")
    except (ValueError, OSError) as error:
        advice = "Name another folder, or free some space and repeat the command."
        code, message = machine.in_words(error, options.folder, advice)
        parser.exit(code, f"{message}\n")


if __name__ == "__main__":
    main()
