"""Ranks of methods against the definitions, SciPy, scikit-posthocs and the example of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pellucid.errors import InputError
from pellucid.statistics import by_unit, critical_difference, friedman, groups_within
from references.statistics import (
    friedman_by_definition,
    maximal_groups,
    studentised_range_tail,
)

# AUC of C4.5 plain, with m tuned, with cf tuned, with both, on 14 data sets: Demšar 2006, table 6. The last digit of
# voting's third value is ours, since the paper ranks it before the fourth while both are printed as 0.975.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")


def drawn(seed: int, n: int, k: int, *, ties: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, k)) + 0.4 * np.arange(k)
    return np.round(values) if ties else values


def names_of(k: int) -> list[str]:
    return [f"m{place}" for place in range(k)]


def test_the_example_of_the_paper() -> None:
    ranks = friedman(DEMSAR, NAMES)
    assert [round(rank, 3) for rank in ranks.mean_ranks] == [3.143, 2.000, 2.893, 1.964]
    n, k = DEMSAR.shape
    uncorrected = 12 * n / (k * (k + 1)) * (np.square(ranks.mean_ranks).sum() - k * (k + 1) ** 2 / 4)
    assert round(uncorrected, 2) == 9.28  # the paper doesn't correct for ties; SciPy does
    assert ranks.statistic > uncorrected
    assert ranks.critical_difference == pytest.approx(2.569 * np.sqrt(k * (k + 1) / (6 * n)), abs=1e-3)
    assert ranks.p_value < 0.05
    assert ranks.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)  # at 5 % nothing is told apart
    at_ten = friedman(DEMSAR, NAMES, alpha=0.1)
    assert at_ten.critical_difference == pytest.approx(1.12, abs=5e-3)
    assert ("C4.5+m+cf", "C4.5+m", "C4.5+cf") in at_ten.groups
    assert not any({"C4.5+m", "C4.5"} <= set(group) for group in at_ten.groups)


def test_critical_values_of_the_papers_table() -> None:
    q = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]  # Demšar 2006, table 5(a), 2 to 10 methods
    found = [critical_difference(k, 1) / np.sqrt(k * (k + 1) / 6) for k in range(2, 11)]
    assert found == pytest.approx(q, abs=1.5e-3)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("k", [3, 6])
def test_equals_the_definition_and_scipy_and_scikit_posthocs(k: int, higher: bool, ties: bool) -> None:
    table = drawn(k, 15, k, ties=ties)
    ranks = friedman(table, names_of(k), higher_is_better=higher)
    means, statistic, p = friedman_by_definition(table, higher)
    assert ranks.mean_ranks == pytest.approx(means)
    assert (ranks.statistic, ranks.p_value) == pytest.approx((statistic, p))
    assert (ranks.statistic, ranks.p_value) == pytest.approx(tuple(stats.friedmanchisquare(*table.T)))
    assert np.array(ranks.pairwise) == pytest.approx(scikit_posthocs.posthoc_nemenyi_friedman(table).to_numpy())
    error = np.sqrt(k * (k + 1) / (6 * len(table)))
    for i in range(k):
        for j in range(k):
            q = abs(means[i] - means[j]) / error * np.sqrt(2)
            assert ranks.pairwise[i][j] == pytest.approx(studentised_range_tail(q, k) if i != j else 1.0, abs=1e-7)


def test_the_best_has_rank_one_in_either_direction() -> None:
    table = drawn(0, 12, 4)
    table[:, 2] += 100
    assert friedman(table, names_of(4)).mean_ranks[2] == 1
    assert friedman(table, names_of(4), higher_is_better=False).mean_ranks[2] == 4
    up, down = friedman(table, names_of(4)), friedman(-table, names_of(4), higher_is_better=False)
    assert up == down


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=7), st.floats(0.1, 13))
def test_groups_are_the_largest_sets_that_the_difference_joins(ranks: list[int], difference: float) -> None:
    names = names_of(len(ranks))
    found = groups_within(dict(zip(names, map(float, ranks), strict=True)), difference)
    wanted = maximal_groups([float(rank) for rank in ranks], difference)
    assert {frozenset(names.index(name) for name in group) for group in found} == wanted
    assert len(found) == len(wanted)


def test_p_of_a_pair_falls_below_alpha_where_its_ranks_lie_the_critical_difference_apart() -> None:
    ranks = friedman(drawn(3, 20, 6), names_of(6))
    for i, first in enumerate(ranks.methods):
        for j, second in enumerate(ranks.methods[:i]):
            together = any({first, second} <= set(group) for group in ranks.groups)
            assert together == (ranks.pairwise[i][j] > ranks.alpha)


def test_images_are_averaged_within_their_patient_first() -> None:
    table = drawn(5, 24, 4)
    patients = [f"p{row % 9}" for row in range(24)]
    ranks = friedman(table, names_of(4), patients)
    alone = friedman(by_unit(table, patients)[0], names_of(4), "patient")
    assert ranks == alone
    assert (ranks.n, ranks.unit) == (9, "patient")
    assert friedman(table, names_of(4), [""] * 24).unit == "image"
    shuffled = np.random.default_rng(0).permutation(24)
    again = friedman(table[shuffled], names_of(4), [patients[row] for row in shuffled])
    assert again.mean_ranks == ranks.mean_ranks
    assert again.p_value == ranks.p_value


def test_rows_with_a_missing_value_are_left_out_of_all_methods_and_counted() -> None:
    table = drawn(6, 20, 3)
    holed = table.copy()
    holed[[2, 7], [0, 1]] = np.nan
    ranks = friedman(holed, names_of(3))
    whole = friedman(np.delete(table, [2, 7], axis=0), names_of(3))
    assert (ranks.n, ranks.n_missing) == (18, 2)
    assert (ranks.mean_ranks, ranks.p_value) == (whole.mean_ranks, whole.p_value)


def test_values_apart_by_rounding_alone_are_ties() -> None:
    table = drawn(7, 20, 3)
    table[:, 1] = table[:, 0] * (1 + 1e-8 * np.sign(np.random.default_rng(0).normal(size=20)))
    ranks = friedman(table, names_of(3))
    exact = table.copy()
    exact[:, 1] = exact[:, 0]
    assert ranks == friedman(exact, names_of(3))
    assert ranks.mean_ranks[0] == ranks.mean_ranks[1]


def test_one_huge_value_makes_no_ties_in_other_rows() -> None:
    table = drawn(8, 20, 3)
    ranks = friedman(table, names_of(3))
    table[0] *= 1e12
    assert friedman(table, names_of(3)).mean_ranks == ranks.mean_ranks


def test_identical_methods_have_a_stated_answer() -> None:
    ranks = friedman(np.tile(np.arange(5.0)[:, None], 3), names_of(3))
    assert ranks.identical
    assert (ranks.p_value, ranks.statistic, ranks.mean_ranks) == (1.0, None, (2.0, 2.0, 2.0))
    assert ranks.groups == (("m0", "m1", "m2"),)
    assert "coincide in all 5 images" in ranks.note
    both = friedman(np.ones((5, 2)), ["a", "b"])
    assert (both.identical, both.p_value, both.mean_ranks) == (True, 1.0, (1.5, 1.5))


def test_two_methods_are_tested_by_wilcoxon() -> None:
    table = drawn(9, 15, 2)
    ranks = friedman(table, ["a", "b"])
    wanted = stats.wilcoxon(table[:, 0] - table[:, 1])
    assert ranks.test == "wilcoxon"
    assert (ranks.statistic, ranks.p_value) == pytest.approx((wanted.statistic, wanted.pvalue))
    assert ranks.critical_difference is None
    assert ranks.pairwise == ((1.0, ranks.p_value), (ranks.p_value, 1.0))
    assert ranks.groups == ((("b", "a"),) if ranks.p_value > 0.05 else ())
    clear = friedman(np.column_stack([np.arange(15.0), np.arange(15.0) + 1 + np.arange(15) / 50]), ["a", "b"])
    assert clear.p_value < 0.01
    assert clear.groups == ()


@pytest.mark.parametrize(
    ("table", "note"),
    [
        (np.arange(6.0).reshape(2, 3), "2 images only: ranks over fewer than 3 can't be told from chance."),
        (np.arange(3.0).reshape(1, 3), "1 image only"),
        (np.full((4, 3), np.nan), "No image has a value of every method; without any: m0, m1, m2."),
        (np.zeros((0, 3)), "No image has a value of every method"),
        (np.arange(5.0).reshape(5, 1), "One method only"),
    ],
)
def test_too_little_gives_no_test_and_says_why(table: np.ndarray, note: str) -> None:
    ranks = friedman(table, names_of(table.shape[1]))
    assert (ranks.p_value, ranks.statistic, ranks.pairwise, ranks.groups) == (None, None, None, ())
    assert note in ranks.note
    assert all(rank is None or np.isfinite(rank) for rank in ranks.mean_ranks)


def test_ranks_alone_are_the_same_without_a_test() -> None:
    table = drawn(4, 12, 5)
    alone = friedman(table, names_of(5), test=False)
    assert alone.mean_ranks == friedman(table, names_of(5)).mean_ranks
    assert (alone.p_value, alone.critical_difference, alone.groups) == (None, None, ())


def test_few_units_are_told() -> None:
    assert "4 images only: p is approximate." in friedman(drawn(0, 4, 3), names_of(3)).note
    assert friedman(drawn(0, 10, 3), names_of(3)).note == ""


def test_patients_without_id_are_told() -> None:
    assert "have no patient id" in friedman(drawn(0, 12, 3), names_of(3), ["a"] * 4 + ["b"] * 4 + [""] * 4).note


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"values": np.zeros((4, 3)), "methods": ["a", "b"]}, "a column for each of 2 methods"),
        ({"values": np.zeros(4), "methods": ["a"]}, "shape"),
        ({"values": np.zeros((4, 0)), "methods": []}, "a column for each of 0 methods"),
        ({"values": np.zeros((4, 2)), "methods": ["a", "a"]}, "each name once"),
        ({"values": np.full((4, 2), np.inf), "methods": ["a", "b"]}, "infinity"),
        ({"values": np.zeros((4, 2)), "methods": ["a", "b"], "alpha": 5}, "alpha: expected a level between 0 and 1"),
    ],
)
def test_bad_input_is_refused(arguments: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        friedman(**arguments)
