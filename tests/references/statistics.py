"""Slow statistics, written from the definitions: one resample, one pair, one rank at a time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats
from sklearn import metrics


def sklearn_scores(
    labels: NDArray, predicted: NDArray, probabilities: NDArray, weights: NDArray | None = None
) -> dict[str, float]:
    """The measures of all classes by scikit-learn; NaN where pellucid calls them undefined."""
    k = probabilities.shape[1]
    members = labels[:, None] == np.arange(k)
    weighted = {"sample_weight": weights}
    scores = {
        "accuracy": float(metrics.accuracy_score(labels, predicted, **weighted)),
        **dict.fromkeys(("balanced-accuracy", "macro-f1", "auroc", "auprc"), math.nan),
        "brier": float(
            metrics.brier_score_loss(labels, probabilities, labels=range(k), scale_by_half=False, **weighted)
            if k > 2
            else 2 * metrics.brier_score_loss(labels == 1, probabilities[:, 1], labels=[False, True], **weighted)
        ),
        "log-loss": float(metrics.log_loss(labels, probabilities, labels=range(k), **weighted)),
    }
    if members.any(axis=0).all():
        scores["balanced-accuracy"] = float(metrics.balanced_accuracy_score(labels, predicted, **weighted))
        scores["macro-f1"] = float(
            metrics.f1_score(labels, predicted, labels=range(k), average="macro", zero_division=0.0, **weighted)
        )
        areas = [metrics.roc_auc_score(members[:, c], probabilities[:, c], **weighted) for c in range(k)]
        scores["auroc"] = float(areas[1] if k == 2 else np.mean(areas))
        scores["auprc"] = float(metrics.average_precision_score(members, probabilities, average="macro", **weighted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one_cell = len({*labels.tolist(), *predicted.tolist()}) == 1
        found = math.nan if one_cell else metrics.cohen_kappa_score(labels, predicted, labels=range(k), **weighted)
        scores["kappa"] = float(found)
    one_sided = min(len(set(labels.tolist())), len(set(predicted.tolist()))) == 1
    scores["mcc"] = math.nan if one_sided else float(metrics.matthews_corrcoef(labels, predicted, **weighted))
    return scores


def sklearn_class_scores(
    positive: NDArray, said: NDArray, probability: NDArray, weights: NDArray | None = None
) -> dict[str, float]:
    """The measures of one class against the rest by scikit-learn; NaN where pellucid calls them undefined."""
    weighted = {"sample_weight": weights}

    def recall(true: NDArray, found: NDArray) -> float:
        return float(metrics.recall_score(true, found, zero_division=math.nan, **weighted)) if true.any() else math.nan

    def precision(true: NDArray, found: NDArray) -> float:
        return float(metrics.precision_score(true, found, zero_division=math.nan, **weighted))

    some = bool(positive.any())
    both = some and not positive.all()
    return {
        "sensitivity": recall(positive, said),
        "specificity": recall(~positive, ~said),
        "ppv": precision(positive, said) if said.any() else math.nan,
        "npv": precision(~positive, ~said) if not said.all() else math.nan,
        "f1": float(metrics.f1_score(positive, said, **weighted)) if some else math.nan,
        "auroc": float(metrics.roc_auc_score(positive, probability, **weighted)) if both else math.nan,
        "auprc": float(metrics.average_precision_score(positive, probability, **weighted)) if some else math.nan,
    }


def sklearn_label_scores(
    truth: NDArray, said: NDArray, probabilities: NDArray, weights: NDArray | None = None
) -> dict[str, float]:
    """Averages over labels and measures of whole sets by scikit-learn; NaN where pellucid calls them undefined."""
    k = truth.shape[1]
    alone = [sklearn_class_scores(truth[:, c], said[:, c], probabilities[:, c], weights) for c in range(k)]
    flat = None if weights is None else np.repeat(weights, k)
    pooled = sklearn_class_scores(truth.ravel(), said.ravel(), probabilities.ravel(), flat)
    lost = [
        (
            metrics.brier_score_loss(truth[:, c], probabilities[:, c], sample_weight=weights, labels=[False, True]),
            metrics.log_loss(truth[:, c], probabilities[:, c], sample_weight=weights, labels=[False, True]),
        )
        for c in range(k)
    ]
    whole = {
        "subset-accuracy": float(metrics.accuracy_score(truth, said, sample_weight=weights)),
        "hamming-loss": float(metrics.hamming_loss(truth, said, sample_weight=weights)),
        "brier": float(np.mean([brier for brier, _ in lost])),
        "log-loss": float(np.mean([loss for _, loss in lost])),
    }
    macro = {f"macro-{name}": float(np.mean([scores[name] for scores in alone])) for name in alone[0]}
    return {**whole, **macro, **{f"micro-{name}": value for name, value in pooled.items()}}


def bootstrap_draws(
    statistic: Callable[[NDArray], dict[str, float]], ids: Sequence[str], resamples: int, seed: int
) -> dict[str, NDArray]:
    """Draw patients, gather all of their rows, compute; once per resample. Every row must have an id."""
    patients = sorted(set(ids))
    rows_of = {patient: [row for row, owner in enumerate(ids) if owner == patient] for patient in patients}
    draws = np.random.default_rng(seed).integers(len(patients), size=(resamples, len(patients)))
    values: dict[str, list[float]] = {}
    for draw in draws:
        rows = np.array([row for place in draw for row in rows_of[patients[place]]])
        for name, value in statistic(rows).items():
            values.setdefault(name, []).append(value)
    return {name: np.array(found) for name, found in values.items()}


def auroc_by_pairs(positive: NDArray, scores: NDArray) -> float:
    """Share of pairs (positive, negative) in the right order; a tie counts half."""
    won = [1.0 if high > low else 0.5 if high == low else 0.0 for high in scores[positive] for low in scores[~positive]]
    return float(np.mean(won))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: the i-th smallest of m times (m − i + 1), made monotone, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = worst
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg 1995: the i-th smallest of m times m / i, made monotone from the largest down."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, best = [0.0] * len(p_values), 1.0
    for rank in range(len(p_values), 0, -1):
        i = order[rank - 1]
        best = min(best, p_values[i] * len(p_values) / rank)
        adjusted[i] = best
    return adjusted


def noncentral_t_cdf(t: float, df: float, delta: float) -> float:
    """P((Z + δ) / S ≤ t) with S² a χ² over its df, by integrating Φ(ts − δ) over the density of S."""
    root = math.sqrt(df)
    low, high = stats.chi.ppf(1e-13, df) / root, stats.chi.isf(1e-13, df) / root
    value, _ = integrate.quad(
        lambda s: stats.chi.pdf(s * root, df) * root * special.ndtr(t * s - delta), low, high, limit=400, epsabs=1e-11
    )
    return float(value)


def noncentrality_interval(t: float, df: float, confidence: float) -> tuple[float, float]:
    """δ for which t lies at either tail, by bisection on the integral above."""
    tail = (1 - confidence) / 2
    reach = 5 * abs(t) + 20

    def solve(probability: float) -> float:
        return float(
            optimize.bisect(lambda delta: noncentral_t_cdf(t, df, delta) - probability, -reach, reach, xtol=1e-9)
        )

    return solve(1 - tail), solve(tail)


def ranks_by_counting(row: Sequence[float], higher_is_better: bool) -> list[float]:
    """1 + how many are better + half of how many others are equal."""
    sign = -1.0 if higher_is_better else 1.0
    values = [sign * value for value in row]
    return [1 + sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]


def friedman_by_definition(table: NDArray, higher_is_better: bool) -> tuple[list[float], float, float]:
    """Mean ranks, χ² with Conover's correction for ties (1999, section 5.8), and its p."""
    n, k = table.shape
    ranks = np.array([ranks_by_counting(row.tolist(), higher_is_better) for row in table])
    sums = ranks.sum(axis=0)
    between = (k - 1) * sum((total - n * (k + 1) / 2) ** 2 for total in sums)
    within = sum(rank**2 for rank in ranks.ravel()) - n * k * (k + 1) ** 2 / 4
    statistic = between / within
    return ranks.mean(axis=0).tolist(), statistic, float(stats.chi2.sf(statistic, k - 1))


def studentised_range_tail(q: float, k: int) -> float:
    """Chance that the range of k standard normal draws exceeds q, by integrating over the least of them."""

    def density(z: float) -> float:
        return k * stats.norm.pdf(z) * (stats.norm.cdf(z + q) - stats.norm.cdf(z)) ** (k - 1)

    return 1.0 - integrate.quad(density, -9, 9, epsabs=1e-12)[0]


def maximal_groups(mean_ranks: Sequence[float], difference: float) -> set[frozenset[int]]:
    """All sets of at least two methods whose extremes lie closer than `difference`, less those inside another."""
    places = range(len(mean_ranks))
    sets = []
    for code in range(1 << len(mean_ranks)):
        chosen = [mean_ranks[place] for place in places if code >> place & 1]
        if len(chosen) > 1 and max(chosen) - min(chosen) < difference:
            sets.append(frozenset(place for place in places if code >> place & 1))
    return {one for one in sets if not any(one < other for other in sets)}
