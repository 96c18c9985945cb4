"""What isn't read is refused in one line that names the file, what is wrong, and nobody."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from dicom_files.made import NAME, data_of, header, packed, plain, save, with_pixels, with_syntax
from pellucid.data.dicom.headers import MAX_INFLATED, open_header
from pellucid.data.images import read_image
from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError

STORED = np.arange(20, dtype="u2").reshape(4, 5)


def refusal(path: Path, index: int | None = None) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read_image(path, index)
    told = str(caught.value)
    assert told.startswith(f"can't read {path}: ")
    assert "\n" not in told
    assert not any(part in told for part in (*NAME.split("^"), "12345"))
    return told


def refused(tmp_path: Path, dataset: pydicom.Dataset, index: int | None = None) -> str:
    return refusal(save(tmp_path / "a.dcm", dataset), index)


@pytest.mark.parametrize(
    ("sop", "what"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.33", "a structured report"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "a radiotherapy structure set"),
        ("1.2.840.10008.5.1.4.1.1.481.5", "a radiotherapy plan"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "a waveform"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "a PDF"),
        ("1.2.840.10008.5.1.4.1.1.104.3", "a document"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "a presentation state"),
        ("1.2.840.10008.5.1.4.1.1.66", "raw data"),
        ("1.2.840.10008.5.1.4.1.1.66.1", "a spatial registration"),
        ("1.2.840.10008.1.3.10", "a DICOMDIR, the list of a folder"),
    ],
)
def test_files_without_pixels_say_what_they_are(tmp_path: Path, sop: str, what: str) -> None:
    told = refused(tmp_path, header(4, 5, SOPClassUID=sop))
    assert told.endswith(f": {what}, which holds no picture.")


def test_slides_are_out_of_scope(tmp_path: Path) -> None:
    dataset = plain(STORED, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6", Modality="SM")
    assert "a whole-slide image, which isn't read, nor are its thumbnails" in refused(tmp_path, dataset)


def test_an_image_without_pixels(tmp_path: Path) -> None:
    assert "it holds no (7FE0,0010) PixelData, or ends before it" in refused(tmp_path, header(4, 5))
    assert "(7FE0,0010) PixelData is empty" in refused(tmp_path, with_pixels(header(4, 5), b""))


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"Rows": 0}, "(0028,0010) Rows and Columns are 0 and 5"),
        ({"Rows": None}, "(0028,0010) Rows is missing"),
        ({"Columns": None}, "(0028,0011) Columns is missing"),
        ({"BitsAllocated": None}, "(0028,0100) BitsAllocated is missing"),
        ({"BitsAllocated": 12}, "(0028,0100) BitsAllocated is 12; 1 or 8 or 16 or 32 or 64 are read"),
        ({"BitsStored": 17}, "(0028,0101) BitsStored is 17, of 16 allocated"),
        ({"BitsStored": 0}, "(0028,0101) BitsStored is 0, of 16 allocated"),
        ({"HighBit": 16}, "(0028,0102) HighBit is 16, with 16 bits stored of 16"),
        ({"BitsStored": 12, "HighBit": 10}, "(0028,0102) HighBit is 10, with 12 bits stored of 16"),
        ({"NumberOfFrames": -1}, "(0028,0008) NumberOfFrames is -1"),
        ({"SamplesPerPixel": 3}, "(0028,0002) SamplesPerPixel is 3, but 1 in a picture that is MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB"}, "(0028,0002) SamplesPerPixel is 1, but 3 in a picture that is RGB"),
        ({"PhotometricInterpretation": "CMYK"}, "(0028,0004) PhotometricInterpretation is none of MONOCHROME1"),
        ({"Rows": 5}, "the file is truncated: 40 bytes of pixels, of 50"),
        ({"NumberOfFrames": 2}, "the file is truncated: 40 bytes of pixels, of 80"),
        ({"Rows": 65535, "Columns": 65535}, "the picture is 65535 × 65535 × 1; at most 67,108,864 samples are read"),
        ({"Rows": 8192, "Columns": 8192, "NumberOfFrames": 9}, "9 frames of 8192 × 8192 × 1; at most 536,870,912"),
        ({"Rows": 8192, "Columns": 8192, "NumberOfFrames": 3}, "402,653,184 bytes of pixels in a file of"),
    ],
)
def test_a_layout_that_cannot_be(tmp_path: Path, elements: dict[str, Any], told: str) -> None:
    dataset = plain(STORED)
    for keyword, value in elements.items():
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
    assert told in refused(tmp_path, dataset, 0 if "NumberOfFrames" in elements else None)


def test_real_pixels_of_another_size_and_not_finite(tmp_path: Path) -> None:
    dataset = header(4, 5, "f4", BitsStored=None, HighBit=None, PixelRepresentation=None)
    values = np.ones((4, 5), "f4")
    values[1, 2] = np.nan
    dataset.FloatPixelData = values.tobytes()
    assert "1 values are NaN or infinite" in refused(tmp_path, dataset)
    dataset.BitsAllocated = 16
    assert "(0028,0100) BitsAllocated is 16; 32 are read" in refused(tmp_path, dataset)


@pytest.mark.parametrize(
    ("syntax", "told"),
    [
        (
            "1.2.840.10008.1.2.4.102",
            "its pixels are a video (transfer syntax 1.2.840.10008.1.2.4.102)",
        ),
        ("1.2.840.10008.1.2.4.110", "its pixels are JPEG XL (transfer syntax 1.2.840.10008.1.2.4.110)"),
        ("1.2.840.10008.1.2.4.92", "multi-component JPEG 2000"),
        ("1.2.840.10008.1.2.4.94", "on a server (JPIP)"),
    ],
)
def test_syntaxes_that_nothing_decodes(tmp_path: Path, syntax: str, told: str) -> None:
    data = data_of(packed(header(4, 5, "u1", syntax=JPEG2000Lossless), [b"1234"]))
    (tmp_path / "a.dcm").write_bytes(with_syntax(data, syntax.encode()))
    assert told in refusal(tmp_path / "a.dcm")


def test_values_that_may_be_names_are_not_told(tmp_path: Path) -> None:
    data = data_of(packed(header(4, 5, "u1", syntax=JPEG2000Lossless, PatientID="1"), [b"1234"]))
    for said in (b"1.2.3.4.5", b"Nobody^Anna"):
        (tmp_path / "a.dcm").write_bytes(with_syntax(data, said))
        told = refusal(tmp_path / "a.dcm")
        shown = said.decode().strip() if said.startswith(b"1") else "no valid UID"
        assert f"its transfer syntax, {shown}, is unknown, so that no package can be named for it" in told
    data = data_of(plain(STORED))
    (tmp_path / "b.dcm").write_bytes(data.replace(b"MONOCHROME2 ", b"Nobody^Anna "))
    assert "(0028,0004) PhotometricInterpretation is none of MONOCHROME1" in refusal(tmp_path / "b.dcm")


@pytest.mark.parametrize(
    ("syntax", "module", "package"),
    [
        (JPEG2000Lossless, "openjpeg", "pylibjpeg-openjpeg"),
        (JPEGBaseline8Bit, "imagecodecs", "imagecodecs"),
    ],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, module: str, package: str
) -> None:
    path = save(tmp_path / "a.dcm", packed(header(4, 5, "u1", syntax=syntax), [b"\xff\xd8\xff\xd9"]))
    for name in [each for each in sys.modules if each.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert f"its pixels need the package {package}: pip install {package}" in refusal(path)


def test_a_syntax_that_gainsays_the_pixels(tmp_path: Path) -> None:
    dataset = packed(header(4, 5, "u1", syntax=JPEG2000Lossless), [b"1234"])
    (tmp_path / "a.dcm").write_bytes(with_syntax(data_of(dataset), ExplicitVRLittleEndian.encode()))
    assert "says that its pixels are plain, but they are encapsulated" in refusal(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(with_syntax(data_of(plain(STORED)), JPEG2000Lossless.encode()))
    assert "says that its pixels are encapsulated, but they aren't" in refusal(tmp_path / "b.dcm")


def test_a_stream_of_another_size_than_the_header_says(tmp_path: Path) -> None:
    import imagecodecs

    stream = bytes(imagecodecs.jpeg8_encode(np.zeros((8, 9), "u1")))
    told = "its header says 5 × 4 × 1, but its JPEG stream 9 × 8 × 1"
    assert told in refused(tmp_path, packed(header(4, 5, "u1", syntax=JPEGBaseline8Bit), [stream]))
    assert "no JPEG" in refused(tmp_path, packed(header(4, 5, "u1", syntax=JPEGBaseline8Bit), [b"12345678"]))


def test_empty_short_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    for data, told in (
        (b"", "the file is empty"),
        (b"hello", "not a DICOM file, or its header is damaged"),
        (bytes(2000), "not a DICOM file, or its header is damaged"),
        (bytes(128) + b"DICM", "not a DICOM file, or its header is damaged"),
        (bytes(128) + b"DICM" + bytes(3000), "its header is damaged (zeros)"),
    ):
        path.write_bytes(data)
        assert told in refusal(path)
    assert "No such file" in refusal(tmp_path / "missing.dcm")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = data_of(plain(STORED, syntax=ExplicitVRLittleEndian))
    path = tmp_path / "a.dcm"
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        refusal(path)
    path.write_bytes(data[:-1])
    assert "the file is truncated: 39 bytes of pixels, of 40" in refusal(path)


def test_a_deflated_bomb_stops_early(tmp_path: Path) -> None:
    data = data_of(plain(STORED, syntax="1.2.840.10008.1.2.1.99"))
    begin = 144 + struct.unpack_from("<L", data, 140)[0]
    body = zlib.decompress(data[begin:], -zlib.MAX_WBITS)
    pack = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = pack.compress(body) + b"".join(pack.compress(bytes(2**22)) for _ in range(80)) + pack.flush()
    path = tmp_path / "a.dcm"
    path.write_bytes(data[:begin] + bomb)
    assert len(bomb) < 2**21
    assert "its data set is deflated from more than" in refusal(path)
    path.write_bytes(data[: begin + 60])
    assert "the file is truncated" in refusal(path)
    path.write_bytes(data[:begin] + b"\xff" * 60)
    assert "its compressed data set is damaged" in refusal(path)
    assert MAX_INFLATED < 2**29


@pytest.mark.parametrize("stated", [False, True])
def test_sequences_within_sequences_without_end(tmp_path: Path, stated: bool) -> None:
    data = data_of(plain(STORED))
    place = data.index(b"\x28\x00\x02\x00US")
    if stated:
        inner = b""
        for _ in range(3000):
            inner = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, len(inner)) + inner
        inner = struct.pack("<HH", 0x0028, 0x0001) + inner[4:]
    else:
        level = struct.pack("<HH2sHL", 0x0028, 0x0001, b"SQ", 0, 2**32 - 1) + struct.pack(
            "<HHL", 0xFFFE, 0xE000, 2**32 - 1
        )
        inner = level * 5000
    path = tmp_path / "a.dcm"
    path.write_bytes(data[:place] + inner + data[place:])
    if stated:  # which nobody asks for, so that nobody follows them
        assert read_image(path).pixels.shape == (1, 4, 5)
    else:
        assert "sequences within sequences without end" in refusal(path)


def test_millions_of_empty_elements_end_soon(tmp_path: Path) -> None:
    data = data_of(plain(STORED))
    place = data.index(b"\x28\x00\x02\x00US")
    path = tmp_path / "a.dcm"
    path.write_bytes(data[:place] + struct.pack("<HH2sH", 0x0009, 0x0001, b"LO", 0) * 600_000)
    assert "elements without end" in refusal(path)


def test_headers_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a", plain(STORED, Modality="MR", ImagePositionPatient=[1, 2, 3]))
    header_ = open_header(path)
    assert (header_.Modality, header_.Rows, list(header_.ImagePositionPatient)) == ("MR", 4, [1, 2, 3])
    assert "PixelData" not in header_
    few = open_header(path, [0x00280010])
    assert few.Rows == 4
    assert "Modality" not in few
    for data in (b"", b"hello" * 100):
        path.write_bytes(data)
        with pytest.raises(DecodeError):
            open_header(path)
    with pytest.raises(DecodeError, match="No such file"):
        open_header(tmp_path / "missing")


def test_reading_takes_no_torch() -> None:
    code = "import sys; import pellucid.data.images; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
