"""`pellucid methods`: what can be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

import pellucid

if TYPE_CHECKING:
    import pandas as pd

_WIDTH = 160  # where no terminal sets it


def methods() -> None:
    """List attribution methods, metrics, fills of removed pixels, enhancements of images, and tests between models."""
    from pellucid.metrics import FILLS
    from pellucid.statistics import TESTS

    console = Console() if Console().is_terminal else Console(width=_WIDTH)
    console.print(_drawn("Attribution methods", pellucid.methods(), ["name", "family", "needs", "source"]))
    shown = ["name", "family", "better", "range", "needs", "source"]
    console.print(_drawn("Metrics of explanations", pellucid.metrics(), shown))
    console.print(_drawn("Fills of removed pixels", FILLS.table(), ["name", "options", "needs", "source"]))
    shown = ["name", "family", "options", "needs", "source"]
    console.print(_drawn("Enhancements of images", pellucid.enhancements(), shown))
    console.print(_drawn("Tests between models", TESTS.table(), shown))


def _drawn(title: str, table: pd.DataFrame, columns: list[str]) -> Table:
    drawn = Table(title=title, title_justify="left", show_lines=False)
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column in ("name", "better", "range"))
    for row in table[columns].itertuples(index=False):
        drawn.add_row(*map(str, row))
    return drawn
