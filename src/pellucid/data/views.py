"""A map over its image, as it goes where nothing explains it: sides named, to scale, and all else in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.font_manager
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pellucid.data.images import MedicalImage
from pellucid.data.planes import Upright, letters
from pellucid.data.shown import as_shown
from pellucid.drawing import Picture, bar_length, is_signed, legend, marked, overlay, to_picture
from pellucid.errors import expected

SIDE = (512, 1024)  # pixels of a drawn picture's longer side, at least and at most
PLANE_SIDE = 384  # of the longest side of a volume, which all of its planes share

_TEXT, _LINE, _GAP, _LEAST = 15, 22, 8, 400  # pixels: of letters, of lines, between pictures, and of the width
_OPPOSITE = str.maketrans("LRPAHF", "RLAPFH")


@dataclass(frozen=True, eq=False)
class View:
    """A plane (H, W) of an image in greys (H, W, 3) with the map's values.

    `spacing` of its pixels in mm, down and along, where it is known. `sides` the letters at its left, right, top and
    bottom, "" where they aren't known.
    """

    grey: Picture
    values: npt.NDArray[np.float64]
    spacing: tuple[float, float] | None = None
    sides: tuple[str, str, str, str] = ("", "", "", "")


@dataclass(frozen=True, eq=False)
class Shown:
    """All pixels of an image as they are shown, (C, *S) in 8 bits, and in words how."""

    greys: npt.NDArray[np.uint8]
    words: str

    @classmethod
    def of(cls, image: MedicalImage, intensity: str = "dtype") -> Shown:
        """As `as_shown` has them."""
        greys, window = as_shown(image, intensity)
        if not window:
            return cls(greys, "colour as it is stored" if len(greys) == 3 else "greys as they are stored")
        units = f" {image.units}" if image.units else ""
        return cls(greys, f"{window}{units}{', inverted' if image.inverted else ''}")


def picture_view(image: MedicalImage, values: npt.ArrayLike, shown: Shown, towards: Sequence[str] = ()) -> View:
    """The view of a picture; `towards` are the sides to which rows and columns run, where no orientation is known."""
    array = np.asarray(values, np.float64)
    if array.shape != image.pixels.shape[1:]:
        raise expected("values", f"the shape of the image, {image.pixels.shape[1:]}", array.shape)
    spacing = None if image.spacing is None else (image.spacing[-2], image.spacing[-1])
    right, down = towards if len(towards) == 2 else ("", "")
    if image.orientation is not None:
        to_right_front_head = np.reshape(image.orientation, (2, 3)) * (-1, -1, 1)
        right, down = letters(to_right_front_head[0]), letters(to_right_front_head[1])
    sides = _opposite(right), right, _opposite(down), down
    return View(to_picture(np.moveaxis(shown.greys, 0, -1)), array, spacing, sides)


def volume_views(image: MedicalImage, values: npt.ArrayLike, shown: Shown, voxel: Sequence[int]) -> list[View]:
    """The three planes through a voxel, axial, coronal and sagittal or nearest to it, as a radiologist sees them."""
    assert image.affine is not None
    array = np.asarray(values, np.float64)
    upright = Upright.of(array.shape, image.affine)
    turned, greys = upright.turn(array), upright.turn(shown.greys)
    place = upright.grid.turned(voxel)
    views = []
    for axis in range(3):
        down, along = (each for each in range(3) if each != axis)
        views.append(
            View(
                to_picture(np.moveaxis(np.moveaxis(greys, 1 + axis, 1)[:, place[axis]], 0, -1)),
                np.ascontiguousarray(np.moveaxis(turned, axis, 0)[place[axis]]),
                (upright.steps[down], upright.steps[along]),
                upright.edges(axis),
            )
        )
    return views


def drawn(views: Sequence[View], title: str, words: Sequence[str], *, side: int | None = None) -> Picture:
    """Views side by side with the map over them, a title above, words below, and last the scale of colours.

    Arguments:
        views: at least one; several share one scale of lengths and one of colours.
        title: above the views; it goes on over several lines where it must, as words do.
        words: lines, such as the window.
        side: pixels of the longest side of them; by itself, as many as the pixels, within 512 and 1,024.

    Returns: (H, W, 3) uint8.
    """
    extents = [_extent(view) for view in views]
    side = side or int(np.clip(max(max(view.values.shape) for view in views), *SIDE))
    scale = side / max(max(extent) for extent in extents)
    signed = any(is_signed(view.values) for view in views)
    largest = max(float(np.abs(view.values).max()) for view in views)
    panels = [_panel(each, extent, scale, largest, signed) for each, extent in zip(views, extents, strict=True)]
    width = max(_LEAST, sum(panel.shape[1] for panel in panels) + _GAP * (len(panels) + 1))
    heads = _wrapped(title, width - 2 * _GAP)
    lines = [part for line in words for part in _wrapped(line, width - 2 * _GAP)]
    top, tall = _GAP + _LINE * len(heads), max(panel.shape[0] for panel in panels)
    canvas = Image.new("RGB", (width, top + tall + _GAP + _LINE * (len(lines) + 2)), "black")
    pen, font = ImageDraw.Draw(canvas), _font()
    for number, line in enumerate(heads):
        pen.text((_GAP, _GAP // 2 + number * _LINE), line, "white", font)
    left = _GAP
    for panel in panels:
        canvas.paste(Image.fromarray(panel), (left, top))
        left += panel.shape[1] + _GAP
    below = top + tall + _GAP // 2
    for line in lines:
        pen.text((_GAP, below), line, "white", font)
        below += _LINE
    colours = legend(signed=signed, width=256, height=_TEXT)
    canvas.paste(Image.fromarray(colours), (_GAP, below + 2))
    low, high = (f"{-largest:.4g}, against", f"{largest:.4g}, for it") if signed else ("0", f"{largest:.4g}")
    pen.text((_GAP, below + _LINE - 2), low, "white", font)
    pen.text((_GAP + colours.shape[1] - font.getlength(high), below + _LINE - 2), high, "white", font)
    return np.asarray(canvas, dtype=np.uint8)


def _extent(view: View) -> tuple[float, float]:
    """Height and width in mm, or in pixels where a pixel's size isn't known."""
    down, along = view.spacing or (1.0, 1.0)
    return view.values.shape[0] * down, view.values.shape[1] * along


def _panel(view: View, extent: tuple[float, float], scale: float, largest: float, signed: bool) -> Picture:
    size = max(1, round(extent[1] * scale)), max(1, round(extent[0] * scale))
    grey = np.asarray(Image.fromarray(view.grey).resize(size, Image.Resampling.BICUBIC))
    values = Image.fromarray(view.values.astype(np.float32), mode="F").resize(size, Image.Resampling.BILINEAR)
    laid = overlay(grey, np.asarray(values), signed=signed, largest=largest)
    if view.spacing is None:
        return marked(laid, view.sides)
    length = bar_length(extent[1], 0.25)
    return marked(laid, view.sides, (length * scale, f"{length:g} mm"))


def _opposite(sides: str) -> str:
    return sides.translate(_OPPOSITE)


def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings along."""
    wanted = matplotlib.font_manager.FontProperties(family="DejaVu Sans")
    return ImageFont.truetype(matplotlib.font_manager.findfont(wanted), _TEXT)


def _wrapped(text: str, width: float) -> list[str]:
    """Text in lines that fit; a word too long for a line is cut."""
    font = _font()
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        while font.getlength(word) > width:
            word = word[:-1]
        lines.append(word)
    return [line for line in lines if line]
