"""What a test of two sides gives, and the two sides averaged within units, which most tests start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pellucid.errors import expected
from pellucid.statistics.units import FloatArray, UnitIds, by_unit, numbers, units_of
from pellucid.statistics.wording import count

ROUNDING = 1e-6
"""Scores that differ by less than this share of the largest coincide: they are made in single precision."""


@dataclass(frozen=True)
class TestResult:
    """A test of two sides; None where there is no answer, and then `note` says why."""

    __test__ = False  # for pytest: no test case

    name: str
    statistic: float | None
    p_value: float | None
    """Two-sided unless it is of a margin; not adjusted for other tests."""
    df: float | None
    n: int
    """Pairs compared, after averaging within units; where units aren't averaged, units."""
    n_missing: int
    """Rows left out because one side has no value."""
    unit: str
    """What was paired: "patient", "image" or "fold"."""
    mean_a: float | None
    mean_b: float | None
    """Each side's score: its mean, or what `measure` names."""
    mean_difference: float | None
    """a − b: the mean difference, or that of what `measure` names."""
    interval: tuple[float, float] | None
    """Of the difference."""
    confidence: float
    effect_size: float | None
    """What `effect` names; where that is Cohen's dz, the mean difference over the differences' standard deviation."""
    effect_interval: tuple[float, float] | None
    note: str
    identical: bool = False
    """The two sides coincide to rounding."""
    measure: str = "mean"
    """What the difference is one of: "mean", "median" (of the means of two units), "AUROC" or "mean rank"."""
    effect: str = "Cohen's dz"
    covers: int = 1
    """Tests over which the p-value holds already, as Nemenyi's does over all pairs of one ranking."""

    @property
    def level(self) -> float:
        """The p-value up to which the finding counts."""
        return 1 - self.confidence


@dataclass(frozen=True)
class MarginResult(TestResult):
    """Whether a lies no further below b than a margin, or the two no further apart; p is one-sided.

    The interval has a confidence of 1 − 2 · level, so that it clears the margin where p is at most the level.
    """

    margin: float = 0.0
    both_sides: bool = False
    """Equivalence; else non-inferiority."""

    @property
    def level(self) -> float:
        """The p-value up to which the finding counts."""
        return (1 - self.confidence) / 2


@dataclass(frozen=True)
class PowerResult(TestResult):
    """What differences a sample can show; it has no p."""

    power: float = 0.8
    detectable: float | None = None
    """The true difference that the test would find with this power."""
    needed: int | None = None
    """Units it would take to find, with this power, the difference that was seen; None where more of them can't."""


@dataclass(frozen=True)
class Sides:
    """Two sides' scores, averaged within units."""

    scores: FloatArray = field(repr=False)
    """(U, 2) a and b."""
    unit: str
    n_missing: int
    note: str

    @property
    def difference(self) -> FloatArray:
        """(U,) a − b."""
        return self.scores[:, 0] - self.scores[:, 1]

    @property
    def rounding(self) -> float:
        """Differences up to this one are none."""
        least = float(np.sqrt(np.finfo(np.float64).tiny))  # the squares of smaller differences vanish
        return max(ROUNDING * float(np.abs(self.scores).max(initial=0.0)), least)

    @property
    def constant(self) -> bool:
        """Whether the difference is the same in all units."""
        return bool(np.ptp(self.difference) <= self.rounding)

    @property
    def all(self) -> str:
        """The units in words: "all 5 folds"."""
        n = len(self.scores)
        return f"the only {self.unit}" if n == 1 else f"all {count(n, self.unit)}"

    def fields(self, name: str, confidence: float, reason: str = "", **found: Any) -> dict[str, Any]:
        """The fields of a result, those that `found` doesn't give being empty or the sides' own."""
        n = len(self.scores)
        means = self.scores.mean(axis=0).tolist() if n else (None, None)
        empty = dict.fromkeys(("statistic", "p_value", "df", "interval", "effect_size", "effect_interval"))
        return {
            **empty,
            "name": name,
            "n": n,
            "n_missing": self.n_missing,
            "unit": self.unit,
            "mean_a": means[0],
            "mean_b": means[1],
            "mean_difference": float(self.difference.mean()) if n else None,
            "confidence": confidence,
            "note": " ".join(part for part in (reason, self.note) if part),
            **found,
        }

    def unanswerable(self) -> dict[str, Any] | None:
        """What to say where no test can be made: no pair, sides that coincide, or one pair; None where one can."""
        n = len(self.scores)
        if n == 0:
            return {"reason": "No pair has a score on both sides."}
        if np.abs(self.difference).max() <= self.rounding:
            return {"reason": f"Identical: the scores coincide in {self.all}.", "p_value": 1.0, "identical": True}
        if n == 1:
            return {"reason": f"One {self.unit} only: a difference can't be held against its spread."}
        return None

    def no_spread(self) -> str:
        """What to say of a difference that is the same in all units."""
        return f"The difference is the same in {self.all}, so there is no spread to hold it against."


def sides_of(a: ArrayLike, b: ArrayLike, units: UnitIds | str) -> Sides:
    """Pair two sides, leave out rows where either is NaN, and average within units.

    Raises:
        InputError: for shapes that don't fit, infinite scores, or ids that don't fit.
    """
    left, right = numbers("a", a), numbers("b", b)
    if left.ndim != 1 or left.shape != right.shape:
        raise expected("a, b", "two vectors of equal length, a row per sample", f"shapes {left.shape}, {right.shape}")
    both = np.column_stack([left, right])
    present = np.isfinite(both).all(axis=1)
    kept = units_of(units, len(both)).take(np.flatnonzero(present))
    means, found = by_unit(both[present], kept)
    return Sides(means, found.unit, int((~present).sum()), found.note)


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that isn't a share."""
    if not 0 < confidence < 1:
        raise expected("confidence", "a share between 0 and 1", confidence, do="Give 0.95 for a 95 % interval.")
