"""Power: against statsmodels, simulation, and degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from pellucid.errors import InputError
from pellucid.statistics import corrected_resampled_t, detectable_difference, paired_t
from pellucid.statistics.power import power_of_t


@pytest.mark.parametrize("n", [2, 3, 10, 120, 5000])
def test_detectable_difference_is_statsmodels(n):
    d = np.random.default_rng(n).normal(0.1, 1, size=n)
    result = detectable_difference(d, np.zeros(n), "patient")
    theirs = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8, alternative="two-sided")
    assert result.detectable == pytest.approx(theirs * d.std(ddof=1), rel=1e-4)  # as near as its solver comes


@pytest.mark.parametrize("effect", [0.1, 0.5, 1.2])
def test_units_needed_are_statsmodels(effect):
    d = np.random.default_rng(0).normal(size=25)
    d = (d - d.mean()) / d.std(ddof=1) + effect
    needed = detectable_difference(d, np.zeros(25)).needed
    theirs = TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8, alternative="two-sided")
    assert needed == math.ceil(theirs - 1e-6)


def test_power_shows_in_simulation():
    """Eight of ten samples whose true difference is the detectable one are significant."""
    generator = np.random.default_rng(2)
    found = [
        paired_t(generator.normal(0.6604, 1, size=20), np.zeros(20)).p_value <= 0.05 for _ in range(600)
    ]  # 0.6604: what statsmodels gives for 20 units of unit spread
    assert power_of_t(19, 0.6604 * math.sqrt(20), 0.05) == pytest.approx(0.8, abs=1e-3)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_folds_share_their_training_images():
    a, b = np.random.default_rng(3).random((2, 5))
    plain, corrected = detectable_difference(a, b, "fold"), detectable_difference(a, b, "fold", 1 / 4)
    assert corrected.detectable / plain.detectable == pytest.approx(1.5)
    assert corrected.needed is None
    test = corrected_resampled_t(a, b, 4, 1)
    assert corrected.effect_size == pytest.approx(test.effect_size)


def test_a_difference_that_no_sample_shows_has_no_number():
    d = np.array([1.0, -1.0, 1.0, -1.0])
    assert detectable_difference(d, np.zeros(4)).needed is None
    assert detectable_difference(d + 1e-5, np.zeros(4)).needed is None


def test_degenerate_input_has_a_stated_answer():
    same = detectable_difference([0.4, 0.5], [0.4, 0.5])
    assert (same.identical, same.detectable, same.p_value) == (True, None, None)
    assert detectable_difference([0.4], [0.5], "fold").note.startswith("One fold only")
    assert detectable_difference([0.5, 0.6], [0.4, 0.5], "fold").note.startswith("The difference is the same")


@pytest.mark.parametrize("power", [0.05, 1.0])
def test_power_must_be_a_chance(power):
    with pytest.raises(InputError, match=r"power: expected a chance between 0\.05 and 1"):
        detectable_difference([0.1, 0.2], [0.2, 0.2], power=power)
