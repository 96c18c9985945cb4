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
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Compute anew what was finished from other settings or other data.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry", help="Only list the cells, what is done, and an estimate of time and disk.")
    ] = False,
) -> None:
    """Train, explain and compare every model on every data set of a study, then write the report.

    Run again after a stop: finished work stays, and the rest goes on where it was.
    """
    if dry:
        _print_estimate(study, output, parse_data(data or []), device, strict)
        return
    from pellucid.report.build import build_report
    from pellucid.study.runner import run_study

    done = run_study(
        study, output, data=parse_data(data or []), device=device, strict=strict, fresh=fresh, progress=True
    )
    typer.echo(f"report: {build_report(output, show_progress=True)}")
    if len(done.failures):
        for row in done.failures.itertuples():
            typer.echo(f"failed: {row.dataset} / {row.model} / fold {row.fold}: {row.reason}", err=True)
        raise typer.Exit(1)


def _print_estimate(study: Path, output: Path, data: dict[str, str], device: str, strict: bool) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    from pellucid.progress import duration
    from pellucid.study.config import read_config
    from pellucid.study.estimate import estimate_study

    found = estimate_study(read_config(study, data), output, device=device, strict=strict, show_progress=True)
    table = Table("data set", "network", "seed", "fold", "state", "time to go", "disk")
    for row in found.cells.to_dict("records"):
        where = (escape(str(row[name])) for name in ("dataset", "model", "seed", "fold", "state"))
        table.add_row(*where, duration(row["seconds"]) if row["seconds"] else "–", decimal(row["bytes"]))
    Console().print(table)
    typer.echo(
        f"{len(found.cells)} cells, {(found.cells['state'] == 'done').sum()} done; at most about "
        f"{duration(found.seconds)} to go on this machine, {decimal(found.bytes)} on disk when finished. "
        "Nothing was computed or written."
    )
