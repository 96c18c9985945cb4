"""Each enhancement held against none, network by network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pellucid.data.enhancements import NONE
from pellucid.statistics import Comparison, compare_all
from pellucid.study.classified import main_rows
from pellucid.study.families import Compared

METRICS = ("accuracy", "subset_accuracy", "macro_f1", "auroc", "macro_auroc")
"""What is shown and, over folds, compared, where it is there; some are for labels that don't exclude each other."""


def reference_of(enhancements: Sequence[str]) -> str:
    """What the others are held against: none, where it is among them, else the first.

    >>> reference_of(["clahe", "none", "hog"])
    'none'
    """
    return NONE if NONE in enhancements else enhancements[0]


def whole_scores(models: pd.DataFrame) -> pd.DataFrame:
    """The rows of `models.csv` on `METRICS` that speak of all classes together."""
    rows = main_rows(models)
    return rows[rows["metric"].isin(METRICS)]


def compared_enhancements(
    answers: pd.DataFrame, models: pd.DataFrame, sizes: Mapping[str, tuple[float, float]], correction: str
) -> dict[tuple[str, str], list[Compared]]:
    """Every enhancement of every network and data set against none, by test and set of images.

    Where a data set has several folds, accuracy, macro F1 and AUROC of the folds are compared by the corrected
    resampled t-test and, as the paper does, by the paired one; else accuracy by patients. Seeds are averaged before.

    Arguments:
        answers: predictions of all cells, which say their network, enhancement, seed and fold.
        models: scores per data set, model (network and enhancement), fold and set of images.
        sizes: mean images of a fold outside of its test part and in it, by data set.
        correction: "holm" or "benjamini-hochberg"; the families are corrected by the caller.

    Returns:
        A family for each (test, set of images): where a comparison belongs, and the comparison.
    """
    families: dict[tuple[str, str], list[Compared]] = {}
    if answers.empty:
        return families
    test, models = answers[answers["split"] == "test"], whole_scores(models)
    for (dataset, network), part in test.groupby(["dataset", "network"], sort=False):
        arms = dict(part[["enhancement", "model"]].drop_duplicates().itertuples(index=False, name=None))
        reference = reference_of(list(arms))
        own = models[(models["dataset"] == dataset) & models["model"].isin(arms.values())]
        for images in ("all", "without copies"):
            rows = part if images == "all" else part[~part["copy_in_train"].astype(bool)]
            if images != "all" and len(rows) in (0, len(part)):
                continue
            for enhancement in arms:
                if enhancement == reference:
                    continue
                if part["fold"].nunique() > 1:
                    of_images = own[(own["images"] == images) & (own["fold"] != "all")]
                    pair = {name: arms[name] for name in (enhancement, reference)}
                    found = _by_folds(of_images, pair, sizes[str(dataset)], correction)
                else:
                    found = _by_patients(rows, (enhancement, reference), correction)
                for name, metric, comparison in found:
                    where = {"dataset": dataset, "model": network, "images": images, "test": name, "metric": metric}
                    families.setdefault((name, images), []).append((where, comparison))
    return families


def _by_folds(
    scores: pd.DataFrame, arms: Mapping[str, str], sizes: tuple[float, float], correction: str
) -> list[tuple[str, str, Comparison]]:
    found = []
    for metric in METRICS:
        values = scores[scores["metric"] == metric].pivot(index="fold", columns="model", values="value")
        if not set(arms.values()) <= set(values.columns):
            continue
        sides = {name: values[arm].to_numpy(float) for name, arm in arms.items()}
        corrected = compare_all(sides, "fold", "corrected-resampled-t", correction, sizes=sizes)
        found.append(("corrected-resampled-t", metric, corrected[0]))
        found.append(("paired-t", metric, compare_all(sides, "fold", "paired-t", correction)[0]))
    return found


def _by_patients(rows: pd.DataFrame, pair: tuple[str, str], correction: str) -> list[tuple[str, str, Comparison]]:
    right = rows.assign(correct=rows["correct"].astype(float)).pivot_table("correct", "sample", "enhancement")
    patients = rows.drop_duplicates("sample").set_index("sample")["patient_id"].loc[right.index]
    sides = {name: np.asarray(right[name], dtype=float) for name in pair}
    return [("paired-t", "accuracy", compare_all(sides, list(patients), "paired-t", correction)[0])]
