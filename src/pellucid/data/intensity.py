"""From an image's values to grey in [0, 1]: by a window, or by a range."""

from __future__ import annotations

import numpy as np

from pellucid.data.medical_image import MedicalImage
from pellucid.data.windows import PRESETS, RANGES, Window, check_intensity, is_window, pick_window
from pellucid.errors import InputError, expected

HOUNSFIELD = "HU"


def window_used(image: MedicalImage, intensity: str = "dtype") -> Window | None:
    """The window through which an image is seen with a choice of `intensity`; None where it is a range.

    "dtype" is the image's `window` where it has one, as all grey DICOM has: the file's own, or one whose name says
    where it comes from. Raises InputError that names the file where it doesn't have what is asked for, for a preset
    where values aren't in HU, and for a window where the image is coloured.
    """
    check_intensity(intensity)
    if intensity == "dtype":
        return image.window
    if not is_window(intensity):
        return None
    if len(image.pixels) != 1:
        raise expected("intensity", "'dtype' or 'image' for colours", f"{intensity!r} for {image.source}")
    if intensity in PRESETS and image.units not in (None, HOUNSFIELD):
        raise expected("intensity", f"values in HU for {intensity!r}", f"{image.units} in {image.source}")
    try:
        return pick_window(intensity, image.pixels, image.windows)
    except InputError as error:
        raise InputError(f"{image.source}: {error}") from error


def grey_of(image: MedicalImage, intensity: str = "dtype") -> np.ndarray:
    """Pixels (C, *S) as float32 in [0, 1], as they are to be seen: bright where the image is meant to be bright.

    By the window that `window_used` gives, or by a range: "dtype" takes the range of the stored type, "image" the
    image's own minimum and maximum, over all channels, to 0 and 1, and a constant image to 0. Where low values are
    bright (MONOCHROME1), 0 and 1 change places.

    Raises InputError as `window_used` does, and for float pixels outside of [0, 1] where the stored type is all there
    is to go by.
    """
    window = window_used(image, intensity)
    grey = _by_range(image, intensity) if window is None else window.apply(image.pixels)
    return np.subtract(1, grey, out=grey) if image.inverted else grey


def _by_range(image: MedicalImage, intensity: str) -> np.ndarray:
    assert intensity in RANGES
    pixels = image.pixels
    working = np.float32 if pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32 else np.float64
    if intensity == "image":
        low, high = float(pixels.min()), float(pixels.max())
        if high == low:
            return np.zeros(pixels.shape, np.float32)
    elif pixels.dtype.kind == "f":
        low, high = 0.0, 1.0
        if pixels.min() < 0 or pixels.max() > 1:
            raise expected(
                "intensity", "values in [0, 1] where pixels are float",
                f"{pixels.min():g} to {pixels.max():g} in {image.source}", do='Use intensity = "image".',
            )  # fmt: skip
    else:
        limits = np.iinfo(pixels.dtype)
        low, high = float(limits.min), float(limits.max)
    scaled: np.ndarray = pixels.astype(working)
    if low:
        scaled -= low
    scaled /= high - low
    return scaled.astype(np.float32, copy=False)
