"""Pictures of maps: bare where there is no evidence, never stretched, scales that everyone can read."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pellucid.drawing import (
    Panel,
    Row,
    colour_bar,
    colour_of,
    colourise,
    contours,
    encode,
    enlarge,
    legend,
    outline,
    overlay,
    sheet,
    strongest,
    to_picture,
)
from pellucid.errors import InputError


def luminance(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (1, 6, 5), (3, 6, 5)])
def test_every_layout_of_an_image_becomes_rgb(shape: tuple[int, ...]) -> None:
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    picture = to_picture(image)
    assert picture.shape == (6, 5, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 0, 0] == 0


def test_eight_bit_images_keep_their_values_and_others_are_stretched() -> None:
    assert to_picture(np.full((2, 2), 90, np.uint8)).max() == 90
    floats = to_picture(np.array([[-1.0, 0.0, 1.0, np.nan]]))
    assert floats[0, :, 0].tolist() == [0, 128, 255, 0]
    assert to_picture(np.full((2, 2), 0.4)).max() == 0  # a flat image isn't stretched to noise


def test_an_all_zero_map_is_the_bare_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    assert (overlay(image, np.zeros((8, 9))) == image).all()
    assert (overlay(image, np.zeros((8, 9)), signed=True) == image).all()


def test_a_map_hides_more_of_the_image_the_larger_it_is() -> None:
    image = np.zeros((1, 3), np.uint8)
    change = overlay(image, np.array([[0.0, 0.5, 1.0]])).astype(int).sum(axis=-1)[0]
    assert change[0] == 0
    assert 0 < change[1] < change[2]


def test_an_overlay_does_not_depend_on_a_positive_factor() -> None:
    draws = np.random.default_rng(1)
    image, saliency = draws.integers(0, 255, (5, 5), dtype=np.uint8), draws.standard_normal((5, 5))
    assert (overlay(image, saliency) == overlay(image, 1e-6 * saliency)).all()


def test_signs_have_opposite_colours_around_zero() -> None:
    colours, magnitude = colourise(np.array([[-2.0, 0.0, 1.0]]))
    negative, zero, positive = colours[0].astype(int)
    assert negative[2] > negative[0]  # blue
    assert positive[0] > positive[2]  # red
    assert np.ptp(zero) < 6
    assert magnitude[0].tolist() == [1.0, 0.0, 0.5]


def test_a_positive_scale_takes_negative_values_as_no_evidence() -> None:
    _, magnitude = colourise(np.array([[-2.0, 1.0]]), signed=False)
    assert magnitude[0].tolist() == [0.0, 1.0]


def test_values_that_are_not_finite_are_no_evidence() -> None:
    _, magnitude = colourise(np.array([[np.nan, np.inf, 1.0]]))
    assert magnitude[0].tolist() == [0.0, 0.0, 1.0]


def test_the_positive_scale_grows_lighter_all_along() -> None:
    assert (np.diff(luminance(colour_bar()[0])) > -1).all()
    assert luminance(colour_bar()[0])[-1] > luminance(colour_bar()[0])[0] + 150


def test_an_outline_lies_on_both_sides_of_the_edge() -> None:
    mask = np.zeros((9, 9), bool)
    mask[3:6, 3:6] = True
    drawn = outline(np.full((9, 9), 100, np.uint8), mask, colour=(255, 0, 0))
    assert drawn[3, 3].tolist() == [255, 0, 0]
    assert drawn[2, 3].tolist() == [0, 0, 0]
    assert drawn[4, 4].tolist() == [100, 100, 100]
    assert drawn[0, 0].tolist() == [100, 100, 100]


def test_an_empty_or_full_mask_has_no_outline() -> None:
    image = np.full((4, 4), 50, np.uint8)
    for mask in (np.zeros((4, 4), bool), np.ones((4, 4), bool)):
        assert (outline(image, mask) == 50).all()


def test_nothing_is_written_into_what_was_given() -> None:
    image = np.full((4, 4, 3), 50, np.uint8)
    outline(image, np.eye(4, dtype=bool))
    overlay(image, np.ones((4, 4)), mask=np.eye(4, dtype=bool))
    assert (image == 50).all()


def test_a_wider_outline_stays_inside_its_mask() -> None:
    mask = np.zeros((11, 11), bool)
    mask[2:9, 2:9] = True
    drawn = outline(np.full((11, 11), 100, np.uint8), mask, colour=(255, 0, 0), width=2)
    assert [drawn[5, column].tolist() for column in range(1, 5)] == [[0] * 3, [255, 0, 0], [255, 0, 0], [100] * 3]


def test_contours_run_where_the_map_crosses_their_levels_and_leave_the_rest_bare() -> None:
    ramp = np.tile(np.linspace(0, 1, 41), (9, 1))
    image = np.full(ramp.shape, 90, np.uint8)
    drawn = contours(image, ramp, levels=(0.5,))
    changed = np.flatnonzero((drawn != 90).any(axis=(0, 2)))
    assert changed.tolist() == [19, 20, 21]  # a black line below the level, two coloured ones from it on
    assert drawn[4, 19].tolist() == [0, 0, 0]
    colours, _ = colourise(ramp)
    assert drawn[4, 20].tolist() == colours[4, 20].tolist()
    assert (contours(image, ramp, levels=(0.5,)) == contours(image, 1e-6 * ramp, levels=(0.5,))).all()


def test_contours_of_a_signed_map_are_blue_below_zero_and_red_above() -> None:
    ramp = np.tile(np.linspace(-1, 1, 81), (9, 1))
    drawn = contours(np.full(ramp.shape, 90, np.uint8), ramp, levels=(0.5,)).astype(int)
    below, above = drawn[4, 20], drawn[4, 60]
    assert below[2] > below[0] + 30
    assert above[0] > above[2] + 30
    assert (drawn[:, 30:50] == 90).all()
    half = contours(np.full(ramp.shape, 90, np.uint8), ramp, levels=(0.5,), signed=False)
    assert (half[:, :50] == 90).all()  # no evidence for the class there


def test_a_map_of_zeros_has_no_contours() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    for signed in (None, False, True):
        assert (contours(image, np.zeros((8, 9)), signed=signed) == image).all()
    assert (contours(image, np.full((8, 9), np.nan)) == image).all()


def test_the_strongest_channel_keeps_its_sign() -> None:
    values = np.random.default_rng(0).standard_normal((3, 2, 4, 5))
    found = strongest(values)
    for row in range(4):
        for column in range(5):
            wanted = max(values[:, :, row, column].ravel(), key=abs)
            assert found[row, column] == wanted
    assert (strongest(values[0, 0]) == values[0, 0]).all()
    assert strongest(values, axes=3).shape == (2, 4, 5)


def panel(shade: int, signed: bool | None, caption: str = "layer-cam") -> Panel:
    return Panel(np.full((40, 60, 3), (shade, 200, 0), np.uint8), caption, signed)


def test_a_sheet_holds_every_picture_and_the_scales_that_they_use() -> None:
    panels = [panel(shade, signed) for shade, signed in ((11, None), (22, False), (33, None), (44, None))]
    one = sheet([Row("bright", panels)], columns=3)
    for shade in (11, 22, 33, 44):
        assert (one == (shade, 200, 0)).all(axis=-1).sum() == 40 * 60
    rows = [np.flatnonzero((one == (shade, 200, 0)).all(axis=-1).any(axis=1))[0] for shade in (11, 33, 44)]
    assert rows[0] == rows[1] < rows[2] - 40  # the fourth goes on below
    none = sheet([Row("bright", [panel(11, None)] * 4)], columns=3)
    both = sheet([Row("bright", [*panels, panel(55, True)])], columns=3)
    assert none.shape[0] < one.shape[0] < both.shape[0]
    two = sheet([Row("bright", panels[:1]), Row("dark", panels[1:2])])
    assert (two == (22, 200, 0)).all(axis=-1).sum() == 40 * 60


def test_words_of_a_sheet_stay_within_their_panels() -> None:
    short, long = (sheet([Row("t", [panel(9, None, "l"), panel(9, None, text)])]) for text in ("l", "layer-cam " * 30))
    assert short.shape == long.shape
    assert (short[:, :70] == long[:, :70]).all()
    assert (long[:, -10:] == 255).all()
    assert (sheet([Row("t" * 900, [panel(9, None, "")])])[:, -10:] == 255).all()


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_encoded_pictures_open_at_their_size(form: str) -> None:
    with Image.open(io.BytesIO(encode(legend(width=40, height=7), form))) as image:  # type: ignore[arg-type]
        assert image.format == form.upper()
        assert image.size == (40, 7)


def test_a_signed_legend_fades_in_its_middle() -> None:
    strip = legend(signed=True, width=101)[0].astype(int)
    assert np.ptp(strip[50]) < 8
    assert np.ptp(strip[0]) > 40
    assert np.ptp(strip[-1]) > 40


def test_enlarging_keeps_the_shape() -> None:
    assert enlarge(np.zeros((10, 20, 3), np.uint8), 160).shape == (80, 160, 3)


def test_text_on_a_colour_is_readable() -> None:
    for share in np.linspace(0, 1, 21):
        ground, ink = (
            np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for code in colour_of(float(share))
        )
        linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (ground, ink)]
        light, dark = sorted((float(luminance(value)) for value in linear), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, share  # WCAG 2, level AA


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: overlay(np.zeros((4, 4), np.uint8), np.zeros((2, 2))), "saliency: expected"),
        (lambda: overlay(np.zeros((4, 4), np.uint8), np.zeros((4, 4)), opacity=2.0), "opacity: expected"),
        (lambda: outline(np.zeros((4, 4), np.uint8), np.zeros((2, 2), bool)), "mask: expected"),
        (lambda: contours(np.zeros((4, 4), np.uint8), np.zeros((2, 2))), "saliency: expected"),
        (lambda: contours(np.zeros((4, 4), np.uint8), np.zeros((4, 4)), levels=(0.0,)), "levels: expected"),
        (lambda: contours(np.zeros((4, 4), np.uint8), np.zeros((4, 4)), levels=()), "levels: expected"),
        (lambda: sheet([]), "rows: expected"),
        (lambda: sheet([Row("a", [])]), "rows: expected"),
        (lambda: sheet([Row("a", [panel(1, None)])], columns=0), "columns: expected"),
        (lambda: to_picture(np.zeros((4, 4, 2))), "image: expected"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        call()
