"""The maps of a volume: as NIfTI files that open over it, and drawn in three planes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pellucid.attribution import Explanation, resize_maps
from pellucid.data.images import MedicalImage
from pellucid.data.planes import PLANES
from pellucid.data.resample import Grid
from pellucid.data.shown import as_shown
from pellucid.drawing import Panel, Row, is_signed, strongest
from pellucid.study.planes import Look

VOLUME_MAP = ".map.nii.gz"
SIDE = 280  # pixels of the longest side of the three planes

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VolumeMap:
    """A method's values (…, D, H, W) at the volume's own voxels."""

    label: str
    values: Array
    resized: bool


def volume_maps(volume: MedicalImage, one: Explanation, grid: Grid) -> Iterator[VolumeMap]:
    """The maps of an explanation of one volume, one method at a time, enlarged once from where they were made.

    `grid` is the network's in the volume; what lies outside of it is 0.
    """
    shape = volume.pixels.shape[1:]
    for label, maps in one.maps.items():
        made = one.layer_maps.get(label, maps)[0]
        laid = resize_maps(made, shape).numpy() if grid.whole else grid.back(made.numpy())
        yield VolumeMap(label, laid, not grid.whole or tuple(made.shape[-3:]) != tuple(shape))


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


def planes(volume: MedicalImage, values: Array, label: str, shown: Shown | None = None) -> Row:
    """The three planes through the greatest value, bare, then with the map laid over them; titled with their place.

    Planes are those of the voxels that lie nearest to axial, coronal and sagittal, drawn to scale, as a radiologist
    sees them: from the feet, from the front and from the left. The title says by which window.
    """
    shown = shown or Shown.of(volume)
    look = shown.look
    strong = strongest(values, axes=3)
    voxel = greatest(strong)
    saliency, place = look.upright.turn(strong), look.upright.grid.turned(voxel)
    caption = label if saliency.any() else f"{label} (no evidence)"
    signed = is_signed(saliency)
    bare, laid = [], []
    for axis, name in enumerate(PLANES):
        bare.append(Panel(look.plane(axis, place[axis], SIDE), name))
        laid.append(Panel(look.plane(axis, place[axis], SIDE, saliency, signed), caption, signed))
    where = ", ".join(f"{each + 0.0:.0f}" for each in np.round(millimetres(volume, voxel)))
    return Row(f"{label}, planes through ({where}) mm; {shown.window}", [*bare, *laid])


@dataclass(frozen=True, eq=False)
class Shown:
    """A volume ready to be drawn, and the window by which it is."""

    look: Look
    window: str

    @classmethod
    def of(cls, volume: MedicalImage, intensity: str = "dtype", grid: Grid | None = None) -> Shown:
        """A volume as a network with this `intensity` sees it, the field of its `grid` outlined."""
        assert volume.affine is not None
        grey, window = as_shown(volume, intensity)
        return cls(Look.of(grey[0], volume.affine, seen=None if grid is None else grid.seen()), window)
