"""Methods ranked within each patient or image: Friedman's test, Nemenyi's critical difference, and groups."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pellucid.errors import expected
from pellucid.statistics.results import ROUNDING
from pellucid.statistics.units import FloatArray, UnitIds, by_unit, numbers, units_of
from pellucid.statistics.wording import count

FEWEST_UNITS = 3  # below, no ranking of methods can be told from chance
_FEW_UNITS = 10  # below, the χ² approximation is rough


@dataclass(frozen=True)
class MethodRanks:
    """Mean ranks of methods and whether they differ; None where there is no answer, and then `note` says why."""

    test: str
    """"friedman", or "wilcoxon" for two methods."""
    methods: tuple[str, ...]
    mean_ranks: tuple[float | None, ...]
    """Per method, from 1 (best in every unit) to the number of methods; ties share their mean rank."""
    statistic: float | None
    """Friedman's χ², corrected for ties, or Wilcoxon's lesser sum of signed ranks."""
    p_value: float | None
    """That all methods rank alike; not adjusted for other tests."""
    df: float | None
    pairwise: tuple[tuple[float, ...], ...] | None
    """Nemenyi's p of every pair, which hold for all pairs together; 1 on the diagonal."""
    critical_difference: float | None
    """Mean ranks that differ by at least as much differ at `alpha`; None for two methods."""
    alpha: float
    n: int
    """Units ranked, after averaging within units."""
    n_missing: int
    """Rows left out because a method has no value there."""
    unit: str
    """What was ranked within: "patient" or "image"."""
    note: str
    identical: bool = False
    """All methods coincide to rounding in every unit."""

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Largest sets of methods, each best first, of which no two differ at `alpha`; none where nothing was tested.

        They are Nemenyi's. Whether methods differ at all is Friedman's question, to be asked first.
        """
        if self.p_value is None:
            return ()
        ranks = {name: rank for name, rank in zip(self.methods, self.mean_ranks, strict=True) if rank is not None}
        if self.critical_difference is None:
            return (tuple(sorted(ranks, key=ranks.__getitem__)),) if self.p_value > self.alpha else ()
        return groups_within(ranks, self.critical_difference)


def friedman(
    values: ArrayLike,
    methods: Sequence[str],
    units: UnitIds | str = "image",
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    test: bool = True,
) -> MethodRanks:
    """Rank methods within each unit, and test whether they differ and which do.

    Args:
        values: (N, M) a row per image, a column per method; NaN is missing. Rows where any method is missing are left
            out and counted, so that all methods are ranked over the same images. Values of a unit that differ by less
            than 1e-6 of its largest are ties.
        methods: M names.
        units: patient id per row ("" unknown): values are averaged within a patient before ranking. Or the word for
            what each row is.
        higher_is_better: whether the highest value has rank 1.
        alpha: level of the critical difference.
        test: whether to test; else the result has ranks alone, which only describe.

    Returns:
        MethodRanks. Two methods are tested by Wilcoxon's signed ranks (ties dropped), since Friedman's test is then
        the sign test, which is weaker. Methods that coincide everywhere give p = 1 and `identical`. One method, or
        fewer than 3 units, give mean ranks, no test and a note.

    Raises:
        InputError: for shapes that don't fit, infinite values, or an alpha outside (0, 1).

    Source: Friedman 1937; Nemenyi 1963; Demšar 2006, Statistical comparisons of classifiers over multiple data sets,
        JMLR 7, section 3.2.2: critical difference q · sqrt(M (M + 1) / (6 N)), q the studentised range over sqrt(2).

    >>> ranks = friedman([[3, 2, 1], [6, 5, 4], [9, 8, 7], [2, 1, 0]], ["a", "b", "c"])
    >>> ranks.mean_ranks, round(ranks.p_value, 3), round(ranks.critical_difference, 3), ranks.groups
    ((1.0, 2.0, 3.0), 0.018, 1.657, (('a', 'b'), ('b', 'c')))
    """
    if not 0 < alpha < 1:
        raise expected("alpha", "a level between 0 and 1", alpha, do="Give 0.05 for a critical difference at 5 %.")
    table = numbers("values", values)
    names = tuple(methods)
    if table.ndim != 2 or table.shape[1] != len(names) or not names:
        raise expected("values", f"a column for each of {len(names)} methods, shape (N, M)", f"shape {table.shape}")
    if len(set(names)) < len(names):
        raise expected("methods", "each name once", ", ".join(names))
    levels, unit, n_missing, note = _levels(table, units, higher_is_better)
    n, k = levels.shape

    def result(reason: str, **found: Any) -> MethodRanks:
        empty: dict[str, Any] = dict.fromkeys(("statistic", "p_value", "df", "pairwise", "critical_difference"))
        ranks = stats.rankdata(levels, axis=1).mean(axis=0).tolist() if n else [None] * k
        return MethodRanks(
            test="wilcoxon" if k == 2 else "friedman",
            methods=names,
            mean_ranks=tuple(ranks),
            alpha=alpha,
            n=n,
            n_missing=n_missing,
            unit=unit,
            note=" ".join(part for part in (reason, note) if part),
            **{**empty, **found},
        )

    if n == 0:
        absent = [name for name, column in zip(names, table.T, strict=True) if not np.isfinite(column).any()]
        without = f"; without any: {', '.join(absent)}" if absent else ""
        return result(f"No {unit} has a value of every method{without}.")
    if not test:
        return result("")
    if k == 1:
        return result("One method only: there is nothing to rank it against.")
    if n < FEWEST_UNITS:
        return result(f"{count(n, unit)} only: ranks over fewer than {FEWEST_UNITS} can't be told from chance.")
    difference = critical_difference(k, n, alpha) if k > 2 else None
    if not levels.any():
        pairwise = ((1.0,) * k,) * k
        same = f"Identical: the methods coincide in all {count(n, unit)}."
        return result(same, p_value=1.0, pairwise=pairwise, critical_difference=difference, identical=True)
    if k == 2:
        statistic, p = _wilcoxon(table, units, levels)
        return result("", statistic=statistic, p_value=p, pairwise=((1.0, p), (p, 1.0)))
    from scikit_posthocs import posthoc_nemenyi_friedman  # seconds to import

    found = stats.friedmanchisquare(*levels.T)
    pairs = posthoc_nemenyi_friedman(levels).to_numpy(dtype=np.float64)
    return result(
        f"{count(n, unit)} only: p is approximate." if n < _FEW_UNITS else "",
        statistic=float(found.statistic),
        p_value=float(found.pvalue),
        df=float(k - 1),
        pairwise=tuple(tuple(row) for row in pairs.tolist()),
        critical_difference=difference,
    )


def critical_difference(methods: int, units: int, alpha: float = 0.05) -> float:
    """Least difference between two mean ranks that Nemenyi's test calls real.

    Source: Demšar 2006, section 3.2.2 and table 5(a).

    >>> round(critical_difference(4, 14), 2), round(critical_difference(4, 14, alpha=0.1), 2)
    (1.25, 1.12)
    """
    return _studentised(alpha, methods) * math.sqrt(methods * (methods + 1) / (12 * units))


@functools.cache
def _studentised(alpha: float, methods: int) -> float:
    """The studentised range that so many normal draws exceed with chance `alpha`; slow to compute."""
    return float(stats.studentized_range.isf(alpha, methods, np.inf))


def groups_within(mean_ranks: Mapping[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    """Largest sets of at least two methods, best first, whose mean ranks all lie closer than `difference`.

    >>> groups_within({"c": 3.0, "a": 1.0, "b": 2.0}, 1.5)
    (('a', 'b'), ('b', 'c'))
    """
    order = sorted(mean_ranks, key=mean_ranks.__getitem__)
    groups: list[tuple[str, ...]] = []
    reached = 0
    for start, first in enumerate(order):
        near = [name for name in order[start:] if mean_ranks[name] - mean_ranks[first] < difference]
        if len(near) > 1 and start + len(near) > reached:
            groups.append(tuple(near))
            reached = start + len(near)
    return tuple(groups)


def _levels(table: FloatArray, units: UnitIds | str, higher_is_better: bool) -> tuple[FloatArray, str, int, str]:
    """Per unit and method the place of its value among the unit's distinct ones, 0 the best; unit, rows left out."""
    means, unit, n_missing, note = _unit_means(table, units)
    if higher_is_better:
        means = -means
    order = means.argsort(axis=1, kind="stable")
    ascending = np.take_along_axis(means, order, axis=1)
    apart = np.diff(ascending, axis=1) > ROUNDING * np.abs(means).max(axis=1, keepdims=True, initial=0.0)
    places = np.concatenate([np.zeros((len(means), 1)), apart.cumsum(axis=1)], axis=1)
    levels = np.empty_like(places)
    np.put_along_axis(levels, order, places, axis=1)
    return levels, unit, n_missing, note


def _unit_means(table: FloatArray, units: UnitIds | str) -> tuple[FloatArray, str, int, str]:
    """Means (U, M) within units over the rows where every method has a value."""
    present = np.isfinite(table).all(axis=1)
    ids = units if isinstance(units, str) else units_of(units, len(table)).row_ids[present].tolist()
    means, found = by_unit(table[present], ids)
    return means, found.unit, int((~present).sum()), found.note


def _wilcoxon(table: FloatArray, units: UnitIds | str, levels: FloatArray) -> tuple[float, float]:
    means = _unit_means(table, units)[0]
    differences = np.where(levels[:, 0] == levels[:, 1], 0.0, means[:, 0] - means[:, 1])
    found = stats.wilcoxon(differences)
    return float(found.statistic), float(found.pvalue)
