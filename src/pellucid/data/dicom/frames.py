"""Frames of one file: what each states of itself, and where they lie (PS3.3, C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from pellucid.data.dicom.elements import item, items, numbers, text
from pellucid.data.dicom.geometry import affine_of, normal_of
from pellucid.data.whole import DecodeError

SAME = 1e-3  # of direction cosines, and of positions in mm, that count as equal
_EVEN = 0.01  # of the step, by which steps may differ


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames as the slices of a volume: their numbers in order of position, and the volume's place."""

    order: tuple[int, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float, float]
    affine: np.ndarray


def functional(header: Dataset, frame: int, keyword: str) -> Dataset | None:
    """A functional group of one frame, or the one that all share; None where there is none."""
    found = functional_items(header, frame, keyword)
    return found[0] if len(found) else None


def functional_items(header: Dataset, frame: int, keyword: str) -> Sequence[Dataset]:
    """The items of a functional group, of which most have one at most."""
    own = items(header, "PerFrameFunctionalGroupsSequence")
    if frame < len(own) and len(found := items(own[frame], keyword)):
        return found
    shared = item(header, "SharedFunctionalGroupsSequence")
    return () if shared is None else items(shared, keyword)


def pixel_spacing(header: Dataset, frame: int) -> tuple[tuple[float, float] | None, str]:
    """Between rows and between columns in mm, None where that isn't stated, and a note on where it was measured."""
    group = functional(header, frame, "PixelMeasuresSequence")
    if group is not None and (found := _positive(group, "PixelSpacing")):
        return found, ""
    if found := _positive(header, "PixelSpacing"):
        return found, ""
    if found := _positive(header, "ImagerPixelSpacing"):
        return found, "spacing is that of the detector, since none in the patient is stated"
    if found := _positive(header, "NominalScannedPixelSpacing"):
        return found, "spacing is that of the scanned film"
    regions = items(header, "SequenceOfUltrasoundRegions")
    steps = {
        (numbers(each, "PhysicalDeltaY"), numbers(each, "PhysicalDeltaX"))
        for each in regions
        if text(each, "RegionSpatialFormat") == "1" and text(each, "PhysicalUnitsXDirection") == "3"
        and text(each, "PhysicalUnitsYDirection") == "3"
    }  # fmt: skip
    if len(steps) == 1:
        down, right = steps.pop()
        if down and right and down[0] and right[0]:
            return (abs(10 * down[0]), abs(10 * right[0])), "spacing is that of the ultrasound region"  # from cm
    return None, ""


def _positive(source: Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        found = numbers(source, keyword, 2)
    except DecodeError:
        return None
    return (found[0], found[1]) if found and min(found) > 0 else None


def orientation_of(header: Dataset, frame: int) -> tuple[float, ...] | None:
    """ImageOrientationPatient of a frame, None where it isn't stated or no orientation."""
    group = functional(header, frame, "PlaneOrientationSequence")
    try:
        found = numbers(header if group is None else group, "ImageOrientationPatient", 6)
    except DecodeError:
        return None
    if found is None:
        return None
    row, column = np.array(found[:3]), np.array(found[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    right = abs(lengths[0] - 1) < 0.01 and abs(lengths[1] - 1) < 0.01 and abs(row @ column) < 0.01
    return found if right else None


def position_of(header: Dataset, frame: int) -> tuple[float, ...] | None:
    """ImagePositionPatient of a frame in mm."""
    group = functional(header, frame, "PlanePositionSequence")
    try:
        return numbers(header if group is None else group, "ImagePositionPatient", 3)
    except DecodeError:
        return None


def stack_of(header: Dataset, count: int) -> Stack | None:
    """The frames of a file as a volume; None where the file doesn't say where each of them lies.

    Raises DecodeError where frames are several to a place, turned against each other, or unevenly spaced.
    """
    orientations = [orientation_of(header, frame) for frame in range(count)]
    positions = _positions(header, count, orientations[0])
    spacings = {pixel_spacing(header, frame)[0] for frame in range(count)}
    if positions is None or None in orientations or None in spacings:
        return None
    first = orientations[0]
    assert first is not None
    pick = f"pick one with index= (--index), from 0 to {count - 1}"
    turned = np.array(orientations)
    kinds = len({tuple(np.round(each / (10 * SAME)).astype(int)) for each in turned})
    if np.abs(turned - turned[0]).max() > SAME:
        raise DecodeError(f"its {count} frames lie in {kinds} orientations; {pick}")
    if len(spacings) > 1:
        raise DecodeError(f"its {count} frames have {len(spacings)} pixel spacings; {pick}")
    heights = positions @ normal_of(first)
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    places = 1 + int((gaps > SAME).sum())
    if places < count:
        raise DecodeError(f"its {count} frames lie at {places} places, several to a place; {pick}")
    steps = np.diff(positions[order], axis=0)
    mean = (positions[order[-1]] - positions[order[0]]) / (count - 1)
    if np.linalg.norm(steps - mean, axis=1).max() > max(_EVEN * np.linalg.norm(mean), 10 * SAME):
        raise DecodeError(f"its {count} frames are unevenly spaced, {gaps.min():.4g} to {gaps.max():.4g} mm; {pick}")
    spacing = spacings.pop()
    assert spacing is not None
    affine = affine_of(positions[order[0]], first, spacing, mean)
    return Stack(tuple(order.tolist()), first, (float(np.linalg.norm(mean)), *spacing), affine)


def _positions(header: Dataset, count: int, orientation: Sequence[float] | None) -> np.ndarray | None:
    """Where each frame lies (F, 3), from its functional group, or from the offsets of a dose's planes (C.8.8.3.2)."""
    offsets = numbers(header, "GridFrameOffsetVector")
    begin = numbers(header, "ImagePositionPatient")
    if offsets is not None and begin is not None and orientation is not None and len(offsets) == count:
        direction = normal_of(orientation) if offsets[0] == 0 else np.array([0.0, 0.0, 1.0])  # places along the body
        return np.add(begin, np.outer(np.subtract(offsets, offsets[0]), direction))
    if not len(items(header, "PerFrameFunctionalGroupsSequence")):
        return None
    found = [position_of(header, frame) for frame in range(count)]
    return None if None in found else np.array(found)
