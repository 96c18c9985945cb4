"""The page of what a DICOM folder holds: counts, ages, one picture of each kind of series, and what is left out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pellucid.data.dicom.deidentify.burned_in import find_text
from pellucid.data.dicom.inventory import NUMBERS, Inventory
from pellucid.data.images import read_image
from pellucid.data.windows import pick_window
from pellucid.drawing import LINES, data_uri, enlarge
from pellucid.errors import PellucidError
from pellucid.files import write_text, written_whole
from pellucid.report.figures import STYLE, Drawn, drawn
from pellucid.report.names import counted, number
from pellucid.report.page import page
from pellucid.report.tables import Table, texts

PICTURE = "overview.png"
THUMBNAILS = 24
WIDTH = 208

_MOST = 12  # bars of a figure
_KINDS = ("modality", "body_part", "view", "machine")
_BARS = {
    "label": "Label",
    "modality": "Modality",
    "machine": "Machine",
    "site": "Site",
    "sex": "Sex",
    "body_part": "Body part",
    "view": "View",
    "year": "Year",
}
_FIELDS = {
    "label": "Label",
    "patient_id": "Patient",
    "study": "Study",
    "series": "Series",
    "age": "Age, years",
    "sex": "Sex",
    "site": "Site",
    "machine": "Machine",
    "modality": "Modality",
    "body_part": "Body part",
    "view": "View",
    "laterality": "Side",
    "kvp": "Tube voltage, kV",
    "field_strength": "Field strength, T",
    "slice_thickness": "Slice thickness, mm",
    "row_spacing": "Spacing of rows, mm",
    "column_spacing": "Spacing of columns, mm",
    "rows": "Rows",
    "columns": "Columns",
    "slices": "Slices or frames",
    "year": "Year",
}
_IDENTITIES = ("patient_id", "study", "series")  # counted, and never shown
_SEXES = {"M": "male", "F": "female", "O": "other"}


@dataclass(frozen=True)
class Bars:
    """How many rows have each value, the most frequent first."""

    title: str
    counts: Sequence[tuple[str, int]]


def write_inventory(inventory: Inventory, output: Path, title: str) -> Path:
    """Write `index.html` and `overview.png` into a folder; returns the page.

    Neither names a patient, a study or a file: what is left out is counted by its reason.
    """
    bars = bars_of(inventory.table)
    ages = inventory.table["age"].dropna().to_numpy(float)
    with written_whole(output / PICTURE) as aside:
        aside.write_bytes(_picture(bars, ages, "png"))
    table = inventory.table
    patients = table.loc[table["patient_id"] != "", "patient_id"].nunique()
    intro = ", ".join(
        (
            counted(len(table), inventory.kind.removesuffix("s")),
            counted(int(table["series"].nunique()), "series", "series"),
            counted(int(table["study"].nunique()), "study", "studies"),
            counted(patients, "patient"),
        )
    )
    uri = data_uri(_picture(bars, ages, "svg"), "image/svg+xml")
    words = "; ".join(f"{each.title}: {', '.join(f'{name} {count}' for name, count in each.counts)}" for each in bars)
    path = output / "index.html"
    html = page(
        "inventory.html.j2",
        title=title,
        intro=intro,
        notes=inventory.notes,
        figure=Drawn(uri, f"How many rows have which value. {words}.", *_size(bars, ages)),
        fields=fields_table(table),
        thumbnails=thumbnails(inventory),
        skipped=skipped_table(inventory.skipped),
    )
    write_text(path, html)
    return path


def bars_of(table: pd.DataFrame) -> list[Bars]:
    """Counts by each of what tells images apart; columns of which nothing is known are left out."""
    found = []
    for column, title in _BARS.items():
        values = [_shown(column, value) for value in table[column]]
        if not any(values):
            continue
        counts = pd.Series([value or "not stated" for value in values]).value_counts()
        if column == "year":
            counts = counts.sort_index()
        pairs = [(str(name), int(count)) for name, count in counts.items()]
        if len(pairs) > _MOST:
            rest = sum(count for _, count in pairs[_MOST - 1 :])
            pairs = [*pairs[: _MOST - 1], (f"{len(pairs) - _MOST + 1} others", rest)]
        found.append(Bars(title, pairs))
    return found


def fields_table(table: pd.DataFrame) -> Table:
    """Of each column how many rows have it, how many values there are, and which."""
    rows = []
    for column, title in _FIELDS.items():
        known = table[column][_known(table[column])]
        share = f"{len(known)} of {len(table)}"
        if column in _IDENTITIES:
            rows.append(texts(title, share, str(known.nunique()), "–"))
        elif column in NUMBERS:
            values = known.to_numpy(float)
            span = "–" if not len(values) else _span(values, column)
            rows.append(texts(title, share, str(len(np.unique(values))), span))
        else:
            counts = known.value_counts()
            most = ", ".join(f"{_shown(column, name)} ({count})" for name, count in counts.head(4).items())
            rows.append(texts(title, share, str(len(counts)), most or "–"))
    note = "Numbers as least, median and greatest. Patients, studies and series are counted only."
    return Table("What the headers say", ["", "Stated", "Values", "Most frequent, or range"], rows, note, kind="words")


def skipped_table(skipped: Sequence[tuple[str, str]]) -> Table | None:
    """Files that became no row, counted by reason; the manifest's neighbour names them."""
    if not skipped:
        return None
    counts = pd.Series([reason for _, reason in skipped]).value_counts()
    rows = [texts(str(reason), str(count)) for reason, count in counts.items()]
    return Table("Left out", ["Reason", "Files"], rows, "left_out.csv names the files.", kind="words")


def thumbnails(inventory: Inventory) -> list[Drawn]:
    """One picture of each kind of series: the middle slice in the file's window, burned-in text blackened."""
    table = inventory.table
    kinds = table.groupby(list(_KINDS), sort=False, dropna=False)
    found = []
    for kind, rows in sorted(kinds, key=lambda pair: -len(pair[1]))[:THUMBNAILS]:
        for place in rows.index[:3]:  # the next one where the first can't be read
            shown = _thumbnail(inventory.sources[int(place)])
            if shown is not None:
                picture, window, cleaned = shown
                words = [word for word in map(str, kind) if word and word != "nan"]
                slices = rows["slices"].dropna()
                if inventory.kind == "volumes" and len(slices):
                    words.append(_span(slices.to_numpy(float), "slices", short=True) + " slices")
                words += [window, counted(len(rows), inventory.kind.removesuffix("s"))]
                if cleaned:
                    words.append("burned-in text blackened")
                caption = " · ".join(words)
                found.append(drawn(picture, f"Example: {caption}", caption))
                break
    return found


def _thumbnail(files: Sequence[Path]) -> tuple[np.ndarray, str, bool] | None:
    """The picture of the middle file, the window that it is seen through, and whether text was blackened."""
    try:
        image = read_image(files[len(files) // 2])
        pixels = image.pixels if image.pixels.ndim == 3 else image.pixels[:, image.pixels.shape[1] // 2]
        if len(pixels) == 3:
            grey, window = np.moveaxis(_as_bytes(pixels), 0, -1), "colour"
        else:
            own = image.window or pick_window("percentile", pixels, None)
            shown = own.apply(pixels[0])
            grey = ((1 - shown if image.inverted else shown) * 255).round().astype(np.uint8)[..., None]
            window = own.text()
    except (PellucidError, MemoryError):
        return None
    boxes = find_text(np.moveaxis(grey, -1, 0)[None])
    grey = np.broadcast_to(grey, (*grey.shape[:2], 3)).copy()
    for box in boxes:
        grey[box.top : box.bottom, box.left : box.right] = 0
    height, width = grey.shape[:2]
    scale = WIDTH / max(height, width)
    return enlarge(grey, max(1, round(width * scale)), max(1, round(height * scale))), window, bool(boxes)


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    return ((pixels - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)


def _known(values: pd.Series) -> pd.Series:
    return values.notna() & (values.astype(str) != "")


def _shown(column: str, value: object) -> str:
    if column == "year":
        return "" if pd.isna(value) else str(int(float(str(value))))  # type: ignore[call-overload]
    text = str(value)
    return _SEXES.get(text, text) if column == "sex" else text


def _span(values: np.ndarray, column: str, *, short: bool = False) -> str:
    digits = 0 if column in ("rows", "columns", "slices", "year") else 2

    def told(value: float) -> str:
        return str(int(value)) if digits == 0 or value == int(value) else number(value, digits)

    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    if low == high:
        return told(low)
    return f"{told(low)}–{told(high)}" if short else f"{told(low)} – {told(middle)} – {told(high)}"


def _size(bars: Sequence[Bars], ages: np.ndarray) -> tuple[int, int]:
    """Width and height of the figure in pixels at 100 dots per inch."""
    count = len(bars) + bool(len(ages))
    return 1080, 100 + 290 * -(-count // 3)


def _picture(bars: Sequence[Bars], ages: np.ndarray, form: str) -> bytes:
    width, height = _size(bars, ages)
    count = len(bars) + bool(len(ages))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width / 100, height / 100), layout="constrained")
        axes = figure.subplots(-(-count // 3), 3, squeeze=False).ravel()
        for axis, each in zip(axes, bars, strict=False):
            _draw_bars(axis, each)
        if len(ages):
            _draw_ages(axes[len(bars)], ages)
        for axis in axes[count:]:
            axis.set_visible(False)
        buffer = io.BytesIO()
        meta = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, dpi=150, metadata=meta)
    return buffer.getvalue()


def _draw_bars(axis: Axes, bars: Bars) -> None:
    names = [name if len(name) <= 26 else name[:25] + "…" for name, _ in bars.counts]
    counts = [count for _, count in bars.counts]
    places = np.arange(len(names))
    colours = ["#9aa3ab" if name == "not stated" or name.endswith(" others") else LINES[0] for name in names]
    axis.barh(places, counts, color=colours, height=0.62)
    axis.set_yticks(places, names)
    axis.set_ylim(max(len(names), 3) - 0.4, -0.6)
    axis.set_xlim(0, max(counts) * 1.18)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.grid(axis="y", visible=False)
    axis.set_axisbelow(True)
    axis.set_title(bars.title, loc="left", fontsize=10, fontweight="bold")
    for place, count in zip(places, counts, strict=True):
        axis.text(count + max(counts) * 0.02, float(place), str(count), va="center", fontsize=8)


def _draw_ages(axis: Axes, ages: np.ndarray) -> None:
    top = max(10.0, float(np.ceil((ages.max() + 0.01) / 10)) * 10)
    axis.hist(ages, bins=np.arange(0, top + 5, 5).tolist(), color=LINES[0], edgecolor="white", linewidth=0.6)
    axis.set_title("Age, years", loc="left", fontsize=10, fontweight="bold")
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.grid(axis="x", visible=False)
    axis.set_axisbelow(True)
