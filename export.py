"""Export a trained model to ONNX and compare it with PyTorch, or to a checkpoint of half the size.

python export.py outputs/best_multitask_model.pth model.onnx
python export.py outputs/best_multitask_model.pth model.pth
"""

import json
import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

import data
import models
import settings
from checkpoints.states import save
from checkpoints.trained import Trained
from dataset.layout import find_files
from encoders.unlike import statistics

TOLERANCE = 1e-3  # largest allowed difference of a logit or feature between PyTorch and ONNX Runtime
PLACES = ("DATA_DIR", "OUTPUT_DIR", "CACHE_DIR", "EXTERNAL_DIR")  # settings that name a folder on this machine
N_REAL = 16  # images that the two are compared on


class Exported(nn.Module):
    """A model whose output is a tuple, in the order of `names`: ONNX has no dict.

    The heads' logits, ``"features"`` (N, C) as `encoders.unlike.statistics`, and ``"unlike"`` (N,) if fitted.
    """

    def __init__(self, model: models.Model) -> None:
        super().__init__()
        self.model, self.names = model, [*model.heads, "features", *["unlike"] * bool(model.unlike)]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = self.model.encoder(image)
        logits = [head(maps, image.shape[-2:]) for head in self.model.heads.values()]
        return *logits, statistics(maps), *([self.model.unlike(maps)] if self.model.unlike else [])


def export(checkpoint: str | Path, target: str | Path, data_dir: str | Path | None = None) -> dict[str, float]:
    """Write `target` and return the largest difference from PyTorch's outputs, on random and real images.

    The input is ``image`` (N, 3, S, S) as `data.normalise` gives it, for any N; the outputs are those of `Exported`.
    Classes, image size, normalisation and temperature are in the file's metadata.

    Parameters
    ----------
    data_dir : folder of images to compare on; None for the training images, if they are still there.

    Raises
    ------
    FileNotFoundError, ValueError : as `models.load_checkpoint`; or a difference above `TOLERANCE`. No file is kept.
    ImportError : optional packages are not installed.
    """
    trained = Trained.load(checkpoint)
    model, size = Exported(trained.network().to(memory_format=torch.contiguous_format)).eval(), trained.image_size
    partial = Path(f"{target}.partial")
    folder = data_dir or trained.checkpoint.get("config", {}).get("DATA_DIR", "")
    real = real_images(Path(folder), size, must=bool(data_dir))
    try:
        export_network(model, trained, partial)
        generator = torch.Generator().manual_seed(0)
        samples = {"random input": [torch.randn(n, 3, size, size, generator=generator) for n in (1, 5)]}
        if real:
            samples[f"{len(real)} real images"] = [torch.cat(real)]
        differences = {name: largest_difference(model, partial, batches) for name, batches in samples.items()}
        worst = max(differences.values())
        if not worst <= TOLERANCE:
            raise ValueError(f"ONNX Runtime differs from PyTorch by {worst:.2g}, more than {TOLERANCE:g}: not kept.")
        os.replace(partial, target)
        return differences
    finally:
        partial.unlink(missing_ok=True)


def halve(checkpoint: str | Path, target: str | Path) -> None:
    """Write a checkpoint with weights in half precision, for sharing; `models.load_checkpoint` reads it.

    Of the folders in its settings, it keeps only the names.

    Raises
    ------
    FileNotFoundError, ValueError : as `models.load_checkpoint`; or a weight is too large for half precision.
    """
    about = Trained.load(checkpoint).checkpoint
    weights = {name: value.half() if value.is_floating_point() else value for name, value in about["weights"].items()}
    if large := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise ValueError(f"{checkpoint} cannot be halved: {large[0]} is too large for half precision.")
    config = about.get("config", {})
    config = config | {name: Path(config[name]).name for name in PLACES if name in config}
    save(Path(target), about | {"weights": weights, "config": config})


def refuse(checkpoint: str, target: Path, overwrite: bool) -> None:
    """Raise ValueError for another suffix or the checkpoint itself; FileExistsError for an existing file."""
    if target.suffix not in (".onnx", ".pth"):
        raise ValueError(f"{target} must end in .onnx for an ONNX file, or in .pth for a checkpoint.")
    if os.path.realpath(target) == os.path.realpath(checkpoint):
        raise ValueError(f"{target} is the checkpoint itself. Name another file.")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} already exists. Name another file, or pass --overwrite.")


def export_network(model: Exported, trained: Trained, path: Path) -> None:
    """Export with a dynamic batch size."""
    import onnx

    example = torch.zeros(2, 3, trained.image_size, trained.image_size)
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (example,), path, input_names=["image"], output_names=model.names,
            dynamic_shapes=({0: batch},), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    exported = onnx.load(path)
    about = trained.checkpoint
    facts = {name: about[name] for name in ("task", "classes", "image_size", "mean", "std") if name in about}
    facts |= {"temperature": trained.temperature, "note": trained.note}
    onnx.helper.set_model_props(exported, {name: json.dumps(value) for name, value in facts.items()})
    onnx.save(exported, path)


def real_images(folder: Path, size: int, must: bool) -> list[torch.Tensor]:
    """Up to `N_REAL` images of a data folder, each (1, 3, S, S); if `must`, raise FileNotFoundError for none."""
    paths = sorted(find_files(folder)[0].values()) if folder.name else []
    if must and not paths:
        raise FileNotFoundError(f"There are no images in {folder}: expected them in its folder images/.")
    images = []
    for path in paths[:: max(1, len(paths) // N_REAL)][:N_REAL]:
        with suppress(ValueError, OSError):  # a damaged image says nothing about the model
            images.append(data.load_image(path, size))
    return images


def largest_difference(model: Exported, path: Path, batches: list[torch.Tensor]) -> float:
    """Between PyTorch and ONNX Runtime, over all batches and outputs; NaN counts as infinite."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in batches:
        with torch.inference_mode():
            expected = model(batch)
        exported = session.run(model.names, {"image": batch.numpy()})
        for name, one, other in zip(model.names, expected, exported):
            difference = np.abs(one.numpy() - other).max() * (TOLERANCE / step_of(model) if name == "unlike" else 1)
            worst = max(worst, float("inf") if np.isnan(difference) else float(difference))
    return worst


def step_of(model: Exported) -> float:
    """How far percentiles may differ: they jump by one quantile where an image lies beside a validation image."""
    return max(1.0, 101 / len(model.model.unlike.quantiles))


def main(argv: list[str] | None = None) -> None:
    """Export; a user's mistake ends in one message."""
    parser = settings.Parser(description=__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("target", type=Path, metavar="FILE", help="ends in .onnx, or in .pth for half precision")
    parser.add_argument("--data-dir", help="images to compare on [the training images, if found]")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    options = parser.parse_args(argv)
    differences = {}
    try:
        refuse(options.checkpoint, options.target, options.overwrite)
        if options.target.suffix == ".pth":
            halve(options.checkpoint, options.target)
        else:
            differences = export(options.checkpoint, options.target, options.data_dir)
    except ImportError as error:
        parser.exit(2, f"{error}. Exporting needs: pip install -r requirements-export.txt\n")
    except OSError as error:
        parser.exit(2, f"{error if error.errno is None else f'Cannot write {options.target}: {error.strerror}'}\n")
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    for name, difference in differences.items():
        print(f"largest difference from PyTorch, {name}: {difference:.1e}")
    if len(differences) == 1:
        print("The training images were not found; pass --data-dir to compare on real images too.")
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
