"""Paired t-tests: against SciPy, the known overstatement of the plain one, and degenerate input."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from pellucid.errors import InputError
from pellucid.statistics import corrected_resampled_t, paired_t
from pellucid.statistics.paired import noncentrality_interval
from references import statistics as slow


def two_sides(n: int, seed: int):
    generator = np.random.default_rng(seed)
    a = generator.normal(0.8, 0.1, size=n)
    return a, a - generator.normal(0.03, 0.05, size=n)


@pytest.mark.parametrize("n", [2, 5, 40, 900])
def test_paired_t_equals_scipy(n):
    a, b = two_sides(n, n)
    result, theirs = paired_t(a, b), stats.ttest_rel(a, b)
    assert result.statistic == pytest.approx(theirs.statistic)
    assert result.p_value == pytest.approx(theirs.pvalue)
    assert (result.df, result.n, result.unit) == (theirs.df, n, "image")
    assert result.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert result.mean_difference == pytest.approx(result.mean_a - result.mean_b)
    assert result.effect_size == pytest.approx(theirs.statistic / math.sqrt(n))


def test_scores_are_averaged_within_patients_before_pairing():
    a, b = two_sides(30, 1)
    ids = np.array([f"p{i % 11}" for i in range(30)])
    result = paired_t(a, b, ids)
    means = [(a[ids == p].mean(), b[ids == p].mean()) for p in sorted(set(ids))]
    theirs = stats.ttest_rel(*zip(*means, strict=True))
    assert (result.n, result.unit) == (11, "patient")
    assert result.p_value == pytest.approx(theirs.pvalue)


def test_a_pair_with_one_side_missing_is_left_out():
    a, b = two_sides(12, 2)
    holes = a.copy()
    holes[[3, 7]] = np.nan
    result = paired_t(holes, b, ["p"] * 4 + [f"q{i}" for i in range(8)])
    keep = np.isfinite(holes)
    ids = np.array(["p"] * 4 + [f"q{i}" for i in range(8)])[keep]
    assert result == replace(paired_t(a[keep], b[keep], ids), n_missing=2)


@pytest.mark.parametrize(("k", "overstated"), [(5, 1.50), (10, 1.45)])
def test_plain_t_over_folds_overstates(k, overstated):
    a, b = two_sides(k, k)
    plain, corrected = paired_t(a, b, "fold"), corrected_resampled_t(a, b, k - 1, 1)
    ratio = plain.statistic / corrected.statistic
    assert ratio == pytest.approx(math.sqrt(1 + k / (k - 1)))
    assert round(ratio, 2) == overstated
    assert corrected.effect_size == pytest.approx(plain.effect_size)
    for narrow, wide in ((plain.interval, corrected.interval), (plain.effect_interval, corrected.effect_interval)):
        assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_corrected_t_by_hand():
    difference = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    result = corrected_resampled_t(0.8 + difference, np.full(5, 0.8), n_train=80, n_test=20)
    t = 0.026 / math.sqrt((1 / 5 + 20 / 80) * difference.var(ddof=1))
    assert result.statistic == pytest.approx(t)
    assert result.p_value == pytest.approx(2 * stats.t.sf(t, 4))
    assert (result.name, result.unit, result.df) == ("corrected-resampled-t", "fold", 4)


def false_alarms(test, k: int, simulations: int) -> float:
    """Share of p ≤ 0.05 when fold differences have mean 0 and correlation n_test / (n_train + n_test) = 1/k."""
    generator = np.random.default_rng(8)
    shared, own = generator.normal(size=(simulations, 1)), generator.normal(size=(simulations, k))
    differences = math.sqrt(1 / k) * shared + math.sqrt(1 - 1 / k) * own
    return float(np.mean([test(row, np.zeros(k)).p_value <= 0.05 for row in differences]))


def check_false_alarms(simulations: int, within: float):
    k = 5
    corrected = false_alarms(lambda a, b: corrected_resampled_t(a, b, k - 1, 1), k, simulations)
    plain = false_alarms(lambda a, b: paired_t(a, b, "fold"), k, simulations)
    assert corrected == pytest.approx(0.05, abs=within)
    assert plain == pytest.approx(2 * stats.t.sf(stats.t.isf(0.025, k - 1) / 1.5, k - 1), abs=2 * within)


def test_corrected_t_keeps_its_level_where_the_plain_one_does_not():
    check_false_alarms(600, within=0.03)


@pytest.mark.slow
def test_level_with_many_simulations():
    check_false_alarms(10_000, within=0.01)


def learners_that_tie(generator: np.random.Generator, splits: int):
    """Accuracies of two nearest-mean learners on different, equally good features, over random splits 80 : 20."""
    labels = np.repeat([0, 1], 50)
    features = generator.normal(size=(100, 4)) + 0.7 * labels[:, None]
    scores = np.empty((splits, 2))
    for split in range(splits):
        order = generator.permutation(100)
        train, test = order[:80], order[80:]
        for side, columns in enumerate(([0, 1], [2, 3])):
            means = [features[train][labels[train] == c][:, columns].mean(axis=0) for c in (0, 1)]
            near = [((features[test][:, columns] - mean) ** 2).sum(axis=1) for mean in means]
            scores[split, side] = ((near[1] < near[0]) == labels[test]).mean()
    return scores


@pytest.mark.slow
def test_level_on_learners_over_random_splits():
    generator = np.random.default_rng(21)
    corrected, plain = [], []
    for _ in range(1500):
        a, b = learners_that_tie(generator, 15).T
        corrected.append(corrected_resampled_t(a, b, 80, 20).p_value)
        plain.append(paired_t(a, b, "fold").p_value)
    assert np.mean(np.array(corrected) <= 0.05) < 0.10
    assert np.mean(np.array(plain) <= 0.05) > 0.25


@pytest.mark.parametrize(("t", "df"), [(0.0, 4), (2.0, 1), (-3.0, 4), (1.7, 119), (14.0, 30)])
def test_noncentrality_interval_equals_the_integral(t, df):
    assert noncentrality_interval(t, df, 0.95) == pytest.approx(slow.noncentrality_interval(t, df, 0.95), abs=1e-6)


@pytest.mark.parametrize(("t", "df", "confidence"), [(2.5, 19, 0.9), (-1.0, 4, 0.95), (6.0, 200, 0.99)])
def test_noncentrality_interval_equals_scipys_other_inversion(t, df, confidence):
    theirs = tuple(special.nctdtrinc(df, q, t) for q in ((1 + confidence) / 2, (1 - confidence) / 2))
    assert noncentrality_interval(t, df, confidence) == pytest.approx(theirs, abs=1e-5)


def test_noncentrality_interval_is_continuous_where_the_limit_takes_over():
    for df in (1, 9, 399):
        below, above = (noncentrality_interval(t, df, 0.95) for t in (1e4, 1e4 * (1 + 1e-9)))
        assert above == pytest.approx(below, rel=2e-3)


def test_noncentrality_interval_survives_any_t():
    for t in (1e-12, 30.0, 924.0, 9999.0, 1e6, 1e12):
        for df in (1, 2, 399, 5000):
            low, high = noncentrality_interval(t, df, 0.999)
            assert low < t < high
            assert noncentrality_interval(-t, df, 0.999) == (-high, -low)


def effect_interval_coverage(simulations: int) -> float:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(simulations):
        low, high = paired_t(generator.normal(0.5, 1.0, size=12), np.zeros(12)).effect_interval
        hits += low <= 0.5 <= high
    return hits / simulations


def test_effect_interval_covers():
    assert effect_interval_coverage(400) == pytest.approx(0.95, abs=0.033)


@pytest.mark.slow
def test_effect_interval_covers_with_many_simulations():
    assert effect_interval_coverage(10_000) == pytest.approx(0.95, abs=0.007)


def test_identical_sides_say_so():
    a = np.random.default_rng(0).random(20)
    for b in (a, a + 1e-8, a.astype(np.float32)):
        result = paired_t(a, b, "fold")
        assert result.identical
        assert result.p_value == 1.0
        assert result.note == "Identical: the scores coincide in all 20 folds."
        assert result.statistic is None
    assert paired_t([0.0, 0.0], [0.0, 0.0]).identical
    assert paired_t([0.4], [0.4], "fold").note == "Identical: the scores coincide in the only fold."


def test_small_true_differences_are_not_called_identical():
    a = np.random.default_rng(0).random(20)
    result = paired_t(a, a + np.random.default_rng(1).normal(1e-4, 1e-5, 20))
    assert not result.identical
    assert result.p_value < 0.001


def test_one_pair_has_no_p():
    result = paired_t([0.9], [0.8], "fold")
    assert (result.p_value, result.df, result.n) == (None, None, 1)
    assert result.mean_difference == pytest.approx(0.1)
    assert result.note == "One fold only: a difference can't be held against its spread."


def test_one_patient_with_many_images_is_one_pair():
    a, b = two_sides(10, 3)
    assert paired_t(a, b, ["p"] * 10).p_value is None


def test_no_pair_has_no_difference():
    result = paired_t([np.nan, 0.3], [0.2, np.nan], ["a", "b"])
    assert (result.n, result.n_missing, result.mean_difference, result.p_value) == (0, 2, None, None)
    assert result.note == "No pair has a score on both sides."
    assert paired_t([], []).n == 0


def test_a_constant_difference_has_no_p():
    result = corrected_resampled_t([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], 2, 1)
    assert (result.p_value, result.statistic, result.identical) == (None, None, False)
    assert result.mean_difference == pytest.approx(0.1)
    assert result.note == "The difference is the same in all 3 folds, so there is no spread to hold it against."


def test_differences_whose_squares_vanish_are_none():
    assert paired_t((0.0, 0.0), (0.0, 5e-324)).identical


def test_rows_without_patient_are_noted():
    a, b = two_sides(6, 4)
    result = paired_t(a, b, ["a", "a", "", "b", "c", ""])
    assert (result.n, result.unit) == (5, "patient")
    assert result.note == "2 of 6 rows have no patient id and count as a patient each."


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=15), st.randoms())
def test_properties(rows, random):
    a, b = zip(*rows, strict=True)
    result, swapped = paired_t(a, b), paired_t(b, a)
    assert result.p_value == swapped.p_value
    assert result.mean_difference == pytest.approx(-swapped.mean_difference, abs=1e-15)
    shuffled = paired_t(*zip(*random.sample(rows, len(rows)), strict=True))
    if result.p_value is None:
        assert result.note
        assert shuffled.p_value is None
        return
    assert 0 <= result.p_value <= 1
    assert shuffled.p_value == pytest.approx(result.p_value, rel=1e-6, abs=1e-12)
    if result.interval is not None:
        assert result.interval[0] <= result.mean_difference <= result.interval[1]
        assert result.effect_interval[0] <= result.effect_size <= result.effect_interval[1]
        assert (result.p_value < 0.05) == (not result.interval[0] <= 0 <= result.interval[1]) or math.isclose(
            result.p_value, 0.05, rel_tol=1e-6
        )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: paired_t([1.0, 2.0], [1.0]), "a, b: expected two vectors of equal length"),
        (lambda: paired_t([[1.0]], [[2.0]]), "a, b: expected two vectors"),
        (lambda: paired_t([np.inf], [1.0]), "a: expected finite numbers"),
        (lambda: paired_t([1.0, 2.0], [1.0, 3.0], ["p"]), "units: expected one id for each of 2 rows"),
        (lambda: paired_t([1.0], [1.0], confidence=95), "confidence: expected"),
        (lambda: corrected_resampled_t([1.0], [1.0], 0, 1), "n_train: expected a positive"),
        (lambda: corrected_resampled_t([1.0], [1.0], 1, math.nan), "n_test: expected a positive"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
