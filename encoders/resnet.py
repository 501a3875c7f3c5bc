"""torchvision's residual networks (He et al. 2016, doi:10.1109/CVPR.2016.90), with its layer names."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck

from encoders.base import StagedEncoder, at_every_cell
from encoders.weights import from_torchvision


def resnet_title(name: str) -> str:
    """wide_resnet50_2: Wide ResNet-50-2."""
    words = {"wide_": "Wide ", "resnet": "ResNet-", "resnext": "ResNeXt-", "_": "-"}
    for word, published in words.items():
        name = name.replace(word, published)
    return name


class ResNet(StagedEncoder):
    """One of `catalogue.RESNETS` without its head."""

    def __init__(self, name: str = "resnet18") -> None:
        super().__init__()
        self.name, self.title = name, resnet_title(name)
        resnet = get_model(name, weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        expansion = resnet.layer1[0].expansion
        self.channels = (64, *(width * expansion for width in (64, 128, 256, 512)))
        self.label_channels = self.channels[-1]

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.relu(self.bn1(self.conv1(image)))]  # (N, 64, H/2, W/2)
        x = self.maxpool(features[0])
        for stage in self.stages():
            x = stage(x)
            features.append(x)
        return features

    def stages(self) -> Sequence[nn.Sequential]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    def without_stride(self, block: BasicBlock | Bottleneck, x: Tensor, dilation: int) -> Tensor:
        identity = x
        if block.downsample is not None:
            conv, norm = block.downsample
            identity = norm(at_every_cell(conv, x, 1))
        x = block.relu(block.bn1(at_every_cell(block.conv1, x, dilation)))
        x = block.bn2(at_every_cell(block.conv2, x, dilation * block.conv1.stride[0]))
        if isinstance(block, Bottleneck):  # its third convolution is 1x1
            x = block.bn3(block.conv3(block.relu(x)))
        return block.relu(x + identity)

    @classmethod
    def imagenet(cls, name: str, timeout: float) -> tuple[dict[str, Tensor], str]:
        state, file = from_torchvision(get_model_weights(name).IMAGENET1K_V1, timeout)
        return {key: value for key, value in state.items() if not key.startswith("fc.")}, file
