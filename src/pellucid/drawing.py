"""Overlays, colour scales and legends: arrays in, picture out.

Scaling a map by its largest magnitude happens here for display only; no score is computed from a drawn map.
Scales are perceptually even and read the same with colour-blind eyes: viridis for maps that are nowhere
negative, red to blue for signed ones.
"""

from __future__ import annotations

import io
from typing import Literal

import matplotlib.colors
import numpy as np
import numpy.typing as npt
from PIL import Image

from pellucid.errors import expected

Picture = npt.NDArray[np.uint8]

POSITIVE = "viridis"
SIGNED = "RdBu_r"
MATRIX = "Blues"
OUTLINE = (255, 176, 0)  # stands out on grey, on viridis and, with its black edge, on white

# Okabe & Ito 2008, dark enough on white first
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def to_picture(image: npt.ArrayLike) -> Picture:
    """An RGB picture (H, W, 3) uint8 of an image.

    Arguments:
        image: (H, W), (H, W, 1), (H, W, 3), or the same with the channels first. 8-bit values are taken as they
            are; others are stretched from their least to their greatest value, for display only.

    Raises:
        InputError: another shape.

    >>> to_picture(np.array([[0.0, 2.0]]))[0].tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[-1] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise expected("image", "an array (H, W), (H, W, 3) or (C, H, W) of one or three channels", np.shape(image))
    if array.dtype != np.uint8:
        array = _stretched(array.astype(np.float64))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def is_signed(saliency: npt.ArrayLike) -> bool:
    """Whether a map has values below zero, and so needs the signed scale."""
    return bool((np.asarray(saliency) < 0).any())


def colourise(saliency: npt.ArrayLike, *, signed: bool | None = None) -> tuple[Picture, npt.NDArray[np.float64]]:
    """Colours (H, W, 3) of a map and its magnitude (H, W) in [0, 1], largest 1; an all-zero map has none.

    Arguments:
        saliency: raw map (H, W), of any range; values that aren't finite count as zero.
        signed: which scale to take; None looks for negative values.
    """
    values = np.nan_to_num(np.asarray(saliency, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if signed is None:
        signed = is_signed(values)
    if not signed:
        values = np.maximum(values, 0.0)
    largest = float(np.abs(values).max(initial=0.0))
    scaled = values / largest if largest > 0 else np.zeros_like(values)
    scale = matplotlib.colormaps[SIGNED if signed else POSITIVE]
    colours = scale((scaled + 1) / 2 if signed else scaled)[..., :3]
    return np.rint(colours * 255).astype(np.uint8), np.abs(scaled)


def overlay(
    image: npt.ArrayLike,
    saliency: npt.ArrayLike,
    *,
    mask: npt.ArrayLike | None = None,
    signed: bool | None = None,
    opacity: float = 0.75,
) -> Picture:
    """An image with a map laid over it, the more opaque the larger the map's magnitude.

    Arguments:
        image: (H, W), (H, W, 3) or (C, H, W); see `to_picture`.
        saliency: raw map (H, W). A map that is zero everywhere leaves the image bare: it is never stretched.
        mask: (H, W) bool, drawn as an outline.
        signed: which colour scale to take; None looks for negative values.
        opacity: of the largest magnitude, in [0, 1].

    Returns: (H, W, 3) uint8.

    Raises:
        InputError: shapes that don't fit or an opacity outside [0, 1].

    >>> overlay(np.full((2, 2), 7, np.uint8), np.zeros((2, 2))).max()
    np.uint8(7)
    """
    picture = to_picture(image)
    values = np.asarray(saliency)
    if values.shape != picture.shape[:2]:
        raise expected("saliency", f"the image's shape {picture.shape[:2]}", values.shape, "Resize the map first.")
    if not 0 <= opacity <= 1:
        raise expected("opacity", "a number in [0, 1]", opacity)
    colours, magnitude = colourise(values, signed=signed)
    alpha = (opacity * np.sqrt(magnitude))[..., None]  # the root keeps the middle of the scale visible
    blended = np.rint(picture * (1 - alpha) + colours * alpha).astype(np.uint8)
    return blended if mask is None else outline(blended, mask)


def outline(image: npt.ArrayLike, mask: npt.ArrayLike, *, colour: tuple[int, int, int] = OUTLINE) -> Picture:
    """An image with the outline of a mask: a line of `colour` inside its edge and a black one outside.

    Arguments:
        image: as in `to_picture`.
        mask: (H, W) bool; an empty mask leaves the image bare.

    Raises:
        InputError: shapes that don't fit.
    """
    picture = to_picture(image).copy()
    inside = np.asarray(mask, dtype=bool)
    if inside.shape != picture.shape[:2]:
        raise expected("mask", f"the image's shape {picture.shape[:2]}", inside.shape, "Resize the mask first.")
    picture[_grown(inside) & ~inside] = 0
    picture[inside & _grown(~inside)] = colour
    return picture


def colour_bar(scale: str = POSITIVE, *, width: int = 256, height: int = 14) -> Picture:
    """A Matplotlib colour scale from its least to its greatest value, left to right, (height, width, 3) uint8."""
    colours = matplotlib.colormaps[scale](np.linspace(0.0, 1.0, width))[None, :, :3]
    bar: Picture = np.rint(255 * np.repeat(colours, height, axis=0)).astype(np.uint8)
    return bar


def legend(*, signed: bool = False, width: int = 256, height: int = 18) -> Picture:
    """The scale as `overlay` draws it: on mid grey and as opaque as the magnitude, (height, width, 3) uint8."""
    values = np.linspace(-1.0 if signed else 0.0, 1.0, width)[None].repeat(height, axis=0)
    return overlay(np.full((height, width), 110, np.uint8), values, signed=signed)


def enlarge(picture: Picture, width: int) -> Picture:
    """A picture (H, W, 3) at a given width in pixels, its shape kept."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


def encode(picture: npt.ArrayLike, form: Literal["png", "webp", "jpeg"] = "png", *, quality: int = 80) -> bytes:
    """A picture (H, W, 3) uint8 as the bytes of a file; `quality` counts for WebP and JPEG."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.asarray(picture, dtype=np.uint8))
    if form == "png":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, form.upper(), quality=quality)
    return buffer.getvalue()


def colour_of(share: float, scale: str = MATRIX) -> tuple[str, str]:
    """Background and readable text colour, as CSS hex, for a share in [0, 1].

    >>> colour_of(1.0)
    ('#08306b', '#ffffff')
    """
    colour = np.rint(255 * np.array(matplotlib.colormaps[scale](min(max(share, 0.0), 1.0))[:3])) / 255
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    # WCAG 2: contrast is (lighter + 0.05) / (darker + 0.05)
    black_reads_better = (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05)
    return matplotlib.colors.to_hex(tuple(colour)), "#000000" if black_reads_better else "#ffffff"


def _stretched(values: npt.NDArray[np.float64]) -> Picture:
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    filled = np.where(finite, values, low)
    scaled = (filled - low) / (high - low) if high > low else np.zeros_like(filled)
    stretched: Picture = np.rint(scaled * 255).astype(np.uint8)
    return stretched


def _grown(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask and its four neighbours; the picture's border is no edge."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
