"""What every section of a study's TOML file has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


class Section(BaseModel):
    """No key but those that are known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refuse_twice(kind: str, names: Sequence[Any]) -> None:
    """Raise ValueError that tells a name given twice."""
    twice = [name for position, name in enumerate(names) if name in names[:position]]
    if twice:
        word = "name " if isinstance(twice[0], str) else ""
        raise ValueError(f"{kind}: the {word}{twice[0]!r} is given twice; they must differ.")
