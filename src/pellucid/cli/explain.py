"""`pellucid explain`: where a trained network looks in images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Arch, Channels, Classes, Device, Size, Strict, load_network, parse_methods


def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for them.")],
    model: Annotated[Path, typer.Option(help="Weights: those that pellucid wrote, or a plain state dict with --arch.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)] = Path("explained"),
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Names with commas, options in brackets: 'layer-cam,smooth-grad[samples=50]'. Repeatable."),
    ] = None,
    target: Annotated[str, typer.Option(help="predicted, all, or a class by its name or index.")] = "predicted",
    layer: Annotated[list[str] | None, typer.Option(help="A dotted name instead of auto. Repeatable.")] = None,
    arch: Arch = None,
    classes: Classes = None,
    size: Size = None,
    channels: Channels = None,
    batch_size: Annotated[int, typer.Option(help="Images that run at once.", min=1)] = 32,
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Explain images or volumes (NIfTI): writes an overlay, the raw maps and a record of each into a folder."""
    from pellucid.devices import pick_device
    from pellucid.study.explain_files import Question, explain_files

    chosen = parse_methods(methods or [])
    where = pick_device(device)
    network = load_network(model, where, arch, classes, size, channels)
    question = Question(target=target, layers=tuple(layer or ["auto"]), batch_size=batch_size)
    if chosen:
        question = Question(tuple(chosen), question.target, question.layers, question.batch_size)
    records, unreadable = explain_files(images, network, out, question, strict=strict, show_progress=True)
    for path, reason in unreadable:
        typer.echo(f"skipped {path}: {reason}", err=True)
    skipped = f", {len(unreadable)} skipped" if unreadable else ""
    typer.echo(f"{len(records)} explained{skipped}: {out}")
