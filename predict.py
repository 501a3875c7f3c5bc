"""Predict with a trained model: diagnoses, masks at each image's own size, overlays and heat maps.

python predict.py photos/ more/*.jpg --checkpoint outputs/best_multitask_model.pth
"""

import argparse
import glob
import os
import sys
from pathlib import Path

import settings

CHECKPOINT_HELP = "outputs/best_..._model.pth; repeat --checkpoint to average several models [bundled model]"
FEATURES_HELP = "also write the encoder's pooled features of all images, as features.npz, or with csv as features.csv"


def __getattr__(name: str):
    """`Predictor`, `overlay` and the other names of `inference`, for notebooks."""
    import inference

    return getattr(inference, name)


def feature_format(name: str) -> str:
    """Of --features; refuses a path that follows the flag."""
    if name not in ("npz", "csv"):
        raise argparse.ArgumentTypeError(f"{name} is no format (npz, csv): name images before it, or --features=npz")
    return name


def main(argv: list[str] | None = None) -> int:
    """Predict on the named images; a user's mistake ends in one message."""
    parser = settings.Parser(description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder (searched recursively) or glob")
    parser.add_argument("--checkpoint", type=Path, action="append", help=CHECKPOINT_HELP)
    parser.add_argument("--output-dir", type=Path, default=Path("predictions"), help="folder to write [predictions]")
    parser.add_argument("--explain", action="store_true", help="write heat maps of the predicted class")
    parser.add_argument("--tta", action="store_true", help="average over eight flips and rotations (8x slower)")
    parser.add_argument("--json", action="store_true", help="also write the table as predictions.json")
    parser.add_argument("--features", nargs="?", const="npz", type=feature_format, metavar="csv", help=FEATURES_HELP)
    parser.add_argument("--resume", action="store_true", help="continue a stopped run in --output-dir")
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same names; keep others")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... [auto]")
    parser.add_argument("--batch-size", type=int, default=16, help="images per step on each core [16]")
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if options.resume and options.overwrite:
        parser.error("--resume keeps existing files and --overwrite replaces them: choose one")
    if not any(os.path.lexists(path) or glob.glob(path, recursive=True) for path in options.paths):
        parser.error(f"{', '.join(options.paths)}: no such file or folder. Name images or folders.")

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads would take up to half of the CPU seconds
    import torch  # takes seconds, which --help and mistakes need not wait for

    import machine
    from inference.process import predict_all

    machine.keep_freed_memory()
    try:
        return predict_all(options)
    except KeyboardInterrupt:
        how = "--resume instead of --overwrite" if options.overwrite else "--resume"
        parser.exit(130, f"Stopped. The same command with {how} continues.\n")
    except torch.cuda.OutOfMemoryError:
        size = options.batch_size
        parser.exit(2, f"Out of GPU memory with batches of {size}. Try a smaller --batch-size, or --device cpu.\n")
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        where = f"{error.filename or options.output_dir}: {error.strerror}"
        advice = "Free some space, or name another --output-dir; --resume continues."
        parser.exit(2, f"{error}\n" if error.errno is None else f"Cannot write {where}. {advice}\n")


if __name__ == "__main__":
    sys.exit(main())
