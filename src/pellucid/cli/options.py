"""Options that several verbs share."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.errors import expected, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pellucid.attribution.families import Method
    from pellucid.metrics.families import Metric
    from pellucid.models.checkpoints import ModelCard
    from pellucid.registry import Choice

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps; to train on several, cuda:0,1.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that can't be read.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.", file_okay=False)]

Weights = Annotated[Path, typer.Option(help="Weights: those that pellucid wrote, or a plain state dict with --arch.")]
Layers = Annotated[list[str] | None, typer.Option(help="A dotted name instead of auto. Repeatable.")]
BatchSize = Annotated[int, typer.Option(help="Images that run at once at most.", min=1)]
MaxMemory = Annotated[
    str | None, typer.Option(help="What may be in flight at once, such as 2GiB; fewer images then run at once.")
]
PrecisionName = Annotated[str, typer.Option(help="float32, or bfloat16 for less time.")]
Compile = Annotated[bool, typer.Option("--compile", help="Have the network in a form that runs faster.")]

Arch = Annotated[
    str | None, typer.Option(help="The timm name that a plain state dict belongs to, or one such as resnet18-3d.")
]
Classes = Annotated[str | None, typer.Option(help="With --arch: how many, or their names with commas.")]
Size = Annotated[
    str | None, typer.Option(help="With --arch: height and width in pixels; of volumes 96 or 64,96,96 voxels.")
]
Orientation = Annotated[
    str | None, typer.Option(help="Which way a volume's axes are laid, such as RAS; as stored unless given.")
]
Spacing = Annotated[
    str | None,
    typer.Option(help="mm between a volume's voxels, such as 1,1,2 or 2; the whole volume in the grid unless given."),
]
Intensity = Annotated[
    str | None,
    typer.Option(help="With --arch: what makes values grey: dtype, image, or a window such as lung."),
]
Channels = Annotated[int | None, typer.Option(help="With --arch: 1 (grey) or 3 (colour).")]


def parse_data(values: list[str]) -> dict[str, str]:
    """`--data NAME=PATH`, or `--data PATH` for a study with one data set, which gets the name "".

    >>> parse_data(["skin=/data/skin"]), parse_data(["/data/skin"])
    ({'skin': '/data/skin'}, {'': '/data/skin'})
    """
    named = {}
    for value in values:
        name, separator, path = value.partition("=")
        if separator and "/" not in name and "\\" not in name:
            named[name] = path
        else:
            named[""] = value
    return named


def parse_size(value: str) -> int | tuple[int, int, int]:
    """`--size` as one length, or as three with commas between.

    Raises InputError for anything else.

    >>> parse_size("224"), parse_size("64,96,96")
    (224, (64, 96, 96))
    """
    parts = [part.strip() for part in value.split(",")]
    if len(parts) in (1, 3) and all(part.isdecimal() and int(part) for part in parts):
        lengths = [int(part) for part in parts]
        return lengths[0] if len(lengths) == 1 else (lengths[0], lengths[1], lengths[2])
    raise expected("size", "a length above 0, or three with commas between", repr(value))


def parse_spacing(value: str) -> tuple[float, float, float]:
    """Millimetres along three axes, or one step for all of them.

    Raises InputError for anything else.

    >>> parse_spacing("2"), parse_spacing("0.5, 0.5, 3")
    ((2.0, 2.0, 2.0), (0.5, 0.5, 3.0))
    """
    try:
        steps = [float(part) for part in value.split(",")]
    except ValueError:
        steps = []
    if len(steps) not in (1, 3) or not all(0 < step < float("inf") for step in steps):
        raise expected("spacing", "mm above 0, or three of them with commas between", repr(value))
    return (steps[0],) * 3 if len(steps) == 1 else (steps[0], steps[1], steps[2])


def parse_bytes(value: str) -> int:
    """A size of memory as bytes.

    Raises InputError for anything else.

    >>> parse_bytes("2GiB"), parse_bytes("1.5 MB"), parse_bytes("4096")
    (2147483648, 1500000, 4096)
    """
    parts = re.fullmatch(r"([0-9.]+) *([kmgt]?)(i?)b?", value.strip().lower())
    try:
        number = float(parts[1]) if parts else 0.0
    except ValueError:
        number = 0.0
    if parts is None or number <= 0:
        raise expected("max-memory", "a size such as 2GiB or 500MB", repr(value))
    return int(number * (1024 if parts[3] else 1000) ** " kmgt".index(parts[2] or " "))


def parse_methods(values: list[str]) -> list[Choice[Method]]:
    """`--methods` as choices: names with commas between, options in brackets as labels write them.

    Raises InputError for a name or option that isn't known, or an option of another type than its default.

    >>> [choice.label for choice in parse_methods(["layer-cam,smooth-grad[samples=50]", "sobel"])]
    ['layer-cam', 'smooth-grad[samples=50]', 'sobel']
    """
    if not values:
        return []
    from pellucid.attribution import METHODS

    choices = []
    for each in split_names(values):
        parts = _METHOD.fullmatch(each)
        if parts is None:
            raise expected(
                "methods", "names with commas between, such as 'layer-cam,smooth-grad[samples=50]'", repr(each)
            )
        name, inside = parts.groups()
        options = {}
        for option in filter(None, (inside or "").split(",")):
            key, separator, text = (word.strip() for word in option.partition("="))
            if not separator:
                raise expected("methods", "options as name=value", repr(option))
            options[key] = _value(text)
        choice = METHODS.choose(name, **options)
        _check_options(choice)
        choices.append(choice)
    return choices


def split_names(values: list[str]) -> list[str]:
    """Names with commas between, those in brackets left alone.

    >>> split_names(["a, b[c=1,d=e[f=2,g=3]]", "h"])
    ['a', 'b[c=1,d=e[f=2,g=3]]', 'h']
    """
    names = []
    for value in values:
        depth, name = 0, ""
        for letter in value:
            depth += (letter == "[") - (letter == "]")
            if letter == "," and depth == 0:
                names.append(name.strip())
                name = ""
            else:
                name += letter
        names.append(name.strip())
    return names


def parse_metrics(values: list[str]) -> tuple[list[Choice[Metric]], frozenset[str]]:
    """`--metrics` as choices, and the labels of those that were named by their family, by "all" or not at all.

    A name may be that of a metric, with options in brackets as labels write them, or of a family. Raises InputError for
    a name or option that isn't known, or an option of another type than its default.

    >>> chosen, optional = parse_metrics(["road[noise=0.0],localisation"])
    >>> chosen[0].label, chosen[1].entry.family, "pointing-game" in optional
    ('road[noise=0.0]', 'localisation', True)
    """
    from pellucid.metrics import METRICS
    from pellucid.metrics.evaluate import DEFAULT_METRICS

    families = {entry.family for entry in METRICS}
    choices: dict[str, Choice[Metric]] = {}
    optional: set[str] = set()
    for each in split_names(values) or list(DEFAULT_METRICS):
        if each in METRICS or "[" in each:
            if each.count("[") != each.count("]") or ("[" in each and not each.endswith("]")):
                raise expected(
                    "metrics", "names with commas between, such as 'road[noise=0.0],localisation'", repr(each)
                )
            choice = METRICS.from_label(each)
            _check_options(choice)
            choices[choice.label] = choice
            optional -= {choice.label}
            if not values:
                optional.add(choice.label)
        elif each == "all" or each in families:
            named = METRICS.names(None if each == "all" else each)
            optional |= {name for name in named if name not in choices}
            choices |= {name: METRICS.choose(name) for name in named}
        else:
            raise unknown_name("metric", each, [*METRICS.names(), *families, "all"])
    return list(choices.values()), frozenset(optional)


def _check_options(choice: Choice[Any]) -> None:
    """Refuse options of another type than their defaults; a choice is given by its label."""
    from pellucid.registry import Choice

    for key, value in choice.options.items():
        default = choice.entry.options.get(key)
        default = default.label if isinstance(default, Choice) else default
        if default is not None and type(value) is not type(default) and (type(default), type(value)) != (float, int):
            raise expected(f"{choice.entry.name}[{key}]", f"a value like its default, {default!r}", repr(value))


_METHOD = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")


def _value(text: str) -> object:
    """A number, True, False or None where the text is one; else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def load_network(
    weights: Path, device: torch.device, arch: str | None, classes: str | None, size: str | None, channels: int | None
) -> tuple[nn.Module, ModelCard]:
    """The network of weights that pellucid wrote, or of a plain state dict with what `--arch` and its like say of it.

    Raises InputError for options that lack or don't go together, and as `load_weights` does.
    """
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
    names = class_names(classes)
    check_channels(channels)
    lengths = None if size is None else parse_size(size)
    return load_plain_weights(weights, arch, classes=names, size=lengths, channels=channels, device=device)


def laid_out(
    loaded: tuple[nn.Module, ModelCard],
    arch: str | None,
    intensity: str | None,
    orientation: str | None,
    spacing: str | None,
) -> tuple[nn.Module, ModelCard]:
    """A network whose card is told how values become grey and how volumes are laid; one that has a card knows it.

    Raises InputError where a card that pellucid wrote is to be overruled.
    """
    from pellucid.data.resample import Frame

    given = {"--intensity": intensity, "--orientation": orientation, "--spacing": spacing}
    extra = [name for name, value in given.items() if value is not None]
    if not extra:
        return loaded
    if arch is None:
        raise expected("arch", f"an architecture, since {', '.join(extra)} go with it", "none")
    network, card = loaded
    if card.axes == 2 and (orientation or spacing):
        raise expected("orientation, spacing", "none for a network of pictures", "some")
    frame = Frame(orientation, None if spacing is None else parse_spacing(spacing))
    card = dataclasses.replace(card, orientation=frame.orientation, spacing=frame.spacing)
    return network, card if intensity is None else dataclasses.replace(card, intensity=intensity)


def class_names(classes: str) -> list[str]:
    """`--classes` as names: those with commas between, or 0 to n - 1 where it is a number.

    >>> class_names("benign, malignant"), class_names("3")
    (['benign', 'malignant'], ['0', '1', '2'])
    """
    listed = [str(index) for index in range(int(classes))] if classes.isdecimal() else classes.split(",")
    names = [name.strip() for name in listed]
    if not names or not all(names) or len(set(names)) < len(names):
        raise expected("classes", "names with commas between, each once", repr(classes))
    return names


def check_channels(channels: int | None) -> None:
    """Refuse channels that image files don't have."""
    if channels not in (None, 1, 3):
        raise expected("channels", "1 or 3", channels)
