"""McNemar's test of two classifiers' right answers: by images, and with images clustered in patients."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from pellucid.errors import InputError, expected, unknown_name
from pellucid.statistics.paired import noncentrality_interval
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import Sides, TestResult, check_confidence, sides_of
from pellucid.statistics.units import FloatArray, UnitIds, numbers, units_of
from pellucid.statistics.wording import count

METHODS = ("exact", "asymptotic")
_FAR = 1e6  # standard errors, where there is no spread at all


@comparison("mcnemar", needs=("answers", "units"), source="McNemar 1947")
def mcnemar(
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str = "image",
    *,
    method: Literal["exact", "asymptotic"] = "exact",
    confidence: float = 0.95,
) -> TestResult:
    """McNemar's test: of the images that one side alone has right, how many are a's?

    Args:
        a, b: (N,) 1 where a side is right and 0 where it is wrong; NaN is missing.
        units: patient id per image ("" unknown), of which none may occur twice, or the word for what each row is.
        method: "exact" (binomial), or "asymptotic": χ² with 1 degree of freedom, without continuity correction.
        confidence: of both intervals.

    Returns:
        A TestResult. Its statistic is McNemar's χ² in either case. The difference is one of shares, with Tango's score
        interval, which excludes 0 where the asymptotic p lies below the level. The effect is Cohen's g, the share of
        a among the images that one side alone has right, less a half; its interval is Clopper and Pearson's.

    Raises:
        InputError: where a patient has several images: they aren't independent, and `mcnemar_clustered` is the form
            for them; for values other than 0 and 1, or shapes that don't fit.

    Source: McNemar 1947; Tango 1998, Statistics in Medicine 17 (interval).

    >>> a, b = [1] * 794 + [1] * 150 + [0] * 86, [1] * 794 + [0] * 150 + [1] * 86
    >>> round(mcnemar(a, b, method="asymptotic").statistic, 3), round(mcnemar(a, b).effect_size, 3)
    (17.356, 0.136)
    """
    check_confidence(confidence)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    refuse_clusters(units, len(numbers("a", a)), "mcnemar", "mcnemar-clustered (Durkalski 2003)")
    sides = _answers(a, b, units)
    answer = sides.unanswerable()
    if answer and len(sides.scores) != 1:
        return TestResult(**sides.fields("mcnemar", confidence, **answer, effect="Cohen's g"))
    difference = np.round(sides.difference)
    ours, theirs = int((difference > 0).sum()), int((difference < 0).sum())
    alone = ours + theirs
    if not alone:  # the only image
        return TestResult(**sides.fields("mcnemar", confidence, **(answer or {}), effect="Cohen's g"))
    statistic = (ours - theirs) ** 2 / alone
    exact = stats.binomtest(ours, alone)
    share = exact.proportion_ci(confidence)
    return TestResult(
        **sides.fields(
            "mcnemar",
            confidence,
            reason=f"Of {count(alone, sides.unit)} that one side alone has right, {ours} : {theirs}.",
            statistic=statistic,
            p_value=float(exact.pvalue) if method == "exact" else float(stats.chi2.sf(statistic, 1)),
            df=None if method == "exact" else 1.0,
            interval=tango_interval(ours, theirs, len(difference), confidence),
            effect_size=ours / alone - 0.5,
            effect_interval=(float(share.low) - 0.5, float(share.high) - 0.5),
            effect="Cohen's g",
        )
    )


@comparison("mcnemar-clustered", needs=("answers", "units"), source="Durkalski et al. 2003")
def mcnemar_clustered(
    a: ArrayLike, b: ArrayLike, units: UnitIds | str = "image", *, confidence: float = 0.95
) -> TestResult:
    """McNemar's test of images clustered in patients: each patient counts once, by the difference of its shares.

    Args:
        a, b: (N,) 1 where a side is right and 0 where it is wrong; NaN is missing.
        units: patient id per image ("" unknown), or the word for what each row is.
        confidence: of both intervals.

    Returns:
        A TestResult. With d the difference of a patient's shares, χ² = (Σd)² / Σd² with 1 degree of freedom, which is
        McNemar's where each patient has one image. The difference is the mean of d; its interval holds the values
        that the test doesn't refuse. The effect is Cohen's dz of d.

    Raises:
        InputError: for values other than 0 and 1, or shapes that don't fit.

    Source: Durkalski, Palesch, Lipsitz & Rust 2003, Analysis of clustered matched-pair data, Statistics in Medicine 22.

    >>> patients = ["p", "p", "q", "r", "r", "s"]
    >>> result = mcnemar_clustered([1, 1, 1, 1, 0, 1], [0, 1, 0, 1, 1, 0], patients)
    >>> round(result.statistic, 3), result.n, round(result.mean_difference, 3)
    (1.6, 4, 0.5)
    """
    check_confidence(confidence)
    sides = _answers(a, b, units)
    answer = sides.unanswerable()
    if answer:
        if answer.get("identical") and (numbers("a", a) != numbers("b", b)).any() and not sides.n_missing:
            answer = {"reason": f"Right answers balance within {sides.all}.", "p_value": 1.0, "statistic": 0.0}
        return TestResult(**sides.fields("mcnemar-clustered", confidence, **answer))
    difference = sides.difference
    n, z = len(difference), float(stats.norm.isf((1 - confidence) / 2))
    statistic = float(difference.sum() ** 2 / (difference**2).sum())
    mean, apart = float(difference.mean()), float(((difference - difference.mean()) ** 2).sum())
    found: dict[str, Any] = {}
    reason = ""
    if n > z**2:
        reach = z * np.sqrt(apart / (n * (n - z**2)))
        found["interval"] = (max(-1.0, float(mean - reach)), min(1.0, float(mean + reach)))
    else:
        reason = f"{count(n, sides.unit)} only: too few for a {100 * confidence:g} % interval."
    if not sides.constant:
        spread = np.sqrt(apart / (n - 1))
        low, high = noncentrality_interval(float(mean / spread * np.sqrt(n)), n - 1, confidence)
        found["effect_size"] = float(mean / spread)
        found["effect_interval"] = (float(low / np.sqrt(n)), float(high / np.sqrt(n)))
    return TestResult(
        **sides.fields(
            "mcnemar-clustered",
            confidence,
            reason=reason,
            statistic=statistic,
            p_value=float(stats.chi2.sf(statistic, 1)),
            df=1.0,
            **found,
        )
    )


def tango_interval(ours: int, theirs: int, n: int, confidence: float) -> tuple[float, float]:
    """Differences of two paired shares that the score test doesn't refuse.

    Args:
        ours, theirs: images that only the one, only the other side has right.
        n: all images.
        confidence: of the interval.

    Source: Tango 1998, Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design, Statistics in Medicine 17, 891–908.

    >>> [round(bound, 4) for bound in tango_interval(150, 86, 1600, 0.95)]
    [0.0214, 0.059]
    """
    z = float(stats.norm.isf((1 - confidence) / 2))

    def score(delta: float) -> float:
        linear = -ours - theirs + (2 * n - ours + theirs) * delta
        rest = -theirs * delta * (1 - delta)
        share = (np.sqrt(max(0.0, linear**2 - 8 * n * rest)) - linear) / (4 * n)  # theirs / n, were delta true
        spread = n * (2 * share + delta * (1 - delta))
        above = ours - theirs - n * delta
        if spread > 1e-12:
            return float(above / np.sqrt(spread))
        return 0.0 if abs(above) < 1e-9 else float(np.copysign(_FAR, above))

    middle, edge = (ours - theirs) / n, 1 - 1e-12

    def bound(target: float, far: float) -> float:
        if abs(middle - far) < 1e-9 or (score(far) - target) * (score(middle) - target) > 0:
            return float(np.sign(far))
        low, high = min(middle, far), max(middle, far)
        return float(optimize.brentq(lambda delta: score(delta) - target, low, high))

    return bound(z, -edge), bound(-z, edge)


def refuse_clusters(units: UnitIds | str, n: int, test: str, instead: str) -> None:
    """Raise an InputError that names the clustered form where a patient has several of `n` images."""
    found = units_of(units, n)
    if found.count < n:
        raise expected(
            "units",
            f"one image per {found.unit} for {test}, since images of one {found.unit} aren't independent",
            f"{count(n, 'image')} of {count(found.count, found.unit)}",
            do=f"Use {instead}, or permutation by {found.unit}.",
        )


def _answers(a: ArrayLike, b: ArrayLike, units: UnitIds | str) -> Sides:
    for argument, side in (("a", a), ("b", b)):
        values: FloatArray = numbers(argument, side)
        if not np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
            raise InputError(f"{argument}: expected 1 where the answer is right and 0 where it is wrong, got others.")
    return sides_of(a, b, units)
