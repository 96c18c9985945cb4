"""Wilcoxon's signed ranks of paired scores, with the rank-biserial correlation and the typical difference."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pellucid.errors import unknown_name
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import Sides, TestResult, check_confidence, sides_of
from pellucid.statistics.units import FloatArray, UnitIds
from pellucid.statistics.wording import count

ZEROS = ("wilcox", "pratt")
_EXACT = 50  # units up to which the null distribution is counted out, as SciPy and R do
_HALVINGS = 200


@comparison("wilcoxon", source="Wilcoxon 1945; Pratt 1959")
def wilcoxon(
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str = "image",
    *,
    zeros: Literal["wilcox", "pratt"] = "wilcox",
    confidence: float = 0.95,
) -> TestResult:
    """Wilcoxon's signed-rank test, which asks for symmetric differences alone.

    Args:
        a, b: (N,) scores of the two sides; NaN is missing.
        units: patient id per row, within which scores are averaged first, or the word for what each row is.
        zeros: units without a difference are left out before ranking ("wilcox") or after it ("pratt").
        confidence: of both intervals.

    Returns:
        A TestResult. Its statistic is the sum of the ranks of the units where a is higher (R's V); the p-value is
        SciPy's, exact up to 50 units without ties. The difference is the Hodges–Lehmann one, the median of the means
        of any two units, which has an interval from 6 units on at 95 %. The effect is the matched-pairs rank-biserial
        correlation, from −1 to 1: the share of ranks that favour a less the share that favours b; its interval is
        Wilson's with as many draws as give the correlation the variance of the signed ranks, so that it is there and
        within bounds where all units favour one side.

    Raises:
        InputError: for shapes that don't fit or infinite scores; UnknownNameError for an unknown way with zeros.

    Source: Wilcoxon 1945; Pratt 1959; Hodges & Lehmann 1963; Kerby 2014 (effect); Wilson 1927 (its interval).

    >>> result = wilcoxon([0.9, 0.8, 0.7, 0.9, 0.6, 0.8], [0.8, 0.85, 0.5, 0.6, 0.2, 0.2])
    >>> result.statistic, round(result.p_value, 3), round(result.effect_size, 3), round(result.mean_difference, 3)
    (20.0, 0.062, 0.905, 0.25)
    """
    check_confidence(confidence)
    if zeros not in ZEROS:
        raise unknown_name("way with zeros", zeros, ZEROS)
    sides = sides_of(a, b, units)
    answer = sides.unanswerable()
    kind = {"measure": "median", "effect": "rank-biserial correlation"}
    if answer:
        return TestResult(**sides.fields("wilcoxon", confidence, **answer, **kind))
    differences = _tied(sides)
    found = stats.wilcoxon(differences, zero_method=zeros)
    ranks = stats.rankdata(np.abs(differences if zeros == "pratt" else differences[differences != 0]))
    signs = np.sign(differences if zeros == "pratt" else differences[differences != 0])
    ranks = np.where(signs == 0, 0.0, ranks)
    low, high, reason = _typical_interval(differences, sides.unit, confidence)
    effect = float((signs * ranks).sum() / ranks.sum())
    return TestResult(
        **sides.fields(
            "wilcoxon",
            confidence,
            reason=" ".join(part for part in (_without(differences, sides.unit, zeros), reason) if part),
            statistic=float(ranks[signs > 0].sum()),
            p_value=float(found.pvalue),
            mean_a=float(np.median(sides.scores[:, 0])),
            mean_b=float(np.median(sides.scores[:, 1])),
            mean_difference=_typical(differences),
            interval=None if low is None or high is None else (low, high),
            effect_size=effect,
            effect_interval=_effect_interval(effect, ranks, confidence),
            **kind,
        )
    )


def _tied(sides: Sides) -> FloatArray:
    """The differences, sizes that differ through rounding alone made equal, so that they are ties."""
    differences = sides.difference
    sizes = np.abs(differences)
    order = sizes.argsort(kind="stable")
    ascending = sizes[order]
    ascending[ascending <= sides.rounding] = 0.0
    starts = np.flatnonzero(np.diff(ascending, prepend=-np.inf) > sides.rounding)
    group = np.searchsorted(starts, np.arange(len(sizes)), side="right") - 1
    equal = np.empty_like(sizes)
    equal[order] = ascending[starts][group]
    return np.asarray(np.sign(differences) * equal)


def _without(differences: FloatArray, unit: str, zeros: str) -> str:
    none = int((differences == 0).sum())
    if not none:
        return ""
    when = "before" if zeros == "wilcox" else "after"
    return f"{none} of {count(len(differences), unit)} without a difference left out {when} ranking."


def _typical(differences: FloatArray) -> float:
    """Hodges–Lehmann: the median of the means of any two units, each with itself too."""
    ordered = np.sort(differences)
    pairs = len(ordered) * (len(ordered) + 1) // 2
    middle = [_pair_mean(ordered, rank) for rank in {(pairs + 1) // 2, pairs // 2 + 1}]
    return float(np.mean(middle))


def _typical_interval(differences: FloatArray, unit: str, confidence: float) -> tuple[float | None, float | None, str]:
    """The pair means whose rank the null distribution reaches at either tail."""
    n, tail = len(differences), (1 - confidence) / 2
    total = n * (n + 1) / 2
    if n <= _EXACT:
        chances = _signed_rank_chances(n).cumsum()
        rank = int(np.searchsorted(chances, tail * (1 + 1e-12)))
        if chances[0] > tail:
            return None, None, f"{count(n, unit)} only: too few for a {100 * confidence:g} % interval."
        rank = max(rank, 1)
    else:
        rank = max(1, round(total / 2 - stats.norm.isf(tail) * np.sqrt(total * (2 * n + 1) / 12)))
    ordered = np.sort(differences)
    return _pair_mean(ordered, rank), 0.0 - _pair_mean(np.sort(-differences), rank), ""


def _signed_rank_chances(n: int) -> FloatArray:
    """Chance of each sum of signed ranks, 0 to n(n + 1)/2, when every rank's sign is a coin's."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return chances


def _pair_mean(ordered: FloatArray, rank: int) -> float:
    """The rank-th smallest mean of two of the ordered values, found by halving, so that no list of pairs is held."""
    places = np.arange(len(ordered))

    def reached(mean: float) -> bool:
        upto = np.searchsorted(ordered, 2 * mean - ordered, side="right")
        return int(np.maximum(upto - places, 0).sum()) >= rank

    low, high = float(ordered[0]), float(ordered[-1])
    if reached(low):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if reached(middle) else (middle, high)
    partners = np.searchsorted(ordered, 2 * high - ordered).clip(max=len(ordered) - 1)
    near = np.concatenate([ordered + ordered[partners], ordered + ordered[np.maximum(partners - 1, 0)]]) / 2
    return float(near[np.abs(near - high).argmin()])  # the mean itself, without what halving left


def _effect_interval(effect: float, ranks: FloatArray, confidence: float) -> tuple[float, float]:
    """Wilson's interval of (1 + effect) / 2, at no effect as wide as the signed ranks are."""
    draws = float(ranks.sum() ** 2 / (ranks**2).sum())
    found = _wilson((1 + effect) / 2, draws, confidence)
    return 2 * found[0] - 1, 2 * found[1] - 1


def _wilson(share: float, draws: float, confidence: float) -> tuple[float, float]:
    z = float(stats.norm.isf((1 - confidence) / 2))
    middle = (share + z**2 / (2 * draws)) / (1 + z**2 / draws)
    reach = z / (1 + z**2 / draws) * np.sqrt(share * (1 - share) / draws + z**2 / (4 * draws**2))
    return max(0.0, min(share, float(middle - reach))), min(1.0, max(share, float(middle + reach)))
