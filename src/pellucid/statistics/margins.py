"""Non-inferiority and equivalence, within a margin that was stated beforehand."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike
from scipy import stats

from pellucid.errors import expected
from pellucid.statistics.paired import dz, standard_error
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import MarginResult, check_confidence, sides_of
from pellucid.statistics.units import UnitIds


@comparison(
    "non-inferiority",
    family="non-inferiority",
    needs=("scores", "margin", "units", "overlap"),
    source="Piaggio et al. 2012",
)
def non_inferiority(
    a: ArrayLike,
    b: ArrayLike,
    margin: float,
    units: UnitIds | str = "image",
    overlap: float = 0.0,
    *,
    confidence: float = 0.95,
) -> MarginResult:
    """Whether a is worse than b by less than a margin: a one-sided t-test of a − b > −margin.

    Args:
        a, b: (N,) scores of the two sides, higher is better; NaN is missing.
        margin: the difference that would still be accepted, above 0, stated before the scores were seen.
        units: patient id per row, within which scores are averaged first, or the word for what each row is.
        overlap: n_test / n_train where rows are folds or splits, whose variance is then corrected as in
            `corrected_resampled_t`; 0 for independent units.
        confidence: 1 less the one-sided level: 0.95 tests at 5 %. The interval is that of confidence 1 − 2 · 5 %.

    Returns:
        A MarginResult. Sides that coincide are `identical`, and one pair, or a difference without spread, has no p.

    Raises:
        InputError: for a margin that isn't above 0, shapes that don't fit, or infinite scores.

    Source: Piaggio et al. 2012, CONSORT for noninferiority and equivalence trials; variance over folds: Nadeau &
        Bengio 2003.

    >>> result = non_inferiority([0.9, 0.8, 0.7, 0.9], [0.88, 0.81, 0.7, 0.9], margin=0.05)
    >>> round(result.p_value, 4), [round(bound, 3) for bound in result.interval], result.confidence
    (0.0018, [-0.012, 0.017], 0.9)
    """
    return _within("non-inferiority", a, b, margin, units, overlap, confidence)


@comparison(
    "equivalence", family="equivalence", needs=("scores", "margin", "units", "overlap"), source="Schuirmann 1987"
)
def equivalence(
    a: ArrayLike,
    b: ArrayLike,
    margin: float,
    units: UnitIds | str = "image",
    overlap: float = 0.0,
    *,
    confidence: float = 0.95,
) -> MarginResult:
    """Whether a and b differ by less than a margin either way: two one-sided t-tests, of which the weaker counts.

    Arguments and errors are `non_inferiority`'s.

    Source: Schuirmann 1987, A comparison of the two one-sided tests procedure, J. Pharmacokinetics Biopharmaceutics 15.

    >>> round(equivalence([0.9, 0.8, 0.7, 0.9], [0.88, 0.81, 0.7, 0.9], margin=0.05).p_value, 4)
    0.0024
    """
    return _within("equivalence", a, b, margin, units, overlap, confidence)


def _within(
    name: str, a: ArrayLike, b: ArrayLike, margin: float, units: UnitIds | str, overlap: float, confidence: float
) -> MarginResult:
    check_confidence(confidence)
    if not 0 < margin < float("inf"):
        raise expected("margin", "a difference above 0 that was stated beforehand", margin)
    if confidence <= 0.5:
        raise expected("confidence", "a share above 0.5, 1 less the one-sided level", confidence)
    sides, inner = sides_of(a, b, units), round(2 * confidence - 1, 12)
    kind: dict[str, Any] = {"margin": margin, "both_sides": name == "equivalence"}
    answer = sides.unanswerable() or ({"reason": sides.no_spread()} if sides.constant else None)
    if answer:
        return MarginResult(**sides.fields(name, inner, **{**answer, "p_value": None}, **kind))
    mean, error, df = standard_error(sides, overlap)
    above, below = (mean + margin) / error, (margin - mean) / error
    statistic = min(above, below) if kind["both_sides"] else above
    reach = float(stats.t.isf(1 - confidence, df)) * error
    return MarginResult(
        **sides.fields(
            name,
            inner,
            statistic=statistic,
            p_value=float(stats.t.sf(statistic, df)),
            df=df,
            interval=(mean - reach, mean + reach),
            **dz(sides, overlap, inner),
            **kind,
        )
    )
