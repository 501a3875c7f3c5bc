"""Fit the detector of images unlike the training images (`encoders.unlike.Unlike`); measure its false alarms."""

import numpy as np
import torch
from torch import nn

import data
import evaluate
import machine
from encoders.unlike import ALARM, Unlike, statistics
from measure import bootstrap
from measure.collect import gather_rows, run_over_share

N_FITTED = 5_000  # training images at most
MIN_IMAGES = 50  # validation images; with fewer, the 95th percentile would be a guess
MAX_NUMBERS = 200_000  # of the axes: 400 kB in a checkpoint
N_QUANTILES = 1_000


def fit_unlike(model: nn.Module, train: data.Batches, val: data.Batches, precision: str) -> dict[str, torch.Tensor]:
    """Statistics of the training images and quantiles of the validation images, for `Unlike` and a checkpoint.

    Empty if there are fewer than `MIN_IMAGES` validation images, or if the model has no `encoder` that returns a list
    of feature maps. Under torchrun, every process calls this with the same images, runs its share and gets the result.
    """
    if len(val.table) < MIN_IMAGES or not gives_maps(model, val.subset([0])[0]["image"]):
        return {}

    def gathered(batches: data.Batches) -> np.ndarray | None:
        outputs = run_over_share(model, batches, precision, lambda image: {"unlike": statistics(model.encoder(image))})
        return gather_rows(torch.cat([output["unlike"].cpu() for _, output in outputs]).numpy())

    step = -(-len(train.table) // N_FITTED)
    some = data.Batches(train.pixels, train.table[::step], max(train.sizes), device=train.device)
    return machine.from_first(fit_statistics, gathered(some), gathered(val.whole()))


@torch.inference_mode()
def gives_maps(model: nn.Module, image: torch.Tensor) -> bool:
    """Whether a model has an encoder that turns images (1, 3, H, W) into a list of feature maps (1, c, h, w)."""
    if not isinstance(encoder := getattr(model, "encoder", None), nn.Module):
        return False
    was_training = encoder.training
    try:
        maps = encoder.eval()(image)
    except Exception:  # an own model may call anything its encoder, and feed it anything; modules raise many kinds
        return False
    finally:
        encoder.train(was_training)
    return isinstance(maps, list | tuple) and all(isinstance(x, torch.Tensor) and x.ndim == 4 for x in maps)


def fit_statistics(train: np.ndarray, val: np.ndarray) -> dict[str, torch.Tensor]:
    """The arguments of `Unlike` from statistics of training (M, C) and validation images (V, C).

    The covariance is shrunk towards a multiple of the identity (Ledoit & Wolf 2004).
    """
    from sklearn.covariance import ledoit_wolf  # takes a second, and only trainings need it

    mean, scale = train.mean(axis=0, dtype=float), train.std(axis=0, dtype=float)
    scale = np.where(scale > 1e-6, scale, 1)
    covariance, _ = ledoit_wolf((train - mean) / scale, assume_centered=True)
    variances, axes = np.linalg.eigh(covariance)
    n_axes = min(len(mean), MAX_NUMBERS // len(mean))
    variances, axes = variances[::-1], axes[:, ::-1]
    rest = variances[n_axes:].mean() if n_axes < len(mean) else variances[-1]
    kept = {"mean": mean, "scale": scale, "axes": axes[:, :n_axes], "variances": variances[:n_axes], "rest": rest}
    fitted = {name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in kept.items()}
    fitted["axes"] = fitted["axes"].half()
    distances = Unlike(**fitted, quantiles=torch.zeros(1)).distance(torch.from_numpy(val).float())
    levels = torch.linspace(0, 1, min(N_QUANTILES, len(val)))
    return fitted | {"quantiles": distances.quantile(levels)}


def alarm_numbers(percentiles: np.ndarray, resamples: bootstrap.Resamples) -> tuple[dict, dict]:
    """Share of the images (N,) that are flagged as unlike the training images, with its interval.

    On images like the training images these are false alarms.
    """
    flagged = (percentiles >= ALARM).astype(float)

    def scores(weights: np.ndarray) -> evaluate.Scores:
        return {"flagged": evaluate.weighted_mean(weights, flagged)}

    numbers, intervals = bootstrap.with_intervals(scores, resamples, {"flagged": np.ones(len(flagged), bool)})
    return numbers | {"n_images": len(flagged)}, intervals
