"""CAMs of an ensemble: the mean over its members of their maps of the same class, each at its own layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attribution.families import Method
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.run import LayerRun, Part, kept, looks_at_layer
from pellucid.attribution.targets import Target, plain_target, with_plain
from pellucid.attribution.tokens import Tokens, layer_name
from pellucid.errors import expected
from pellucid.models.ensemble import Ensemble
from pellucid.progress import Advance, in_parts
from pellucid.registry import Choice

JOINT = " + "  # between the layers of an ensemble's members, one of each


def joined(names: Sequence[str]) -> str:
    """One name for the layers of the members, each named within its network, which may be an ensemble itself.

    >>> joined(["layer4", "features.norm5"])
    'members.0.network.layer4 + members.1.network.features.norm5'
    """
    return JOINT.join(f"{_head(place)}{part}" for place, name in enumerate(names) for part in name.split(JOINT))


def parts_of(layer: str, ensemble: Ensemble) -> list[str]:
    """The members' layers, each named within its network, of a name such as `joined` gives.

    Raises:
        InputError: not a layer of each member, in their order.
    """
    parts = layer.split(JOINT)
    heads = [_head(place) for place in range(len(ensemble.members))]
    found = [[part.removeprefix(head) for part in parts if part.startswith(head)] for head in heads]
    names = [JOINT.join(own) for own in found]
    if not all(names) or joined(names) != layer:
        wanted = f"one layer of each of {len(heads)} members, in their order, as {heads[0] + 'NAME' + JOINT}…"
        raise expected("layer", wanted, repr(layer))
    return names


def _head(place: int) -> str:
    return f"members.{place}.network."


def vote_of_maps(maps: Sequence[Tensor], weights: Tensor, axes: int) -> Tensor:
    """The mean of maps (..., *S), one of each member, with `axes` spatial axes, by weights (M,).

    Networks speak in units of their own: each map is divided by its largest absolute value before, and the mean times
    the weighted mean of these values after, so that copies of one map give that map.

    >>> vote_of_maps([torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 40.0]])], torch.tensor([0.5, 0.5]), 1)
    tensor([[10.5000, 10.5000]])
    """
    spatial = tuple(range(-axes, 0))
    total, size = torch.zeros(()), torch.zeros(())
    for values, weight in zip(maps, weights.to(maps[0].device), strict=True):
        largest = values.abs().amax(dim=spatial, keepdim=True)
        total = total + weight * values / torch.where(largest == 0, 1, largest)
        size = size + weight * largest
    return total * size


def run_at(
    model: nn.Module,
    layer: str | Tokens,
    choices: Sequence[Choice[Method]],
    batch_size: int,
    asked: nn.Module,
    advance: Advance,
) -> LayerRun | VoteRun:
    """What explains a borrowed model at one layer, or an ensemble at one of each member."""
    if isinstance(model, Ensemble) and JOINT in layer_name(layer):
        return VoteRun(model, layer_name(layer), choices, batch_size, asked, advance)
    return LayerRun(model, layer, choices, batch_size, asked, advance)


class VoteRun:
    """As `LayerRun`, of an ensemble at one layer of each member; methods without a layer see the ensemble whole."""

    def __init__(
        self,
        ensemble: Ensemble,
        layer: str,
        choices: Sequence[Choice[Method]],
        batch_size: int,
        asked: nn.Module,
        advance: Advance,
    ) -> None:
        at_layer = [choice for choice in choices if looks_at_layer(choice)]
        others = [choice for choice in choices if not looks_at_layer(choice)]
        names = parts_of(layer, ensemble)
        self._ensemble = ensemble
        self._whole = LayerRun(ensemble, "", others, batch_size, asked, advance)

        self._runs = [
            run_at(member.network, name, at_layer, batch_size, member.network, in_parts(advance, len(names)))
            for member, name in zip(ensemble.each(), names, strict=True)
        ]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by a method's label, and "forward"."""
        labels = [*self._whole.seconds, *(label for label in self._runs[0].seconds if label != "forward")]
        runs = [self._whole, *self._runs]
        return {label: sum(run.seconds.get(label, 0.0) for run in runs) for label in labels}

    def outputs(self, images: Tensor) -> Any:
        """What the ensemble gives for images (B, C, *S), without a graph."""
        return self._whole.outputs(images)

    @contextlib.contextmanager
    def timed(self, label: str) -> Iterator[None]:
        """Add the time that the block takes."""
        with self._whole.timed(label):
            yield

    def explain(self, images: Tensor, target: Target, rows: slice, seeds: Tensor) -> Part:
        """Explain `images`, which have the places `rows` and the `seeds` (B,) in the whole call."""
        images = images.to(self._ensemble.weights.device)
        part = self._whole.explain(images, target, rows, seeds)
        target = self._shared(target, part, rows)
        found = []
        for member, run in zip(self._ensemble.each(), self._runs, strict=True):
            with torch.no_grad():
                own = member.prepare(images)
            found.append(run.explain(own, target, rows, seeds))
        size = images.shape[2:]
        for label in found[0].maps:
            maps = [resize_maps(one.layer_maps.get(label, one.maps[label]), size) for one in found]
            part.maps[label] = vote_of_maps(maps, kept(self._ensemble.weights), len(size))
        part.grid = min((one.grid for one in found), key=lambda grid: torch.Size(grid).numel())
        return part

    def _shared(self, target: Target, part: Part, rows: slice) -> Target:
        """The target for every member: where it is the predicted class, that which the ensemble predicts."""
        plain = plain_target(target)
        if not isinstance(plain, str) or plain != "predicted":
            return target
        fixed = torch.zeros(rows.start + len(part.classes), dtype=torch.long)
        fixed[rows.start :] = part.classes[:, 0]
        return with_plain(target, fixed)
