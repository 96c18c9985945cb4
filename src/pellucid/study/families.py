"""Families of comparisons as rows of the study's tables of tests."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import pandas as pd

from pellucid.statistics import Comparison, correct_family

Compared: TypeAlias = tuple[dict[str, Any], Comparison]
"""Where a comparison belongs (dataset, model, images, test, metric), and the comparison."""

TEST_COLUMNS = [
    "dataset", "model", "images", "test", "metric", "a", "b", "mean_difference", "low", "high", "statistic", "df",
    "p_value", "p_adjusted", "family", "effect_size", "effect_low", "effect_high", "n", "unit", "identical", "sentence",
    "of", "measure", "confidence", "effect", "margin", "note",
]  # fmt: skip


def corrected_rows(compared: Sequence[Compared], families: Sequence[Hashable], correction: str) -> pd.DataFrame:
    """A row per comparison, in the order given, its p-value corrected over all comparisons of the same family.

    Arguments:
        compared: the comparisons.
        families: the family of each.
        correction: "holm" or "benjamini-hochberg".
    """
    found: dict[int, Comparison] = {}
    for family in dict.fromkeys(families):
        places = [place for place, own in enumerate(families) if own == family]
        found.update(zip(places, correct_family([compared[p][1] for p in places], correction), strict=True))
    rows = [{**found[place].row(), **where} for place, (where, _) in enumerate(compared)]
    return pd.DataFrame(rows, columns=TEST_COLUMNS)
