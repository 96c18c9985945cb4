"""From the value of an encapsulated pixel element to the bytes of each frame (PS3.5, A.4)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

from pellucid.data.dicom.elements import value
from pellucid.data.dicom.headers import DicomFile
from pellucid.data.whole import DecodeError

_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_JPEG_END = b"\xff\xd9"

Span = tuple[int, int]  # start and end of a fragment in the element


def frames_of(file: DicomFile, count: int) -> list[list[Span]]:
    """The fragments of each of `count` frames; what comes after them is left out.

    Fragments go to frames by the extended table of offsets, by the basic one, one by one where there are as many as
    frames, all to the only frame, and else by the marker that ends a JPEG. Raises DecodeError where none of it works.
    """
    spans, begin, table, whole = _spans(file.pixels)
    if not spans:
        raise DecodeError("its pixel data is empty" if whole else "the file is truncated within its pixels")
    groups = _by_extended(file, begin, count) or _by_table(spans, begin, table, count) or _by_count(file, spans, count)
    if not whole and (len(groups) < count or groups[count - 1][-1][1] >= len(file.pixels)):
        raise DecodeError("the file is truncated within its pixels")
    if len(groups) < count:
        raise DecodeError(f"(0028,0008) NumberOfFrames is {count}, but its pixel data holds {len(groups)}")
    return groups[:count]


def _spans(pixels: memoryview) -> tuple[list[Span], int, list[int], bool]:
    """Fragments after the table, where the first begins (its header), the table, and whether the end is there."""
    spans: list[Span] = []
    table: list[int] = []
    place, begin, first = 0, 0, True
    while place + 8 <= len(pixels):
        group, element, length = struct.unpack_from("<HHL", pixels, place)
        tag = group << 16 | element
        if tag == _END:
            return spans, begin, table, True
        if tag != _ITEM:
            raise DecodeError(f"its pixel data is damaged (byte {place} of it)")
        start, place = place + 8, place + 8 + length
        if place > len(pixels):
            if not first:
                spans.append((start, len(pixels)))
            return spans, begin, table, False
        if first:
            table, begin, first = list(struct.unpack_from(f"<{length // 4}L", pixels, start)), place, False
        else:
            spans.append((start, place))
    return spans, begin, table, place == len(pixels) and bool(spans)  # some writers leave out the end


def _by_extended(file: DicomFile, begin: int, count: int) -> list[list[Span]]:
    """One fragment to a frame, where the extended table of offsets says (PS3.3, C.7.6.3.1.8)."""
    offsets, lengths = (value(file.header, f"ExtendedOffsetTable{end}") for end in ("", "Lengths"))
    if not isinstance(offsets, bytes) or not isinstance(lengths, bytes) or min(len(offsets), len(lengths)) < 8 * count:
        return []
    starts = [begin + 8 + each for each in struct.unpack_from(f"<{count}Q", offsets)]
    spans = [
        (start, start + length) for start, length in zip(starts, struct.unpack_from(f"<{count}Q", lengths), strict=True)
    ]
    return [[span] for span in spans] if all(end <= len(file.pixels) for _, end in spans) else []


def _by_table(spans: Sequence[Span], begin: int, table: Sequence[int], count: int) -> list[list[Span]]:
    """Each frame's fragments by the basic table of offsets, where it fits them."""
    heads = {start - 8 - begin: place for place, (start, _) in enumerate(spans)}
    if len(table) < count or any(offset not in heads for offset in table) or table[0] != 0:
        return []
    places = [*(heads[offset] for offset in table), len(spans)]
    groups = [list(spans[start:end]) for start, end in itertools.pairwise(places)]
    return groups if all(groups) else []


def _by_count(file: DicomFile, spans: Sequence[Span], count: int) -> list[list[Span]]:
    if count == 1:
        return [list(spans)]
    if len(spans) <= count:
        return [[span] for span in spans]
    groups: list[list[Span]] = [[]]
    for start, end in spans:
        groups[-1].append((start, end))
        if _JPEG_END in bytes(file.pixels[max(start, end - 10) : end]):
            groups.append([])
    return [group for group in groups if group]


def joined(pixels: memoryview, group: Sequence[Span]) -> bytes:
    """The encoded bytes of a frame."""
    return b"".join(pixels[start:end] for start, end in group)
