"""`pellucid doctor`: what a network offers to explanations, and what could trip them up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pellucid.cli.options import (
    Arch,
    Channels,
    Classes,
    Device,
    Size,
    check_channels,
    class_names,
    load_network,
    parse_size,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pellucid.attribution.doctor import Examination, FeatureMap
    from pellucid.models.checkpoints import ModelCard

_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_LISTED = 12  # names in one line


def doctor(
    model: Annotated[
        str, typer.Argument(help="Weights, as for explain, or a timm name for a network without training.")
    ],
    images: Annotated[list[Path] | None, typer.Option("--image", help="An image to look at. Repeatable.")] = None,
    arch: Arch = None,
    classes: Classes = None,
    size: Size = None,
    channels: Channels = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print all that was found, as JSON.")] = False,
) -> None:
    """Look a network over: its layers and grids, what to mind, and which methods run on it."""
    from pellucid.attribution.doctor import examine
    from pellucid.devices import pick_device

    network, card = _network(model, pick_device(device), arch, classes, size, channels)
    found = examine(network, _images(images or [], card), show_progress=True)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    console = Console()
    for line in _summary(found, card.architecture):
        console.print(escape(line), highlight=False, soft_wrap=not console.is_terminal)
    _show(
        console,
        "Layers that are not deep inside, the last of each size (--json: all)",
        ["layer", "kind", "channels", "grid", "layout"],
        _layers(found),
    )
    _show(console, "Methods", ["method", "family", "runs", "needs", "why not"], _methods(found))


def _network(
    model: str, device: torch.device, arch: str | None, classes: str | None, size: str | None, channels: int | None
) -> tuple[nn.Module, ModelCard]:
    """What explain would take, or else the architecture of that name with random weights, always the same."""
    if arch is not None or Path(model).exists() or model.endswith(_ENDINGS):
        return load_network(Path(model), device, arch, classes, size, channels)
    import torch

    from pellucid.models.checkpoints import untrained

    check_channels(channels)
    lengths = None if size is None else parse_size(size)
    card = untrained(model, classes=class_names(classes or "2"), size=lengths, channels=channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return card.build().eval().to(device), card


def _images(paths: Sequence[Path], card: ModelCard) -> torch.Tensor:
    """The images as the network wants them; without any, two of noise."""
    import torch

    from pellucid.data.images import read_image
    from pellucid.training.predict import as_wanted

    if not paths:
        sides = card.image_size if isinstance(card.image_size, tuple) else (card.image_size,) * 2
        shape = (2, card.channels, *sides)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([as_wanted(read_image(path), card) for path in paths])


def _summary(found: Examination, architecture: str) -> list[str]:
    """The findings in sentences."""
    from pellucid.attribution.doctor import HEADS

    shape = " × ".join(map(str, found.image))
    lines = [f"{architecture} ({found.network}), on images of {shape}"]
    if found.auto is None:
        lines.append(f"layer: auto finds none. {found.reason}")
    else:
        auto = found.auto
        coarse = ", which is coarse: below 7, maps can't tell small structures apart" if found.coarse else ""
        lines.append(f"layer: auto takes {auto.name}, {auto.channels} channels on a grid of {_grid(auto)}{coarse}")
        prefix = f", {auto.prefix} of them without a place on the grid (class or register)" if auto.prefix else ""
        lines.append(f"layout: {auto.layout}{prefix}")
    lines.append(f"head: {HEADS.get(found.head, 'ablation-cam does not run, so that it can not be told')}")
    lines.append(f"in place: {_some(found.in_place)}")
    lines.append(
        f"run more than once: {_some([f'{each.name} ({each.kind}, {each.runs} times)' for each in found.reused])}"
    )
    same = "; ".join(" = ".join(group) for group in found.coinciding)
    lines.append(f"the same map here, up to scale: {same or 'none'}")
    return lines


def _layers(found: Examination) -> list[list[str]]:
    outer = [each for each in found.layers if each.name.count(".") < 2]
    grids = {each.grid for each in outer}
    rest = {each.grid: each for each in found.layers if each.grid not in grids}
    last = {(each.channels, each.grid, each.layout): each for each in outer}
    shown = [each for each in found.layers if each in (*last.values(), *rest.values(), found.auto)]
    return [[each.name, each.kind, str(each.channels), _grid(each), _layout(each)] for each in shown]


def _methods(found: Examination) -> list[list[str]]:
    rows = []
    for each in sorted(found.methods, key=lambda each: not each.works):
        runs = ("yes" if each.works else "no") + ("" if each.tried else ", not tried")
        rows.append([each.name, each.family, runs, ", ".join(each.needs), each.reason])
    return rows


def _grid(layer: FeatureMap) -> str:
    return " × ".join(map(str, layer.grid))


def _layout(layer: FeatureMap) -> str:
    return layer.layout + (f", {layer.prefix} before" if layer.prefix else "")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def _show(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on a terminal; elsewhere its cells with tabs between."""
    if not console.is_terminal:
        typer.echo("\n" + "\n".join([title, *("\t".join(row).rstrip() for row in [columns, *rows])]))
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("method", "runs", "grid"))
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
