"""`pellucid explain`: where a trained network looks in images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.options import Device, Strict, parse_methods, parse_size
from pellucid.errors import expected

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pellucid.models.checkpoints import ModelCard


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
    arch: Annotated[
        str | None, typer.Option(help="The timm name that a plain state dict belongs to, or such as resnet18-3d.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="With --arch: how many, or their names with commas.")] = None,
    size: Annotated[
        str | None, typer.Option(help="With --arch: height and width in pixels; of volumes 96 or 64,96,96 voxels.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="With --arch: 1 (grey) or 3 (colour).")] = None,
    batch_size: Annotated[int, typer.Option(help="Images that run at once.", min=1)] = 32,
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Explain images or volumes (NIfTI): writes an overlay, the raw maps and a record of each into a folder."""
    from pellucid.devices import pick_device
    from pellucid.study.explain_files import Question, explain_files

    chosen = parse_methods(methods or [])
    where = pick_device(device)
    network = _network(model, where, arch, classes, size, channels)
    question = Question(target=target, layers=tuple(layer or ["auto"]), batch_size=batch_size)
    if chosen:
        question = Question(tuple(chosen), question.target, question.layers, question.batch_size)
    records, unreadable = explain_files(images, network, out, question, strict=strict, show_progress=True)
    for path, reason in unreadable:
        typer.echo(f"skipped {path}: {reason}", err=True)
    skipped = f", {len(unreadable)} skipped" if unreadable else ""
    typer.echo(f"{len(records)} explained{skipped}: {out}")


def _network(
    weights: Path, device: torch.device, arch: str | None, classes: str | None, size: str | None, channels: int | None
) -> tuple[nn.Module, ModelCard]:
    from pellucid.models.checkpoints import load_plain_weights, load_weights

    if arch is None:
        given = {"--classes": classes, "--size": size, "--channels": channels}
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise expected("arch", f"an architecture, since {', '.join(extra)} go with it", "none")
        if weights.is_file() and weights.suffix != ".safetensors":
            wanted = "weights that pellucid wrote, ending in .safetensors"
            raise expected("model", wanted, repr(weights.name), do="For a plain state dict give --arch and --classes.")
        return load_weights(weights, device)
    if not classes:
        raise expected("classes", "how many the network tells apart, or their names with commas", "none")
    listed = [str(index) for index in range(int(classes))] if classes.isdecimal() else classes.split(",")
    names = [name.strip() for name in listed]
    if not all(names) or len(set(names)) < len(names):
        raise expected("classes", "names with commas between, each once", repr(classes))
    if channels not in (None, 1, 3):
        raise expected("channels", "1 or 3", channels)
    lengths = None if size is None else parse_size(size)
    return load_plain_weights(weights, arch, classes=names, size=lengths, channels=channels, device=device)
