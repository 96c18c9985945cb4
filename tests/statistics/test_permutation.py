"""The paired permutation test: against all flips, SciPy's, its own interval, levels, and degenerate input."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pellucid.errors import InputError
from pellucid.statistics import paired_t, permutation
from references import paired_tests as slow


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_few_units_are_gone_through(n):
    differences = np.random.default_rng(n).normal(0.5, 1, size=n).round(1)
    result = permutation(differences, np.zeros(n), "fold")
    assert result.p_value == slow.sign_flip_p(differences)
    assert result.statistic == pytest.approx(differences.mean())
    assert "random" not in result.note


def test_exact_p_by_hand():
    """Three differences of 1, 2 and 3: of 8 ways only the observed and its mirror reach a sum of 6."""
    assert permutation([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).p_value == 2 / 8
    assert permutation([1.0, 2.0, -3.0], [0.0, 0.0, 0.0]).p_value == 1.0


def test_many_units_are_drawn_as_scipy_does():
    differences = np.random.default_rng(4).normal(0.2, 1, size=60)
    result = permutation(differences, np.zeros(60))
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    assert result.p_value == pytest.approx(theirs.pvalue, abs=0.012)
    assert result.note == "9999 random permutations, seed 0."


def test_p_is_never_below_one_over_all_draws():
    differences = np.random.default_rng(5).normal(5, 1, size=40)
    assert permutation(differences, np.zeros(40), resamples=999).p_value == 1 / 1000


def test_draws_repeat_and_follow_the_seed():
    differences = np.random.default_rng(6).normal(0.2, 1, size=40)
    one, other = (permutation(differences, np.zeros(40), seed=seed) for seed in (0, 1))
    assert one == permutation(differences, np.zeros(40))
    assert one.p_value != other.p_value
    shuffled = np.random.default_rng(0).permutation(differences)
    assert permutation(shuffled, np.zeros(40)).p_value == one.p_value
    turned = permutation(np.zeros(40), differences)
    assert turned.p_value == one.p_value
    assert turned.interval == pytest.approx((-one.interval[1], -one.interval[0]))


@pytest.mark.parametrize("n", [6, 9, 13])
def test_the_interval_holds_the_shifts_that_are_not_refused(n):
    differences = np.random.default_rng(n).normal(0.5, 1, size=n)
    low, high = permutation(differences, np.zeros(n)).interval
    step = 1e-4
    for bound, inwards in ((low, step), (high, -step)):
        assert permutation(differences, np.full(n, bound + inwards)).p_value > 0.05
        assert permutation(differences, np.full(n, bound - inwards)).p_value <= 0.05


def test_drawn_ways_give_the_p_and_interval_of_all(monkeypatch):
    differences = np.random.default_rng(7).normal(0.4, 1, size=12)
    exact = permutation(differences, np.zeros(12))
    monkeypatch.setattr(importlib.import_module("pellucid.statistics.permutation"), "EXACT_UNITS", 0)
    drawn = permutation(differences, np.zeros(12), resamples=50_000)
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.005)
    assert drawn.interval == pytest.approx(exact.interval, abs=0.02)


def test_the_interval_of_many_units_is_near_that_of_t():
    differences = np.random.default_rng(7).normal(0.2, 1, size=300)
    assert permutation(differences, np.zeros(300)).interval == pytest.approx(
        paired_t(differences, np.zeros(300)).interval, abs=0.02
    )


def test_patients_are_the_units():
    generator = np.random.default_rng(8)
    a, b = generator.random(24), generator.random(24)
    ids = [f"p{i % 8}" for i in range(24)]
    means = [a[i::8].mean() - b[i::8].mean() for i in range(8)]
    result = permutation(a, b, ids)
    assert (result.n, result.unit) == (8, "patient")
    assert result.p_value == slow.sign_flip_p(means)


def test_level_is_kept_where_images_share_a_patient():
    generator = np.random.default_rng(9)
    ids = np.repeat(np.arange(12), 6)
    by_patient, by_image = [], []
    for _ in range(400):
        differences = np.repeat(generator.normal(size=12), 6) + 0.5 * generator.normal(size=72)
        by_patient.append(permutation(differences, np.zeros(72), ids).p_value)
        by_image.append(permutation(differences, np.zeros(72), resamples=199).p_value)
    assert np.mean(np.array(by_patient) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(np.array(by_image) <= 0.05) > 0.2


def test_degenerate_input_has_a_stated_answer():
    assert permutation([0.4, 0.5], [0.4, 0.5]).identical
    assert permutation([0.4], [0.5], "fold").p_value is None
    assert permutation([], []).note == "No pair has a score on both sides."
    few = permutation([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], "fold")
    assert (few.p_value, few.interval, few.effect_size) == (0.25, None, None)
    assert few.note == (
        "3 folds only: too few for a 95 % interval. "
        "The difference is the same everywhere, so it has no size beside its spread."
    )


def test_effect_is_that_of_the_t_test():
    a, b = np.random.default_rng(10).random((2, 9))
    t, result = paired_t(a, b), permutation(a, b)
    assert (result.effect_size, result.effect_interval) == (t.effect_size, t.effect_interval)
    assert replace(result, note="").df is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="resamples: expected at least 1, got 0"):
        permutation([1.0], [2.0], resamples=0)
