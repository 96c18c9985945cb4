"""`pellucid run`: a whole study from its TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Device, Output, Strict, parse_data


def run(
    study: Annotated[Path, typer.Argument(help="The study's TOML file.")],
    output: Output,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Where the data is: PATH, or NAME=PATH for one of several data sets. Repeatable."),
    ] = None,
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Train, explain and compare every model on every data set of a study, then write the report.

    Run again after a stop: finished work stays, and the rest goes on where it was.
    """
    from pellucid.report.build import build_report
    from pellucid.study.runner import run_study

    run_study(study, output, data=parse_data(data or []), device=device, strict=strict, progress=True)
    typer.echo(f"report: {build_report(output, show_progress=True)}")
