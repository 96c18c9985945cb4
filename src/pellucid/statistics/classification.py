"""Accuracy, macro F1, AUROC and Cohen's kappa, alone and with patient-clustered intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import expected, unknown_name
from pellucid.statistics.bootstrap import RESAMPLES, Estimate, WeightStatistic, bootstrap
from pellucid.statistics.units import FloatArray, UnitIds, Units, numbers, units_of

SCORES = ("accuracy", "macro-f1", "auroc", "kappa")


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

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Predictions:
        """Some of the samples, by position or mask."""
        return Predictions(self.labels[rows], self.predicted[rows], self.probabilities[rows], self.classes)


@dataclass(frozen=True)
class Score:
    """A value, or None and the reason why there is none."""

    name: str
    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class ClassScores:
    """How one class fared; a share whose denominator is zero is None."""

    name: str
    n: int
    """Samples that truly are of this class."""
    n_predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


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
    return np.asarray(_confusions(answers, np.ones((1, len(answers.labels))))[0], dtype=np.int64)


def class_scores(answers: Predictions) -> tuple[ClassScores, ...]:
    """Precision, recall and F1 of each class, in the order of the classes."""
    table = confusion_matrix(answers)
    hits, true, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    return tuple(
        ClassScores(
            name,
            int(true[k]),
            int(said[k]),
            _share(hits[k], said[k]),
            _share(hits[k], true[k]),
            _share(2 * hits[k], true[k] + said[k]),
        )
        for k, name in enumerate(answers.classes)
    )


def classification_scores(answers: Predictions) -> dict[str, Score]:
    """Accuracy, macro F1, AUROC and Cohen's kappa of all samples together.

    - "accuracy": share of right answers.
    - "macro-f1": unweighted mean of the classes' F1; missing unless every class has a sample.
    - "auroc": for two classes that of the second; for more, the unweighted mean of one against the rest;
      missing unless every class has a sample.
    - "kappa": Cohen 1960, agreement beyond chance; missing where labels and predictions are one and the same class.

    Returns:
        A Score for each name in `SCORES`.

    >>> answers = predictions([0, 0, 1, 1], [0, 1, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], ["a", "b"])
    >>> {name: round(score.value, 3) for name, score in classification_scores(answers).items()}
    {'accuracy': 0.75, 'macro-f1': 0.733, 'auroc': 1.0, 'kappa': 0.5}
    """
    once = np.ones((1, len(answers.labels)))
    result = {}
    for name, statistic in _weighted(answers).items():
        value = float(statistic(once)[0]) if once.size else np.nan
        reason = "" if np.isfinite(value) else _reason(name, answers)
        result[name] = Score(name, None if reason else value, reason)
    return result


def classification_intervals(
    answers: Predictions,
    patients: UnitIds | Units | str = "image",
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> dict[str, Estimate]:
    """The four scores with patient-clustered bootstrap intervals, all on the same resamples.

    Args:
        answers: from `predictions`.
        patients: patient id per sample, "" where unknown (that image is resampled by itself, and the result
            says so), or the word "image" where there are none.
        resamples, confidence, generator: as in `bootstrap`.

    Returns:
        An Estimate for each name in `SCORES`; where a class is missing its `note` gives the reason. Resamples
        that lack a class count as undefined for macro F1 and AUROC. The result doesn't depend on the samples' order.

    Raises:
        InputError: for ids that don't fit.
    """
    units = units_of(patients, len(answers.labels))
    order = units.order(*answers.probabilities.T, answers.predicted, answers.labels)
    estimates = bootstrap(
        _weighted(answers.take(order)),
        units.take(order),
        resamples=resamples,
        confidence=confidence,
        generator=generator,
    )
    return {
        name: replace(estimate, note=_reason(name, answers)) if estimate.value is None else estimate
        for name, estimate in estimates.items()
    }


def _weighted(answers: Predictions) -> Mapping[str, WeightStatistic]:
    """The four scores as functions of the samples' weights."""
    columns = range(1, 2) if len(answers.classes) == 2 else range(len(answers.classes))
    ranked = [_auroc_of(answers.labels == k, answers.probabilities[:, k]) for k in columns]

    def accuracy(weights: FloatArray) -> FloatArray:
        return np.asarray(weights @ (answers.labels == answers.predicted) / weights.sum(axis=1))

    def macro_f1(weights: FloatArray) -> FloatArray:
        tables = _confusions(answers, weights)
        hits = np.diagonal(tables, axis1=1, axis2=2)
        true, said = tables.sum(axis=2), tables.sum(axis=1)
        return np.asarray(_divide(2 * hits, np.where(true > 0, true + said, 0.0)).mean(axis=1))

    def auroc(weights: FloatArray) -> FloatArray:
        return np.asarray(np.mean([area(weights) for area in ranked], axis=0))

    def kappa(weights: FloatArray) -> FloatArray:
        tables = _confusions(answers, weights)
        total = weights.sum(axis=1)
        chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1)  # times total²
        agreed = np.diagonal(tables, axis1=1, axis2=2).sum(axis=1) * total
        return _divide(agreed - chance, total**2 - chance)

    return dict(zip(SCORES, (accuracy, macro_f1, auroc, kappa), strict=True))


def _confusions(answers: Predictions, weights: FloatArray) -> FloatArray:
    """(R, K, K) weighted confusion matrices, true classes in rows."""
    n, k = answers.probabilities.shape
    cells = np.zeros((n, k * k))
    cells[np.arange(n), answers.labels * k + answers.predicted] = 1.0
    return (weights @ cells).reshape(-1, k, k)


def _auroc_of(positive: NDArray[np.bool_], scores: FloatArray) -> WeightStatistic:
    """Weighted share of pairs (positive, negative) in the right order, ties counting half (Mann & Whitney 1947)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-1.0))  # first of each group of ties
    ones = positive[order]

    def area(weights: FloatArray) -> FloatArray:
        sorted_weights = weights[:, order]
        positives = np.add.reduceat(sorted_weights * ones, starts, axis=1)
        negatives = np.add.reduceat(sorted_weights * ~ones, starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        return _divide((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))

    return area


def _divide(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0))


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _reason(name: str, answers: Predictions) -> str:
    if not len(answers.labels):
        return "There are no samples."
    if name == "kappa":
        only = answers.classes[answers.labels[0]]
        return f"Kappa is undefined: labels and predictions are all {only!r}, so agreement by chance is complete."
    absent = [repr(c) for k, c in enumerate(answers.classes) if not (answers.labels == k).any()]
    title = {"macro-f1": "Macro F1", "auroc": "AUROC"}[name]
    return f"{title} needs samples of every class, and there is none of {', '.join(absent)}."


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
