"""Enhancements held against none: which sides are compared, on what, and by which test."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pellucid.statistics import corrected_resampled_t
from pellucid.study.enhancement_tests import compared_enhancements

ENHANCEMENTS = ("none", "clahe", "negative")


def answers(folds: int, seeds: int = 1, images: int = 24, copies: int = 0) -> pd.DataFrame:
    """Predictions of two networks under each enhancement; image i of a fold is patient i // 2's."""
    generator = np.random.default_rng(3)
    cells = product(("a", "b"), ENHANCEMENTS, range(folds), range(seeds), range(images))
    rows = [
        {
            "dataset": "d", "network": network, "enhancement": enhancement, "seed": seed, "fold": fold,
            "model": network if enhancement == "none" else f"{network} + {enhancement}",
            "sample": f"{fold}/{image}", "patient_id": f"{fold}-{image // 2}", "split": "test",
            "correct": bool(generator.random() < 0.6 + 0.2 * (enhancement == "clahe")),
            "copy_in_train": image < copies,
        }
        for network, enhancement, fold, seed, image in cells
    ]  # fmt: skip
    return pd.DataFrame(rows)


def fold_scores(table: pd.DataFrame) -> pd.DataFrame:
    """As `models.csv` has them: accuracy and, made up, macro F1 per fold and over all."""
    rows = []
    for (model, fold), part in table.groupby(["model", "fold"]):
        for metric, value in (("accuracy", part["correct"].mean()), ("macro_f1", part["correct"].mean() ** 2)):
            rows.append(("d", model, str(fold), "all", metric, value))
    rows += [("d", model, "all", "all", "accuracy", 0.5) for model in table["model"].unique()]
    table = pd.DataFrame(rows, columns=["dataset", "model", "fold", "images", "metric", "value"])
    whole = table.assign(**{"class": "", "rule": "argmax"})
    others = [whole.assign(**{"class": "x", "value": 0.9}), whole.assign(rule="youden", value=0.8)]  # are passed over
    return pd.concat([whole, *others], ignore_index=True)


def test_by_patients_where_there_is_one_fold() -> None:
    table = answers(folds=1, seeds=2, copies=4)
    families = compared_enhancements(table, fold_scores(table), {"d": (50, 24)}, "holm")
    assert set(families) == {("paired-t", "all"), ("paired-t", "without copies")}
    for (_, images), family in families.items():
        assert [(where["model"], comparison.first, comparison.second) for where, comparison in family] == [
            (network, enhancement, "none") for network in ("a", "b") for enhancement in ("clahe", "negative")
        ]
        rows = table if images == "all" else table[~table["copy_in_train"]]
        for where, comparison in family:
            assert (where["metric"], comparison.result.unit) == ("accuracy", "patient")
            own = rows[rows["network"] == where["model"]]
            means = own.groupby(["patient_id", "enhancement"])["correct"].mean().unstack()  # over images and seeds
            wanted = stats.ttest_rel(means[comparison.first], means["none"])
            assert comparison.result.statistic == pytest.approx(wanted.statistic)
            assert comparison.result.p_value == pytest.approx(wanted.pvalue)
            assert comparison.result.n == (12 if images == "all" else 10)


def test_by_folds_where_there_are_several() -> None:
    table = answers(folds=4)
    scores = fold_scores(table)
    families = compared_enhancements(table, scores, {"d": (72, 24)}, "holm")
    assert set(families) == {("corrected-resampled-t", "all"), ("paired-t", "all")}
    assert [len(family) for family in families.values()] == [8, 8]  # networks × enhancements × metrics that are there
    for where, comparison in families["corrected-resampled-t", "all"]:
        assert where["metric"] in ("accuracy", "macro_f1")
        own = scores[(scores["metric"] == where["metric"]) & (scores["fold"] != "all") & (scores["class"] == "")]
        own = own[own["rule"] == "argmax"]
        wide = own.pivot(index="fold", columns="model", values="value")
        arm = f"{where['model']} + {comparison.first}"
        wanted = corrected_resampled_t(wide[arm], wide[where["model"]], 72, 24)
        assert comparison.result.p_value == pytest.approx(wanted.p_value)
        assert comparison.result.mean_difference == pytest.approx((wide[arm] - wide[where["model"]]).mean())


def test_without_none_the_first_is_what_others_are_held_against() -> None:
    table = answers(folds=1)
    table = table[table["enhancement"] != "none"]
    (family,) = compared_enhancements(table, fold_scores(table), {"d": (50, 24)}, "holm").values()
    assert {(comparison.first, comparison.second) for _, comparison in family} == {("negative", "clahe")}


def test_a_cell_that_is_missing_leaves_the_others() -> None:
    table = answers(folds=1)
    gone = (table["network"] == "b") & (table["enhancement"] != "none")
    (family,) = compared_enhancements(table[~gone], fold_scores(table), {"d": (50, 24)}, "holm").values()
    assert {where["model"] for where, _ in family} == {"a"}
    assert compared_enhancements(pd.DataFrame(), pd.DataFrame(), {}, "holm") == {}


def test_folds_that_one_side_lacks_are_left_out() -> None:
    table = answers(folds=3)
    gone = (table["model"] == "a + clahe") & (table["fold"] == 1)
    families = compared_enhancements(table[~gone], fold_scores(table[~gone]), {"d": (48, 24)}, "holm")
    (result,) = [
        comparison.result
        for where, comparison in families["corrected-resampled-t", "all"]
        if (where["model"], comparison.first, where["metric"]) == ("a", "clahe", "accuracy")
    ]
    assert (result.n, result.n_missing) == (2, 1)
