"""McNemar's test and its clustered form: against R's example, definitions, levels, refusals, and degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import mcnemar, mcnemar_clustered
from pellucid.statistics.mcnemar import tango_interval
from references import paired_tests as slow


def answers(both: int, ours: int, theirs: int, none: int):
    a = [1] * (both + ours) + [0] * (theirs + none)
    return a, [1] * both + [0] * ours + [1] * theirs + [0] * none


def test_the_example_of_r():
    """Agresti 1990, p. 350, approval ratings; R's mcnemar.test(correct = FALSE): 17.356, df = 1, p = 3.099e-05."""
    result = mcnemar(*answers(794, 150, 86, 570), method="asymptotic")
    assert result.statistic == pytest.approx(17.356, abs=5e-4)
    assert result.p_value == pytest.approx(3.099e-05, abs=5e-9)
    assert (result.df, result.n) == (1.0, 1600)
    assert result.mean_difference == pytest.approx(64 / 1600)


@pytest.mark.parametrize("counts", [(30, 9, 2, 4), (0, 6, 0, 0), (10, 1, 1, 0), (500, 40, 70, 3)])
def test_p_equals_statsmodels(counts):
    both, ours, theirs, none = counts
    for exact in (True, False):
        theirs_ = contingency_tables.mcnemar([[both, ours], [theirs, none]], exact=exact, correction=False)
        result = mcnemar(*answers(*counts), method="exact" if exact else "asymptotic")
        assert result.p_value == pytest.approx(theirs_.pvalue)


def test_exact_p_and_effect_by_hand():
    result = mcnemar(*answers(20, 6, 1, 3))
    assert result.p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert result.effect_size == pytest.approx(6 / 7 - 0.5)
    low = stats.beta.ppf(0.025, 6, 2) - 0.5
    assert result.effect_interval == pytest.approx((low, stats.beta.ppf(0.975, 7, 1) - 0.5))
    assert result.note == "Of 7 images that one side alone has right, 6 : 1."


@pytest.mark.parametrize("counts", [(9, 2, 40), (40, 31, 120), (3, 3, 30), (12, 1, 14)])
def test_tangos_interval_is_that_of_the_likeliest_shares(counts):
    slowly = [slow.tango_bound(*counts, 0.95, upper) for upper in (False, True)]
    assert tango_interval(*counts, 0.95) == pytest.approx(tuple(slowly), abs=1e-5)


@pytest.mark.parametrize("counts", [(5, 0, 5), (5, 0, 20), (0, 1, 1), (1, 0, 3)])
def test_tangos_interval_stays_within_bounds(counts):
    low, high = tango_interval(*counts, 0.95)
    assert -1 <= low <= (counts[0] - counts[1]) / counts[2] <= high <= 1
    assert high - low > 0.2


def test_the_interval_excludes_zero_where_the_asymptotic_p_is_small():
    generator = np.random.default_rng(0)
    for _ in range(60):
        ours, theirs = generator.integers(0, 15, size=2)
        if ours + theirs == 0:
            continue
        result = mcnemar(*answers(20, int(ours), int(theirs), 10), method="asymptotic")
        low, high = result.interval
        assert (result.p_value < 0.05) == (not low <= 0 <= high)


@pytest.mark.parametrize("counts", [(10, 7, 2, 3), (10, 0, 6, 3)])
def test_one_image_per_patient_makes_the_clustered_form_mcnemars(counts):
    a, b = answers(*counts)
    ids = [f"p{i}" for i in range(len(a))]
    clustered, plain = mcnemar_clustered(a, b, ids), mcnemar(a, b, ids, method="asymptotic")
    assert clustered.statistic == pytest.approx(plain.statistic)
    assert clustered.p_value == pytest.approx(plain.p_value)
    assert clustered.unit == "patient"


def test_clustered_form_by_hand():
    """Three patients of 2, 3 and 1 images, whose differences of shares are 1/2, −1/3 and 1."""
    a, b = [1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0]
    result = mcnemar_clustered(a, b, ["p", "p", "q", "q", "q", "r"])
    total, squares = 1 / 2 - 1 / 3 + 1, 1 / 4 + 1 / 9 + 1
    assert result.statistic == pytest.approx(total**2 / squares)
    assert result.p_value == pytest.approx(stats.chi2.sf(total**2 / squares, 1))
    assert result.mean_difference == pytest.approx(total / 3)
    assert result.interval is None
    assert result.note == "3 patients only: too few for a 95 % interval."


def test_clustered_interval_holds_what_is_not_refused():
    generator = np.random.default_rng(2)
    ids = np.repeat(np.arange(20), 3)
    a, b = (generator.random((2, 60)) < [[0.8], [0.6]]).astype(float)
    result = mcnemar_clustered(a, b, ids)
    d = (a - b).reshape(20, 3).mean(axis=1)
    for bound in result.interval:
        assert (d - bound).sum() ** 2 / ((d - bound) ** 2).sum() == pytest.approx(stats.norm.isf(0.025) ** 2)


def clustered_levels(simulations: int) -> tuple[float, float]:
    """Share of p ≤ 0.05 of the clustered form and of the images' own, for two sides that are equally often right."""
    generator = np.random.default_rng(12)
    patients, images = 40, 6
    shared = generator.normal(size=(2, simulations, patients, 1))
    own = generator.normal(size=(2, simulations, patients, images))
    a, b = (shared + own < 0.8).astype(float)
    d = (a - b).mean(axis=2)
    clustered = d.sum(axis=1) ** 2 / (d**2).sum(axis=1)
    ours, theirs = ((a > b).sum(axis=(1, 2)), (a < b).sum(axis=(1, 2)))
    plain = (ours - theirs) ** 2 / (ours + theirs)
    ids = np.repeat(np.arange(patients), images)
    for i in range(5):  # the arrays above are what the functions compute
        assert mcnemar_clustered(a[i].ravel(), b[i].ravel(), ids).statistic == pytest.approx(clustered[i])
        assert mcnemar(a[i].ravel(), b[i].ravel(), "image").statistic == pytest.approx(plain[i])
    edge = stats.chi2.isf(0.05, 1)
    return float((clustered >= edge).mean()), float((plain >= edge).mean())


def test_level_is_kept_where_images_share_a_patient():
    clustered, plain = clustered_levels(2000)
    assert clustered <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)
    assert plain > 0.15


def test_clustered_images_are_refused_by_name():
    a, b = answers(3, 2, 1, 0)
    with pytest.raises(InputError, match="one image per patient for mcnemar.*got 6 images of 2 patients") as caught:
        mcnemar(a, b, ["p", "p", "p", "q", "q", "q"])
    assert "Use mcnemar-clustered (Durkalski 2003), or permutation by patient." in str(caught.value)


def test_degenerate_input_has_a_stated_answer():
    a, _ = answers(3, 0, 0, 2)
    assert mcnemar(a, a).identical
    assert mcnemar(a, a).p_value == 1.0
    assert mcnemar([], []).note == "No pair has a score on both sides."
    one = mcnemar([1], [0])
    assert (one.p_value, one.n) == (1.0, 1)
    assert mcnemar([1], [1]).identical
    oneside = mcnemar(*answers(0, 8, 0, 0))
    assert oneside.p_value == pytest.approx(2 / 2**8)
    assert (oneside.effect_size, oneside.effect_interval[1], oneside.interval[1]) == (0.5, 0.5, 1.0)
    assert mcnemar_clustered([1, 1], [0, 0], ["p", "p"]).note.startswith("One patient only")
    balanced = mcnemar_clustered([1, 0, 1, 0], [0, 1, 0, 1], ["p", "p", "q", "q"])
    assert (balanced.p_value, balanced.identical) == (1.0, False)
    assert balanced.note == "Right answers balance within all 2 patients."
    same = mcnemar_clustered([1, 1, 1, 1, 1], [0, 0, 0, 0, 0], list("pqrst"))
    assert same.statistic == 5.0
    assert same.effect_size is None


def test_a_missing_answer_is_left_out():
    a, b = answers(3, 4, 1, 2)
    result = mcnemar([*a, np.nan], [*b, 1.0])
    assert (result.n, result.n_missing) == (10, 1)
    assert result.p_value == mcnemar(a, b).p_value


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="a: expected 1 where the answer is right"):
        mcnemar([0.5], [1.0])
    with pytest.raises(UnknownNameError, match="unknown method"):
        mcnemar([1], [0], method="mid-p")
