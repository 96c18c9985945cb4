from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile, ImageOps

from pellucid.data.images import MedicalImage, oriented, read_image
from pellucid.data.whole import MAX_PIXELS
from pellucid.errors import UnreadableFileError

Encoded = Mapping[str, tuple[bytes, np.ndarray | None]]

FORMATS = ("colour.png", "bilevel.png", "colour16.png", "colour.jpg", "progressive.jpg", "cmyk.jpg", "colour.bmp")
FORMATS += ("palette.bmp", "colour16.tif", "bigtiff.tif", "tiles.tif", "lzw.tif", "packbits.tif", "jpeg.tif", "fax.tif")


def read_bytes(folder: Path, data: bytes, name: str = "image") -> MedicalImage:
    (folder / name).write_bytes(data)
    return read_image(folder / name)


def refusal(folder: Path, data: bytes, name: str = "image") -> str:
    with pytest.raises(UnreadableFileError, match="can't read") as caught:
        read_bytes(folder, data, name)
    message = str(caught.value)
    assert str(folder / name) in message
    return message


def test_every_format_comes_back_exactly(encoded: Encoded, tmp_path: Path) -> None:
    for name, (data, pixels) in encoded.items():
        image = read_bytes(tmp_path, data, name)
        assert image.source == tmp_path / name
        assert (image.spacing, image.orientation, image.modality) == (None, None, None)
        if pixels is not None:
            assert image.pixels.dtype == pixels.dtype, name
            np.testing.assert_array_equal(image.pixels, pixels, err_msg=name)


def test_lossy_formats_come_near(encoded: Encoded, colours: np.ndarray, tmp_path: Path) -> None:
    for name in ("colour.jpg", "progressive.jpg", "cmyk.jpg", "jpeg.tif"):
        pixels = read_bytes(tmp_path, encoded[name][0]).pixels.astype(float)
        assert pixels.shape == (3, 30, 41)
        assert np.abs(pixels - np.moveaxis(colours, -1, 0)).mean() < 12, name
    assert read_bytes(tmp_path, encoded["grey.jpg"][0]).pixels.shape == (1, 30, 41)


def test_jpeg_equals_pillow(encoded: Encoded, tmp_path: Path) -> None:
    for name in ("colour.jpg", "grey.jpg", "progressive.jpg", "cmyk.jpg"):
        data = encoded[name][0]
        image = Image.open(io.BytesIO(data))
        wanted = np.asarray(image.convert("RGB") if image.mode == "CMYK" else image)
        np.testing.assert_array_equal(np.squeeze(np.moveaxis(read_bytes(tmp_path, data).pixels, 0, -1)), wanted)


def test_grey_stored_as_colour_stays_colour(colours: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(colours[..., 0]).convert("RGB").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").pixels.shape == (3, 30, 41)


def test_the_content_tells_the_format_not_the_ending(encoded: Encoded, tmp_path: Path) -> None:
    data, pixels = encoded["colour16.png"]
    np.testing.assert_array_equal(read_bytes(tmp_path, data, "named.jpg").pixels, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_exif_orientation_is_applied_as_pillow_does(
    orientation: int, ending: str, colours: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(colours).save(path, exif=exif)
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(np.moveaxis(read_image(path).pixels, 0, -1), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bit_png(orientation: int, colours: np.ndarray, tmp_path: Path) -> None:
    deep = colours.astype(np.uint16) * 200
    data = imagecodecs.png_encode(deep)
    exif = Image.Exif()
    exif[274] = orientation
    block = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block))
    image = read_bytes(tmp_path, data[:33] + chunk + data[33:])
    np.testing.assert_array_equal(image.pixels, oriented(np.moveaxis(deep, -1, 0), orientation))


def test_unknown_orientation_changes_nothing(colours: np.ndarray) -> None:
    pixels = np.moveaxis(colours, -1, 0)
    np.testing.assert_array_equal(oriented(pixels, 0), pixels)
    np.testing.assert_array_equal(oriented(pixels, 9), pixels)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UnreadableFileError, match="a folder without DICOM images"):
        read_image(tmp_path)
    with pytest.raises(UnreadableFileError, match="null"):
        read_image("a\0b.png")


def test_what_isnt_an_image_is_refused(tmp_path: Path) -> None:
    gif = io.BytesIO()
    Image.new("L", (4, 4)).save(gif, "GIF")
    assert "the file is empty" in refusal(tmp_path, b"")
    for data, name in ((b"not an image", "text.png"), (gif.getvalue(), "moving.gif")):
        assert "PNG, JPEG, TIFF, BMP, DICOM, NIfTI, NRRD and MetaImage are read" in refusal(tmp_path, data, name)
    assert "its header is damaged (zeros)" in refusal(tmp_path, bytes(128) + b"DICM" + bytes(40), "scan")
    assert "not a DICOM file" in refusal(tmp_path, b"\x08\x00\x05\x00", "scan.dcm")
    assert "not a NIfTI file" in refusal(tmp_path, gzip.compress(b"volume"), "brain.nii.gz")


def test_values_that_arent_finite_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4), np.float32)
    pixels[0, 0], pixels[1, 1] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "nan.tif", pixels)
    assert "2 values are NaN or infinite" in refusal(tmp_path, (tmp_path / "nan.tif").read_bytes())


def test_decompression_bombs_are_refused_before_decoding(encoded: Encoded, tmp_path: Path) -> None:
    png = bytearray(encoded["colour.png"][0])
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    jpeg = bytearray(encoded["colour.jpg"][0])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    bmp = bytearray(encoded["colour.bmp"][0])
    bmp[18:26] = struct.pack("<ii", 60_000, -60_000)
    tiff = bytearray(encoded["lzw.tif"][0])
    with tifffile.TiffFile(io.BytesIO(tiff)) as file:
        for tag in (file.pages[0].tags["ImageWidth"], file.pages[0].tags["ImageLength"]):
            tiff[tag.offset + 8 : tag.offset + 10] = struct.pack("<H", 60_000)
    for data in (png, jpeg, bmp, tiff):
        assert f"60000 × 60000 pixels; at most {MAX_PIXELS:,} are read" in refusal(tmp_path, bytes(data))


def test_a_jpeg_of_countless_scans_is_refused(encoded: Encoded, tmp_path: Path) -> None:
    data = encoded["colour.jpg"][0]
    start = data.index(b"\xff\xda")
    assert "more than 100 scans" in refusal(tmp_path, data[:start] + data[start:-2] * 101 + data[-2:])


def test_what_follows_the_end_does_no_harm(encoded: Encoded, tmp_path: Path) -> None:
    for name in ("colour.png", "colour16.png", "colour.jpg", "colour.bmp", "colour16.tif"):
        data = encoded[name][0]
        np.testing.assert_array_equal(
            read_bytes(tmp_path, data + b"\0appended").pixels, read_bytes(tmp_path, data).pixels
        )


def test_a_wrong_checksum_is_refused(encoded: Encoded, tmp_path: Path) -> None:
    data = bytearray(encoded["colour.png"][0])
    data[60] ^= 1
    assert "checksum" in refusal(tmp_path, bytes(data))


def _cuts(length: int, count: int) -> list[int]:
    """Lengths to cut a file to: the first and last bytes, where headers and ends are, and some between."""
    between = np.linspace(0, length - 1, count).astype(int).tolist()
    return sorted({*range(min(10, length)), *between, *range(max(0, length - 12), length)})


def _check_cut(folder: Path, data: bytes, whole: np.ndarray, length: int, name: str) -> None:
    try:
        pixels = read_bytes(folder, data[:length]).pixels
    except UnreadableFileError:
        return
    # the last row of a BMP is padded: bytes that hold no pixel
    assert name.endswith(".bmp"), f"{name} cut to {length} of {len(data)} was read"
    np.testing.assert_array_equal(pixels, whole)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_refused(name: str, encoded: Encoded, tmp_path: Path) -> None:
    data = encoded[name][0]
    whole = read_bytes(tmp_path, data).pixels
    for length in _cuts(len(data), 15):
        _check_cut(tmp_path, data, whole, length, name)


@pytest.mark.slow
def test_a_file_cut_anywhere_is_refused(encoded: Encoded, tmp_path: Path) -> None:
    for name, (data, _) in encoded.items():
        whole = read_bytes(tmp_path, data).pixels
        for length in range(len(data)):
            _check_cut(tmp_path, data, whole, length, name)


def test_truncated_files_are_refused_even_where_pillow_is_told_to_take_them(
    encoded: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("colour.png", "colour.jpg", "colour.bmp"):
        data = encoded[name][0]
        assert "truncated" in refusal(tmp_path, data[: len(data) // 2])


def _damage(folder: Path, data: bytes, generator: np.random.Generator) -> None:
    """Change up to four bytes, mostly in the header, and read what is left: an image or one clear error."""
    broken = bytearray(data)
    for _ in range(generator.integers(1, 5)):
        reach = len(broken) if generator.random() < 0.4 else min(300, len(broken))
        broken[generator.integers(0, reach)] = generator.integers(0, 256)
    try:
        image = read_bytes(folder, bytes(broken))
    except UnreadableFileError as error:
        message = str(error)
        assert "\n" not in message
        assert " object at 0x" not in message
        return
    assert image.pixels.ndim == 3
    assert len(image.pixels) in (1, 3)
    assert image.pixels[0].size <= MAX_PIXELS


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_an_image_or_one_error(name: str, encoded: Encoded, tmp_path: Path) -> None:
    generator = np.random.default_rng(len(name))
    for _ in range(40):
        _damage(tmp_path, encoded[name][0], generator)


@pytest.mark.slow
def test_many_damaged_files_give_an_image_or_one_error(encoded: Encoded, tmp_path: Path) -> None:
    generator = np.random.default_rng(77)
    for data, _ in encoded.values():
        for _ in range(600):
            _damage(tmp_path, data, generator)


def test_random_bytes_behind_a_signature_are_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"):
        for length in (0, 1, 50, 5000):
            refusal(tmp_path, start + generator.bytes(length))


def test_warnings_of_decoders_are_held_back_and_filters_left_alone(encoded: Encoded, tmp_path: Path) -> None:
    data = encoded["colour.jpg"][0]
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"  # promises 65,535 entries and holds none
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    before = list(warnings.filters)
    assert read_bytes(tmp_path, data[:2] + segment + data[2:]).pixels.shape == (3, 30, 41)
    assert list(warnings.filters) == before


def test_real_images_of_every_pack_equal_pillow(shared_data: Path) -> None:
    for pack in ("brain_mri", "skin", "chest_xray", "lesion_masks"):
        for path in sorted((shared_data / pack).rglob("*.[jp][pn]g"))[::40]:
            with Image.open(path) as image:
                wanted = np.atleast_3d(np.asarray(image.convert("L") if image.mode == "1" else image))
            np.testing.assert_array_equal(np.moveaxis(read_image(path).pixels, 0, -1), wanted)
