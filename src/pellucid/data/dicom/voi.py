"""The windows that a file states, and the one by which it is shown where it states none (PS3.3, C.11.2)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from pellucid.data.dicom.elements import items, numbers, text
from pellucid.data.dicom.frames import functional
from pellucid.data.dicom.values import Transformation, lut_of
from pellucid.data.whole import DecodeError
from pellucid.data.windows import Window, pick_window

OWN = "file's"
STORED = "whole range"
_MEASURED = ("CT", "MR", "PT", "NM", "RTDOSE")  # whose values seldom fill the range of their bits
_FUNCTIONS: dict[str, Literal["linear", "linear-exact", "sigmoid"]] = {
    "": "linear",
    "LINEAR": "linear",
    "LINEAR_EXACT": "linear-exact",
    "SIGMOID": "sigmoid",
}


def stated_windows(
    header: Dataset, frame: int, transformation: Transformation, *, signed: bool, little: bool
) -> tuple[tuple[Window, ...], tuple[str, ...]]:
    """The windows of a frame, tables first, and notes on those that can't be used."""
    group = functional(header, frame, "FrameVOILUTSequence")
    source = header if group is None else group
    found: list[Window] = []
    notes: list[str] = []
    try:
        for entry in items(source, "VOILUTSequence"):
            table, first = lut_of(entry, signed=signed or transformation.intercept < 0, little=little)
            bits = int((numbers(entry, "LUTDescriptor", 3) or (0, 0, 16))[2])
            if transformation.beyond != (1.0, 0.0):
                raise DecodeError("it belongs to values in other units")
            found.append(_table_window(table, first, bits))
    except DecodeError as error:
        notes.append(f"a VOI LUT is left out: {error}")
    try:
        centres, widths = numbers(source, "WindowCenter") or (), numbers(source, "WindowWidth") or ()
        function = _FUNCTIONS.get(text(source, "VOILUTFunction").upper())
        if function is None:
            raise DecodeError("(0028,1056) VOILUTFunction is none of LINEAR, LINEAR_EXACT, SIGMOID")
        least = 1.0 if function == "linear" else np.finfo(float).tiny
        pairs = [pair for pair in zip(centres, widths, strict=False) if pair[1] >= least]
        if len(pairs) < max(len(centres), len(widths)):
            notes.append("a window is left out: (0028,1051) WindowWidth can't be used")
        scale, shift = transformation.beyond
        if scale < 0:
            raise DecodeError("it belongs to values that run the other way")
        if (scale, shift) != (1.0, 0.0) and function == "linear":  # without half steps of whole numbers
            pairs = [(centre - 0.5, width - 1) for centre, width in pairs if width > 1]
            function = "linear-exact"
        found += [Window(centre * scale + shift, width * scale, OWN, function) for centre, width in pairs]
    except DecodeError as error:
        notes.append(f"a window is left out: {error}")
    return tuple(found), tuple(notes)


def _table_window(table: np.ndarray, first: int, bits: int) -> Window:
    grey = (table / np.float32(2**bits - 1)).clip(0, 1).astype(np.float32)
    return Window(first + (len(table) - 1) / 2, float(len(table)), OWN, "linear", grey, float(first))


def default_window(
    modality: str | None, values: np.ndarray, limits: tuple[float, float], padding: np.ndarray | None
) -> Window:
    """How values are shown where the file doesn't say: by percentiles where they are measurements, else by their range.

    That is given by `limits`: what stored bits can take, or real numbers do take. Padded places don't count.
    """
    if modality in _MEASURED:
        inside = values if padding is None else values[~padding]
        return pick_window("percentile", inside if inside.size else values, None)
    low, high = limits
    return Window((low + high) / 2, max(high - low, 1e-12), STORED, "linear-exact")
