"""Maps as detectors of lesions: the free-response ROC curves of a page, and their table."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import matplotlib as mpl
from matplotlib.figure import Figure

from pellucid.attribution.families import is_control
from pellucid.drawing import LINES, data_uri
from pellucid.metrics.lesions import RATES, Froc
from pellucid.report.figures import STYLE, Drawn
from pellucid.report.names import counted, listed, method_title, number
from pellucid.report.ranked import heading
from pellucid.report.tables import Cell, Table

_CONTROL = "#9a9a9a"
_FEWEST = 1 / 16  # false positives per image at the left end of the axis


@dataclass(frozen=True)
class FrocPart:
    """What the page shows of how many lesions the maps find."""

    finding: str
    diagram: Drawn
    table: Table


def froc_part(curves: Mapping[str, Froc]) -> FrocPart | None:
    """The curves of each method, and their table; None where there is no lesion."""
    if not any(curve.lesions for curve in curves.values()):
        return None
    one = max(curves.values(), key=lambda curve: curve.lesions)
    scores = {label: curve.score for label, curve in curves.items()}
    found = {label: score for label, score in scores.items() if not is_control(label)}
    best = max(found.values(), default=math.nan)
    leading = [method_title(label) for label, score in found.items() if round(score, 3) == round(best, 3)]
    floor = max((score for label, score in scores.items() if is_control(label)), default=math.nan)
    over = f"{counted(one.lesions, 'lesion')} in {counted(one.images, 'image')}"
    verb = "finds" if len(leading) == 1 else "find"
    said = f"Over {over}. {listed(leading)} {verb} most, score {number(best)}"
    said += "." if math.isnan(floor) else f"; the best control reaches {number(floor)}."
    return FrocPart(said, _diagram(curves), _table(curves))


def _table(curves: Mapping[str, Froc]) -> Table:
    rows = [
        [Cell(heading(label)), *(Cell(number(value)) for value in curve.at(RATES).tolist()), Cell(number(curve.score))]
        for label, curve in curves.items()
    ]
    columns = ["Method", *(_rate(rate) for rate in RATES), "Score"]
    note = (
        "The share of lesions that are found at so many false positives per image; the score is the mean of the seven. "
        "† Control."
    )
    return Table("Lesions found, by false positives per image", columns, rows, note=note, kind="small")


def _rate(rate: float) -> str:
    share = Fraction(rate)
    return str(share.numerator) if share.denominator == 1 else f"{share.numerator}/{share.denominator}"


def _diagram(curves: Mapping[str, Froc]) -> Drawn:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        axes = figure.add_subplot()
        ends = [float(curve.false_positives[-1]) for curve in curves.values()]
        right = max([RATES[-1], *ends])
        styles = iter((colour, dash) for dash in ("-", "--", ":", "-.") for colour in LINES)
        for label, curve in curves.items():
            colour, dash = (_CONTROL, ":") if is_control(label) else next(styles, (_CONTROL, "-"))
            x = [max(value, _FEWEST) for value in curve.false_positives.tolist()]
            y = curve.sensitivity.tolist()
            axes.plot([*x, right], [*y, y[-1]], dash, color=colour, linewidth=1.4, label=heading(label))
        axes.set_xscale("log", base=2)
        axes.set_xlim(_FEWEST, right)
        axes.set_xticks(list(RATES), [_rate(rate) for rate in RATES])
        axes.minorticks_off()
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("False positives per image")
        axes.set_ylabel("Lesions found")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    uri = data_uri(buffer.getvalue().encode(), "image/svg+xml")
    alt = "Share of lesions found against false positives per image, a line per method; the table has the values."
    return Drawn(
        uri,
        alt,
        600,
        340,
        "Free-response ROC: as the threshold on the maps falls, more lesions are found, and more peaks lie elsewhere.",
    )
