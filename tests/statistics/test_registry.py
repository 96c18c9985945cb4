"""The registry of tests: what it lists, and that each test is called with what it needs."""

from __future__ import annotations

import inspect

import pytest

from pellucid import statistics
from pellucid.errors import UnknownNameError

NEEDS = {
    "scores", "all scores", "answers", "labels", "probabilities", "units", "sizes", "overlap", "margin"
}  # fmt: skip


def test_all_tests_are_listed():
    table = statistics.tests().set_index("name")
    assert set(table.index) == {
        "paired-t", "corrected-resampled-t", "wilcoxon", "permutation", "mcnemar", "mcnemar-clustered", "delong",
        "delong-clustered", "friedman-nemenyi", "non-inferiority", "equivalence", "power",
    }  # fmt: skip
    assert table["source"].str.contains(r"\d{4}").all()
    assert table.loc["wilcoxon", "options"] == "zeros='wilcox', confidence=0.95"


@pytest.mark.parametrize("entry", statistics.TESTS, ids=lambda entry: entry.name)
def test_needs_fit_the_function(entry):
    taken = {"scores": 2, "answers": 2, "probabilities": 2, "sizes": 2}
    assert set(entry.needs) <= NEEDS
    parameters = inspect.signature(entry.function).parameters.values()
    positional = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert sum(taken.get(need, 1) for need in entry.needs) == len(positional)
    assert "confidence" in entry.options
    assert entry.summary


def test_a_label_chooses_options():
    choice = statistics.TESTS.resolve("wilcoxon[zeros=pratt]")
    assert choice.own_options == {"zeros": "pratt"}
    with pytest.raises(UnknownNameError, match="unknown test 'mcnemer'. Did you mean 'mcnemar'"):
        statistics.TESTS.resolve("mcnemer")
