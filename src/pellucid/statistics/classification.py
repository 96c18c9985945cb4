"""How a classifier fares that gives each sample one class: alone, and with patient-clustered intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import expected, unknown_name
from pellucid.registry import Entry
from pellucid.statistics.bootstrap import RESAMPLES, ColumnStatistic, Estimate
from pellucid.statistics.class_metrics import CLASS_METRICS, SCORE_METRICS, Measure
from pellucid.statistics.measured import Column, Measured, class_columns, class_values, measured
from pellucid.statistics.thresholds import BoolArray, Decision, argmax_decision
from pellucid.statistics.units import FloatArray, UnitIds, Units, numbers, units_of

SCORES = SCORE_METRICS.names()
"""Names of the measures of all classes together; `CLASS_METRICS` has those of one class against the rest."""

_TITLES = {"macro-f1": "Macro F1", "auroc": "AUROC", "auprc": "AUPRC", "mcc": "MCC"}


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of N samples; `predictions` builds and checks it."""

    labels: NDArray[np.intp] = field(repr=False)
    """(N,) true class, as a position in `classes`."""
    predicted: NDArray[np.intp] = field(repr=False)
    """(N,) predicted class."""
    probabilities: FloatArray = field(repr=False)
    """(N, K) in [0, 1]."""
    classes: tuple[str, ...]

    @property
    def members(self) -> BoolArray:
        """(N, K) whether each sample truly is of each class."""
        return np.asarray(self.labels[:, None] == np.arange(len(self.classes)))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Predictions:
        """Some of the samples, by position or mask."""
        return Predictions(self.labels[rows], self.predicted[rows], self.probabilities[rows], self.classes)


@dataclass(frozen=True)
class Score:
    """A value, or None and the reason why there is none."""

    name: str
    value: float | None
    reason: str = ""


def predictions(
    labels: Sequence[str] | ArrayLike,
    predicted: Sequence[str] | ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str],
) -> Predictions:
    """Check a classifier's answers and bring them into one form.

    Args:
        labels: (N,) true class of each sample, by name or by position in `classes`.
        predicted: (N,) predicted class, likewise.
        probabilities: (N, K) in [0, 1], a column per class in the order of `classes`.
        classes: the K ≥ 2 class names.

    Raises:
        InputError: for shapes that don't fit, unknown classes, or probabilities outside [0, 1].

    >>> predictions(["cat", "dog"], ["dog", "dog"], [[0.4, 0.6], [0.1, 0.9]], ["cat", "dog"]).predicted.tolist()
    [1, 1]
    """
    names = tuple(classes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise expected("classes", "two or more different class names", repr(names))
    true, said = _positions("labels", labels, names), _positions("predicted", predicted, names)
    table = numbers("probabilities", probabilities)
    if table.size == 0:
        table = table.reshape(0, len(names))
    if table.shape != (len(true), len(names)) or len(said) != len(true):
        got = f"{len(true)} labels, {len(said)} predicted, probabilities {table.shape}"
        raise expected("probabilities", f"labels (N,), predicted (N,), probabilities (N, {len(names)})", got)
    if not ((table >= 0) & (table <= 1)).all():  # NaN fails too
        raise expected("probabilities", "values in [0, 1]", "values outside it or NaN", do="Give softmax or sigmoid.")
    return Predictions(true, said, table, names)


def confusion_matrix(answers: Predictions) -> NDArray[np.int64]:
    """(K, K) counts: rows are true classes, columns predicted ones.

    >>> confusion_matrix(predictions([0, 1, 1], [0, 0, 1], [[1, 0], [1, 0], [0, 1]], ["a", "b"])).tolist()
    [[1, 0], [1, 1]]
    """
    k = len(answers.classes)
    return np.asarray(_cells(answers).sum(axis=0).reshape(k, k), dtype=np.int64)


def classification_scores(answers: Predictions) -> dict[str, Score]:
    """The measures of all classes together, without intervals; `SCORE_METRICS` says what each is.

    Returns:
        A Score for each name in `SCORES`.

    >>> answers = predictions([0, 0, 1, 1], [0, 1, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], ["a", "b"])
    >>> {name: round(score.value, 3) for name, score in classification_scores(answers).items()}
    {'accuracy': 0.75, 'balanced-accuracy': 0.75, 'macro-f1': 0.733, 'auroc': 1.0, 'auprc': 1.0, 'kappa': 0.5,
    'mcc': 0.577, 'brier': 0.25, 'log-loss': 0.4}
    """
    columns, statistic = _statistic(answers, ())
    values = statistic(np.ones((1, len(answers.labels))))[0]
    result = {}
    for column, value in zip(columns[: len(SCORES)], values[: len(SCORES)].tolist(), strict=True):
        reason = ("" if np.isfinite(value) else column.reason) if len(answers.labels) else "There are no samples."
        result[column.metric] = Score(column.metric, None if reason else value, reason)
    return result


def classification_intervals(
    answers: Predictions,
    patients: UnitIds | str = "image",
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> dict[str, Estimate]:
    """The measures of all classes together with their intervals; as `measure`, which gives those of each class too.

    Returns:
        An Estimate for each name in `SCORES`.
    """
    found = measure(answers, patients, resamples=resamples, confidence=confidence, generator=generator)
    return {each.metric: each.estimate for each in found if not each.label}


def measure(
    answers: Predictions,
    patients: UnitIds | Units | str = "image",
    decisions: Sequence[Decision] = (),
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> tuple[Measured, ...]:
    """Every measure of a classifier with its patient-clustered bootstrap interval, all on the same resamples.

    Args:
        answers: from `predictions`.
        patients: patient id per sample, "" where unknown (that image is resampled by itself, and the result
            says so), or the word "image" where there are none.
        decisions: further ways to say which classes a sample has, from `decide`, beside that of the predicted
            class. Their thresholds are taken as given: the intervals don't show that they were chosen.
        resamples, confidence, generator: as in `bootstrap`.

    Returns:
        Those of `SCORES`, then each of `CLASS_METRICS` that needs a decision or a ranking, for each class against the
        rest and, where it needs one, each decision. Where a value is missing its estimate's `note` gives the reason.
        Resamples that lack a class count as undefined for what needs it. The result doesn't depend on the samples'
        order.

    Raises:
        InputError: for ids or decisions that don't fit.

    >>> answers = predictions([0, 0, 1, 1], [0, 1, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], ["a", "b"])
    >>> [(each.metric, each.label, each.estimate.value) for each in measure(answers) if each.metric == "sensitivity"]
    [('sensitivity', 'a', 0.5), ('sensitivity', 'b', 1.0)]
    """
    for decision in decisions:
        if decision.said.shape != answers.probabilities.shape:
            raise expected("decisions", f"decisions {answers.probabilities.shape}", f"shape {decision.said.shape}")
    units = units_of(patients, len(answers.labels))
    keys = [*answers.probabilities.T, answers.predicted, answers.labels]
    order = units.order(*(column for each in decisions for column in (*each.thresholds.T, *each.said.T)), *keys)
    columns, statistic = _statistic(answers.take(order), [decision.take(order) for decision in decisions])
    return measured(
        columns, statistic, units.take(order), resamples=resamples, confidence=confidence, generator=generator
    )


def _statistic(answers: Predictions, decisions: Sequence[Decision]) -> tuple[list[Column], ColumnStatistic]:
    """What is measured, and all of it as one function of the samples' weights."""
    members = answers.members
    everything = [argmax_decision(answers.predicted, len(answers.classes)), *decisions]
    of_classes, keys = class_columns(answers.classes, everything)
    values_of = class_values(members, answers.probabilities, everything)
    losses = np.column_stack(
        [SCORE_METRICS[name].function(members, answers.probabilities) for name in SCORE_METRICS.names("loss")]
    )
    cells = _cells(answers)

    def statistic(weights: FloatArray) -> FloatArray:
        by_class = values_of(weights)
        tables = (weights @ cells).reshape(-1, *(2 * [len(answers.classes)]))
        means = iter((weights @ losses / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)).T)
        overall = []
        for entry in SCORE_METRICS:
            if entry.family == "table":
                overall.append(entry.function(tables))
            elif entry.family == "mean":
                overall.append(entry.function(*(by_class[name, 0] for name in entry.needs)))
            else:
                overall.append(next(means))
        return np.column_stack([*overall, *(by_class[name, place][:, k] for name, place, k in keys)])

    overall = [Column(entry.name, rule=_rule(entry), reason=_reason(entry.name, answers)) for entry in SCORE_METRICS]
    return [*overall, *of_classes], statistic


def _rule(entry: Entry[Measure]) -> str:
    decided = entry.family == "table" or any(CLASS_METRICS[name].family == "decision" for name in entry.needs)
    return "argmax" if decided else ""


def _cells(answers: Predictions) -> FloatArray:
    """(N, K²) the cell of the confusion matrix that each sample falls in, true classes in rows."""
    n, k = answers.probabilities.shape
    cells = np.zeros((n, k * k))
    cells[np.arange(n), answers.labels * k + answers.predicted] = 1.0
    return cells


def _reason(name: str, answers: Predictions) -> str:
    """Why a measure would have no value on these samples."""
    title = _TITLES.get(name, name.replace("-", " ").capitalize())
    if SCORE_METRICS[name].family == "mean":
        absent = [repr(c) for k, c in enumerate(answers.classes) if not (answers.labels == k).any()]
        return f"{title} needs samples of every class, and there is none of {', '.join(absent)}."
    for what, classes in (("labels", answers.labels), ("predictions", answers.predicted)):
        if name == "mcc" and len(np.unique(classes)) == 1:
            return f"MCC is undefined: the {what} are all {answers.classes[classes[0]]!r}."
    if name == "kappa" and len(answers.labels):
        only = answers.classes[answers.labels[0]]
        return f"Kappa is undefined: labels and predictions are all {only!r}, so agreement by chance is complete."
    return ""


def _positions(argument: str, values: Sequence[str] | ArrayLike, classes: tuple[str, ...]) -> NDArray[np.intp]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise expected(argument, "a class per sample, shape (N,)", f"shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, dtype=np.intp)
    if np.issubdtype(array.dtype, np.integer):
        if array.min() < 0 or array.max() >= len(classes):
            raise expected(argument, f"positions 0 to {len(classes) - 1}", f"{array.min()} to {array.max()}")
        return array.astype(np.intp)
    place = {name: position for position, name in enumerate(classes)}
    for value in array.tolist():
        if value not in place:
            raise unknown_name("class", str(value), classes)
    return np.array([place[value] for value in array.tolist()], dtype=np.intp)
