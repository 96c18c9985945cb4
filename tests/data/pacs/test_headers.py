"""Headers of DICOM files: the UIDs that pydicom reads, or one reason; whatever a hostile file says."""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom.dsutils import encode_file_meta, split_dataset

from pellucid.data.pacs.headers import read_header, read_stored
from pellucid.data.whole import DecodeError
from servers.studies import slice_of, write


def test_real_files_have_the_uids_that_pydicom_reads(shared_data: Path) -> None:
    read = 0
    for path in sorted((shared_data / "dicom_nifti" / "dicom").rglob("*.dcm")):
        data = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        wanted = [str(data.get(name, "")) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        try:
            header = read_header(path)
        except DecodeError:
            assert path.read_bytes()[128:132] != b"DICM" or not all(wanted)
            continue
        assert [header.entry.study, header.entry.series, header.entry.uid] == wanted
        assert header.entry.sop_class == data.SOPClassUID
        assert header.transfer_syntax == data.file_meta.TransferSyntaxUID
        assert header.manufacturer == str(data.get("Manufacturer") or "").strip()
        read += 1
    assert read > 25


def test_damaged_headers_give_uids_or_one_reason(tmp_path: Path) -> None:
    (path,) = write(tmp_path, slice_of("h", 0))
    data, generator, reasons = path.read_bytes(), np.random.default_rng(0), set()
    for _ in range(500):
        broken = bytearray(data)
        for _ in range(generator.integers(1, 6)):
            broken[generator.integers(128, 900)] = generator.integers(256)
        path.write_bytes(broken)
        try:
            read_header(path)
        except DecodeError as error:
            reasons.add(str(error))
    assert reasons <= {
        "not a DICOM file",
        "its header is damaged",
        "its header lacks the UIDs of class, instance, series or study",
    }


def peak(path: Path) -> tuple[bool, int]:
    """Whether a header was read, and the memory that it took."""
    tracemalloc.start()
    try:
        read_header(path)
    except DecodeError:
        return False, tracemalloc.get_traced_memory()[1]
    else:
        return True, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    (path,) = write(tmp_path, slice_of("h", 0))
    meta, offset = split_dataset(path)
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = pack.compress(path.read_bytes()[offset:]) + b"".join(pack.compress(bytes(2**20)) for _ in range(200))
    path.write_bytes(bytes(128) + b"DICM" + encode_file_meta(FileMetaDataset(meta)) + packed + pack.flush())
    assert path.stat().st_size < 400_000
    read, memory = peak(path)
    assert read
    assert memory < 10_000_000


@pytest.mark.parametrize("tag", [b"\x08\x00\x16\x00UI", b"\x02\x00\x10\x00UI"])
def test_a_value_as_long_as_its_file_is_not_read(tag: bytes, tmp_path: Path) -> None:
    (path,) = write(tmp_path, slice_of("h", 0))
    data = bytearray(path.read_bytes())
    place = data.index(tag)
    data[place + 4 : place + 12] = b"OB\0\0" + (150_000_000).to_bytes(4, "little")
    path.write_bytes(data + bytes(150_000_000))
    read, memory = peak(path)
    assert not read
    assert memory < 10_000_000


def test_a_stored_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path, slice_of("h", 0), slice_of("h", 0))
    assert read_stored(one).digest == read_stored(other).digest
    other.write_bytes(other.read_bytes()[:-1] + b"x")
    assert read_stored(one).digest != read_stored(other).digest
    assert read_stored(one).entry == read_stored(other).entry
