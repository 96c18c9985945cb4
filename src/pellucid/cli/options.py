"""Options that several verbs share."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.errors import expected

if TYPE_CHECKING:
    from pellucid.attribution.families import Method
    from pellucid.registry import Choice

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that can't be read.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.", file_okay=False)]


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
    for each in (part.strip() for value in values for part in _COMMA.split(value)):
        parts = _METHOD.fullmatch(each)
        if parts is None:
            raise expected(
                "methods", "names with commas between, such as 'layer-cam,smooth-grad[samples=50]'", repr(each)
            )
        name, inside = parts.groups()
        entry = METHODS[name]
        options = {}
        for option in filter(None, (inside or "").split(",")):
            key, separator, text = (word.strip() for word in option.partition("="))
            if not separator:
                raise expected("methods", "options as name=value", repr(option))
            options[key] = _value(text)
        choice = METHODS.choose(name, **options)
        for key, value in options.items():
            default = entry.options.get(key)
            if (
                default is not None
                and type(value) is not type(default)
                and (type(default), type(value)) != (float, int)
            ):
                raise expected(f"{name}[{key}]", f"a value like its default, {default!r}", repr(value))
        choices.append(choice)
    return choices


_COMMA = re.compile(r",(?![^\[]*\])")  # outside brackets
_METHOD = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")


def _value(text: str) -> object:
    """A number, True, False or None where the text is one; else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
