"""Masks at the voxels of their image: other axes and parts of the slices, at the same places, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from pellucid.data.images import MedicalImage
from pellucid.data.masks import on_voxels_of
from pellucid.data.whole import DecodeError

SHAPE = (7, 9, 5)
OBLIQUE = np.array([[-1.6, 0.5, -0.3, 40.0], [0.7, 1.4, -0.9, -25.0], [-0.2, 0.8, 2.7, 12.0], [0, 0, 0, 1]])
SHIFTED = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]])


def mask_like(values: np.ndarray, affine: np.ndarray | None) -> MedicalImage:
    return MedicalImage(values[None], None, None, None, Path("mask.nii"), affine)


def marked() -> np.ndarray:
    values = (np.random.default_rng(0).random(SHAPE) > 0.7).astype(np.uint8)
    values[:2] = values[:, :1] = 0
    return values


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "IAR", "PRI"])
def test_a_mask_along_other_axes_comes_to_the_same_voxels(codes: str) -> None:
    change = ornt_transform(io_orientation(OBLIQUE), axcodes2ornt(codes))
    stored = apply_orientation(marked(), change)
    turned = OBLIQUE @ inv_ornt_aff(change, SHAPE)
    found = on_voxels_of(mask_like(stored, turned), SHAPE, OBLIQUE)
    np.testing.assert_array_equal(found.pixels[0], marked())
    np.testing.assert_array_equal(found.affine, OBLIQUE)


def test_a_part_of_the_slices_is_filled_up_with_empty_ones() -> None:
    part = OBLIQUE.copy()
    part[:3, 3] = OBLIQUE[:3] @ [2, 1, 0, 1]
    found = on_voxels_of(mask_like(marked()[2:, 1:], part), SHAPE, OBLIQUE)
    np.testing.assert_array_equal(found.pixels[0], marked())
    larger = np.pad(marked(), ((3, 0), (0, 0), (2, 1)))  # with empty margins around the image
    around = OBLIQUE.copy()
    around[:3, 3] = OBLIQUE[:3] @ [-3, 0, -2, 1]
    np.testing.assert_array_equal(on_voxels_of(mask_like(larger, around), SHAPE, OBLIQUE).pixels[0], marked())


def test_its_own_grid_is_left_as_it_is() -> None:
    mask = mask_like(marked(), OBLIQUE)
    assert on_voxels_of(mask, SHAPE, OBLIQUE) is mask
    assert on_voxels_of(mask_like(marked(), None), SHAPE, None).pixels.shape == (1, *SHAPE)
    # files keep affines in float32
    assert on_voxels_of(mask_like(marked(), OBLIQUE.astype(np.float32).astype(float)), SHAPE, OBLIQUE) is not None


@pytest.mark.parametrize(
    ("values", "affine", "reason"),
    [
        (np.ones((3, 9, 5)), None, "it is 3 × 9 × 5 voxels, its image 7 × 9 × 5 voxels"),
        (np.ones(SHAPE), OBLIQUE + np.eye(4)[:, [3, 0, 1, 2]] * 3, "its voxels lie elsewhere than the image's"),
        # of the image's shape and two voxels off: rather a wrong header than a part of its slices
        (np.ones(SHAPE), OBLIQUE @ SHIFTED, "its voxels lie elsewhere than the image's, by up to 5.4"),
        (np.ones(SHAPE), OBLIQUE @ np.diag([1.0, 1.0, 1.3, 1.0]), "its voxels lie elsewhere than the image's"),
    ],
)
def test_masks_that_do_not_fit_are_refused(values: np.ndarray, affine: np.ndarray | None, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        on_voxels_of(mask_like(values, affine), SHAPE, OBLIQUE)


def test_marks_outside_of_the_image_are_counted() -> None:
    beside = OBLIQUE.copy()
    beside[:3, 3] = OBLIQUE[:3] @ [5, 0, 0, 1]
    with pytest.raises(DecodeError, match="45 of its marked voxels lie outside of the image"):
        on_voxels_of(mask_like(np.ones((3, 9, 5)), beside), SHAPE, OBLIQUE)
