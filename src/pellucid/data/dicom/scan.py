"""What a DICOM file says before its pixels, as far as a series needs it: one pass, few elements, no conversions."""

from __future__ import annotations

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pellucid.data.dicom.headers import DEFLATED, DICOM_ENDINGS, open_header
from pellucid.data.whole import DecodeError

HEAD = 2**16  # bytes that hold nearly every header
KEPT = 2**15  # headers, of about two kilobytes each
DAMAGED, EMPTY, FOREIGN = "its DICOM header is damaged", "the file is empty", "not a DICOM file"
PROJECTIONS = (
    "CR", "DX", "MG", "IO", "PX", "RF", "XA", "US", "ES", "SM", "XC", "GM", "OP", "RG", "TG", "DG", "LS", "BI",
)  # fmt: skip
"""Modalities whose series are pictures, not slices."""
IMAGING = ("CT", "MR", "PT", "NM", "OPT", "SC", "OT", *PROJECTIONS)
DIRECTORY = "1.2.840.10008.1.3.10"  # of a DICOMDIR

# what tells volumes at the same place apart, the likeliest first
TELLING = (
    "EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "DiffusionGradientOrientation",
    "ImageType", "TriggerTime", "FrameReferenceTime", "KVP", "ConvolutionKernel", "SliceThickness", "InversionTime",
    "AcquisitionNumber", "AcquisitionDateTime", "AcquisitionTime", "ContentTime",
)  # fmt: skip
_UNPLAIN = ("ModalityLUTSequence", "RealWorldValueMappingSequence")  # which change values by more than a slope
_OTHERS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "Modality",
    "SeriesDescription", "FrameOfReferenceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SpacingBetweenSlices", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
    *_UNPLAIN,
)  # fmt: skip
_PRIVATE = ((0x0019, 0x100C), (0x0043, 0x1039), (0x2001, 0x1003))  # the b-value of Siemens, GE and Philips
_RESCALE = ("RescaleSlope", "RescaleIntercept")
_TAGS = {name: Tag(name) for name in (*TELLING, *_OTHERS)}
_B_VALUES = [Tag(each) for each in _PRIVATE]
_WANTED: list[BaseTag | int] = [*_TAGS.values(), *_B_VALUES]
_PIXELS = 0x7FE00010
_FIRST_OF_PIXELS = 0x7FE00008  # pixels as float and double come before those as integers
_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # of a file without preamble: groups 2 and 8, in either byte order


Pixels = tuple[int, int, int]  # tag, offset and length of their element
_NOWHERE = (0, 0, 0)

_lock = threading.Lock()
_kept: OrderedDict[tuple[str, int, int, int], Header | None] = OrderedDict()


class NoPictureError(DecodeError):
    """A DICOM file of another kind, such as a report."""


class _NoHeaderError(Exception):
    """Nothing of a DICOM header is there."""


@dataclass(frozen=True)
class Skipped:
    """A file that isn't a DICOM image: "other" objects, "damaged" ones, and "foreign" files that aren't DICOM."""

    path: Path
    reason: str
    kind: Literal["other", "damaged", "foreign"]


@dataclass(frozen=True, slots=True, eq=False)
class Native:
    """Where the pixels of an uncompressed file lie, and how a stored value becomes one in units."""

    offset: int
    length: int
    bits: int  # allocated
    stored: int
    signed: bool
    slope: float
    intercept: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Header:
    """What a file says; "" and None for what it doesn't. `telling` holds TELLING's raw values, then b-values."""

    path: Path
    sop_class: str
    sop: str
    study: str
    series: str
    patient_id: str
    patient_name: str
    modality: str
    description: str
    frame_of_reference: str
    image_type: tuple[str, ...]
    number: int
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    between: float | None
    telling: tuple[bytes, ...]
    native: Native | None


class Elements:
    """The wanted elements of a file, as bytes."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def raw(self, tag: BaseTag) -> bytes:
        element: Any = self.dataset.get_item(tag)
        value = element.value if isinstance(element, RawDataElement) else None
        return value if isinstance(value, bytes) else b""

    def meta(self, tag: int) -> str:
        """A UID of the file meta information."""
        element: Any = self.dataset.file_meta.get_item(tag)
        value = getattr(element, "value", b"") or b""
        return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ")

    def text(self, name: str) -> str:
        return self.raw(_TAGS[name]).decode("ascii", "replace").strip("\0 ")

    def numbers(self, name: str, count: int) -> tuple[float, ...] | None:
        """Decimal text as so many finite numbers; None where it is anything else."""
        parts = self.text(name).split("\\")
        try:
            values = tuple(float(part) for part in parts)
        except ValueError:
            return None
        return values if len(values) == count and all(map(math.isfinite, values)) else None

    def number(self, name: str, default: float) -> float:
        found = self.numbers(name, 1)
        return default if found is None else found[0]

    def short(self, name: str, default: int) -> int:
        """An unsigned 16-bit number."""
        element: Any = self.dataset.get_item(_TAGS[name])
        if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes) or len(element.value) < 2:
            return default
        return int.from_bytes(element.value[:2], "little" if element.is_little_endian else "big")

    def words(self, name: str) -> str:
        """Text in whatever characters the file uses."""
        if not self.raw(_TAGS[name]):
            return ""
        try:
            return " ".join(str(self.dataset[_TAGS[name]].value).split())
        except Exception:  # noqa: BLE001 - whatever pydicom raises on characters that aren't of the set
            return repr(self.raw(_TAGS[name]))


def headers_of(
    files: Iterable[Path], advance: Callable[[], object] = lambda: None
) -> tuple[list[Header], list[Skipped]]:
    """The headers of DICOM images among files, in their order, and what the others are; DICOMDIRs are neither.

    Headers are kept while their files stay as they are, up to KEPT of them, since volumes of one folder are read one
    by one.
    """
    headers, skipped = [], []
    for file in files:
        try:
            header = _known(file)
        except NoPictureError as error:
            skipped.append(Skipped(file, str(error), "other"))
        except DecodeError as error:
            damaged = file.name.lower().endswith(DICOM_ENDINGS) or str(error) not in (EMPTY, FOREIGN)
            bare = str(error) == EMPTY and (not file.suffix or file.suffix[1:].isdecimal())
            skipped.append(Skipped(file, str(error), "damaged" if damaged or bare else "foreign"))
        else:
            if header is not None:
                headers.append(header)
        advance()
    return headers, skipped


def forget_headers() -> None:
    """Forget what `headers_of` keeps."""
    with _lock:
        _kept.clear()


def _known(path: Path) -> Header | None:
    """As `read_header`, kept while the file's size and time stay."""
    try:
        state = path.stat()
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    key = (str(path), state.st_size, state.st_mtime_ns, state.st_ino)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    header = read_header(path)
    with _lock:
        _kept[key] = header
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return header


def read_header(path: Path) -> Header | None:
    """The header of a file, or None of a DICOMDIR.

    Raises DecodeError with the reason: not DICOM, damaged, or without a picture (NoPictureError).
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD)
            _check(head)
            if DEFLATED.encode() in head[:1024]:  # which unpacks within bounds
                return _checked(path, head, (open_header(path, _WANTED), _NOWHERE))
            found = _parsed(io.BytesIO(head)) if len(head) == HEAD else None
            if found is None or not found[1][0]:  # the pixels come later, if at all
                handle.seek(0)
                found = _parsed(io.BytesIO(head) if len(head) < HEAD else handle)
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    return _checked(path, head, found)


def _checked(path: Path, head: bytes, found: tuple[Dataset, Pixels] | None) -> Header | None:
    if found is None:
        raise DecodeError(DAMAGED)
    dataset, pixels = found
    elements = Elements(dataset)
    if elements.meta(0x00020002) == DIRECTORY:
        return None
    try:
        return _header(path, elements, pixels)
    except _NoHeaderError:
        raise DecodeError(DAMAGED if head[128:132] == b"DICM" else FOREIGN) from None


def _check(head: bytes) -> None:
    if not head:
        raise DecodeError(EMPTY)
    if head[128:132] != b"DICM" and (head[:2] not in _STARTS or len(head) < 132):
        raise DecodeError(FOREIGN)


def _parsed(source: BinaryIO) -> tuple[Dataset, Pixels] | None:
    """The elements before the pixels, and those pixels' tag, offset and length (zeros where none were reached).

    None where they can't be parsed, since the source ends too early or is damaged.
    """
    pixels = _NOWHERE

    def stop(tag: BaseTag, _representation: str | None, length: int) -> bool:
        nonlocal pixels
        if tag < _FIRST_OF_PIXELS:
            return False
        pixels = (int(tag), source.tell(), length)
        return True

    try:
        return read_partial(source, stop, force=True, specific_tags=_WANTED), pixels
    except Exception:  # noqa: BLE001  # whatever pydicom raises on damaged headers
        return None


def _header(path: Path, elements: Elements, pixels: Pixels) -> Header:
    text, numbers, short = elements.text, elements.numbers, elements.short
    rows, columns = short("Rows", 0), short("Columns", 0)
    modality = text("Modality")
    series = text("SeriesInstanceUID")
    if not series and not text("SOPClassUID") and not modality and not rows:
        raise _NoHeaderError
    if not rows or not columns:
        if modality in IMAGING:
            raise DecodeError(f"it holds no picture, or ends before it ({modality})")
        raise NoPictureError(f"it holds no picture{f' ({modality})' if modality.isalnum() else ''}")
    telling = [elements.raw(_TAGS[name]).strip(b"\0 ") for name in TELLING]
    return Header(
        path,
        text("SOPClassUID"),
        text("SOPInstanceUID"),
        text("StudyInstanceUID"),
        series or text("SOPInstanceUID") or str(path),  # without one it is no part of any
        elements.words("PatientID"),
        elements.words("PatientName"),
        modality,
        elements.words("SeriesDescription"),
        text("FrameOfReferenceUID"),
        tuple(part.strip() for part in text("ImageType").upper().split("\\")),
        int(elements.number("InstanceNumber", 0)),
        rows,
        columns,
        max(1, int(elements.number("NumberOfFrames", 1))),
        short("SamplesPerPixel", 1),
        text("PhotometricInterpretation"),
        numbers("ImagePositionPatient", 3),
        numbers("ImageOrientationPatient", 6),
        numbers("PixelSpacing", 2),
        (numbers("SpacingBetweenSlices", 1) or (None,))[0],
        (*telling, b"\\".join(elements.raw(tag) for tag in _B_VALUES)),
        _native(elements, pixels, rows * columns),
    )


def _native(elements: Elements, pixels: Pixels, count: int) -> Native | None:
    """Where to read the pixels without parsing the file again; None where they need more than a slope."""
    tag, offset, length = pixels
    bits, stored = elements.short("BitsAllocated", 0), elements.short("BitsStored", 0)
    syntax = elements.meta(0x00020010)
    slope, intercept = elements.number("RescaleSlope", 1.0), elements.number("RescaleIntercept", 0.0)
    damaged = any(elements.text(name) and elements.numbers(name, 1) is None for name in _RESCALE)
    plain = (
        tag == _PIXELS
        and syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        and bits in (8, 16)
        and 0 < stored <= bits
        and elements.short("HighBit", stored - 1) == stored - 1
        and elements.short("SamplesPerPixel", 1) == 1
        and elements.number("NumberOfFrames", 1) == 1
        and elements.text("PhotometricInterpretation").startswith("MONOCHROME")
        and count * bits // 8 <= length < 0xFFFFFFFF
        and all(elements.dataset.get_item(_TAGS[name]) is None for name in _UNPLAIN)
        and elements.text("Modality") in ("CT", "MR")
        and slope != 0
        and not damaged
    )
    if not plain:
        return None
    return Native(
        offset, count * bits // 8, bits, stored, elements.short("PixelRepresentation", 0) == 1, slope, intercept
    )
