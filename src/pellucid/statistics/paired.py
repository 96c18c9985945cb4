"""Paired t-tests that say what was paired, how large the difference is, and what to make of degenerate input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from pellucid.errors import expected
from pellucid.statistics.units import FloatArray, UnitIds, Units, by_unit, numbers, units_of
from pellucid.statistics.wording import count

ROUNDING = 1e-6
"""Scores that differ by less than this share of the largest coincide: they are made in single precision."""

_LARGE_T = 1e4  # beyond it the normal part of the noncentral t is lost beside the chi part


@dataclass(frozen=True)
class TestResult:
    """A paired test; None where there is no answer, and then `note` says why."""

    __test__ = False  # for pytest: no test case

    name: str
    statistic: float | None
    p_value: float | None
    """Two-sided, not adjusted for other tests."""
    df: float | None
    n: int
    """Pairs compared, after averaging within units."""
    n_missing: int
    """Rows left out because one side has no value."""
    unit: str
    """What was paired: "patient", "image" or "fold"."""
    mean_a: float | None
    mean_b: float | None
    mean_difference: float | None
    """Mean of a − b."""
    interval: tuple[float, float] | None
    """Of the mean difference."""
    confidence: float
    effect_size: float | None
    """Cohen's dz: mean difference over the standard deviation of the differences."""
    effect_interval: tuple[float, float] | None
    note: str
    identical: bool = False
    """The two sides coincide to rounding."""


def paired_t(
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | Units | str = "image",
    *,
    confidence: float = 0.95,
) -> TestResult:
    """The paired t-test, as arXiv 2503.08420 uses it.

    Args:
        a, b: (N,) scores of the two sides on the same samples; rows where either is NaN are left out and counted.
        units: patient id per row ("" unknown): scores are averaged within a patient before pairing. Or the word
            for what each row is, "image" or "fold"; k folds share training data, so `corrected_resampled_t` is the
            right test there, and this one overstates t by 1.50 at k = 5 and 1.45 at k = 10.
        confidence: of both intervals.

    Returns:
        A TestResult. Sides that coincide give p = 1 and `identical`; one pair, no pair, or differences that are
        all the same give no p and a note.

    Raises:
        InputError: for shapes that don't fit or infinite scores.

    Source: Student 1908; interval of dz by inverting the noncentral t, Cumming & Finch 2001.

    >>> result = paired_t([0.9, 0.8, 0.7, 0.9], [0.8, 0.8, 0.5, 0.6], "fold")
    >>> round(result.statistic, 3), result.df, round(result.p_value, 3), result.unit
    (2.324, 3.0, 0.103, 'fold')
    """
    return _paired("paired-t", a, b, units, confidence, overlap=0.0)


def corrected_resampled_t(
    a: ArrayLike,
    b: ArrayLike,
    n_train: float,
    n_test: float,
    units: UnitIds | Units | str = "fold",
    *,
    confidence: float = 0.95,
) -> TestResult:
    """The paired t-test for scores of folds or repeated splits, whose training sets overlap.

    The variance of the mean difference is s² (1/n + n_test/n_train) in place of s²/n. The interval of dz uses the
    same factor and is approximate.

    Args:
        a, b: (n,) scores of the two sides, one per fold or split; NaN is missing.
        n_train, n_test: size of a training and of a test set, as counts or as shares (k folds: k − 1 and 1).
        units: the word for what each row is, or ids within which rows are averaged first.
        confidence: of both intervals.

    Returns:
        A TestResult, with the same answers to degenerate input as `paired_t`.

    Raises:
        InputError: for shapes that don't fit, infinite scores, or sizes that aren't positive.

    Source: Nadeau & Bengio 2003, Inference for the generalization error, Machine Learning 52.

    >>> a, b = [0.9, 0.8, 0.7, 0.9, 0.8], [0.8, 0.8, 0.5, 0.6, 0.7]
    >>> round(paired_t(a, b, "fold").statistic / corrected_resampled_t(a, b, 4, 1).statistic, 6)
    1.5
    """
    for argument, size in (("n_train", n_train), ("n_test", n_test)):
        if not (np.isfinite(size) and size > 0):
            raise expected(argument, "a positive number of samples or a share", size)
    return _paired("corrected-resampled-t", a, b, units, confidence, overlap=n_test / n_train)


def _paired(
    name: str, a: ArrayLike, b: ArrayLike, units: UnitIds | Units | str, confidence: float, overlap: float
) -> TestResult:
    if not 0 < confidence < 1:
        raise expected("confidence", "a share between 0 and 1", confidence, do="Give 0.95 for a 95 % interval.")
    sides, unit, n_missing, note = _pairs(a, b, units)
    n = len(sides)
    means = sides.mean(axis=0) if n else (None, None)
    difference = sides[:, 0] - sides[:, 1]
    mean = float(difference.mean()) if n else None

    def result(
        p: float | None,
        reason: str,
        t: float | None = None,
        interval: tuple[float, float] | None = None,
        effect: float | None = None,
        effect_interval: tuple[float, float] | None = None,
        identical: bool = False,
    ) -> TestResult:
        return TestResult(
            name=name,
            statistic=t,
            p_value=p,
            df=float(n - 1) if n > 1 else None,
            n=n,
            n_missing=n_missing,
            unit=unit,
            mean_a=None if means[0] is None else float(means[0]),
            mean_b=None if means[1] is None else float(means[1]),
            mean_difference=mean,
            interval=interval,
            confidence=confidence,
            effect_size=effect,
            effect_interval=effect_interval,
            note=" ".join(part for part in (reason, note) if part),
            identical=identical,
        )

    if mean is None:
        return result(None, "No pair has a score on both sides.")
    least = float(np.sqrt(np.finfo(np.float64).tiny))  # the squares of smaller differences vanish
    rounding = max(ROUNDING * float(np.abs(sides).max()), least)
    if np.abs(difference).max() <= rounding:
        return result(1.0, f"Identical: the scores coincide in {_all(n, unit)}.", identical=True)
    if n == 1:
        return result(None, f"One {unit} only: a difference can't be held against its spread.")
    if np.ptp(difference) <= rounding:
        return result(None, f"The difference is the same in {_all(n, unit)}, so there is no spread to hold it against.")
    df = n - 1
    spread = float(difference.std(ddof=1))
    scale = float(np.sqrt(1 / n + overlap))  # standard error over spread
    t = mean / (spread * scale)
    reach = float(stats.t.isf((1 - confidence) / 2, df)) * spread * scale
    low, high = noncentrality_interval(t, df, confidence)
    return result(
        float(2 * stats.t.sf(abs(t), df)),
        "",
        t=t,
        interval=(mean - reach, mean + reach),
        effect=mean / spread,
        effect_interval=(low * scale, high * scale),
    )


def _pairs(a: ArrayLike, b: ArrayLike, units: UnitIds | Units | str) -> tuple[FloatArray, str, int, str]:
    """Both sides (U, 2) averaged within units, what a unit is, rows left out, and a note on the units."""
    left, right = numbers("a", a), numbers("b", b)
    if left.ndim != 1 or left.shape != right.shape:
        raise expected("a, b", "two vectors of equal length, a row per sample", f"shapes {left.shape}, {right.shape}")
    both = np.column_stack([left, right])
    present = np.isfinite(both).all(axis=1)
    kept = units_of(units, len(both)).take(np.flatnonzero(present))
    means, found = by_unit(both[present], kept)
    return means, found.unit, int((~present).sum()), found.note


def noncentrality_interval(t: float, df: float, confidence: float) -> tuple[float, float]:
    """Noncentralities δ for which the observed `t` lies at either tail of the noncentral t distribution.

    Source: Cumming & Finch 2001; for |t| above 1e4, δ = t · sqrt(χ²/df) at the tails of χ².

    >>> [round(bound, 4) for bound in noncentrality_interval(2.0, 1, 0.95)]
    [-1.1256, 5.0119]
    """
    if t < 0:
        low, high = noncentrality_interval(-t, df, confidence)
        return -high, -low
    tail = (1 - confidence) / 2
    if t > _LARGE_T:
        return float(t * np.sqrt(stats.chi2.ppf(tail, df) / df)), float(t * np.sqrt(stats.chi2.isf(tail, df) / df))
    # T ≤ t where Z ≤ t·S − δ; both parts at a quarter of the tail bracket δ, away from where nctdtr gives NaN
    z = float(stats.norm.isf(tail / 4))
    low = t * float(np.sqrt(stats.chi2.ppf(tail / 4, df) / df)) - z
    high = t * float(np.sqrt(stats.chi2.isf(tail / 4, df) / df)) + z

    def bound(probability: float) -> float:
        return float(optimize.brentq(lambda delta: float(special.nctdtr(df, delta, t)) - probability, low, high))

    return bound(1 - tail), bound(tail)


def _all(n: int, unit: str) -> str:
    return f"the only {unit}" if n == 1 else f"all {count(n, unit)}"
