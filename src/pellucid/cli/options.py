"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
