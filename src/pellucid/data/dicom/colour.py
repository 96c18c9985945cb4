"""Colour spaces and palettes to RGB (PS3.3, C.7.6.3.1.2, C.7.6.3.1.5, C.7.9)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from pellucid.data.dicom.elements import entries_of, named, numbers, value
from pellucid.data.whole import DecodeError

_FULL = np.array([[1, 0, 1.402], [1, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587], [1, 1.772, 0]])
_PALETTES = ("Red", "Green", "Blue")


def to_rgb(planes: np.ndarray, photometric: str, bits: int) -> np.ndarray:
    """Planes (F, 3, H, W) of a colour space as RGB in the same type."""
    if photometric in ("RGB", "YBR_RCT", "YBR_ICT"):
        return planes
    half = 2.0 ** (bits - 1)
    kind: type[np.floating] = np.float64 if bits > 16 else np.float32
    luma, blue, red = (planes[:, channel].astype(kind) - shift for channel, shift in enumerate((0, half, half)))
    if photometric.startswith("YBR_PARTIAL"):  # 16 to 235, and 16 to 240, of 255
        luma, blue, red = (luma - half / 8) * (255 / 219), blue * (255 / 224), red * (255 / 224)
    out = np.empty(planes.shape, planes.dtype)
    for channel, (_, of_blue, of_red) in enumerate(_FULL):
        mixed = luma + of_blue * blue + of_red * red
        out[:, channel] = np.clip(np.rint(mixed), 0, 2.0**bits - 1)
    return out


def palette_of(dataset: Dataset, *, signed: bool, little: bool) -> tuple[np.ndarray, int]:
    """The palette (3, N) as 8 or 16 bits, and the stored value that its first colours belong to.

    Raises DecodeError where it is missing or damaged.
    """
    tables, firsts = [], []
    deep = False
    for colour in _PALETTES:
        keyword = f"{colour}PaletteColorLookupTable"
        descriptor = numbers(dataset, f"{keyword}Descriptor", 3)
        if descriptor is None:
            raise DecodeError(f"{named(f'{keyword}Descriptor')} is missing")
        count, first, bits = (int(each) for each in descriptor)
        count = count & 0xFFFF or 2**16
        first = first - 2**16 if signed and first >= 2**15 else first
        first = first + 2**16 if not signed and first < 0 else first
        data, segments = value(dataset, f"{keyword}Data"), value(dataset, f"Segmented{keyword}Data")
        entries: np.ndarray
        if segments is not None:
            width = 2 if bits > 8 else 1
            entries = _expanded(entries_of(segments, 8 * width, little, f"Segmented{keyword}Data"), count, width)
        elif data is not None:
            # 8 bits are packed two to a word, or (against the standard) spread to 16
            raw = len(data) if isinstance(data, bytes) else 2 * len(np.atleast_1d(data))
            wide = bits > 8 or raw >= 2 * count
            entries = entries_of(data, 16 if wide else 8, little, f"{keyword}Data")
            deep = deep or (wide and (bits > 8 or entries[:count].max(initial=0) > 255))
        else:
            raise DecodeError(f"{named(f'{keyword}Data')} is missing")
        deep = deep or bits > 8
        if len(entries) < count:
            raise DecodeError(f"{named(f'{keyword}Data')} holds {len(entries)} entries, of {count}")
        tables.append(entries[:count])
        firsts.append(first)
    if len({len(table) for table in tables}) > 1 or len(set(firsts)) > 1:
        raise DecodeError("the palettes of red, green and blue differ in length or first value")
    palette = np.stack(tables)
    if deep and (not (palette & 0xFF).any() or (palette % 257 == 0).all()):  # 8 bits, written as 16
        return (palette >> 8).astype(np.uint8), firsts[0]
    return palette.astype(np.uint16 if deep else np.uint8), firsts[0]


def coloured(stored: np.ndarray, palette: np.ndarray, first: int) -> np.ndarray:
    """Stored values (F, 1, H, W) as RGB (F, 3, H, W); what lies outside of the palette takes its ends."""
    places = np.clip(stored[:, 0].astype(np.int64) - first, 0, palette.shape[1] - 1)
    return np.moveaxis(palette[:, places], 0, 1)


def _expanded(segments: np.ndarray, count: int, width: int) -> np.ndarray:
    """A palette written in segments of three kinds, at most `count` entries (PS3.3, C.7.9.2).

    `width` is that of an entry in bytes, in which the place of a repeated segment is counted.
    """
    words: list[int] = segments.tolist()
    out: list[int] = []
    place = 0
    while place + 2 < len(words) and len(out) < count:
        kind, length = words[place : place + 2]
        if kind != 2:
            place = _expand(words, place, out)
            continue
        parts = 4 // width  # of 32 bits, the lowest first
        offset = sum(part << (8 * width * order) for order, part in enumerate(words[place + 2 : place + 2 + parts]))
        place, source = place + 2 + parts, offset // width
        for _ in range(min(length, count)):
            if len(out) < count:
                source = _expand(words, source, out)
    return np.array(out[:count], np.int64)


def _expand(words: list[int], place: int, out: list[int]) -> int:
    """Append a plain or a linear segment to `out`, and say where the next begins."""
    if place + 2 >= len(words) or words[place] > 1 or (words[place] == 1 and not (out and words[place + 1])):
        raise DecodeError("its palette is damaged (a segment of no known kind)")
    kind, length = words[place : place + 2]
    if kind == 0:
        out.extend(words[place + 2 : place + 2 + length])
        return place + 2 + length
    begin, end = out[-1], words[place + 2]
    out.extend(round(begin + (end - begin) * step / length) for step in range(1, length + 1))
    return place + 3
