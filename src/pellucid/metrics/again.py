"""Maps made again: of images that were changed a little, of another class, of a network whose weights were changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import generator_of
from pellucid.errors import expected

Change = Callable[[nn.Module], contextlib.AbstractContextManager[object]]


class Explainer(Protocol):
    """Explains images by several methods at once."""

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        """Maps (M, *S) by a method's label, of images (M, C, *S), each for the class `target` (M,) that it is given."""


LogitsOf = Callable[[Tensor], Tensor]  # (M, C, *S) -> (M, n)


@dataclass(frozen=True)
class Near:
    """R changed images of each of B, and what came of them.

    Attributes:
        images: (B, R, C, *S)
        maps: (B, R, *S) by the one method
        logits: (B, R, n)
    """

    images: Tensor
    maps: Tensor
    logits: Tensor


class Explained:
    """B explained images and a way to explain again; all methods are run at once, and what one metric asked is kept."""

    def __init__(
        self,
        model: nn.Module,
        explainer: Explainer,
        logits_of: LogitsOf,
        images: Tensor,
        target: Tensor,
        seeds: Tensor,
        draws: Tensor,
        maps: Mapping[str, Tensor],
    ) -> None:
        """Arguments.

        model: the network, borrowed.
        explainer: makes the maps.
        logits_of: logits (M, n) of rows (M, C, *S).
        images: (B, C, *S).
        target: (B,) the class explained of each.
        seeds: (B,) from which the methods drew, so that their own draws don't differ when they explain again.
        draws: (B,) from which the metrics draw.
        maps: label of a method -> (B, *S), those that can be made again.
        """
        self.model, self.explainer, self.logits_of = model, explainer, logits_of
        self.images, self.target, self.seeds, self.draws, self.maps = images, target, seeds, draws, maps
        self._known: dict[Hashable, Mapping[str, Tensor]] = {}
        self._near: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def kept(self, key: Hashable, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """What was made under this key, or is made now."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def explain(self, images: Tensor, sample: Tensor, target: Tensor | None = None) -> Mapping[str, Tensor]:
        """Maps (M, *S) of rows that derive from the images `sample`, for their classes or those of `target` (M,)."""
        classes = self.target[sample] if target is None else target
        with torch.enable_grad():
            found = self.explainer(self.model, images, classes, self.seeds[sample.cpu()])
        missing = [label for label in self.maps if label not in found]
        if missing:
            raise expected("explainer", f"maps by {', '.join(self.maps)}", f"none by {missing[0]!r}")
        return {label: found[label].to(self.images.device) for label in self.maps}


class Again:
    """One method, to be asked for its maps again; `images`, `target` and `draws` are those of `Explained`."""

    def __init__(self, explained: Explained, label: str) -> None:
        self._explained, self.label = explained, label
        self.images, self.target, self.draws = explained.images, explained.target, explained.draws

    def maps_of(self, images: Tensor, sample: Tensor) -> Tensor:
        """Maps (M, *S) of any images (M, C, *S) that derive from the images `sample` (M,); nothing is kept."""
        return self._explained.explain(images, sample)[self.label]

    def toward(self, classes: Tensor) -> Tensor:
        """Maps (B, *S) that explain other classes (B,)."""
        everyone = torch.arange(len(self.images))
        key = ("toward", tuple(classes.tolist()))
        return self._explained.kept(key, lambda: self._explained.explain(self.images, everyone, classes))[self.label]

    def logits_of(self, images: Tensor) -> Tensor:
        """The network's logits (M, n) of images (M, C, *S)."""
        return self._explained.logits_of(images)

    def near(self, change: Callable[[Tensor, torch.Generator], Tensor], name: Hashable, draws: int) -> Near:
        """R = `draws` changed versions of each image, with their maps and logits; made once for all methods.

        `change(image (C, *S), generator) -> (C, *S)` makes one of them on the CPU or where the image lies; `name` tells
        it from other changes. A version depends on the image's own seed and the draw's number alone.
        """
        explained, key = self._explained, ("near", name, draws)
        if key not in explained._near:
            rows = torch.stack(
                [
                    torch.stack([change(image, generator_of(int(seed), draw)) for draw in range(draws)])
                    for image, seed in zip(self.images, self.draws, strict=True)
                ]
            )
            explained._near[key] = rows, explained.logits_of(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        rows, logits = explained._near[key]
        sample = torch.arange(len(rows)).repeat_interleave(draws)
        maps = explained.kept(key, lambda: explained.explain(rows.flatten(0, 1), sample))[self.label]
        return Near(rows, maps.unflatten(0, rows.shape[:2]), logits)

    def changed_network(self, change: Change, name: Hashable, images: Tensor | None = None) -> Tensor:
        """Maps (B, *S) by the network inside `change(model)`, which gives it back; made once for all methods.

        `images` (M, C, *S), M a multiple R of B, are explained in the images' place: R versions of each, image by
        image; `name` tells this change, and these versions, from others.
        """
        explained = self._explained
        rows = self.images if images is None else images
        sample = torch.arange(len(self.images)).repeat_interleave(len(rows) // len(self.images))

        def make() -> Mapping[str, Tensor]:
            with change(explained.model):
                return explained.explain(rows, sample)

        return explained.kept(("network", name), make)[self.label]
