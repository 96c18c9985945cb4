"""Non-inferiority and equivalence: against SciPy's and statsmodels' one-sided tests, levels, and degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from pellucid.errors import InputError
from pellucid.statistics import corrected_resampled_t, equivalence, non_inferiority, paired_t


@pytest.fixture
def sides():
    generator = np.random.default_rng(0)
    a = generator.normal(0.8, 0.1, size=40)
    return a, a + generator.normal(0.01, 0.06, size=40)


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.05])
def test_p_is_scipys_and_statsmodels(sides, margin):
    a, b = sides
    one = stats.ttest_1samp(a - b, -margin, alternative="greater")
    result = non_inferiority(a, b, margin)
    assert (result.statistic, result.p_value) == pytest.approx((one.statistic, one.pvalue))
    assert equivalence(a, b, margin).p_value == pytest.approx(ttost_paired(a, b, -margin, margin)[0])
    assert (result.margin, result.both_sides, equivalence(a, b, margin).both_sides) == (margin, False, True)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.03, 0.05])
def test_the_interval_clears_the_margin_where_p_is_small(sides, margin):
    a, b = sides
    for first, second in ((a, b), (b, a)):
        result = non_inferiority(first, second, margin)
        assert result.interval == pytest.approx(paired_t(first, second, confidence=0.9).interval)
        assert (result.p_value < 0.05) == (result.interval[0] > -margin)
        both = equivalence(first, second, margin)
        assert (both.p_value < 0.05) == (both.interval[0] > -margin and both.interval[1] < margin)
        assert both.level == pytest.approx(0.05)


def test_folds_have_the_corrected_variance():
    a, b = np.array([0.80, 0.82, 0.78, 0.81, 0.84]), np.array([0.79, 0.80, 0.79, 0.82, 0.81])
    result = non_inferiority(a, b, 0.05, "fold", 1 / 4)
    d = a - b
    t = (d.mean() + 0.05) / math.sqrt((1 / 5 + 1 / 4) * d.var(ddof=1))
    assert result.statistic == pytest.approx(t)
    assert result.p_value == pytest.approx(stats.t.sf(t, 4))
    assert result.interval == pytest.approx(corrected_resampled_t(a, b, 4, 1, confidence=0.9).interval)


def test_patients_are_the_units(sides):
    a, b = sides
    ids = np.arange(40) // 4
    means = (a - b).reshape(10, 4).mean(axis=1)
    result = non_inferiority(a, b, 0.02, ids)
    assert (result.n, result.unit) == (10, "patient")
    assert result.p_value == pytest.approx(stats.ttest_1samp(means, -0.02, alternative="greater").pvalue)


def test_level_at_the_margin():
    """Where a is worse by just the margin, it is called not worse in 5 of 100."""
    generator = np.random.default_rng(1)
    found = [non_inferiority(generator.normal(-0.05, 0.1, size=20), np.zeros(20), 0.05).p_value for _ in range(600)]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.025)


def test_degenerate_input_has_a_stated_answer():
    for test in (non_inferiority, equivalence):
        same = test([0.4, 0.5], [0.4, 0.5], 0.05)
        assert (same.identical, same.p_value) == (True, None)
        constant = test([0.5, 0.6], [0.4, 0.5], 0.05, "fold")
        assert constant.p_value is None
        assert constant.note.startswith("The difference is the same in all 2 folds")
        assert test([0.5], [0.4], 0.05, "fold").note.startswith("One fold only")
        assert test([], [], 0.05).note == "No pair has a score on both sides."


@pytest.mark.parametrize("margin", [0.0, -0.05, math.inf, math.nan])
def test_a_margin_must_be_stated(margin):
    with pytest.raises(InputError, match="margin: expected a difference above 0 that was stated beforehand"):
        non_inferiority([0.1, 0.2], [0.2, 0.1], margin)


def test_confidence_below_a_half_is_refused():
    with pytest.raises(InputError, match=r"confidence: expected a share above 0\.5"):
        equivalence([0.1, 0.2], [0.2, 0.1], 0.1, confidence=0.4)
