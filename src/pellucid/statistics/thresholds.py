"""Which classes a sample is said to have: by the largest probability, a stated threshold, or one chosen elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import expected
from pellucid.registry import Registry
from pellucid.statistics.units import FloatArray, numbers

BoolArray: TypeAlias = NDArray[np.bool_]

THRESHOLD_RULES: Registry[Callable[[BoolArray, FloatArray], float]] = Registry("threshold rule")
"""From who is of the class (M,) and its probability (M,) to the threshold, one of the probabilities."""


@dataclass(frozen=True)
class Decision:
    """Which of K classes each of N samples is said to have, and by what rule."""

    rule: str
    """"argmax", "fixed", or the name of the rule that chose the thresholds."""
    said: BoolArray = field(repr=False)
    """(N, K)."""
    thresholds: FloatArray = field(repr=False)
    """(N, K) that each was held against; NaN for "argmax" and where there is none."""
    reasons: tuple[str, ...]
    """Per class why there is no threshold, "" where there is one."""

    def take(self, rows: NDArray[np.intp]) -> Decision:
        """The decisions on some of the samples."""
        return Decision(self.rule, self.said[rows], self.thresholds[rows], self.reasons)

    def span(self, k: int) -> tuple[float, float] | None:
        """Smallest and largest threshold of class `k`, which differ where several networks were pooled."""
        found = self.thresholds[:, k]
        return (float(found.min()), float(found.max())) if len(found) and np.isfinite(found).all() else None


def argmax_decision(predicted: NDArray[np.intp], k: int) -> Decision:
    """The predicted class against the rest; `predicted` (N,) positions among `k` classes.

    >>> argmax_decision(np.array([1, 0]), 2).said.tolist()
    [[False, True], [True, False]]
    """
    said = predicted[:, None] == np.arange(k)
    return Decision("argmax", said, np.full(said.shape, np.nan), ("",) * k)


def decide(rule: str, probabilities: ArrayLike, thresholds: ArrayLike, reasons: Sequence[str] = ()) -> Decision:
    """Say that a sample has a class where its probability is at least the threshold.

    Args:
        rule: how the thresholds came about, for the result: "fixed", or a name in `THRESHOLD_RULES`.
        probabilities: (N, K) in [0, 1].
        thresholds: one for all, (K,) per class, or (N, K) where samples come from several networks; NaN where there
            is none.
        reasons: per class why there is none; as `choose_thresholds` gives them.

    Raises:
        InputError: for thresholds outside [0, 1] or of another shape.

    >>> decide("fixed", [[0.5, 0.2], [0.4, 0.9]], 0.5).said.tolist()
    [[True, False], [False, True]]
    """
    table = np.asarray(probabilities, dtype=np.float64)
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.ndim and limits.shape not in ((table.shape[1],), table.shape):
        raise expected("thresholds", f"one, ({table.shape[1]},) or {table.shape}", f"shape {limits.shape}")
    if ((limits < 0) | (limits > 1)).any():
        raise expected("thresholds", "probabilities in [0, 1]", f"{limits.min():g} to {limits.max():g}")
    limits = np.broadcast_to(limits, table.shape)
    why = tuple(reasons) or ("",) * table.shape[1]
    why = tuple(
        text or ("No threshold was given." if np.isnan(limits[:, k]).any() else "") for k, text in enumerate(why)
    )
    return Decision(rule, table >= limits, limits, why)


def choose_thresholds(truth: ArrayLike, probabilities: ArrayLike, rule: str) -> tuple[FloatArray, tuple[str, ...]]:
    """Choose a threshold per class by a rule, on samples that no result is computed from: the validation part.

    Args:
        truth: (M, K) bool, which classes each sample has.
        probabilities: (M, K) in [0, 1].
        rule: a name in `THRESHOLD_RULES`.

    Returns:
        Thresholds (K,), to be used as "at least", NaN where the samples allow none, and per class the reason or "".

    Raises:
        UnknownNameError: for another rule.
        InputError: for shapes that don't fit.

    >>> choose_thresholds([[True], [True], [False], [False]], [[0.9], [0.4], [0.6], [0.1]], "sensitivity-0.9")
    (array([0.4]), ('',))
    """
    entry = THRESHOLD_RULES[rule]
    true, table = np.asarray(truth, dtype=bool), numbers("probabilities", probabilities)
    if true.ndim != 2 or true.shape != table.shape:
        raise expected("truth, probabilities", "two tables (M, K)", f"shapes {true.shape}, {table.shape}")
    values, reasons = np.full(table.shape[1], np.nan), []
    for k in range(table.shape[1]):
        reasons.append(_unfit(true[:, k], entry.needs))
        if not reasons[-1]:
            values[k] = entry.function(true[:, k], table[:, k])
    return values, tuple(reasons)


@THRESHOLD_RULES.register("youden", family="chosen", source="Youden 1950, Cancer 3", needs=("positives", "negatives"))
def youden(positive: BoolArray, scores: FloatArray) -> float:
    """The threshold with the largest sensitivity plus specificity; of several the lowest, which misses least."""
    candidates, tp, fp = _counted(positive, scores)
    gain = tp * (~positive).sum() - fp * positive.sum()  # whole numbers, so that ties are ties
    return float(candidates[np.flatnonzero(gain == gain.max())[0]])


@THRESHOLD_RULES.register(
    "sensitivity-0.9",
    family="chosen",
    source="a stated sensitivity: Zweig & Campbell 1993, Clinical Chemistry 39",
    needs=("positives",),
)
def sensitivity_of_nine_tenths(positive: BoolArray, scores: FloatArray) -> float:
    """The highest threshold with a sensitivity of at least 0.9."""
    candidates, tp, _ = _counted(positive, scores)
    enough = 10 * tp >= 9 * positive.sum()  # in whole numbers, since 0.9 isn't a binary fraction
    return float(candidates[np.flatnonzero(enough)[-1]])


def _counted(positive: BoolArray, scores: FloatArray) -> tuple[FloatArray, NDArray[np.intp], NDArray[np.intp]]:
    """Distinct scores, ascending, and how many of the class and of the others reach each."""
    candidates = np.unique(scores)
    of_class, others = np.sort(scores[positive]), np.sort(scores[~positive])
    tp = len(of_class) - np.searchsorted(of_class, candidates, side="left")
    fp = len(others) - np.searchsorted(others, candidates, side="left")
    return candidates, tp, fp


def _unfit(positive: BoolArray, needs: Sequence[str]) -> str:
    if not positive.any():
        return "No threshold could be chosen: the validation part has no sample of the class."
    if "negatives" in needs and positive.all():
        return "No threshold could be chosen: in the validation part every sample is of the class."
    return ""
