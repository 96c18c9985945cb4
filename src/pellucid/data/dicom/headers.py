"""A DICOM file's header, and where its pixels lie: pydicom parses, this module bounds and checks what it is given.

Nothing of a header's values enters an error but numbers, UIDs of the standard and code words: any other may be a name.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from pellucid.data.dicom.elements import text
from pellucid.data.whole import DecodeError

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
NOT_DICOM = "not a DICOM file, or its header is damaged"
MAX_INFLATED = 2**28  # bytes of a deflated data set
_EMPTY = 3 * 2**25  # bytes up to which one may hold nothing but zeros

IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99"))
GE_PRIVATE = "1.2.840.113619.5.2"  # implicit VR little endian, but pixels big endian

_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_UNDEFINED = 0xFFFFFFFF
_READS = 200_000
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = (
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"),
    *(b"ST", b"TM", b"UI", b"UL", b"US"),
)
_FIRST_GROUPS = (0x0002, 0x0004, 0x0008)  # with which a data set begins


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A data set without its pixels, and those as they are stored.

    `keyword` is that of the pixels' element, None where there is none. `pixels` is its value, a view of the file;
    `encapsulated` says that it is a sequence of fragments, beginning with the table of offsets.
    """

    header: Dataset
    syntax: str
    size: int
    keyword: str | None = None
    vr: str = ""
    pixels: memoryview = field(default_factory=lambda: memoryview(b""))
    encapsulated: bool = False

    @property
    def little(self) -> bool:
        """Whether the header's tables are in little endian."""
        return self.syntax != BIG

    @property
    def big_endian(self) -> bool:
        """Whether pixels are in big endian."""
        return self.syntax in (BIG, GE_PRIVATE)


class _Budget(io.BytesIO):
    """Bytes that may be read so and so often: damaged headers can look like millions of empty elements."""

    def __init__(self, data: bytes | bytearray, size: int) -> None:
        super().__init__(data)
        self.left = _READS + size // 64

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise DecodeError("its header is damaged (elements without end)")
        return super().read(size)


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file, or like a data set that lacks the preamble; the first 264 are enough."""
    return data[128:132] == b"DICM" or _begins_bare(data)


def _begins_bare(data: bytes) -> bool:
    """Whether bytes begin like a data set that lacks the file's preamble."""
    if len(data) < 12:
        return False
    for order in "<>":
        group, element = struct.unpack_from(f"{order}HH", data)
        if group not in _FIRST_GROUPS or element > 0x3000:
            continue
        vr = bytes(data[4:6])
        if vr in _SHORT:
            return bool(struct.unpack_from(f"{order}H", data, 6)[0] <= 1024)
        if vr in _LONG:
            return data[6:8] == b"\0\0"
        if order == "<":
            length = struct.unpack_from("<L", data, 4)[0]
            return bool(length <= 256 and length % 2 == 0 and 8 + length <= max(len(data), 264))
    return False


def open_file(data: bytes) -> DicomFile:
    """A file's header and the place of its pixels, which aren't decoded. Raises DecodeError."""
    if not data:
        raise DecodeError("the file is empty")
    if not is_dicom(data):
        raise DecodeError(NOT_DICOM)
    handle = _Budget(data, len(data))
    meta, syntax = _meta(handle, data)
    view = memoryview(data)
    if syntax == DEFLATED:
        body = _inflated(data, handle.tell())
        handle, view = _Budget(body, len(data)), memoryview(body)
    header = _parse(handle, syntax, meta)
    found = _pixel_element(view, handle.tell(), header)
    if found is None:
        return DicomFile(header, syntax, len(data))
    keyword, vr, start, length = found
    encapsulated = length == _UNDEFINED
    end = len(view) if encapsulated else min(len(view), start + length)
    return DicomFile(header, syntax, len(data), keyword, vr, view[start:end], encapsulated)


def open_header(path: Path, tags: Sequence[int] | None = None) -> Dataset:
    """What a file states before its pixels, of which nothing is read; of all elements, or of `tags` alone.

    Raises DecodeError, also for what isn't DICOM.
    """
    try:
        with path.open("rb") as handle:
            start = handle.read(264)
            if not start:
                raise DecodeError("the file is empty")
            if not is_dicom(start):
                raise DecodeError(NOT_DICOM)
            handle.seek(0)
            meta, syntax = _meta(handle, start)
            source: BinaryIO = handle
            if syntax == DEFLATED:
                source = io.BytesIO(_inflated(handle.read(), 0))
            return _parse(source, syntax, meta, tags)
    except OSError as error:
        raise DecodeError(error.strerror or "it can't be opened") from error


def _meta(handle: BinaryIO, start: bytes) -> tuple[FileMetaDataset, str]:
    """The file meta information and the transfer syntax, guessed where it isn't stated; `handle` comes to stand behind.

    Source: PS3.10, section 7.1.
    """
    handle.seek(132 if start[128:132] == b"DICM" else 0)
    begins = handle.tell()
    meta = FileMetaDataset(_parsed(handle, True, lambda tag, vr, length: tag >> 16 != 2))
    _parsed(
        handle, False, lambda tag, vr, length: tag >> 16 != 0 or not length
    )  # what a network message may have left there
    stated = text(meta, "TransferSyntaxUID")
    if stated:
        return meta, stated
    place = handle.tell()
    head = handle.read(8)
    handle.seek(place)
    if len(head) < 8:
        raise DecodeError("it holds no data set" if place > begins else NOT_DICOM)
    explicit = head[4:6] in _LONG or head[4:6] in _SHORT
    little = struct.unpack_from("<H", head)[0] < 0x0400  # groups begin at 0004 or 0008; 0008 the other way is 0800
    return meta, (EXPLICIT if little else BIG) if explicit else IMPLICIT


def _parse(handle: BinaryIO, syntax: str, meta: FileMetaDataset, tags: Sequence[int] | None = None) -> Dataset:
    """The elements before the pixels; `handle` comes to stand at those."""
    explicit = syntax not in (IMPLICIT, GE_PRIVATE)
    dataset = _parsed(handle, explicit, _at_pixels, syntax != BIG, tags)
    dataset.file_meta = meta
    if "TransferSyntaxUID" not in meta:
        meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    if tag == 0:
        raise DecodeError("its header is damaged (zeros)")
    return tag in _PIXELS


def _parsed(
    handle: BinaryIO,
    explicit: bool,
    stop: Callable[[int, str | None, int], bool],
    little: bool = True,
    tags: Sequence[int] | None = None,
) -> Dataset:
    wanted = None if tags is None else [BaseTag(tag) for tag in tags]
    try:
        return read_dataset(handle, not explicit, little, stop_when=stop, specific_tags=wanted)  # type: ignore[arg-type]
    except DecodeError:
        raise
    except RecursionError as error:
        raise DecodeError("its header is damaged (sequences within sequences without end)") from error
    except Exception as error:  # pydicom raises whatever a damaged header leads it to
        raise DecodeError(f"its header is damaged near byte {handle.tell()}") from error


def _inflated(data: bytes, start: int) -> bytearray:
    """A deflated data set, at most MAX_INFLATED bytes of it, and less where nearly nothing is there (PS3.5, A.5)."""
    most = min(MAX_INFLATED, max(_EMPTY, 200 * len(data)))
    inflate, body = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    rest = memoryview(data)[start:]
    try:
        while rest and not inflate.eof:
            body += inflate.decompress(rest, 2**20)
            rest = memoryview(inflate.unconsumed_tail)
            if len(body) > most:
                raise DecodeError(f"its data set is deflated from more than {most:,} bytes")
    except zlib.error as error:
        raise DecodeError("its compressed data set is damaged") from error
    if not inflate.eof:
        raise DecodeError("the file is truncated")
    return body


def _pixel_element(view: memoryview, place: int, header: Dataset) -> tuple[str, str, int, int] | None:
    """The keyword, VR, start and length of the element at `place`, where it is one of pixels (PS3.5, section 7.1)."""
    if place + 8 > len(view):
        return None
    order = "<" if header.original_encoding[1] else ">"
    group, element = struct.unpack_from(f"{order}HH", view, place)
    keyword = _PIXELS.get(group << 16 | element)
    if keyword is None:
        return None
    vr = bytes(view[place + 4 : place + 6])
    if vr in _LONG and place + 12 <= len(view):
        return keyword, vr.decode(), place + 12, struct.unpack_from(f"{order}L", view, place + 8)[0]
    if vr in _SHORT:
        return keyword, vr.decode(), place + 8, struct.unpack_from(f"{order}H", view, place + 6)[0]
    return keyword, "", place + 8, struct.unpack_from(f"{order}L", view, place + 4)[0]
