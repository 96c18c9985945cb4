from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pellucid.data.images import read_image
from pellucid.data.tiff import decode_tiff
from pellucid.data.whole import DecodeError


def written(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16", "F", "YCbCr"])
def test_equals_pillow_where_pillow_is_exact(
    mode: str, compression: str | None, colours: np.ndarray, tmp_path: Path
) -> None:
    if (compression == "jpeg") != (mode == "YCbCr") and (compression == "jpeg" and mode not in ("L", "RGB", "CMYK")):
        return
    if mode == "YCbCr" and compression != "jpeg":
        return
    base = Image.fromarray(colours)
    image = base.convert("L").convert(mode) if mode in ("I;16", "F") else base.convert(mode)
    path = tmp_path / "a.tif"
    image.save(path, compression=compression)
    with Image.open(path) as file:
        plain = {"1": "L", "LA": "L", "P": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}.get(file.mode)
        wanted = np.atleast_3d(np.asarray(file.convert(plain) if plain else file))
    np.testing.assert_array_equal(np.moveaxis(read_image(path).pixels, 0, -1), wanted)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_spread_over_the_range(bits: int) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) % 2**bits
    pixels, _ = decode_tiff(written(values, bitspersample=bits, photometric="minisblack"))
    np.testing.assert_array_equal(pixels[0], values * (255 // (2**bits - 1)))


def test_twelve_bits_stay_as_they_are() -> None:
    values = np.arange(4080, 4096, dtype=np.uint16).reshape(4, 4)
    pixels, _ = decode_tiff(written(values, bitspersample=12, photometric="minisblack"))
    np.testing.assert_array_equal(pixels[0], values)


def test_deep_cmyk_becomes_rgb() -> None:
    inks = np.zeros((16, 16, 4), np.uint16)
    inks[0, 0] = [65535, 0, 0, 0]
    inks[0, 1] = [0, 0, 0, 65535]
    inks[0, 2] = [0, 32768, 0, 32768]
    pixels, _ = decode_tiff(written(inks, photometric="separated"))
    assert pixels.dtype == np.uint16
    assert pixels[:, 0, 0].tolist() == [0, 65535, 65535]
    assert pixels[:, 0, 1].tolist() == [0, 0, 0]
    assert pixels[:, 0, 2].tolist() == [32767, round(32767 * 32767 / 65535), 32767]


def test_white_is_zero_with_16_bits() -> None:
    values = np.arange(16, dtype=np.uint16).reshape(4, 4)
    pixels, _ = decode_tiff(written(values, photometric="miniswhite"))
    np.testing.assert_array_equal(pixels[0], 65535 - values)


def test_several_pages_are_refused_with_their_number() -> None:
    with pytest.raises(DecodeError, match="holds 3 pages"):
        decode_tiff(written(np.zeros((3, 8, 8), np.uint8), photometric="minisblack"))


@pytest.mark.parametrize("options", [{"imagej": True}, {"volumetric": True, "tile": (3, 16, 16)}, {"truncate": True}])
def test_a_stack_behind_one_page_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(DecodeError, match="stack|pages"):
        decode_tiff(written(np.zeros((3, 16, 16), np.uint8), photometric="minisblack", **options))


def test_a_thumbnail_is_no_page() -> None:
    file = io.BytesIO()
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    with tifffile.TiffWriter(file) as writer:
        writer.write(picture, photometric="minisblack")
        writer.write(picture[::2, ::2], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(decode_tiff(file.getvalue())[0][0], picture)


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (np.zeros((8, 8, 5), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "5 channels"),
        (np.zeros((8, 8, 2), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "2 channels"),
        (np.zeros((8, 8), np.complex64), {"photometric": "minisblack"}, "complex64"),
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "cielab"}, "CIELAB"),
        (np.zeros((8, 8), np.float32), {"photometric": "miniswhite"}, "MINISWHITE pixels of type float32"),
    ],
)
def test_what_has_no_plain_meaning_is_refused(pixels: np.ndarray, options: dict[str, object], reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_tiff(written(pixels, **options))


def test_a_missing_strip_is_refused_not_filled() -> None:
    data = bytearray(written(np.ones((64, 8), np.uint8), rowsperstrip=8, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        counts = file.pages[0].tags["StripByteCounts"]
        data[counts.valueoffset : counts.valueoffset + counts.valuebytecount] = bytes(counts.valuebytecount)
    with pytest.raises(DecodeError, match="truncated"):
        decode_tiff(bytes(data))


def test_directories_in_a_circle_are_refused() -> None:
    data = bytearray(written(np.ones((8, 8), np.uint8)))
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * entries : first + 6 + 12 * entries] = first.to_bytes(4, "little")
    with pytest.raises(DecodeError, match="circle"):
        decode_tiff(bytes(data))
