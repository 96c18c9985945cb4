"""A volume as one picture: three planes through a voxel, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def side_by_side(values: np.ndarray, voxel: Sequence[int]) -> np.ndarray:
    """The planes (..., H', W') of volumes (..., D, H, W) through a voxel, across the first, second and third axis.

    Axes are those of the array. Planes that are lower than others are filled up with zeros below; a column of zeros
    parts them.

    >>> side_by_side(np.arange(8.0).reshape(2, 2, 2), (0, 0, 1))
    array([[0., 1., 0., 0., 1., 0., 1., 3.],
           [2., 3., 0., 4., 5., 0., 5., 7.]])
    """
    planes = [np.take(values, place, axis=axis - 3) for axis, place in enumerate(voxel)]
    height = max(plane.shape[-2] for plane in planes)
    leading = [(0, 0)] * (values.ndim - 3)
    parts = [
        np.pad(plane, [*leading, (0, height - plane.shape[-2]), (0, int(number < 2))])
        for number, plane in enumerate(planes)
    ]
    return np.concatenate(parts, axis=-1)


def middle(mask: np.ndarray) -> tuple[int, ...]:
    """The voxel in the middle of a mask (D, H, W), or of the volume where the mask is empty.

    It is a voxel of the mask: that nearest to its centre of mass.
    """
    if not mask.any():
        return tuple(length // 2 for length in mask.shape)
    inside = np.argwhere(mask)
    nearest = ((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return tuple(int(place) for place in inside[nearest])
