"""Learning curves as SVG and pictures as data URIs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pellucid.drawing import LINES, Picture, data_uri, encode
from pellucid.report.names import percent
from pellucid.report.read import CellResult

STYLE = mpl.RcParams(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "pellucid",
        "font.family": "sans-serif",
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.edgecolor": "#555555",
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "xtick.color": "#333333",
        "ytick.color": "#333333",
        "legend.frameon": False,
    }
)


@dataclass(frozen=True)
class Drawn:
    """A picture ready for an `img` element."""

    uri: str
    alt: str
    width: int
    height: int
    caption: str = ""


def drawn(picture: Picture, alt: str, caption: str = "", *, exact: bool = False) -> Drawn:
    """A picture as WebP, or as PNG where each colour must be exact."""
    form = "png" if exact else "webp"
    uri = data_uri(encode(picture, "png" if exact else "webp", quality=82), f"image/{form}")
    return Drawn(uri, alt, picture.shape[1], picture.shape[0], caption)


def learning_curves(cells: Sequence[CellResult]) -> list[Drawn]:
    """Loss and validation accuracy of one model over the epochs, a line per fold, the kept epoch marked."""
    cells = [cell for cell in cells if len(cell.history)]
    if not cells:
        return []
    model = cells[0].model
    best = [_kept(cell) for cell in cells]
    loss = _panel(cells, [("train_loss", "training"), ("val_loss", "validation")], "Loss")
    accuracy = _panel(cells, [("val_accuracy", "validation")], "Accuracy", limits=(0.0, 1.02))
    kept = "; ".join(f"epoch {epoch} kept, validation accuracy {percent(value)}" for epoch, value in best)
    caption = f"{model}: {kept}."
    return [
        Drawn(loss, f"Learning curves of {model}: training and validation loss per epoch. {kept}.", 400, 260, caption),
        Drawn(
            accuracy, f"Validation accuracy of {model} per epoch. {kept}.", 400, 260, f"{model}: validation accuracy."
        ),
    ]


def _kept(cell: CellResult) -> tuple[int, float]:
    rows = cell.history[cell.history["best"].astype(bool)]
    row = rows.iloc[-1] if len(rows) else cell.history.iloc[-1]
    return int(row["epoch"]), float(row["val_accuracy"])


def _panel(
    cells: Sequence[CellResult],
    curves: Sequence[tuple[str, str]],
    title: str,
    limits: tuple[float, float] | None = None,
) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.0, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for (column, label), colour, dashes in zip(curves, _colours(curves), ("--", "-"), strict=False):
            style = "-" if len(curves) == 1 else dashes
            for number, cell in enumerate(cells):
                history = cell.history
                name = label if number == 0 else None
                axes.plot(history["epoch"], history[column], style, color=colour, linewidth=1.4, label=name, alpha=0.9)
                if column != "train_loss":
                    kept = history[history["best"].astype(bool)]
                    axes.plot(kept["epoch"], kept[column], "o", color=colour, markersize=5)
        _finish(axes, title, limits)
        if len(curves) > 1:
            axes.legend(loc="upper right", fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri(buffer.getvalue().encode(), "image/svg+xml")


def _colours(curves: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return (LINES[0], LINES[1]) if len(curves) > 1 else (LINES[1],)


def _finish(axes: Axes, title: str, limits: tuple[float, float] | None) -> None:
    axes.set_xlabel("Epoch")
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    if limits is not None:
        axes.set_ylim(*limits)
        axes.set_yticks(np.linspace(0, 1, 6))
