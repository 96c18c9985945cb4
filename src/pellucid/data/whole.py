"""Is an image file whole, and how large is its picture? Answered from its bytes, before any decoder runs.

Decoders differ in what they let pass: Pillow takes a PNG without its end, tifffile a TIFF whose last tags are gone.
The containers say where they end, so a cut is found here, always.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

MAX_PIXELS = 2**26  # 8192 × 8192; below the size at which Pillow begins to warn of decompression bombs
MAX_SCANS = 100  # a progressive JPEG has about ten; thousands would keep a decoder busy for hours

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte, a fill byte nor a restart
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BMP_UNCOMPRESSED = (0, 3, 6)
_TIFF_VALUE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_TRUNCATED = "the file is truncated"


class DecodeError(Exception):
    """Why a file can't be read, without its name."""


@dataclass(frozen=True)
class PngHeader:
    """Bits per sample, and the EXIF block where there is one."""

    depth: int
    exif: bytes


def check_pixels(width: int, height: int) -> None:
    """Raise DecodeError when a picture is empty or larger than MAX_PIXELS."""
    if width < 1 or height < 1:
        raise DecodeError(f"the picture is {width} × {height} pixels")
    if width * height > MAX_PIXELS:
        raise DecodeError(f"the picture is {width} × {height} pixels; at most {MAX_PIXELS:,} are read")


def check_png(data: bytes) -> PngHeader:
    """Walk the chunks of a PNG to its end, verifying each checksum; raises DecodeError (W3C PNG, section 5)."""
    position, exif, header = len(_PNG_SIGNATURE), b"", b""
    while True:
        if position + 12 > len(data):
            raise DecodeError(_TRUNCATED)
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise DecodeError(_TRUNCATED)
        body = data[position + 8 : end]
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, end)[0]:
            raise DecodeError(f"the checksum of the block at byte {position} is wrong")
        if not header:
            if kind != b"IHDR" or length != 13:
                raise DecodeError("the header is damaged")
            header = body
            check_pixels(*struct.unpack_from(">II", header))
        if kind == b"eXIf":
            exif = body
        if kind == b"IEND":
            return PngHeader(depth=header[8], exif=exif)
        position = end + 4


def check_jpeg(data: bytes) -> None:
    """Walk the segments and scans of a JPEG to its end marker; raises DecodeError (ITU-T T.81, annex B)."""
    position, scans, framed = 2, 0, False
    while found := _JPEG_MARKER.search(data, position):
        marker, position = data[found.end() - 1], found.end()
        if marker == 0xD9:
            if not scans:
                raise DecodeError("the file holds no picture")
            return
        if marker in (0x01, 0xD8):  # stand-alone markers
            continue
        if position + 2 > len(data):
            break
        length = int.from_bytes(data[position : position + 2], "big")
        if marker in _JPEG_FRAMES and not framed and position + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, position + 3)
            check_pixels(width, height)
            framed = True
        if marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise DecodeError(f"the picture is stored in more than {MAX_SCANS} scans")
        position += length
    raise DecodeError(_TRUNCATED)


def check_bmp(data: bytes) -> None:
    """Read the size of a BMP and see that its rows are all there; raises DecodeError."""
    if len(data) < 34:
        raise DecodeError(_TRUNCATED)
    offset, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows from the top
    check_pixels(width, height)
    if compression in _BMP_UNCOMPRESSED:
        stride = (width * bits + 31) // 32 * 4
        needed = offset + (height - 1) * stride + (width * bits + 7) // 8
        if len(data) < needed:
            raise DecodeError(_TRUNCATED)


def check_tiff(data: bytes) -> None:
    """Walk the directories of a TIFF or BigTIFF and see that all they point to is there; raises DecodeError.

    The pixels themselves are looked for by the decoder, which knows what the tags mean (TIFF 6.0, section 2).
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    pointer, count, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    try:
        (position,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
        seen: set[int] = set()
        while position:
            if position in seen:
                raise DecodeError("its directories run in a circle")
            seen.add(position)
            (entries,) = struct.unpack_from(order + count, data, position)
            position += struct.calcsize(count)
            if position + entries * (4 + 2 * inline) > len(data):
                raise DecodeError(_TRUNCATED)
            for _ in range(entries):
                kind, values = struct.unpack_from(order + "HH" + pointer, data, position)[1:]
                size = _TIFF_VALUE_BYTES.get(kind, 0) * values
                (offset,) = struct.unpack_from(order + pointer, data, position + 4 + inline)
                if size > inline and offset + size > len(data):
                    raise DecodeError(_TRUNCATED)
                position += 4 + 2 * inline
            (position,) = struct.unpack_from(order + pointer, data, position)
    except struct.error as error:
        raise DecodeError(_TRUNCATED) from error
