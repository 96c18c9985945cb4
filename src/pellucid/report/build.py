"""Put the report together: one HTML file that needs nothing else, and its tables as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pellucid.drawing import MATRIX, colour_bar
from pellucid.files import write_table, write_text
from pellucid.metrics.verdict import default_calibration
from pellucid.progress import progress
from pellucid.report.about import (
    PROTOCOL,
    ROAD,
    environment_rows,
    glossary,
    last_part,
    method_terms,
    shown_config,
)
from pellucid.report.classifier import Measures, measures
from pellucid.report.comparisons import Comparisons, comparisons
from pellucid.report.enhancements import crossed_tables, enhanced_examples, enhancement_tests_tables
from pellucid.report.figures import Drawn, drawn, learning_curves
from pellucid.report.findings_of import IMAGE_SETS, DatasetFindings, dataset_findings, model_accuracies
from pellucid.report.gallery import Gallery, Group, examples, gallery
from pellucid.report.leakage import LeakagePart, study_leakage
from pellucid.report.names import counted, percent, size_words
from pellucid.report.overview import overview_table
from pellucid.report.page import page
from pellucid.report.privacy import hide_file, hide_in_prose
from pellucid.report.ranked import verdict_counts
from pellucid.report.read import DatasetResult, StudyResult, read_study
from pellucid.report.recipes import recipes_table
from pellucid.report.scores import (
    confidence_table,
    family_tables,
    lesion_share,
    method_order,
    method_tests_table,
    ranks_diagram,
    ranks_table,
    times_table,
)
from pellucid.report.scroll import PAGE_BYTES, script
from pellucid.report.sheets import sheets
from pellucid.report.tables import (
    Table,
    confusion_table,
    counts_table,
    folds_table,
    models_table,
    training_table,
)

UNREADABLE_SHOWN = 20


@dataclass(frozen=True)
class ModelPart:
    """What the report shows of the maps of one model."""

    model: str
    tables: Sequence[Table]
    diagrams: Sequence[Drawn]
    gallery: Gallery | None


@dataclass(frozen=True)
class DatasetPart:
    """What the report shows of one data set."""

    name: str
    anchor: str
    source: str
    summary: str
    findings: DatasetFindings
    notes: Sequence[str]
    unreadable: Sequence[tuple[str, str]]
    unreadable_more: int
    counts: Table | None
    examples: Sequence[Group]
    duplicates_summary: str
    leakage: LeakagePart | None
    curves: Sequence[Drawn]
    models: Sequence[Table]
    comparisons: Comparisons | None
    measures: Sequence[Measures]
    crossed: Sequence[Table]
    enhanced: Sequence[Group]
    confusions: Sequence[Table]
    explanations: Sequence[ModelPart]
    times: Table | None


def build_report(output: Path, *, show_progress: bool = False) -> Path:
    """Write `report/index.html` and its CSV tables from what a study left in `output`; returns the HTML file.

    Cells that aren't finished are named as missing, and the rest is shown.

    Raises:
        InputError: `output` has no `study.toml`.
        PellucidError: the report can't be written.
    """
    study = read_study(output)
    folder = output / "report"
    for name, sheet in sheets(study).items():
        write_table(folder / f"{name}.csv", sheet)
    path = folder / "index.html"
    write_text(path, render(study, show_progress=show_progress))
    return path


def render(study: StudyResult, *, show_progress: bool = False) -> str:
    """The report's HTML."""
    parts = []
    with progress("reporting", len(study.datasets), show=show_progress) as advance:
        for dataset in study.datasets:
            parts.append(_dataset_part(study, dataset))
            advance()
    methods, metrics = _asked(study)
    return page(
        "report.html.j2",
        study=study,
        parts=parts,
        intro=_intro(study),
        overview=overview_table(study),
        environment_rows=environment_rows(study),
        config=shown_config(study.config),
        protocol=PROTOCOL,
        road=ROAD,
        methods=method_terms(methods),
        glossary=glossary(metrics, set(study.statistics["models"]["metric"]), set(study.statistics["models"]["rule"])),
        scroll_script=script() if _scrolled(parts) else "",
        share_scale=drawn(colour_bar(MATRIX), "Colour scale from 0 to 100 % of the true class", exact=True),
    )


def _scrolled(parts: Sequence[DatasetPart]) -> bool:
    """Whether there are volumes to scroll through."""
    galleries = [model.gallery for part in parts for model in part.explanations]
    return any(strip.scroll for each in galleries if each is not None for strip in each.strips)


def _asked(study: StudyResult) -> tuple[list[str], list[str]]:
    cells = [cell for dataset in study.datasets for cell in dataset.cells]
    methods = dict.fromkeys(name for cell in cells for name in cell.card.get("methods", ()))
    metrics = dict.fromkeys(name for cell in cells for name in cell.card.get("metrics", ()))
    return list(methods), list(metrics)


def _intro(study: StudyResult) -> str:
    finished = sum(len(dataset.cells) for dataset in study.datasets)
    planned = [cell for dataset in study.datasets for cell in dataset.planned]
    parts = [
        counted(len(study.datasets), "data set"),
        counted(len({cell.model.name for cell in planned}), "model"),
        counted(len({cell.enhancement for cell in planned}), "enhancement"),
        counted(len({cell.seed for cell in planned}), "seed"),
        counted(study.folds, "fold"),
    ]
    parts = [part for part in parts if part not in ("1 enhancement", "1 seed")]
    total = len(planned)
    done = "all finished" if finished == total else f"{finished} of {total} finished"
    return f"{' × '.join(parts)}: {counted(total, 'network')}, {done}."


def _dataset_part(study: StudyResult, dataset: DatasetResult) -> DatasetPart:
    facts = dataset.facts
    patients = sorted(set(dataset.patient_ids.values()) - {""})
    unreadable = [
        (hide_file(str(path), dataset.classes) if patients else str(path), hide_in_prose(str(reason), patients))
        for path, reason in facts.get("unreadable", ())
    ]
    models = study.table("models", dataset.name)
    models = models.sort_values("model", key=lambda names: names.map(dataset.models.index), kind="stable")
    accuracies = {model: model_accuracies(study, dataset, model) for model in dataset.models}
    chances = {
        (model, images): accuracy.chance for model, known in accuracies.items() for images, accuracy in known.items()
    }
    tables = [
        training_table(dataset),
        recipes_table(dataset),
        models_table(models, chances, study.confidence),
        folds_table(models, dataset.facts.get("folds", ())),
    ]
    enhancing = study.table("enhancement_tests", dataset.name)
    crossed = crossed_tables(dataset, models, enhancing, study.confidence)
    confusions = [
        confusion_table(dataset.of_model(model), dataset.classes, images)
        for model in dataset.models
        for images in IMAGE_SETS
        if not dataset.multi_label and (images == "all" or (model, images) in chances)
    ]
    return DatasetPart(
        name=dataset.name,
        anchor=f"data-{dataset.name}",
        source=last_part(str(dataset.settings.get("path", dataset.name))),
        summary=_summary(dataset),
        findings=dataset_findings(study, dataset),
        notes=[hide_in_prose(str(note), patients) for note in facts.get("notes", ())],
        unreadable=unreadable[:UNREADABLE_SHOWN],
        unreadable_more=max(0, len(unreadable) - UNREADABLE_SHOWN),
        counts=counts_table(dataset),
        examples=examples(dataset),
        duplicates_summary=_duplicates_summary(dataset),
        leakage=study_leakage(dataset, accuracies),
        curves=[curve for model in dataset.models for curve in learning_curves(dataset.of_model(model))],
        models=[table for table in tables if table is not None],
        comparisons=comparisons(study.table("model_tests", dataset.name), study.table("power", dataset.name)),
        measures=[
            measures(_title(str(model), str(images)), rows, study.confidence)
            for (model, images), rows in models[models["fold"] == "all"].groupby(["model", "images"], sort=False)
        ],
        crossed=[*crossed, *enhancement_tests_tables(enhancing)],
        enhanced=enhanced_examples(dataset) if crossed else (),
        confusions=[table for table in confusions if table is not None],
        explanations=[_model_part(study, dataset, model) for model in dataset.models],
        times=times_table(dataset),
    )


def _model_part(study: StudyResult, dataset: DatasetResult, model: str) -> ModelPart:
    share = PAGE_BYTES // max(1, sum(len(each.models) for each in study.datasets))
    tables = [
        table for images in IMAGE_SETS for table in _map_tables(study, dataset, model, images) if table is not None
    ]
    diagrams = [
        ranks_diagram(_title(model, images), study.table("method_ranks", dataset.name, model, images))
        for images in IMAGE_SETS
    ]
    tables += _verdict_tables(dataset, model)
    return ModelPart(
        model, tables, [each for each in diagrams if each is not None], gallery(dataset, model, page_bytes=share)
    )


def _verdict_tables(dataset: DatasetResult, model: str) -> list[Table]:
    """Whether the maps can be trusted, those of right and of wrong predictions apart."""
    judged = [
        cell.verdicts.merge(cell.explained[["sample", "correct"]], on="sample", how="left")
        for cell in dataset.of_model(model)
        if len(cell.verdicts)
    ]
    if not judged:
        return []
    verdicts = pd.concat(judged, ignore_index=True)
    right = verdicts["correct"].astype(bool)
    note = (
        "From each map’s faithfulness above the controls, stability under small noise, sanity and agreement with the "
        f"other methods; verdicts.csv has the evidence. Thresholds: {default_calibration().text()}"
    )
    parts = {"right": verdicts[right], "wrong": verdicts[~right]}
    known = [said for said, part in parts.items() if len(part)]
    return [
        verdict_counts(
            parts[said],
            f"Can the maps be trusted? {model}, {said} predictions",
            note if said == known[-1] else "",
        )
        for said in known
    ]


def _title(model: str, images: str) -> str:
    return model if images == "all" else f"{model}, {images}"


def _map_tables(study: StudyResult, dataset: DatasetResult, model: str, images: str) -> list[Table | None]:
    scores = study.table("scores", dataset.name, model, images)
    if scores.empty:
        return []
    cells = dataset.of_model(model)
    share, _ = lesion_share(cells, images)
    target = str(cells[0].card.get("target", "predicted"))
    tests = study.table("method_tests", dataset.name, model, images)
    title = _title(model, images)
    return [
        confidence_table(title, scores, dataset.classes, target),
        *family_tables(title, scores, share),
        method_tests_table(title, tests[tests["metric"] == "road"], method_order(scores)),
        ranks_table(title, study.table("method_ranks", dataset.name, model, images)),
    ]


def _summary(dataset: DatasetResult) -> str:
    facts = dataset.facts
    if not facts:
        return "This data set wasn’t read yet."
    patients = int(facts.get("patients", 0))
    known = f" from {counted(patients, 'patient')}" if patients else ""
    size, channels, masks = facts["image_size"], facts["channels"], int(facts.get("masks", 0))
    unit = "pixels" if isinstance(size, int) else "voxels"
    frame = f" ({facts['frame']})" if facts.get("frame") else ""
    split = (
        "The split is the one that the data give."
        if facts.get("given_split")
        else "The split was drawn at random, patients kept together where they are known."
    )
    return (
        f"{counted(int(facts['images']), 'image')} of {counted(len(dataset.classes), 'class', 'classes')}"
        f"{known}, "
        f"seen by the networks at {size_words(size)} {unit}{frame} in {counted(int(channels), 'channel')}; "
        f"{counted(masks, 'lesion mask') if masks else 'no lesion masks'}. {split}"
    )


def _duplicates_summary(dataset: DatasetResult) -> str:
    facts = dataset.facts.get("duplicates", {})
    if not facts:
        return ""
    test, cross = int(facts.get("test_images", 0)), int(facts.get("cross_split", 0))
    if not facts.get("groups") and not cross:
        return "No two images are pixel-identical."
    near = int(facts.get("near_cross_split", 0))
    share = f" ({percent(cross / test, 0)})" if test else ""
    return (
        f"{counted(int(facts['images']), 'image')} in {counted(int(facts['groups']), 'group')} are pixel-identical to "
        f"another. {cross} of {counted(test, 'test image')}{share} have a copy in the training part"
        + (f", {cross - near} of them a pixel-identical and {near} a near one" if near else "")
        + (f"; {facts['conflicting_groups']} groups bear different labels." if facts.get("conflicting_groups") else ".")
    )
