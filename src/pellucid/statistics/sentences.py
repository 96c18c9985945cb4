"""A test's finding in plain words."""

from __future__ import annotations

from pellucid.statistics.corrections import adjusted_label
from pellucid.statistics.results import MarginResult, PowerResult, TestResult
from pellucid.statistics.wording import count, number, p_value, span


def told(
    first: str, second: str, result: TestResult, adjusted_p: float | None, correction: str, subject: str = ""
) -> str:
    """The finding of a test of first − second.

    Args:
        first, second: names of the two.
        result: the test's.
        adjusted_p: over its family, by `correction`; None where the test has no p.
        correction: "holm" or "benjamini-hochberg".
        subject: the class that an AUROC is of; "" for all.
    """
    if result.identical:
        return f"{first} and {second} are identical ({_units(result)})."
    if result.mean_difference is None:
        return f"{first} and {second} can't be compared: {_clause(result.note)}"
    if isinstance(result, PowerResult):
        return _power(first, second, result)
    if isinstance(result, MarginResult):
        return _margin(first, second, result, adjusted_p, correction)
    return _difference(first, second, result, adjusted_p, correction, subject)


def refused(first: str, second: str, test: str, reason: str) -> str:
    """That a test wasn't made, and why."""
    return f"{first} and {second} aren't compared by {test}: {_clause(reason)}"


def _difference(
    first: str, second: str, result: TestResult, adjusted_p: float | None, correction: str, subject: str
) -> str:
    difference = result.mean_difference or 0.0
    higher, lower = (first, second) if difference >= 0 else (second, first)
    size = number(abs(difference))
    verb, more = {
        "mean": ("scores", "higher"),
        "median": ("typically scores", "higher"),
        "AUROC": ("has an AUROC" + (f" for “{subject}”" if subject else ""), "higher"),
        "mean rank": ("ranks", "places better"),
    }[result.measure]
    if adjusted_p is None:
        return f"{higher} {verb} {size} {more} than {lower}, but that can't be tested: {_clause(result.note)}"
    evidence = f"{_p(result, adjusted_p, correction)}, {_units(result)}"
    if result.interval is not None:
        low, high = result.interval if difference >= 0 else (-result.interval[1], -result.interval[0])
        evidence = f"{span(low, high, result.confidence)}, {evidence}"
    if adjusted_p <= result.level + 1e-12:
        return f"{higher} {verb} {size} {more} than {lower} ({evidence})."
    return f"No difference can be shown between {higher} and {lower}: {higher} {verb} {size} {more} ({evidence})."


def _margin(first: str, second: str, result: MarginResult, adjusted_p: float | None, correction: str) -> str:
    if result.both_sides:
        claim = f"{first} and {second} differ by less than {result.margin:g}"
    else:
        claim = f"{first} is not worse than {second} by more than {result.margin:g}"
    if adjusted_p is None or result.interval is None:
        return f"It can't be tested whether {claim}: {_clause(result.note)}"
    evidence = (
        f"difference {number(result.mean_difference or 0.0)}, {span(*result.interval, result.confidence)}, "
        f"{_p(result, adjusted_p, correction)}, {_units(result)}"
    )
    if adjusted_p <= result.level + 1e-12:
        return f"{claim} ({evidence})."
    return f"It can't be shown that {claim} ({evidence})."


def _power(first: str, second: str, result: PowerResult) -> str:
    if result.detectable is None:
        return f"What difference between {first} and {second} could be found can't be said: {_clause(result.note)}"
    said = (
        f"With {_units(result)} a difference of {number(result.detectable)} between {first} and {second} "
        f"would be found {10 * result.power:.3g} times out of 10."
    )
    if result.needed is not None and result.needed > result.n:
        said += (
            f" The difference seen, {number(abs(result.mean_difference or 0.0))}, "
            f"would take {result.needed:,} {result.unit}s."
        )
    return said


def _p(result: TestResult, adjusted_p: float, correction: str) -> str:
    alone = result.covers > 1 and adjusted_p == result.p_value
    return p_value(adjusted_p, "Nemenyi's p" if alone else adjusted_label(correction))


def _units(result: TestResult) -> str:
    return count(result.n, result.unit)


def _clause(note: str) -> str:
    """A note's sentence as the end of another."""
    return note[:1].lower() + note[1:]
