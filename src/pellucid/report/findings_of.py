"""Gather what the findings of a data set need from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pellucid.report.composed import layer_words, unmade_findings
from pellucid.report.findings import (
    Accuracy,
    Finding,
    accuracy_of,
    coinciding_findings,
    copies_finding,
    data_findings,
    faithfulness_findings,
    grid_finding,
    lesion_findings,
    model_findings,
    sample_findings,
    training_finding,
)
from pellucid.report.names import counted, listed
from pellucid.report.privacy import hide_in_prose
from pellucid.report.read import CellResult, DatasetResult, StudyResult
from pellucid.report.scores import lesion_share
from pellucid.report.tables import confusion

IMAGE_SETS = ("all", "without copies")


@dataclass(frozen=True)
class DatasetFindings:
    """What stands out in one data set: alarms, results, and what speaks against them."""

    alarms: tuple[str, ...]
    results: tuple[str, ...]
    against: tuple[str, ...]


def dataset_findings(study: StudyResult, dataset: DatasetResult) -> DatasetFindings:
    """All findings on one data set."""
    accuracies = {model: model_accuracies(study, dataset, model) for model in dataset.models}
    found: list[Finding | None] = [_missing(dataset), _copies(dataset, accuracies)]
    for model in dataset.models:
        found += _of_model(study, dataset, model, accuracies[model])
    found += _between_models(study, dataset)
    found += data_findings(dataset.facts)
    present = [finding for finding in found if finding is not None]

    def of(tone: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(finding.text for finding in present if finding.tone == tone))

    return DatasetFindings(of("alarm"), of("result"), of("against"))


def model_accuracies(study: StudyResult, dataset: DatasetResult, model: str) -> Mapping[str, Accuracy]:
    """A model's accuracy on all test images and without the copies, as far as they were computed."""
    table = study.table("models", dataset.name, model)
    test = test_images(dataset.of_model(model))
    known = {images: accuracy_of(table, test, images) for images in IMAGE_SETS}
    return {images: accuracy for images, accuracy in known.items() if accuracy is not None}


def test_images(cells: tuple[CellResult, ...]) -> pd.DataFrame:
    """Predictions on the test images of all folds."""
    return pd.concat([cell.test for cell in cells], ignore_index=True)


def common_coinciding(cells: tuple[CellResult, ...]) -> list[list[str]]:
    """Groups of methods that coincide in every fold."""
    groups = [list(group) for group in cells[0].card.get("coinciding") or []]
    return [group for group in groups if all(group in (cell.card.get("coinciding") or []) for cell in cells[1:])]


def _missing(dataset: DatasetResult) -> Finding | None:
    if not dataset.missing:
        return None
    isn_t = "isn’t" if len(dataset.missing) == 1 else "aren’t"
    return Finding(
        f"Not finished: {listed(list(dataset.missing))} {isn_t} in this report. "
        "The same command again goes on where the run stopped."
        + "".join(
            f" {title} failed: {hide_in_prose(reason, set(dataset.patient_ids.values()))}"
            for title, reason in dataset.failures.items()
        ),
        "alarm",
    )


def _copies(dataset: DatasetResult, accuracies: Mapping[str, Mapping[str, Accuracy]]) -> Finding | None:
    facts = dataset.facts.get("duplicates", {})
    both = {model: (known["all"], known.get("without copies")) for model, known in accuracies.items() if "all" in known}
    test, copies, near = (int(facts.get(name, 0)) for name in ("test_images", "cross_split", "near_cross_split"))
    return copies_finding(test, copies, both, near)


def _of_model(
    study: StudyResult, dataset: DatasetResult, model: str, accuracies: Mapping[str, Accuracy]
) -> list[Finding | None]:
    cells = dataset.of_model(model)
    card = cells[0].card
    found: list[Finding | None] = []
    if "all" in accuracies:
        counts = confusion(test_images(cells), dataset.classes)
        never = [label for label, column in zip(dataset.classes, counts.T, strict=True) if column.sum() == 0]
        found += model_findings(model, accuracies["all"], accuracies.get("without copies"), never)
    found.append(
        training_finding(model, [cell.card["best_epoch"] for cell in cells], [cell.card["epochs"] for cell in cells])
    )
    explained = sum(len(cell.explained) for cell in cells)
    wrong = sum(int((~cell.explained["correct"].astype(bool)).sum()) for cell in cells)
    found += sample_findings(model, explained, wrong)
    found += unmade_findings(model, card.get("unmade") or {})
    if explained:
        found.append(grid_finding(model, layer_words(card.get("layer")), card.get("grid"), card["image_size"]))
        coinciding = common_coinciding(cells)
        scores = study.table("scores", dataset.name, model, "all")
        scores = scores[(scores["label"] == "all") & (scores["correct"] == "all")]
        tests = study.table("method_tests", dataset.name, model, "all")
        found += coinciding_findings(model, coinciding)
        found += faithfulness_findings(model, scores, tests[tests["metric"] == "road"], coinciding)
        share, masks = lesion_share(cells)
        found += lesion_findings(model, scores, share, masks)
    return found


def _between_models(study: StudyResult, dataset: DatasetResult) -> list[Finding]:
    tests = study.table("model_tests", dataset.name)
    if tests.empty:
        if len(study.config.get("models", ())) == 1:
            return [Finding("One model only: nothing is compared between models.", "against")]
        return []
    found = []
    first = tests["test"].iloc[0]
    for images, part in tests[tests["test"] == first].groupby("images", sort=False):
        sentences = [
            str(sentence).replace(" %", "\u00a0%") for sentence in part["sentence"] if str(sentence) not in ("", "nan")
        ]
        if 0 < len(sentences) <= 3:
            where = "Accuracy on all test images" if images == "all" else "Accuracy without the copies"
            found += [Finding(f"{where}: {sentence}") for sentence in sentences]
        elif sentences:
            clear = int((part["p_adjusted"].astype(float) < 0.05).sum())
            found.append(
                Finding(f"{clear} of {counted(len(part), 'pair')} of models differ clearly on test images ({images}).")
            )
    return found + _undetected(tests[tests["test"] == first], study.table("power", dataset.name))


def _undetected(tests: pd.DataFrame, power: pd.DataFrame) -> list[Finding]:
    """What would have been found, of pairs between which no difference was; of many pairs the tables alone say it."""
    of_all, power = tests[tests["images"] == "all"], power[power["images"] == "all"]
    if len(of_all) > 3:
        return []
    unclear = {(row["a"], row["b"]) for _, row in of_all.iterrows() if not float(row["p_adjusted"]) <= 0.05}
    rows = [row for _, row in power.iterrows() if (row["a"], row["b"]) in unclear and np.isfinite(row["detectable"])]
    said = [str(row["sentence"]).split(" The difference seen")[0].rstrip(".") for row in rows]
    return [Finding(f"{each}, a smaller one less often.", "against") for each in said]
