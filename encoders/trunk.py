"""torchvision's networks of many families, without their heads, with its layer names."""

import math
import re
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torchvision.models import WeightsEnum, get_model, get_model_weights
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth

from encoders.base import MEAN, STD, Encoder
from encoders.catalogue import FAMILIES
from encoders.depthwise import use_in
from encoders.weights import from_torchvision

HEADS = ("avgpool", "classifier", "fc", "flatten", "head")  # layers that are left out
PROBE = 97  # pixels: one more than three cells of the deepest map, which tells rounding up from rounding down
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")  # in the files of DenseNets: norm.1 for norm1


class Trunk(Encoder):
    """One of `catalogue.TRUNKS`; its maps are the last ones of each stride.

    A network that begins at stride 4 gives the image at half size as its map at stride 2. One that rounds sizes down
    sees images padded at the lower right to a multiple of 32 pixels, by repeating the edge.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        family = next(start for start in FAMILIES if name.startswith(start))
        self.name, self.title = name, title(name, family)
        self.first = FAMILIES[family][1]
        self.is_last = family.startswith("swin")  # channels come last between its layers
        with ValuesOfRegNet() if family.startswith("regnet") else nullcontext():
            network = get_model(name, weights=None)
        for part, layers in network.named_children():
            if part not in HEADS:
                self.add_module(part, layers)
        if family == "densenet":
            self.relu = nn.ReLU()  # a function in torchvision
        use_in(self)
        self.set_drop_path(0.0)
        seen = published(name).transforms()
        self.is_rescaled = (seen.mean, seen.std) != ([*MEAN], [*STD])  # of EfficientNetV2-L alone
        ours, own = (torch.tensor(pair).view(2, 3, 1, 1) for pair in ((MEAN, STD), (seen.mean, seen.std)))
        self.register_buffer("scale", ours[1] / own[1], persistent=False)
        self.register_buffer("shift", (ours[0] - own[0]) / own[1], persistent=False)
        self.ends, self.channels, self.rounds_down = find_maps(self.in_order())
        self.label_channels = self.channels[-1]

    def in_order(self) -> list[nn.Module]:
        """In the order in which they are applied."""
        return [layer for part in self.children() for layer in (part if isinstance(part, nn.Sequential) else [part])]

    def forward(self, image: Tensor) -> list[Tensor]:
        size = image.shape[-2:]
        x = image * self.scale + self.shift if self.is_rescaled else image
        x = pad(x) if self.rounds_down else x
        features = [F.avg_pool2d(x, 2)] if len(self.ends) < len(self.strides) else []
        for number, layer in enumerate(self.in_order()):
            x = layer(x)
            if number in self.ends:
                is_inner = number < self.ends[-1]
                features.append(x.permute(0, 3, 1, 2) if self.is_last and is_inner else x)
        if not self.rounds_down:
            return features
        cells = ([math.ceil(n / stride) for n in size] for stride in self.strides)
        return [x[..., :height, :width] for x, (height, width) in zip(features, cells)]

    def label_layer(self) -> nn.Module:
        """A ConvNeXt's last norm, which torchvision applies behind the average."""
        is_normed = self.name.startswith("convnext")
        return LayerNorm2d(self.channels[-1], eps=1e-6) if is_normed else nn.Identity()

    def last_stage(self) -> nn.Module:
        return nn.Sequential(*self.in_order()[self.ends[-2] + 1 :])

    def first_cell(self, size: tuple[int, int], stride: int) -> tuple[int, int]:
        return self.first, self.first

    def set_drop_path(self, rate: float) -> None:
        blocks = [module for module in self.modules() if isinstance(module, StochasticDepth)]
        for number, block in enumerate(blocks):
            block.p = rate * number / len(blocks)
        if not blocks:
            super().set_drop_path(rate)

    @classmethod
    def imagenet(cls, name: str, timeout: float) -> tuple[dict[str, Tensor], str]:
        state, file = from_torchvision(published(name), timeout)
        state = {OLD_NAME.sub(r"\1", key): value for key, value in state.items()}
        kept = {key: value for key, value in state.items() if key.partition(".")[0] not in HEADS}
        if name.startswith("convnext"):
            kept |= {f"label.{key}": state[f"classifier.0.{key}"] for key in ("weight", "bias")}
        return kept, file


def published(name: str) -> WeightsEnum:
    """torchvision's ImageNet weights of a network: the first ones, as for ResNets.

    The later ones of some networks were trained with label smoothing and mixup, which helps on ImageNet and makes
    features transfer less well: Kornblith et al. 2021, arXiv:2010.16402.
    """
    known = get_model_weights(name)
    return getattr(known, "IMAGENET1K_V1", known.DEFAULT)


def title(name: str, family: str) -> str:
    """regnet_x_1_6gf: RegNetX-1.6GF."""
    rest = re.sub(r"(?<=\d)_(?=\d)", ".", name.removeprefix(family)).replace("_", "-")
    return FAMILIES[family][0] + (rest.title() if rest.isalpha() else rest.upper())


class ValuesOfRegNet(TorchFunctionMode):
    """A RegNet computes its widths with tensors, which would have no values on the meta device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        is_made = func in (torch.arange, torch.tensor)
        return func(*args, **({"device": "cpu"} if is_made else {}) | (kwargs or {}))


def pad(image: Tensor) -> Tensor:
    """Images (N, 3, H, W) to multiples of 32 pixels."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")


def find_maps(layers: list[nn.Module]) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Positions of the last layer of each stride from 2 to 32, channels of the maps, and whether sizes round down.

    One image of zeros passes on the meta device, without memory or arithmetic.
    """
    last, rounds_down = {}, False
    for number, (size, channels) in enumerate(shapes(layers)):
        stride = 2 ** round(math.log2(PROBE / size))
        last[stride] = number, channels
        rounds_down |= size < math.ceil(PROBE / stride)
    places = [last[stride] for stride in Encoder.strides if stride in last]
    missing = (3,) * (len(Encoder.strides) - len(places))
    ends, channels = zip(*places)
    return ends, missing + channels, rounds_down


@torch.no_grad()
def shapes(layers: list[nn.Module]) -> Iterator[tuple[int, int]]:
    """Side and channels of the map behind each layer for a square image of `PROBE` pixels."""
    x = torch.zeros(1, 3, PROBE, PROBE, device="meta")
    for layer in layers:
        weights = chain(layer.named_parameters(), layer.named_buffers())
        x = functional_call(layer, {name: value.to("meta") for name, value in weights}, (x,))
        is_last = x.shape[1] == x.shape[2] != x.shape[3]
        yield x.shape[2], x.shape[3 if is_last else 1]
