"""Drawn views: the right side is right, head is up, lengths are to scale, and the window is that which is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pellucid.data.dicom.geometry import affine_of
from pellucid.data.images import MedicalImage
from pellucid.data.views import Shown, View, drawn, picture_view, volume_views
from pellucid.data.windows import Window
from pellucid.errors import InputError

AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
SHAPE = (5, 6, 7)


def volume(orientation: tuple[float, ...], *, backwards: bool = False) -> MedicalImage:
    """Each voxel's value tells its index."""
    step = np.cross(orientation[:3], orientation[3:]) * (-4.0 if backwards else 4.0)
    affine = affine_of((10.0, -20.0, 30.0), orientation, (2.0, 1.0), step)
    pixels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    return MedicalImage(pixels, (4.0, 2.0, 1.0), orientation, "CT", Path("x"), affine)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL])
def test_planes_run_to_the_sides_that_they_name(orientation: tuple[float, ...], backwards: bool) -> None:
    image = volume(orientation, backwards=backwards)
    greys = Shown((image.pixels % 251).astype(np.uint8), "")
    assert image.affine is not None
    views = volume_views(image, image.pixels[0], greys, (2, 3, 4))
    assert len(views) == 3
    towards = {"L": (0, -1), "R": (0, 1), "A": (1, 1), "P": (1, -1), "H": (2, 1), "F": (2, -1)}  # in RAS

    def place(value: float) -> np.ndarray:
        index = np.unravel_index(int(value), SHAPE)
        found: np.ndarray = (image.affine @ [*index, 1])[:3]
        return found

    for view in views:
        np.testing.assert_array_equal(view.grey[..., 0], view.values % 251)  # the map lies on its pixels
        along = place(view.values[0, -1]) - place(view.values[0, 0])
        down = place(view.values[-1, 0]) - place(view.values[0, 0])
        assert view.spacing is not None
        left, right, top, bottom = view.sides
        for step, start, end, length, size in (
            (along, left, right, view.values.shape[1], view.spacing[1]),
            (down, top, bottom, view.values.shape[0], view.spacing[0]),
        ):
            (axis, sign), (opposite, other) = towards[end], towards[start]
            assert step[axis] * sign == pytest.approx((length - 1) * size)
            assert (opposite, other) == (axis, -sign)
        assert right in "LP"
        assert bottom in "PF"


def test_the_window_is_the_file_s_and_is_said() -> None:
    pixels = np.array([[[-200.0, 40.0, 300.0]]], np.float32)
    image = MedicalImage(pixels, None, None, "CT", Path("x"), units="HU", window=Window(40, 400, "file's"))
    shown = Shown.of(image)
    assert shown.words == "file's window, 40/400 HU"
    black, middle, white = shown.greys[0, 0].tolist()
    assert (black, white) == (0, 255)
    assert 126 <= middle <= 129
    assert Shown.of(image, "lung").words == "lung window, -600/1500 HU"


def test_inverted_pixels_are_shown_the_other_way_round() -> None:
    pixels = np.array([[[0, 100]]], np.uint16)
    image = MedicalImage(
        pixels, None, None, "CR", Path("x"), window=Window(50, 100, "file's", "linear-exact"), inverted=True
    )
    shown = Shown.of(image)
    assert shown.greys[0, 0].tolist() == [255, 0]
    assert shown.words.endswith(", inverted")


def test_colour_is_shown_as_stored() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 5)).astype(np.uint8)
    image = MedicalImage(pixels, None, None, "US", Path("x"))
    shown = Shown.of(image)
    assert shown.words == "colour as it is stored"
    view = picture_view(image, np.zeros((4, 5)), shown)
    np.testing.assert_array_equal(view.grey, np.moveaxis(pixels, 0, -1))


def test_sides_of_a_picture_come_from_its_orientation_or_from_what_is_said() -> None:
    pixels, grey = np.zeros((1, 3, 4), np.uint8), Shown(np.zeros((1, 3, 4), np.uint8), "")
    plain = MedicalImage(pixels, None, None, "CR", Path("x"))
    placed = MedicalImage(pixels, (1.0, 1.0), CORONAL, "CT", Path("x"))
    assert picture_view(plain, pixels[0], grey).sides == ("", "", "", "")
    assert picture_view(plain, pixels[0], grey, ["L", "FP"]).sides == ("R", "L", "HA", "FP")
    assert picture_view(placed, pixels[0], grey, ["R", "H"]).sides == ("R", "L", "H", "F")
    with pytest.raises(InputError, match=r"the shape of the image, \(3, 4\)"):
        picture_view(plain, np.zeros((4, 3)), grey)


def test_views_are_drawn_to_scale() -> None:
    """30 mm by 20 mm, of pixels that aren't square."""
    view = View(np.full((40, 15, 3), 200, np.uint8), np.zeros((40, 15)), (0.5, 2.0))
    picture = drawn([view], "t", ["w"], side=600)
    rows, columns = np.nonzero((picture == 200).all(axis=-1))
    assert np.ptp(columns) + 1 == 600
    assert np.ptp(rows) + 1 == 400


def test_the_map_is_seen_where_it_is_large_and_nowhere_else() -> None:
    values = np.zeros((20, 20))
    values[2:6, 12:18] = 3
    plain = View(np.full((20, 20, 3), 100, np.uint8), values)
    with_map = drawn([plain], "t", ["w"], side=400).astype(int)
    without = drawn([View(plain.grey, np.zeros((20, 20)))], "t", ["w"], side=400).astype(int)
    rows, columns = np.nonzero(np.abs(with_map - without)[:430, :416].sum(axis=-1))
    assert (rows.min() - 30) // 20 in (1, 2)
    assert (columns.min() - 8) // 20 in (11, 12)
    assert (columns.max() - 8) // 20 in (17, 18)


def test_planes_of_one_volume_share_the_scale_of_colours() -> None:
    grey = np.zeros((10, 10, 3), np.uint8)
    strong, weak = View(grey, np.full((10, 10), 4.0), (1, 1)), View(grey, np.full((10, 10), 1.0), (1, 1))
    picture = drawn([strong, weak], "t", ["w"], side=200).astype(int)
    assert not np.array_equal(picture[130, 60], picture[130, 208 + 8 + 60])
    assert picture[130, 60].sum() > picture[130, 208 + 8 + 60].sum()
