"""Rows and the units they belong to."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.errors import InputError
from pellucid.statistics import by_unit, units_of


def test_ids_make_patients_sorted_by_id():
    units = units_of(["p9", "p1", "p9", "p5"], 4)
    assert units.unit == "patient"
    assert units.ids == ("p1", "p5", "p9")
    assert units.codes.tolist() == [2, 0, 2, 1]
    assert units.note == ""


def test_without_any_id_each_image_stands_alone():
    units = units_of(["", "", ""], 3)
    assert (units.unit, units.count, units.unknown) == ("image", 3, 0)


def test_rows_without_id_among_others_count_one_each_and_are_named():
    units = units_of(["a", "", "a", ""], 4)
    assert (units.unit, units.count, units.unknown) == ("patient", 3, 2)
    assert len({units.codes[1], units.codes[3], units.codes[0]}) == 3
    assert "2 of 4 rows have no patient id" in units.note


def test_whole_numbers_are_ids_too():
    assert units_of(np.array([7, 7, 3]), 3).codes.tolist() == [1, 1, 0]


@pytest.mark.parametrize("ids", [["a", None], ["a", float("nan")], [1.5, 2.5]])
def test_other_ids_are_refused(ids):
    with pytest.raises(InputError, match="units: expected ids that are text or whole numbers"):
        units_of(ids, 2)


def test_a_row_too_many_is_refused():
    with pytest.raises(InputError, match="one id for each of 2 rows, got 3 ids"):
        units_of(["a", "b", "c"], 2)


def test_take_keeps_who_owns_what():
    units = units_of(["b", "a", "", "b"], 4).take(np.array([3, 0, 1]))
    assert units.ids == ("a", "b")
    assert units.codes.tolist() == [1, 1, 0]
    assert units.unknown == 0
    assert units_of(["b", "", ""], 3).take(np.array([1, 2])).unit == "image"
    assert units_of("fold", 5).take(np.array([1, 2])).unit == "fold"


def test_by_unit_averages_and_leaves_missing_out():
    means, units = by_unit([1.0, np.nan, 3.0, np.nan, 8.0], ["a", "a", "a", "b", "c"])
    assert units.ids == ("a", "b", "c")
    np.testing.assert_array_equal(means, [2.0, np.nan, 8.0])


def test_by_unit_takes_several_columns():
    table = np.arange(8.0).reshape(4, 2)
    means, _ = by_unit(table, ["x", "y", "x", "y"])
    np.testing.assert_array_equal(means, [[2.0, 3.0], [4.0, 5.0]])


def test_by_unit_agrees_with_a_loop():
    generator = np.random.default_rng(3)
    ids = generator.integers(7, size=50).astype(str)
    values = generator.normal(size=50)
    means, units = by_unit(values, ids)
    for name, mean in zip(units.ids, means, strict=True):
        assert mean == pytest.approx(values[ids == name].mean(), rel=1e-12)


@pytest.mark.parametrize(("values", "words"), [([1.0, np.inf], "infinity"), (["x", "y"], "could not"), (3.0, "single")])
def test_values_that_are_no_numbers_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        by_unit(values, ["a", "b"])
