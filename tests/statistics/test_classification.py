"""Accuracy, macro F1, AUROC, kappa: against scikit-learn, and where a class is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import (
    SCORES,
    class_scores,
    classification_intervals,
    classification_scores,
    confusion_matrix,
    predictions,
)
from references.statistics import auroc_by_pairs, bootstrap_draws, sklearn_scores


def made_up(n: int, k: int, seed: int, *, decimals: int = 2):
    """Answers somewhat better than chance, with ties among the probabilities."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(k, size=n)
    table = generator.dirichlet(np.ones(k), size=n)
    table[np.arange(n), labels] += 0.4
    table = np.round(table / table.sum(axis=1, keepdims=True), decimals)
    classes = [f"class {c}" for c in range(k)]
    return predictions(labels, table.argmax(axis=1), table, classes)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_sklearn(k, seed):
    answers = made_up(83, k, seed)
    ours = classification_scores(answers)
    theirs = sklearn_scores(answers.labels, answers.predicted, answers.probabilities)
    assert tuple(ours) == SCORES
    for name in SCORES:
        assert ours[name].value == pytest.approx(theirs[name], rel=1e-12)


def test_multiclass_auroc_equals_sklearns_own_average():
    answers = made_up(60, 3, 5, decimals=12)
    theirs = metrics.roc_auc_score(answers.labels, answers.probabilities, multi_class="ovr", average="macro")
    assert classification_scores(answers)["auroc"].value == pytest.approx(theirs, rel=1e-12)


def test_auroc_counts_ties_half():
    answers = predictions([0, 0, 1, 1], [0, 0, 0, 0], np.array([[0.5, 0.2, 0.5, 0.5], [0.5, 0.8, 0.5, 0.5]]).T, "ab")
    assert classification_scores(answers)["auroc"].value == auroc_by_pairs(
        answers.labels == 1, answers.probabilities[:, 1]
    )
    assert classification_scores(answers)["auroc"].value == 0.25


def test_confusion_and_class_scores_equal_sklearn():
    answers = made_up(90, 4, 1)
    theirs = metrics.precision_recall_fscore_support(answers.labels, answers.predicted, labels=range(4))
    np.testing.assert_array_equal(
        confusion_matrix(answers), metrics.confusion_matrix(answers.labels, answers.predicted, labels=range(4))
    )
    for scores, precision, recall, f1, support in zip(class_scores(answers), *theirs, strict=True):
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx((precision, recall, f1))
        assert scores.n == support


def test_names_and_positions_mean_the_same():
    table = [[0.7, 0.3], [0.1, 0.9], [0.6, 0.4]]
    by_name = predictions(["no", "yes", "yes"], ["no", "yes", "no"], table, ["no", "yes"])
    by_place = predictions([0, 1, 1], [0, 1, 0], table, ["no", "yes"])
    np.testing.assert_array_equal(by_name.labels, by_place.labels)
    assert classification_scores(by_name) == classification_scores(by_place)


def test_a_missing_class_is_named():
    answers = made_up(40, 3, 2)
    answers = answers.take(answers.labels != 1)
    scores = classification_scores(answers)
    assert scores["macro-f1"].value is None
    assert scores["macro-f1"].reason == "Macro F1 needs samples of every class, and there is none of 'class 1'."
    assert scores["auroc"].value is None
    assert "'class 1'" in scores["auroc"].reason
    assert scores["accuracy"].value == pytest.approx(metrics.accuracy_score(answers.labels, answers.predicted))
    assert scores["kappa"].value == pytest.approx(metrics.cohen_kappa_score(answers.labels, answers.predicted))
    absent = class_scores(answers)[1]
    assert (absent.n, absent.recall) == (0, None)


def test_a_single_class_leaves_only_accuracy():
    answers = predictions([0, 0, 0], [0, 0, 0], [[0.9, 0.1]] * 3, ["a", "b"])
    scores = classification_scores(answers)
    assert scores["accuracy"].value == 1.0
    assert [name for name in SCORES if scores[name].value is None] == ["macro-f1", "auroc", "kappa"]
    assert "all 'a'" in scores["kappa"].reason


def test_no_samples_give_reasons_not_errors():
    answers = predictions([], [], [], ["a", "b"])
    assert {score.reason for score in classification_scores(answers).values()} == {"There are no samples."}
    estimates = classification_intervals(answers)
    assert {estimate.note for estimate in estimates.values()} == {"There are no samples."}
    assert all(estimate.value is None for estimate in estimates.values())
    assert confusion_matrix(answers).tolist() == [[0, 0], [0, 0]]


def test_a_class_never_predicted_has_no_precision():
    scores = class_scores(predictions([0, 1], [0, 0], [[1, 0], [1, 0]], ["a", "b"]))
    assert scores[1].precision is None
    assert scores[1].recall == 0.0
    assert scores[1].f1 == 0.0


@pytest.mark.parametrize("k", [2, 4])
def test_intervals_equal_a_loop_over_sklearn(k):
    answers = made_up(60, k, 7)
    ids = np.random.default_rng(1).integers(25, size=60).astype(str)
    slow = bootstrap_draws(
        lambda rows: sklearn_scores(answers.labels[rows], answers.predicted[rows], answers.probabilities[rows]),
        ids.tolist(),
        resamples=150,
        seed=4,
    )
    fast = classification_intervals(answers, ids, resamples=150, generator=np.random.default_rng(4))
    for name in SCORES:
        defined = slow[name][np.isfinite(slow[name])]
        assert fast[name].undefined == 150 - len(defined)
        assert (fast[name].low, fast[name].high) == pytest.approx(tuple(np.quantile(defined, [0.025, 0.975])))
        assert fast[name].value == pytest.approx(classification_scores(answers)[name].value)
        assert (fast[name].unit, fast[name].units, fast[name].n) == ("patient", len(set(ids)), 60)


def test_resamples_without_a_class_are_counted_and_left_out():
    answers = predictions([0] * 12 + [1] * 2, [0] * 11 + [1] * 3, [[0.8, 0.2]] * 10 + [[0.3, 0.7]] * 4, ["a", "b"])
    estimates = classification_intervals(answers)
    absent = estimates["auroc"].undefined
    assert absent / 2000 == pytest.approx((12 / 14) ** 14, abs=0.02)
    assert estimates["macro-f1"].undefined == absent
    assert estimates["auroc"].note == f"{absent} of 2000 resamples had no value and are left out."
    assert estimates["accuracy"].undefined == 0
    assert estimates["accuracy"].note == ""


def test_order_of_samples_changes_no_bit():
    answers = made_up(70, 3, 9)
    ids = np.array([f"p{i % 20}" if i % 3 else "" for i in range(70)])
    shuffled = np.random.default_rng(2).permutation(70)
    for patients in (ids, np.full(70, "")):
        one = classification_intervals(answers, patients, resamples=200)
        other = classification_intervals(answers.take(shuffled), patients[shuffled], resamples=200)
        assert one == other
    assert one["auroc"].unit == "image"


def test_one_patient_has_no_interval():
    estimates = classification_intervals(made_up(20, 2, 0), ["p"] * 20)
    assert estimates["accuracy"].value is not None
    assert estimates["accuracy"].low is None
    assert "1 patient only" in estimates["accuracy"].note


@pytest.mark.parametrize(
    ("labels", "predicted", "table", "classes", "words"),
    [
        ([0, 1], [0, 1], [[0.5, 0.5]], "ab", r"probabilities \(N, 2\), got 2 labels"),
        ([0, 1], [0], [[0.5, 0.5]] * 2, "ab", "1 predicted"),
        ([0, 2], [0, 1], [[0.5, 0.5]] * 2, "ab", "labels: expected positions 0 to 1, got 0 to 2"),
        ([0, 1], [0, 1], [[2.0, -1.0]] * 2, "ab", "probabilities: expected values in"),
        ([0, 1], [0, 1], [[np.nan, 0.1]] * 2, "ab", "probabilities: expected values in"),
        ([[0, 1]], [0, 1], [[0.5, 0.5]] * 2, "ab", "labels: expected a class per sample"),
        ([0, 0], [0, 0], [[1.0]] * 2, "a", "classes: expected two or more"),
    ],
)
def test_what_does_not_fit_is_refused(labels, predicted, table, classes, words):
    with pytest.raises(InputError, match=words):
        predictions(labels, predicted, table, list(classes))


def test_an_unknown_class_gives_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'glioma'"):
        predictions(["gliom"], ["glioma"], [[1, 0]], ["glioma", "none"])
