"""What the report says of the tests between models."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pellucid.report.build import build_report
from pellucid.report.comparisons import comparisons, told
from pellucid.statistics import Evidence, compare

MODELS = ("resnet18", "vgg16", "densenet121", "efficientnet_b0")


def tables(models: int, tests: tuple[str, ...], margin: float | None = 0.1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of model_tests.csv and power.csv of made-up accuracies over five folds."""
    generator = np.random.default_rng(1)
    folds = {name: generator.normal(0.8 - 0.1 * (k == 1), 0.01, size=5) for k, name in enumerate(MODELS[:models])}
    found = compare(Evidence(folds=folds, sizes=(4, 1)), [*tests, "power"], margin=margin)
    rows = pd.DataFrame([each.row() for each in found]).assign(images="all", metric="accuracy", dataset="brain")
    return rows[rows["test"] != "power"], rows[rows["test"] == "power"]


def test_few_pairs_are_told_one_by_one():
    tests, power = tables(2, ("corrected-resampled-t", "paired-t", "non-inferiority", "wilcoxon"))
    said = told(tests, power)
    assert said[0].startswith("resnet18 scores 0.")
    assert "95\u00a0% interval" in said[0]
    assert said[1].startswith("resnet18 is not worse than vgg16 by more than 0.1 (")
    assert said[2].startswith("It can't be shown that vgg16 is not worse than resnet18 by more than 0.1 (")
    assert said[3].startswith("With 5 folds a difference of 0.0")
    assert len(said) == 4


def test_many_pairs_are_counted():
    tests, power = tables(4, ("corrected-resampled-t", "non-inferiority", "equivalence"))
    said = told(tests, power)
    clear = int((tests[tests["test"] == "corrected-resampled-t"]["p_adjusted"] <= 0.05).sum())
    assert 0 < clear < 6
    assert said[0] == f"{clear} of 6 pairs of models differ clearly (corrected resampled t-test, accuracy)."
    worse = int((tests[tests["test"] == "non-inferiority"]["p_adjusted"] <= 0.05).sum())
    assert said[1] == f"In {worse} of 12 comparisons a model was shown not to be worse than another by more than 0.1."
    assert said[-1].startswith("With 5 folds differences of 0.0")
    assert said[-1].endswith("by pair, would be found 8 times out of 10.")


def test_other_tests_stand_in_blocks_and_refused_ones_as_remarks():
    tests, power = tables(3, ("corrected-resampled-t", "wilcoxon", "mcnemar", "equivalence"), margin=None)
    found = comparisons(tests, power)
    assert len(found.first.rows) == 3
    assert [row[0].text for row in found.others.rows] == ["Wilcoxon"] * 3
    assert list(found.others.sizes) == [3]
    assert list(found.remarks) == [
        "McNemar: There are no right and wrong answers of images for resnet18.",
        "equivalence: No margin was stated beforehand.",
    ]


@pytest.mark.parametrize("empty", [0, 1])
def test_without_tests_nothing_is_said(empty):
    tests, power = tables(2, ("paired-t",))
    assert comparisons(tests.iloc[:0], power.iloc[:0]) is None
    assert told(tests.iloc[:0], power) == []


def test_the_page_says_what_was_tested_and_what_could_not_be_seen(made_study: Callable[..., Path], tmp_path: Path):
    output = made_study(tmp_path, methods=("layer-cam", "random"), explained=4, test=40)
    page = html.unescape(build_report(output).read_text(encoding="utf-8"))
    tests = pd.read_csv(output / "statistics" / "model_tests.csv")
    power = pd.read_csv(output / "statistics" / "power.csv")
    assert pd.read_csv(output / "report" / "power.csv").equals(power)
    assert list(dict.fromkeys(tests["test"])) == ["paired-t", "permutation", "mcnemar-clustered", "delong-clustered"]
    assert "<h4>Between the models</h4>" in page
    assert power["sentence"].item() in page
    (paired,) = tests[tests["test"] == "paired-t"].to_dict("records")
    unseen = "would be found 8 times out of 10, a smaller one less often." in page
    assert unseen == (not paired["p_adjusted"] <= 0.05)
    assert "<summary>Other tests between the models</summary>" in page
    assert ">McNemar, clustered</th>" in page
    assert page.index("Tests between models") < page.index("Other tests between models")
