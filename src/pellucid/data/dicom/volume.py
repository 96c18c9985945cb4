"""Slices in the order of their places as one volume, in the units of the files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pellucid.data.dicom.geometry import affine_of
from pellucid.data.dicom.read import open_dataset, values_of, window_of
from pellucid.data.dicom.scan import Header
from pellucid.data.dicom.stacks import places
from pellucid.data.medical_image import MedicalImage
from pellucid.data.nifti import MAX_VOXELS
from pellucid.data.whole import DecodeError

_THREADS = 4


def assemble(headers: Sequence[Header], missing: Sequence[int], source: Path, notes: Sequence[str]) -> MedicalImage:
    """The volume (1, D, H, W) of slices that lie at equal steps, those `missing` behind each filled in.

    Raises DecodeError that names the file when a slice can't be read.
    """
    first, last = headers[0], headers[-1]
    count = len(headers) + sum(missing)
    shape = (count, first.rows, first.columns)
    if count * first.rows * first.columns > MAX_VOXELS:
        size = " × ".join(map(str, shape))
        raise DecodeError(f"the volume is {size} voxels; at most {MAX_VOXELS:,} are read")
    assert first.orientation is not None
    assert first.pixel_spacing is not None
    own = places([first, last])
    step = (own[1] - own[0]) / (count - 1)
    affine = affine_of(own[0], first.orientation, first.pixel_spacing, step.tolist())
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    index = np.concatenate([[0], np.cumsum(1 + np.asarray(missing, int))]) if missing else np.arange(count)
    voxels = _voxels(headers, shape, index)
    middle = open_dataset(headers[len(headers) // 2].path.read_bytes())
    return MedicalImage(
        voxels[None],
        tuple(spacing.tolist()),
        first.orientation,
        first.modality or None,
        source,
        affine,
        units="HU" if first.modality == "CT" else None,
        window=window_of(middle, voxels),
        inverted=first.photometric == "MONOCHROME1",
        files=tuple(each.path for each in headers),
        notes=tuple(notes),
    )


def _voxels(headers: Sequence[Header], shape: tuple[int, int, int], index: np.ndarray) -> np.ndarray:
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        slices = list(pool.map(_slice, headers))
    voxels = np.zeros(shape, np.result_type(*slices))
    for place, each in zip(index, slices, strict=True):
        voxels[place] = each
    for low, high in itertools.pairwise(index.tolist()):
        for place in range(low + 1, high):
            share = (place - low) / (high - low)
            voxels[place] = np.rint(voxels[low] * (1 - share) + voxels[high] * share)
    return voxels


def _slice(header: Header) -> np.ndarray:
    try:
        values = values_of(open_dataset(header.path.read_bytes()))[0, 0]
    except Exception as error:
        raise DecodeError(f"its slice {header.path.name} can't be read: {error}") from error
    return np.asarray(values, np.float32 if values.dtype.kind == "f" else None)
