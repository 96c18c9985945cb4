"""Overlays, colour scales and legends: arrays in, picture out.

Scaling a map by its largest magnitude happens here for display only; no score is computed from a drawn map.
Scales are perceptually even and read the same with colour-blind eyes: viridis for maps that are nowhere
negative, red to blue for signed ones.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib.colors
import matplotlib.font_manager
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pellucid.errors import expected

Picture = npt.NDArray[np.uint8]

POSITIVE = "viridis"
SIGNED = "RdBu_r"
MATRIX = "Blues"
OUTLINE = (255, 176, 0)  # stands out on grey, on viridis and, with its black edge, on white

LEVELS = (0.25, 0.5, 0.75)  # of the largest magnitude, where contours run

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


def colourise(
    saliency: npt.ArrayLike, *, signed: bool | None = None, largest: float | None = None
) -> tuple[Picture, npt.NDArray[np.float64]]:
    """Colours (H, W, 3) of a map and its magnitude (H, W) in [0, 1], largest 1; an all-zero map has none.

    Arguments:
        saliency: raw map (H, W), of any range; values that aren't finite count as zero.
        signed: which scale to take; None looks for negative values.
        largest: the magnitude that becomes 1, such as that of all planes of a volume; None takes the map's own.
    """
    values = np.nan_to_num(np.asarray(saliency, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if signed is None:
        signed = is_signed(values)
    if not signed:
        values = np.maximum(values, 0.0)
    largest = float(np.abs(values).max(initial=0.0)) if largest is None else largest
    scaled = (values / largest).clip(-1, 1) if largest > 0 else np.zeros_like(values)
    scale = matplotlib.colormaps[SIGNED if signed else POSITIVE]
    colours = scale((scaled + 1) / 2 if signed else scaled)[..., :3]
    return np.rint(colours * 255).astype(np.uint8), np.abs(scaled)


def overlay(
    image: npt.ArrayLike,
    saliency: npt.ArrayLike,
    *,
    mask: npt.ArrayLike | None = None,
    signed: bool | None = None,
    largest: float | None = None,
    opacity: float = 0.75,
) -> Picture:
    """An image with a map laid over it, the more opaque the larger the map's magnitude.

    Arguments:
        image: (H, W), (H, W, 3) or (C, H, W); see `to_picture`.
        saliency: raw map (H, W). A map that is zero everywhere leaves the image bare: it is never stretched.
        mask: (H, W) bool, drawn as an outline.
        signed: which colour scale to take; None looks for negative values.
        largest: as `colourise` takes it.
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
    colours, magnitude = colourise(values, signed=signed, largest=largest)
    alpha = (opacity * np.sqrt(magnitude))[..., None]  # the root keeps the middle of the scale visible
    blended = np.rint(picture * (1 - alpha) + colours * alpha).astype(np.uint8)
    return blended if mask is None else outline(blended, mask)


def contours(
    image: npt.ArrayLike,
    saliency: npt.ArrayLike,
    *,
    signed: bool | None = None,
    levels: Sequence[float] = LEVELS,
) -> Picture:
    """An image with lines where a map crosses shares of its largest magnitude, so that all between stays visible.

    Each line has the colour that `colourise` gives its level, and a black edge outside; a signed map has lines for
    its negative part as well.

    Arguments:
        image: as in `to_picture`.
        saliency: raw map (H, W); one that is zero everywhere leaves the image bare.
        signed: which colour scale to take; None looks for negative values.
        levels: shares in (0, 1] of the map's largest magnitude.

    Returns: (H, W, 3) uint8.

    Raises:
        InputError: shapes that don't fit, or a level outside (0, 1].
    """
    picture = to_picture(image)
    values = np.nan_to_num(np.asarray(saliency, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if values.shape != picture.shape[:2]:
        raise expected("saliency", f"the image's shape {picture.shape[:2]}", values.shape, "Resize the map first.")
    if not levels or not all(0 < level <= 1 for level in levels):
        raise expected("levels", "at least one share in (0, 1]", tuple(levels))
    signed = is_signed(values) if signed is None else signed
    _, magnitude = colourise(values, signed=signed)
    scale = matplotlib.colormaps[SIGNED if signed else POSITIVE]
    for sign in (1, -1) if signed else (1,):
        for level in sorted(levels):
            red, green, blue = (round(255 * part) for part in scale((sign * level + 1) / 2 if signed else level)[:3])
            above = (magnitude >= level) & (sign * values > 0)
            picture = outline(picture, above, colour=(red, green, blue), width=2)
    return picture


def strongest(values: npt.ArrayLike, axes: int = 2) -> npt.NDArray[np.float64]:
    """Of values (..., *S), whose last `axes` are spatial, at each place the one of largest magnitude, with its sign.

    >>> strongest([[[1.0, 2.0]], [[-3.0, 1.0]]]).tolist()
    [[-3.0, 2.0]]
    """
    array = np.asarray(values, dtype=np.float64)
    flat = array.reshape(-1, *array.shape[array.ndim - axes :])
    if len(flat) == 1:  # of a large volume a comparison takes gigabytes
        only: npt.NDArray[np.float64] = flat[0]
        return only
    largest: npt.NDArray[np.float64] = np.take_along_axis(flat, np.abs(flat).argmax(axis=0)[None], axis=0)[0]
    return largest


def outline(
    image: npt.ArrayLike, mask: npt.ArrayLike, *, colour: tuple[int, int, int] = OUTLINE, width: int = 1
) -> Picture:
    """An image with the outline of a mask: a line of `colour` inside its edge and a black one outside.

    Arguments:
        image: as in `to_picture`.
        mask: (H, W) bool; an empty mask leaves the image bare.
        colour: red, green and blue, 0 to 255.
        width: of the coloured line, in pixels; the black one has one.

    Raises:
        InputError: shapes that don't fit.
    """
    picture = to_picture(image).copy()
    inside = np.asarray(mask, dtype=bool)
    if inside.shape != picture.shape[:2]:
        raise expected("mask", f"the image's shape {picture.shape[:2]}", inside.shape, "Resize the mask first.")
    picture[_grown(inside) & ~inside] = 0
    near = ~inside
    for _ in range(width):
        near = _grown(near)
    picture[inside & near] = colour
    return picture


def marked(image: npt.ArrayLike, sides: tuple[str, str, str, str], bar: tuple[float, str] | None = None) -> Picture:
    """An image with the letters of the sides at its left, right, top and bottom, and a bar of a stated length.

    Arguments:
        image: as in `to_picture`.
        sides: letters; an empty one isn't drawn.
        bar: its length in pixels, and what stands above it, such as "50 mm"; left out where it doesn't fit.
    """
    canvas = Image.fromarray(to_picture(image))
    pen, font = ImageDraw.Draw(canvas), _font(bold=True)
    width, height = canvas.size
    edges = ((2, height / 2, "lm"), (width - 2, height / 2, "rm"), (width / 2, 1, "ma"), (width / 2, height - 2, "md"))
    for text, (x, y, anchor) in zip(sides, edges, strict=True):
        pen.text((x, y), text, "white", font, anchor=anchor, stroke_width=1, stroke_fill="black")
    if bar is not None and bar[0] + 8 <= width and height >= 3 * _TEXT:
        left, bottom = 4, height - 4
        pen.rectangle((left - 1, bottom - 4, left + round(bar[0]) + 1, bottom), "black")
        pen.rectangle((left, bottom - 3, left + round(bar[0]), bottom - 1), "white")
        pen.text((left, bottom - 5), bar[1], "white", _font(), anchor="ld", stroke_width=1, stroke_fill="black")
    return np.asarray(canvas, dtype=np.uint8)


def bar_length(extent: float, share: float = 0.4) -> float:
    """The longest of 1, 2 and 5 times a power of ten that takes at most a `share` of an extent.

    >>> bar_length(300.0), bar_length(45.0)
    (100.0, 10.0)
    """
    most = extent * share
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def colour_bar(scale: str = POSITIVE, *, width: int = 256, height: int = 14) -> Picture:
    """A Matplotlib colour scale from its least to its greatest value, left to right, (height, width, 3) uint8."""
    colours = matplotlib.colormaps[scale](np.linspace(0.0, 1.0, width))[None, :, :3]
    bar: Picture = np.rint(255 * np.repeat(colours, height, axis=0)).astype(np.uint8)
    return bar


def legend(*, signed: bool = False, width: int = 256, height: int = 18) -> Picture:
    """The scale as `overlay` draws it: on mid grey and as opaque as the magnitude, (height, width, 3) uint8."""
    values = np.linspace(-1.0 if signed else 0.0, 1.0, width)[None].repeat(height, axis=0)
    return overlay(np.full((height, width), 110, np.uint8), values, signed=signed)


@dataclass(frozen=True)
class Panel:
    """A picture of a sheet with its caption; `signed` says which colour scale it uses, None that it uses none."""

    picture: Picture
    caption: str
    signed: bool | None = None


@dataclass(frozen=True)
class Row:
    """Panels of a sheet under one title."""

    title: str
    panels: Sequence[Panel]


def sheet(rows: Sequence[Row], *, columns: int = 6) -> Picture:
    """Rows of captioned pictures on white, and below them the colour scales that they use, (H, W, 3) uint8.

    Arguments:
        rows: at least one, with at least one panel each. A caption or title that is too long is cut.
        columns: most panels side by side; a row with more goes on below.

    Raises:
        InputError: nothing to draw, or no column.
    """
    if not rows or not all(row.panels for row in rows):
        raise expected("rows", "at least one row, each with a panel", [len(row.panels) for row in rows])
    if columns < 1:
        raise expected("columns", "at least 1", columns)
    lines = [
        (row.title, row.panels[at : at + columns], at) for row in rows for at in range(0, len(row.panels), columns)
    ]
    cell = max(panel.picture.shape[1] for row in rows for panel in row.panels)
    width = _GAP + max(len(panels) for _, panels, _ in lines) * (cell + _GAP)
    used = [panel.signed for row in rows for panel in row.panels]
    scales = [signed for signed in (False, True) if signed in used]
    heights = [
        (0 if at else _LINE) + _LINE + max(panel.picture.shape[0] for panel in panels) + _GAP for _, panels, at in lines
    ]
    canvas = Image.new("RGB", (width, _GAP + sum(heights) + len(scales) * 2 * _LINE), "white")
    pen = ImageDraw.Draw(canvas)
    top = _GAP
    for (title, panels, at), height in zip(lines, heights, strict=True):
        below = top
        if not at:
            pen.text((_GAP, below), _cut(title, width - 2 * _GAP, bold=True), "black", _font(bold=True))
            below += _LINE
        for place, panel in enumerate(panels):
            left = _GAP + place * (cell + _GAP)
            pen.text((left, below), _cut(panel.caption, cell), "black", _font())
            canvas.paste(Image.fromarray(panel.picture), (left, below + _LINE))
        top += height
    for signed in scales:
        words = ("against", "for the class") if signed else ("0", "the map’s maximum")
        _draw_scale(canvas, top, words, signed=signed)
        top += 2 * _LINE
    return np.asarray(canvas, dtype=np.uint8)


_GAP, _LINE, _TEXT = 10, 18, 12  # pixels: between pictures, per line of text, and the text's height


def _draw_scale(canvas: Image.Image, top: int, words: tuple[str, str], *, signed: bool) -> None:
    """A legend with a word at each end."""
    length = min(256, canvas.width - 2 * _GAP)
    canvas.paste(Image.fromarray(legend(signed=signed, width=length, height=_TEXT)), (_GAP, top))
    pen = ImageDraw.Draw(canvas)
    low, high = (_cut(word, length / 2) for word in words)
    pen.text((_GAP, top + _TEXT + 2), low, "black", _font())
    pen.text((_GAP + length - _font().getlength(high), top + _TEXT + 2), high, "black", _font())


@functools.cache
def _font(*, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings along."""
    wanted = matplotlib.font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(matplotlib.font_manager.findfont(wanted), _TEXT)


def _cut(text: str, width: float, *, bold: bool = False) -> str:
    """Text on one line, as much of it as fits."""
    font, line = _font(bold=bold), " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…" if line else ""


def enlarge(picture: Picture, width: int, height: int | None = None) -> Picture:
    """A picture (H, W, 3) at a given width in pixels, its shape kept where no height is given."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1])) if height is None else height
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


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data URI.

    >>> data_uri(b"a", "image/png")
    'data:image/png;base64,YQ=='
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


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
