"""The critical-difference diagram: methods on a line by their mean rank, a bar over those that aren't told apart."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pellucid.attribution.families import is_control
from pellucid.drawing import LINES, data_uri
from pellucid.report.figures import STYLE, Drawn
from pellucid.report.names import listed, method_title

# all lengths in inches, of which the page shows 100 pixels each
_AXIS = 4.4  # the diagram's axis of ranks, at least
_RANK = 0.26  # from one rank to the next, at least
_GAP = 0.12  # between a line's end and its name
_LINE = 0.19  # height of a line of text
_BAR = 0.11  # from one bar to the next
_NAME = 30  # letters in a line of a name
_INK, _SOFT = "#1c1f23", "#5a626b"


@dataclass(frozen=True)
class _Side:
    """Names on one side of the axis, from the top down, each with the height of its middle below the axis."""

    names: Sequence[str]
    heights: Sequence[float]
    width: float


def rank_diagram(
    mean_ranks: Mapping[str, float],
    groups: Sequence[Sequence[str]],
    difference: float | None,
    what: str,
) -> Drawn:
    """Draw methods by their mean rank, the best on the left.

    Arguments:
        mean_ranks: method -> mean rank, at least two of them; controls are dashed and marked †.
        groups: sets of methods that aren't told apart, joined by a bar each.
        difference: the critical difference, drawn as a ruler; None leaves it out.
        what: of what the ranks are, for readers who can't see the picture.

    Source: Demšar 2006, figure 1.
    """
    order = sorted(mean_ranks, key=mean_ranks.__getitem__)
    bars = _layers(groups, mean_ranks)
    with mpl.rc_context(STYLE):
        figure = Figure()
        FigureCanvasAgg(figure)
        below = 0.24 + _BAR * (1 + max((layer for *_, layer in bars), default=-1))
        half = (len(order) + 1) // 2
        left = _side(figure, order[:half], mean_ranks, below, flipped=False)
        right = _side(figure, order[: half - 1 : -1], mean_ranks, below, flipped=True)
        start, above = left.width + 3 * _GAP, 0.4 if difference is None else 0.85
        axis = max(_AXIS, _RANK * (len(order) - 1))
        width = start + axis + 3 * _GAP + right.width
        height = above + max([*left.heights, *right.heights]) + 2 * _LINE
        figure.set_size_inches(width, height)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, width)
        axes.set_ylim(height - above, -above)
        axes.axis("off")
        step = axis / (len(order) - 1)
        place = {name: start + (rank - 1) * step for name, rank in mean_ranks.items()}
        _scale(axes, len(order), start, step, difference)
        for side, end, align in ((left, start - 2 * _GAP, "right"), (right, start + axis + 2 * _GAP, "left")):
            for name, y in zip(side.names, side.heights, strict=True):
                control = is_control(name)
                colour, dashes = (_SOFT, (0, (4, 2))) if control else (_INK, "-")
                axes.plot([place[name], place[name], end], [0, y, y], linestyle=dashes, color=colour, linewidth=0.9)
                text = _label(name, mean_ranks[name], flipped=align == "left")
                gap = -_GAP / 2 if align == "right" else _GAP / 2
                axes.text(end + gap, y, text, ha=align, va="center", color=colour, linespacing=1.05)
        for low, high, layer in bars:
            y = 0.15 + _BAR * layer
            ends = [start + (low - 1) * step - 0.05, start + (high - 1) * step + 0.05]
            axes.plot(ends, [y, y], color=LINES[0], linewidth=3.6, solid_capstyle="round", zorder=3)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    uri = data_uri(buffer.getvalue().encode(), "image/svg+xml")
    return Drawn(uri, _alt(order, mean_ranks, groups, difference, what), round(100 * width), round(100 * height))


def _scale(axes: Axes, methods: int, start: float, step: float, difference: float | None) -> None:
    """The axis of ranks, and above it the critical difference as a ruler."""
    axes.plot([start, start + (methods - 1) * step], [0, 0], color=_INK, linewidth=1.0)
    for rank in range(1, methods + 1):
        x = start + (rank - 1) * step
        axes.plot([x, x], [-0.06, 0], color=_INK, linewidth=1.0)
        axes.text(x, -0.1, str(rank), ha="center", va="bottom", color=_INK)
    axes.text(start - 2.5 * _GAP, -0.1, "mean rank", ha="right", va="bottom", color=_SOFT)
    if difference is None:
        return
    words = f"critical difference {difference:.2f}"
    if difference > methods - 1:
        axes.text(start, -0.52, f"{words}, more than the ranks can span", ha="left", va="bottom", color=_INK)
        return
    end = start + difference * step
    axes.plot([start, end], [-0.45, -0.45], color=_INK, linewidth=1.4)
    for x in (start, end):
        axes.plot([x, x], [-0.5, -0.4], color=_INK, linewidth=1.0)
    axes.text(start, -0.54, words, ha="left", va="bottom", color=_INK)


def _side(
    figure: Figure, names: Sequence[str], mean_ranks: Mapping[str, float], below: float, *, flipped: bool
) -> _Side:
    heights, width, y = [], 0.0, below
    for name in names:
        label = _label(name, mean_ranks[name], flipped=flipped)
        text = figure.text(0, 0, label)
        width = max(width, text.get_window_extent().width / figure.dpi)
        text.remove()
        room = _LINE * (1 + label.count("\n")) + 0.03
        heights.append(y + room / 2)
        y += room
    return _Side(names, heights, width)


def _label(name: str, rank: float, *, flipped: bool) -> str:
    title = method_title(name).replace("\u00a0", " ") + (" †" if is_control(name) else "")
    words = "\n".join(textwrap.wrap(title.replace(",", ", "), _NAME, break_on_hyphens=False))
    return f"{rank:.2f}  {words}" if flipped else f"{words}  {rank:.2f}"


def _layers(groups: Sequence[Sequence[str]], mean_ranks: Mapping[str, float]) -> list[tuple[float, float, int]]:
    """First and last rank of each group, and a row in which its bar touches no other."""
    free: list[float] = []  # where each row's last bar ends
    bars = []
    ends = [sorted(mean_ranks[name] for name in group) for group in groups]
    reach = 0.25 * (len(mean_ranks) - 1) / max(_AXIS, _RANK * (len(mean_ranks) - 1))
    for low, high in sorted((ranks[0], ranks[-1]) for ranks in ends):
        layer = next((row for row, end in enumerate(free) if end + reach < low), len(free))
        free[layer : layer + 1] = [high]
        bars.append((low, high, layer))
    return bars


def _alt(
    order: Sequence[str],
    mean_ranks: Mapping[str, float],
    groups: Sequence[Sequence[str]],
    difference: float | None,
    what: str,
) -> str:
    ranks = "; ".join(f"{method_title(name)} {mean_ranks[name]:.2f}" for name in order)
    apart = f" Critical difference {difference:.2f}." if difference is not None else ""
    together = "".join(f" Not told apart: {listed([method_title(name) for name in group])}." for group in groups)
    return f"Critical-difference diagram of {what}, mean ranks from the best: {ranks}.{apart}{together}"
