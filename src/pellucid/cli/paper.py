"""`pellucid paper`: arXiv 2503.08420 redone, from images to its tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Device, Output, Strict


def paper(
    output: Output,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that holds brain_mri, skin and chest_xray, each class folders or a manifest.csv."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Light nets trained from scratch, for two cores.")] = False,
    task: Annotated[list[str] | None, typer.Option(help="brain, skin or chest alone. Repeatable.")] = None,
    studies: Annotated[
        Path | None, typer.Option(help="Folder with own brain.toml, skin.toml and chest.toml.", file_okay=False)
    ] = None,
    device: Device = "auto",
    strict: Strict = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute anew what was finished from other settings.")] = False,
) -> None:
    """Redo arXiv 2503.08420: four CNNs on three tasks, explained, scored, compared; its tables beside its numbers.

    Run again after a stop, or for another task: finished work stays, and the page tells all that is done.
    """
    from pellucid.report.build import build_report
    from pellucid.report.paper import build_paper
    from pellucid.study.paper import paper_studies, run_paper

    chosen = paper_studies(data, task or (), quick=quick, folder=studies)
    failures = []
    for name, study in run_paper(chosen, output, device=device, strict=strict, fresh=fresh, progress=True):
        build_report(output / name, show_progress=True)
        page = build_paper(output)
        failures += [f"{name} / {row.model} / fold {row.fold}: {row.reason}" for row in study.failures.itertuples()]
    typer.echo(f"page: {page}")
    if failures:
        typer.echo("\n".join(f"failed: {each}" for each in failures), err=True)
        raise typer.Exit(1)
