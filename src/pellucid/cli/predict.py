"""`pellucid predict`: what a trained network says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Device, Strict


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for them.")],
    model: Annotated[Path, typer.Option(help="Weights that pellucid wrote (safetensors).")],
    out: Annotated[Path, typer.Option("--output", "-o", "--out", help="Table to write: .csv or .parquet.")] = Path(
        "predictions.csv"
    ),
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Predict the class of images; writes a row per image with the probability of each class."""
    from pellucid.devices import pick_device
    from pellucid.files import write_table
    from pellucid.training.predict import predict_files

    table, unreadable = predict_files(images, model, device=pick_device(device), strict=strict, show_progress=True)
    write_table(out, table)
    for path, reason in unreadable:
        typer.echo(f"skipped {path}: {reason}", err=True)
    skipped = f", {len(unreadable)} skipped" if unreadable else ""
    typer.echo(f"{len(table)} predictions{skipped}: {out}")
