"""`pellucid methods`: what can be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

import pellucid

if TYPE_CHECKING:
    import pandas as pd


def methods() -> None:
    """List the attribution methods and the metrics, with their families, needs and sources."""
    console = Console()
    console.print(_drawn("Attribution methods", pellucid.methods(), ["name", "family", "needs", "source"]))
    console.print(
        _drawn("Metrics of explanations", pellucid.metrics(), ["name", "family", "better", "needs", "source"])
    )


def _drawn(title: str, table: pd.DataFrame, columns: list[str]) -> Table:
    drawn = Table(title=title, title_justify="left", show_lines=False)
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in table[columns].itertuples(index=False):
        drawn.add_row(*map(str, row))
    return drawn
