"""DeLong's test and its clustered form: against pROC's figures, pair by pair, levels, refusals, degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pellucid.errors import InputError
from pellucid.statistics import delong, delong_clustered
from references import paired_tests as slow


@pytest.mark.parametrize(
    ("a", "b", "z", "p", "interval"),
    [
        (slow.WFNS, slow.S100B, 2.20898359144091, 0.0271757822291882, (0.0104061769564846, 0.174214419249478)),
        (slow.WFNS, slow.NDKA, 2.79777591868904, 0.00514557970691098, (0.0634011709339876, 0.3600405634833566)),
        (slow.NDKA, slow.S100B, -1.39077002573558, 0.164295175223054, (-0.2876917446341914, 0.0488706064228094)),
    ],
)
def test_figures_of_proc(a, b, z, p, interval):
    """The values that pROC 1.18 holds its own roc.test to, on the data aSAH (tests/testthat/test-roc.test.R)."""
    result = delong(slow.OUTCOME, a, b)
    assert result.statistic == pytest.approx(z, rel=1e-10)
    assert result.p_value == pytest.approx(p, rel=1e-9)
    assert result.interval == pytest.approx(interval, rel=1e-9)
    assert (result.n, result.measure, result.effect_size) == (113, "AUROC", result.mean_difference)


def two_classes(n: int, seed: int):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, size=n)
    a, b = (generator.normal(size=(2, n)) + labels).round(1)  # with ties
    return labels, a, b


@pytest.mark.parametrize("n", [8, 30, 75])
def test_it_equals_the_pairwise_definition(n):
    labels, a, b = two_classes(n, n)
    difference, error, z = slow.delong_z(labels == 1, a, b)
    result = delong(labels, a, b)
    assert result.mean_difference == pytest.approx(difference)
    assert result.statistic == pytest.approx(z)
    assert (result.interval[1] - result.interval[0]) / 2 <= 1.96 * error * 1.0001
    assert (result.mean_a, result.mean_b) == pytest.approx(
        (slow.components(labels == 1, a)[0], slow.components(labels == 1, b)[0])
    )


@pytest.mark.parametrize("seed", range(4))
def test_clustered_form_equals_obuchowskis_sums(seed):
    labels, a, b = two_classes(40, seed)
    ids = [f"p{i}" for i in np.random.default_rng(seed).integers(0, 12, size=40)]
    result = delong_clustered(labels, a, b, ids)
    error = math.sqrt(slow.obuchowski_variance(labels == 1, a, b, ids))
    assert result.statistic == pytest.approx(result.mean_difference / error)
    assert (result.n, result.unit) == (len(set(ids)), "patient")


def test_one_image_per_patient_makes_the_clustered_form_delongs():
    labels, a, b = two_classes(30, 5)
    ids = [f"p{i}" for i in range(30)]
    assert delong_clustered(labels, a, b, ids).statistic == pytest.approx(delong(labels, a, b, ids).statistic)


def three_classes(n: int, seed: int, strength: float = 1.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, size=n)
    sides = generator.normal(size=(2, n, 3))
    sides[:, np.arange(n), labels] += strength
    return labels, *(np.exp(sides) / np.exp(sides).sum(axis=2, keepdims=True))


def test_a_class_of_several_is_one_against_the_rest():
    labels, a, b = three_classes(60, 0)
    for place in range(3):
        result = delong(labels, a, b, positive=place)
        assert result.statistic == pytest.approx(slow.delong_z(labels == place, a[:, place], b[:, place])[2])


def test_the_mean_over_classes_is_scikit_learns():
    labels, a, b = three_classes(60, 1)
    result = delong(labels, a, b)
    for mean, side in ((result.mean_a, a), (result.mean_b, b)):
        assert mean == pytest.approx(roc_auc_score(labels, side, multi_class="ovr", average="macro"))


def test_the_mean_has_the_variance_that_simulation_shows():
    """z of the mean over three classes has unit spread when both sides are equally good."""
    z = np.array([delong(*three_classes(150, 100 + seed)).statistic for seed in range(500)])
    assert z.std() == pytest.approx(1, abs=0.08)
    clustered = []
    for seed in range(300):
        labels, a, b = three_classes(60, 1000 + seed)
        rows, ids = np.repeat(np.arange(60), 4), np.repeat(np.arange(60), 4)
        clustered.append(delong_clustered(labels[rows], a[rows], b[rows], ids).statistic)
    assert np.std(clustered) == pytest.approx(1, abs=0.12)


def test_images_repeated_in_a_patient_count_once():
    """Each image fourfold in its patient: the clustered form says what the image alone says, nearly."""
    labels, a, b = two_classes(40, 9)
    rows = np.repeat(np.arange(40), 4)
    clustered = delong_clustered(labels[rows], a[rows], b[rows], rows)
    assert clustered.statistic == pytest.approx(delong(labels, a, b).statistic)
    assert abs(delong(labels[rows], a[rows], b[rows]).statistic) > 1.9 * abs(clustered.statistic)


def test_level_is_kept_where_images_share_a_patient():
    generator = np.random.default_rng(13)
    ids = np.repeat(np.arange(40), 5)
    labels = np.repeat(np.arange(40) % 2, 5)
    clustered, plain = [], []
    for _ in range(600):
        shared = np.repeat(generator.normal(size=(2, 40)), 5, axis=1)
        a, b = shared + 0.7 * generator.normal(size=(2, 200)) + labels
        clustered.append(delong_clustered(labels, a, b, ids).p_value)
        plain.append(delong(labels, a, b).p_value)
    # z with 20 patients a class is not quite normal: 0.065 allows for it
    assert np.mean(np.array(clustered) <= 0.05) <= 0.065 + 2 * math.sqrt(0.05 * 0.95 / 600)
    assert np.mean(np.array(plain) <= 0.05) > 0.25


def test_clustered_images_are_refused_by_name():
    labels, a, b = two_classes(6, 1)
    with pytest.raises(InputError, match=r"Use delong-clustered \(Obuchowski 1997\), or permutation by patient"):
        delong(labels, a, b, ["p", "p", "q", "q", "r", "r"])


def test_degenerate_input_has_a_stated_answer():
    labels, a, b = two_classes(20, 2)
    same = delong(labels, a, 3 * a + 1)
    assert (same.identical, same.p_value) == (True, 1.0)
    assert same.note == "Identical: both sides rank 20 images alike."
    nobody = delong(np.zeros(20, int), a, b)
    assert (nobody.p_value, nobody.mean_difference) == (None, None)
    assert nobody.note == "There is no image of the class, so AUROC has no value."
    assert delong(np.ones(20, int), a, b).note == "There is no image of any other class, so AUROC has no value."
    assert delong([], [], []).note == "No image has scores of both sides."
    single = delong([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], [0.1, 0.3, 0.2, 0.1])
    assert single.p_value is None
    assert single.note == "One image only has an image of a kind, so AUROC has no spread."
    assert single.mean_difference is not None
    apart = delong([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.8, 0.9, 0.1, 0.2])
    assert apart.p_value is None
    assert (apart.mean_difference, apart.note) == (1.0, "The AUROCs have no spread to hold their difference against.")
    three = three_classes(30, 3)
    without = delong(np.minimum(three[0], 1), *three[1:])
    assert without.note == "There is no image of the class (class 3), so AUROC has no value."
    few = delong_clustered(
        [0, 1, 0, 1, 0, 1], [0.1, 0.8, 0.5, 0.4, 0.2, 0.3], [0.5, 0.4, 0.1, 0.8, 0.2, 0.9], list("ppqqrr")
    )
    assert few.note == "3 patients only with an image of a kind: p is approximate."


def test_missing_scores_are_left_out():
    labels, a, b = two_classes(30, 4)
    holes = a.copy()
    holes[[2, 9]] = np.nan
    keep = np.isfinite(holes)
    result = delong(labels, holes, b)
    assert (result.n, result.n_missing) == (28, 2)
    assert result.p_value == delong(labels[keep], a[keep], b[keep]).p_value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 1], [0.1], [0.2]), "labels, a, b: expected labels"),
        (([0, 2], [0.1, 0.2], [0.2, 0.1]), "labels: expected positions of 2 classes"),
        (([0, 0.5], [0.1, 0.2], [0.2, 0.1]), "labels: expected positions"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        delong(*arguments)
    with pytest.raises(InputError, match="positive: expected a class with scores"):
        delong([0, 1], [0.1, 0.2], [0.2, 0.1], positive=0)
