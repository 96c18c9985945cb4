"""Several labels to a sample: every measure against scikit-learn, alone and with intervals, and where a label lacks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pellucid.errors import InputError
from pellucid.statistics import CLASS_METRICS, LABEL_SET_METRICS, decide, label_predictions, measure_labels
from pellucid.statistics.multi_label import _statistic
from references.statistics import bootstrap_draws, sklearn_class_scores, sklearn_label_scores

RANKED = ("auroc", "auprc")


def drawn(kind: str, seed: int, n: int = 70, k: int = 4):
    generator = np.random.default_rng(seed)
    shares = {"imbalanced": [0.5, 0.1, 0.05, 0.9], "missing": [0.5, 0.0, 0.4, 0.3]}.get(kind, [0.5, 0.4, 0.3, 0.6])
    truth = generator.random((n, k)) < shares[:k]
    table = np.clip(generator.normal(0.4 + 0.2 * truth, 0.25), 0, 1)
    if kind == "tied":
        table = np.round(table, 1)
    return label_predictions(truth, table, [f"label {c}" for c in range(k)])


def at_half(answers):
    return decide("fixed", answers.probabilities, 0.5)


@pytest.mark.parametrize("kind", ["random", "tied", "imbalanced", "missing"])
@pytest.mark.parametrize("seed", range(2))
def test_values_equal_sklearn_with_weights(kind, seed):
    answers = drawn(kind, seed)
    decision = at_half(answers)
    weights = np.random.default_rng(seed).random((2, 70)) + 0.05
    columns, statistic = _statistic(answers, [decision])
    values = statistic(weights)
    assert values.shape == (2, len(columns))
    for row in range(2):
        whole = sklearn_label_scores(answers.truth, decision.said, answers.probabilities, weights[row])
        overall = {c.metric: v for c, v in zip(columns, values[row], strict=True) if not c.label}
        assert set(overall) == set(whole)
        for name, value in whole.items():
            assert overall[name] == pytest.approx(value, rel=1e-10, nan_ok=True), name
        for k, label in enumerate(answers.names):
            positive, p = answers.truth[:, k], answers.probabilities[:, k]
            theirs = sklearn_class_scores(positive, decision.said[:, k], p, weights[row])
            theirs["brier"] = metrics.brier_score_loss(positive, p, sample_weight=weights[row], labels=[False, True])
            theirs["log-loss"] = metrics.log_loss(positive, p, sample_weight=weights[row], labels=[False, True])
            ours = {c.metric: v for c, v in zip(columns, values[row], strict=True) if c.label == label}
            assert set(ours) == set(theirs) == set(CLASS_METRICS.names())
            for name, value in theirs.items():
                assert ours[name] == pytest.approx(value, rel=1e-10, nan_ok=True), (label, name)


def test_micro_and_macro_equal_sklearns_own_averages():
    answers = drawn("random", 5)
    found = {each.metric: each.estimate.value for each in measure_labels(answers, resamples=2) if not each.label}
    said = answers.probabilities >= 0.5
    for average in ("macro", "micro"):
        assert found[f"{average}-auroc"] == pytest.approx(
            metrics.roc_auc_score(answers.truth, answers.probabilities, average=average)
        )
        assert found[f"{average}-auprc"] == pytest.approx(
            metrics.average_precision_score(answers.truth, answers.probabilities, average=average)
        )
        assert found[f"{average}-f1"] == pytest.approx(metrics.f1_score(answers.truth, said, average=average))
        assert found[f"{average}-ppv"] == pytest.approx(metrics.precision_score(answers.truth, said, average=average))


def test_intervals_equal_a_loop_over_sklearn():
    answers = drawn("tied", 3, n=50, k=3)
    ids = np.random.default_rng(1).integers(20, size=50).astype(str)
    limits = np.array([0.3, 0.5, 0.6])
    decisions = [at_half(answers), decide("youden", answers.probabilities, limits)]

    def all_scores(rows):
        found = {}
        for decision in decisions:
            truth, said, table = answers.truth[rows], decision.said[rows], answers.probabilities[rows]
            by_label = [sklearn_class_scores(truth[:, k], said[:, k], table[:, k]) for k in range(3)]
            everything = [("", sklearn_label_scores(truth, said, table)), *zip(answers.names, by_label, strict=True)]
            for label, scores in everything:
                for name, value in scores.items():
                    free = name.removeprefix("macro-").removeprefix("micro-") in (*RANKED, "brier", "log-loss")
                    found[name, label, "" if free else decision.rule] = value
        return found

    slow = bootstrap_draws(all_scores, ids.tolist(), resamples=25, seed=4)
    fast = measure_labels(answers, ids, decisions, resamples=25, generator=np.random.default_rng(4))
    checked = 0
    for each in fast:
        if each.label and each.metric in ("brier", "log-loss"):
            continue  # means over samples, of which "brier" and "log-loss" of all labels are the mean
        draws = slow[each.metric, each.label, each.rule]
        defined = draws[np.isfinite(draws)]
        assert each.estimate.undefined == 25 - len(defined)
        assert (each.estimate.low, each.estimate.high) == pytest.approx(tuple(np.quantile(defined, [0.025, 0.975])))
        checked += 1
    assert checked == len(slow) == 2 * (2 + 10) + 4 + 2 + 3 * (2 * 5 + 2)


def test_worked_by_hand():
    """Four samples, two labels: one hit of two in a, one of one in b with a false alarm."""
    truth = [[1, 0], [1, 0], [0, 1], [0, 0]]
    table = [[0.9, 0.7], [0.2, 0.1], [0.3, 0.8], [0.4, 0.3]]
    found = {
        (each.metric, each.label): each.estimate.value
        for each in measure_labels(label_predictions(truth, table, "ab"), resamples=2)
    }
    assert found["sensitivity", "a"] == 0.5
    assert found["ppv", "b"] == 0.5
    assert found["specificity", "b"] == pytest.approx(2 / 3)
    assert found["macro-sensitivity", ""] == 0.75
    assert found["micro-sensitivity", ""] == pytest.approx(2 / 3)
    assert found["micro-ppv", ""] == pytest.approx(2 / 3)
    assert found["macro-ppv", ""] == 0.75
    assert found["subset-accuracy", ""] == 0.5
    assert found["hamming-loss", ""] == 0.25
    assert found["auroc", "a"] == 0.5
    assert found["brier", "b"] == pytest.approx((0.49 + 0.01 + 0.04 + 0.09) / 4)
    assert found["log-loss", "a"] == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.6]).mean())


def test_a_label_without_samples_is_named():
    answers = drawn("missing", 0)
    found = {(each.metric, each.label): each.estimate for each in measure_labels(answers, resamples=20)}
    for name in ("sensitivity", "auroc", "auprc", "f1"):
        assert found[name, "label 1"].value is None
        assert found[f"macro-{name}", ""].value is None
        assert found[f"macro-{name}", ""].note == found[name, "label 1"].note
        assert found[f"micro-{name}", ""].value is not None
    assert (
        found["auroc", "label 1"].note
        == "Undefined for 'label 1': there is no sample of the class, or none of another."
    )
    assert found["specificity", "label 1"].value is not None
    none = label_predictions(np.zeros((5, 2)), np.full((5, 2), 0.3), "ab")
    found = {(each.metric, each.label): each.estimate for each in measure_labels(none, resamples=20)}
    assert found["micro-sensitivity", ""].note == "Undefined for all labels as one: there is no sample of the class."
    assert found["subset-accuracy", ""].value == 1.0


def test_a_label_without_threshold_leaves_out_what_needs_one():
    answers = drawn("random", 1, k=2)
    reason = "No threshold could be chosen: the validation part has no sample of the class."
    decision = decide("youden", answers.probabilities, [0.4, np.nan], ["", reason])
    for each in measure_labels(answers, "image", [decision], resamples=5):
        lacks = bool(each.rule) and each.label in ("label 1", "")
        assert (each.estimate.value is None) is lacks
        if lacks:
            assert each.estimate.note == reason
            assert each.thresholds is None


def test_thresholds_are_in_the_result():
    answers = drawn("random", 1, k=2)
    found = measure_labels(answers, "image", [decide("youden", answers.probabilities, [0.3, 0.6])], resamples=5)
    by = {(each.metric, each.label): each for each in found}
    assert by["sensitivity", "label 1"].thresholds == (0.6, 0.6)
    assert by["macro-f1", ""].thresholds == by["hamming-loss", ""].thresholds == (0.3, 0.6)
    assert by["auroc", "label 0"].thresholds is None
    assert {each.rule for each in found} == {"youden", ""}
    assert {each.rule for each in measure_labels(answers, resamples=5)} == {"fixed", ""}


def test_one_label_alone_is_binary():
    answers = drawn("tied", 2, k=1)
    found = {(each.metric, each.label): each.estimate for each in measure_labels(answers, resamples=50)}
    for name in CLASS_METRICS.names():
        if name not in ("brier", "log-loss"):
            assert found[f"macro-{name}", ""].value == found[f"micro-{name}", ""].value == found[name, "label 0"].value
    assert found["subset-accuracy", ""].value == 1 - found["hamming-loss", ""].value


def test_order_of_samples_changes_no_bit():
    answers = drawn("tied", 4)
    ids = np.array([f"p{i % 20}" if i % 3 else "" for i in range(70)])
    shuffled = np.random.default_rng(2).permutation(70)
    assert measure_labels(answers, ids, resamples=50) == measure_labels(
        answers.take(shuffled), ids[shuffled], resamples=50
    )


def test_no_samples_give_reasons_not_errors():
    found = measure_labels(label_predictions([], [], ["a", "b"]))
    assert {each.estimate.note for each in found} == {"There are no samples."}
    assert all(each.estimate.value is None for each in found)
    assert {each.metric for each in found} >= set(LABEL_SET_METRICS.names())


@pytest.mark.parametrize(
    ("truth", "table", "names", "words"),
    [
        ([[1, 0]], [[0.5]], "ab", r"two tables \(N, 2\)"),
        ([[1, 2]], [[0.5, 0.5]], "ab", "True or False, or 0 and 1"),
        ([[1, 0]], [[0.5, 1.5]], "ab", "values in"),
        ([[1, 0]], [[0.5, np.nan]], "ab", "values in"),
        ([[1, 0]], [[0.5, 0.5]], "aa", "different labels"),
    ],
)
def test_what_does_not_fit_is_refused(truth, table, names, words):
    with pytest.raises(InputError, match=words):
        label_predictions(truth, table, list(names))
    with pytest.raises(InputError, match="decisions: expected decisions"):
        measure_labels(label_predictions([[1, 0]], [[0.5, 0.5]], "ab"), "image", [decide("fixed", [[0.5]], 0.5)])
