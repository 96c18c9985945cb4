"""Volumes turned to be looked at: rows and columns as a radiologist sees them, and the sides at their edges."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from pellucid.data.images import MedicalImage
from pellucid.data.planes import Upright, letters, middle
from pellucid.data.shown import as_shown, scaling_words
from pellucid.data.windows import Window

CODES = ["".join(each) for order in itertools.permutations(("RL", "AP", "SI")) for each in itertools.product(*order)]


@pytest.mark.parametrize("codes", CODES)
def test_any_axes_are_turned_to_the_feet_the_back_and_the_left(codes: str) -> None:
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored, turned = apply_orientation(values, change), affine @ inv_ornt_aff(change, values.shape)
    upright = Upright.of(stored.shape, turned)
    np.testing.assert_array_equal(upright.turn(stored), values[::-1, ::-1, ::-1].transpose(2, 1, 0))
    assert (upright.shape, upright.steps) == ((6, 5, 4), (5.0, 3.0, 2.0))
    assert upright.edges(0) == ("R", "L", "A", "P")
    assert upright.edges(1) == ("R", "L", "H", "F")
    assert upright.edges(2) == ("A", "P", "H", "F")
    for place in ((0, 0, 0), (3, 1, 5), (2, 4, 0)):
        voxel = np.argwhere(stored == values[place])[0].tolist()
        assert upright.turn(stored)[upright.grid.turned(voxel)] == values[place]


def test_an_oblique_axis_has_two_letters() -> None:
    angle = np.deg2rad(30)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    upright = Upright.of((4, 4, 4), affine)
    assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
    assert upright.edges(0) == ("RA", "LP", "AL", "PR")
    assert letters(np.array([0.0, 0.0, -3.0])) == "F"
    assert letters(np.array([1.0, 0.2, 0.0])) == "R"


def test_the_middle_of_a_mask_lies_in_it() -> None:
    ring = np.zeros((5, 5, 5), bool)
    ring[2, 1:4, 1:4] = True
    ring[2, 2, 2] = False
    assert ring[middle(ring)]
    assert middle(np.zeros((4, 6, 8), bool)) == (2, 3, 4)


def image(values: np.ndarray, window: Window | None = None, *, inverted: bool = False) -> MedicalImage:
    affine = np.eye(4) if values.ndim == 4 else None
    return MedicalImage(values, None, None, "CT", Path("made"), affine, "HU", window=window, inverted=inverted)


def test_a_volume_is_shown_by_the_networks_window_then_its_own_then_percentiles() -> None:
    values = np.linspace(-1000, 1000, 4000).reshape(1, 10, 20, 20).astype(np.int16)
    own = Window(100.0, 400.0, "file's")
    for intensity, window, words in (
        ("lung", own, "lung window, -600/1500"),
        ("dtype", own, "file's window, 100/400"),
        ("image", own, "file's window, 100/400"),
        ("40/400", None, "given window, 40/400"),
        ("dtype", None, "percentile window, 0/1978"),
    ):
        grey, said = as_shown(image(values, window), intensity)
        assert said == words
        assert grey.dtype == np.uint8
        assert grey.shape == values.shape
    grey, _ = as_shown(image(values, own), "dtype")
    np.testing.assert_array_equal(grey[values <= -100], 0)
    np.testing.assert_array_equal(grey[values >= 300], 255)
    turned, _ = as_shown(image(values, own, inverted=True), "dtype")
    assert np.abs(turned.astype(int) + grey - 255).max() <= 1


def test_pictures_of_8_bits_are_shown_as_they_are() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    grey, said = as_shown(image(values))
    np.testing.assert_array_equal(grey, values)
    assert said == ""
    grey, said = as_shown(image(values.astype(np.uint16) * 300))
    assert (int(grey.min()), int(grey.max()), said) == (0, 255, "whole range window, 1650/3300")
    colour = np.repeat(values, 3, axis=0)
    np.testing.assert_array_equal(as_shown(image(colour), "lung")[0], colour)


def test_what_a_network_sees_is_said() -> None:
    values = np.array([[[0, 70], [5, 9]]], np.int16)
    assert scaling_words(image(values), "image") == "from its own least to its greatest value, 0 to 70"
    assert scaling_words(image(values), "dtype") == "the whole range of the stored type, -32768 to 32767"
    assert scaling_words(image(values), "bone") == "bone window, 400/1800"
    assert scaling_words(image(values / 100), "dtype") == "from 0 to 1"
