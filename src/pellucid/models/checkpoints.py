"""Weights that say what they belong to: safetensors with a card in the metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from pellucid.errors import InputError, UnreadableFileError, expected
from pellucid.files import written_whole
from pellucid.models.boosting import BoostedFeatures, TreeShape
from pellucid.models.ensemble import Ensemble, Member, Preparation
from pellucid.models.layout import lay_out
from pellucid.models.volumes import NETWORKS as VOLUME_NETWORKS
from pellucid.models.zoo import (
    Size,
    check_architecture,
    check_size,
    create_model,
    pretrained_normalisation,
    pretrained_size,
)

_KEY = "pellucid"  # one key, since safetensors writes several in no fixed order
_ALIKE = ("classes", "channels", "intensity", "enhancement", "multi_label", "axes", "orientation", "spacing")


@dataclass(frozen=True)
class ModelCard:
    """What a weights file must say so that images can be fed to its network.

    `mean` and `std` are per channel, in units of an image scaled to [0, 1]; `normalisation` says where they
    come from ("imagenet", "data-set" or "none"), `intensity` how pixels were scaled ("dtype": by the range of their
    type, of grey DICOM by its own window; "image": from the image's own minimum to its maximum; or a window, such as
    "lung"), `enhancement` by which label they were then enhanced.
    `image_size` is the side of square pictures in pixels, or (D, H, W) in voxels where the network takes volumes;
    `orientation` and `spacing` then say how volumes are laid before it, as `pellucid.data.resample.Frame` does.

    With `multi_label` an image may have several of the classes, or none: each logit has a probability of its own.

    A network made of several has their cards in `members`; `vote` says how they are one: "soft", "weighted" and
    "accuracy" are votes, named by how their weights were found; "sum" adds logits up; "boosting" grows trees of the
    shape `trees` on the members' features. `combined` makes such a card.
    """

    architecture: str
    image_size: Size
    channels: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalisation: str
    intensity: str = "dtype"
    output_stride: int | None = None
    enhancement: str = "none"
    multi_label: bool = False
    members: tuple[ModelCard, ...] = ()
    vote: Literal["", "soft", "weighted", "accuracy", "sum", "boosting"] = ""
    trees: TreeShape | None = None
    orientation: str | None = None
    spacing: tuple[float, float, float] | None = None

    @property
    def axes(self) -> int:
        """Spatial axes of the images: 2 for pictures, 3 for volumes."""
        return 3 if isinstance(self.image_size, tuple) else 2

    @property
    def preparation(self) -> Preparation:
        """How images come to the network."""
        return Preparation(self.mean, self.std, self.image_size)

    def build(self) -> nn.Module:
        """The network with random weights."""
        if self.members:
            members = [Member(card.build(), self.preparation, card.preparation) for card in self.members]
            if self.trees is not None:
                return BoostedFeatures(members, self.trees)
            return Ensemble(members, adding=self.vote == "sum")
        return create_model(
            self.architecture,
            classes=len(self.classes),
            channels=self.channels,
            size=self.image_size,
            output_stride=self.output_stride,
        )


def combined(
    members: Sequence[ModelCard],
    vote: Literal["soft", "weighted", "accuracy", "sum", "boosting"],
    trees: TreeShape | None = None,
) -> ModelCard:
    """The card of several networks as one, to which images come as to the first of them.

    Raises:
        InputError: no network, or networks of other classes, channels, scaling of pixels or enhancement.
    """
    if not members:
        raise expected("members", "at least one network", "none")
    first = members[0]
    for other in members[1:]:
        # in steps of mm another size sees another part of a volume
        alike = (*_ALIKE, "image_size") if first.spacing is not None else _ALIKE
        for name in alike:
            if getattr(other, name) != getattr(first, name):
                raise expected("members", f"the same {name}, {getattr(first, name)}", getattr(other, name))
    joined = " + ".join(card.architecture for card in members)
    return dataclasses.replace(
        first, architecture=joined, output_stride=None, members=tuple(members), vote=vote, trees=trees
    )


def save_weights(path: Path, model: nn.Module, card: ModelCard) -> None:
    """Write the network's parameters and buffers with its card, whole or not at all; equal input, equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    metadata = {_KEY: json.dumps(_fields(card), sort_keys=True)}
    with written_whole(path) as aside:
        safetensors.torch.save_file(tensors, aside, metadata=metadata)


def _fields(card: ModelCard) -> dict[str, Any]:
    """The card for JSON; one of a single network says nothing of members, one of a plain frame nothing of that."""
    fields = dataclasses.asdict(card)
    fields = {name: value for name, value in fields.items() if name not in ("orientation", "spacing") or value}
    if not card.members:
        return {name: value for name, value in fields.items() if name not in ("members", "vote", "trees")}
    return fields | {"members": [_fields(member) for member in card.members]}


def read_card(path: Path | str) -> ModelCard:
    """The card of a weights file; raises UnreadableFileError when the file has none."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights: expected a file, got {str(path)!r}, which isn't there.")
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise UnreadableFileError(f"can't read {path} as safetensors: {error}") from error
    if _KEY not in metadata:
        raise UnreadableFileError(f"{path} carries no model card. Give the architecture by name as well.")
    try:
        return TypeAdapter(ModelCard).validate_json(metadata[_KEY])
    except ValidationError as error:
        raise UnreadableFileError(f"the model card of {path} has another form than this version reads.") from error


def load_weights(path: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, ModelCard]:
    """The network of a weights file, in evaluation mode on `device`, with its card."""
    card = read_card(path)
    return _loaded(card, read_state(path), device), card


def load_plain_weights(
    path: Path | str,
    architecture: str,
    *,
    classes: Sequence[str],
    size: Size | None = None,
    channels: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, ModelCard]:
    """The network of a state dict from elsewhere, in evaluation mode on `device`, with the card it lacks.

    Arguments:
        path: safetensors, or a torch file that loads without unpickling objects.
        architecture: a timm name, or one of a network of volumes, such as "densenet121-3d".
        classes: names in the order of the outputs.
        size: height and width of the images in pixels, that of the architecture's published weights if not given; for
            volumes (D, H, W), or one length for all three, 96 if not given.
        channels: of the images, 1 or 3; 3 if not given, 1 for volumes.
        device: where the network runs.

    Images are normalised as the architecture's published weights want it; a single channel by the mean of the three.
    Volumes are scaled from their own minimum and maximum to 0 and 1, and no further.

    Raises:
        InputError: weights that carry a card, or that don't fit the architecture.
        UnknownNameError: no such architecture.
        UnreadableFileError: the file can't be read.
    """
    path = Path(path)
    state = read_state(path)
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, framework="pt") as handle:
            if _KEY in (handle.metadata() or {}):
                raise expected("architecture", "none for weights that carry a model card", repr(architecture))
    card = untrained(architecture, classes=classes, size=size, channels=channels)
    return _loaded(card, state, device), card


def _loaded(card: ModelCard, state: dict[str, torch.Tensor], device: torch.device | str) -> nn.Module:
    model = card.build()
    load_state(model, state)
    if torch.device(device).type == "cpu":
        lay_out(model)
    return model.eval().to(device)


def untrained(
    architecture: str, *, classes: Sequence[str], size: Size | None = None, channels: int | None = None
) -> ModelCard:
    """The card of a network by its name alone.

    `size` is its published weights' where None, 96 for volumes. Pictures are normalised as the published weights want
    it; their channels are 1 or, by default, 3, and one is normalised by the mean of three. Volumes have one channel by
    default, from 0 to 1. Raises UnknownNameError for a name that isn't known.
    """
    check_architecture(architecture)
    names = tuple(classes)
    if architecture in VOLUME_NETWORKS:
        size, channels = size or 96, channels or 1
        size = (size, size, size) if isinstance(size, int) else size
        return ModelCard(architecture, size, channels, names, (0.0,) * channels, (1.0,) * channels, "none", "image")
    size = size or pretrained_size(architecture)
    check_size(architecture, size)
    mean, std = pretrained_normalisation(architecture)
    if channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return ModelCard(architecture, size, channels or 3, names, mean, std, "imagenet")


def digest(model: nn.Module) -> str:
    """A short hash of the names and values of a network's parameters and buffers, wherever they lie."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(values.view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def read_state(path: Path | str) -> dict[str, torch.Tensor]:
    """Named tensors from safetensors, or from a torch file that loads without unpickling objects."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights: expected a file, got {str(path)!r}, which isn't there.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UnreadableFileError(f"can't read weights from {path}: {str(error).splitlines()[0]}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise expected("weights", "a state dict of named tensors", type(state).__name__)
    return state


def load_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load named tensors into the network; what is missing, left over or of another shape is named."""
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    shaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    for fault, names in (("lack", missing), ("have unknown", unknown), ("have another shape for", shaped)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(f"weights: they {fault} {', '.join(names[:3])}{more}. Check the architecture's name.")
    model.load_state_dict(state)
