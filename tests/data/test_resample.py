"""Volumes in one frame: one anatomy, one tensor, however it is stored, and maps come back to their place."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from pellucid.data.images import MedicalImage
from pellucid.data.resample import Frame, Geometry, codes_of, grid_of
from pellucid.data.transforms import _resized, mask_of, prepare
from pellucid.errors import InputError
from references.resample import read_off

SHAPE = (11, 14, 9)
# turned about two axes, steps of three sizes, and left-handed
OBLIQUE = np.array([[-1.6, 0.5, -0.3, 40.0], [0.7, 1.4, -0.9, -25.0], [-0.2, 0.8, 2.7, 12.0], [0, 0, 0, 1]])
STRAIGHT = np.array([[2.0, 0, 0, -10.0], [0, 1.5, 0, 4.0], [0, 0, 3.0, 7.0], [0, 0, 0, 1]])
CODES = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]
FRAMES = [
    Frame("RAS", (2.0, 2.0, 2.0)),
    Frame("SPL", (3.0, 0.7, 1.1)),
    Frame(None, (1.0, 4.0, 2.0)),
    Frame("LIP"),
]


def volume(values: np.ndarray, affine: np.ndarray, codes: str = "") -> MedicalImage:
    """A volume at its places, stored along the axes that the letters say."""
    if codes:
        change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
        stored = np.ascontiguousarray(apply_orientation(values, change))
        values, affine = stored, affine @ inv_ornt_aff(change, values.shape)
    spacing = tuple(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist())
    return MedicalImage(values[None], spacing, None, None, Path("made"), affine)


def noise(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize("frame", FRAMES, ids=str)
@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_voxels_are_read_off_where_the_affine_says(affine: np.ndarray, frame: Frame) -> None:
    size = (7, 12, 6)
    grid = grid_of(SHAPE, affine, size, frame)
    assert grid.affine is not None
    assert grid.spacing is not None
    wanted = read_off(noise(), affine, grid.affine, size, fill=-1.0)
    np.testing.assert_allclose(grid.bring(noise(), fill=-1.0), wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), grid.spacing, rtol=1e-5)
    if frame.orientation is not None:
        assert codes_of(grid.affine) == frame.orientation
    if frame.spacing is not None:
        np.testing.assert_allclose(grid.spacing, frame.spacing)
    middles = (np.array(SHAPE) - 1) / 2, (np.array(size) - 1) / 2
    np.testing.assert_allclose(grid.affine @ [*middles[1], 1], affine @ [*middles[0], 1], atol=1e-4)


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_it_agrees_with_simpleitk_where_steps_are_shorter(affine: np.ndarray) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    size, frame = (20, 24, 30), Frame("SPL", (1.0, 1.1, 1.2))
    # ITK asks for right-handed or left-handed orthogonal axes
    turn, _ = np.linalg.qr(affine[:3, :3])
    square = affine.copy()
    square[:3, :3] = turn * np.sign((turn * affine[:3, :3]).sum(axis=0)) * spacing
    grid = grid_of(SHAPE, square, size, frame)
    assert grid.affine is not None
    assert grid.spacing is not None
    image = sitk.GetImageFromArray(noise().transpose(2, 1, 0))
    image.SetOrigin(square[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((square[:3, :3] / spacing).ravel().tolist())
    steps = np.array(grid.spacing)
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetSize(size)
    resample.SetOutputOrigin(grid.affine[:3, 3].tolist())
    resample.SetOutputSpacing(steps.tolist())
    resample.SetOutputDirection((grid.affine[:3, :3] / steps).ravel().tolist())
    resample.SetDefaultPixelValue(-1.0)
    theirs = sitk.GetArrayFromImage(resample.Execute(image)).transpose(2, 1, 0)
    np.testing.assert_allclose(grid.bring(noise(), fill=-1.0), theirs, atol=2e-5)
    assert (theirs == -1).any()


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("frame", FRAMES[:2], ids=str)
def test_however_it_is_stored_the_network_sees_the_same(affine: np.ndarray, frame: Frame) -> None:
    values = (noise() * 900).astype(np.int16)
    marked = noise() > 0.9
    size = (8, 10, 12)
    seen = prepare(volume(values, affine), channels=1, size=size, intensity="image", frame=frame)
    found = mask_of(volume(marked, affine), size=size, frame=frame)
    assert len(set(CODES)) == 48
    for codes in CODES:
        stored = volume(values, affine, codes)
        assert stored.affine is not None
        assert codes_of(stored.affine) == codes
        again = prepare(stored, channels=1, size=size, intensity="image", frame=frame)
        assert (again == seen).all(), codes
        assert (mask_of(volume(marked, affine, codes), size=size, frame=frame) == found).all(), codes


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("frame", [*FRAMES, Frame("AIR", (6.0, 5.0, 4.0))], ids=str)
def test_a_map_comes_back_to_where_it_was_in_mm(affine: np.ndarray, frame: Frame) -> None:
    size, grids = (8, 10, 12), ((8, 10, 12), (4, 5, 6), (2, 3, 4))
    for codes in CODES:
        stored = volume(noise(), affine, codes)
        assert stored.affine is not None
        grid = grid_of(stored.pixels.shape[1:], stored.affine, size, frame)
        assert grid.affine is not None
        places = np.stack(np.indices(stored.pixels.shape[1:])).reshape(3, -1)
        mm = stored.affine[:3, :3] @ places + stored.affine[:3, 3:]
        within = np.linalg.solve(grid.affine, np.vstack([mm, np.ones(mm.shape[1])]))[:3]  # in the network's voxels
        inside = ((within >= -0.5 - 1e-6) & (within <= np.array(size)[:, None] - 0.5 + 1e-6)).all(axis=0)
        box = np.zeros(stored.pixels.shape[1:], bool)
        box[tuple(slice(*bounds) for bounds in grid.seen())] = True
        np.testing.assert_array_equal(box.ravel(), inside)
        for cells in grids:  # a layer's grid covers what the network's does
            ratio = np.array(size) / np.array(cells)
            coarse = grid.affine.copy()
            coarse[:3, :3] *= ratio
            coarse[:3, 3] += grid.affine[:3, :3] @ ((ratio - 1) / 2)
            ramp = np.einsum("a,a...->...", coarse[:3, :3].T @ [1.0, 2.0, -1.0], np.indices(cells).astype(float))
            laid = grid.back((ramp + coarse[:3, 3] @ [1.0, 2.0, -1.0]).astype(np.float32)).ravel()
            at = np.linalg.solve(coarse, np.vstack([mm, np.ones(mm.shape[1])]))[:3]
            steps = np.abs(np.linalg.solve(coarse[:3, :3], stored.affine[:3, :3])).sum(axis=1)
            margin = np.maximum(steps, 1) - 1 + 1e-6  # where a triangle has both its sides
            full = ((at >= margin[:, None]) & (at <= (np.array(cells) - 1 - margin.T)[:, None])).all(axis=0)
            slope = np.abs([1.0, 2.0, -1.0] @ coarse[:3, :3]).max()
            off = 1e-3 if steps.max() <= 1 else 0.1 * slope  # a wide triangle over few cells leans by so much of a cell
            np.testing.assert_allclose(laid[full], (np.array([1.0, 2.0, -1.0]) @ mm)[full], rtol=1e-4, atol=off)
            assert (laid[~inside] == 0).all()
        if codes == "RAS":
            assert inside.any()


def test_a_peak_comes_back_to_half_a_voxel() -> None:
    frame, size = Frame("RAS", (2.5, 2.5, 2.5)), (12, 12, 12)
    for codes in CODES:
        stored = volume(noise(), OBLIQUE, codes)
        assert stored.affine is not None
        grid = grid_of(stored.pixels.shape[1:], stored.affine, size, frame)
        assert grid.affine is not None
        for voxel in ((5, 6, 7), (6, 5, 4), (7, 6, 6)):
            peak = np.zeros(size, np.float32)
            peak[voxel] = 1
            found = np.unravel_index(int(grid.back(peak).argmax()), stored.pixels.shape[1:])
            apart = np.linalg.solve(grid.affine, stored.affine @ [*found, 1])[:3] - voxel
            own = np.abs(np.linalg.solve(grid.affine[:3, :3], stored.affine[:3, :3])).sum(axis=1)
            assert (np.abs(apart) <= np.maximum(own, 1) / 2 + 1e-6).all(), codes


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_what_was_laid_in_finer_voxels_is_taken_back_exactly(affine: np.ndarray) -> None:
    shape, size = (22, 28, 18), (6, 7, 9)
    for frame in (Frame("RAS", (4.0, 3.5, 5.0)), Frame("IPL", (6.0, 6.0, 6.0)), Frame()):
        for codes in ("RAS", "LPS", "SPL", "AIR"):
            stored = volume(np.zeros(shape, np.float32), affine, codes)
            grid = grid_of(stored.pixels.shape[1:], stored.affine, size, frame)
            values = noise(size) - 0.3
            seen = np.ones(size, bool)  # cells that no voxel of the volume lies in have nothing to come from
            for axis, kernel in enumerate(grid._kernels_back(size)):
                met = np.asarray(kernel.sum(axis=0)).ravel() > 0
                seen &= met.reshape([-1 if each == axis else 1 for each in range(3)])
            np.testing.assert_allclose(grid.undo(grid.back(values))[seen], values[seen], atol=1e-4)
            assert (grid.undo(grid.back(values))[~seen] == 0).all()
            coarse = grid.back(values[:3, :4, :5])  # of a layer
            assert np.corrcoef(grid.back(grid.undo(coarse)).ravel(), coarse.ravel())[0, 1] > 0.97


def test_coarser_voxels_give_back_what_they_hold() -> None:
    grid = grid_of(SHAPE, STRAIGHT, (20, 20, 20), Frame("RAS", (1.0, 1.0, 1.0)))
    smooth = np.exp(-((np.indices((20, 20, 20)) - 9.5) ** 2).sum(axis=0) / 60).astype(np.float32)
    found = grid.undo(grid.back(smooth))
    assert np.abs(found - smooth).max() < 0.1  # voxels of 3 mm can't tell more
    assert np.unravel_index(int(found.argmax()), found.shape) in [
        (a, b, c) for a in (9, 10) for b in (9, 10) for c in (9, 10)
    ]


def test_steps_of_the_same_length_leave_every_voxel_as_it_is() -> None:
    values = noise((9, 12, 7))
    for size, cut in (((5, 6, 7), (slice(2, 7), slice(3, 9), slice(0, 7))), ((4, 7, 6), None)):
        grid = grid_of(values.shape, STRAIGHT, size, Frame("RAS", (2.0, 1.5, 3.0)))
        brought = grid.bring(values)
        assert np.isin(brought, values).all()
        if cut is not None:
            np.testing.assert_array_equal(brought, values[cut])
    # files keep affines in float32
    near = grid_of(values.shape, STRAIGHT.astype(np.float32) * (1 + 1e-7), (5, 6, 7), Frame("RAS", (2.0, 1.5, 3.0)))
    np.testing.assert_array_equal(near.bring(values), values[2:7, 3:9])


def test_longer_steps_skip_nothing() -> None:
    stripes = np.zeros((32, 32, 32), np.float32)
    stripes[::4] = 1
    grid = grid_of(stripes.shape, np.eye(4), (8, 8, 8), Frame("RAS", (4.0, 4.0, 4.0)))
    np.testing.assert_allclose(grid.bring(stripes)[1:-1], 0.25, atol=1e-6)
    shifted = np.roll(stripes, 2, axis=0)
    np.testing.assert_allclose(grid.bring(shifted)[1:-1], 0.25, atol=1e-6)


def test_a_plain_frame_is_the_resize_that_it_was() -> None:
    import torch

    values = noise((10, 21, 17))
    grid = grid_of(values.shape, STRAIGHT, (8, 30, 9))
    assert grid.whole
    assert not grid_of(values.shape, STRAIGHT, (8, 30, 9), Frame("LAS")).whole
    wanted = _resized(torch.from_numpy(values)[None], (8, 30, 9))[0].numpy()
    np.testing.assert_allclose(grid.bring(values), wanted, atol=1e-6)
    image = volume(values, STRAIGHT)
    np.testing.assert_array_equal(
        prepare(image, channels=1, size=(8, 30, 9), intensity="image")[0],
        prepare(image, channels=1, size=(8, 30, 9), intensity="image", frame=Frame())[0],
    )
    assert Geometry.of(image).steps((5, 7, 17)) == pytest.approx((4.0, 4.5, 3.0))


def test_what_is_not_there_is_as_dark_as_the_darkest() -> None:
    values = np.full(SHAPE, 300, np.int16)
    values[5, 7, 4] = -200
    seen = prepare(volume(values, STRAIGHT), channels=1, size=(40, 40, 40), frame=Frame("RAS", (2.0, 2.0, 2.0)))
    assert float(seen[0, 0, 0, 0]) == pytest.approx((-200 + 32768) / 65535)


def test_letters_follow_nibabel() -> None:
    for codes in CODES:
        stored = volume(noise(), OBLIQUE, codes)
        assert stored.affine is not None
        assert codes_of(stored.affine) == "".join(nibabel.aff2axcodes(stored.affine))


@pytest.mark.parametrize("letters", ["RAR", "RA", "XYZ", "ras", "RASL", "RLA"])
def test_letters_that_do_not_name_each_pair_are_refused(letters: str) -> None:
    with pytest.raises(InputError, match="orientation: expected three letters, one each of R and L"):
        Frame(letters)


def test_steps_and_volumes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="spacing: expected three steps above 0"):
        Frame(spacing=(1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="image: expected a volume that says where it lies"):
        grid_of(SHAPE, None, (4, 4, 4), Frame("RAS"))
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    with pytest.raises(InputError, match="whose three axes run different ways"):
        grid_of(SHAPE, flat, (4, 4, 4), Frame("RAS"))
