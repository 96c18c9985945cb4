"""`pellucid train`: one network on one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Device, Orientation, Output, Spacing, Strict, parse_size, parse_spacing


def train(
    data: Annotated[str, typer.Argument(help="An image folder, a manifest (csv, parquet), or phantom:NAME.")],
    output: Output,
    model: Annotated[str, typer.Option(help="A timm name, or one of volumes such as resnet18-3d.")] = "resnet18",
    size: Annotated[str, typer.Option(help="Height and width in pixels; of volumes 64,96,96 voxels.")] = "224",
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (colour); 3 unless given, 1 for volumes.")] = None,
    intensity: Annotated[
        str, typer.Option(help="How values become grey: dtype (a DICOM file's own window), image, or a window's name.")
    ] = "dtype",
    orientation: Orientation = None,
    spacing: Spacing = None,
    enhancement: Annotated[str, typer.Option(help="What is done to images first, such as clahe.")] = "none",
    epochs: Annotated[int | None, typer.Option(help="At most this many; by the network's family unless given.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    learning_rate: Annotated[
        str | None, typer.Option(help="Highest rate, after the warm-up, or find; by the network's family unless given.")
    ] = None,
    pretrained: Annotated[
        str, typer.Option(help="yes: the hub's weights; no: random ones; or a local weights file.")
    ] = "no",
    seed: Annotated[int, typer.Option(help="Every draw follows from it.")] = 0,
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Train one network; leaves weights.safetensors, history.parquet and predictions.parquet in the output folder.

    Run again after a stop: training goes on from its last finished epoch.
    """
    from pellucid.study.config import parse_config
    from pellucid.study.single import train_single

    lengths = parse_size(size)
    volumes = isinstance(lengths, tuple)
    settings = {
        "image_size": lengths,
        "channels": channels or (1 if volumes else 3),
        "intensity": intensity,
        "orientation": orientation,
        "spacing": None if spacing is None else parse_spacing(spacing),
    }
    path = data if data.startswith("phantom:") else str(Path(data).expanduser().resolve())
    weights: bool | str = {"yes": True, "no": False}.get(pretrained, pretrained)
    config = parse_config(
        {
            "seed": seed,
            "datasets": [{"name": "data", "path": path, **settings}],
            "enhancements": [enhancement],
            "models": [{"name": model, "pretrained": weights}],
            "training": {"batch_size": batch_size, "epochs": epochs, "learning_rate": _rate(learning_rate)},
        },
        base=Path.cwd(),
        where="train",
    )
    summary = train_single(config, output, device=device, strict=strict, show_progress=True)
    typer.echo(summary)


def _rate(given: str | None) -> float | str | None:
    """A number where it is one; what it isn't is refused with the other settings."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given
