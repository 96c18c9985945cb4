"""The table at the top: each network in one row."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.report.findings_of import IMAGE_SETS, model_accuracies
from pellucid.report.names import method_title, number, percent
from pellucid.report.read import DatasetResult, StudyResult
from pellucid.report.scores import lesion_share
from pellucid.report.tables import Cell, Table

_COLUMNS = (
    "Data set",
    "Model",
    "Accuracy",
    "Without copies",
    "Commonest class",
    "Best method",
    "Best control",
    "Mass over lesion’s share",
)


def overview_table(study: StudyResult) -> Table | None:
    """Accuracy, the best method beside the best control, and how focused it is on the lesion."""
    rows = [_row(study, dataset, model) for dataset in study.datasets for model in dataset.models]
    sizes = [len(dataset.models) for dataset in study.datasets if dataset.models]
    if not rows:
        return None
    return Table(
        "At a glance",
        _COLUMNS,
        rows,
        note=(
            "Accuracy on the test images, under it its interval; commonest class: what always naming it would reach. "
            "Best method and control by their confidence increase (ROAD, higher is better). Last column: the "
            "largest relevance mass of a method in the lesion, over the lesion’s share of the image."
        ),
        heads=2,
        sizes=sizes,
        spanning=True,
    )


def _row(study: StudyResult, dataset: DatasetResult, model: str) -> list[Cell]:
    accuracies = model_accuracies(study, dataset, model)
    cells = [Cell(dataset.name), Cell(model)]
    for images in IMAGE_SETS:
        known = accuracies.get(images)
        if known is None:
            clean = images != "all" and dataset.facts.get("duplicates", {}).get("cross_split") == 0
            cells.append(Cell("no copies" if clean else "–"))
        else:
            cells.append(Cell(percent(known.value), f"{percent(known.low)} to {percent(known.high)}"))
    chances = [percent(known.chance if known else None) for known in map(accuracies.get, IMAGE_SETS)]
    cells.append(Cell(chances[0], f"without copies {chances[1]}" if "without copies" in accuracies else ""))
    scores = study.table("scores", dataset.name, model, "all")
    scores = scores[(scores["label"] == "all") & (scores["correct"] == "all")]
    road = _means(scores, "road")
    cells.append(_best((name, value) for name, value in road.items() if not is_control(name)))
    cells.append(_best((name, value) for name, value in road.items() if is_control(name)))
    share, _ = lesion_share(dataset.of_model(model))
    mass = [value for name, value in _means(scores, "energy-pointing").items() if not is_control(name)]
    cells.append(Cell(number(max(mass) / share, 1) if mass and share > 0 else "–"))
    return cells


def _means(scores: pd.DataFrame, metric: str) -> dict[str, float]:
    rows = scores[(scores["metric"] == metric) & scores["mean"].notna()]
    return dict(zip(rows["method"].astype(str), rows["mean"].astype(float), strict=True))


def _best(values: Iterable[tuple[str, float]]) -> Cell:
    known = dict(values)
    if not known:
        return Cell("–")
    best = max(known, key=known.__getitem__)
    return Cell(number(known[best]), method_title(best))
