from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from pellucid.data.whole import MAX_PIXELS, DecodeError, check_bmp, check_jpeg, check_pixels, check_png, check_tiff


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def saved(kind: str, size: tuple[int, int] = (5, 4), mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def test_the_largest_picture_passes_and_one_row_more_does_not() -> None:
    check_pixels(2**13, 2**13)
    with pytest.raises(DecodeError, match=f"at most {MAX_PIXELS:,}"):
        check_pixels(2**13, 2**13 + 1)
    with pytest.raises(DecodeError, match="0 × 5 pixels"):
        check_pixels(0, 5)


def test_png_header_is_read() -> None:
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"eXIf", b"II*\0") + chunk(b"IEND", b"")
    found = check_png(data)
    assert (found.depth, found.exif) == (16, b"II*\0")


def test_png_must_begin_with_its_header() -> None:
    with pytest.raises(DecodeError, match="header"):
        check_png(b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""))


def test_png_checksums_are_verified_in_every_chunk() -> None:
    data = saved("PNG")
    text = chunk(b"tEXt", b"Title\0brain")
    check_png(data[:33] + text + data[33:])
    with pytest.raises(DecodeError, match="block at byte 33"):
        check_png(data[:33] + text.replace(b"brain", b"brawn") + data[33:])


def test_jpeg_end_marker_inside_a_thumbnail_is_not_the_end() -> None:
    data = saved("JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    whole = data[:2] + thumbnail + data[2:]
    check_jpeg(whole)
    with pytest.raises(DecodeError, match="truncated"):
        check_jpeg(whole[:-2])


def test_jpeg_without_a_scan_holds_no_picture() -> None:
    with pytest.raises(DecodeError, match="no picture"):
        check_jpeg(b"\xff\xd8\xff\xd9")


def test_jpeg_fill_bytes_and_restarts_are_passed_over() -> None:
    data = saved("JPEG")
    check_jpeg(data[:-2] + b"\xff\xd0\xff\x00\xff\xff\xff\xd9")


def test_bmp_of_the_oldest_kind_is_measured() -> None:
    rows = bytes(4 * 4)  # five pixels of one bit, padded to four bytes
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 32) + struct.pack("<IHHHH", 12, 5, 4, 1, 1) + bytes(6) + rows
    check_bmp(data)
    with pytest.raises(DecodeError, match="truncated"):
        check_bmp(data[:-4])


def test_tiff_with_a_tag_beyond_the_end_is_truncated() -> None:
    entry = struct.pack("<HHII", 258, 3, 3, 26)  # three shorts at byte 26
    data = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0) + bytes(6)
    check_tiff(data)
    with pytest.raises(DecodeError, match="truncated"):
        check_tiff(data[:-1])
