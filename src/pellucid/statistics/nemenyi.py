"""Friedman's test and Nemenyi's of every pair, as results of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from pellucid.statistics.friedman import friedman
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import TestResult
from pellucid.statistics.units import UnitIds, numbers
from pellucid.statistics.wording import number, p_value


@comparison(
    "friedman-nemenyi", family="ranks", needs=("all scores", "units"), source="Friedman 1937; Nemenyi 1963; Demšar 2006"
)
def friedman_nemenyi(
    scores: Mapping[str, ArrayLike], units: UnitIds | str = "image", *, confidence: float = 0.95
) -> dict[tuple[str, str], TestResult]:
    """Friedman's test of all arms ranked within units, and Nemenyi's of every pair.

    Args:
        scores: (N,) per arm, higher is better; NaN is missing, and its row is left out for all.
        units: patient id per row, within which scores are averaged first, or the word for what each row is.
        confidence: 1 less the level of the critical difference.

    Returns:
        A TestResult per pair. Its difference is in mean rank, above 0 where the first ranks better, and its interval
        that difference plus and minus the critical one; p is Nemenyi's, which holds for all pairs together; the
        statistic is Friedman's χ². Two arms are tested by Wilcoxon's signed ranks.

    Raises:
        InputError: for vectors of different length or infinite scores.

    Source: Friedman 1937; Nemenyi 1963; Demšar 2006, JMLR 7, section 3.2.2.

    >>> pairs = friedman_nemenyi({"a": [3, 6, 9, 2], "b": [2, 5, 8, 1], "c": [1, 4, 7, 0]}, "fold")
    >>> pairs["a", "c"].mean_difference, round(pairs["a", "c"].p_value, 3)
    (2.0, 0.013)
    """
    table = np.column_stack([numbers(f"scores[{name!r}]", values) for name, values in scores.items()])
    ranks = friedman(table, list(scores), units, alpha=1 - confidence)
    note = ranks.note
    if ranks.test == "friedman" and ranks.statistic is not None and ranks.p_value is not None:
        omnibus = f"Friedman's χ² = {number(ranks.statistic, 2)}, {p_value(ranks.p_value)}."
        note = f"{omnibus} {note}".strip()
    found = {}
    names = list(scores)
    pairs = list(combinations(range(len(names)), 2))
    for one, other in pairs:
        first, second = ranks.mean_ranks[one], ranks.mean_ranks[other]
        difference = None if first is None or second is None else second - first
        reach, interval = ranks.critical_difference, None
        if difference is not None and reach is not None and not ranks.identical:
            interval = (difference - reach, difference + reach)
        found[names[one], names[other]] = TestResult(
            name="friedman-nemenyi",
            statistic=ranks.statistic,
            p_value=None if ranks.pairwise is None else ranks.pairwise[one][other],
            df=ranks.df,
            n=ranks.n,
            n_missing=ranks.n_missing,
            unit=ranks.unit,
            mean_a=first,
            mean_b=second,
            mean_difference=difference,
            interval=interval,
            confidence=confidence,
            effect_size=difference,
            effect_interval=interval,
            note=note,
            identical=ranks.identical,
            measure="mean rank",
            effect="difference in mean rank",
            covers=len(pairs),
        )
    return found
