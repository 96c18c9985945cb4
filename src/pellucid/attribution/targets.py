"""Which score is explained: from a network's output to the scores of the explained classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import expected

ScoreFunction = Callable[[Any], Tensor]
Reading = Callable[[Any, Tensor], Tensor]  # outputs of M rows and the image of each (M,) -> (M,) or (M, T)


class Aim(ABC):
    """A target that is told which image each row of an output derives from; `pellucid.attribution.aims` has several."""

    @property
    def plain(self) -> str | int | Tensor | None:
        """Which classes are explained, as a target without an aim says it; None where it isn't classes."""
        return None

    def with_plain(self, target: Tensor) -> Aim:
        """The same aim at other classes, where it explains classes."""
        return self

    @property
    def placed(self) -> bool:
        """Whether it belongs to a place in the image, and so can't serve for a view that moves the image."""
        return False

    @abstractmethod
    def objective(self, outputs: Any, rows: slice) -> Objective:
        """What is explained of the images `rows` of the whole call, given the network's outputs for them."""

    def check(self, images: int, axes: int) -> None:  # noqa: B027 - most have nothing to check
        """Raise InputError where this can't be the target for so many images with so many spatial axes."""


Target = str | int | Tensor | ScoreFunction | Aim


def class_logits(outputs: object) -> Tensor:
    """A network's output as logits (M, n) with n ≥ 2; a single logit z counts as the two classes (-z, z).

    Raises InputError when the output isn't a float tensor (M,) or (M, n).

    >>> class_logits(torch.tensor([[3.0]]))
    tensor([[-3., 3.]])
    """
    if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2) or not outputs.is_floating_point():
        raise expected(
            "model",
            "one row of logits per image as its output",
            described(outputs),
            do=(
                f"Pass target= a function from the output to one score per image{_such_as(outputs)}, "
                "or one of pellucid.attribution.aims."
            ),
        )
    logits = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
    return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


def class_probabilities(outputs: object) -> Tensor:
    """Probabilities (M, n) of the classes: softmax, or the sigmoid for a single logit.

    >>> class_probabilities(torch.tensor([0.0]))
    tensor([[0.5000, 0.5000]])
    """
    logits = class_logits(outputs)
    single = isinstance(outputs, Tensor) and (outputs.ndim == 1 or outputs.shape[1] == 1)
    return logits.sigmoid() if single else logits.softmax(dim=1)


def _such_as(outputs: object) -> str:
    """How such a function may read the first tensor that an output holds."""
    if isinstance(outputs, Mapping):
        parts = {f"[{key!r}]": part for key, part in outputs.items()}
    elif isinstance(outputs, tuple | list):
        parts = {f"[{place}]": part for place, part in enumerate(outputs)}
    else:
        parts = {f".{name}": part for name, part in getattr(outputs, "__dict__", {}).items()}
    held = next((way for way, part in parts.items() if isinstance(part, Tensor) and part.ndim == 2), None)
    return "" if held is None else f", such as lambda output: output{held}[:, 0]"


def described(value: object) -> str:
    """A value's shape and type in few words."""
    return f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


@dataclass(frozen=True)
class Objective:
    """What is explained of each of a batch of B images: T classes, or T scores that are read off the output.

    `read` and `probability` are given outputs and the image that each row derives from; `logits` finds in an output the
    logits (M, n) of all classes, where classes are explained.
    """

    classes: Tensor | None  # (B, T)
    read: Reading | None = None
    probability: Reading | None = None
    logits: Callable[[Any], Tensor] = class_logits

    def scores(self, outputs: object, sample: Tensor) -> Tensor:
        """Scores (M, T) of outputs whose row j derives from image `sample[j]`.

        Raises InputError when a function doesn't give one score per row.
        """
        if self.read is not None:
            return self._checked(self.read(outputs, sample), sample)
        assert self.classes is not None
        return self.logits(outputs).gather(1, self.classes[sample])

    def rivals(self, outputs: object, count: int) -> Tensor:
        """The classes (B, T, R) with logits nearest to each explained one's, R being `count` or all that there are.

        Raises InputError where a function is explained, which has no classes beside it.
        """
        if self.classes is None:
            wanted = "classes, beside which the nearest others stand"
            raise expected("target", wanted, "a function", do="Methods with rivals, as 'finer-cam', compare classes.")
        logits = self.logits(outputs).detach()
        if logits.shape[1] < 2:
            raise expected("model", "at least two classes, of which methods with rivals compare the nearest", "one")
        own = self.classes.unsqueeze(2)
        apart = (logits.unsqueeze(1) - logits.gather(1, self.classes).unsqueeze(2)).abs()
        apart = apart.scatter(2, own, torch.inf)
        return apart.argsort(dim=2, stable=True)[:, :, : min(count, logits.shape[1] - 1)]

    def probabilities(self, outputs: object, sample: Tensor) -> Tensor:
        """Probabilities (M, T) of what is explained; NaN for a function."""
        if self.probability is not None:
            return self._checked(self.probability(outputs, sample), sample)
        if self.read is None and self.classes is not None:
            return class_probabilities(outputs).gather(1, self.classes[sample])
        return torch.full((len(sample), 1), float("nan"), device=sample.device)

    def _checked(self, values: Tensor, sample: Tensor) -> Tensor:
        count = 1 if self.classes is None else self.classes.shape[1]
        if not isinstance(values, Tensor) or values.shape not in (sample.shape, (len(sample), count)):
            wanted = f"a function that gives one score for each of the output's {len(sample)} rows"
            raise expected("target", wanted, described(values))
        return values.unsqueeze(1) if values.ndim == 1 else values


def plain_target(target: Target) -> str | int | Tensor | None:
    """Which classes a target means; None where it isn't classes that it explains."""
    if isinstance(target, Aim):
        return target.plain
    return None if callable(target) else target


def with_plain(target: Target, classes: Tensor) -> Target:
    """A target that explains classes, at other ones (B,)."""
    return target.with_plain(classes) if isinstance(target, Aim) else classes


def has_several(target: Target) -> bool:
    """Whether a target asks for several scores of each image, so that maps are (B, T, *S)."""
    plain = plain_target(target)
    return isinstance(plain, str) and plain == "all"


def is_placed(target: Target) -> bool:
    """Whether a target belongs to a place in the image."""
    return isinstance(target, Aim) and target.placed


def check_target(target: Target, images: int, axes: int = 2) -> None:
    """Refuse a target that can't be one for so many images with so many spatial axes, before anything runs."""
    if isinstance(target, Aim):
        target.check(images, axes)
        return
    if isinstance(target, str):
        valid = target in ("predicted", "all")
    elif isinstance(target, Tensor):
        valid = target.shape == (images,) and not target.is_floating_point() and target.dtype != torch.bool
    else:
        valid = callable(target) or (isinstance(target, int) and not isinstance(target, bool))
    if not valid:
        wanted = f"'predicted', 'all', a class index, an integer tensor ({images},) or a function on the output"
        raise expected("target", wanted, repr(target) if isinstance(target, str) else described(target))


def objective(target: Target, outputs: object, rows: slice) -> Objective:
    """The objective of the images `rows`, given the network's output for them.

    Raises InputError for a class that the network doesn't have.
    """
    if isinstance(target, Aim):
        return target.objective(outputs, rows)
    if callable(target):
        return Objective(None, lambda outputs, _sample: target(outputs))
    return Objective(picked_classes(target, class_logits(outputs).detach(), rows))


def picked_classes(target: str | int | Tensor, logits: Tensor, rows: slice) -> Tensor:
    """Which of the logits (B, n) of the images `rows` a target means, (B, T).

    Raises InputError for a class that isn't among them.
    """
    count, n = logits.shape
    if isinstance(target, Tensor):
        classes = target[rows].clone().to(logits.device, torch.long)  # a clone, lest it was made in inference mode
    elif isinstance(target, int):
        classes = torch.full((count,), target, device=logits.device)
    elif target == "predicted":
        classes = logits.argmax(dim=1)
    else:
        return torch.arange(n, device=logits.device).expand(count, n)
    wrong = classes[(classes < 0) | (classes >= n)]
    if len(wrong):
        raise expected("target", f"classes from 0 to {n - 1}", int(wrong[0]))
    return classes.unsqueeze(1)
