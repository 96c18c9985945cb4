"""What `explain` gives: the maps, what they explain, and how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.errors import expected

_SAME = 1e-4  # two maps scaled to the same size count as one below this difference; rounding gives about 1e-6


@dataclass(frozen=True)
class Explanation:
    """Maps of B images by several methods; `dataclasses.replace(explanation, maps={...})` takes a user's own.

    Attributes:
        maps: label of a method -> (B, *S) float32 on the CPU, as the method defines them; (B, T, *S) where all
            classes were explained.
        target: (B,) class explained, -1 where a function was; (B, T) for all classes. The other two likewise.
        score: (B,) logit of that class, or the function's value.
        probability: (B,) in [0, 1]; NaN for a function.
        layer: dotted name of the layer, several joined by a comma.
        grid: spatial size of the layer's output; of the coarsest of several.
        seconds: label -> seconds in the whole call, and "forward" for the forward pass and gradient that methods share.
        layer_maps: label of a CAM -> (B, *grid) or (B, T, *grid), before the resize.
        coinciding: groups of labels whose layer maps are the same here up to scale.
        seed: what the generator of the random control was seeded with.
    """

    maps: Mapping[str, Tensor]
    target: Tensor
    score: Tensor
    probability: Tensor
    layer: str
    grid: tuple[int, ...]
    seconds: Mapping[str, float]
    layer_maps: Mapping[str, Tensor] = field(default_factory=dict)
    coinciding: tuple[tuple[str, ...], ...] = ()
    seed: int = 0


def coinciding_maps(maps: Mapping[str, Tensor], axes: int = 2) -> tuple[tuple[str, ...], ...]:
    """Groups of two or more names whose maps (..., *grid) are the same up to a positive scale for every image.

    `axes` is how many of the last axes are spatial.

    >>> one = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    >>> coinciding_maps({"a": one, "b": 3 * one, "c": 1 - one})
    (('a', 'b'),)
    """
    groups: list[tuple[Tensor, list[str]]] = []
    for name, values in maps.items():
        flat = values.reshape(-1, values.shape[-axes:].numel())
        size = flat.abs().amax(dim=1, keepdim=True)
        scaled = flat / torch.where(size == 0, 1, size)
        for first, names in groups:
            if first.shape == scaled.shape and bool(((first - scaled).abs() <= _SAME).all()):
                names.append(name)
                break
        else:
            groups.append((scaled, [name]))
    return tuple(tuple(names) for _, names in groups if len(names) > 1)


def concatenate(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of the images of several, in their order; seconds add up.

    Raises:
        InputError: no parts, or parts whose methods, layer or grid differ.
    """
    if not parts:
        raise expected("parts", "at least one explanation", "none")
    first = parts[0]
    for part in parts[1:]:
        if tuple(part.maps) != tuple(first.maps) or (part.layer, part.grid) != (first.layer, first.grid):
            raise expected(
                "parts",
                f"the same methods, layer and grid in each ({', '.join(first.maps)} at {first.layer} {first.grid})",
                f"{', '.join(part.maps)} at {part.layer} {part.grid}",
            )
    layer_maps = {name: torch.cat([part.layer_maps[name] for part in parts]) for name in first.layer_maps}
    return Explanation(
        maps={name: torch.cat([part.maps[name] for part in parts]) for name in first.maps},
        target=torch.cat([part.target for part in parts]),
        score=torch.cat([part.score for part in parts]),
        probability=torch.cat([part.probability for part in parts]),
        layer=first.layer,
        grid=first.grid,
        seconds={name: sum(part.seconds[name] for part in parts) for name in first.seconds},
        layer_maps=layer_maps,
        coinciding=coinciding_maps(layer_maps, len(first.grid)),
        seed=first.seed,
    )
