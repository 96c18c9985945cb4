"""One DICOM file as a MedicalImage: decoded pixels in the file's units, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from pellucid.data.dicom.colour import coloured, palette_of
from pellucid.data.dicom.decode import stored_values
from pellucid.data.dicom.elements import named, number, text
from pellucid.data.dicom.frames import functional, orientation_of, pixel_spacing, stack_of
from pellucid.data.dicom.headers import DicomFile, open_file
from pellucid.data.dicom.layout import GREY, PALETTE, Layout, layout_of
from pellucid.data.dicom.values import Transformation, transformation_of
from pellucid.data.dicom.voi import default_window, stated_windows
from pellucid.data.medical_image import MedicalImage
from pellucid.data.whole import DecodeError
from pellucid.data.windows import Window

_SLIDES = ("1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.77.1.8")
_WITHOUT_PIXELS = {
    "1.2.840.10008.1.3.10": "a DICOMDIR, the list of a folder",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose without its grid",
    "1.2.840.10008.5.1.4.1.1.481.3": "a radiotherapy structure set",
    "1.2.840.10008.5.1.4.1.1.481.5": "a radiotherapy plan",
    "1.2.840.10008.5.1.4.1.1.481.8": "a radiotherapy plan",
    "1.2.840.10008.5.1.4.1.1.104.1": "a PDF",
    "1.2.840.10008.5.1.4.1.1.104.2": "a document",
    "1.2.840.10008.5.1.4.1.1.66": "raw data",
    "1.2.840.10008.5.1.4.1.1.66.1": "a spatial registration",
    "1.2.840.10008.5.1.4.1.1.66.3": "a deformable registration",
    "1.2.840.10008.5.1.4.1.1.66.5": "a surface",
    "1.2.840.10008.5.1.4.1.1.67": "a real-world value mapping",
}
_KINDS = {
    "1.2.840.10008.5.1.4.1.1.88.": "a structured report",
    "1.2.840.10008.5.1.4.1.1.9.": "a waveform",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.104.": "a document",
    "1.2.840.10008.5.1.4.1.1.481.": "a radiotherapy object",
    "1.2.840.10008.5.1.4.39.": "a palette",
}


@dataclass(frozen=True, eq=False)
class Decoded:
    """Values (F, C, H, W) of some frames, and what the file says of them."""

    values: np.ndarray
    layout: Layout
    transformation: Transformation
    padding: np.ndarray | None
    notes: tuple[str, ...]


def decode_dicom(data: bytes, path: Path, index: int | None = None) -> MedicalImage:
    """The picture (C, H, W) of a file with one frame, or of the frame `index`; the volume (1, D, H, W) of many.

    Frames become a volume where the file says where each of them lies; they are then in order of position along the
    normal of the slices. Raises DecodeError where there are several frames and neither.
    """
    file = open_file(data)
    layout = check_pixels_there(file)
    header = file.header
    if index is not None and not 0 <= index < layout.frames:
        many = (
            "a picture, so that there is none" if layout.frames == 1 else f"the file holds {layout.frames} frames, none"
        )
        raise DecodeError(f"{many} with index {index}")
    stack = stack_of(header, layout.frames) if index is None and layout.frames > 1 else None
    if stack is None and index is None and layout.frames > 1:
        pick = f"pick one with index= (--index), from 0 to {layout.frames - 1}"
        raise DecodeError(f"the file holds {layout.frames} frames, and doesn't say where they lie; {pick}")
    order = stack.order if stack is not None else (index or 0,)
    decoded = decode_frames(file, layout, order)
    middle = order[len(order) // 2]
    windows, window, notes = windows_of(file, decoded, middle)
    spacing, note = pixel_spacing(header, order[0])
    pixels = decoded.values[0] if stack is None else np.moveaxis(decoded.values, 1, 0)
    return MedicalImage(
        np.require(pixels, requirements=["C", "W"]),
        spacing if stack is None else stack.spacing,
        orientation_of(header, order[0]),
        text(header, "Modality") or None,
        path,
        affine=None if stack is None else stack.affine,
        units=decoded.transformation.units,
        laterality=laterality_of(header, middle),
        window=window,
        inverted=layout.photometric == "MONOCHROME1",
        files=(path,),
        notes=(*decoded.notes, *notes, *([note] if note else [])),
        windows=windows,
    )


def check_pixels_there(file: DicomFile) -> Layout:
    """The layout of a file's pixels; raises DecodeError that says what the file is where it has none, or a slide."""
    kind = text(file.header, "SOPClassUID") or text(file.header.file_meta, "MediaStorageSOPClassUID")
    if kind in _SLIDES:
        raise DecodeError("a whole-slide image, which isn't read, nor are its thumbnails")
    if file.keyword is None:
        what = _WITHOUT_PIXELS.get(kind) or next(
            (said for begin, said in _KINDS.items() if kind.startswith(begin)), None
        )
        if what is None and "DirectoryRecordSequence" in file.header:
            what = _WITHOUT_PIXELS["1.2.840.10008.1.3.10"]
        if what is not None:
            raise DecodeError(f"{what}, which holds no picture")
        raise DecodeError(f"it holds no {named('PixelData')}, or ends before it")
    if not len(file.pixels):
        raise DecodeError(f"{named(file.keyword)} is empty")
    return layout_of(file)


def decode_frames(file: DicomFile, layout: Layout, places: Sequence[int]) -> Decoded:
    """The frames at `places`, decoded and in the file's units."""
    header, little = file.header, file.little
    stored = stored_values(file, layout, places)
    if layout.photometric == PALETTE:
        palette, first = palette_of(header, signed=layout.signed, little=little)
        return Decoded(coloured(stored, palette, first), layout, Transformation(), None, ())
    if layout.photometric not in GREY:
        return Decoded(stored, layout, Transformation(), None, ())
    keyword = f"{file.keyword}PaddingValue".replace("DataPadding", "Padding")
    padding = _padding(header, stored, keyword, signed=layout.signed)
    notes: list[str] = []
    if padding is not None:
        notes.append(f"{int(padding.sum()):,} pixels are padding, by {named(keyword)}")
    transforms = [
        transformation_of(header, place, signed=layout.signed, little=little)
        for place in (places if _own_values(header) else places[:1])
    ]
    alike = all((each.slope, each.intercept) == (transforms[0].slope, transforms[0].intercept) for each in transforms)
    if alike:
        values = transforms[0].apply(stored)
    else:
        each = [one.apply(frame) for one, frame in zip(transforms, stored, strict=True)]
        values = np.stack(each).astype(np.result_type(*each, np.float32), copy=False)
    return Decoded(values, layout, transforms[0], padding, (*notes, *transforms[0].notes))


def _own_values(header: Dataset) -> bool:
    """Whether frames may be scaled one by one."""
    return "PerFrameFunctionalGroupsSequence" in header


def _padding(header: Dataset, stored: np.ndarray, keyword: str, *, signed: bool) -> np.ndarray | None:
    """Where stored values are padding (PS3.3, C.7.5.1.1.2); None where none are.

    They keep their value, as in other readers, and are only left out where a window is found by percentiles.
    """
    try:
        low = number(header, keyword)
        high = number(header, keyword.replace("PaddingValue", "PaddingRangeLimit"), low)
    except DecodeError:
        return None
    if low is None or high is None:
        return None
    if signed:  # which not every writer has noticed
        low, high = (end - 2**16 if 2**15 <= end < 2**16 and stored.itemsize == 2 else end for end in (low, high))
    found: np.ndarray = (stored >= min(low, high)) & (stored <= max(low, high))
    return found if found.any() else None


def windows_of(
    file: DicomFile, decoded: Decoded, frame: int
) -> tuple[tuple[Window, ...], Window | None, tuple[str, ...]]:
    """All windows that a file states, the one to show it by, and notes; none for colour."""
    if decoded.layout.photometric not in GREY:
        return (), None, ()
    layout, transformation = decoded.layout, decoded.transformation
    stated, notes = stated_windows(
        file.header, frame, transformation, signed=layout.signed, little=file.little
    )  # fmt: skip
    if stated:
        return stated, stated[0], notes
    modality = text(file.header, "Modality") or None
    values = decoded.values
    limits = (float(values.min()), float(values.max())) if layout.real else transformation.limits(layout.limits)
    return (), default_window(modality, values, limits, decoded.padding), notes


def laterality_of(header: Dataset, frame: int) -> str | None:
    """Which side of the body: "L", "R" or "B" for both; None where that isn't stated."""
    anatomy = functional(header, frame, "FrameAnatomySequence")
    sides = [text(header, "ImageLaterality"), text(header, "Laterality")]
    if anatomy is not None:
        sides.insert(0, text(anatomy, "FrameLaterality"))
    return next((side for side in sides if side in ("L", "R", "B")), None)
