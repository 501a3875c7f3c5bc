"""Three models on one encoder: `Classifier`, `Segmenter`, `MultiTask`.

Shapes: N images, C channels, H x W pixels, K classes. Every model maps images (N, 3, H, W), of any size, to a dict
of logits keyed like the batch: ``{"label": (N, K)}``, ``{"mask": (N, 1, H, W)}``, or both.
"""

import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders import Encoder, blueprint, make_encoder
from encoders.base import draw_weights
from encoders.unlike import Unlike, find_flaw

N_CLASSES = 7
MAX_SIZE = 4096  # pixels, of an image that a checkpoint may ask for
DECODER_CHANNELS = (128, 64, 64, 32)  # at strides 16, 8, 4, 2


class LabelHead(nn.Module):
    """Global average of the deepest feature map, then one linear layer: logits (N, K).

    Both run in float32 even under autocast: in bfloat16 the logits of two classes would tie too often.

    Attributes
    ----------
    layer : layers of the encoder's network between its deepest map and the average; none in a ResNet.
    dropout : on the averaged channels.
    """

    def __init__(self, encoder: Encoder, n_classes: int) -> None:
        super().__init__()
        self.layer, self.dropout = encoder.label_layer(), nn.Dropout(0.0)
        self.linear = nn.Linear(encoder.label_channels, n_classes)

    def pooled(self, features: list[Tensor]) -> Tensor:
        """The global average (N, C) float32."""
        x = self.layer(features[-1])
        return x.float().mean(dim=(2, 3))

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        x = self.pooled(features)
        with torch.autocast(x.device.type, enabled=False):
            return self.linear(self.dropout(x))

    def heat_map(self, deepest: Tensor, label: Tensor) -> Tensor:
        """Grad-CAM of the classes `label` (N,) in each cell of the deepest feature map (N, C, h, w): (N, 1, h, w)."""
        x = self.layer(deepest)
        with torch.autocast(x.device.type, enabled=False):
            heat = torch.einsum("nchw,nc->nhw", x.float(), self.linear.weight[label]).relu()
        return (heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6))[:, None]


def spread_cells(cells: Tensor, stride: int, size: tuple[int, int], first: tuple[int, int] = (0, 0)) -> Tensor:
    """Upsample cells (N, C, h, w) at `stride` bilinearly to images (N, C, H, W) of `size`.

    Cell i is centred at pixel `first` + i * stride. With `align_corners=False` the cells would lie half a stride
    further to the lower right. Values are repeated around the outer cells.
    """
    within = [stride * (n - 1) + 1 for n in cells.shape[-2:]]  # from the first cell's pixel to the last one's
    spread = F.interpolate(cells, size=within, mode="bilinear", align_corners=True)
    behind = [n - start - inner for n, start, inner in zip(size, first, within)]
    return F.pad(spread, (first[1], behind[1], first[0], behind[0]), mode="replicate")


class DecoderBlock(nn.Module):
    """Upsample to the skip connection's size, concatenate, convolve twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        x = torch.cat([x, skip], dim=1)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class MaskDecoder(nn.Module):
    """U-Net decoder (Ronneberger et al. 2015, arXiv:1505.04597) down to stride 2: mask logits (N, 1, H, W).

    The logits are upsampled to the image's size: a last stage at full size would cost a third of a training step.
    """

    def __init__(self, encoder_channels: tuple[int, ...], channels: tuple[int, ...]) -> None:
        super().__init__()
        *skips, deepest = encoder_channels
        inputs = (deepest, *channels[:-1])
        self.blocks = nn.ModuleList(map(DecoderBlock, inputs, reversed(skips), channels))
        self.logits = nn.Conv2d(channels[-1], 1, 1)
        draw_weights(self, "fan_in")

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        *skips, x = features
        for block, skip in zip(self.blocks, reversed(skips)):
            x = block(x, skip)
        x = self.logits(x)  # (N, 1, H/2, W/2)
        return F.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)  # (N, 1, H, W)


def top_class(logits: Tensor) -> Tensor:
    """The class (N,) of the largest logit (N, K)."""
    return logits.argmax(dim=1)


FREEZABLE = ("nothing", "encoder", "early-stages")  # the last: the encoder but for its last stage


class Model(nn.Module):
    """One encoder and named heads; the output has the heads' names.

    Attributes
    ----------
    outputs : names of the heads, known before a network is built.
    arguments : of the constructor, from which a checkpoint rebuilds the network.
    classes, image_size, temperature : of a trained network (`load_model`): names of the labels, side of the input in
        pixels, divisor of the label logits.
    unlike : the fitted detector of images unlike the training images; None if none was fitted.
    """

    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    image_size = 0
    temperature = 1.0

    def __init__(self, heads: dict[str, nn.Module], arguments: dict) -> None:
        super().__init__()
        self.encoder = make_encoder(arguments["encoder"])
        self.heads = nn.ModuleDict(heads)
        self.arguments = arguments
        self.unlike: Unlike | None = None
        self.frozen = "nothing"

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take ImageNet weights, as `encoders.start.imagenet_weights` gives them."""
        for_labels = {name: value for name, value in weights.items() if name.startswith("label.")}
        self.encoder.load_state_dict({name: value for name, value in weights.items() if name not in for_labels})
        if "label" in self.heads:
            self.heads["label"].layer.load_state_dict(
                {name.removeprefix("label."): value for name, value in for_labels.items()}
            )

    def regularise(self, dropout: float, drop_path: float) -> None:
        """Set dropout before the linear layer of the label head, and stochastic depth by `set_drop_path`.

        Raises
        ------
        ValueError : the encoder has no stochastic depth.
        """
        if "label" in self.heads:
            self.heads["label"].dropout.p = dropout
        self.encoder.set_drop_path(drop_path)

    def freeze(self, part: str) -> str:
        """Do not train a part of `FREEZABLE`, whose batch norms keep their means and variances; returns a message.

        Raises
        ------
        ValueError : the encoder does not tell its last stage.
        """
        self.frozen = part
        self.encoder.requires_grad_(part == "nothing")
        if part == "early-stages":
            self.encoder.last_stage().requires_grad_()
        trained = sum(one.numel() for one in self.parameters() if one.requires_grad)
        n_all = sum(one.numel() for one in self.parameters())
        return "" if part == "nothing" else f"Frozen: {part}. {trained:,} of {n_all:,} parameters are trained."

    def train(self, mode: bool = True) -> "Model":
        super().train(mode)
        if self.frozen != "nothing":
            self.encoder.eval()
        if self.frozen == "early-stages":
            self.encoder.last_stage().train(mode)
        return self

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.encoder(image)
        return {name: head(features, image.shape[-2:]) for name, head in self.heads.items()}

    @torch.inference_mode()
    def probabilities(self, image: Tensor) -> Tensor:
        """Calibrated probabilities (N, K) of the classes, for images (N, 3, H, W) as `data.load_image` gives them."""
        return self(image)["label"].float().div(self.temperature).softmax(dim=1)

    @torch.inference_mode()
    def features(self, image: Tensor) -> Tensor:
        """The encoder's pooled features (N, C) float32 of images (N, 3, H, W): what the label head is linear in.

        C is the encoder's `label_channels`; without labels, the channels of the deepest feature map. The model should
        be in eval mode.
        """
        maps = self.encoder(image)
        return self.heads["label"].pooled(maps) if "label" in self.heads else maps[-1].float().mean(dim=(2, 3))

    @torch.inference_mode()
    def heat_map(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Grad-CAM of a class on the deepest feature map (Selvaraju et al. 2017, arXiv:1610.02391).

        After a global average and one linear layer the gradient is a row of that layer's weights, so nothing is
        differentiated. The map has one cell per 16 pixels (8 in small images) instead of 32 if the encoder can refine
        it (`Encoder.refine`). The model should be in eval mode.

        Parameters
        ----------
        image : (N, 3, H, W).
        label : (N,) class to explain; None for the top-1 class.

        Returns
        -------
        (N, 1, H, W) in [0, 1], 1 at the maximum of each image; all 0 if there is no evidence for the class.

        Raises
        ------
        ValueError : the model has no labels.
        """
        if "label" not in self.heads:
            raise ValueError("Heat maps explain labels, and this model only predicts masks.")
        features, size = self.encoder(image), image.shape[-2:]
        if label is None:
            label = top_class(self.heads["label"](features, size))
        return self._heat_map(features, size, label)

    def explain(self, image: Tensor, label_of: Callable[[Tensor], Tensor] | None = top_class) -> dict[str, Tensor]:
        """The logits and their explanation, from one pass through the encoder.

        ``"heat"`` is the `heat_map`, if the model has labels; ``"unlike"`` (N,) is the percentile of `Unlike`, if that
        was fitted.

        Parameters
        ----------
        label_of : maps the logits (N, K) to the class (N,) that the heat map explains; None for no heat map.
        """
        features, size = self.encoder(image), image.shape[-2:]
        output = {name: head(features, size) for name, head in self.heads.items()}
        if label_of and "label" in output:
            output["heat"] = self._heat_map(features, size, label_of(output["label"]))
        return output | ({"unlike": self.unlike(features)} if self.unlike else {})

    def unlikeness(self, image: Tensor) -> Tensor | None:
        """The percentile (N,) by `Unlike` of images (N, 3, H, W); None if it was not fitted."""
        return self.unlike(self.encoder(image)) if self.unlike else None

    @torch.no_grad()
    def _heat_map(self, features: list[Tensor], size: tuple[int, int], label: Tensor) -> Tensor:
        deepest, stride = self.encoder.refine(features)
        first = self.encoder.first_cell(size, stride)
        return spread_cells(self.heads["label"].heat_map(deepest, label), stride, size, first)


class Classifier(Model):
    """Images (N, 3, H, W) to ``{"label": (N, n_classes)}`` logits."""

    outputs = ("label",)

    def __init__(self, n_classes: int = N_CLASSES, encoder: str = "resnet18") -> None:
        heads = {"label": LabelHead(blueprint(encoder), n_classes)}
        super().__init__(heads, {"n_classes": n_classes, "encoder": encoder})


class Segmenter(Model):
    """Images (N, 3, H, W) to ``{"mask": (N, 1, H, W)}`` logits of the lesion."""

    outputs = ("mask",)

    def __init__(self, decoder_channels: tuple[int, ...] = DECODER_CHANNELS, encoder: str = "resnet18") -> None:
        decoder_channels = tuple(decoder_channels)
        heads = {"mask": MaskDecoder(blueprint(encoder).channels, decoder_channels)}
        super().__init__(heads, {"decoder_channels": decoder_channels, "encoder": encoder})


class MultiTask(Model):
    """Images (N, 3, H, W) to ``{"label": (N, n_classes), "mask": (N, 1, H, W)}`` logits from one encoder."""

    outputs = ("label", "mask")

    def __init__(
        self,
        n_classes: int = N_CLASSES,
        decoder_channels: tuple[int, ...] = DECODER_CHANNELS,
        encoder: str = "resnet18",
    ) -> None:
        decoder_channels, plan = tuple(decoder_channels), blueprint(encoder)
        heads = {"label": LabelHead(plan, n_classes), "mask": MaskDecoder(plan.channels, decoder_channels)}
        super().__init__(heads, {"n_classes": n_classes, "decoder_channels": decoder_channels, "encoder": encoder})


MODELS = {"classification": Classifier, "segmentation": Segmenter, "multitask": MultiTask}


def new_model(task: str, n_classes: int, encoder: str) -> Model:
    """The network of a task with random weights."""
    kind = MODELS[task]
    return kind(n_classes, encoder=encoder) if "label" in kind.outputs else kind(encoder=encoder)


@cache
def operations(task: str, encoder: str) -> int:
    """Floating-point operations of a model on one image of 64 x 64 pixels."""
    from torch.utils.flop_counter import FlopCounterMode  # only needed by training

    model = MODELS[task](encoder=encoder).eval()
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    return counted.get_total_flops()


# Contents of every checkpoint; those of main.py hold more.
CHECKPOINT = {"task": str, "arguments": dict, "classes": list, "image_size": int, "weights": dict}


def load_checkpoint(path: str | Path) -> dict:
    """Content of a checkpoint: plain types and tensors, on the CPU.

    Raises
    ------
    FileNotFoundError, ValueError : no such file; not a checkpoint of this project, or damaged.
    """
    if not Path(path).is_file():
        reason = "it is a folder. Name the file in it" if Path(path).is_dir() else "no such file"
        raise FileNotFoundError(f"No checkpoint at {path}: {reason}. Train one with: python main.py")
    try:
        with zipfile.ZipFile(path) as archive:
            if name := archive.testzip():  # compares checksums, which torch.load does not
                raise ValueError(f"the checksum of {name} is wrong")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        is_state = "optimizer" in checkpoint and "history" in checkpoint
        wrong = [] if is_state else [key for key, kind in CHECKPOINT.items() if not isinstance(checkpoint[key], kind)]
    except Exception as error:  # zipfile and torch.load raise many kinds on a damaged file
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        raise ValueError(f"{path} is not a checkpoint of this project, or is damaged ({reason}).") from error
    if is_state:
        raise ValueError(
            f"{path} is a training state for --resume, not a model. Pass the run's model, such as "
            f"{Path(path).absolute().parents[1] / f'best_{Path(path).absolute().parent.name}_model.pth'}."
        )
    if wrong:
        raise ValueError(f"{path} is not a checkpoint of this project: {', '.join(wrong)} has the wrong type.")
    checkpoint["weights"] = {name: _widened(value) for name, value in checkpoint["weights"].items()}
    if checkpoint["task"] not in MODELS:
        raise ValueError(f"{path} holds a model of the unknown task {checkpoint['task']!r}.")
    if not 32 <= checkpoint["image_size"] <= MAX_SIZE:
        raise ValueError(f"{path} names an image size of {checkpoint['image_size']}; expected 32 to {MAX_SIZE} pixels.")
    if problem := _find_mismatch(**{name: checkpoint[name] for name in ("task", "arguments", "classes", "weights")}):
        raise ValueError(f"{path} is not a checkpoint of this project: {problem}.")
    channels = blueprint(checkpoint["arguments"].get("encoder", "resnet18")).channels
    if (unlike := checkpoint.get("unlike")) and (flaw := find_flaw(unlike, channels)):
        raise ValueError(f"{path} is not a checkpoint of this project: in unlike, {flaw}.")
    return checkpoint


def _widened(value):
    """Half precision becomes single; anything else stays."""
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _find_mismatch(task: str, arguments: dict, classes: list, weights: dict) -> str:
    """The first difference between weights and network, as a message; "" if there is none."""
    try:
        with torch.device("meta"):  # shapes only: nothing large is allocated before it is checked
            expected = MODELS[task](**arguments).state_dict()
    except Exception as error:
        return f"its network cannot be built from {arguments} ({error})"
    if arguments.get("n_classes", len(classes)) != len(classes):
        return f"it names {len(classes)} classes, and its network has {arguments['n_classes']}"
    for name in expected | weights:
        given, wanted = _kind(weights.get(name)), _kind(expected.get(name))
        if given != wanted:
            return f"the weights {name} are {given}, expected {wanted}"
        if not weights[name].isfinite().all():
            return f"the weights {name} are not all finite"
    return ""


def _kind(value: Tensor | None) -> str:
    """Type and shape, for messages."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else "missing" if value is None else "odd"


def build_model(checkpoint: dict, device: str | torch.device = "cpu") -> Model:
    """The trained network of what `load_checkpoint` returned, in eval mode, with its facts as attributes."""
    model = MODELS[checkpoint["task"]](**checkpoint["arguments"])
    model.load_state_dict(checkpoint["weights"])
    model.classes, model.image_size = tuple(checkpoint["classes"]), checkpoint["image_size"]
    model.temperature = checkpoint.get("calibration", {}).get("temperature", 1.0)
    if checkpoint.get("unlike"):
        model.unlike = Unlike(**checkpoint["unlike"])
    return model.to(device, memory_format=torch.channels_last).eval()


def load_model(path: str | Path, device: str | torch.device = "cpu") -> Model:
    """The trained network of a checkpoint, in eval mode, as `build_model` gives it; needs nothing but the file.

    Raises
    ------
    FileNotFoundError, ValueError : as `load_checkpoint`.
    """
    return build_model(load_checkpoint(path), device)
