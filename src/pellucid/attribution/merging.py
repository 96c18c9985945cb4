"""One explanation of several layers: side by side, or fused into one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pellucid.attribution.explanation import Explanation
from pellucid.attribution.families import Method
from pellucid.attribution.run import looks_at_layer
from pellucid.errors import expected
from pellucid.registry import Choice

Fusion = Literal["mean", "max"]


def merged(parts: Sequence[Explanation], choices: Sequence[Choice[Method]]) -> Explanation:
    """The explanations of several layers as one: maps made at a layer are labelled `method@layer`."""
    at_layer = {choice.label for choice in choices if looks_at_layer(choice)}
    maps: dict[str, Tensor] = {}
    layer_maps: dict[str, Tensor] = {}
    seconds = {"forward": 0.0}
    groups: list[tuple[str, ...]] = []
    for part in parts:
        label = {name: f"{name}@{part.layer}" if name in at_layer else name for name in part.maps}
        maps |= {label[name]: values for name, values in part.maps.items()}
        layer_maps |= {label[name]: values for name, values in part.layer_maps.items()}
        seconds |= {label[name]: part.seconds[name] for name in part.maps}
        seconds["forward"] += part.seconds["forward"]
        groups += [tuple(label[name] for name in group) for group in part.coinciding]
    return _together(parts, maps, layer_maps, seconds, tuple(groups))


def fused(parts: Sequence[Explanation], choices: Sequence[Choice[Method]], how: Fusion) -> Explanation:
    """The explanations of several layers as one, in which every map made at a layer is fused over the layers.

    Raises:
        InputError: no method's maps are made at a layer.
    """
    at_layer = [choice.label for choice in choices if looks_at_layer(choice)]
    if not at_layer:
        raise expected("fuse", "a method whose map is made at a layer, as CAMs are", ", ".join(parts[0].maps))
    axes = len(parts[0].grid)
    maps = {
        name: fused_maps([part.maps[name] for part in parts], how, axes) if name in at_layer else values
        for name, values in parts[0].maps.items()
    }
    seconds = {name: sum(part.seconds.get(name, 0.0) for part in parts) for name in parts[0].seconds}
    return _together(parts, maps, {}, seconds, ())


def fused_maps(maps: Sequence[Tensor], how: Fusion, axes: int) -> Tensor:
    """One map (..., *S) from a layer's each, with `axes` spatial axes: layers speak in units of their own.

    Each is divided by its largest absolute value, an empty one left empty; then their mean, or at every place the value
    of largest size with its sign.

    >>> fused_maps([torch.tensor([[1.0, 2.0]]), torch.tensor([[-30.0, 3.0]])], "max", 1)
    tensor([[-1.,  1.]])
    """
    scaled = []
    for values in maps:
        largest = values.abs().amax(dim=tuple(range(-axes, 0)), keepdim=True)
        scaled.append(values / torch.where(largest == 0, 1, largest))
    stacked = torch.stack(scaled)
    if how == "mean":
        return stacked.mean(dim=0)
    # of two equal sizes the positive one
    least, most = stacked.amin(dim=0), stacked.amax(dim=0)
    return torch.where(-least > most, least, most)


def _together(
    parts: Sequence[Explanation],
    maps: dict[str, Tensor],
    layer_maps: dict[str, Tensor],
    seconds: dict[str, float],
    coinciding: tuple[tuple[str, ...], ...],
) -> Explanation:
    first = parts[0]
    return Explanation(
        maps=maps,
        target=first.target,
        score=first.score,
        probability=first.probability,
        layer=", ".join(part.layer for part in parts),
        grid=min((part.grid for part in parts), key=lambda grid: torch.Size(grid).numel()),
        seconds=seconds,
        layer_maps=layer_maps,
        coinciding=coinciding,
        seed=first.seed,
        seeds=first.seeds,
    )
