"""A classifier's measures in one list, each with its interval, and the work that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from pellucid.statistics.bootstrap import ColumnStatistic, Estimate, bootstrap_columns
from pellucid.statistics.class_metrics import CLASS_METRICS, Counts, Ranked, ranking
from pellucid.statistics.thresholds import BoolArray, Decision
from pellucid.statistics.units import FloatArray, Units
from pellucid.statistics.wording import number

ClassValues: TypeAlias = dict[tuple[str, int], FloatArray]
"""From a class metric and the place of a decision (0 where it needs none) to its values (R, K)."""

_CELLS = 8_000_000  # pairs of a resample and a pooled label that are sorted at a time


@dataclass(frozen=True)
class Measured:
    """One measure of a classifier with its interval, and what it is of."""

    metric: str
    """Its name in the registries; of several labels "macro-" or "micro-" and the name."""
    label: str
    """The class against the rest, or "" for all together."""
    rule: str
    """How samples were said to have a class: "argmax", "fixed", a name in `THRESHOLD_RULES`, or "" where none is."""
    thresholds: tuple[float, float] | None
    """Smallest and largest threshold, which differ where several networks, or labels, have their own."""
    estimate: Estimate


@dataclass(frozen=True)
class Column:
    """What a column of a statistic measures, and why it would have no value."""

    metric: str
    label: str = ""
    rule: str = ""
    thresholds: tuple[float, float] | None = None
    reason: str = ""


def measured(
    columns: Sequence[Column],
    statistic: ColumnStatistic,
    units: Units,
    *,
    resamples: int,
    confidence: float,
    generator: np.random.Generator | None,
) -> tuple[Measured, ...]:
    """Give each column of a statistic its interval, on the same resamples, and say why a value is missing."""
    estimates = bootstrap_columns(statistic, units, resamples=resamples, confidence=confidence, generator=generator)
    return tuple(
        Measured(column.metric, column.label, column.rule, column.thresholds, _noted(column, estimate))
        for column, estimate in zip(columns, estimates, strict=True)
    )


def _noted(column: Column, estimate: Estimate) -> Estimate:
    if estimate.value is None:
        return replace(estimate, note=column.reason if estimate.n else "There are no samples.")
    if column.thresholds is None or column.thresholds[0] == column.thresholds[1]:
        return estimate
    low, high = (number(end) for end in column.thresholds)
    return replace(estimate, note=" ".join(part for part in (estimate.note, f"Thresholds {low} to {high}.") if part))


def class_columns(
    names: Sequence[str], decisions: Sequence[Decision]
) -> tuple[list[Column], list[tuple[str, int, int]]]:
    """The columns of all classes' measures, and for each its metric, place of the decision, and class."""
    columns, keys = [], []
    for entry in CLASS_METRICS:
        of = {"decision": tuple(enumerate(decisions)), "ranking": ((0, None),)}.get(entry.family, ())
        for place, decision in of:
            for k, name in enumerate(names):
                reason = f"Undefined for {name!r}: {entry.missing}."
                if decision is None:
                    columns.append(Column(entry.name, name, reason=reason))
                else:
                    why = decision.reasons[k] or reason
                    columns.append(Column(entry.name, name, decision.rule, decision.span(k), why))
                keys.append((entry.name, place, k))
    return columns, keys


def class_values(
    truth: BoolArray, probabilities: FloatArray, decisions: Sequence[Decision]
) -> Callable[[FloatArray], ClassValues]:
    """Measures of K classes, each against the rest, as a function of the samples' weights (R, N).

    A class without a threshold has none of the values that need one.
    """
    rankings = [ranking(truth[:, k], probabilities[:, k]) for k in range(truth.shape[1])]
    cells = [outcomes(truth, decision.said) for decision in decisions]
    decided = [np.array([not reason for reason in decision.reasons]) for decision in decisions]
    ranking_metrics = [CLASS_METRICS[name] for name in CLASS_METRICS.names("ranking")]

    def values(weights: FloatArray) -> ClassValues:
        found: ClassValues = {}
        for place, known in enumerate(decided):
            counts = Counts(*(weights @ cell for cell in cells[place]))
            for name in CLASS_METRICS.names("decision"):
                found[name, place] = np.where(known, CLASS_METRICS[name].function(counts), np.nan)
        areas: list[list[FloatArray]] = []
        for of_class in rankings:
            ranked = of_class(weights)  # held for one class at a time
            areas.append([entry.function(ranked) for entry in ranking_metrics])
        for entry, of_classes in zip(ranking_metrics, zip(*areas, strict=True), strict=True):
            found[entry.name, 0] = np.column_stack(of_classes)
        return found

    return values


def pooled_ranking(
    truth: BoolArray, probabilities: FloatArray, measures: Sequence[Callable[[Ranked], FloatArray]]
) -> Callable[[FloatArray], list[FloatArray]]:
    """Measures of all pairs of a sample and a label ranked together, from the samples' weights (R, N), (R,) each."""
    k = truth.shape[1]
    rank = ranking(truth.ravel(), probabilities.ravel())

    def pooled(weights: FloatArray) -> list[FloatArray]:
        step = max(1, _CELLS // max(1, truth.size))
        parts = []
        for start in range(0, len(weights), step):
            ranked = rank(np.repeat(weights[start : start + step], k, axis=1))
            parts.append([measure(ranked) for measure in measures])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    return pooled


def outcomes(truth: BoolArray, said: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Who is rightly said to have a class, wrongly said, wrongly not, rightly not: 0 or 1, (N, K) each."""
    right, wrong, missed, rest = truth & said, ~truth & said, truth & ~said, ~truth & ~said
    return right.astype(float), wrong.astype(float), missed.astype(float), rest.astype(float)
