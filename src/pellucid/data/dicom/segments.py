"""A DICOM Segmentation as a map of labels (PS3.3, A.51 and C.8.20): what is marked, and where it lies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from pellucid.data.dicom.decode import stored_values
from pellucid.data.dicom.elements import item, number, text, whole
from pellucid.data.dicom.frames import functional, orientation_of, pixel_spacing, position_of
from pellucid.data.dicom.geometry import affine_of, normal_of
from pellucid.data.dicom.headers import DicomFile, open_file, open_header
from pellucid.data.dicom.read import check_pixels_there
from pellucid.data.medical_image import MedicalImage
from pellucid.data.nifti import MAX_VOXELS
from pellucid.data.whole import DecodeError

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second holds labels as they are

_UID = re.compile(rb"(?<![0-9.])1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.[47](?![0-9.])")
_TURNED = 1e-3  # of a direction cosine
_NEAR = 0.01  # mm
_OFF = 0.02  # of a step, by which frames may lie off the grid
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_SERIES_TAGS = (0x00080016, 0x00081115)


def is_segmentation(data: bytes) -> bool:
    """Whether a DICOM file says that it is a Segmentation, by its file meta information."""
    return _UID.search(data, 0, 1024) is not None


def decode_segments(data: bytes, path: Path, affine: np.ndarray | None = None) -> MedicalImage:
    """The numbers of segments at voxels (1, D, H, W), 0 where there is none, or at pixels (1, H, W) without a place.

    Frames lie where they say; slices that the file leaves out are empty, and how thick those are says the `affine` of
    the image that was marked, where it is given. Fractions count from one half on. Raises DecodeError where frames
    don't lie on one grid, or segments overlap.
    """
    file = open_file(data)
    layout = check_pixels_there(file)
    header = file.header
    if layout.samples != 1:
        raise DecodeError("its segments are in colour")
    frames = stored_values(file, layout, range(layout.frames))[:, 0]  # numbers, be they painted by a palette or not
    marked = _labels(file, frames)
    positions = [position_of(header, frame) for frame in range(layout.frames)]
    if None in positions:
        return _flat(marked, header, path)
    return _laid(marked, np.array(positions, float), header, path, affine)


def referenced_series(path: Path) -> str | None:
    """The UID of the series that a Segmentation marks; None of any other file."""
    try:
        header = open_header(path, _SERIES_TAGS)
    except DecodeError:
        return None
    if text(header, "SOPClassUID") not in SEGMENTATIONS:
        return None
    series = item(header, "ReferencedSeriesSequence")
    return None if series is None else text(series, "SeriesInstanceUID") or None


def _labels(file: DicomFile, frames: np.ndarray) -> np.ndarray:
    """Each frame's segment numbers (F, H, W)."""
    header = file.header
    kind = text(header, "SegmentationType")
    if kind == "LABELMAP":
        return frames
    if kind == "FRACTIONAL":
        frames = frames >= (number(header, "MaximumFractionalValue", 1.0) or 1.0) / 2
    numbers = [_segment(header, frame) for frame in range(len(frames))]
    marked = np.zeros(frames.shape, np.uint8 if max(numbers) < 256 else np.uint16)
    for each, frame, segment in zip(marked, frames, numbers, strict=True):
        each[frame > 0] = segment
    return marked


def _segment(header: Dataset, frame: int) -> int:
    group = functional(header, frame, "SegmentIdentificationSequence")
    if group is None:
        raise DecodeError("a frame doesn't say which segment it shows")
    return whole(group, "ReferencedSegmentNumber")


def _flat(marked: np.ndarray, header: Dataset, path: Path) -> MedicalImage:
    """Segments of a picture that says nothing of places."""
    spacing, _ = pixel_spacing(header, 0)
    merged = np.zeros(marked.shape[1:], marked.dtype)
    for frame in marked:
        _merge(merged, frame)
    return MedicalImage(merged[None], spacing, None, "SEG", path, files=(path,))


def _laid(
    marked: np.ndarray, positions: np.ndarray, header: Dataset, path: Path, image: np.ndarray | None
) -> MedicalImage:
    """Frames on the grid of their places."""
    orientations = [orientation_of(header, frame) for frame in range(len(marked))]
    spacings = {pixel_spacing(header, frame)[0] for frame in range(len(marked))}
    first, spacing = orientations[0], spacings.pop()
    if first is None or None in orientations or spacing is None or spacings:
        raise DecodeError("its frames don't say how they lie, or have several spacings")
    if np.abs(np.array(orientations) - first).max() > _TURNED:
        raise DecodeError("its frames lie in several orientations")
    normal = normal_of(first)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    step, start = _step(positions[order], heights[order], header, normal, image), positions[order[0]]
    length = float(np.linalg.norm(step))
    index = np.rint((positions - start) @ step / length**2).astype(int)
    off = np.abs(positions - start - index[:, None] * step).max()
    if off > max(_NEAR, _OFF * length):
        raise DecodeError(f"its frames lie {off:.3g} mm off a grid of equal steps")
    shape = (int(index.max()) + 1, *marked.shape[1:])
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise DecodeError(f"its frames reach over {shape[0]} slices; at most {MAX_VOXELS:,} voxels are read")
    merged = np.zeros(shape, marked.dtype)
    for place, frame in zip(index.tolist(), marked, strict=True):
        _merge(merged[place], frame)
    affine = affine_of(start.tolist(), first, spacing, step.tolist())
    steps = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return MedicalImage(merged[None], tuple(steps.tolist()), first, "SEG", path, affine, files=(path,))


def _step(
    positions: np.ndarray, heights: np.ndarray, header: Dataset, normal: np.ndarray, affine: np.ndarray | None
) -> np.ndarray:
    """From one slice to the next: the image's, what the file says, or the shortest between frames, whichever fits."""
    reach = float(heights[-1] - heights[0])
    direction = (positions[-1] - positions[0]) / reach if reach > _NEAR else normal
    measures = functional(header, 0, "PixelMeasuresSequence")
    said = [number(measures, name) for name in ("SpacingBetweenSlices", "SliceThickness")] if measures else []
    apart = np.diff(heights)
    shortest = apart[apart > _NEAR].min() if reach > _NEAR else 1.0
    image = [] if affine is None else [float(np.abs(normal @ (_RAS_TO_LPS @ affine[:3, :3])).max())]
    for step in filter(None, (*image, *said, float(shortest))):
        off = np.abs(heights - heights[0] - np.rint((heights - heights[0]) / step) * step).max()
        if step > _NEAR and off <= max(_NEAR, _OFF * step):
            return np.asarray(direction * step)
    return np.asarray(direction * shortest)


def _merge(into: np.ndarray, frame: np.ndarray) -> None:
    there = frame > 0
    both = there & (into > 0) & (into != frame)
    if both.any():
        pair: Sequence[int] = sorted({int(into[both][0]), int(frame[both][0])})
        raise DecodeError(f"its segments {pair[0]} and {pair[1]} overlap, so that they aren't labels; save them apart")
    into[there] = frame[there]
