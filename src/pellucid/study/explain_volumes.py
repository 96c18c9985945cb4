"""The maps of a volume: as NIfTI files that open over it, and drawn in three planes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation

from pellucid.attribution import Explanation, resize_maps
from pellucid.data.images import MedicalImage
from pellucid.drawing import Panel, Picture, Row, enlarge, is_signed, overlay, strongest, to_picture

VOLUME_MAP = ".map.nii.gz"
SIDE = 280  # pixels of the longest side of the three planes

_WINDOW = (0.5, 99.5)  # percentiles of the volume that are drawn black and white
_SAMPLES = 2**20  # voxels by which they are found

# as a radiologist sees them, from the feet and from the front: the axis across each plane, and what is left and right
_PLANES = (("axial", 2, "right", "left"), ("coronal", 1, "right", "left"), ("sagittal", 0, "front", "back"))

Array = npt.NDArray[np.float32]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class VolumeMap:
    """A method's values (…, D, H, W) at the volume's own voxels."""

    label: str
    values: Array
    resized: bool


def volume_maps(volume: MedicalImage, one: Explanation) -> Iterator[VolumeMap]:
    """The maps of an explanation of one volume, one method at a time, enlarged once from where they were made."""
    shape = volume.pixels.shape[1:]
    for label, maps in one.maps.items():
        made = one.layer_maps.get(label, maps)[0]
        yield VolumeMap(label, resize_maps(made, shape).numpy(), tuple(made.shape[-3:]) != tuple(shape))


def greatest(values: npt.NDArray[np.floating]) -> tuple[int, ...]:
    """The voxel of largest magnitude; the middle one where all are zero."""
    if not values.any():
        return tuple(length // 2 for length in values.shape)
    return tuple(int(place) for place in np.unravel_index(int(np.abs(values).argmax()), values.shape))


def millimetres(volume: MedicalImage, voxel: Sequence[int]) -> list[float]:
    """Where a voxel lies, to the right, the front and the head."""
    assert volume.affine is not None
    place: list[float] = (volume.affine @ [*voxel, 1])[:3].round(3).tolist()
    return place


def planes(volume: MedicalImage, values: Array, label: str) -> Row:
    """The three planes through the greatest value, bare, then with the map laid over them; titled with their place.

    Planes are those of the voxels that lie nearest to axial, coronal and sagittal, drawn to scale.
    """
    saliency = strongest(values, axes=3)
    voxel = greatest(saliency)
    caption = label if saliency.any() else f"{label} (no evidence)"
    grey = _grey(volume.pixels[0])
    signed = is_signed(saliency)
    bare, laid = [], []
    for name, axis, left, right in _PLANES:
        picture = to_picture(_plane(grey, volume, voxel, axis))
        drawn = overlay(picture, _plane(saliency, volume, voxel, axis), signed=signed)
        bare.append(Panel(_to_scale(picture, volume, axis), f"{name}, {left} | {right}"))
        laid.append(Panel(_to_scale(drawn, volume, axis), caption, signed))
    place = ", ".join(f"{each:.0f}" for each in millimetres(volume, voxel))
    return Row(f"{label}, planes through ({place}) mm", [*bare, *laid])


def _orientation(volume: MedicalImage) -> npt.NDArray[np.float64]:
    """Which way each voxel axis runs nearest to: right, front or up, and whether towards it."""
    directions: npt.NDArray[np.float64] = nibabel.io_orientation(volume.affine)
    return directions


def _plane(
    values: npt.NDArray[np.generic], volume: MedicalImage, voxel: Sequence[int], axis: int
) -> npt.NDArray[np.generic]:
    """The plane (rows, columns) of voxels across an anatomical axis, seen as `_PLANES` says."""
    directions = _orientation(volume)
    across = directions[:, 0].tolist().index(axis)
    place = voxel[across] if directions[across, 1] > 0 else values.shape[across] - 1 - voxel[across]
    upright = apply_orientation(values, directions)
    # right, front and head come first in the picture: the rows run down, and the columns to the patient's left or back
    return np.asarray(upright.take(place, axis=axis)[::-1, ::-1].T, values.dtype)


def _to_scale(picture: Picture, volume: MedicalImage, axis: int) -> Picture:
    assert volume.spacing is not None
    steps = [0.0, 0.0, 0.0]
    extents = [0.0, 0.0, 0.0]
    for along, step, length in zip(_orientation(volume)[:, 0], volume.spacing, volume.pixels.shape[1:], strict=True):
        steps[int(along)], extents[int(along)] = step, step * length
    columns, rows = (each for each in range(3) if each != axis)
    scale = SIDE / max(extents)
    width, height = (max(1, round(scale * extents[each])) for each in (columns, rows))
    return enlarge(picture, width, height)


def _grey(voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    some = voxels.reshape(-1)[:: max(1, voxels.size // _SAMPLES)].astype(np.float64)
    low, high = np.percentile(some, _WINDOW)
    if not high > low:
        low, high = float(voxels.min()), float(voxels.max())
    span = high - low if high > low else 1.0
    grey: npt.NDArray[np.uint8] = np.rint(((voxels.astype(np.float32) - low) / span).clip(0, 1) * 255).astype(np.uint8)
    return grey
