"""Friedman and Nemenyi as results of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.statistics import compare, correct_family, critical_difference, friedman, friedman_nemenyi
from pellucid.statistics.evidence import Evidence


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    return {name: generator.normal(shift, 1, size=20) for name, shift in (("a", 1.2), ("b", 0.0), ("c", 0.1))}


def test_pairs_are_those_of_the_ranking(scores):
    ranks = friedman(np.column_stack(list(scores.values())), list(scores))
    pairs = friedman_nemenyi(scores)
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    for (first, second), result in pairs.items():
        i, j = "abc".index(first), "abc".index(second)
        assert result.p_value == ranks.pairwise[i][j]
        assert result.mean_difference == pytest.approx(ranks.mean_ranks[j] - ranks.mean_ranks[i])
        assert result.interval[1] - result.mean_difference == pytest.approx(critical_difference(3, 20))
        assert (result.statistic, result.covers) == (ranks.statistic, 3)
        assert result.note.startswith("Friedman's χ² = ")


def test_the_p_of_one_ranking_is_not_corrected_twice(scores):
    evidence = Evidence(scores=scores)
    once = compare(evidence, ["friedman-nemenyi"])
    assert [pair.adjusted_p for pair in once] == [pair.result.p_value for pair in once]
    assert "Nemenyi's p " in once[0].sentence()
    twice = correct_family([*once, *once])
    assert [pair.adjusted_p for pair in twice[:3]] == [min(1.0, 2 * pair.result.p_value) for pair in once]


def test_two_arms_are_tested_by_signed_ranks(scores):
    del scores["c"]
    (result,) = friedman_nemenyi(scores).values()
    assert (result.covers, result.interval) == (1, None)
    assert result.p_value is not None


def test_degenerate_input_has_a_stated_answer(scores):
    (few, *_) = friedman_nemenyi({name: values[:2] for name, values in scores.items()}, "fold").values()
    assert few.p_value is None
    assert few.note.startswith("2 folds only")
    (same, *_) = friedman_nemenyi(dict.fromkeys("abc", scores["a"])).values()
    assert same.identical
    (none, *_) = friedman_nemenyi({name: [np.nan, np.nan] for name in "abc"}).values()
    assert none.mean_difference is None
    assert friedman_nemenyi({"a": [1.0, 2.0]}) == {}
