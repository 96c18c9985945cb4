"""Corrections for many tests at once, over the whole family that is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pellucid.errors import expected, unknown_name
from pellucid.statistics.units import FloatArray

_TITLES = {"holm": "Holm", "benjamini-hochberg": "Benjamini–Hochberg"}
CORRECTIONS = tuple(_TITLES)


@dataclass(frozen=True)
class Adjusted:
    """Adjusted p-values of a family of tests."""

    p_values: tuple[float | None, ...]
    """In the order given; None where the test has no p-value."""
    correction: str
    counted: int
    """Tests in the family: those that have a p-value."""
    missing: int
    """Tests without a p-value; they stay without and aren't counted."""

    @property
    def label(self) -> str:
        """What to call such a p-value: "Holm-adjusted p"."""
        return adjusted_label(self.correction)


def adjusted_label(correction: str) -> str:
    """What to call a p-value that `correction` adjusted.

    >>> adjusted_label("benjamini-hochberg")
    'Benjamini–Hochberg-adjusted p'
    """
    return f"{_TITLES[check_correction(correction)]}-adjusted p"


def check_correction(correction: str) -> str:
    """The name, or an UnknownNameError that lists the nearest."""
    if correction not in CORRECTIONS:
        raise unknown_name("correction", correction, CORRECTIONS)
    return correction


def adjust(p_values: Sequence[float | None], correction: str = "holm") -> Adjusted:
    """Adjust a family of p-values, so that each can be held against the level of the whole family.

    Args:
        p_values: in [0, 1]; None or NaN where a test could not be made: it stays missing and isn't counted.
        correction: "holm" (Holm 1979: the chance of any false finding) or "benjamini-hochberg" (1995: the expected
            share of false ones among the findings).

    Raises:
        InputError: for a p-value outside [0, 1]; UnknownNameError for an unknown correction.

    >>> adjust([0.01, None, 0.04, 0.03]).p_values
    (0.03, None, 0.06, 0.06)
    """
    check_correction(correction)
    array = np.array([np.nan if p is None else p for p in p_values], dtype=np.float64)
    present = ~np.isnan(array)
    if ((array[present] < 0) | (array[present] > 1)).any():
        raise expected("p_values", "values in [0, 1], None where missing", str(list(p_values)))
    adjusted = array.copy()
    if present.any():
        # statsmodels has both, and collects garbage at each call, which takes a second beside torch
        correct = _holm if correction == "holm" else stats.false_discovery_control
        adjusted[present] = correct(array[present])
    counted = int(present.sum())
    return Adjusted(
        tuple(None if np.isnan(p) else float(p) for p in adjusted), correction, counted, len(array) - counted
    )


def _holm(p_values: FloatArray) -> FloatArray:
    """The i-th smallest of m times m − i + 1, at least as large as those before it, at most 1."""
    order = p_values.argsort(kind="stable")
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted
