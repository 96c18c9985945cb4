"""Holm and Benjamini-Hochberg: against the papers' recipes and by their properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import adjust
from references import statistics as slow

RECIPES = {"holm": slow.holm, "benjamini-hochberg": slow.benjamini_hochberg}


families = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_holm_by_hand():
    assert adjust([0.01, 0.04, 0.03, 0.005]).p_values == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_benjamini_hochberg_by_hand():
    adjusted = adjust([0.01, 0.04, 0.03, 0.005], "benjamini-hochberg")
    assert adjusted.p_values == pytest.approx((0.02, 0.04, 0.04, 0.02))
    assert adjusted.label == "Benjamini–Hochberg-adjusted p"


@pytest.mark.parametrize("correction", RECIPES)
@given(family=families)
def test_equals_the_recipe_and_keeps_its_promises(correction, family):
    adjusted = np.array(adjust(family, correction).p_values)
    np.testing.assert_allclose(adjusted, RECIPES[correction](family), rtol=1e-12, atol=1e-300)
    assert (adjusted >= np.array(family) * (1 - 1e-12)).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(family, kind="stable")]) >= 0).all()


@given(family=families, random=st.randoms())
def test_order_carries_over(family, random):
    places = random.sample(range(len(family)), len(family))
    shuffled = adjust([family[i] for i in places]).p_values
    assert [shuffled[places.index(i)] for i in range(len(family))] == list(adjust(family).p_values)


@given(family=families)
def test_holm_is_at_least_as_careful(family):
    holm, bh = (np.array(adjust(family, name).p_values) for name in RECIPES)
    assert (holm >= bh - 1e-15).all()


def test_missing_stay_missing_and_are_not_counted():
    adjusted = adjust([0.02, None, 0.01, float("nan")])
    assert adjusted.p_values == (0.02, None, 0.02, None)
    assert (adjusted.counted, adjusted.missing) == (2, 2)
    assert adjust([None, None]).p_values == (None, None)
    assert adjust([]).p_values == ()


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_no_probability_is_refused(p):
    with pytest.raises(InputError, match="p_values: expected values in"):
        adjust([0.5, p])


def test_unknown_correction():
    with pytest.raises(UnknownNameError, match="Did you mean 'holm'"):
        adjust([0.5], "holms")
