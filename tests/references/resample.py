"""Resampling written down as it is defined: a place in mm at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def read_off(
    values: np.ndarray,
    own: np.ndarray,
    affine: np.ndarray,
    size: Sequence[int],
    fill: float = 0.0,
) -> np.ndarray:
    """Values (D, H, W) with the affine `own` at the voxels of a grid with another.

    Each of the grid's voxels is found in mm, and then among those of the volume, whose values are weighted by a
    triangle along each of their axes: of half-width one voxel, or one of the grid's steps where that is longer. Outside
    of the volume is `fill`.
    """
    into = np.linalg.inv(own) @ affine
    reach = np.maximum(np.abs(into[:3, :3]).sum(axis=1), 1)  # one axis of the grid runs along each of the volume's
    found = np.full(tuple(size), fill)
    for voxel in itertools.product(*map(range, size)):
        place = (into @ [*voxel, 1])[:3]
        if ((place < -0.5 - 1e-6) | (place > np.array(values.shape) - 0.5 + 1e-6)).any():
            continue
        weights = [
            np.maximum(1 - np.abs(np.arange(length) - at) / wide, 0)
            for length, at, wide in zip(values.shape, place, reach, strict=True)
        ]
        total = np.einsum("i,j,k->ijk", *weights)
        found[voxel] = (total * values).sum() / total.sum()
    return found
