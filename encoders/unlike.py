"""Distance of an image from the training images, by the shallow feature maps of an encoder.

Shapes: N images, C statistics, R axes, Q quantiles.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

N_MAPS = 3  # the shallowest, at strides 2, 4 and 8: on deeper ones, bare skin resembles lesions
SMALLEST = 1e-3  # standard deviation
ALARM = 95.0  # percentile of the validation images from which an image is flagged as unlike the training images


def statistics(maps: Sequence[Tensor]) -> Tensor:
    """Mean and log standard deviation of each channel of the shallowest feature maps (N, c, h, w): (N, C) float32."""
    values = []
    for cells in (x.float().flatten(2) for x in maps[:N_MAPS]):
        values += [cells.mean(dim=2), cells.std(dim=2, unbiased=False).clamp(min=SMALLEST).log()]
    return torch.cat(values, dim=1)


class Unlike(nn.Module):
    """Percentile of an image among the validation images by its Mahalanobis distance from the training images.

    The covariance of the standardised statistics is kept as its R largest axes; the other directions share one
    variance (probabilistic PCA: Tipping & Bishop 1999). The arguments are what `measure.alarms.fit` returns.

    Parameters
    ----------
    mean, scale : (C,) of the training images' statistics.
    axes : (C, R) orthonormal.
    variances : (R,) along the axes.
    rest : () variance along any other direction.
    quantiles : (Q,) of the validation images' squared distances, ascending.
    """

    def __init__(
        self, mean: Tensor, scale: Tensor, axes: Tensor, variances: Tensor, rest: Tensor, quantiles: Tensor
    ) -> None:
        super().__init__()
        values = {"mean": mean, "scale": scale, "axes": axes, "variances": variances, "rest": rest}
        for name, value in (values | {"quantiles": quantiles}).items():
            self.register_buffer(name, value.float(), persistent=False)  # not among the weights

    def distance(self, statistics: Tensor) -> Tensor:
        """Squared Mahalanobis distance (N,) of statistics (N, C)."""
        offset = (statistics - self.mean) / self.scale
        along = offset @ self.axes
        beside = (offset.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        return (along.square() / self.variances).sum(dim=1) + beside / self.rest

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Percentage of validation images that are closer to the training images: (N,)."""
        with torch.autocast(maps[0].device.type, enabled=False):
            distance = self.distance(statistics(maps))
            return 100 * (distance[:, None] > self.quantiles).float().mean(dim=1)


def find_flaw(fitted: object, channels: Sequence[int]) -> str:
    """Why a checkpoint's content is no valid `Unlike` for an encoder with these channels; "" if it is valid."""
    n = 2 * sum(channels[:N_MAPS])
    n_axes = fitted["axes"].shape[-1] if isinstance(fitted, dict) and isinstance(fitted.get("axes"), Tensor) else 0
    shapes = {"mean": (n,), "scale": (n,), "axes": (n, n_axes), "variances": (n_axes,), "rest": (), "quantiles": None}
    if not isinstance(fitted, dict) or fitted.keys() != shapes.keys():
        return f"it should hold {', '.join(shapes)}"
    for name, shape in shapes.items():
        value = fitted[name]
        if not isinstance(value, Tensor) or not value.isfinite().all() or shape not in (None, tuple(value.shape)):
            return f"{name} should be a finite tensor of shape {shape or '(Q,)'}"
    return ""
