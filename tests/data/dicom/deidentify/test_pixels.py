"""Comments in compressed streams, overlays in unused bits, and blackened boxes."""

from __future__ import annotations

import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian

from pellucid.data.dicom.deidentify.burned_in import Box
from pellucid.data.dicom.deidentify.pixels import (
    black_out,
    clear_unused_bits,
    frames_of,
    strip_comments,
    without_comments,
)

SECRET = b"Zebrowski, Anna"
PICTURE = np.add.outer(np.arange(40, dtype=np.uint8), np.arange(48, dtype=np.uint8)) * 2


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def dataset(name: str) -> pydicom.FileDataset:
    return pydicom.dcmread(Path(str(get_testdata_file(name))))


def with_comment(stream: bytes) -> bytes:
    """A JPEG stream with a comment and an application's segment behind its begin."""
    comment = b"\xff\xfe" + (len(SECRET) + 2).to_bytes(2, "big") + SECRET
    exif = b"\xff\xe1" + (len(SECRET) + 8).to_bytes(2, "big") + b"Exif\0\0" + SECRET
    return stream[:2] + comment + exif + stream[2:]


@pytest.mark.parametrize("codec", ["jpeg8", "jpegls", "ljpeg"])
def test_comments_go_and_the_picture_stays(codec: str) -> None:
    encode, decode = getattr(imagecodecs, f"{codec}_encode"), getattr(imagecodecs, f"{codec}_decode")
    plain = encode(PICTURE)
    told = with_comment(plain)
    assert SECRET in told
    bare = without_comments(told)
    assert SECRET not in bare
    np.testing.assert_array_equal(decode(bare), decode(plain))


def test_comments_of_jpeg_2000_go() -> None:
    plain = imagecodecs.jpeg2k_encode(PICTURE, codecformat="j2k", reversible=True)
    end = 4 + int.from_bytes(plain[4:6], "big")
    told = plain[:end] + b"\xff\x64" + (len(SECRET) + 4).to_bytes(2, "big") + b"\0\1" + SECRET + plain[end:]
    bare = without_comments(told)
    assert SECRET not in bare
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(bare), PICTURE)


def test_what_is_no_picture_stays_as_it_is() -> None:
    for stream in (b"", b"\xff", b"\xff\xd8\xff", b"RLE", b"\xff\xd8\xff\xfe\xff\xff", bytes(range(256))):
        assert without_comments(stream).startswith(stream[:2])
    assert without_comments(bytes(range(256))) == bytes(range(256))


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_a_comment_in_a_file_is_taken_out(name: str) -> None:
    source, told = dataset(name), dataset(name)
    frames = list(generate_frames(source.PixelData, number_of_frames=1))
    told.PixelData = encapsulate([with_comment(frame) for frame in frames])
    assert SECRET in told.PixelData
    assert strip_comments(told)
    assert SECRET not in told.PixelData
    np.testing.assert_array_equal(frames_of(told), frames_of(source))
    assert not strip_comments(told)


def test_files_without_compression_are_left_alone() -> None:
    source = dataset("CT_small.dcm")
    before = source.PixelData
    assert not strip_comments(source)
    assert not clear_unused_bits(source)
    assert source.PixelData == before


@pytest.mark.parametrize("signed", [0, 1])
def test_overlays_in_unused_bits_are_cleared(signed: int) -> None:
    source = dataset("CT_small.dcm")
    values = np.arange(128 * 128, dtype=np.int32).reshape(128, 128) % 4096 - (2048 if signed else 0)
    source.BitsStored, source.HighBit, source.PixelRepresentation = 12, 11, signed
    plain = (values & 0xFFFF if signed else values).astype(np.uint16)
    source.PixelData = (plain ^ 0x8000).tobytes()
    source.add_new(0x60000102, "US", 15)
    assert clear_unused_bits(source)
    assert source.PixelData == plain.tobytes()
    assert not clear_unused_bits(source)


@pytest.mark.parametrize(
    "name",
    [
        *("CT_small.dcm", "MR_small_bigendian.dcm", "JPEG-lossy.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_2frame.dcm"),
        *("examples_palette.dcm", "examples_ybr_color.dcm", "SC_rgb_dcmtk_+eb+cy+s2.dcm", "MR_small_RLE.dcm"),
    ],
)
def test_boxes_are_black_and_the_rest_is_as_it_was(name: str, tmp_path: Path) -> None:
    source, result = dataset(name), dataset(name)
    before = frames_of(source)
    assert before is not None
    boxes = [Box(2, 3, 12, 20, 0), Box(15, 0, 18, 9, 0)]
    black_out(result, boxes)
    path = tmp_path / "a.dcm"
    result.save_as(path, enforce_file_format=True)
    read = pydicom.dcmread(path)
    assert read.file_meta.TransferSyntaxUID in (ExplicitVRLittleEndian, source.file_meta.TransferSyntaxUID)
    assert not read.file_meta.TransferSyntaxUID.is_encapsulated
    after = frames_of(read)
    assert after is not None
    black = np.zeros(before.shape[2:], bool)
    for box in boxes:
        black[box.top : box.bottom, box.left : box.right] = True
    np.testing.assert_array_equal(after[..., ~black], before[..., ~black])
    assert len(np.unique(after[..., black])) == 1
    assert read.SOPInstanceUID == source.SOPInstanceUID


def test_black_is_black_on_inverted_pictures() -> None:
    source = dataset("CT_small.dcm")
    source.PhotometricInterpretation = "MONOCHROME1"
    black_out(source, [Box(0, 0, 4, 4, 0)])
    assert (source.pixel_array[:4, :4] == source.pixel_array.max()).all()
