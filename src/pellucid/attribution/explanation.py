"""What `explain` gives: the maps, what they explain, and how they came about."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, overload

import torch
from torch import Tensor

from pellucid.errors import expected, unknown_name

if TYPE_CHECKING:
    from pellucid.attribution.shown import Shown

_SAME = 1e-4  # two maps scaled to the same size count as one below this difference; rounding gives about 1e-6


@dataclass(frozen=True)
class Explanation:
    """Maps of B images by several methods; `dataclasses.replace(explanation, maps={...})` takes a user's own.

    `explanation["layer-cam"]` are the maps of a method; `explanation[3]` and `explanation[2:5]` explain those images
    alone, still (1, *S) and (3, *S), with their share of the seconds. `len` counts the images.

    Attributes:
        maps: label of a method -> (B, *S) float32 on the CPU, as the method defines them; (B, T, *S) where all
            classes were explained.
        target: (B,) class explained, -1 where it isn't a class; (B, T) for all classes. The other two likewise.
        score: (B,) logit of that class, or the function's value.
        probability: (B,) in [0, 1]; NaN for a function.
        layer: dotted name of the layer, several joined by a comma.
        grid: spatial size of the layer's output; of the coarsest of several.
        seconds: label -> seconds in the whole call, and "forward" for the forward pass and gradient that methods share.
        layer_maps: label of a CAM -> (B, *grid) or (B, T, *grid), before the resize.
        coinciding: groups of labels whose layer maps are the same here up to scale.
        seed: what the generator was seeded with; -1 where each image was given a seed.
        seeds: (B,) the seed of each image's draws, with which its maps come out the same again; None where unknown.
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
    seeds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)

    def __iter__(self) -> Iterator[Explanation]:
        """The explanation of each image by itself."""
        return (self[place] for place in range(len(self)))

    @overload
    def __getitem__(self, which: str) -> Tensor: ...

    @overload
    def __getitem__(self, which: SupportsIndex | slice) -> Explanation: ...

    def __getitem__(self, which: str | SupportsIndex | slice) -> Tensor | Explanation:
        """A method's maps by its label, or the explanation of one image or several by their places.

        Raises:
            InputError: a label that isn't there, with the nearest; a place that isn't, or no image at all.
        """
        if isinstance(which, str):
            if which not in self.maps:
                raise unknown_name("method in this explanation", which, self.maps)
            return self.maps[which]
        rows = torch.tensor(range(len(self))[_rows(which, len(self))], dtype=torch.long)
        if not len(rows):
            raise expected("explanation[...]", f"at least one of {len(self)} images", "none")
        layer_maps = {name: values[rows] for name, values in self.layer_maps.items()}
        return Explanation(
            maps={name: values[rows] for name, values in self.maps.items()},
            target=self.target[rows],
            score=self.score[rows],
            probability=self.probability[rows],
            layer=self.layer,
            grid=self.grid,
            seconds={name: value * len(rows) / len(self) for name, value in self.seconds.items()},
            layer_maps=layer_maps,
            coinciding=coinciding_maps(layer_maps, len(self.grid)),
            seed=self.seed,
            seeds=None if self.seeds is None else self.seeds[rows],
        )

    def save(self, path: Path | str) -> None:
        """Write it as a zarr group, whole or not at all; `pellucid.attribution.load_explanation` reads it back.

        CAMs are kept at their layer's grid. Raises as `pellucid.attribution.saved.save_explanation` does.
        """
        from pellucid.attribution.saved import save_explanation

        save_explanation(self, path)

    def shown(self, images: Tensor, classes: Sequence[str] | None = None, *, lines: bool = False) -> Shown:
        """What a notebook shows: `images` (B, C, *S), the ones explained, with the maps laid over them.

        `classes` names the network's outputs; `lines` draws contours instead of colours. Raises InputError for images
        or classes that aren't those of the explanation.
        """
        from pellucid.attribution.shown import Shown

        return Shown(self, images, classes, lines)

    def _repr_html_(self) -> str:
        from pellucid.attribution.shown import Shown

        return Shown(self)._repr_html_()


def _rows(which: SupportsIndex | slice, count: int) -> slice:
    """Which rows of `count` a place or a slice means."""
    if isinstance(which, slice):
        return which
    try:
        place = operator.index(which)
    except TypeError:
        wanted = "a method's label, an image's place or a slice of places"
        raise expected("explanation[...]", wanted, type(which).__name__) from None
    if not -count <= place < count:
        raise expected("explanation[...]", f"a place from {-count} to {count - 1}", place)
    return slice(place % count, place % count + 1)


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
    seeds = [part.seeds for part in parts if part.seeds is not None]
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
        seeds=torch.cat(seeds) if len(seeds) == len(parts) else None,
    )
