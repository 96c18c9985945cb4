"""`pellucid report`: the report again, from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(output: Annotated[Path, typer.Argument(help="The folder of a study, finished or not.")]) -> None:
    """Write a study's report again from what is on disk; nothing is trained or explained."""
    from pellucid.report.build import build_report
    from pellucid.study.summary import summarise_stored

    summarise_stored(output, show_progress=True)
    typer.echo(f"report: {build_report(output, show_progress=True)}")
