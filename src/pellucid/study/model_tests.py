"""Every pair of models compared on each data set, by the tests that the study declares."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pellucid.statistics import Comparison, Evidence, compare
from pellucid.study.classified import classes_of, label_columns
from pellucid.study.config import StatisticsSettings
from pellucid.study.families import TEST_COLUMNS, Compared, corrected_rows

IMAGE_SETS = ("all", "without copies")
OF_FOLDS = ("corrected-resampled-t", "paired-t")
OF_PATIENTS = ("paired-t", "permutation", "mcnemar", "delong")
WITH_MARGIN = ("non-inferiority", "equivalence")
POWER_COLUMNS = [
    "dataset", "images", "metric", "a", "b", "n", "unit", "mean_difference", "detectable", "needed", "note", "sentence",
]  # fmt: skip


@dataclass(frozen=True)
class ModelTests:
    """What the models' comparisons gave."""

    tests: pd.DataFrame
    power: pd.DataFrame


def compared_models(
    answers: pd.DataFrame,
    sizes: Mapping[str, tuple[float, float]],
    settings: StatisticsSettings,
    elsewhere: pd.DataFrame | None = None,
) -> ModelTests:
    """Compare every pair of models on each data set, on all test images and without the copies, and on external sets.

    Where a data set has several folds their accuracies are compared, else the images' answers by patient; seeds are
    averaged before. The networks of all folds see the same external images, whose answers are averaged over folds and
    compared by patient. p-values are corrected over the declared family, each set of images apart.

    Arguments:
        answers: predictions of all cells.
        sizes: mean images of a fold outside of its test part and in it, by data set.
        settings: which tests, with which margin, corrected over which family; on external sets the tests of patients
            are made that suit.
        elsewhere: predictions of external sets; their split is "external NAME".
    """
    found: list[Compared] = []
    power: list[Compared] = []
    for dataset, images, rows in _sets_of_images(answers, elsewhere):
        external = images not in IMAGE_SETS
        evidence = evidence_of(rows.assign(fold=0) if external else rows, sizes[dataset])
        suiting = default_tests(rows, evidence)
        names = suiting if external else settings.tests or suiting
        if settings.margin is not None and not set(WITH_MARGIN) & {name.partition("[")[0] for name in names}:
            names = (*names, *WITH_MARGIN)
        asked = list(dict.fromkeys([*names, "power"]))
        for comparison in compare(evidence, asked, margin=settings.margin, confidence=settings.confidence):
            kept = power if comparison.result.name == "power" else found
            kept.append((_place(comparison, dataset, images), comparison))
    order = dict.fromkeys((where["images"], where["test"]) for where, _ in found)
    found = [each for key in order for each in found if (each[0]["images"], each[0]["test"]) == key]
    families = [_family(where, comparison, settings.family) for where, comparison in found]
    return ModelTests(
        corrected_rows(found, families, settings.correction) if found else pd.DataFrame(columns=TEST_COLUMNS),
        pd.DataFrame([{**comparison.row(), **where} for where, comparison in power], columns=POWER_COLUMNS),
    )


def _sets_of_images(answers: pd.DataFrame, elsewhere: pd.DataFrame | None) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Data set, name and predictions of what models are compared on."""
    for images in IMAGE_SETS:
        test = answers[answers["split"] == "test"] if len(answers) else answers
        for name, part in test.groupby("dataset", sort=False) if len(test) else ():
            rows = part if images == "all" else part[~part["copy_in_train"].astype(bool)]
            if images == "all" or 0 < len(rows) < len(part):
                yield str(name), images, rows
    if elsewhere is None or elsewhere.empty:
        return
    for (dataset, split), part in elsewhere.groupby(["dataset", "split"], sort=False):
        yield str(dataset), str(split), part
        rows = part[~part["copy_in_train"].astype(bool)]
        if 0 < len(rows) < len(part):
            yield str(dataset), f"{split} without copies", rows


def default_tests(rows: pd.DataFrame, evidence: Evidence) -> tuple[str, ...]:
    """The tests that suit the design: over folds the corrected and the paper's t; else by patient, of answers too.

    Images of one patient call for the clustered forms; answers that are means over seeds have neither form.
    """
    names: tuple[str, ...] = OF_FOLDS
    if not evidence.folds:
        names = OF_PATIENTS if evidence.probabilities else OF_PATIENTS[:2]
        patients = rows.drop_duplicates("sample")["patient_id"].astype(str)
        if patients[patients != ""].duplicated().any():
            names = tuple(f"{name}-clustered" if name in ("mcnemar", "delong") else name for name in names)
    return names


def evidence_of(rows: pd.DataFrame, sizes: tuple[float, float]) -> Evidence:
    """What the test predictions of one data set say of its models."""
    models = list(dict.fromkeys(rows["model"]))
    right = rows.assign(correct=rows["correct"].astype(float)).pivot_table("correct", "sample", "model", dropna=False)
    patients = rows.drop_duplicates("sample").set_index("sample")["patient_id"].loc[right.index]
    evidence = Evidence(
        folds=_by_fold(rows, models),
        sizes=sizes if rows["fold"].nunique() > 1 else None,
        scores={name: right[name].to_numpy(float) for name in models},
        units=list(patients.astype(str)),
    )
    classes = classes_of(rows)
    if rows.duplicated(["model", "sample"]).any() or label_columns(rows, classes):
        return evidence  # several seeds or repeats, or several labels an image: no one probability a class
    tables = {}
    for name in models:
        own = rows[rows["model"] == name].set_index("sample")[[f"prob_{each}" for each in classes]]
        tables[name] = own.reindex(right.index).to_numpy(float)
    labels = rows.drop_duplicates("sample").set_index("sample")["label"].loc[right.index]
    places = {name: place for place, name in enumerate(classes)}
    return Evidence(
        folds=evidence.folds,
        sizes=evidence.sizes,
        scores=evidence.scores,
        probabilities=tables,
        labels=[places[str(label)] for label in labels],
        classes=classes,
        units=evidence.units,
    )


def _by_fold(rows: pd.DataFrame, models: list[str]) -> dict[str, np.ndarray]:
    if rows["fold"].nunique() < 2:
        return {}
    accuracy = rows.groupby(["fold", "model"])["correct"].mean().unstack("model")
    return {name: accuracy[name].to_numpy(float) for name in models}


def _place(comparison: Comparison, dataset: str, images: str) -> dict[str, str]:
    metric = "auroc" if comparison.result.measure == "AUROC" or "delong" in comparison.result.name else "accuracy"
    return {"dataset": dataset, "model": "", "images": images, "test": comparison.result.name, "metric": metric}


def _family(where: Mapping[str, str], comparison: Comparison, declared: str) -> Hashable:
    """What is corrected together; AUROCs of single classes are a family of their own, unless all is one."""
    if declared == "study":
        return where["images"]
    own = (where["images"], where["test"], comparison.subject != "")
    return own if declared == "test" else (*own, where["dataset"])
