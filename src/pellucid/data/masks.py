"""Masks of volumes at the voxels of their image: other axes, or a part of the slices, but the same places."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pellucid.data.dicom.segments import decode_segments, is_segmentation
from pellucid.data.found import looks_dicom
from pellucid.data.images import MedicalImage, decode_file, quiet_decoders
from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError

_APART = 0.1  # of a voxel, at the mask's corners


def on_voxels_of(
    mask: MedicalImage, shape: Sequence[int], affine: npt.NDArray[np.floating] | None = None
) -> MedicalImage:
    """A mask with as many pixels as its image, each where that of the image is.

    A volume's mask may be stored along other axes than its image, or hold some of the image's slices, as a DICOM
    segmentation does that leaves out empty ones: its voxels are found by their places in mm. Where it has a grid of its
    own, of another shape, each voxel of the image takes the nearest of the mask, which `notes` say; a mask of the
    image's shape that lies elsewhere is taken for one whose header is wrong.

    Arguments:
        mask: (C, *S).
        shape: the image's lengths.
        affine: (4, 4) of the image where it is a volume that says where it lies.

    Raises DecodeError, with the reason alone, for a mask of another shape that doesn't say where it lies, one of the
    same shape that lies elsewhere, and for marked voxels outside of the image.
    """
    own, wanted = mask.pixels.shape[1:], tuple(shape)
    if len(own) != len(wanted) or mask.affine is None or affine is None:
        if own != wanted:
            raise DecodeError(f"it is {_lengths(own)}, its image {_lengths(wanted)}")
        return mask
    into = np.linalg.solve(np.asarray(affine, np.float64), mask.affine)  # from the mask's voxels to the image's
    turn, first = np.rint(into[:3, :3]), np.rint(into[:3, 3])
    corners = np.stack(np.meshgrid(*((0, length - 1) for length in own), indexing="ij")).reshape(3, -1)
    apart = np.abs((into[:3, :3] - turn) @ corners + (into[:3, 3] - first)[:, None]).max()
    if not (apart <= _APART and (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()):
        if own != wanted:
            return _nearest(mask, wanted, np.asarray(affine, np.float64))
        raise _elsewhere(mask.affine, affine)
    if own == wanted and np.array_equal(turn, np.eye(3)) and not first.any():
        return mask
    axes = np.abs(turn).argmax(axis=1)  # of the mask, along each of the image's
    backward = turn.sum(axis=1) < 0
    pixels = mask.pixels.transpose(0, *(1 + axes))
    pixels = pixels[(slice(None), *(slice(None, None, -1 if back else 1) for back in backward))]
    begins = [int(start) - (length - 1 if back else 0) for start, length, back in
              zip(first, pixels.shape[1:], backward, strict=True)]  # fmt: skip
    if pixels.shape[1:] == wanted and any(begins):
        raise _elsewhere(mask.affine, affine)
    laid = np.zeros((len(pixels), *wanted), pixels.dtype)
    into_image, of_mask = [], []
    for begin, length, room in zip(begins, pixels.shape[1:], wanted, strict=True):
        low, high = max(0, begin), min(room, begin + length)
        into_image.append(slice(low, max(low, high)))
        of_mask.append(slice(low - begin, max(low, high) - begin))
    part = pixels[(slice(None), *of_mask)]
    lost = int(np.count_nonzero(pixels)) - int(np.count_nonzero(part))
    if lost:
        raise DecodeError(f"{lost} of its marked voxels lie outside of the image")
    laid[(slice(None), *into_image)] = part
    return dataclasses.replace(mask, pixels=laid, affine=np.asarray(affine), spacing=_spacing(affine))


def _elsewhere(own: npt.NDArray[np.floating], affine: npt.NDArray[np.floating]) -> DecodeError:
    away = np.abs(own - affine).max()
    return DecodeError(f"its voxels lie elsewhere than the image's, by up to {away:.3g} in the affine")


def decode_mask(path: Path, *, volumes: bool, affine: npt.NDArray[np.floating] | None = None) -> MedicalImage:
    """As `decode_file`, but a DICOM Segmentation as a map of its segments' numbers; `affine` is its image's.

    Raises DecodeError.
    """
    if looks_dicom(path):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DecodeError(error.strerror or str(error)) from error
        if is_segmentation(data):
            return decode_segments(data, path, affine)
    return decode_file(path, volumes=volumes)


def read_mask(path: Path, affine: npt.NDArray[np.floating] | None = None) -> MedicalImage:
    """As `decode_mask`; raises UnreadableFileError."""
    try:
        with quiet_decoders():
            return decode_mask(path, volumes=True, affine=affine)
    except DecodeError as error:
        raise UnreadableFileError(f"can't read {path}: {error}.") from error


def _nearest(mask: MedicalImage, shape: tuple[int, ...], affine: npt.NDArray[np.float64]) -> MedicalImage:
    """The mask on the image's grid, each voxel the nearest of the mask's."""
    assert mask.affine is not None
    marked = np.argwhere(mask.pixels.any(axis=0))
    into = np.linalg.solve(affine, mask.affine)
    met = marked @ into[:3, :3].T + into[:3, 3]
    outside = int(((met < -0.5) | (met > np.array(shape) - 0.5)).any(axis=1).sum())
    if outside:
        raise DecodeError(f"{outside} of its marked voxels lie outside of the image")
    back = np.linalg.inv(into)
    laid = np.zeros((len(mask.pixels), *shape), mask.pixels.dtype)
    own = np.array(mask.pixels.shape[1:])
    plane = np.stack(np.meshgrid(*(np.arange(length) for length in shape[1:]), indexing="ij"), axis=-1)
    across = plane @ back[:3, 1:3].T + back[:3, 3]
    for depth in range(shape[0]):
        index = np.rint(across + depth * back[:3, 0]).astype(np.int64)
        there = ((index >= 0) & (index < own)).all(axis=-1)
        first, second, third = index[there].T
        laid[:, depth][:, there] = mask.pixels[:, first, second, third]
    if len(marked) and not laid.any():
        raise DecodeError("its marked voxels are too small for the image's")
    note = "its voxels aren't those of the image, each of which took the nearest"
    return dataclasses.replace(mask, pixels=laid, affine=affine, spacing=_spacing(affine), notes=(*mask.notes, note))


def _spacing(affine: npt.NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0)).tolist())


def _lengths(shape: Sequence[int]) -> str:
    """Width before height in pictures, as people say it; volumes by their axes."""
    words = " × ".join(map(str, shape[::-1] if len(shape) == 2 else shape))
    return f"{words} {'pixels' if len(shape) == 2 else 'voxels'}"
