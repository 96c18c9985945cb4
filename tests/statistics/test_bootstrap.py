"""The clustered bootstrap: against a loop, its coverage, and what it says of odd input."""

from __future__ import annotations

import importlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import InputError
from pellucid.statistics import bootstrap, of_rows, summarise, units_of
from references.statistics import bootstrap_draws


def patients_with_images(generator: np.random.Generator, patients: int):
    """Right or wrong for 1 to 8 images of each patient, some patients being harder than others; true mean 0.7."""
    sizes = generator.integers(1, 9, size=patients)
    ids = np.repeat([f"p{i}" for i in range(patients)], sizes)
    chance = np.repeat(generator.beta(1.4, 0.6, size=patients), sizes)
    return (generator.random(len(ids)) < chance).astype(float), ids


def coverage(simulations: int, *, clustered: bool) -> float:
    generator = np.random.default_rng(11)
    hits = 0
    for _ in range(simulations):
        values, ids = patients_with_images(generator, 60)
        estimate = summarise(values, ids if clustered else "image", resamples=400, generator=generator)
        hits += estimate.low <= 0.7 <= estimate.high
    return hits / simulations


def test_clustered_interval_covers_and_the_plain_one_does_not():
    assert coverage(300, clustered=True) >= 0.91  # three standard errors of 0.95 are 0.038
    assert coverage(300, clustered=False) < 0.85


@pytest.mark.slow
def test_coverage_with_many_simulations():
    assert coverage(4000, clustered=True) == pytest.approx(0.95, abs=0.02)
    assert coverage(4000, clustered=False) < 0.8


def test_summary_equals_a_loop():
    values, ids = patients_with_images(np.random.default_rng(0), 30)
    slow = bootstrap_draws(lambda rows: {"mean": float(values[rows].mean())}, ids.tolist(), resamples=300, seed=0)
    estimate = summarise(values, ids, resamples=300)
    assert estimate.randomness == "seed 0"
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(slow["mean"], [0.025, 0.975])))


def test_confidence_sets_the_percentiles():
    values, ids = patients_with_images(np.random.default_rng(0), 30)
    narrow, wide = (summarise(values, ids, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_any_statistic_of_rows():
    values, ids = patients_with_images(np.random.default_rng(2), 25)
    values = values + np.random.default_rng(3).normal(size=len(values))
    units = units_of(ids, len(ids))
    both = {
        "rows": of_rows(lambda rows: float(values[rows].mean())),
        "weights": lambda weights: weights @ values / weights.sum(axis=1),
    }
    result = bootstrap(both, units, resamples=200, generator=np.random.default_rng(5))
    assert result["rows"].randomness == "given generator"
    assert (result["rows"].low, result["rows"].high) == pytest.approx((result["weights"].low, result["weights"].high))


def test_large_input_in_chunks_equals_one_go(monkeypatch):
    values, ids = patients_with_images(np.random.default_rng(4), 40)
    whole = summarise(values, ids, resamples=500)
    module = importlib.import_module("pellucid.statistics.bootstrap")  # the package's name for it is the function
    monkeypatch.setattr(module, "_CHUNK", 7 * len(values))
    assert summarise(values, ids, resamples=500) == whole


def test_missing_values_are_left_out_and_counted():
    estimate = summarise([0.1, np.nan, 0.3, 0.8, np.nan], ["a", "a", "b", "c", "d"])
    assert (estimate.n, estimate.n_missing, estimate.units) == (3, 2, 3)
    assert estimate.value == pytest.approx(0.4)
    without = summarise([0.1, 0.3, 0.8], ["a", "b", "c"])
    assert (estimate.low, estimate.high) == (without.low, without.high)


@pytest.mark.parametrize(
    ("values", "units", "note"),
    [
        ([], "image", "No row has a value."),
        ([np.nan, np.nan], ["a", "b"], "No row has a value."),
        ([0.5], ["a"], "There is 1 patient only, so nothing to resample."),
        ([0.5, 0.7], ["a", "a"], "There is 1 patient only, so nothing to resample."),
    ],
)
def test_too_little_gives_a_reason(values, units, note):
    estimate = summarise(values, units)
    assert (estimate.low, estimate.high, estimate.note) == (None, None, note)
    assert note in estimate.text()
    assert estimate.n + estimate.n_missing == len(values)


def test_constant_values_are_pointed_out():
    estimate = summarise([1.0] * 10, "image")
    assert (estimate.low, estimate.value, estimate.high) == (1.0, 1.0, 1.0)
    assert "can't show how uncertain" in estimate.note


def test_rows_without_patient_id_are_pointed_out():
    estimate = summarise([0.1, 0.2, 0.3], ["a", "", "a"])
    assert (estimate.unit, estimate.units) == ("patient", 2)
    assert "1 of 3 rows have no patient id" in estimate.note


def test_a_statistic_mostly_undefined_has_no_interval():
    def only_with_row_0_four_times(weights):
        return np.where(weights[:, 0] >= np.where(len(weights) == 1, 1, 4), 1.0, np.nan)

    result = bootstrap({"odd": only_with_row_0_four_times}, units_of("image", 6), resamples=100)["odd"]
    assert result.value == 1.0
    assert result.low is None
    assert result.undefined > 50
    assert f"no value in {result.undefined} of 100 resamples" in result.note


@pytest.mark.parametrize(("option", "value"), [("confidence", 95), ("confidence", 0.0), ("resamples", 0)])
def test_odd_options_are_refused(option, value):
    with pytest.raises(InputError, match=f"{option}: expected"):
        summarise([0.1, 0.2], **{option: value})


def test_a_table_is_refused():
    with pytest.raises(InputError, match="one value per sample"):
        summarise([[0.1, 0.2]])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-10, 10), st.sampled_from(["", "a", "b", "c"])), min_size=2, max_size=12), st.randoms()
)
def test_order_changes_no_bit(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, other = (summarise([v for v, _ in r], [i for _, i in r], resamples=50) for r in (rows, shuffled))
    assert one == other
    if one.low is not None:
        assert min(v for v, _ in rows) - 1e-9 <= one.low <= one.high <= max(v for v, _ in rows) + 1e-9


def test_a_summary_takes_milliseconds():
    values, ids = patients_with_images(np.random.default_rng(0), 90)
    started = time.process_time()
    for _ in range(5):
        summarise(values, ids)
    assert (time.process_time() - started) / 5 < 0.25
