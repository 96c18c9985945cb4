"""A volume as it is looked at: which way its planes lie, and which sides of the patient their edges are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pellucid.data.resample import Frame, Grid, Lengths, Steps, grid_of

PLANES = ("axial", "coronal", "sagittal")
"""Across the first, second and third axis of what `Upright.turn` gives."""
LOOKED_AT = Frame("IPL")  # down to the feet, to the back, to the left: rows and columns as a radiologist sees them

_LETTERS = ("RL", "AP", "HF")  # to the right, the front, the head, and where these come from
_TOLD = 0.26  # of an axis's direction, from which on a side is named: 15° off

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Upright:
    """How the voxels of a volume are turned to be looked at, from the feet, from the front and from the left.

    `shape` and `steps` (mm) run to the feet, to the back and to the left, or nearest to it; `sides` has the letters of
    the sides at which each of these axes begins and ends: R and L, A and P, H and F, two where it runs between.
    """

    grid: Grid
    shape: Lengths
    steps: Steps
    sides: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, shape: Sequence[int], affine: npt.NDArray[np.floating]) -> Upright:
        """That of a volume of this shape whose affine (4, 4) takes its voxels to mm right, front and up."""
        turned = grid_of(shape, affine, shape, LOOKED_AT)
        first, second, third = (int(shape[axis]) for axis in turned.axes)
        grid = grid_of(shape, affine, (first, second, third), LOOKED_AT)
        assert grid.affine is not None
        assert grid.spacing is not None
        sides = tuple((letters(-way), letters(way)) for way in grid.affine[:3, :3].T)
        return cls(grid, (first, second, third), grid.spacing, sides)

    def turn(self, values: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Values (…, D, H, W) as they are looked at: (…, *shape)."""
        return self.grid.turn(values)

    def edges(self, axis: int) -> tuple[str, str, str, str]:
        """The sides on the left, right, top and bottom of the plane across an axis."""
        down, across = (each for each in range(3) if each != axis)
        return (*self.sides[across], *self.sides[down])


def letters(direction: npt.NDArray[np.floating]) -> str:
    """The sides to which a direction (right, front, up) runs, the nearest first (PS3.3, C.7.6.1.1.1).

    >>> letters(np.array([-2.0, 0.0, 0.1])), letters(np.array([0.0, 1.0, -0.8]))
    ('L', 'AF')
    """
    way = np.asarray(direction, np.float64) / max(float(np.linalg.norm(direction)), 1e-12)
    order = np.abs(way).argsort(kind="stable")[::-1]
    return "".join(_LETTERS[side][int(way[side] < 0)] for side in order.tolist() if abs(way[side]) >= _TOLD)


def middle(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """The voxel in the middle of a mask (D, H, W), or of the volume where the mask is empty.

    It is a voxel of the mask: that nearest to its centre of mass.
    """
    if not mask.any():
        return tuple(length // 2 for length in mask.shape)
    inside = np.argwhere(mask)
    nearest = ((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return tuple(int(place) for place in inside[nearest])
