"""One call of `explain` on a borrowed model: methods grouped by the views they share, batch after batch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pellucid.attribution.asking import cached_rows
from pellucid.attribution.capture import capture
from pellucid.attribution.explanation import Explanation, coinciding_maps
from pellucid.attribution.families import Method
from pellucid.attribution.lean import Lean
from pellucid.attribution.run import LayerRun, Part, check_finite, device_of, kept, looks_at_layer
from pellucid.attribution.targets import Target, has_several, is_placed, objective, plain_target, with_plain
from pellucid.attribution.tokens import Tokens, layer_name
from pellucid.attribution.views import Noisy, Plain, View, Views
from pellucid.attribution.voting import JOINT, VoteRun, run_at
from pellucid.errors import expected
from pellucid.progress import Advance
from pellucid.registry import Choice

_ODD = 0x9E3779B97F4A7C15  # spreads the views' numbers over the seeds


@dataclass(frozen=True)
class Call:
    """What is asked: `asked` is the model, perhaps compiled; `rows` run at once."""

    model: nn.Module
    asked: nn.Module
    choices: Sequence[Choice[Method]]
    target: Target
    rows: int
    views: Views

    def passes(self, layers: Sequence[str | Tokens]) -> int:
        """How often an image is explained by a method for these layers."""
        groups = (group for place in range(len(layers)) for group in self._groups(first=place == 0))
        return sum(len(views) * len(choices) for views, choices in groups)

    def at_layer(
        self, layer: str | Tokens, images: Tensor, seeds: Tensor, *, first: bool, advance: Advance
    ) -> Explanation:
        """The explanation at one layer; where it isn't the `first`, of the methods alone that look at a layer."""
        maps: dict[str, Tensor] = {}
        layer_maps: dict[str, Tensor] = {}
        seconds: dict[str, float] = {"forward": 0.0}
        found: list[Part] = []
        grid: tuple[int, ...] = ()
        voted: list[str] = []
        step = cached_rows(images, self.rows) if device_of(self.model) in (None, images.device) else self.rows
        if len(images) <= min(self.rows, step * 4 // 3):
            step = len(images)  # a few more than caches hold are faster at once than the rest alone
        for views, choices in self._groups(first):
            at_layer = any(map(looks_at_layer, choices))
            run = run_at(self.model, layer if at_layer else "", choices, self.rows, self.asked, advance)
            parts = []
            for start in range(0, len(images), step):
                rows = slice(start, start + step)
                parts.append(self._part(run, views, images[rows], seeds[rows], rows, len(images)))
            maps |= {label: self._together([part.maps[label] for part in parts]) for label in parts[0].maps}
            layer_maps |= {
                label: self._together([part.layer_maps[label] for part in parts]) for label in parts[0].layer_maps
            }
            seconds |= run.seconds | {"forward": seconds["forward"] + run.seconds["forward"]}
            if isinstance(run, VoteRun):
                voted += [choice.label for choice in choices if looks_at_layer(choice)]
            found = found or parts
            grid = grid or parts[0].grid
        order = [choice.label for choice in self.choices if choice.label in maps]
        layer_maps = {label: layer_maps[label] for label in order if label in layer_maps}
        return Explanation(
            maps={label: maps[label] for label in order},
            target=self._together([part.classes for part in found]),
            score=self._together([part.scores for part in found]),
            probability=self._together([part.probabilities for part in found]),
            layer=layer_name(layer),
            grid=grid,
            seconds={"forward": seconds["forward"]} | {label: seconds[label] for label in order},
            layer_maps=layer_maps,
            coinciding=coinciding_maps(layer_maps or {label: maps[label] for label in voted}, len(grid)),
        )

    def _groups(self, first: bool) -> list[tuple[list[View], list[Choice[Method]]]]:
        """The methods that are run, by the views that they share; others than CAMs don't depend on the layer."""
        groups: list[tuple[list[View], list[Choice[Method]]]] = []
        for choice in self.choices:
            if first or looks_at_layer(choice):
                views = self.views.smoothed(choice.options.get("smooth"))
                for shared, choices in groups:
                    if shared == views:
                        choices.append(choice)
                        break
                else:
                    groups.append((views, [choice]))
        return groups

    def _part(
        self, run: LayerRun | VoteRun, views: list[View], images: Tensor, seeds: Tensor, rows: slice, whole: int
    ) -> Part:
        """What the methods say of a batch, which has the places `rows` of the `whole` call's."""
        if len(views) == 1 and isinstance(views[0], Plain):
            return run.explain(images, self.target, rows, seeds)
        if is_placed(self.target) and not all(isinstance(view, Plain | Noisy) for view in views):
            wanted = "a target without a region or a box where views move the image, as windows, flips and scales do"
            raise expected("target", wanted, "one with a place of its own")
        part, target = self._aim(run, images, seeds, rows, whole)
        weights = torch.zeros(images.shape[2:])
        for number, view in enumerate(views):
            seen = run.explain(view.of(images, seeds), target, rows, (seeds + number * _ODD % 2**62) % 2**62)
            part.grid = seen.grid
            weight = torch.zeros(())
            for label, values in seen.maps.items():
                placed, weight = view.back(values)
                placed = placed * weight
                part.maps[label] = part.maps[label] + placed if label in part.maps else placed
            weights = weights + weight
        part.maps = {label: total / weights for label, total in part.maps.items()}
        return part

    def _aim(
        self, run: LayerRun | VoteRun, images: Tensor, seeds: Tensor, rows: slice, whole: int
    ) -> tuple[Part, Target]:
        """The score of each image, the mean over windows, and the target that all its views share."""
        check_finite(images, rows, "images", "finite values")
        everyone = torch.arange(len(images), device=device_of(self.model) or images.device)
        plain = plain_target(self.target)
        windows = self.views.windows
        together: Any = None  # the windows' outputs added up; where those aren't classes, what is read off them
        with torch.no_grad(), run.timed("forward"):
            for view in windows:
                outputs = run.outputs(view.of(images, seeds))
                if plain is None:
                    aim = objective(self.target, outputs, rows)
                    outputs = aim.scores(outputs, everyone), aim.probabilities(outputs, everyone)
                together = outputs if together is None else tree_map(_sum, together, outputs)
        mean = together
        if len(windows) > 1:
            mean = tree_map(lambda value: value if value is None else value / len(windows), together)
        if plain is None:
            scores, probabilities = mean
            classes = torch.full_like(scores, -1)
        else:
            aim = objective(self.target, mean, rows)
            assert aim.classes is not None
            scores, probabilities, classes = aim.scores(mean, everyone), aim.probabilities(mean, everyone), aim.classes
        check_finite(scores, rows, "model", "finite scores")
        part = Part({}, {}, kept(classes, torch.long), kept(scores), kept(probabilities), ())
        if not isinstance(plain, str) or plain != "predicted":
            return part, self.target
        fixed = torch.zeros(whole, dtype=torch.long)
        fixed[rows] = part.classes[:, 0]
        return part, with_plain(self.target, fixed)

    def _together(self, values: Sequence[Tensor]) -> Tensor:
        """Values (B, T, ...) of all batches, without T where one class of each image is explained."""
        joined = torch.cat(list(values))
        return joined if has_several(self.target) else joined.squeeze(1)


@dataclass(frozen=True)
class Trial:
    """One run on copies of an image that takes as much memory as the most demanding of the methods."""

    model: nn.Module
    choices: Sequence[Choice[Method]]
    layer: str | Tokens
    sample: Tensor  # (B, C, *S)

    def __call__(self, rows: int) -> None:
        """Run on `rows` copies of the first image."""
        device = device_of(self.model) or self.sample.device
        images = self.sample[:1].to(device).repeat(rows, *(1,) * (self.sample.ndim - 1))
        needs = {need for choice in self.choices for need in choice.entry.needs}
        if "image gradients" in needs:
            leaf = images.requires_grad_()
            with contextlib.nullcontext() if "model" in needs else Lean():
                _slopes(self.model(leaf.clone()), leaf)
        elif "activations" in needs:
            tokens = self.layer if isinstance(self.layer, Tokens) else None
            captured = capture(self.model, layer_name(self.layer).partition(JOINT)[0], images, tokens=tokens)
            _slopes(captured.outputs, captured.activations)
        else:
            with torch.no_grad():
                self.model(images)


def _sum(one: object, other: object) -> object:
    """The sum of what two windows give for the same part of the output."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one + other
    if one is None and other is None:
        return None
    raise expected("model", "tensors, in dicts, tuples or lists, as its output", type(one).__name__)


def _slopes(outputs: object, leaf: Tensor) -> None:
    """The gradient of whatever the outputs hold."""
    sums = [each.float().sum() for each in tree_leaves(outputs) if isinstance(each, Tensor) and each.requires_grad]
    if sums:
        torch.autograd.grad(torch.stack(sums).sum(), leaf, allow_unused=True)
