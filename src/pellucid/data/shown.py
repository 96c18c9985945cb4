"""An image in greys, as it is shown, and by which window: what must stand beside every picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pellucid.data.images import MedicalImage
from pellucid.data.intensity import window_used
from pellucid.data.windows import Window, is_window, pick_window


def as_shown(image: MedicalImage, intensity: str = "dtype") -> tuple[npt.NDArray[np.uint8], str]:
    """8-bit values (C, *S) to look at, and the window in words, "" where values are shown as they are stored.

    That window is the one by which a network sees the image, where `intensity` names one; else the one that the file
    states; of a volume without one the percentiles of its values. Other pictures are shown as they are in 8 bits, and
    from their least to their greatest value in more.
    """
    window = window_shown(image, intensity)
    if window is None:
        return image.pixels.astype(np.uint8, copy=False), ""
    grey = np.empty(image.pixels.shape, np.uint8)
    for place in np.ndindex(image.pixels.shape[:2]):  # a slice at a time, for memory
        values = window.apply(image.pixels[place])
        grey[place] = np.rint((1 - values if image.inverted else values) * 255)
    return grey, window.text()


def window_shown(image: MedicalImage, intensity: str = "dtype") -> Window | None:
    """The window of `as_shown`; None for 8-bit pictures without one."""
    if is_window(intensity) and not (intensity == "file" and image.window is None) and len(image.pixels) == 1:
        return window_used(image, intensity)
    if image.window is not None and len(image.pixels) == 1:
        return image.window
    if image.pixels.ndim == 4:
        return pick_window("percentile", image.pixels, None)
    if image.pixels.dtype == np.uint8:
        return None
    low, high = float(image.pixels.min()), float(image.pixels.max())
    return Window((low + high) / 2, max(high - low, 1e-12), "whole range", "linear-exact")


def scaling_words(image: MedicalImage, intensity: str) -> str:
    """By which window, or from where to where, values become [0, 1] before a network, in words."""
    window = window_used(image, intensity)
    if window is not None:
        return window.text()
    if intensity == "image":
        return f"from its own least to its greatest value, {image.pixels.min():g} to {image.pixels.max():g}"
    if image.pixels.dtype.kind == "f":
        return "from 0 to 1"
    limits = np.iinfo(image.pixels.dtype)
    return f"the whole range of the stored type, {limits.min} to {limits.max}"
