"""From stored values to those that mean something: the modality LUT, rescaling, and units (PS3.3, C.11.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from pellucid.data.dicom.elements import entries_of, item, items, named, number, numbers, text, value, words
from pellucid.data.dicom.frames import functional, functional_items
from pellucid.data.dicom.suv import suv_factor
from pellucid.data.whole import DecodeError

_EXACT = 2**24  # whole numbers up to here are exact in float32
_UNSPECIFIED = ("US", "UNSPECIFIED", "NORMALIZED")


@dataclass(frozen=True, eq=False)
class Transformation:
    """Stored values times `slope` plus `intercept`, or looked up in a `table` whose first entry belongs to `first`.

    `units` are those of the result. The windows of a file are in the units of its modality LUT; `beyond` are the slope
    and the intercept that take those to the result.
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: np.ndarray | None = None
    first: int = 0
    units: str | None = None
    beyond: tuple[float, float] = (1.0, 0.0)
    notes: tuple[str, ...] = ()

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Values in the stored type where nothing changes them, as int16 or in a real type.

        int16 where slope and intercept are whole numbers and all results lie within; else float32, or float64 where
        stored values have more than 16 bits or float32 would not hold whole numbers exactly. A table has 8 or 16 bits.
        """
        if self.table is not None:
            places = np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)
            return np.asarray(self.table[places])
        if (self.slope, self.intercept) == (1, 0):
            return stored
        if stored.dtype.kind in "iu" and self.slope.is_integer() and self.intercept.is_integer() and stored.size:
            ends = sorted(int(end) * int(self.slope) + int(self.intercept) for end in (stored.min(), stored.max()))
            if ends[0] >= -(2**15) and ends[1] < 2**15:
                return _whole(stored, int(self.slope), int(self.intercept))
            wide = max(-ends[0], ends[1]) > _EXACT
        else:
            wide = stored.dtype.itemsize > (4 if stored.dtype.kind == "f" else 2)
        scaled: np.ndarray = np.multiply(stored, self.slope, dtype=np.float64)
        scaled += self.intercept
        return scaled if wide else scaled.astype(np.float32)

    def limits(self, stored: tuple[int, int]) -> tuple[float, float]:
        """The least and the largest result of stored values within limits."""
        if self.table is not None:
            return float(self.table.min()), float(self.table.max())
        ends = sorted(end * self.slope + self.intercept for end in stored)
        return ends[0], ends[1]


def _whole(stored: np.ndarray, slope: int, intercept: int) -> np.ndarray:
    """In 16 bits from end to end: sums and products that overflow on the way come out right, modulo 2^16."""
    wrapped = (slope + 2**15) % 2**16 - 2**15, (intercept + 2**15) % 2**16 - 2**15
    values = stored.astype(np.int16)
    if wrapped[0] != 1:
        values *= np.int16(wrapped[0])
    values += np.int16(wrapped[1])
    return values


def transformation_of(header: Dataset, frame: int = 0, *, signed: bool = False, little: bool = True) -> Transformation:
    """What turns a frame's stored values into values, and the units of those.

    A modality LUT goes before slope and intercept; in enhanced objects both are the frame's own. Where there is
    neither, a real-world value mapping that is linear and the only one is applied, and DoseGridScaling in a dose. PET
    in Bq/ml becomes the standardised uptake value where the file says what that takes.

    Raises DecodeError where one of these is there but damaged.
    """
    modality = text(header, "Modality")
    tables = items(header, "ModalityLUTSequence")
    if len(tables):
        table, first = lut_of(tables[0], signed=signed, little=little)
        return Transformation(table=table, first=first, units=_named_units(text(tables[0], "ModalityLUTType")))
    group = functional(header, frame, "PixelValueTransformationSequence")
    source = header if group is None else group
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    units = _named_units(text(source, "RescaleType"))
    rescaled = slope is not None or intercept is not None
    if slope == 0:
        raise DecodeError(f"{named('RescaleSlope')} is 0")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if modality == "RTDOSE":
        scaling = number(header, "DoseGridScaling", 1.0)
        scaling = scaling or 1.0
        return Transformation(scaling, units=text(header, "DoseUnits") or None, beyond=(scaling, 0.0))
    if (
        modality == "CT"
        and rescaled
        and not text(source, "RescaleType")
        and "LOCALIZER" not in words(header, "ImageType")
    ):
        units = "HU"
    if modality == "PT":
        return _uptake(header, slope, intercept, units)
    mapped = _mapping(header, frame, slope, intercept)
    if mapped is not None:
        return mapped
    return Transformation(slope, intercept, units=units)


def _named_units(kind: str) -> str | None:
    """The units that a RescaleType or ModalityLUTType names (PS3.3, C.11.1.1.2)."""
    return None if not kind or kind.upper() in _UNSPECIFIED else kind


def _uptake(header: Dataset, slope: float, intercept: float, units: str | None) -> Transformation:
    stated = text(header, "Units") or units
    if stated == "GML":
        kind = text(header, "SUVType") or "BW"
        return Transformation(slope, intercept, units=f"SUV{kind.lower()}")
    if stated != "BQML":
        return Transformation(slope, intercept, units=stated)
    factor, why = suv_factor(header)
    if factor is None:
        note = f"activity stays in Bq/ml, since the uptake value can't be told: {why}"
        return Transformation(slope, intercept, units="BQML", notes=(note,))
    return Transformation(slope * factor, intercept * factor, units="SUVbw", beyond=(factor, 0.0))


def _mapping(header: Dataset, frame: int, slope: float, intercept: float) -> Transformation | None:
    """The real-world value mapping, where it is the only one, linear, and no other value transformation gainsays it.

    Source: PS3.3, C.7.6.16.2.11.
    """
    entries = functional_items(header, frame, "RealWorldValueMappingSequence")
    entries = entries or items(header, "RealWorldValueMappingSequence")
    if len(entries) != 1:
        return None
    entry = entries[0]
    own = number(entry, "RealWorldValueSlope"), number(entry, "RealWorldValueIntercept")
    code = item(entry, "MeasurementUnitsCodeSequence")
    if own[0] is None or own[1] is None or own[0] == 0 or code is None:
        return None
    if (slope, intercept) not in ((1.0, 0.0), own):
        return None
    units = text(code, "CodeValue")
    beyond = (1.0, 0.0) if (slope, intercept) == own else (own[0], own[1])
    return Transformation(
        own[0], own[1], units={"[hnsf'U]": "HU", "1": None, "": None}.get(units, units), beyond=beyond
    )  # fmt: skip


def lut_of(entry: Dataset, *, signed: bool, little: bool) -> tuple[np.ndarray, int]:
    """A table of 8 or 16 bits, and the value that its first entry belongs to (PS3.3, C.11.1.1.1)."""
    descriptor = numbers(entry, "LUTDescriptor", 3)
    data = value(entry, "LUTData")
    if descriptor is None or data is None:
        raise DecodeError(f"{named('LUTDescriptor' if descriptor is None else 'LUTData')} is missing")
    count, first, bits = (int(each) for each in descriptor)
    count = count & 0xFFFF or 2**16
    if signed and first >= 2**15:
        first -= 2**16
    if not 1 <= bits <= 16:
        raise DecodeError(f"{named('LUTDescriptor')} says {bits} bits")
    packed = isinstance(data, bytes) and bits <= 8 and len(data) < 2 * count
    table = entries_of(data, 8 if packed else 16, little, "LUTData")
    if len(table) < count:
        raise DecodeError(f"{named('LUTData')} holds {len(table)} entries, of {count}")
    return table[:count].astype(np.uint8 if bits <= 8 else np.uint16), first
