"""Numbers, p-values and counts as a reader expects them in a sentence."""

from __future__ import annotations


def number(value: float, decimals: int = 3) -> str:
    """A value with `decimals` places, or two significant figures where those would show only zeros.

    >>> number(0.8631), number(-0.0312), number(0.00004), number(0.0)
    ('0.863', '−0.031', '4e-05', '0.000')
    """
    small = value != 0 and abs(value) < 0.5 * 10.0**-decimals
    text = f"{value:.2g}" if small else f"{value:.{decimals}f}"
    return text.replace("-", "−", 1) if value < 0 else text


def p_value(value: float, label: str = "p") -> str:
    """A p-value with its sign: exact to two significant figures, cut at 0.001.

    >>> p_value(0.0213), p_value(0.00002), p_value(1.0), p_value(0.4567, "Holm-adjusted p")
    ('p = 0.021', 'p < 0.001', 'p = 1', 'Holm-adjusted p = 0.46')
    """
    return f"{label} < 0.001" if value < 0.001 else f"{label} = {value:.2g}"


def count(amount: int, unit: str) -> str:
    """How many of a unit, in the singular or the plural.

    >>> count(1, "patient"), count(120, "image")
    ('1 patient', '120 images')
    """
    return f"{amount} {unit}" if amount == 1 else f"{amount} {unit}s"


def span(low: float, high: float, confidence: float) -> str:
    """An interval.

    >>> span(0.004, 0.058, 0.95)
    '95 % interval 0.004 to 0.058'
    """
    return f"{100 * confidence:g} % interval {number(low)} to {number(high)}"
