"""The interface of all encoders.

Shapes: N images, C channels, H x W pixels, h x w cells of a feature map.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of a batch's images, as in `data.normalise`
HEAT_CELLS = 14  # per side; with fewer at stride 16, a heat map has stride 8: images below 209 pixels


class Encoder(nn.Module):
    """Maps images (N, 3, H, W), normalised as in a batch, to five feature maps (N, C, H/s, W/s), rounded up.

    Your own network needs the attributes and `forward`.

    Attributes
    ----------
    name : key in `encoders.ENCODERS`.
    title : published name.
    channels, strides : C and s of the five maps.
    label_channels : C of the output of `label_layer`.
    """

    strides = (2, 4, 8, 16, 32)
    name: str
    title: str
    channels: tuple[int, ...]
    label_channels: int

    def label_layer(self) -> nn.Module:
        """A new copy of the layer between the deepest map and the pooling of the label head."""
        return nn.Identity()

    def first_cell(self, size: tuple[int, int], stride: int) -> tuple[int, int]:
        """Centre of the first cell of the map at `stride`: a pixel (row, column) of images of `size`."""
        return 0, 0

    def last_stage(self) -> nn.Module:
        """The blocks between the last two maps. Raises ValueError if the network does not tell."""
        raise ValueError(f"{self.name} does not tell its last stage: set FREEZE to nothing or encoder.")

    def set_drop_path(self, rate: float) -> None:
        """Skip the deepest block for this share of the training images, earlier blocks for fewer (stochastic depth).

        Huang et al. 2016, arXiv:1603.09382. Raises ValueError if the network has none.
        """
        if rate:
            raise ValueError(f"{self.name} has no stochastic depth: set DROP_PATH to 0, or choose another ENCODER.")

    @classmethod
    def imagenet(cls, name: str, timeout: float) -> tuple[dict[str, Tensor], str]:
        """ImageNet weights of the network `name` with the keys of `state_dict`, and the file's name and SHA-256.

        Keys of its `label_layer` begin with "label.". Raises as `start.imagenet_weights`.
        """
        raise FileNotFoundError(f"No ImageNet weights are available for {name}.")

    def refine(self, features: list[Tensor]) -> tuple[Tensor, int]:
        """The deepest map of `forward`, on a finer grid if possible, and its stride."""
        return features[-1], self.strides[-1]


class StagedEncoder(Encoder):
    """An encoder of stages, each with its stride in its first block; its heat maps are refined."""

    def stages(self) -> Sequence[nn.Sequential]:
        """The blocks after each of the first four maps."""
        raise NotImplementedError

    def last_stage(self) -> nn.Module:
        return self.stages()[-1]

    def without_stride(self, block: nn.Module, x: Tensor, dilation: int) -> Tensor:
        """`block` at every cell of x (N, C, h, w); each cell's neighbours are `dilation` cells away.

        Behind the block's stride, the dilation grows by that factor ("a trous"): Chen et al. 2018, arXiv:1606.00915.
        """
        raise NotImplementedError

    def refine(self, features: list[Tensor]) -> tuple[Tensor, int]:
        """The deepest map of `forward` on a finer grid, (N, C, H/s, W/s), and its stride s.

        The last stages run again without their strides, on their inputs in `forward`. Every second cell (every fourth
        at stride 8) equals the original; the cells between are filled in. The encoder should be in eval mode.
        """
        n_opened = 1 if min(features[-2].shape[-2:]) >= HEAT_CELLS else 2
        x, dilation = features[-1 - n_opened], 1
        for stage in self.stages()[-n_opened:]:
            for block in stage:
                x = self.without_stride(block, x, dilation)
                dilation *= block.stride
        return x, self.strides[-1 - n_opened]


def at_every_cell(conv: nn.Conv2d, x: Tensor, dilation: int) -> Tensor:
    """A convolution without its stride; the kernel is centred and dilated by `dilation`."""
    padding = dilation * (conv.kernel_size[0] // 2)
    return F.conv2d(x, conv.weight, conv.bias, padding=padding, dilation=dilation, groups=conv.groups)


def draw_weights(network: nn.Module, mode: str) -> None:
    """Random weights for a network's convolutions (He et al. 2015, arXiv:1502.01852); `mode` as in `nn.init`."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # drawing there would load torch's compiler
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
