"""What a sample can show: the difference it would find with a given power, and how many units another takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from pellucid.errors import expected
from pellucid.statistics.paired import dz, standard_error
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import PowerResult, check_confidence, sides_of
from pellucid.statistics.units import UnitIds

_MOST = 1_000_000  # units beyond which a number says nothing


def power_of_t(df: float, noncentrality: float, level: float) -> float:
    """Chance that a two-sided t-test finds a difference of so many standard errors.

    >>> round(power_of_t(19, 0.5 * 20**0.5, 0.05), 4)
    0.5645
    """
    edge = float(stats.t.isf(level / 2, df))
    far = abs(noncentrality)
    upper = 1 - float(special.nctdtr(df, far, edge))
    lower = float(special.nctdtr(df, far, -edge))
    return upper + (lower if np.isfinite(lower) else 0.0)


@comparison("power", family="power", needs=("scores", "units", "overlap"), source="Cohen 1988, section 2.3")
def detectable_difference(
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str = "image",
    overlap: float = 0.0,
    *,
    power: float = 0.8,
    confidence: float = 0.95,
) -> PowerResult:
    """The least true difference that the paired t-test would find, for as many units as there are and their spread.

    Args:
        a, b: (N,) scores of the two sides; NaN is missing.
        units: patient id per row, within which scores are averaged first, or the word for what each row is.
        overlap: n_test / n_train where rows are folds or splits; 0 for independent units.
        power: chance of finding it.
        confidence: 1 less the two-sided level of the test.

    Returns:
        A PowerResult: `detectable`, and `needed`, the units that would find the difference seen, were it the true
        one and the spread the same; None over folds, where more of them share more, and above a million.

    Raises:
        InputError: for a power that isn't above the level, shapes that don't fit, or infinite scores.

    Source: Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, section 2.3.

    >>> generator = np.random.default_rng(0)
    >>> result = detectable_difference(generator.normal(size=120), generator.normal(size=120), "patient")
    >>> round(result.detectable, 2), result.needed
    (0.38, 399)
    """
    check_confidence(confidence)
    level = 1 - confidence
    if not level < power < 1:
        raise expected("power", f"a chance between {level:g} and 1", power, do="Give 0.8 for 80 %.")
    sides = sides_of(a, b, units)
    answer = sides.unanswerable() or ({"reason": sides.no_spread()} if sides.constant else None)
    if answer:
        return PowerResult(**sides.fields("power", confidence, **{**answer, "p_value": None}, power=power))
    mean, error, df = standard_error(sides, overlap)
    errors = float(optimize.brentq(lambda far: power_of_t(df, far, level) - power, 0.0, _reach(df, level, power)))
    needed = _needed(abs(mean) / float(sides.difference.std(ddof=1)), level, power) if not overlap else None
    return PowerResult(
        **sides.fields(
            "power",
            confidence,
            df=df,
            **dz(sides, overlap, confidence),
            power=power,
            detectable=errors * error,
            needed=needed,
        )
    )


def _reach(df: float, level: float, power: float) -> float:
    far = 4.0
    while power_of_t(df, far, level) < power:
        far *= 2
    return far


def _needed(effect: float, level: float, power: float) -> int | None:
    """The fewest units whose paired t-test finds an effect of so many standard deviations."""

    def enough(n: int) -> bool:
        return power_of_t(n - 1, effect * float(np.sqrt(n)), level) >= power

    if effect == 0 or not enough(_MOST):
        return None
    low, high = 1, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
