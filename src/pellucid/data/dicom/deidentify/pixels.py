"""What lies in pixels: comments in compressed streams, overlays in unused bits, text in the picture itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pellucid.data.dicom.colour import coloured, palette_of
from pellucid.data.dicom.decode import stored_values
from pellucid.data.dicom.deidentify.burned_in import Box
from pellucid.data.dicom.headers import DicomFile
from pellucid.data.dicom.layout import PALETTE, layout_of

_PIXELS = 0x7FE00010
# what a picture may need to be decoded: JFIF's density, HP's colour transform, Adobe's colour
_KEPT_SEGMENTS = (0xE0, 0xE8, 0xEE)
_ALONE = (0x01, *range(0xD0, 0xDA))  # markers without a length
_JPEG_2000 = (b"\xff\x4f\xff\x51", 0xFF64, 0xFF90)  # its begin, its comment, its first tile


def strip_comments(dataset: Dataset) -> bool:
    """Take comments and foreign segments out of JPEG, JPEG-LS and JPEG 2000 streams; says whether there were any.

    What is decoded stays the same. Raises ValueError where the frames can't be parted.
    """
    if "PixelData" not in dataset or not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return False
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        return False
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    bare = [without_comments(frame) for frame in frames]
    if bare == frames:
        return False
    dataset.PixelData = encapsulate(bare)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
    return True


def without_comments(stream: bytes) -> bytes:
    """A JPEG, JPEG-LS or JPEG 2000 stream without comments and without segments of applications.

    >>> without_comments(b"\\xff\\xd8\\xff\\xfe\\x00\\x06Anna\\xff\\xd9")
    b'\\xff\\xd8\\xff\\xd9'
    """
    if stream.startswith(_JPEG_2000[0]):
        return _bare_jpeg_2000(stream)
    return _bare_jpeg(stream) if stream.startswith(b"\xff\xd8\xff") else stream


def _bare_jpeg(stream: bytes) -> bytes:
    kept, place = [stream[:2]], 2
    while place + 4 <= len(stream):
        if stream[place] != 0xFF:  # the coded picture, up to the next marker that isn't a restart
            end = _next_marker(stream, place)
            kept.append(stream[place:end])
            place = end
            continue
        marker = stream[place + 1]
        if marker in _ALONE or marker in (0x00, 0xFF):
            kept.append(stream[place : place + 1 if marker == 0xFF else place + 2])
            place += 1 if marker == 0xFF else 2
            continue
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker != 0xFE and (not 0xE0 <= marker <= 0xEF or marker in _KEPT_SEGMENTS):
            kept.append(stream[place:end])
        place = end
        if marker == 0xDA:
            end = _next_marker(stream, place)
            kept.append(stream[place:end])
            place = end
    return b"".join((*kept, stream[place:]))


def _next_marker(stream: bytes, place: int) -> int:
    """Where coded data ends: 0xFF with a byte from 0x80 on that isn't a restart (JPEG stuffs 0, JPEG-LS a bit)."""
    while (place := stream.find(b"\xff", place)) >= 0:
        following = stream[place + 1 : place + 2]
        if following and following[0] >= 0x80 and not 0xD0 <= following[0] <= 0xD7 and following[0] != 0xFF:
            return place
        place += 1
    return len(stream)


def _bare_jpeg_2000(stream: bytes) -> bytes:
    """Without the comments of the main header, on which no length elsewhere depends."""
    kept, place = [stream[:2]], 2
    while place + 4 <= len(stream):
        marker = int.from_bytes(stream[place : place + 2], "big")
        if marker == _JPEG_2000[2]:
            break
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker != _JPEG_2000[1]:
            kept.append(stream[place:end])
        place = end
    return b"".join((*kept, stream[place:]))


def clear_unused_bits(dataset: Dataset) -> bool:
    """Clear what lies beyond the stored bits of native pixels where overlays are there (PS3.5, 8.1.2).

    Says whether there was anything. Signed pixels get their sign there.
    """
    bits, stored = int(dataset.get("BitsAllocated") or 0), int(dataset.get("BitsStored") or 0)
    if "PixelData" not in dataset or dataset.file_meta.TransferSyntaxUID.is_encapsulated or bits not in (8, 16):
        return False
    places = [int(dataset.get((0x6000 + 2 * number, 0x0102), Dataset()).value or 0)
              for number in range(16) if (0x6000 + 2 * number, 0x0102) in dataset]  # fmt: skip
    if not any(places) or not 0 < stored < bits or int(dataset.get("HighBit") or 0) != stored - 1:
        return False
    order: Literal["<", ">"] = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    data = np.frombuffer(dataset.PixelData, f"{order}u{bits // 8}")
    cleared = data & ((1 << stored) - 1)
    if int(dataset.get("PixelRepresentation") or 0):
        cleared = np.where(data >> (stored - 1) & 1, cleared | (((1 << bits) - 1) ^ ((1 << stored) - 1)), cleared)
    if (cleared == data).all():
        return False
    dataset.PixelData = cleared.astype(data.dtype).tobytes()
    return True


def frames_of(dataset: Dataset) -> np.ndarray | None:
    """Stored values of all frames (F, C, H, W), colour as RGB; None where there are no pictures to look at.

    Raises DecodeError.
    """
    if "PixelData" not in dataset or int(dataset.get("BitsAllocated") or 0) == 1:
        return None
    element = dataset[_PIXELS]
    pixels = memoryview(element.value or b"")
    syntax = dataset.file_meta.TransferSyntaxUID
    file = DicomFile(dataset, syntax, len(pixels), "PixelData", element.VR, pixels, syntax.is_encapsulated)
    layout = layout_of(file)
    return stored_values(file, layout, range(layout.frames))


def seen(dataset: Dataset, frames: np.ndarray) -> np.ndarray:
    """Frames as a screen shows them: colours (F, 3, H, W) of a palette in place of its numbers."""
    if str(dataset.get("PhotometricInterpretation", "")) != PALETTE:
        return frames
    return coloured(frames, *_palette(dataset))


def black_out(dataset: Dataset, boxes: Sequence[Box]) -> None:
    """Blacken boxes in all frames; compressed pixels are then stored as they are (explicit little endian).

    Raises DecodeError.
    """
    frames = frames_of(dataset)
    if frames is None or not boxes:
        return
    frames = frames.copy()
    black = _black(dataset, frames)
    for box in boxes:
        frames[:, :, box.top : box.bottom, box.left : box.right] = black
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        syntax = dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    size = frames.dtype.itemsize
    order: Literal["<", ">"] = "<" if syntax.is_little_endian else ">"
    data = np.moveaxis(frames, 1, -1).astype(frames.dtype.newbyteorder(order)).tobytes()
    vr = "OW" if size > 1 or syntax.is_implicit_VR else "OB"
    dataset[_PIXELS] = DataElement(_PIXELS, vr, data + b"\0" * (len(data) % 2))
    dataset.BitsAllocated, dataset.HighBit = 8 * size, int(dataset.BitsStored) - 1
    if frames.shape[1] == 3:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)


def _black(dataset: Dataset, frames: np.ndarray) -> int:
    """The stored value that is shown darkest."""
    kind = str(dataset.PhotometricInterpretation)
    if kind == "MONOCHROME1":
        return int(frames.max())
    if kind == PALETTE:
        palette, first = _palette(dataset)
        return first + int(np.argmin(palette.astype(int).sum(axis=1)))
    return int(frames.min()) if int(dataset.get("PixelRepresentation") or 0) else 0


def _palette(dataset: Dataset) -> tuple[np.ndarray, int]:
    """Colours (N, 3) and the stored value of the first."""
    signed = bool(int(dataset.get("PixelRepresentation") or 0))
    return palette_of(dataset, signed=signed, little=dataset.file_meta.TransferSyntaxUID.is_little_endian)
