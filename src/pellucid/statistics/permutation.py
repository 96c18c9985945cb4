"""The paired permutation test: each unit's difference might as well have had the other sign."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pellucid.errors import expected
from pellucid.statistics.paired import dz
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import TestResult, check_confidence, sides_of
from pellucid.statistics.units import FloatArray, UnitIds
from pellucid.statistics.wording import count

EXACT_UNITS = 15  # up to which all 2^n ways are gone through
_CHUNK = 2_000_000  # signs held at a time


@comparison("permutation", source="Fisher 1935; Phipson & Smyth 2010")
def permutation(
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str = "image",
    *,
    resamples: int = 9999,
    seed: int = 0,
    confidence: float = 0.95,
) -> TestResult:
    """The paired permutation test of the mean difference: signs of whole units are flipped.

    Args:
        a, b: (N,) scores of the two sides; NaN is missing.
        units: patient id per row, within which scores are averaged first, or the word for what each row is.
        resamples: random ways of flipping, where there are more than 15 units; up to there all ways are gone through.
        seed: of the random ways.
        confidence: of both intervals.

    Returns:
        A TestResult. p is the share of ways, the observed one among them, whose mean lies as far from 0; at random
        (1 + those found) / (1 + resamples). The interval holds the differences that the test, on the same ways, doesn't
        refuse; there is none where even the extreme way wouldn't be refused (up to 5 units at 95 %). The
        statistic is the mean difference.

    Raises:
        InputError: for shapes that don't fit, infinite scores, or less than one resample.

    Source: Fisher 1935, The Design of Experiments, section 21; +1: Phipson & Smyth 2010; interval: Hartigan 1969.

    >>> result = permutation([0.9, 0.8, 0.7, 0.9, 0.6, 0.8], [0.8, 0.7, 0.5, 0.6, 0.2, 0.2])
    >>> result.p_value == 2 / 64, [round(bound, 3) for bound in result.interval]
    (True, [0.1, 0.6])
    """
    check_confidence(confidence)
    if resamples < 1:
        raise expected("resamples", "at least 1", resamples)
    sides = sides_of(a, b, units)
    answer = sides.unanswerable()
    if answer:
        return TestResult(**sides.fields("permutation", confidence, **answer))
    difference = np.where(np.abs(sides.difference) <= sides.rounding, 0.0, sides.difference)
    n = len(difference)
    exact = n <= EXACT_UNITS
    totals, sizes = _all_ways(difference) if exact else _random_ways(difference, resamples, seed)
    total = float(difference.sum())
    near = 1e-10 * float(np.abs(difference).sum())  # ways that give the same sum in another order
    p = float((np.count_nonzero(np.abs(totals) >= abs(total) - near) + (not exact)) / (len(totals) + (not exact)))
    interval = _interval(totals, sizes, total, n, 1 - confidence, exact)
    notes = [] if exact else [f"{count(resamples, 'random permutation')}, seed {seed}."]
    if interval is None:
        notes.append(f"{count(n, sides.unit)} only: too few for a {100 * confidence:g} % interval.")
    if sides.constant:
        notes.append("The difference is the same everywhere, so it has no size beside its spread.")
    found: dict[str, Any] = dz(sides, 0.0, confidence)
    result = TestResult(
        **sides.fields("permutation", confidence, reason=" ".join(notes), p_value=p, interval=interval, **found)
    )
    return replace(result, statistic=result.mean_difference)


def _all_ways(difference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sum of the differences, and of the signs, for every way to flip them."""
    n = len(difference)
    flips = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    return flips @ difference, flips.sum(axis=1)


def _random_ways(difference: FloatArray, resamples: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """The same for random ways, which don't depend on the order of the units or of the two sides."""
    order = np.lexsort((difference, np.abs(difference)))
    sizes, signs = np.abs(difference[order]), np.where(difference[order] < 0, -1.0, 1.0)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(sizes))
    totals, counts = [], []
    for start in range(0, resamples, step):
        flipped = 2.0 * generator.integers(0, 2, size=(min(step, resamples - start), len(sizes))) - 1.0
        totals.append(flipped @ sizes)
        counts.append(flipped @ signs)
    return np.concatenate(totals), np.concatenate(counts)


def _interval(
    totals: FloatArray, sizes: FloatArray, total: float, n: int, level: float, exact: bool
) -> tuple[float, float] | None:
    """Shifts of all differences at which a share of more than `level` of the ways still lies as far from 0.

    A way does so up to the larger of the means of the units it flips and of those it doesn't, and down to the smaller
    (Hartigan's typical values).
    """
    kept, flipped = n + sizes, n - sizes  # twice the numbers of units
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.array([(total + totals) / kept, (total - totals) / flipped])
    always = (kept == 0) | (flipped == 0)
    upper = np.where(always, np.inf, means.max(axis=0))
    lower = np.where(always, -np.inf, means.min(axis=0))
    if not exact:  # the observed way counts as well
        upper, lower = np.append(upper, np.inf), np.append(lower, -np.inf)
    place = int(np.floor(level * len(upper) + 1e-9))
    low, high = float(np.sort(lower)[place]), float(np.sort(upper)[-1 - place])
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None
