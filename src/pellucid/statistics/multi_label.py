"""How a classifier fares whose samples have any number of labels: each label, their averages, and whole sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import expected
from pellucid.statistics.bootstrap import RESAMPLES, ColumnStatistic
from pellucid.statistics.class_metrics import CLASS_METRICS, LABEL_SET_METRICS, Counts
from pellucid.statistics.measured import (
    Column,
    Measured,
    class_columns,
    class_values,
    measured,
    outcomes,
    pooled_ranking,
)
from pellucid.statistics.thresholds import BoolArray, Decision, decide
from pellucid.statistics.units import FloatArray, UnitIds, Units, numbers, units_of

_AVERAGES = ("macro", "micro")


@dataclass(frozen=True)
class LabelPredictions:
    """What a classifier said of N samples; `label_predictions` builds and checks it."""

    truth: BoolArray = field(repr=False)
    """(N, K) which labels each sample has."""
    probabilities: FloatArray = field(repr=False)
    """(N, K) in [0, 1], each by itself (sigmoid)."""
    names: tuple[str, ...]

    def take(self, rows: NDArray[np.intp]) -> LabelPredictions:
        """Some of the samples."""
        return LabelPredictions(self.truth[rows], self.probabilities[rows], self.names)


def label_predictions(truth: ArrayLike, probabilities: ArrayLike, names: Sequence[str]) -> LabelPredictions:
    """Check a multi-label classifier's answers and bring them into one form.

    Args:
        truth: (N, K) bool, or 0 and 1: which labels each sample has.
        probabilities: (N, K) in [0, 1], of each label by itself.
        names: the K labels.

    Raises:
        InputError: for shapes that don't fit, a truth that isn't 0 or 1, or probabilities outside [0, 1].

    >>> label_predictions([[1, 0], [1, 1]], [[0.9, 0.2], [0.6, 0.7]], ["edema", "nodule"]).truth.tolist()
    [[True, False], [True, True]]
    """
    labels = tuple(names)
    if not labels or len(set(labels)) < len(labels):
        raise expected("names", "one or more different labels", repr(labels))
    true, table = (numbers(name, values) for name, values in (("truth", truth), ("probabilities", probabilities)))
    true, table = (values.reshape(0, len(labels)) if values.size == 0 else values for values in (true, table))
    if true.ndim != 2 or true.shape != table.shape or true.shape[1] != len(labels):
        got = f"truth {true.shape}, probabilities {table.shape}"
        raise expected("truth, probabilities", f"two tables (N, {len(labels)})", got)
    if not np.isin(true, (0, 1)).all():
        raise expected("truth", "True or False, or 0 and 1", "other values")
    if not ((table >= 0) & (table <= 1)).all():  # NaN fails too
        raise expected("probabilities", "values in [0, 1]", "values outside it or NaN", do="Give sigmoid outputs.")
    return LabelPredictions(true.astype(bool), table, labels)


def measure_labels(
    answers: LabelPredictions,
    patients: UnitIds | Units | str = "image",
    decisions: Sequence[Decision] = (),
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> tuple[Measured, ...]:
    """Every measure of a multi-label classifier with its patient-clustered bootstrap interval, on shared resamples.

    "macro-" is the unweighted mean over the labels, missing where one of them has no value; "micro-" takes every pair
    of a sample and a label as one case. Brier score and log loss are means over the labels, the same either way.

    Args:
        answers: from `label_predictions`.
        patients: patient id per sample, "" where unknown, or the word "image".
        decisions: ways to say which labels a sample has, from `decide`; none means a threshold of 0.5. Thresholds
            are taken as given: the intervals don't show that they were chosen.
        resamples, confidence, generator: as in `bootstrap`.

    Returns:
        For each decision `LABEL_SET_METRICS` and the averages of those in `CLASS_METRICS` that need one; the averages
        of the others; then each of `CLASS_METRICS` for each label (and decision). Where a value is missing its
        estimate's `note` gives the reason. The result doesn't depend on the samples' order.

    Raises:
        InputError: for ids or decisions that don't fit.

    >>> answers = label_predictions([[1, 0], [1, 1], [0, 0]], [[0.9, 0.2], [0.6, 0.4], [0.7, 0.1]], ["a", "b"])
    >>> found = {each.metric: each.estimate.value for each in measure_labels(answers) if not each.label}
    >>> found["subset-accuracy"], round(found["hamming-loss"], 3), round(found["micro-ppv"], 3), found["macro-auroc"]
    (0.3333333333333333, 0.333, 0.667, 0.75)
    """
    for decision in decisions:
        if decision.said.shape != answers.truth.shape:
            raise expected("decisions", f"decisions {answers.truth.shape}", f"shape {decision.said.shape}")
    chosen = list(decisions) or [decide("fixed", answers.probabilities, 0.5)]
    units = units_of(patients, len(answers.truth))
    keys = [*answers.probabilities.T, *answers.truth.T]
    order = units.order(*(column for each in chosen for column in (*each.thresholds.T, *each.said.T)), *keys)
    columns, statistic = _statistic(answers.take(order), [decision.take(order) for decision in chosen])
    return measured(
        columns, statistic, units.take(order), resamples=resamples, confidence=confidence, generator=generator
    )


def _statistic(answers: LabelPredictions, decisions: Sequence[Decision]) -> tuple[list[Column], ColumnStatistic]:
    """What is measured, and all of it as one function of the samples' weights."""
    truth, probabilities, names = answers.truth, answers.probabilities, answers.names
    of_labels, keys = class_columns(names, decisions)
    values_of = class_values(truth, probabilities, decisions)
    sets = [_set_losses(truth, decision) for decision in decisions]
    pooled = _pooled(truth, probabilities, decisions)
    losses = {name: CLASS_METRICS[name].function(truth, probabilities) for name in CLASS_METRICS.names("loss")}

    def statistic(weights: FloatArray) -> FloatArray:
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)  # no samples are seen to elsewhere
        by_label, by_pair = values_of(weights), pooled(weights)
        lost = {name: weights @ loss / total for name, loss in losses.items()}
        columns = [column for each in sets for column in (weights @ each / total).T]
        for key, values in by_label.items():
            columns += [values.mean(axis=1), by_pair[key]]
        columns += [values.mean(axis=1) for values in lost.values()]
        columns += [by_label[name, place][:, k] for name, place, k in keys]
        return np.column_stack([*columns, *(column for values in lost.values() for column in values.T)])

    alone = values_of(np.ones((1, len(truth))))
    columns = [
        Column(name, "", decision.rule, _span(decision), _first_reason(decision))
        for decision in decisions
        for name in LABEL_SET_METRICS.names()
    ]
    for (name, place), values in alone.items():
        decided = CLASS_METRICS[name].family == "decision"
        rule, limits = (decisions[place].rule, _span(decisions[place])) if decided else ("", None)
        without = [k for k, value in enumerate(values[0]) if np.isnan(value)]
        reasons = [c.reason for c, key in zip(of_labels, keys, strict=True) if key[:2] == (name, place)]
        macro = reasons[without[0]] if without else ""
        micro = _first_reason(decisions[place]) if decided else ""
        micro = micro or f"Undefined for all labels as one: {CLASS_METRICS[name].missing}."
        columns += [
            Column(f"{average}-{name}", "", rule, limits, reason)
            for average, reason in zip(_AVERAGES, (macro, micro), strict=True)
        ]
    columns += [Column(name) for name in losses]
    return [*columns, *of_labels, *(Column(loss, name) for loss in losses for name in names)], statistic


def _set_losses(truth: BoolArray, decision: Decision) -> FloatArray:
    """(N, number of set metrics), NaN where a label has no threshold."""
    values = np.column_stack([entry.function(truth, decision.said) for entry in LABEL_SET_METRICS])
    return np.full_like(values, np.nan) if _first_reason(decision) else values


def _pooled(
    truth: BoolArray, probabilities: FloatArray, decisions: Sequence[Decision]
) -> Callable[[FloatArray], dict[tuple[str, int], FloatArray]]:
    """Each measure of all pairs of a sample and a label together, (R,)."""
    by_rank = CLASS_METRICS.names("ranking")
    ranked = pooled_ranking(truth, probabilities, [CLASS_METRICS[name].function for name in by_rank])
    cells = [[each.sum(axis=1) for each in outcomes(truth, decision.said)] for decision in decisions]

    def values(weights: FloatArray) -> dict[tuple[str, int], FloatArray]:
        found = {(name, 0): column for name, column in zip(by_rank, ranked(weights), strict=True)}
        for place, decision in enumerate(decisions):
            counts = Counts(*(weights @ cell for cell in cells[place]))
            for name in CLASS_METRICS.names("decision"):
                value = CLASS_METRICS[name].function(counts)
                found[name, place] = np.full_like(value, np.nan) if _first_reason(decision) else value
        return found

    return values


def _first_reason(decision: Decision) -> str:
    return next((reason for reason in decision.reasons if reason), "")


def _span(decision: Decision) -> tuple[float, float] | None:
    """Smallest and largest threshold over the labels; None where one has none."""
    spans = [decision.span(k) for k in range(len(decision.reasons))]
    known = [span for span in spans if span is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if len(known) == len(spans) else None
