"""How often each test calls two equally good learners different, over the folds of simulated data sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pellucid.statistics import corrected_resampled_t, non_inferiority, paired_t


def nearest_mean(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    means = [train[:, labels == c].mean(axis=1) for c in (0, 1)]
    return np.stack([((test - mean[:, None]) ** 2).sum(axis=-1) for mean in means]).argmin(axis=0)


def nearest_neighbour(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    return labels[((test[:, :, None] - train[:, None]) ** 2).sum(axis=-1).argmin(axis=-1)]


def best_feature(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    low, high = (train[:, labels == c].mean(axis=1) for c in (0, 1))
    threshold, sign = (low + high) / 2, np.sign(high - low)
    right = ((sign[:, None] * (train - threshold[:, None]) > 0) == (labels == 1)[None, :, None]).mean(axis=1)
    best, each = right.argmax(axis=-1), np.arange(len(train))
    column = test[each[:, None], np.arange(test.shape[1])[None], best[:, None]]
    return (sign[each, best][:, None] * (column - threshold[each, best][:, None]) > 0).astype(int)


# how each learner says the classes of test images, with how many features and how telling they are
LEARNERS = {
    "nearest mean": (nearest_mean, 20, 0.25),
    "nearest neighbour": (nearest_neighbour, 2, 1.0),
    "best feature": (best_feature, 10, 0.3),
}


def tied_learners(kind: str, data_sets: int, repeats: int, k: int, images: int, seed: int) -> np.ndarray:
    """Accuracy (D, R·k, 2) of two learners of one kind on data sets of their own, over R repeats of k folds.

    Each learner sees features of its own, all equally telling, so that their expected accuracies are equal. All data
    sets are trained on and tested at once; folds hold both classes alike.
    """
    learner, dimensions, strength = LEARNERS[kind]
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    features = generator.normal(size=(2, data_sets, images, dimensions)) + strength * labels[:, None]
    scores = np.empty((data_sets, repeats * k, 2))
    for repeat in range(repeats):
        order = generator.permuted(np.arange(images).reshape(-1, 2), axis=0)  # columns: even and odd, the classes
        for fold in range(k):
            test = np.zeros(images, dtype=bool)
            test[order[fold::k].ravel()] = True
            for side in (0, 1):
                said = learner(features[side][:, ~test], labels[~test], features[side][:, test])
                scores[:, repeat * k + fold, side] = (said == labels[test]).mean(axis=1)
    return scores


def p_values(scores: np.ndarray, overlap: float) -> np.ndarray:
    """p of the t-test of each data set's folds, computed at once; checked below against the functions."""
    d = scores[..., 0] - scores[..., 1]
    n = d.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        t = d.mean(axis=1) / np.sqrt((1 / n + overlap) * d.var(axis=1, ddof=1))
    return np.where(np.abs(d).max(axis=1) < 1e-9, 1.0, 2 * stats.t.sf(np.abs(t), n - 1))


@pytest.mark.parametrize(
    ("kind", "repeats", "k"),
    [("nearest mean", 1, 5), ("nearest mean", 1, 10), ("nearest neighbour", 1, 5), ("nearest mean", 3, 5)],
)
def test_corrected_t_keeps_its_level_over_folds_where_the_plain_one_does_not(kind, repeats, k):
    scores = tied_learners(kind, 2000, repeats, k, 60, seed=repeats * 100 + k)
    corrected, plain = p_values(scores, 1 / (k - 1)), p_values(scores, 0.0)
    for i in range(15):
        if np.ptp(scores[i, :, 0] - scores[i, :, 1]) > 1e-9:
            assert corrected_resampled_t(*scores[i].T, k - 1, 1).p_value == pytest.approx(corrected[i])
            assert paired_t(*scores[i].T, "fold").p_value == pytest.approx(plain[i])
    error = math.sqrt(0.05 * 0.95 / 2000)
    assert (corrected <= 0.05).mean() <= 0.05 + 2 * error
    assert (plain <= 0.05).mean() > 0.05 + 2 * error
    assert (plain <= 0.05).mean() > 2 * (corrected <= 0.05).mean()


def test_the_correction_is_a_heuristic():
    """Over 10 folds of learners that a few images can turn over, its level exceeds 0.05, as its docstring says."""
    scores = tied_learners("best feature", 2000, 1, 10, 100, seed=0)
    assert 0.06 < (p_values(scores, 1 / 9) <= 0.05).mean() < 0.10
    assert (p_values(scores, 0.0) <= 0.05).mean() > 0.2


def test_non_inferiority_over_folds_keeps_its_level_at_the_margin():
    """Where one learner's accuracy is lower by the margin, it is called not worse in at most 5 of 100."""
    scores = tied_learners("nearest mean", 400, 1, 5, 60, seed=9)
    scores[..., 0] -= 0.05
    found = [non_inferiority(a, b, 0.05, "fold", 1 / 4).p_value for a, b in scores.transpose(0, 2, 1)]
    called = np.mean([p is not None and p <= 0.05 for p in found])
    assert 0.0 < called <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
