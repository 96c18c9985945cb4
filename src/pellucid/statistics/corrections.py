"""Corrections for many tests at once, over the whole family that is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.errors import expected, unknown_name

CORRECTIONS = {"holm": "holm", "benjamini-hochberg": "fdr_bh"}  # our name -> statsmodels'
_TITLES = {"holm": "Holm", "benjamini-hochberg": "Benjamini–Hochberg"}


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
        from statsmodels.stats.multitest import multipletests  # a second to import

        adjusted[present] = multipletests(array[present], method=CORRECTIONS[correction])[1]
    counted = int(present.sum())
    return Adjusted(
        tuple(None if np.isnan(p) else float(p) for p in adjusted), correction, counted, len(array) - counted
    )
