"""Initial weights from a file (--start-from): a checkpoint of this project, or any state dict of the same encoder.

Files of torch.save and safetensors are read; names may have prefixes such as ``module.`` or ``backbone.``.
"""

import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from checkpoints.seen import leave_out_learned, seen_by
from dataset.splits import split_hash
from encoders.start import Start, imagenet_start
from encoders.trunk import OLD_NAME
from encoders.weights import with_sum
from models import CHECKPOINT, Model, load_checkpoint, new_model

COUNTERS = "num_batches_tracked"  # ends names of counters that nothing depends on; old files lack them
BY_CLASS = "heads.label.linear."  # tensors with a row per class
N_NAMED = 4  # tensors that a message names


@dataclass(frozen=True)
class StartFile(Start):
    """Initial weights from a file: all its tensors by their names."""

    path: Path = Path()
    checkpoint: dict = field(default_factory=dict)  # content, if this project wrote it

    @property
    def kind(self) -> str:
        """The file's name and SHA-256."""
        return self.file

    @property
    def checkpoints(self) -> dict[Path, dict]:
        """The content by the path, if this project wrote it."""
        return {self.path: self.checkpoint} if self.checkpoint else {}

    @property
    def seen_before(self) -> dict[str, dict[str, list[str]]]:
        """As `seen_by`; empty lists if unknown."""
        return seen_by(self.checkpoint)

    def cautions(self, table: pd.DataFrame, frozen: str) -> list[str]:
        """Leave out validation and test images that the weights were trained on, or say that they are not known."""
        if "trained_on" not in self.checkpoint:
            return [f"{self.file} does not record its training images: test images may be among them."]
        if self.checkpoint.get("split_hash") != split_hash(table):
            leave_out_learned(self.path, self.checkpoint, table)
        return []

    def give(self, model: nn.Module, classes: Iterable[str]) -> str:
        """Set the weights of a model of `models.py` that fit; returns a message that tells which were not taken.

        Heads are taken from checkpoints of this project alone, and the last layer of labels only for the same classes.

        Raises
        ------
        ValueError : the file is of another encoder, or lacks a layer that is frozen; the message names the layers.
        """
        ours, theirs = _weights(model.state_dict()), _weights(self.weights)
        sources = self._sources(model.arguments["encoder"], ours, theirs)
        if self.checkpoint:
            same = [*classes] == self.checkpoint["classes"]
            heads = [name for name in ours if name.startswith("heads.")]
            sources |= {name: name for name in heads if same or not name.startswith(BY_CLASS)}
        taken = {name: theirs[source] for name, source in sources.items() if _fits(theirs.get(source), ours[name])}
        missing = [
            f"{name} {_difference(theirs.get(sources.get(name, name)), value)}"
            for name, value in ours.items()
            if name not in taken
        ]
        frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
        if held := [words for words in missing if words.split()[0] in frozen]:
            raise ValueError(f"FREEZE would keep random weights: in {self.path}, {_some(held)}. Pass --freeze nothing.")
        unused = sorted(set(theirs) - {sources[name] for name in taken})
        message = f"{len(taken)} of {len(ours)} tensors are taken from {self.path.name}."
        message += f" Not taken: {_some(missing)}." if missing else ""
        model.load_state_dict(taken, strict=False)
        return message + (f" Not used: {_some(_by_head(unused))}." if unused else "")

    def _sources(self, encoder: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, str]:
        """The file's name of each tensor of the encoder, by ours; refuses another network."""
        if self.checkpoint and (other := self.checkpoint["arguments"].get("encoder", "resnet18")) != encoder:
            raise ValueError(f"{self.path} holds a model on {other}, not on {encoder}: pass --encoder {other}.")
        names = [name for name in ours if name.startswith("encoder.")]
        prefix = _common_prefix(theirs, [name.removeprefix("encoder.") for name in names])
        sources = {name: prefix + name.removeprefix("encoder.") for name in names}
        if renamed := not any(source in theirs for source in sources.values()):  # timm's names for the same network
            layer = [name for name in ours if name.startswith("heads.label.layer.")]
            sources = dict(zip([*names, *layer], theirs))
        differing = [
            f"{source} {_difference(theirs.get(source), ours[name])}"
            for name, source in sources.items()
            if not _fits(theirs.get(source), ours[name])
        ]
        stages = {source.removeprefix(prefix).split(".")[0] for source in sources.values()}
        others = [name for name in theirs if name.startswith(prefix) and name not in sources.values()]
        further = [name for name in others if name.removeprefix(prefix).split(".")[0] in stages]
        absent = any(source not in theirs for source in sources.values())
        few = absent or len(differing) > (0 if renamed else len(names) // 2) or len(sources) < len(names)
        if few or further:
            words = differing or [f"{name} is not a layer of {encoder}" for name in further] or ["it has fewer tensors"]
            sorts = renamed and self.path.suffix == ".safetensors"
            advice = "If its names are timm's, save it as .pth: .safetensors sorts tensors by name." if sorts else ""
            advice = advice or "Pass the --encoder that the weights belong to."
            raise ValueError(f"{self.path} does not fit {encoder}: {_some(words)}. {advice}")
        return sources


def choose_start(start_from: str, pretrained: str, encoder: str) -> Start:
    """The file's weights if one is named, else as `imagenet_start`. Raises as it and `read_start`."""
    return read_start(Path(start_from)) if start_from else imagenet_start(pretrained, encoder)


def initial_model(task: str, classes: tuple[str, ...], start: Start, identity: dict) -> tuple[Model, str]:
    """A model before its training, and what to say of it.

    Parameters
    ----------
    identity : settings by name: encoder, freeze, dropout, drop_path and, if set, encoder_lr_scale.

    Raises
    ------
    ValueError : the start or a setting does not fit the encoder.
    """
    if identity["freeze"] == "encoder" and (identity["drop_path"] or identity.get("encoder_lr_scale", 1) != 1):
        raise ValueError("FREEZE is encoder: DROP_PATH and ENCODER_LR_SCALE have nothing to act on. Leave them out.")
    model = new_model(task, len(classes), identity["encoder"])
    frozen = model.freeze(identity["freeze"])
    words = [start.give(model, classes), frozen]
    model.regularise(identity["dropout"], identity["drop_path"])
    return model, "\n".join(filter(None, words))


def read_start(path: Path) -> StartFile:
    """Read a file of weights.

    Raises
    ------
    FileNotFoundError, ValueError : no such file; it holds code, no tensors or values that are not finite; or as
        `load_checkpoint`, for a training state of this project or a damaged checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"START_FROM: there is no file {path}. Name a file of weights (.pth, .safetensors).")
    content = _read(path)
    own = CHECKPOINT.keys() <= content.keys() or {"optimizer", "history"} <= content.keys()  # or a training state
    checkpoint = load_checkpoint(path) if own else {}
    tensors, source = (checkpoint["weights"], "") if own else _largest_dict(content)
    if not tensors:
        raise ValueError(f"START_FROM: {path} holds no weights: expected a state dict, names to tensors.")
    if odd := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise ValueError(f"START_FROM: {path} is damaged: {odd[0]} has values that are not finite.")
    file = with_sum(path)
    return StartFile(tensors, f"The models start from {file}{source}.", file, path, checkpoint)


def _read(path: Path) -> dict:
    """The content of a file, without running code that it may hold."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise ValueError(f"START_FROM: reading {path.name} needs: pip install safetensors") from None
    except Exception as error:  # both libraries raise many kinds on a damaged file
        if isinstance(error, pickle.UnpicklingError) and "Unsupported operand" not in str(error):
            raise ValueError(
                f"START_FROM: {path} holds more than tensors and plain values, which could run code when read. "
                "Save its weights alone: torch.save(model.state_dict(), FILE)."
            ) from error
        raise ValueError(f"START_FROM: {path} is not a file of weights, or is damaged.") from error
    return content if isinstance(content, dict) else {}


def _weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {OLD_NAME.sub(r"\1", name): value for name, value in state.items() if not name.endswith(COUNTERS)}


def _largest_dict(content: dict) -> tuple[dict[str, Tensor], str]:
    """The dict with most tensors, the first of equals: the content itself, or an entry such as "state_dict".

    And a message that names the entry, and others that could have been meant.
    """
    dicts = {"": content} | {str(name): value for name, value in content.items() if isinstance(value, dict)}
    states = {
        entry: {str(name): value for name, value in one.items() if isinstance(value, Tensor)}
        for entry, one in dicts.items()
    }
    entry, *others = sorted(states, key=lambda name: len(states[name]), reverse=True)
    equal = [other for other in others if other and len(states[other]) == len(states[entry])]
    message = f", entry {entry!r}" if entry else ""
    return states[entry], message + (f" (not used: {', '.join(equal)})" if equal else "")


def _common_prefix(names: Iterable[str], wanted: Iterable[str]) -> str:
    """What stands before most of the wanted names: "" or text that ends in a dot."""
    ends, counts = set(wanted), Counter()
    for name in names:
        parts = name.split(".")
        counts.update(".".join(parts[:i]) for i in range(len(parts)) if ".".join(parts[i:]) in ends)
    prefix = counts.most_common(1)[0][0] if counts else ""
    return prefix and f"{prefix}."


def _fits(theirs: Tensor | None, ours: Tensor) -> bool:
    return theirs is not None and theirs.shape == ours.shape


def _difference(theirs: Tensor | None, ours: Tensor) -> str:
    """How a tensor of the file differs from what is expected."""
    if theirs is None:
        return "is missing"
    if theirs.shape == ours.shape:
        return "is of other classes"
    return f"is {tuple(theirs.shape)}, expected {tuple(ours.shape)}"


def _by_head(names: list[str]) -> list[str]:
    """Names, those of one head of this project as one."""
    heads = Counter(".".join(name.split(".")[:2]) for name in names if name.startswith("heads."))
    others = [name for name in names if not name.startswith("heads.")]
    return [*(f"{head} ({n} tensors)" for head, n in heads.items()), *others]


def _some(words: list[str]) -> str:
    return "; ".join(words[:N_NAMED]) + (f"; and {len(words) - N_NAMED} more" if len(words) > N_NAMED else "")
