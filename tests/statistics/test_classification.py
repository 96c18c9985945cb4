"""Measures of a classifier against scikit-learn, alone and with intervals, and where a class is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import (
    SCORES,
    choose_thresholds,
    classification_intervals,
    classification_scores,
    confusion_matrix,
    decide,
    measure,
    predictions,
)
from references.classified import made_up
from references.statistics import auroc_by_pairs, bootstrap_draws, sklearn_class_scores, sklearn_scores

RANKED = ("auroc", "auprc")


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


def test_confusion_equals_sklearn():
    answers = made_up(90, 4, 1)
    np.testing.assert_array_equal(
        confusion_matrix(answers), metrics.confusion_matrix(answers.labels, answers.predicted, labels=range(4))
    )


def test_binary_auprc_is_the_mean_of_both_classes():
    answers = made_up(60, 2, 3)
    areas = [metrics.average_precision_score(answers.labels == c, answers.probabilities[:, c]) for c in (0, 1)]
    assert areas[0] != pytest.approx(areas[1])
    assert classification_scores(answers)["auprc"].value == pytest.approx(np.mean(areas), rel=1e-12)


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
    assert scores["balanced-accuracy"].reason.startswith("Balanced accuracy needs samples of every class")
    assert scores["auprc"].reason.startswith("AUPRC needs samples of every class")
    assert scores["mcc"].value == pytest.approx(metrics.matthews_corrcoef(answers.labels, answers.predicted))
    of_class = {each.metric: each.estimate for each in measure(answers, resamples=20) if each.label == "class 1"}
    assert of_class["sensitivity"].note == "Undefined for 'class 1': there is no sample of the class."
    assert of_class["auroc"].note == "Undefined for 'class 1': there is no sample of the class, or none of another."
    assert {name for name, estimate in of_class.items() if estimate.value is None} == {
        "sensitivity", "f1", "auroc", "auprc"
    }  # fmt: skip
    assert of_class["specificity"].value == pytest.approx(1 - (answers.predicted == 1).mean())
    assert of_class["ppv"].value == 0.0


def test_a_single_class_leaves_only_accuracy_and_losses():
    answers = predictions([0, 0, 0], [0, 0, 0], [[0.9, 0.1]] * 3, ["a", "b"])
    scores = classification_scores(answers)
    assert scores["accuracy"].value == 1.0
    assert scores["brier"].value == pytest.approx(0.02)
    assert scores["log-loss"].value == pytest.approx(-np.log(0.9))
    assert [name for name in SCORES if scores[name].value is None] == [
        "balanced-accuracy", "macro-f1", "auroc", "auprc", "kappa", "mcc"
    ]  # fmt: skip
    assert "all 'a'" in scores["kappa"].reason
    assert scores["mcc"].reason == "MCC is undefined: the labels are all 'a'."


def test_one_class_predicted_leaves_kappa_but_no_mcc():
    answers = predictions([0, 1, 0], [1, 1, 1], [[0.4, 0.6]] * 3, ["a", "b"])
    scores = classification_scores(answers)
    assert scores["kappa"].value == 0.0
    assert scores["mcc"].reason == "MCC is undefined: the predictions are all 'b'."
    of_class = {(each.metric, each.label): each.estimate for each in measure(answers, resamples=20)}
    assert of_class["ppv", "a"].note == "Undefined for 'a': no sample is taken for the class."
    assert of_class["npv", "b"].note == "Undefined for 'b': every sample is taken for the class."


def test_no_samples_give_reasons_not_errors():
    answers = predictions([], [], [], ["a", "b"])
    assert {score.reason for score in classification_scores(answers).values()} == {"There are no samples."}
    estimates = classification_intervals(answers)
    assert {estimate.note for estimate in estimates.values()} == {"There are no samples."}
    assert all(estimate.value is None for estimate in estimates.values())
    assert confusion_matrix(answers).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("k", [2, 3])
def test_intervals_equal_a_loop_over_sklearn(k):
    """Every measure, of all classes and of each, at the predicted class and at thresholds; none is left out."""
    answers = made_up(60, k, 7)
    ids = np.random.default_rng(1).integers(25, size=60).astype(str)
    limits = np.linspace(0.25, 0.45, k)
    decision = decide("youden", answers.probabilities, limits)
    said = {"argmax": answers.predicted[:, None] == np.arange(k), "youden": answers.probabilities >= limits}
    truth = answers.labels[:, None] == np.arange(k)

    def all_scores(rows):
        found = dict(sklearn_scores(answers.labels[rows], answers.predicted[rows], answers.probabilities[rows]))
        found = {(name, "", ""): value for name, value in found.items()}
        for c, label in enumerate(answers.classes):
            for rule, by_rule in said.items():
                scores = sklearn_class_scores(truth[rows, c], by_rule[rows, c], answers.probabilities[rows, c])
                found.update({(name, label, "" if name in RANKED else rule): value for name, value in scores.items()})
        return found

    slow = bootstrap_draws(all_scores, ids.tolist(), resamples=50, seed=4)
    fast = measure(answers, ids, [decision], resamples=50, generator=np.random.default_rng(4))
    assert len(fast) == len(slow) == len(SCORES) + k * (2 + 2 * 5)
    for each in fast:
        draws = slow[each.metric, each.label, each.rule if each.label else ""]
        defined = draws[np.isfinite(draws)]
        estimate = each.estimate
        assert estimate.undefined == 50 - len(defined)
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(defined, [0.025, 0.975])))
        assert (estimate.unit, estimate.units, estimate.n) == ("patient", len(set(ids)), 60)
    overall = classification_intervals(answers, ids, resamples=50, generator=np.random.default_rng(4))
    assert overall == {each.metric: each.estimate for each in fast if not each.label}
    assert tuple(overall) == SCORES


def test_every_result_says_its_rule_and_threshold():
    answers = made_up(40, 2, 1)
    per_row = np.where(np.arange(40)[:, None] < 20, [0.3, 0.6], [0.4, 0.6])
    found = measure(answers, "image", [decide("youden", answers.probabilities, per_row)], resamples=20)
    by = {(each.metric, each.label, each.rule): each for each in found}
    assert by["sensitivity", "class 0", "youden"].thresholds == (0.3, 0.4)
    assert by["sensitivity", "class 0", "youden"].estimate.note.endswith("Thresholds 0.300 to 0.400.")
    assert by["ppv", "class 1", "youden"].thresholds == (0.6, 0.6)
    assert by["ppv", "class 1", "argmax"].thresholds is None
    assert by["auroc", "class 1", ""].thresholds is None
    assert {each.rule for each in found if not each.label} == {"argmax", ""}
    assert by["mcc", "", "argmax"].label == by["brier", "", ""].label == ""


def test_a_class_without_threshold_says_so():
    answers = made_up(40, 2, 1)
    limits, reasons = choose_thresholds([[True, False]] * 3, [[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]], "sensitivity-0.9")
    decision = decide("sensitivity-0.9", answers.probabilities, limits, reasons)
    by = {(each.metric, each.label, each.rule): each for each in measure(answers, "image", [decision], resamples=20)}
    assert by["sensitivity", "class 0", "sensitivity-0.9"].thresholds == (0.5, 0.5)
    lacking = by["specificity", "class 1", "sensitivity-0.9"]
    assert lacking.thresholds is None
    assert lacking.estimate.value is None
    assert "validation part has no sample of the class" in lacking.estimate.note
    assert by["specificity", "class 1", "argmax"].estimate.value is not None


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
    limits = np.where(np.arange(70)[:, None] < 30, 0.3, 0.5) * np.ones(3)  # one network's and another's
    decision = decide("youden", answers.probabilities, limits)
    other = decide("youden", answers.probabilities[shuffled], limits[shuffled])
    assert measure(answers, ids, [decision], resamples=50) == measure(
        answers.take(shuffled), ids[shuffled], [other], resamples=50
    )


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
