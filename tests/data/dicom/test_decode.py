"""Stored values: every way that pixels lie in a file gives the values that were put there."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate_extended
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_files.made import data_of, header, packed, plain, save, with_pixels, with_syntax
from pellucid.data.images import MedicalImage, read_image
from pellucid.errors import UnreadableFileError
from references.checkers import run

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
SHAPE = (5, 7)  # odd, and not square


def random(dtype: str, shape: tuple[int, ...] = SHAPE, bits: int = 0) -> np.ndarray:
    kind = np.dtype(dtype)
    bits = bits or 8 * kind.itemsize
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if kind.kind == "i" else (0, 2**bits)
    values = np.random.default_rng(1).integers(low, high, shape, dtype=kind, endpoint=False)
    values.flat[0], values.flat[1] = low, high - 1
    return values


def smooth(dtype: str, shape: tuple[int, ...], most: int) -> np.ndarray:
    """A picture that lossy codecs keep."""
    down, right = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(down / 9 + 2 * channel) + np.cos(right / 7 - channel) for channel in range(3)]
    grey = (np.stack(waves[: 1 if len(shape) == 2 else 3], -1) / 4 + 0.5) * most
    return grey.astype(dtype).reshape(shape)


def read(tmp_path: Path, dataset: pydicom.Dataset, index: int | None = None) -> MedicalImage:
    return read_image(save(tmp_path / "a.dcm", dataset), index)


def refusal(tmp_path: Path, dataset: pydicom.Dataset, index: int | None = None) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(tmp_path, dataset, index)
    return str(caught.value)


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8"])
def test_whole_types_in_every_plain_syntax(tmp_path: Path, syntax: str, dtype: str) -> None:
    stored = random(dtype)
    image = read(tmp_path, plain(stored, syntax=syntax))
    assert image.pixels.dtype == stored.dtype
    assert image.pixels.flags.writeable
    np.testing.assert_array_equal(image.pixels[0], stored)


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize(("stored_bits", "high"), [(12, 11), (12, 13), (12, 15), (10, 9), (1, 0), (15, 14)])
@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_bits_outside_of_those_stored_are_left_out(
    tmp_path: Path, syntax: str, stored_bits: int, high: int, dtype: str
) -> None:
    values = random(dtype, bits=stored_bits)
    field = (values.view("u2") & (2**stored_bits - 1)) << (high + 1 - stored_bits)
    overlays = random("u2") & ~np.uint16((2**stored_bits - 1) << (high + 1 - stored_bits))
    assert overlays.any()
    dataset = plain((field | overlays).view(dtype), syntax=syntax, BitsStored=stored_bits, HighBit=high)
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels[0], values)


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 8, 16), (4, 3, 3)])
def test_single_bits_follow_frame_upon_frame_without_a_gap(tmp_path: Path, syntax: str, shape: tuple[int, ...]) -> None:
    stored = np.random.default_rng(3).integers(0, 2, shape).astype("u1")
    dataset = header(*shape[1:], "u1", syntax=syntax, BitsAllocated=1, BitsStored=1, NumberOfFrames=shape[0])
    data = np.packbits(stored.reshape(-1), bitorder="little").tobytes()
    if syntax == ExplicitVRBigEndian:  # OW: bytes change places within their words
        data = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2").astype(">u2").tobytes()
    path = save(tmp_path / "a.dcm", with_pixels(dataset, data, "OW"))
    for place, frame in enumerate(stored):
        np.testing.assert_array_equal(read_image(path, place).pixels[0], frame)


def test_bytes_in_words_of_big_endian_files(tmp_path: Path) -> None:
    stored = random("u1")
    dataset = header(*SHAPE, "u1", syntax=ExplicitVRBigEndian)
    words = np.frombuffer(stored.tobytes() + b"\0", "<u2").astype(">u2").tobytes()
    np.testing.assert_array_equal(read(tmp_path, with_pixels(dataset, words, "OW")).pixels[0], stored)


@pytest.mark.parametrize(("dtype", "keyword"), [("f4", "FloatPixelData"), ("f8", "DoubleFloatPixelData")])
@pytest.mark.parametrize("syntax", PLAIN)
def test_real_pixels(tmp_path: Path, dtype: str, keyword: str, syntax: str) -> None:
    stored = np.random.default_rng(0).normal(size=SHAPE).astype(dtype)
    dataset = header(*SHAPE, dtype, syntax=syntax, BitsStored=None, HighBit=None, PixelRepresentation=None)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    setattr(dataset, keyword, stored.astype(stored.dtype.newbyteorder(order)).tobytes())
    image = read(tmp_path, dataset)
    assert image.pixels.dtype == stored.dtype
    np.testing.assert_array_equal(image.pixels[0], stored)
    assert image.window is not None
    assert image.window.name == "whole range"


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_colours_by_pixel_and_by_plane(tmp_path: Path, syntax: str, planar: int, dtype: str) -> None:
    stored = random(dtype, (3, *SHAPE, 3))
    path = save(tmp_path / "a.dcm", plain(stored, syntax=syntax, PlanarConfiguration=planar))
    for place, frame in enumerate(stored):
        image = read_image(path, place)
        np.testing.assert_array_equal(np.moveaxis(image.pixels, 0, -1), frame)
        assert (image.window, image.units, image.windows) == (None, None, ())


def rgb_by_hand(luma: float, blue: float, red: float, partial: bool) -> list[int]:
    """One pixel by the matrices of PS3.3, C.7.6.3.1.2, turned round."""
    forward = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    shift = np.array([0.0, 128, 128])
    if partial:
        forward = np.array([[0.2568, 0.5041, 0.0979], [-0.1482, -0.2910, 0.4392], [0.4392, -0.3678, -0.0714]])
        shift = np.array([16.0, 128, 128])
    rgb = np.linalg.solve(forward, np.array([luma, blue, red]) - shift)
    return rgb.round().clip(0, 255).astype(int).tolist()


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422"])
def test_luma_and_two_colours_become_rgb(tmp_path: Path, photometric: str) -> None:
    rows, columns = 5, 8
    picture = random("u1", (rows, columns, 3))
    partial = "PARTIAL" in photometric
    if "422" in photometric:  # two pixels share their colours
        picture[:, 1::2, 1:] = picture[:, ::2, 1:]
        pairs = picture.reshape(-1, 2, 3)
        data = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], 1).tobytes()
    else:
        data = picture.tobytes()
    dataset = with_pixels(header(rows, columns, "u1", samples=3, PhotometricInterpretation=photometric), data)
    found = np.moveaxis(read(tmp_path, dataset).pixels, 0, -1)
    wanted = [rgb_by_hand(*map(float, pixel), partial) for pixel in picture.reshape(-1, 3)]
    assert np.abs(found.reshape(-1, 3).astype(int) - wanted).max() <= 1  # the printed matrices have four digits


# encoded


def run_lengths(values: np.ndarray) -> bytes:
    """Each byte of each sample by itself, the highest first (PS3.5, G.2 and G.4)."""
    planes = np.atleast_3d(np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">"))))
    pieces = planes.view("u1").reshape(*planes.shape, values.itemsize)
    runs = [
        imagecodecs.packbits_encode(pieces[..., sample, byte].tobytes())
        for sample in range(planes.shape[2])
        for byte in range(values.itemsize)
    ]
    runs = [run + b"\0" * (len(run) % 2) for run in runs]
    places = 64 + np.cumsum([0, *(len(run) for run in runs)])
    return struct.pack("<16L", len(runs), *places[:-1], *[0] * (15 - len(runs))) + b"".join(runs)


def encoded(values: np.ndarray, syntax: str) -> bytes:
    """One frame by an encoder that isn't part of what reads."""
    if syntax == RLELossless:
        return run_lengths(values)
    if syntax == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(values.view(f"u{values.itemsize}")))
    if syntax == JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="J2K", reversible=True))
    if syntax == HTJ2K:
        return bytes(imagecodecs.htj2k_encode(values, reversible=True))
    options: dict[str, object] = {"level": 100, "subsampling": "444"}
    if syntax == JPEGLosslessSV1:
        options = {"lossless": True, "predictor": 1, "bitspersample": 8 * values.itemsize}
    return bytes(imagecodecs.jpeg8_encode(values.view(f"u{values.itemsize}"), **options))


LOSSLESS = (RLELossless, JPEGLSLossless, JPEG2000Lossless, HTJ2K, JPEGLosslessSV1)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("dtype", "channels"), [("u1", 1), ("u2", 1), ("i2", 1), ("u1", 3)])
def test_lossless_syntaxes_give_back_what_was_put_in(tmp_path: Path, syntax: str, dtype: str, channels: int) -> None:
    shape = (33, 41) if channels == 1 else (33, 41, 3)
    stored = smooth("f8", shape, 4000 if dtype != "u1" else 255).astype(dtype) - (900 if dtype == "i2" else 0)
    if dtype == "i2" and syntax == HTJ2K:
        stored = stored.clip(0, None)
    samples = {} if channels == 1 else {"samples": 3}
    if channels == 3 and syntax in (JPEG2000Lossless, HTJ2K):
        samples["PhotometricInterpretation"] = "YBR_RCT"
    dataset = packed(header(33, 41, dtype, syntax=syntax, **samples), [encoded(stored, syntax)])
    found = read(tmp_path, dataset).pixels
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found[0] if channels == 1 else np.moveaxis(found, 0, -1), stored)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("side", [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_the_smallest_pictures(tmp_path: Path, syntax: str, side: tuple[int, int]) -> None:
    stored = np.arange(side[0] * side[1], dtype="u1").reshape(side) * 3
    dataset = packed(header(*side, "u1", syntax=syntax), [encoded(stored, syntax)])
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels[0], stored)


def test_jpeg_of_twelve_bits_stays_near(tmp_path: Path) -> None:
    stored = smooth("u2", (40, 48), 4000)
    stream = imagecodecs.jpeg8_encode(stored, level=100, bitspersample=12)
    dataset = packed(header(40, 48, "u2", syntax=JPEGExtended12Bit, BitsStored=12), [bytes(stream)])
    assert np.abs(read(tmp_path, dataset).pixels[0].astype(int) - stored).max() <= 6


@pytest.mark.parametrize("allocated", [8, 16, 32])
def test_run_lengths_of_several_bytes_and_frames(tmp_path: Path, allocated: int) -> None:
    stored = random(f"u{allocated // 8}", (3, *SHAPE))
    frames = [encoded(frame, RLELossless) for frame in stored]
    path = save(tmp_path / "a.dcm", packed(header(*SHAPE, stored.dtype, syntax=RLELossless, NumberOfFrames=3), frames))
    for place, frame in enumerate(stored):
        np.testing.assert_array_equal(read_image(path, place).pixels[0], frame)


def test_run_lengths_of_single_bits(tmp_path: Path) -> None:
    stored = np.random.default_rng(3).integers(0, 2, SHAPE).astype("u1")
    run = imagecodecs.packbits_encode(np.packbits(stored.reshape(-1), bitorder="little").tobytes())
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + run
    dataset = packed(header(*SHAPE, "u1", syntax=RLELossless, BitsAllocated=1, BitsStored=1), [frame])
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels[0], stored)


# a stream's signs and bits against the header's


@pytest.mark.parametrize("bits", [12, 13, 16])
def test_signs_of_jpeg_2000_that_gainsay_the_header(tmp_path: Path, bits: int) -> None:
    """What counts are the header's signs: an unsigned stream's highest bit is one, and the other way round."""
    signed = smooth("f8", (33, 41), 2 ** (bits - 1) - 1).astype("i2") - np.int16(2 ** (bits - 2))
    unsigned = signed.view("u2") & np.uint16(2**bits - 1)
    stream = imagecodecs.jpeg2k_encode(unsigned, level=0, codecformat="J2K", reversible=True, bitspersample=bits)
    assert get_j2k_parameters(stream) == {"precision": bits, "is_signed": False, "jp2": False}
    elements = {"syntax": JPEG2000Lossless, "BitsStored": bits}
    found = read(tmp_path, packed(header(33, 41, "i2", **elements), [bytes(stream)])).pixels[0]
    np.testing.assert_array_equal(found, signed)
    stream = bytearray(imagecodecs.jpeg2k_encode(signed, level=0, codecformat="J2K", reversible=True))
    assert get_j2k_parameters(bytes(stream))["is_signed"]
    found = read(tmp_path, packed(header(33, 41, "u2", syntax=JPEG2000Lossless), [bytes(stream)])).pixels[0]
    np.testing.assert_array_equal(found, signed.view("u2"))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1])
def test_signs_that_a_stream_cannot_say(tmp_path: Path, syntax: str) -> None:
    signed = smooth("f8", (33, 41), 2000).astype("i2") - np.int16(1000)
    unsigned = signed.view("u2") & np.uint16(4095)
    if syntax == JPEGLSLossless:
        import jpeg_ls

        stream = bytes(jpeg_ls.encode_array(unsigned))
        assert stream[6] == 12  # bits
    else:
        stream = bytes(imagecodecs.jpeg8_encode(unsigned, lossless=True, predictor=1, bitspersample=12))
        assert b"\xff\xc3\x00\x0b\x0c" in stream
    dataset = packed(header(33, 41, "i2", syntax=syntax, BitsStored=12), [stream])
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels[0], signed)


# colours of JPEG


def jpeg_of(planes: np.ndarray, *, names: bytes, adobe: int | None, jfif: bool) -> bytes:
    """A JPEG of components as they are, that says what it is asked to say of them."""
    stream = bytes(
        imagecodecs.jpeg8_encode(planes, level=100, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    )
    parts, place = [], 2
    while stream[place + 1] != 0xDA:
        length = struct.unpack_from(">H", stream, place + 2)[0]
        if stream[place + 1] not in (0xE0, 0xEE):
            parts.append(bytearray(stream[place : place + 2 + length]))
        place += 2 + length
    scan = bytearray(stream[place:])
    for part in parts:
        if part[1] == 0xC0:
            part[10::3] = names
    for number, name in enumerate(names):
        scan[5 + 2 * number] = name
    said = b""
    if jfif:
        said += b"\xff\xe0\x00\x10JFIF\x00\x01\x02\x00\x00\x01\x00\x01\x00\x00"
    if adobe is not None:
        said += b"\xff\xee\x00\x0eAdobe\x00\x65\x00\x00\x00\x00" + bytes([adobe])
    return b"\xff\xd8" + said + b"".join(map(bytes, parts)) + bytes(scan)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize(
    ("names", "adobe", "jfif", "meant"),
    [
        (b"\1\2\3", None, False, None),
        (b"\0\1\2", None, False, None),
        (b"\1\2\3", 0, False, "RGB"),
        (b"\1\2\3", 1, False, "YBR"),
        (b"\1\2\3", None, True, "YBR"),
        (b"RGB", None, False, "RGB"),
        (b"RGB", 0, False, "RGB"),
        (b"\1\2\3", 0, True, "RGB"),
    ],
)
def test_a_jpeg_says_itself_what_its_colours_are_and_else_the_header(
    tmp_path: Path, photometric: str, names: bytes, adobe: int | None, jfif: bool, meant: str | None
) -> None:
    stored = smooth("u1", (32, 40, 3), 200) + np.uint8(20)
    stream = jpeg_of(stored, names=names, adobe=adobe, jfif=jfif)
    elements = {"samples": 3, "PhotometricInterpretation": photometric, "syntax": JPEGBaseline8Bit}
    found = np.moveaxis(read(tmp_path, packed(header(32, 40, "u1", **elements), [stream])).pixels, 0, -1).astype(int)
    if (meant or photometric[:3]) == "RGB":
        wanted = stored.astype(int)
    else:
        flat = [rgb_by_hand(*map(float, pixel), False) for pixel in stored.reshape(-1, 3)]
        wanted = np.array(flat).reshape(stored.shape)
    assert np.abs(found - wanted).max() <= 4


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_a_lossless_jpeg_is_what_the_header_says(tmp_path: Path, photometric: str) -> None:
    stored = random("u1", (20, 30, 3))
    space = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}  # which writes JFIF's marker, and turns nothing
    stream = bytes(imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, **space))
    assert b"JFIF" in stream
    elements = {"samples": 3, "PhotometricInterpretation": photometric, "syntax": JPEGLosslessSV1}
    found = np.moveaxis(read(tmp_path, packed(header(20, 30, "u1", **elements), [stream])).pixels, 0, -1)
    plainly = with_pixels(header(20, 30, "u1", **{**elements, "syntax": ExplicitVRLittleEndian}), stored.tobytes())
    np.testing.assert_array_equal(found, np.moveaxis(read(tmp_path, plainly).pixels, 0, -1))


# palettes


def palette(count: int = 256, bits: int = 8, first: int = 0, **extra: object) -> tuple[dict[str, object], np.ndarray]:
    tables = np.random.default_rng(4).integers(0, 2**bits, (3, count)).astype("u1" if bits == 8 else "u2")
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR", **extra}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [count % 2**16, first, bits]
        elements[f"{name}PaletteColorLookupTableData"] = table.tobytes() + b"\0" * (table.nbytes % 2)
    return elements, tables


@pytest.mark.parametrize(
    ("dtype", "count", "bits", "first"),
    [
        ("u1", 256, 8, 0),
        ("u1", 256, 16, 0),
        ("u1", 17, 8, 3),
        ("u2", 2**16, 16, 0),
        ("u2", 300, 8, 900),
        ("u1", 1, 8, 9),
    ],
)
def test_palettes(tmp_path: Path, dtype: str, count: int, bits: int, first: int) -> None:
    elements, tables = palette(count, bits, first)
    stored = random(dtype, (20, 30))
    found = read(tmp_path, plain(stored, **elements)).pixels
    assert found.dtype == tables.dtype
    np.testing.assert_array_equal(found, tables[:, (stored.astype(int) - first).clip(0, count - 1)])


def test_a_palette_that_begins_below_zero(tmp_path: Path) -> None:
    elements, tables = palette(64, 8, 0)
    stored = random("i2", bits=7)
    dataset = plain(stored, **elements)
    for name in ("Red", "Green", "Blue"):
        descriptor = dataset[f"{name}PaletteColorLookupTableDescriptor"]
        descriptor.VR, descriptor.value = "SS", [64, -32, 8]
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels, tables[:, (stored.astype(int) + 32).clip(0, 63)])


def test_a_palette_of_eight_bits_written_as_sixteen_is_one_of_eight(tmp_path: Path) -> None:
    elements, tables = palette(256, 16)
    eight = (tables >> 8).astype("u1")
    stored = random("u1")
    for factor in (256, 257):
        for name, table in zip(("Red", "Green", "Blue"), eight, strict=True):
            elements[f"{name}PaletteColorLookupTableData"] = (table.astype("<u2") * factor).tobytes()
        found = read(tmp_path, plain(stored, **elements)).pixels
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, eight[:, stored])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_in_segments(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    words = [
        *(0, 3, 1, 5, 9),  # three as they are
        *(1, 40, top),  # forty that rise to the top
        *(0, 2, top // 2, 7),
        *(1, 15, 1),
    ]
    offset = 5 * bits // 8  # of the second segment, in bytes
    words += [2, 3, *((offset, 0, 0, 0) if bits == 8 else (offset, 0))]  # the last three once more
    rise = [9 + (top - 9) * step / 40 for step in range(1, 41)]
    fall = [7 - 6 * step / 15 for step in range(1, 16)]
    again = [1 + (top - 1) * step / 40 for step in range(1, 41)]
    wanted = np.array([1, 5, 9, *rise, top // 2, 7, *fall, *again, top // 2, 7, *fall]).round()
    data = np.array(words, f"<u{bits // 8}").tobytes()
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [len(wanted), 0, bits]
        elements[f"Segmented{name}PaletteColorLookupTableData"] = data + b"\0" * (len(data) % 2)
    stored = np.arange(120, dtype="u1").reshape(10, 12)
    dataset = plain(stored, **elements)
    found = read(tmp_path, dataset).pixels
    assert found.dtype == f"u{bits // 8}"
    np.testing.assert_array_equal(found, np.stack([wanted[stored.clip(0, len(wanted) - 1)]] * 3))
    if bits == 8:  # for 16, pydicom counts the place of a repeated segment in words
        np.testing.assert_array_equal(np.moveaxis(found, 0, -1), pydicom.pixels.apply_color_lut(stored, dataset))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("option", ["+ti", "+tb", "+td"])
def test_palettes_and_pixels_that_dcmtk_wrote_in_other_syntaxes(tmp_path: Path, bits: int, option: str) -> None:
    elements, tables = palette(256, bits)
    stored = random("u1", (20, 31))
    path = save(tmp_path / "a.dcm", plain(stored, **elements))
    assert run("dcmconv", option, str(path), str(tmp_path / "b.dcm")).returncode == 0
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm").pixels, tables[:, stored])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"RedPaletteColorLookupTableData": b"\1\2"}, "RedPaletteColorLookupTableData holds 2 entries, of 256"),
        ({"BluePaletteColorLookupTableDescriptor": [255, 0, 8]}, "differ in length"),
        ({"GreenPaletteColorLookupTableDescriptor": None}, "GreenPaletteColorLookupTableDescriptor is missing"),
        ({"GreenPaletteColorLookupTableData": None}, "GreenPaletteColorLookupTableData is missing"),
    ],
)
def test_damaged_palettes_are_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    elements, _ = palette()
    dataset = plain(random("u1"), **elements)
    for keyword, value in change.items():
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
    assert told in refusal(tmp_path, dataset)


# fragments


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGBaseline8Bit])
def test_frames_in_fragments(tmp_path: Path, table: bool, fragments: int, syntax: str) -> None:
    stored = np.stack([smooth("u1", (33, 41), 40 * place + 90) for place in range(3)])
    frames = [encoded(frame, syntax) for frame in stored]
    dataset = packed(header(33, 41, "u1", syntax=syntax, NumberOfFrames=3), frames, fragments=fragments, table=table)
    if syntax == RLELossless and fragments > 1 and not table:  # nothing says where a frame ends
        assert "NumberOfFrames is 3, but its pixel data holds 1" in refusal(tmp_path, dataset, 0)
        return
    path = save(tmp_path / "a.dcm", dataset)
    for place, frame in enumerate(stored):
        assert np.abs(read_image(path, place).pixels[0].astype(int) - frame).max() <= (syntax == JPEGBaseline8Bit)


def test_the_extended_table_of_offsets(tmp_path: Path) -> None:
    stored = random("u1", (3, *SHAPE))
    dataset = header(*SHAPE, "u1", syntax=RLELossless, NumberOfFrames=3)
    frames = [encoded(frame, RLELossless) for frame in stored]
    data, offsets, lengths = encapsulate_extended(frames)
    dataset = packed(dataset, frames)
    dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = data, offsets, lengths
    path = save(tmp_path / "a.dcm", dataset)
    for place, frame in enumerate(stored):
        np.testing.assert_array_equal(read_image(path, place).pixels[0], frame)


def test_a_delimiter_among_the_bytes_of_a_frame_ends_nothing(tmp_path: Path) -> None:
    run = b"\xfe\xff\xdd\xe0\0\0\0\0"
    stored = np.frombuffer(run * 5, "u1").reshape(5, 8)
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + b"".join(b"\7" + run for _ in range(5)) + b"\0"
    dataset = packed(header(5, 8, "u1", syntax=RLELossless), [frame])
    np.testing.assert_array_equal(read(tmp_path, dataset).pixels[0], stored)


def test_fragments_without_an_end_are_whole_where_the_last_is(tmp_path: Path) -> None:
    stored = random("u1")
    data = data_of(packed(header(*SHAPE, "u1", syntax=RLELossless), [encoded(stored, RLELossless)]))
    end = data.rindex(b"\xfe\xff\xdd\xe0")
    path = tmp_path / "a.dcm"
    path.write_bytes(data[:end])
    np.testing.assert_array_equal(read_image(path).pixels[0], stored)
    for cut in range(1, 60):
        path.write_bytes(data[: end - cut])
        with pytest.raises(UnreadableFileError, match="truncated within its pixels"):
            read_image(path)


def test_more_or_fewer_frames_than_the_header_says(tmp_path: Path) -> None:
    stored = random("u1", (3, *SHAPE))
    frames = [encoded(frame, RLELossless) for frame in stored]
    dataset = packed(header(*SHAPE, "u1", syntax=RLELossless, NumberOfFrames=2), frames)
    np.testing.assert_array_equal(read(tmp_path, dataset, 1).pixels[0], stored[1])
    dataset.NumberOfFrames = 4
    assert "NumberOfFrames is 4, but its pixel data holds 3" in refusal(tmp_path, dataset, 0)


# plain pixels in fragments


def test_deflated_frames_and_plain_ones_in_fragments(tmp_path: Path) -> None:
    stored = random("u2", (3, *SHAPE))
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    frames = {"1.2.840.10008.1.2.1.98": [frame.tobytes() for frame in stored]}
    frames["1.2.840.10008.1.2.8.1"] = []
    for frame in stored:
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        frames["1.2.840.10008.1.2.8.1"].append(packer.compress(frame.tobytes()) + packer.flush())
    path = tmp_path / "a.dcm"
    for syntax, each in frames.items():
        whole, cut = (
            packed(header(*SHAPE, "u2", NumberOfFrames=3, syntax=RLELossless), parts)
            for parts in (each, [part[:-9] for part in each])
        )
        path.write_bytes(with_syntax(data_of(whole), syntax.encode()))
        for place, frame in enumerate(stored):
            np.testing.assert_array_equal(read_image(path, place).pixels[0], frame)
        path.write_bytes(with_syntax(data_of(cut), syntax.encode()))
        with pytest.raises(UnreadableFileError, match="truncated|damaged"):
            read_image(path, 0)


def test_files_without_their_preamble(tmp_path: Path) -> None:
    stored = random("u2")
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
        data = data_of(plain(stored, syntax=syntax))
        begin = 144 + struct.unpack_from("<L", data, 140)[0]  # behind the file meta information
        for bare in (data[begin:], data[132:]):
            (tmp_path / "bare").write_bytes(bare)
            np.testing.assert_array_equal(read_image(tmp_path / "bare").pixels[0], stored)
    file = tmp_path / "b.dcm"
    data = data_of(plain(stored))
    begin = data.index(b"\x02\x00\x10\x00UI")
    file.write_bytes(data[:begin] + data[begin + 8 + data[begin + 6] :])
    np.testing.assert_array_equal(read_image(file).pixels[0], stored)


def test_the_private_syntax_with_two_orders_of_bytes(tmp_path: Path) -> None:
    stored = random("i2")
    data = data_of(plain(stored.byteswap(), syntax=ImplicitVRLittleEndian))
    (tmp_path / "a.dcm").write_bytes(with_syntax(data, b"1.2.840.113619.5.2"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").pixels[0], stored)


def test_content_decides_and_not_the_ending(tmp_path: Path) -> None:
    stored = random("u2")
    for name, ending in itertools.product(["a"], ["", ".png", ".nii", ".tif", ".DCM", ".ima"]):
        path = save(tmp_path / f"{name}{ending}", plain(stored))
        np.testing.assert_array_equal(read_image(path).pixels[0], stored)
    tiff = b"II*\0\x08\0\0\0" + bytes(120)  # as whole-slide files begin, which are TIFF and DICOM at once
    path.write_bytes(tiff + data_of(plain(stored))[128:])
    np.testing.assert_array_equal(read_image(path).pixels[0], stored)
    (tmp_path / "b.dcm").write_bytes(imagecodecs.png_encode(random("u1")))
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm").pixels[0], random("u1"))
