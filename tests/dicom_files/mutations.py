"""Damaged DICOM and NIfTI files from whole ones, each told by its number: the same number, the same bytes."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement

SECRET = b"SECRETNAME"
SEED = 20

Generator = np.random.Generator
Element = tuple[int, int, int, bool]  # where it begins, where its value begins, its length, whether its VR is stated

_LAYOUT = {  # elements that say how pixels are stored, and their places in the dictionary
    0x00280002: "US", 0x00280006: "US", 0x00280008: "IS", 0x00280010: "US", 0x00280011: "US", 0x00280100: "US",
    0x00280101: "US", 0x00280102: "US", 0x00280103: "US", 0x00281050: "DS", 0x00281051: "DS", 0x00281052: "DS",
    0x00281053: "DS", 0x00280030: "DS", 0x00200032: "DS", 0x00200037: "DS",
}  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 63, 64, 255, 256, 4096, 8192, 16384, 32768, 65535)
_TEXTS = (
    b"",
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e400",
    b"abc",
    b"1\\2\\3",
    b"99999999",
    b"2147483648",
    b"1e-300",
    b"\\\\",
)
_VRS = (
    b"OB",
    b"OW",
    b"OF",
    b"OV",
    b"SQ",
    b"UN",
    b"UT",
    b"DS",
    b"IS",
    b"US",
    b"FD",
    b"AT",
    b"PN",
    b"ZZ",
    b"\0\0",
    b"DA",
)


def mutated(number: int, dicom: Sequence[Sequence[bytes]], nifti: Sequence[bytes]) -> tuple[str, bytes]:
    """The name and the bytes of one damaged file; a fifth are NIfTI, the others of each transfer syntax alike often."""
    generator = np.random.default_rng([SEED, number])
    if number % 5 == 4:
        return _nifti(generator, nifti)
    files = dicom[generator.integers(len(dicom))]
    data = bytearray(files[generator.integers(len(files))])
    for _ in range(generator.choice([1, 1, 1, 2, 3, 5])):
        change = _CHANGES[generator.integers(len(_CHANGES))]
        data = change(generator, data, files)
    if generator.random() < 0.05:
        data = _deflated(generator, data)
    return ("a.dcm" if generator.random() < 0.8 else "without-ending"), bytes(data)


def dicom_bases(folders: Sequence[Path], most: int = 60_000) -> list[list[bytes]]:
    """Small files by their transfer syntax, with a name planted where a patient's would be."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and path.stat().st_size <= most and path.suffix not in (".txt", ".json", ".icc", ".dump"):
            try:
                dataset = pydicom.dcmread(path)
                dataset.PatientName = SECRET.decode()
                file = io.BytesIO()
                dataset.save_as(file)
            except Exception:  # noqa: BLE001 - of files that pydicom can't write again, others will do
                continue
            kind = dataset.file_meta.get("TransferSyntaxUID", "") if "PixelData" in dataset else ""
            found.setdefault(kind, []).append(file.getvalue())
    return list(found.values())


def nifti_bases() -> list[bytes]:
    """Both versions, both orders of bytes, several types, plain and compressed."""
    found = []
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        for dtype in ("uint8", ">i2", "float32", "int32"):
            values = np.arange(4 * 5 * 6 * 2).astype(dtype).reshape(4, 5, 6, 2)
            data = kind(values, np.diag([1.0, 2, 3, 1]), dtype=values.dtype).to_bytes()
            found += [data, gzip.compress(data)]
    return found


def elements_of(data: bytes) -> list[Element]:
    """The top-level elements of a file, as far as pydicom follows them."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        raw = [dataset.get_item(tag) for tag in list(dataset.keys())]
    except Exception:  # noqa: BLE001 - of what is too damaged for that, any bytes are changed
        return []
    found = []
    for each in raw:
        if isinstance(each, RawDataElement) and each.value_tell >= 8:
            stated = not each.is_implicit_VR and each.VR is not None
            long = stated and data[each.value_tell - 6 : each.value_tell - 4] == b"\0\0" and each.VR in _LONG
            found.append((each.value_tell - (12 if long else 8), each.value_tell, each.length, stated))
    return [each for each in found if each[0] >= 0 and each[1] <= len(data)]


_LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")


def _bytes(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """A few bytes of the header."""
    for _ in range(generator.integers(1, 9)):
        data[generator.integers(0, min(len(data), 3000))] = generator.integers(0, 256)
    return data


def _anywhere(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """A few bytes anywhere, or a run of them."""
    place, length = int(generator.integers(len(data))), int(generator.choice([1, 2, 4, 16, 200]))
    data[place : place + length] = generator.bytes(min(length, len(data) - place))
    return data


def _stream(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """A few bytes of the last element, which is that of pixels."""
    places = elements_of(bytes(data))
    start = min(places[-1][1] if places else 0, len(data) - 1)
    near = min(len(data), start + 200 if generator.random() < 0.5 else len(data))
    for _ in range(generator.integers(1, 12)):
        data[generator.integers(start, near)] = generator.choice([0, 255, generator.integers(0, 256)])
    return data


def _cut(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    return data[: generator.integers(1, len(data) + 1)]


def _part(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """A part left out, or written twice."""
    start = int(generator.integers(len(data)))
    end = start + int(generator.integers(1, 400))
    return data[:start] + data[end:] if generator.random() < 0.5 else data[:end] + data[start:]


def _length(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    for begin, start, length, stated in _some(generator, data):
        new = int(generator.choice([0, 1, 3, length + 1, length * 2, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE]))
        if start - begin == 8 and stated:
            struct.pack_into("<H", data, start - 2, new & 0xFFFF)
        else:
            struct.pack_into("<L", data, start - 4, new & 0xFFFFFFFF)
    return data


def _twice(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """An element written again, somewhere else."""
    places = elements_of(bytes(data))
    if len(places) < 2:
        return data
    begin, start, length, _stated = places[generator.integers(len(places))]
    copied = data[begin : start + min(length, 4000)]
    target = places[generator.integers(len(places))][0]
    return data[:target] + copied * int(generator.choice([1, 2, 50])) + data[target:]


def _vr(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    for begin, _start, _length, stated in _some(generator, data):
        if stated:
            data[begin + 4 : begin + 6] = _VRS[generator.integers(len(_VRS))]
    return data


def _layout(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """What says how pixels are stored."""
    for _ in range(generator.integers(1, 4)):
        for begin, start, length, _stated in elements_of(bytes(data)):
            group, element = struct.unpack_from("<HH", data, begin)
            kind = _LAYOUT.get(group << 16 | element)
            if kind is None or generator.random() > 0.25:
                continue
            if kind == "US" and length == 2:
                struct.pack_into("<H", data, start, int(_NUMBERS[generator.integers(len(_NUMBERS))]))
            elif kind != "US":
                said = _TEXTS[generator.integers(len(_TEXTS))]
                data[start : start + length] = said.ljust(length)[:length]
    return data


def _nested(generator: Generator, data: bytearray, _: Sequence[bytes]) -> bytearray:
    """Sequences within sequences, with and without lengths, before some element."""
    places = elements_of(bytes(data))
    if not places:
        return data
    depth = int(generator.choice([1, 5, 50, 300, 2000]))
    stated = places[0][3]
    opened = struct.pack("<HH", 0x0040, 0xA730) + (b"SQ\0\0" if stated else b"") + b"\xff\xff\xff\xff"
    begun = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    if generator.random() < 0.5:
        inner = (opened + begun) * depth
        if generator.random() < 0.7:
            inner += (struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)) * depth
    else:
        inner = b""
        for _ in range(min(depth, 300)):
            item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
            inner = opened[:-4] + struct.pack("<L", len(item)) + item
        keyword = int(generator.choice([0x00283000, 0x52009229, 0x52009230, 0x00283010, 0x00540016, 0x00409096]))
        inner = struct.pack("<HH", keyword >> 16, keyword & 0xFFFF) + inner[4:]
    target = places[generator.integers(len(places))][0]
    return data[:target] + inner + data[target:]


def _spliced(generator: Generator, data: bytearray, others: Sequence[bytes]) -> bytearray:
    """The beginning of one file and the end of another."""
    other = others[generator.integers(len(others))]
    places, theirs = elements_of(bytes(data)), elements_of(other)
    if not places or not theirs:
        return data
    return data[: places[generator.integers(len(places))][0]] + other[theirs[generator.integers(len(theirs))][0] :]


def _deflated(generator: Generator, data: bytearray) -> bytearray:
    """The data set deflated, damaged or with very many zeros behind it."""
    if data[128:132] != b"DICM":
        return data
    try:
        meta = pydicom.filereader.read_preamble(file := io.BytesIO(bytes(data)), False), file
        about = pydicom.filereader._read_file_meta_info(meta[1])
    except Exception:  # noqa: BLE001 - what is damaged already stays so
        return data
    about.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    head = pydicom.filebase.DicomBytesIO()
    try:
        pydicom.filewriter.write_file_meta_info(head, about)
    except Exception:  # noqa: BLE001 - likewise
        return data
    body = _blocks(bytes(data[meta[1].tell() :]))
    body += _blocks(bytes(2**20)) * int(generator.choice([0, 0, 0, 0, 1, 300])) + b"\3\0"
    if generator.random() < 0.3:
        body[generator.integers(len(body))] ^= 1 << generator.integers(8)
    return bytearray(bytes(128) + b"DICM" + head.getvalue()) + body


def _blocks(data: bytes) -> bytearray:
    """Deflated data that others may follow, the last of them two bytes that end the whole."""
    pack = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return bytearray(pack.compress(data) + pack.flush(zlib.Z_FULL_FLUSH))


def _some(generator: Generator, data: bytearray) -> list[Element]:
    places = elements_of(bytes(data))
    count = min(len(places), int(generator.integers(1, 4)))
    return [places[each] for each in generator.choice(len(places), count, replace=False)] if places else []


_CHANGES: tuple[Callable[[Generator, bytearray, Sequence[bytes]], bytearray], ...] = (
    *(
        _bytes,
        _anywhere,
        _stream,
        _stream,
        _cut,
        _part,
        _length,
        _length,
        _twice,
        _vr,
        _layout,
        _layout,
        _nested,
        _spliced,
    ),
)


def _nifti(generator: Generator, bases: Sequence[bytes]) -> tuple[str, bytes]:
    data = bytearray(bases[generator.integers(len(bases))])
    packed = data[:2] == b"\x1f\x8b"
    if packed and generator.random() < 0.7:
        data = bytearray(gzip.decompress(data))
    for _ in range(generator.integers(1, 6)):
        place = int(generator.integers(0, min(560, len(data))))
        if generator.random() < 0.5:
            data[place] = generator.integers(0, 256)
        else:
            field = generator.choice([b"\xff" * 4, b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\x7f", bytes(8), b"\0\x40"])
            data[place : place + len(field)] = field
    if generator.random() < 0.2:
        data = data[: generator.integers(1, len(data) + 1)]
    if generator.random() < 0.05:
        data += bytes(2**26)
    if packed and data[:2] != b"\x1f\x8b":
        data = bytearray(gzip.compress(bytes(data), 1))
        if generator.random() < 0.2:
            data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    return ("a.nii.gz" if packed else "a.nii"), bytes(data)
