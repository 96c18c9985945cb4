"""`pellucid explain`: where a trained network looks in images."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

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
)
from pellucid.cli.pacs_options import (
    Ca,
    Certificate,
    Key,
    Listen,
    OptionalStudy,
    OptionalUrl,
    SeriesUids,
    StoreBack,
    Timeout,
    Title,
    open_pacs,
    tell_stored,
)
from pellucid.errors import expected

if TYPE_CHECKING:
    from pellucid.attribution.engine import Precision
    from pellucid.attribution.merging import Fusion


def explain(
    model: Weights,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders that are searched for them; or --pacs.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--output", "-o", "--out", help="Folder for the results.", file_okay=False)
    ] = Path("explained"),
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Names with commas, options in brackets: 'saliency\\[smooth=flips]'. Repeatable."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Metrics that measure each map, such as road; their values go into records and reports."),
    ] = None,
    target: Annotated[str, typer.Option(help="predicted, all, or a class by its name or index.")] = "predicted",
    layer: Layers = None,
    arch: Arch = None,
    classes: Classes = None,
    size: Size = None,
    channels: Channels = None,
    intensity: Intensity = None,
    orientation: Orientation = None,
    spacing: Spacing = None,
    index: Annotated[int | None, typer.Option(help="Which of the volumes or frames of a file, from 0.", min=0)] = None,
    fuse: Annotated[str | None, typer.Option(help="One map of several layers: mean or max.")] = None,
    batch_size: BatchSize = 32,
    max_memory: MaxMemory = None,
    precision: PrecisionName = "float32",
    compile: Compile = False,
    write: Annotated[
        list[str] | None,
        typer.Option(
            help="Also parametric-map, segmentation, secondary-capture or structured-report (DICOM objects that refer "
            "to a DICOM image), nifti or nrrd. With commas; repeatable."
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(help="Of segmentations: a share of the map's largest value, value:NUMBER or top:SHARE of pixels."),
    ] = "0.5",
    when: Annotated[
        datetime | None,
        typer.Option(help="Time that DICOM objects carry instead of now; given, they repeat byte for byte."),
    ] = None,
    device: Device = "auto",
    strict: Strict = False,
    pacs: OptionalUrl = None,
    study: OptionalStudy = None,
    series: SeriesUids = None,
    store_back: StoreBack = False,
    pacs_ca: Ca = None,
    pacs_cert: Certificate = None,
    pacs_key: Key = None,
    pacs_aet: Title = "PELLUCID",
    pacs_listen: Listen = None,
    pacs_timeout: Timeout = 60.0,
) -> None:
    """Explain images or volumes: writes an overlay, the raw maps and a record of each into a folder.

    Volumes can be scrolled through on a page, index.html, beside their maps. With --pacs and --study they come from a
    PACS, and with --store-back DICOM objects of the maps go back there.
    """
    from pellucid.attribution.engine import PAPER_METHODS, check_precision
    from pellucid.devices import pick_device
    from pellucid.report.explained import write_explained
    from pellucid.study.explain_files import Question, explain_files
    from pellucid.study.explain_objects import OBJECTS, Wishes

    if pacs is None and (study or series or store_back):
        raise expected("pacs", "the address of a PACS, since --study, --series and --store-back go with it", "none")
    if pacs is not None and (images or not study):
        raise expected("study", "a Study Instance UID and no image files, since --pacs is given", "another choice")
    if pacs is None and not images:
        raise expected("images", "image files or folders, or --pacs with --study", "none")
    kinds = [kind.strip() for each in write or [] for kind in each.split(",")] or (list(OBJECTS) if store_back else [])
    chosen = parse_methods(methods or [])
    where = pick_device(device)
    network = load_network(model, where, arch, classes, size, channels)
    network = laid_out(network, arch, intensity, orientation, spacing)
    if fuse not in (None, "mean", "max"):
        raise expected("fuse", "mean or max", repr(fuse))
    check_precision(precision)
    question = Question(
        tuple(chosen or PAPER_METHODS),
        target=target,
        layers=tuple(layer or ["auto"]),
        batch_size=batch_size,
        fuse=cast("Fusion | None", fuse),
        max_memory=None if max_memory is None else parse_bytes(max_memory),
        precision=cast("Precision", precision),
        compile=compile,
        index=index,
        write=Wishes(kinds, threshold, when),
        metrics=parse_metrics(metrics)[0] if metrics else (),
    )
    outcomes = []
    if pacs is None:
        records, unreadable = explain_files(images or [], network, out, question, strict=strict, show_progress=True)
    else:
        from pellucid.study.explain_pacs import explain_study

        with open_pacs(pacs, pacs_ca, pacs_cert, pacs_key, pacs_aet, pacs_listen, pacs_timeout) as server:
            done = explain_study(
                server,
                study or "",
                network,
                out,
                question,
                series=series or (),
                store_back=store_back,
                strict=strict,
                show_progress=True,
            )
        records, unreadable, outcomes = done.records, done.skipped, done.outcomes
    for path, reason in unreadable:
        typer.echo(f"skipped {path}: {reason}", err=True)
    skipped = f", {len(unreadable)} skipped" if unreadable else ""
    typer.echo(f"{len(records)} explained{skipped}: {out}")
    page = write_explained(records, out, show_progress=True)
    if page is not None:
        typer.echo(f"volumes to scroll through: {page}")
    if store_back:
        tell_stored(outcomes)
