"""Each measure as a function of weights: against scikit-learn with sample weights, and worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pellucid.statistics import CLASS_METRICS, LABEL_SET_METRICS, SCORE_METRICS, predictions
from pellucid.statistics.class_metrics import Counts, ranking
from pellucid.statistics.classification import _statistic, confusion_matrix
from pellucid.statistics.measured import outcomes
from references.classified import made_up
from references.statistics import sklearn_class_scores, sklearn_scores


def class_scores(positive, said, probability, weights):
    """The class metrics that need a decision or a ranking, by their own functions."""
    counts = Counts(*(weights @ cell for cell in outcomes(positive, said)))
    ranked = ranking(positive, probability)(weights)
    found = {name: CLASS_METRICS[name].function(counts) for name in CLASS_METRICS.names("decision")}
    return found | {name: CLASS_METRICS[name].function(ranked) for name in CLASS_METRICS.names("ranking")}


def binary(kind: str, seed: int):
    """(positive, said, probability) of one kind of data."""
    generator = np.random.default_rng(seed)
    n = 57
    share = {"imbalanced": 0.06, "all": 1.0, "none": 0.0}.get(kind, 0.4)
    positive = generator.random(n) < share
    probability = np.clip(generator.normal(0.4 + 0.2 * positive, 0.25), 0, 1)
    if kind == "tied":
        probability = np.round(probability, 1)
    if kind == "constant":
        probability[:] = 0.5
    return positive, probability >= 0.5, probability


@pytest.mark.parametrize("kind", ["random", "tied", "imbalanced", "all", "none", "constant"])
@pytest.mark.parametrize("seed", range(3))
def test_class_metrics_equal_sklearn_with_weights(kind, seed):
    positive, said, probability = binary(kind, seed)
    generator = np.random.default_rng(seed + 100)
    n = len(positive)
    weights = np.stack([np.ones(n), generator.random(n) + 0.1, generator.integers(3, size=n)])
    ours = class_scores(positive, said, probability, weights)
    for row in range(3):
        kept = weights[row] > 0  # scikit-learn sees a class in samples of weight 0, which aren't there for us
        theirs = sklearn_class_scores(positive[kept], said[kept], probability[kept], weights[row][kept])
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            assert ours[name][row] == pytest.approx(value, rel=1e-11, abs=1e-15, nan_ok=True), (name, row)


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("seed", range(2))
def test_scores_of_all_classes_equal_sklearn_with_weights(k, seed):
    answers = made_up(70, k, seed)
    weights = np.random.default_rng(seed).random((2, 70)) + 0.05
    columns, statistic = _statistic(answers, ())
    values = statistic(weights)
    names = [column.metric for column in columns if not column.label]
    assert names == list(SCORE_METRICS.names())
    for row in range(2):
        theirs = sklearn_scores(answers.labels, answers.predicted, answers.probabilities, weights[row])
        assert set(theirs) == set(names)
        for place, name in enumerate(names):
            assert values[row, place] == pytest.approx(theirs[name], rel=1e-10), name


def test_every_measure_is_declared_in_full():
    for registry in (CLASS_METRICS, SCORE_METRICS, LABEL_SET_METRICS):
        for entry in registry:
            assert entry.summary.endswith("."), entry.name
            assert entry.source, entry.name
            assert entry.missing, entry.name
            assert entry.range is not None, entry.name
            assert entry.range[0] < entry.range[1], entry.name
            assert entry.higher_is_better is (entry.name not in ("brier", "log-loss", "hamming-loss"))


def test_ranges_are_reached():
    """The best and the worst answers give the ends of each declared range that can be reached."""
    truth = np.eye(2)
    best, worst = (
        dict(zip(SCORE_METRICS.names(), _statistic(predictions([0, 1], said, table, "ab"), ())[1](np.ones((1, 2)))[0],
                 strict=False))
        for said, table in (([0, 1], truth), ([1, 0], 1 - truth))
    )  # fmt: skip
    for entry in SCORE_METRICS:
        low, high = entry.range if entry.higher_is_better else entry.range[::-1]
        assert best[entry.name] == pytest.approx(high, abs=1e-15), entry.name
        if entry.name != "auprc":  # the worst order still has the frequency's precision at the end
            assert worst[entry.name] == pytest.approx(low), entry.name
    assert worst["auprc"] == pytest.approx(0.5)


def test_diagnostic_test_worked_by_hand():
    """The liver scans of Altman & Bland 1994: 231 abnormal of 258 diseased, 54 normal of 86 healthy."""
    counts = Counts(*(np.array([float(value)]) for value in (231, 32, 27, 54)))
    found = {name: CLASS_METRICS[name].function(counts).item() for name in CLASS_METRICS.names("decision")}
    assert round(found["sensitivity"], 2) == 0.90
    assert round(found["specificity"], 2) == 0.63
    assert round(found["ppv"], 2) == 0.88
    assert round(found["npv"], 2) == 0.67
    assert found["f1"] == pytest.approx(462 / 521)


def test_average_precision_worked_by_hand():
    """Ranks from the top: yes, no, yes, and a tie of yes and no: 1/3 · 1 + 1/3 · 2/3 + 1/3 · 3/5."""
    positive = np.array([True, False, True, True, False])
    ranked = ranking(positive, np.array([0.9, 0.8, 0.7, 0.3, 0.3]))(np.ones((1, 5)))
    assert CLASS_METRICS["auprc"].function(ranked).item() == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert CLASS_METRICS["auroc"].function(ranked).item() == pytest.approx((2 + 1 + 0.5) / 6)


def test_mcc_worked_by_hand():
    """Two classes: (TP · TN − FP · FN) / √(…); R_K of a 3 × 3 table from its covariances."""
    two = np.array([[[50.0, 10.0], [5.0, 35.0]]])
    assert SCORE_METRICS["mcc"].function(two).item() == pytest.approx((35 * 50 - 10 * 5) / np.sqrt(45 * 40 * 60 * 55))
    three = np.array([[[4.0, 1.0, 0.0], [2.0, 3.0, 1.0], [0.0, 2.0, 5.0]]])
    true = np.repeat(np.eye(3).repeat(3, axis=0), three.ravel().astype(int), axis=0)
    said = np.repeat(np.tile(np.eye(3), (3, 1)), three.ravel().astype(int), axis=0)

    def covariance(a, b):
        return ((a - a.mean(axis=0)) * (b - b.mean(axis=0))).sum()

    expected = covariance(true, said) / np.sqrt(covariance(true, true) * covariance(said, said))
    assert SCORE_METRICS["mcc"].function(three).item() == pytest.approx(expected)


def test_kappa_and_balanced_accuracy_worked_by_hand():
    """Agreement 0.7 where chance gives 0.5 is 0.4: the 20, 5, 10, 15 of 50 decisions."""
    assert SCORE_METRICS["kappa"].function(np.array([[[20.0, 5.0], [10.0, 15.0]]])).item() == pytest.approx(0.4)
    assert SCORE_METRICS["balanced-accuracy"].function(np.array([[0.8, 0.6]])).item() == pytest.approx(0.7)


def test_losses_worked_by_hand_and_clipped():
    member = np.array([[True, False, False]])
    table = np.array([[0.7, 0.2, 0.1]])
    assert SCORE_METRICS["brier"].function(member, table).item() == pytest.approx(0.09 + 0.04 + 0.01)
    assert SCORE_METRICS["log-loss"].function(member, table).item() == pytest.approx(-np.log(0.7))
    surely_wrong = np.array([[0.0, 1.0, 0.0]])
    worst = SCORE_METRICS["log-loss"].function(member, surely_wrong).item()
    assert worst == pytest.approx(SCORE_METRICS["log-loss"].range[1]) == pytest.approx(36.0437, abs=1e-4)
    assert SCORE_METRICS["brier"].function(member, surely_wrong).item() == 2.0


def test_set_measures_worked_by_hand():
    true, said = (
        np.array([[True, False, True, False]] * 2),
        np.array([[True, False, True, False], [True, True, True, True]]),
    )
    assert LABEL_SET_METRICS["subset-accuracy"].function(true, said).tolist() == [1.0, 0.0]
    assert LABEL_SET_METRICS["hamming-loss"].function(true, said).tolist() == [0.0, 0.5]


def test_a_resample_without_the_class_has_no_value():
    positive, said, probability = (
        np.array([True, False, False]),
        np.array([True, True, False]),
        np.array([0.9, 0.6, 0.2]),
    )
    found = class_scores(positive, said, probability, np.array([[0.0, 1.0, 2.0], [2.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    for name in ("sensitivity", "f1", "auroc", "auprc"):
        assert np.isnan(found[name][0])
        assert np.isfinite(found[name][2])
    assert found["ppv"].tolist() == [0.0, 1.0, 0.5]
    for name in ("specificity", "auroc", "npv"):
        assert np.isnan(found[name][1])


def test_confusion_is_what_the_tables_count():
    answers = made_up(50, 3, 0)
    table = confusion_matrix(answers)[None].astype(float)
    assert SCORE_METRICS["accuracy"].function(table).item() == (answers.labels == answers.predicted).mean()
    assert SCORE_METRICS["mcc"].function(table).item() == pytest.approx(
        metrics.matthews_corrcoef(answers.labels, answers.predicted)
    )
