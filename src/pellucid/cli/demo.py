"""`pellucid demo`: the whole protocol on built-in phantoms."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Device


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.", file_okay=False)] = Path(
        "runs/demo"
    ),
    device: Device = "auto",
) -> None:
    """Run the whole protocol on three built-in phantom tasks: train, explain, score, compare, report."""
    from pellucid.report.build import build_report
    from pellucid.study.runner import run_study

    with resources.as_file(resources.files("pellucid.study") / "demo.toml") as study:
        run_study(study, output, device=device, progress=True)
    typer.echo(f"report: {build_report(output, show_progress=True)}")
