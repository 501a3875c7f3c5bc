"""What every encoder is and can do.

Shapes: N images, C channels, H x W pixels, h x w cells of a feature map.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

HEAT_CELLS = 14  # a side, with fewer of which at stride 16 a heat map is taken to stride 8: images below 209 pixels


class Encoder(nn.Module):
    """Images (N, 3, H, W), normalised as in a batch, become five feature maps (N, C, H/s, W/s), rounded up.

    A network of one's own needs the attributes and `forward`.

    Attributes
    ----------
    name : in `encoders.ENCODERS`.
    title : as it is published.
    channels, strides : C and s of the five maps.
    label_channels : of what `label_layer` makes of the deepest map.
    """

    strides = (2, 4, 8, 16, 32)
    name: str
    title: str
    channels: tuple[int, ...]
    label_channels: int

    def label_layer(self) -> nn.Module:
        """What the network has between its deepest map and the average that labels are read from; new each time."""
        return nn.Identity()

    def first_cell(self, size: tuple[int, int], stride: int) -> tuple[int, int]:
        """The pixel (row, column) of images of `size` that the first cell of the map at `stride` is centred on."""
        return 0, 0

    def set_drop_path(self, rate: float) -> None:
        """Skip the deepest block for this share of the training images, earlier blocks for less (stochastic depth).

        Huang et al. 2016, arXiv:1603.09382. Raises ValueError for a network that has none.
        """
        if rate:
            raise ValueError(f"{self.name} has no stochastic depth: set DROP_PATH to 0, or choose another ENCODER.")

    @classmethod
    def imagenet(cls, name: str, timeout: float) -> tuple[dict[str, Tensor], str]:
        """ImageNet weights of the network `name` as `state_dict` has them, and the file's name and SHA-256.

        Those of its `label_layer` begin with "label.". Raises as `start.imagenet_weights`.
        """
        raise FileNotFoundError(f"There are no ImageNet weights for {name} here.")

    def refine(self, features: list[Tensor]) -> tuple[Tensor, int]:
        """The deepest of the maps that `forward` gave, if possible on a finer grid, and its stride."""
        return features[-1], self.strides[-1]


class StagedEncoder(Encoder):
    """An encoder of stages, each with its stride in its first block, whose heat maps are refined."""

    def stages(self) -> Sequence[nn.Sequential]:
        """The blocks behind the first four maps."""
        raise NotImplementedError

    def without_stride(self, block: nn.Module, x: Tensor, dilation: int) -> Tensor:
        """`block` at every cell of x (N, C, h, w), where each cell's neighbours are those `dilation` cells away.

        What stands behind the block's stride skips as many cells more ("a trous"): Chen et al. 2018, arXiv:1606.00915.
        """
        raise NotImplementedError

    def refine(self, features: list[Tensor]) -> tuple[Tensor, int]:
        """The deepest of the maps that `forward` gave, on a finer grid: (N, C, H/s, W/s) and its stride s.

        The last stages run again without their strides, on what `forward` put into them: at every second cell, or
        every fourth at stride 8, they give what they gave there, and fill in what lies between. The encoder should be
        in eval mode.
        """
        n_opened = 1 if min(features[-2].shape[-2:]) >= HEAT_CELLS else 2
        x, dilation = features[-1 - n_opened], 1
        for stage in self.stages()[-n_opened:]:
            for block in stage:
                x = self.without_stride(block, x, dilation)
                dilation *= block.stride
        return x, self.strides[-1 - n_opened]


def at_every_cell(conv: nn.Conv2d, x: Tensor, dilation: int) -> Tensor:
    """A convolution without its stride, whose kernel is centred and spread by `dilation`."""
    padding = dilation * (conv.kernel_size[0] // 2)
    return F.conv2d(x, conv.weight, conv.bias, padding=padding, dilation=dilation, groups=conv.groups)
