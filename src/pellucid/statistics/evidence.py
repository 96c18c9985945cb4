"""What is known of the arms that are compared, and what of it a test is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from pellucid.errors import InputError, expected
from pellucid.statistics.units import UnitIds, numbers


@dataclass(frozen=True)
class Evidence:
    """What is known of every arm: its scores of folds, its scores of samples, or both.

    Arms are in the same order of rows, and higher scores are better.
    """

    folds: Mapping[str, ArrayLike] = field(default_factory=dict)
    """(F,) per arm, a score per fold or split, NaN where there is none."""
    sizes: tuple[float, float] | None = None
    """Size of a fold's training and of its test set, as counts or as shares: k folds have k − 1 and 1."""
    scores: Mapping[str, ArrayLike] = field(default_factory=dict)
    """(N,) per arm, a score per sample: 1 right and 0 wrong, or any other; NaN where there is none."""
    probabilities: Mapping[str, ArrayLike] = field(default_factory=dict)
    """(N, K) per arm."""
    labels: ArrayLike | None = None
    """(N,) position of each sample's true class."""
    classes: Sequence[str] = ()
    """Names of the K classes."""
    units: UnitIds | str = "image"
    """Patient id per sample ("" unknown), or the word for what each sample is."""

    def __post_init__(self) -> None:
        for kind in ("folds", "scores", "probabilities"):
            shapes = {name: numbers(f"{kind}[{name!r}]", values).shape for name, values in getattr(self, kind).items()}
            if len(set(shapes.values())) > 1:
                raise expected(kind, "vectors of one length", str(shapes))

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of all that are compared."""
        return tuple(dict.fromkeys([*self.folds, *self.scores, *self.probabilities]))

    def by_fold(self, needs: Sequence[str]) -> bool:
        """Whether a test with such needs is one of folds."""
        return "sizes" in needs or (bool(self.folds) and ("scores" in needs or "all scores" in needs))

    def arguments(self, needs: Sequence[str], first: str, second: str, margin: float | None) -> list[object]:
        """What a test is called with; an InputError says what is missing."""
        by_fold = self.by_fold(needs)
        rows, kind = (self.folds, "folds") if by_fold else (self.scores, "images")
        found: list[object] = []
        for need in needs:
            if need == "scores":
                found += [_of(rows, arm, f"scores of {kind}") for arm in (first, second)]
            elif need == "all scores":
                found.append({arm: _of(rows, arm, f"scores of {kind}") for arm in self.arms})
            elif need == "answers":
                found += [_of(self.scores, arm, "right and wrong answers of images") for arm in (first, second)]
            elif need == "probabilities":
                found += [_of(self.probabilities, arm, "probabilities") for arm in (first, second)]
            else:
                found += self._other(need, by_fold, margin)
        return found

    def _other(self, need: str, by_fold: bool, margin: float | None) -> list[object]:
        if need == "labels":
            if self.labels is None:
                raise InputError("The images' true classes aren't given.")
            return [self.labels]
        if need == "margin":
            if margin is None:
                raise InputError("No margin was stated beforehand.")
            return [margin]
        if need == "sizes":
            if self.sizes is None:
                raise InputError("The sizes of a fold's training and test sets aren't given.")
            return list(self.sizes)
        if need == "overlap":
            return [self.sizes[1] / self.sizes[0] if by_fold and self.sizes else 0.0]
        return ["fold" if by_fold else self.units]

    def class_count(self) -> int:
        """Classes that the probabilities tell apart."""
        tables = [np.asarray(table) for table in self.probabilities.values()]
        return max((table.shape[1] for table in tables if table.ndim == 2), default=0)

    def class_name(self, place: int) -> str:
        """A class's name, or its number where there are none."""
        return str(self.classes[place]) if place < len(self.classes) else f"class {place + 1}"


def _of(rows: Mapping[str, ArrayLike], arm: str, what: str) -> ArrayLike:
    if arm not in rows:
        raise InputError(f"There are no {what} for {arm}.")
    return rows[arm]
