"""`pellucid evaluate`: how good explanations are, beside controls that know nothing of the network."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pellucid.cli.options import (
    Arch,
    BatchSize,
    Channels,
    Classes,
    Compile,
    Device,
    Intensity,
    Layers,
    MaxMemory,
    Orientation,
    Output,
    PrecisionName,
    Size,
    Spacing,
    Strict,
    Weights,
    laid_out,
    load_network,
    parse_bytes,
    parse_methods,
    parse_metrics,
    split_names,
)
from pellucid.errors import expected

if TYPE_CHECKING:
    import pandas as pd

    from pellucid.attribution.engine import Precision
    from pellucid.study.evaluate_files import Evaluated

_TOLD = 10  # lines on what was skipped; all are in evaluation.json


def evaluate(
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, folders that are searched for them, or a manifest (csv, parquet)."),
    ],
    model: Weights,
    output: Output,
    maps: Annotated[
        Path | None, typer.Option(help="Maps saved before: the output of pellucid explain, or a saved Explanation.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Names with commas, options in brackets; with --maps labels among them. Repeatable."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Names with commas, 'road\\[noise=0.0]', families such as localisation, or all. Repeatable."),
    ] = None,
    controls: Annotated[bool, typer.Option(help="Score random, sobel and center-gaussian beside.")] = True,
    verdicts: Annotated[
        bool | None,
        typer.Option(help="Say of each map whether to trust it; by default where --metrics isn't given."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="predicted, true, or a class by its name or index; by default the maps' own.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="A table with path, label, mask and patient_id of the images.", dir_okay=False)
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks that bear the images' names.")] = None,
    labels: Annotated[str | None, typer.Option(help="The values of masks that are the finding, such as 1,2.")] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="CSV with path, x, y, w, h in pixels, a row per box.", dir_okay=False)
    ] = None,
    anatomy: Annotated[
        Path | None, typer.Option(help="Folder of masks of the organ in which evidence can lie.")
    ] = None,
    bank: Annotated[
        list[Path] | None, typer.Option(help="Held-out images, for fills that take from them. Repeatable.")
    ] = None,
    layer: Layers = None,
    arch: Arch = None,
    classes: Classes = None,
    size: Size = None,
    channels: Channels = None,
    intensity: Intensity = None,
    orientation: Orientation = None,
    spacing: Spacing = None,
    index: Annotated[int | None, typer.Option(help="Which of the volumes that a file holds, from 0.", min=0)] = None,
    batch_size: BatchSize = 32,
    max_memory: MaxMemory = None,
    precision: PrecisionName = "float32",
    compile: Compile = False,
    seed: Annotated[int, typer.Option(help="Every draw follows from it.", min=0, max=2**31 - 1)] = 0,
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Measure explanations of images or volumes by every metric, beside controls: tables and a record in a folder.

    Run again after a stop: what was finished stays, and the rest goes on where it was.
    """
    from pellucid.attribution.engine import check_precision
    from pellucid.devices import pick_device
    from pellucid.metrics import METRICS
    from pellucid.metrics.verdict import METRICS_ASKED
    from pellucid.study.evaluate_files import evaluate_files
    from pellucid.study.evaluate_question import CONTROLS, EvaluationQuestion
    from pellucid.study.known_images import Sources

    chosen = parse_methods(methods or []) if maps is None else split_names(methods or [])
    measured, optional = parse_metrics(metrics or [])
    judged = not metrics and controls if verdicts is None else verdicts
    if judged and not controls:
        raise expected("verdicts", "controls beside the methods, above which a map must come", "--no-controls")
    if judged:
        asked = (METRICS.from_label(label) for label in METRICS_ASKED)
        measured = list({choice.label: choice for choice in [*measured, *asked]}.values())
    check_precision(precision)
    network = load_network(model, pick_device(device), arch, classes, size, channels)
    network = laid_out(network, arch, intensity, orientation, spacing)
    question = EvaluationQuestion(
        metrics=measured,
        methods=chosen,
        optional=optional,
        controls=CONTROLS if controls else (),
        sources=Sources(manifest, masks, anatomy, boxes, _labels(labels)),
        maps=maps,
        target=target,
        layers=tuple(layer or ["auto"]),
        batch_size=batch_size,
        max_memory=None if max_memory is None else parse_bytes(max_memory),
        seed=seed,
        index=index,
        bank=tuple(bank or ()),
        precision=cast("Precision", precision),
        compile=compile,
    )
    found = evaluate_files(images, network, output, question, strict=strict, show_progress=True)
    _tell(found, output)
    title = f"Evaluation of explanations of {network[1].architecture}"
    typer.echo(f"report: {write_section(found, output, title, judged=judged)}")


def _labels(value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise expected("labels", "whole numbers above 0 with commas between", repr(value))
    return tuple(map(int, parts))


def _tell(found: Evaluated, output: Path) -> None:
    """The summary, and what was left out and why."""
    for lines in ([f"skipped {name}: {reason}" for name, reason in found.skipped], found.problems):
        for line in lines[:_TOLD]:
            typer.echo(line, err=True)
        if len(lines) > _TOLD:
            typer.echo(f"and {len(lines) - _TOLD} more, all in {output / 'evaluation.json'}", err=True)
    if found.left_out:
        typer.echo(f"left out, since nothing was given for them: {', '.join(found.left_out)}", err=True)
    console = Console()
    _show(console, found.summary)
    skipped = f", {len(found.skipped)} skipped" if found.skipped else ""
    missing = int(found.scores["value"].isna().sum())
    gone = f", {missing} of {len(found.scores)} values missing (missing.csv says why)" if missing else ""
    typer.echo(f"{len(found.samples)} evaluated{skipped}{gone}: {output}")


def _show(console: Console, summary: pd.DataFrame) -> None:
    """Mean over images by metric and method, on a terminal as a table, elsewhere with tabs between."""
    columns = ["metric", "method", "mean", "95 % interval", "n", "missing", ""]
    title = "Mean over images; * is the best method, and the floor is what the best control reaches"
    parts: list[list[list[str]]] = [_lines(part) for _, part in summary.groupby("metric", sort=False)]
    if not console.is_terminal:
        lines = ["\t".join(row).rstrip() for row in itertools.chain([columns], *parts)]
        typer.echo("\n".join([title, *lines]))
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = column in ("mean", "n", "missing")
        table.add_column(column, overflow="fold", justify="right" if numeric else "left", no_wrap=numeric)
    for rows in parts:
        for place, row in enumerate(rows):
            style = "bold" if row[-1] == "*" else "dim" if row[-1] in ("control", "floor") else ""
            table.add_row(
                *map(escape, row if place == 0 else ["", *row[1:]]), style=style, end_section=place == len(rows) - 1
            )
    console.print(table)


def _lines(part: pd.DataFrame) -> list[list[str]]:
    """The rows of one metric, the best first."""
    ordered = part.sort_values("mean", ascending=part["better"].iloc[0] == "lower", kind="stable", na_position="last")
    lines = []
    for row in ordered.to_dict("records"):
        floor = row["control"] and row["mean"] == row["floor"]
        mark = "*" if row["best"] else "floor" if floor else "control" if row["control"] else ""
        mean = "" if math.isnan(row["mean"]) else f"{row['mean']:.4g}"
        interval = "" if math.isnan(row["low"]) else f"{row['low']:.3g} to {row['high']:.3g}"
        name = f"{row['metric']} ({row['better']})"
        lines.append([name, row["method"], mean, interval, str(row["n"]), str(row["missing"]), mark])
    return lines


def write_section(found: Evaluated, output: Path, title: str, *, judged: bool = False) -> Path:
    """Write the report of an evaluation, with a verdict on each map where it is `judged`.

    Patients are numbered, and of file names only the folders that are classes and the ending are told.
    """
    from pellucid.metrics.verdict import default_calibration, verdicts
    from pellucid.report.evaluation import write_evaluation
    from pellucid.report.privacy import hide_file

    names = [hide_file(name, set(found.samples["label"])) for name in found.samples["image"]]
    table = found.scores.drop(columns="image")
    samples = found.samples.assign(image=names)
    if not judged:
        return write_evaluation(table, output, samples=samples, title=title, curves=found.curves, shown=found.shown)
    said = verdicts(found.scores, found.samples["probability"].tolist())
    counts = said["verdict"].value_counts()
    typer.echo("maps: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    thresholds = default_calibration().text()
    return write_evaluation(
        table,
        output,
        samples=samples,
        verdicts=said,
        thresholds=thresholds,
        title=title,
        curves=found.curves,
        shown=found.shown,
    )
