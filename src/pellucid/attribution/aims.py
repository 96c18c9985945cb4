"""Targets beyond the class of an image, for `explain(target=...)`.

Each says what is explained where an output isn't one row of class logits per image. Those that differ from image to
image, as a region or a box does, stay with the image when rows are perturbed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.attribution.targets import (
    Aim,
    Objective,
    Target,
    check_target,
    described,
    is_placed,
    objective,
    picked_classes,
    plain_target,
    with_plain,
)
from pellucid.errors import expected

Boxes = Sequence[Mapping[str, Tensor]] | Mapping[str, Tensor]


def at(key: str | int, target: Target = "predicted") -> Aim:
    """Another target, of one part of an output that is a dict, a tuple, a list or an object with attributes.

    Arguments:
        key: of a dict, the place in a tuple or list, or the name of an attribute.
        target: any that `explain` takes, another aim included: `at("out", class_over_region(2))`.

    Raises:
        InputError: when it is used, for an output without that part.

    >>> at("logits", 1).objective({"logits": torch.tensor([[0.0, 3.0]])}, slice(0, 1)).classes
    tensor([[1]])
    """
    return _At(key, target)


def class_over_region(index: int, region: Tensor | None = None, *, mean: bool = False) -> Aim:
    """A class's logits of a segmentation (B, n, *S), summed over a region of each image.

    Arguments:
        index: the class.
        region: bool, (*S) for all images or (B, *S) for each its own, at the output's resolution. None takes where
            the class has the largest logit (a single one: is above 0) for the image as it is, also where rows are
            perturbed; an image that has it nowhere has score 0 and an empty map.
        mean: the mean instead of the sum.

    Raises:
        InputError: a region that isn't bool, that is empty, or that doesn't fit the images; when it is used, another
            form of output.
    """
    if region is not None and (not isinstance(region, Tensor) or region.dtype != torch.bool):
        raise expected("region", "a bool tensor (*S) or (B, *S)", described(region))
    return _ClassOverRegion(index, region, mean)


def box_score(box: Tensor | Sequence[float], label: int | None = None) -> Aim:
    """The score of the detected box that overlaps most with a given one, by intersection over union; 0 if none does.

    Outputs may be what torchvision's detectors give, a dict of `boxes` (K, 4), `scores` (K,) and `labels` (K,) per
    row, or the tensors of a head before boxes are dropped: a dict of `boxes` (M, K, 4) and `scores` (M, K) or
    (M, K, n), and `labels` (M, K) if any. Scores without a threshold serve better: a box that a threshold drops has
    no gradient.

    Arguments:
        box: (4,) for all images or (B, 4) for each its own: left, top, right, bottom, as the outputs' are.
        label: count only boxes with this label; of scores (M, K, n) the column, needed there.

    Raises:
        InputError: a box of another shape; when it is used, another form of output.
    """
    boxes = torch.as_tensor(box, dtype=torch.float32)
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4 or not bool((boxes[..., 2:] > boxes[..., :2]).all()):
        wanted = "left, top, right, bottom, (4,) or (B, 4), right above left and bottom above top"
        raise expected("box", wanted, described(boxes) if boxes.shape[-1:] != (4,) else boxes.tolist())
    return _BoxScore(boxes, label)


def output_at(index: int | tuple[int, ...] = 0) -> Aim:
    """One value of each row of the output as it is, as for regression.

    A network with a single output, which would count as two classes by the sigmoid, is explained by its value.

    Arguments:
        index: place in a row, (M, n); one per axis for a row with several axes. An output (M,) has the place 0.

    Raises:
        InputError: when it is used, for an output without that place.
    """
    return _OutputAt(index if isinstance(index, tuple) else (index,))


def multi_label(label: str | int | Tensor = "predicted") -> Aim:
    """Labels that don't exclude each other: each its own logit, of the output (B, n), its probability by the sigmoid.

    Arguments:
        label: "predicted" (the label of the largest logit), "all" in one pass, an index, or one per image (B,).

    Raises:
        InputError: when it is used, for another form of output or a label that isn't there.

    >>> multi_label("all").objective(torch.zeros(1, 2), slice(0, 1)).probabilities(torch.zeros(1, 2), torch.tensor([0]))
    tensor([[0.5000, 0.5000]])
    """
    return _MultiLabel(label)


@dataclass(frozen=True, eq=False)
class _At(Aim):
    key: str | int
    target: Target

    @property
    def plain(self) -> str | int | Tensor | None:
        return plain_target(self.target)

    def with_plain(self, target: Tensor) -> Aim:
        return _At(self.key, with_plain(self.target, target))

    @property
    def placed(self) -> bool:
        return is_placed(self.target)

    def check(self, images: int, axes: int) -> None:
        check_target(self.target, images, axes)

    def objective(self, outputs: Any, rows: slice) -> Objective:
        inner = objective(self.target, self._part(outputs), rows)
        return Objective(
            inner.classes,
            lambda outputs, sample: inner.scores(self._part(outputs), sample),
            lambda outputs, sample: inner.probabilities(self._part(outputs), sample),
            lambda outputs: inner.logits(self._part(outputs)),
        )

    def _part(self, outputs: Any) -> Any:
        try:
            if isinstance(outputs, Mapping):
                return outputs[self.key]
            if isinstance(outputs, tuple | list) and isinstance(self.key, int):
                return outputs[self.key]
            if isinstance(self.key, str) and not isinstance(outputs, Tensor):
                return getattr(outputs, self.key)
        except (LookupError, AttributeError):
            pass
        there = f" with {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else ""
        raise expected("target", f"an output of which {self.key!r} is a part", described(outputs) + there)


@dataclass(frozen=True, eq=False)
class _ClassOverRegion(Aim):
    index: int
    region: Tensor | None
    mean: bool

    @property
    def placed(self) -> bool:
        return self.region is not None

    def check(self, images: int, axes: int) -> None:
        if self.region is None:
            return
        if self.region.ndim not in (axes, axes + 1) or (self.region.ndim > axes and len(self.region) != images):
            wanted = f"{axes} spatial axes, and {images} rows where each image has its own"
            raise expected("region", wanted, f"shape {tuple(self.region.shape)}")
        given = self.region if self.region.ndim > axes else self.region.unsqueeze(0)
        empty = (~given.flatten(1).any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise expected("region", "at least one place in each", f"none at {', '.join(map(str, empty[:10]))}")

    def objective(self, outputs: Any, rows: slice) -> Objective:
        logits = self._logits(outputs)
        inside = self._inside(logits, rows).to(logits.dtype)
        if self.mean:
            size = inside.flatten(1).sum(dim=1).clamp(min=1)
            inside = inside / size.reshape(-1, *(1,) * (inside.ndim - 1))

        def read(outputs: Any, sample: Tensor) -> Tensor:
            return (self._logits(outputs)[:, self.index] * inside[sample]).flatten(1).sum(dim=1)

        return Objective(None, read)

    def _logits(self, outputs: Any) -> Tensor:
        if not isinstance(outputs, Tensor) or outputs.ndim < 3 or not outputs.is_floating_point():
            hint = "Pick the part that is, as with pellucid.attribution.at('out', target)."
            raise expected("model", "the logits of a segmentation (B, n, *S) as its output", described(outputs), hint)
        if not 0 <= self.index < outputs.shape[1]:
            raise expected("target", f"classes from 0 to {outputs.shape[1] - 1}", self.index)
        return outputs

    def _inside(self, logits: Tensor, rows: slice) -> Tensor:
        """The region of each image, (B, *S) bool."""
        if self.region is None:
            logits = logits.detach()
            return logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(dim=1) == self.index
        count, _, *space = logits.shape
        every = self.region.ndim == len(space)
        region = self.region.expand(count, *self.region.shape) if every else self.region[rows]
        if tuple(region.shape) != (count, *space):
            wanted = f"the output's resolution {tuple(space)}"
            raise expected("region", wanted, f"shape {tuple(self.region.shape)}", do="Resize it first.")
        return region.clone().to(logits.device)  # a clone, lest it was made in inference mode


@dataclass(frozen=True, eq=False)
class _BoxScore(Aim):
    boxes: Tensor  # (4,) or (B, 4)
    label: int | None

    @property
    def placed(self) -> bool:
        return True

    def check(self, images: int, axes: int) -> None:
        if self.boxes.ndim == 2 and len(self.boxes) != images:
            raise expected("box", f"one box, or one for each of {images} images", f"{len(self.boxes)}")

    def objective(self, outputs: Any, rows: slice) -> Objective:
        boxes = self.boxes[rows].clone() if self.boxes.ndim == 2 else None

        def read(outputs: Any, sample: Tensor) -> Tensor:
            found = list(self._found(outputs))
            wanted = self.boxes.clone().expand(len(found), 4) if boxes is None else boxes[sample.cpu()]
            if len(found) != len(sample):
                raise expected("model", f"detections for {len(sample)} rows", len(found))
            return torch.stack([_overlapping(box, *each) for box, each in zip(wanted, found, strict=True)])

        return Objective(None, read)

    def _found(self, outputs: Any) -> Sequence[tuple[Tensor, Tensor]]:
        """Boxes (K, 4) and scores (K,) of each row, those with the label."""
        if isinstance(outputs, Mapping) and {"boxes", "scores"} <= outputs.keys():
            parts = [outputs[key] for key in ("boxes", "scores", "labels") if key in outputs]
            outputs = [dict(zip(("boxes", "scores", "labels"), row, strict=False)) for row in zip(*parts, strict=True)]
        if not isinstance(outputs, list | tuple) or not all(
            isinstance(row, Mapping) and {"boxes", "scores"} <= row.keys() for row in outputs
        ):
            wanted = "a dict of boxes and scores per image, or one of tensors for all, as its output"
            raise expected("model", wanted, described(outputs), "Pass target= a function from the output to scores.")
        return [self._labelled(row) for row in outputs]

    def _labelled(self, row: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        boxes, scores = row["boxes"], row["scores"]
        if scores.ndim == 2:
            if self.label is None or not 0 <= self.label < scores.shape[1]:
                raise expected("label", f"one from 0 to {scores.shape[1] - 1}, as boxes have", self.label)
            return boxes, scores[:, self.label]
        if self.label is None:
            return boxes, scores
        if "labels" not in row:
            raise expected("model", "labels of the boxes in its output, since one is asked for", ", ".join(row))
        kept = row["labels"] == self.label
        return boxes[kept], scores[kept]


def _overlapping(box: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
    """Of boxes (K, 4) the score of the one that overlaps most with `box` (4,); 0, with a graph, where none does."""
    box = box.to(boxes)
    sides = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0)
    shared = sides.prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    overlap = (shared / (areas + (box[2:] - box[:2]).prod() - shared)).detach()
    if not len(overlap) or not float(overlap.max()):
        return scores.sum() * 0
    return scores[overlap.argmax()]


@dataclass(frozen=True)
class _OutputAt(Aim):
    index: tuple[int, ...]

    def objective(self, outputs: Any, rows: slice) -> Objective:
        return Objective(None, lambda outputs, _sample: self._value(outputs))

    def _value(self, outputs: Any) -> Tensor:
        values = outputs.unsqueeze(1) if isinstance(outputs, Tensor) and outputs.ndim == 1 else outputs
        if not isinstance(values, Tensor) or values.ndim != 1 + len(self.index) or not values.is_floating_point():
            wanted = f"a float output (B, …) with {len(self.index)} axes in each row"
            raise expected("model", wanted, described(outputs), "Give one place per axis.")
        for place, length in zip(self.index, values.shape[1:], strict=True):
            if not -length <= place < length:
                raise expected("target", f"a place in rows of shape {tuple(values.shape[1:])}", self.index)
        for place in self.index:
            values = values[:, place]
        return values


@dataclass(frozen=True, eq=False)
class _MultiLabel(Aim):
    label: str | int | Tensor

    @property
    def plain(self) -> str | int | Tensor | None:
        return self.label

    def with_plain(self, target: Tensor) -> Aim:
        return _MultiLabel(target)

    def check(self, images: int, axes: int) -> None:
        if isinstance(self.label, Aim) or callable(self.label):
            raise expected("label", "'predicted', 'all', an index or one per image", type(self.label).__name__)
        check_target(self.label, images, axes)

    def objective(self, outputs: Any, rows: slice) -> Objective:
        labels = picked_classes(self.label, _own_logits(outputs).detach(), rows)

        def chance(outputs: Any, sample: Tensor) -> Tensor:
            return _own_logits(outputs).gather(1, labels[sample]).sigmoid()

        return Objective(labels, None, chance, _own_logits)


def _own_logits(outputs: Any) -> Tensor:
    """One logit per label, (M, n); a single one is the one label's."""
    if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2) or not outputs.is_floating_point():
        raise expected("model", "one logit per label, (B, n), as its output", described(outputs))
    return outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
