"""Thresholds against scikit-learn's ROC curve and by trying each, and where none can be chosen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import THRESHOLD_RULES, choose_thresholds, decide
from pellucid.statistics.thresholds import argmax_decision


def drawn(seed: int, n: int = 60, decimals: int = 1):
    generator = np.random.default_rng(seed)
    truth = generator.random((n, 3)) < [0.5, 0.2, 0.1]
    truth[0], truth[1] = True, False
    return truth, np.round(np.clip(generator.normal(0.4 + 0.15 * truth, 0.2), 0, 1), decimals)


def rates(positive, scores, threshold):
    said = scores >= threshold
    return (said & positive).sum() / positive.sum(), (~said & ~positive).sum() / (~positive).sum()


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("seed", range(6))
def test_youden_is_the_best_of_all_thresholds(seed, decimals):
    truth, table = drawn(seed, decimals=decimals)
    limits, reasons = choose_thresholds(truth, table, "youden")
    assert reasons == ("", "", "")
    for k, limit in enumerate(limits):
        fpr, tpr, theirs = metrics.roc_curve(truth[:, k], table[:, k], drop_intermediate=False)
        best = (tpr - fpr).max()
        sensitivity, specificity = rates(truth[:, k], table[:, k], limit)
        assert sensitivity + specificity - 1 == pytest.approx(best)
        assert limit == min(theirs[np.isclose(tpr - fpr, best, rtol=0, atol=1e-9)])


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("seed", range(6))
def test_stated_sensitivity_is_the_highest_threshold_that_reaches_it(seed, decimals):
    truth, table = drawn(seed, decimals=decimals)
    limits, _ = choose_thresholds(truth, table, "sensitivity-0.9")
    for k, limit in enumerate(limits):
        assert rates(truth[:, k], table[:, k], limit)[0] >= 0.9
        higher = table[:, k][table[:, k] > limit]
        assert not len(higher) or rates(truth[:, k], table[:, k], higher.min())[0] < 0.9


def test_nine_of_ten_is_enough():
    """0.9 isn't a binary fraction, and 9 of 10 must reach it."""
    scores = np.linspace(0.1, 1, 10)[:, None]
    limits, _ = choose_thresholds(np.ones((10, 1), dtype=bool), scores, "sensitivity-0.9")
    assert limits[0] == scores[1, 0]


def test_youden_worked_by_hand():
    """At 0.4 sensitivity is 1 and specificity 2/3; at 0.9 1/2 and 1: the sum is largest at 0.4."""
    truth = np.array([[True], [True], [False], [False], [False]])
    limits, _ = choose_thresholds(truth, [[0.9], [0.4], [0.6], [0.1], [0.2]], "youden")
    assert limits.tolist() == [0.4]


def test_equal_gains_give_the_lower_threshold():
    truth = np.array([[True], [False], [True], [False]])
    limits, _ = choose_thresholds(truth, [[0.9], [0.8], [0.7], [0.1]], "youden")
    assert limits.tolist() == [0.7]  # 0.9 gives 1/2 + 1 as 0.7 gives 1 + 1/2


def test_missing_classes_give_reasons():
    truth = np.array([[True, False, True], [True, False, False]])
    table = np.full((2, 3), 0.5)
    limits, reasons = choose_thresholds(truth, table, "youden")
    np.testing.assert_array_equal(np.isnan(limits), [True, True, False])
    assert "every sample is of the class" in reasons[0]
    assert "has no sample of the class" in reasons[1]
    assert reasons[2] == ""
    limits, reasons = choose_thresholds(truth, table, "sensitivity-0.9")  # needs no sample of another class
    np.testing.assert_array_equal(np.isnan(limits), [False, True, False])
    decision = decide("sensitivity-0.9", table, limits, reasons)
    assert decision.reasons == reasons
    assert not decision.said[:, 1].any()
    assert decision.span(1) is None
    assert decision.span(2) == (0.5, 0.5)


def test_an_empty_validation_part_gives_reasons():
    limits, reasons = choose_thresholds(np.zeros((0, 2), dtype=bool), np.zeros((0, 2)), "youden")
    assert np.isnan(limits).all()
    assert all("has no sample of the class" in reason for reason in reasons)


def test_at_least_means_the_threshold_itself_too():
    decision = decide("fixed", [[0.5], [0.49]], 0.5)
    assert decision.said.tolist() == [[True], [False]]
    assert decision.thresholds.tolist() == [[0.5], [0.5]]
    assert argmax_decision(np.array([0]), 2).span(0) is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'youden'"):
        choose_thresholds([[True]], [[0.5]], "youdens")
    with pytest.raises(InputError, match="two tables"):
        choose_thresholds([[True]], [[0.5, 0.5]], "youden")
    with pytest.raises(InputError, match="thresholds: expected probabilities in"):
        decide("fixed", [[0.5, 0.5]], 1.5)
    with pytest.raises(InputError, match="thresholds: expected one"):
        decide("fixed", [[0.5, 0.5]], [0.1, 0.2, 0.3])
    assert "No threshold was given." in decide("fixed", [[0.5, 0.5]], [0.1, np.nan]).reasons[1]


def test_rules_are_declared():
    assert THRESHOLD_RULES.names() == ("youden", "sensitivity-0.9")
    assert all(entry.source and entry.summary for entry in THRESHOLD_RULES)
