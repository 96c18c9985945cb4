"""How good a classifier is: each measure one declaration and one function of weighted counts, ranks or losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pellucid.registry import Registry
from pellucid.statistics.units import FloatArray

Measure: TypeAlias = Callable[..., FloatArray]

CLASS_METRICS: Registry[Measure] = Registry("class metric")
"""Of one class against the rest. By family: "decision" takes `Counts`, "ranking" takes `Ranked`, "loss" takes who is of
the class and its probability, arrays of one shape, and gives a loss for each, of which the mean is taken."""
SCORE_METRICS: Registry[Measure] = Registry("classifier metric")
"""Of all classes together, one class to a sample. By family: "table" takes weighted confusion matrices (R, K, K), true
classes in rows; "mean" takes the class metric it `needs` as (R, K); "loss" takes who is of each class (N, K) and the
probabilities (N, K) and gives a loss for each sample."""
LABEL_SET_METRICS: Registry[Measure] = Registry("label set metric")
"""Of a sample's whole set of labels: from the true and the said sets, both (N, K) bool, a value for each sample."""

CLIP = float(np.finfo(np.float64).eps)  # probabilities of 0 count as this much in the log loss
_TINY = 1e-12  # a variance below this share of its largest is none


@dataclass(frozen=True)
class Counts:
    """Weighted counts of one class against the rest; arrays of one shape, whatever it is."""

    tp: FloatArray
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray


@dataclass(frozen=True)
class Ranked:
    """Weight of the samples of the class and of the others at each distinct score, ascending; both (R, G)."""

    positives: FloatArray
    negatives: FloatArray


def ranking(positive: NDArray[np.bool_], scores: FloatArray) -> Callable[[FloatArray], Ranked]:
    """Sort N samples once; what is returned takes their weights (R, N).

    >>> ranked = ranking(np.array([True, False, True]), np.array([0.9, 0.4, 0.4]))(np.ones((1, 3)))
    >>> ranked.positives.tolist(), ranked.negatives.tolist()
    ([[1.0, 1.0]], [[1.0, 0.0]])
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-1.0))  # first of each group of ties
    ones = positive[order]

    def ranked(weights: FloatArray) -> Ranked:
        if not len(order):
            return Ranked(np.zeros((len(weights), 0)), np.zeros((len(weights), 0)))
        found = weights[:, order]
        return Ranked(
            np.add.reduceat(found * ones, starts, axis=1),
            np.add.reduceat(found * ~ones, starts, axis=1),
        )

    return ranked


def divide(above: FloatArray, below: FloatArray) -> FloatArray:
    """A share, NaN where its denominator isn't positive."""
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0))


# One class against the rest ---------------------------------------------------------------------------------------


@CLASS_METRICS.register(
    "sensitivity",
    family="decision",
    higher_is_better=True,
    range=(0, 1),
    missing="there is no sample of the class",
    source="Altman & Bland 1994, Diagnostic tests 1, BMJ 308",
)
def sensitivity(counts: Counts) -> FloatArray:
    """Share of the class's samples that are found (recall)."""
    return divide(counts.tp, counts.tp + counts.fn)


@CLASS_METRICS.register(
    "specificity",
    family="decision",
    higher_is_better=True,
    range=(0, 1),
    missing="every sample is of the class",
    source="Altman & Bland 1994, Diagnostic tests 1, BMJ 308",
)
def specificity(counts: Counts) -> FloatArray:
    """Share of the other samples that aren't taken for the class."""
    return divide(counts.tn, counts.tn + counts.fp)


@CLASS_METRICS.register(
    "ppv",
    family="decision",
    higher_is_better=True,
    range=(0, 1),
    missing="no sample is taken for the class",
    source="Altman & Bland 1994, Diagnostic tests 2, BMJ 309",
)
def ppv(counts: Counts) -> FloatArray:
    """Share of those taken for the class that are of it (precision), at the frequencies of these samples."""
    return divide(counts.tp, counts.tp + counts.fp)


@CLASS_METRICS.register(
    "npv",
    family="decision",
    higher_is_better=True,
    range=(0, 1),
    missing="every sample is taken for the class",
    source="Altman & Bland 1994, Diagnostic tests 2, BMJ 309",
)
def npv(counts: Counts) -> FloatArray:
    """Share of those not taken for the class that aren't of it, at the frequencies of these samples."""
    return divide(counts.tn, counts.tn + counts.fn)


@CLASS_METRICS.register(
    "f1",
    family="decision",
    higher_is_better=True,
    range=(0, 1),
    missing="there is no sample of the class",
    source="van Rijsbergen 1979, Information Retrieval, chapter 7",
)
def f1(counts: Counts) -> FloatArray:
    """Harmonic mean of precision and recall."""
    true = counts.tp + counts.fn
    return divide(2 * counts.tp, np.where(true > 0, true + counts.tp + counts.fp, 0.0))


@CLASS_METRICS.register(
    "auroc",
    family="ranking",
    higher_is_better=True,
    range=(0, 1),
    missing="there is no sample of the class, or none of another",
    source="Mann & Whitney 1947; Hanley & McNeil 1982, Radiology 143",
)
def auroc(ranked: Ranked) -> FloatArray:
    """Share of pairs (one of the class, one of another) in the right order, ties counting half."""
    below = np.cumsum(ranked.negatives, axis=1) - ranked.negatives / 2
    pairs = ranked.positives.sum(axis=1) * ranked.negatives.sum(axis=1)
    return divide((ranked.positives * below).sum(axis=1), pairs)


@CLASS_METRICS.register(
    "auprc",
    family="ranking",
    higher_is_better=True,
    range=(0, 1),
    missing="there is no sample of the class",
    source="Davis & Goadrich 2006, ICML, in steps: average precision",
)
def auprc(ranked: Ranked) -> FloatArray:
    """Precision at each threshold, averaged by the recall that the threshold adds; in steps, nothing interpolated."""
    found = np.cumsum(ranked.positives[:, ::-1], axis=1)
    said = found + np.cumsum(ranked.negatives[:, ::-1], axis=1)
    precision = np.divide(found, said, out=np.zeros_like(found), where=said > 0)
    return divide((precision * ranked.positives[:, ::-1]).sum(axis=1), ranked.positives.sum(axis=1))


@CLASS_METRICS.register(
    "brier",
    family="loss",
    higher_is_better=False,
    range=(0, 1),
    missing="there is no sample",
    source="Brier 1950, Monthly Weather Review 78",
)
def label_brier(member: NDArray[np.bool_], probability: FloatArray) -> FloatArray:
    """Squared distance of a label's probability from the truth, 0 or 1."""
    return np.asarray((probability - member) ** 2)


@CLASS_METRICS.register(
    "log-loss",
    family="loss",
    higher_is_better=False,
    range=(0, float(-np.log(CLIP))),
    missing="there is no sample",
    source="Good 1952, Rational decisions, JRSS B 14",
)
def label_log_loss(member: NDArray[np.bool_], probability: FloatArray) -> FloatArray:
    """Negative natural logarithm of the probability given to what is true, which counts as 2.2e-16 at least."""
    return np.asarray(-np.log(np.maximum(np.where(member, probability, 1 - probability), CLIP)))


# All classes together, one to a sample ----------------------------------------------------------------------------


@SCORE_METRICS.register(
    "accuracy",
    family="table",
    higher_is_better=True,
    range=(0, 1),
    missing="there is no sample",
    source="Metz 1978, Seminars in Nuclear Medicine 8",
)
def accuracy(tables: FloatArray) -> FloatArray:
    """Share of right answers."""
    return divide(_diagonal(tables).sum(axis=1), tables.sum(axis=(1, 2)))


@SCORE_METRICS.register(
    "balanced-accuracy",
    family="mean",
    needs=("sensitivity",),
    higher_is_better=True,
    range=(0, 1),
    missing="a class has no sample",
    source="Brodersen et al. 2010, ICPR",
)
def balanced_accuracy(recalls: FloatArray) -> FloatArray:
    """Unweighted mean of the classes' sensitivities; 1/K is chance."""
    return np.asarray(recalls.mean(axis=1))


@SCORE_METRICS.register(
    "macro-f1",
    family="mean",
    needs=("f1",),
    higher_is_better=True,
    range=(0, 1),
    missing="a class has no sample",
    source="Opitz & Burst 2019, arXiv:1911.03347, the averaged F1",
)
def macro_f1(scores: FloatArray) -> FloatArray:
    """Unweighted mean of the classes' F1."""
    return np.asarray(scores.mean(axis=1))


@SCORE_METRICS.register(
    "auroc",
    family="mean",
    needs=("auroc",),
    higher_is_better=True,
    range=(0, 1),
    missing="a class has no sample",
    source="Mann & Whitney 1947; one against the rest: Fawcett 2006, Pattern Recognition Letters 27, unweighted here",
)
def mean_auroc(areas: FloatArray) -> FloatArray:
    """For two classes that of the second; for more, the unweighted mean of one against the rest."""
    return np.asarray(areas[:, 1] if areas.shape[1] == 2 else areas.mean(axis=1))


@SCORE_METRICS.register(
    "auprc",
    family="mean",
    needs=("auprc",),
    higher_is_better=True,
    range=(0, 1),
    missing="a class has no sample",
    source="Davis & Goadrich 2006, ICML, in steps: average precision",
)
def mean_auprc(areas: FloatArray) -> FloatArray:
    """Unweighted mean of the classes' average precision, of both where there are two."""
    return np.asarray(areas.mean(axis=1))


@SCORE_METRICS.register(
    "kappa",
    family="table",
    higher_is_better=True,
    range=(-1, 1),
    missing="labels and predictions are one and the same class",
    source="Cohen 1960, Educational and Psychological Measurement 20",
)
def kappa(tables: FloatArray) -> FloatArray:
    """Agreement beyond what the classes' frequencies give by chance."""
    total = tables.sum(axis=(1, 2))
    chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1)  # times total²
    return divide(_diagonal(tables).sum(axis=1) * total - chance, total**2 - chance)


@SCORE_METRICS.register(
    "mcc",
    family="table",
    higher_is_better=True,
    range=(-1, 1),
    missing="the labels, or the predictions, are all of one class",
    source="Gorodkin 2004, Computational Biology and Chemistry 28, R_K; for two classes Matthews 1975",
)
def mcc(tables: FloatArray) -> FloatArray:
    """Correlation of labels and predictions: the multi-class R_K, for two classes Matthews' coefficient."""
    total = tables.sum(axis=(1, 2))
    true, said = tables.sum(axis=2), tables.sum(axis=1)
    covariance = _diagonal(tables).sum(axis=1) * total - (true * said).sum(axis=1)
    spread = [total**2 - (margin**2).sum(axis=1) for margin in (true, said)]
    some = (spread[0] > _TINY * total**2) & (spread[1] > _TINY * total**2)
    return divide(covariance, np.where(some, np.sqrt(np.abs(spread[0] * spread[1])), 0.0))


@SCORE_METRICS.register(
    "brier",
    family="loss",
    higher_is_better=False,
    range=(0, 2),
    missing="there is no sample",
    source="Brier 1950, Monthly Weather Review 78",
)
def brier(members: NDArray[np.bool_], probabilities: FloatArray) -> FloatArray:
    """Squared distance of the probabilities from the truth, summed over the classes: from 0 to 2, also for two."""
    return np.asarray(((probabilities - members) ** 2).sum(axis=1))


@SCORE_METRICS.register(
    "log-loss",
    family="loss",
    higher_is_better=False,
    range=(0, float(-np.log(CLIP))),
    missing="there is no sample",
    source="Good 1952, Rational decisions, JRSS B 14",
)
def log_loss(members: NDArray[np.bool_], probabilities: FloatArray) -> FloatArray:
    """Negative natural logarithm of the true class's probability, which counts as 2.2e-16 at least."""
    return np.asarray(-np.log(np.maximum((probabilities * members).sum(axis=1), CLIP)))


# Sets of labels ---------------------------------------------------------------------------------------------------


@LABEL_SET_METRICS.register(
    "subset-accuracy",
    family="set",
    higher_is_better=True,
    range=(0, 1),
    missing="there is no sample",
    source="Zhu et al. 2005, Multi-labelled classification using maximum entropy method, SIGIR",
)
def subset_accuracy(true: NDArray[np.bool_], said: NDArray[np.bool_]) -> FloatArray:
    """Whether every label of a sample is right."""
    return np.asarray((true == said).all(axis=1), dtype=np.float64)


@LABEL_SET_METRICS.register(
    "hamming-loss",
    family="set",
    higher_is_better=False,
    range=(0, 1),
    missing="there is no sample",
    source="Schapire & Singer 1999, Machine Learning 37",
)
def hamming_loss(true: NDArray[np.bool_], said: NDArray[np.bool_]) -> FloatArray:
    """Share of a sample's labels that are wrong."""
    return np.asarray((true != said).mean(axis=1))


def _diagonal(tables: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("rkk->rk", tables))
