"""Wilcoxon's signed ranks: against R's published example, all signs, SciPy, coverage, and degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import wilcoxon
from references import paired_tests as slow


def test_the_example_of_r():
    """R: V = 40, p-value = 0.01953 one-sided (10 of 512 ways), (pseudo)median 0.46, 95 percent interval 0.010 0.786."""
    result = wilcoxon(*slow.DEPRESSION)
    assert (result.statistic, result.n, result.measure) == (40.0, 9, "median")
    assert result.p_value == pytest.approx(20 / 512)
    assert result.mean_difference == pytest.approx(0.46)
    assert result.interval == pytest.approx((0.010, 0.786))
    assert result.effect_size == pytest.approx((40 - 5) / 45)


@pytest.mark.parametrize("n", [2, 6, 9, 12])
def test_p_equals_that_of_all_signs(n):
    differences = np.random.default_rng(n).normal(0.4, 1, size=n)
    assert wilcoxon(differences, np.zeros(n)).p_value == pytest.approx(slow.signed_rank_p(differences))


@pytest.mark.parametrize("zeros", ["wilcox", "pratt"])
@pytest.mark.parametrize("n", [20, 200])
def test_zeros_and_ties_are_scipys(n, zeros):
    generator = np.random.default_rng(n)
    differences = generator.integers(-2, 4, size=n).astype(float)
    result = wilcoxon(differences, np.zeros(n), zeros=zeros)
    theirs = stats.wilcoxon(differences, zero_method=zeros)
    assert result.p_value == pytest.approx(theirs.pvalue)
    kept = differences if zeros == "pratt" else differences[differences != 0]
    ranks = stats.rankdata(np.abs(kept))
    up, down = ranks[kept > 0].sum(), ranks[kept < 0].sum()
    assert (result.statistic, min(up, down)) == (up, theirs.statistic)
    assert result.effect_size == pytest.approx((up - down) / (up + down))
    none = int((differences == 0).sum())
    assert f"{none} of {n} images without a difference left out" in result.note
    assert ("before" if zeros == "wilcox" else "after") in result.note


def test_sizes_that_differ_by_rounding_are_ties():
    a = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75])
    b = np.array([0.2, 0.1, 0.2, 0.5, 0.3, 0.4, 0.05])
    assert wilcoxon(a, b).p_value == wilcoxon(np.round(100 * a), np.round(100 * b)).p_value


@pytest.mark.parametrize("n", [6, 17, 50, 51, 90])
def test_the_typical_difference_is_the_median_of_pair_means(n):
    differences = np.random.default_rng(n).normal(0.2, 1, size=n).round(1)
    result = wilcoxon(differences, np.zeros(n))
    means = slow.pair_means(differences)
    assert result.mean_difference == pytest.approx(float(np.median(means)), abs=1e-12)
    for bound in result.interval:
        assert min(abs(bound - mean) for mean in means) < 1e-12


@pytest.mark.parametrize("n", [6, 17, 40])
def test_the_interval_holds_the_shifts_that_are_not_refused(n):
    differences = np.random.default_rng(n).normal(0.2, 1, size=n)
    low, high = wilcoxon(differences, np.zeros(n)).interval
    step = 1e-4
    for bound, inwards in ((low, step), (high, -step)):
        assert wilcoxon(differences, np.full(n, bound + inwards)).p_value > 0.05
        assert wilcoxon(differences, np.full(n, bound - inwards)).p_value <= 0.05


def test_too_few_units_have_no_interval_but_an_effect():
    result = wilcoxon([0.9, 0.8, 0.7, 0.9, 0.8], [0.5, 0.6, 0.6, 0.4, 0.5], "fold")
    assert result.interval is None
    assert result.note == "5 folds only: too few for a 95 % interval."
    assert result.effect_size == 1.0
    assert result.effect_interval[0] < 0.5
    assert result.effect_interval[1] == 1.0


def coverage(simulations: int, n: int, shift: float) -> tuple[float, float]:
    """How often the intervals hold the median and the effect of normal differences."""
    generator = np.random.default_rng(3)
    truth = 2 * stats.norm.cdf(shift * math.sqrt(2)) - 1
    hits = np.zeros(2)
    for _ in range(simulations):
        result = wilcoxon(generator.normal(shift, 1, size=n), np.zeros(n))
        hits += [
            result.interval[0] <= shift <= result.interval[1],
            result.effect_interval[0] <= truth <= result.effect_interval[1],
        ]
    return tuple(hits / simulations)


@pytest.mark.parametrize(("n", "shift"), [(8, 1.0), (10, 0.0), (30, 0.6), (30, 1.5)])
def test_intervals_cover(n, shift):
    of_median, of_effect = coverage(400, n, shift)
    assert of_median >= 0.92
    assert of_effect >= 0.92


def test_patients_are_the_units():
    generator = np.random.default_rng(0)
    a, b = generator.random(30), generator.random(30)
    ids = [f"p{i % 10}" for i in range(30)]
    result = wilcoxon(a, b, ids)
    means = [(a[i::10].mean(), b[i::10].mean()) for i in range(10)]
    assert result.p_value == pytest.approx(stats.wilcoxon(*zip(*means, strict=True)).pvalue)
    assert (result.n, result.unit) == (10, "patient")


def test_degenerate_input_has_a_stated_answer():
    assert wilcoxon([0.4, 0.5], [0.4, 0.5]).identical
    assert wilcoxon([0.4], [0.5], "fold").note == "One fold only: a difference can't be held against its spread."
    assert wilcoxon([np.nan], [0.5]).note == "No pair has a score on both sides."
    constant = wilcoxon([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [0.4, 0.5, 0.6, 0.7, 0.8, 0.9], "fold")
    assert constant.p_value is not None
    assert constant.interval == pytest.approx((0.1, 0.1))
    one = wilcoxon([0.5, 0.6, 0.9], [0.5, 0.6, 0.7], "fold")
    assert one.p_value == 1.0
    assert "2 of 3 folds without a difference" in one.note


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnknownNameError, match="unknown way with zeros 'split'"):
        wilcoxon([1.0], [2.0], zeros="split")
    with pytest.raises(InputError, match="a, b: expected two vectors"):
        wilcoxon([1.0, 2.0], [1.0])
