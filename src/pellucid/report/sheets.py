"""The report's tables as plain CSV tables, for spreadsheets and other programs."""

from __future__ import annotations

import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.report.read import StudyResult
from pellucid.report.tables import confusion


def sheets(study: StudyResult) -> dict[str, pd.DataFrame]:
    """File name without ending -> table. None of them names a patient or an image."""
    scores = study.statistics["scores"].copy()
    scores["control"] = [is_control(str(name)) for name in scores["method"]]
    return {
        "counts": _counts(study),
        "models": study.statistics["models"],
        "model_tests": study.statistics["model_tests"],
        "power": study.statistics["power"],
        "enhancement_tests": study.statistics["enhancement_tests"],
        "confusion": _confusion(study),
        "learning_curves": _history(study),
        "scores": scores,
        "confidence_increase": _confidence(scores),
        "method_tests": study.statistics["method_tests"],
        "method_ranks": study.statistics["method_ranks"],
        "times": _times(study),
        "verdicts": _verdicts(study),
    }


def _counts(study: StudyResult) -> pd.DataFrame:
    columns = ["dataset", "fold", "split", "label", "images"]
    rows = [{"dataset": dataset.name, **row} for dataset in study.datasets for row in dataset.facts.get("counts", ())]
    return pd.DataFrame(rows, columns=columns)


def _confusion(study: StudyResult) -> pd.DataFrame:
    rows = []
    for dataset in study.datasets:
        for cell in () if dataset.multi_label else dataset.cells:
            clean = cell.test[~cell.test["copy_in_train"].astype(bool)]
            for images, test in (("all", cell.test), ("without copies", clean)):
                counts = confusion(test, dataset.classes)
                rows += [
                    (dataset.name, cell.model, cell.fold, images, label, predicted, int(counts[i, j]))
                    for i, label in enumerate(dataset.classes)
                    for j, predicted in enumerate(dataset.classes)
                ]
    return pd.DataFrame(rows, columns=["dataset", "model", "fold", "images", "label", "predicted", "count"])


def _history(study: StudyResult) -> pd.DataFrame:
    tables = [
        cell.history.assign(dataset=cell.dataset, model=cell.model, fold=cell.fold)
        for dataset in study.datasets
        for cell in dataset.cells
        if len(cell.history)
    ]
    if not tables:
        return pd.DataFrame(columns=["dataset", "model", "fold", "epoch"])
    table = pd.concat(tables, ignore_index=True)
    first = ["dataset", "model", "fold"]
    return table[first + [name for name in table.columns if name not in first]]


def _confidence(scores: pd.DataFrame) -> pd.DataFrame:
    """The paper's table: a row per class and kind of prediction, a column per method."""
    road = scores[scores["metric"] == "road"]
    keys = ["dataset", "model", "images", "label", "correct"]
    if road.empty:
        return pd.DataFrame(columns=keys)
    order = [str(name) for name in dict.fromkeys(road["method"])]
    wide = road.pivot_table(index=keys, columns="method", values="mean", sort=False, dropna=False)
    return wide.reindex(columns=order).dropna(how="all").reset_index().rename_axis(columns=None)


def _verdicts(study: StudyResult) -> pd.DataFrame:
    """The verdict on each map and its evidence; images by their place among those explained."""
    columns = ["dataset", "model", "fold", "image", "method", "verdict", "evidence"]
    tables = []
    for dataset in study.datasets:
        for cell in dataset.cells:
            places = {sample: place for place, sample in enumerate(cell.explained["sample"], start=1)}
            told = cell.verdicts.assign(dataset=dataset.name, model=cell.model, fold=cell.fold)
            tables.append(told.assign(image=told["sample"].map(places))[columns])
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _times(study: StudyResult) -> pd.DataFrame:
    rows = []
    for dataset in study.datasets:
        for cell in dataset.cells:
            forward = cell.times.get("forward_seconds_per_image")
            shared = cell.times.get("shared_seconds_per_image")
            spent = {"forward": forward, "forward and gradient": shared, **cell.times.get("explain", {})}
            for method, value in spent.items():
                if value is not None:
                    ratio = value / forward if forward else None
                    rows.append((dataset.name, cell.model, cell.fold, method, value, ratio, cell.times.get("device")))
    columns = ["dataset", "model", "fold", "method", "seconds_per_image", "ratio_to_forward", "device"]
    return pd.DataFrame(rows, columns=columns)
