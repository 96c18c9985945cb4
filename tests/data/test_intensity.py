"""From values to grey: by a window, by a range, and the right way round."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pellucid.data.intensity import grey_of, window_used
from pellucid.data.medical_image import MedicalImage
from pellucid.data.transforms import prepare
from pellucid.data.windows import Window
from pellucid.errors import InputError
from pellucid.study.dataset_settings import DatasetSettings

WINDOWS = (Window(40, 400, "file's"), Window(300, 2000, "file's"))
PIXELS = np.linspace(-1000, 1000, 30).astype("i2").reshape(1, 5, 6)


def image_of(pixels: np.ndarray = PIXELS, **fields: object) -> MedicalImage:
    return MedicalImage(pixels, None, None, None, Path("made.dcm"), **fields)  # type: ignore[arg-type]


CT = image_of(units="HU", window=WINDOWS[0], windows=WINDOWS)


def test_dtype_is_the_window_of_the_file_where_there_is_one() -> None:
    assert window_used(CT) is WINDOWS[0]
    np.testing.assert_array_equal(grey_of(CT), WINDOWS[0].apply(PIXELS))
    assert window_used(image_of()) is None
    np.testing.assert_allclose(grey_of(image_of()), (PIXELS + 32768.0) / 65535, atol=1e-7)


def test_every_choice_of_window() -> None:
    for choice, centre, width in (("file", 40, 400), ("file-2", 300, 2000), ("lung", -600, 1500), ("7/9", 7, 9)):
        window = window_used(CT, choice)
        assert window is not None
        assert (window.centre, window.width) == (centre, width)
        np.testing.assert_array_equal(grey_of(CT, choice), window.apply(PIXELS))
    assert window_used(CT, "image") is None
    np.testing.assert_allclose(grey_of(CT, "image"), (PIXELS + 1000) / 2000, atol=1e-6)


@pytest.mark.parametrize("choice", ["dtype", "image", "file", "percentile", "bone", "0/500"])
def test_inverted_images_are_turned_round(choice: str) -> None:
    turned = dataclasses.replace(CT, inverted=True)
    np.testing.assert_allclose(grey_of(turned, choice), 1 - grey_of(CT, choice), atol=1e-7)
    one = prepare(turned, channels=3, size=4, intensity=choice)
    assert one.min() >= 0
    assert one.max() <= 1


def test_what_cannot_be_seen_through_a_window() -> None:
    colour = image_of(PIXELS.repeat(3, 0).astype("u1"))
    with pytest.raises(
        InputError, match=r"intensity: expected 'dtype' or 'image' for colours, got 'lung' for made\.dcm"
    ):
        grey_of(colour, "lung")
    with pytest.raises(InputError, match=r"expected values in HU for 'lung', got SUVbw in made\.dcm"):
        grey_of(image_of(units="SUVbw"), "lung")
    with pytest.raises(InputError, match=r"made\.dcm: window: expected a file that states its window"):
        grey_of(image_of(window=WINDOWS[0]), "file")
    with pytest.raises(InputError, match="intensity: expected 'dtype'"):
        grey_of(CT, "auto")
    assert window_used(image_of(), "lung") is not None  # a volume that states no units may be in HU


def test_settings_of_a_study_take_windows_and_name_those_there_are() -> None:
    for choice in ("dtype", "image", "lung", "-600/1500", "percentile"):
        assert DatasetSettings(name="a", path="b", intensity=choice).intensity == choice
    with pytest.raises(ValidationError, match="intensity: expected 'dtype', 'image', 'file', .* got 'lungs'"):
        DatasetSettings(name="a", path="b", intensity="lungs")
