"""Paired t-tests that say what was paired, how large the difference is, and what to make of degenerate input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from pellucid.errors import expected
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import Sides, TestResult, check_confidence, sides_of
from pellucid.statistics.units import UnitIds

_LARGE_T = 1e4  # beyond it the normal part of the noncentral t is lost beside the chi part


@comparison("paired-t", source="Student 1908; arXiv 2503.08420")
def paired_t(
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str = "image",
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


@comparison("corrected-resampled-t", needs=("scores", "sizes", "units"), source="Nadeau & Bengio 2003")
def corrected_resampled_t(
    a: ArrayLike,
    b: ArrayLike,
    n_train: float,
    n_test: float,
    units: UnitIds | str = "fold",
    *,
    confidence: float = 0.95,
) -> TestResult:
    """The paired t-test for scores of folds or repeated splits, whose training sets overlap.

    The variance of the mean difference is s² (1/n + n_test/n_train) in place of s²/n. The interval of dz uses the
    same factor and is approximate. Over r repeats of k folds, all r · k scores and shares (k − 1, 1) make it the
    corrected repeated k-fold cross-validation test. The correction is a heuristic: in simulations of two equal learners
    its level was at most 0.05, but up to 0.09 at 10 folds where a few images turn a learner over; the plain t's up to
    0.33.

    Args:
        a, b: (n,) scores of the two sides, one per fold or split; NaN is missing.
        n_train, n_test: size of a training and of a test set, as counts or as shares (k folds: k − 1 and 1).
        units: the word for what each row is, or ids within which rows are averaged first.
        confidence: of both intervals.

    Returns:
        A TestResult, with the same answers to degenerate input as `paired_t`.

    Raises:
        InputError: for shapes that don't fit, infinite scores, or sizes that aren't positive.

    Source: Nadeau & Bengio 2003, Inference for the generalization error, Machine Learning 52; repeats: Bouckaert &
        Frank 2004, Evaluating the replicability of significance tests, PAKDD.

    >>> a, b = [0.9, 0.8, 0.7, 0.9, 0.8], [0.8, 0.8, 0.5, 0.6, 0.7]
    >>> round(paired_t(a, b, "fold").statistic / corrected_resampled_t(a, b, 4, 1).statistic, 6)
    1.5
    """
    for argument, size in (("n_train", n_train), ("n_test", n_test)):
        if not (np.isfinite(size) and size > 0):
            raise expected(argument, "a positive number of samples or a share", size)
    return _paired("corrected-resampled-t", a, b, units, confidence, overlap=n_test / n_train)


def _paired(
    name: str, a: ArrayLike, b: ArrayLike, units: UnitIds | str, confidence: float, overlap: float
) -> TestResult:
    check_confidence(confidence)
    sides = sides_of(a, b, units)
    df = float(len(sides.scores) - 1) if len(sides.scores) > 1 else None
    answer = sides.unanswerable() or ({"reason": sides.no_spread()} if sides.constant else None)
    if answer:
        return TestResult(**sides.fields(name, confidence, **answer, df=df))
    mean, error, df = standard_error(sides, overlap)
    reach = float(stats.t.isf((1 - confidence) / 2, df)) * error
    return TestResult(
        **sides.fields(
            name,
            confidence,
            statistic=mean / error,
            p_value=float(2 * stats.t.sf(abs(mean / error), df)),
            df=df,
            interval=(mean - reach, mean + reach),
            **dz(sides, overlap, confidence),
        )
    )


def standard_error(sides: Sides, overlap: float = 0.0) -> tuple[float, float, float]:
    """Mean difference, its standard error and the degrees of freedom.

    Args:
        sides: of at least two units whose differences aren't all the same.
        overlap: n_test / n_train of folds or splits, whose training sets overlap; 0 for independent units.
    """
    difference = sides.difference
    n = len(difference)
    return float(difference.mean()), float(difference.std(ddof=1) * np.sqrt(1 / n + overlap)), float(n - 1)


def dz(sides: Sides, overlap: float, confidence: float) -> dict[str, Any]:
    """Cohen's dz and its interval, as fields of a result; none where the difference has no spread."""
    if sides.constant:
        return {}
    mean, error, df = standard_error(sides, overlap)
    scale = float(np.sqrt(1 / len(sides.scores) + overlap))  # standard error over spread
    low, high = noncentrality_interval(mean / error, df, confidence)
    return {"effect_size": mean / error * scale, "effect_interval": (low * scale, high * scale)}


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
