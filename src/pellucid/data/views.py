"""A map over its image as a radiologist needs to see it: grey by a window, sides named, to scale, and all that said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.font_manager
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pellucid.data.images import MedicalImage
from pellucid.data.windows import Window, pick_window
from pellucid.drawing import Picture, is_signed, legend, overlay
from pellucid.errors import expected

SIDE = (512, 1024)  # pixels of a drawn picture's longer side, at least and at most
PLANE_SIDE = 384  # of the longest side of a volume, which all of its planes share

_BARS = (1, 2, 5, 10, 20, 50, 100, 200)  # mm
_TEXT, _LINE, _GAP = 15, 22, 8  # pixels: letters, lines and what is between
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))  # towards and away from the axes of DICOM, LPS
_OPPOSITE = dict(zip("LRPAHF", "RLAPFH", strict=True))
_TILTED = 0.2588  # sine of 15°: nearer to a plane, a direction isn't called by the axis across it


@dataclass(frozen=True)
class View:
    """A plane of pixels, the size of one in mm, down and along, and where its right edge and its lower edge lie."""

    grey: Picture
    values: npt.NDArray[np.float64]
    spacing: tuple[float, float] | None
    right: str = ""
    down: str = ""


def letters(direction: Sequence[float]) -> str:
    """Where a direction (LPS) leads, in the letters of PS3.3, C.7.6.1.1.1, the nearest axis first.

    >>> letters((1, 0, 0)), letters((0, -0.5, 0.866))
    ('L', 'HA')
    """
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    order = sorted(range(3), key=lambda axis: -abs(float(unit[axis])))
    return "".join(_LETTERS[axis][bool(unit[axis] < 0)] for axis in order if abs(float(unit[axis])) > _TILTED)


def shown_grey(image: MedicalImage, window: Window | None = None) -> tuple[Picture, str]:
    """All pixels of an image as they are shown, (*S, 3) uint8, and the words that say by which window.

    The window is the one given, else the file's own, else that of percentiles. Colour is shown as it is.
    """
    if len(image.pixels) == 3:
        picture = np.moveaxis(image.pixels, 0, -1)
        if picture.dtype == np.uint8:
            return np.ascontiguousarray(picture), "colour as stored"
        chosen = pick_window("percentile", picture, None)
        return np.rint(255 * chosen.apply(picture)).astype(np.uint8), chosen.text()
    chosen = window or image.window or pick_window("percentile", image.pixels, None)
    grey = chosen.apply(image.pixels[0])
    grey = 1 - grey if image.inverted else grey
    eight = np.rint(255 * grey).astype(np.uint8)
    units = f" {image.units}" if image.units and chosen.table is None else ""
    inverted = ", inverted" if image.inverted else ""
    return np.stack([eight] * 3, axis=-1), f"{chosen.text()}{units}{inverted}"


def picture_view(image: MedicalImage, values: npt.ArrayLike, grey: Picture, sides: Sequence[str] = ()) -> View:
    """The view of a picture; `sides` are the directions along rows and down columns where no orientation is known."""
    array = np.asarray(values, np.float64)
    if array.shape != image.pixels.shape[1:]:
        raise expected("values", f"the shape of the image, {image.pixels.shape[1:]}", array.shape)
    spacing = None if image.spacing is None else (image.spacing[-2], image.spacing[-1])
    if image.orientation is not None:
        return View(grey, array, spacing, letters(image.orientation[:3]), letters(image.orientation[3:]))
    right, down = sides if len(sides) == 2 else ("", "")
    return View(grey, array, spacing, right, down)


def volume_views(image: MedicalImage, values: npt.ArrayLike, grey: Picture, voxel: Sequence[int]) -> list[View]:
    """The slice through a voxel as it was taken, and the two planes across it, head or front up."""
    assert image.affine is not None
    array = np.asarray(values, np.float64)
    steps = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    views = []
    for across, (down, right) in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        plane: npt.NDArray[np.float64] = np.moveaxis(array, across, 0)[voxel[across]]
        shown: Picture = np.moveaxis(grey, across, 0)[voxel[across]]
        if across:  # the slice itself stays as viewers show it
            if _upright(steps[:, right]) > _upright(steps[:, down]):
                down, right = right, down
                plane, shown = plane.T, shown.swapaxes(0, 1)
            flips = [_wrong_way(steps[:, down]), _wrong_way(steps[:, right])]
            plane = plane[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
            shown = shown[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
        else:
            flips = [False, False]
        names = [letters(steps[:, axis] * (-1 if flip else 1)) for axis, flip in zip((down, right), flips, strict=True)]
        spacing = float(lengths[down]), float(lengths[right])
        views.append(View(np.ascontiguousarray(shown), np.ascontiguousarray(plane), spacing, names[1], names[0]))
    return views


def _upright(direction: npt.NDArray[np.float64]) -> int:
    """Head to feet goes down a picture rather than front to back, and that rather than right to left."""
    return int(np.abs(direction).argmax())


def _wrong_way(direction: npt.NDArray[np.float64]) -> bool:
    """Whether an axis should be flipped to run left, back or to the feet, as rightwards and down in a picture."""
    axis = int(np.abs(direction).argmax())
    return bool(direction[axis] < 0) != (axis == 2)


def drawn(views: Sequence[View], title: str, words: Sequence[str], *, side: int | None = None) -> Picture:
    """Views side by side with the map over them, sides named, a scale bar in mm, and words above and below.

    Arguments:
        views: at least one; several are drawn to one scale where their spacing is known.
        title: above the views.
        words: lines below them, such as the window; the colour scale comes last.
        side: pixels of the longest side; by itself, within 512 and 1,024.

    Returns: (H, W, 3) uint8.
    """
    extents = [_extent(view) for view in views]
    longest = max(max(extent) for extent in extents)
    pixels = max(max(view.values.shape) for view in views)
    side = side or int(np.clip(pixels, *SIDE))
    signed = any(is_signed(view.values) for view in views)
    largest = max(float(np.abs(view.values).max()) for view in views)
    panels = [
        _panel(view, extent, side / longest, largest, signed) for view, extent in zip(views, extents, strict=True)
    ]
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) + 1)
    font = _font()
    width = max(width, 360)
    lines = [part for line in words for part in _wrapped(line, width - 2 * _GAP)]
    heads = _wrapped(title, width - 2 * _GAP)
    top = _GAP + _LINE * len(heads)
    tall = max(panel.height for panel in panels)
    canvas = Image.new("RGB", (width, top + tall + _GAP + _LINE * (len(lines) + 2)), "black")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(heads):
        pen.text((_GAP, _GAP // 2 + number * _LINE), line, "white", font)
    left = _GAP
    for panel in panels:
        canvas.paste(panel, (left, top))
        left += panel.width + _GAP
    below = top + tall + _GAP // 2
    for line in lines:
        pen.text((_GAP, below), line, "white", font)
        below += _LINE
    bar = legend(signed=signed, width=min(256, width - 2 * _GAP), height=_TEXT)
    canvas.paste(Image.fromarray(bar), (_GAP, below + 2))
    low, high = ("against", "for the class") if signed else ("0", f"{largest:.4g}")
    pen.text((_GAP, below + _LINE - 2), low, "white", font)
    pen.text((_GAP + bar.shape[1] - font.getlength(high), below + _LINE - 2), high, "white", font)
    return np.asarray(canvas, dtype=np.uint8)


def _extent(view: View) -> tuple[float, float]:
    """Height and width in mm, or in pixels where a pixel's size isn't known."""
    down, along = view.spacing or (1.0, 1.0)
    return view.values.shape[0] * down, view.values.shape[1] * along


def _panel(view: View, extent: tuple[float, float], scale: float, largest: float, signed: bool) -> Image.Image:
    size = max(1, round(extent[1] * scale)), max(1, round(extent[0] * scale))
    grey = np.asarray(Image.fromarray(view.grey).resize(size, Image.Resampling.BICUBIC))
    values = Image.fromarray(view.values.astype(np.float32), mode="F").resize(size, Image.Resampling.BILINEAR)
    panel = Image.fromarray(overlay(grey, np.asarray(values), signed=signed, largest=largest))
    pen, font = ImageDraw.Draw(panel), _font()
    middle = size[1] // 2 - _TEXT // 2
    for text, place in (
        (_opposite(view.right), lambda wide: (4, middle)),
        (view.right, lambda wide: (size[0] - wide - 4, middle)),
        (_opposite(view.down), lambda wide: (size[0] // 2 - wide // 2, 2)),
        (view.down, lambda wide: (size[0] // 2 - wide // 2, size[1] - _TEXT - 6)),
    ):
        _write(pen, place(int(font.getlength(text))), text)
    if view.spacing is not None:
        _bar(pen, size, scale)
    return panel


def _bar(pen: ImageDraw.ImageDraw, size: tuple[int, int], scale: float) -> None:
    """A scale bar of a round length, a quarter of the picture's width at most."""
    fitting = [length for length in _BARS if length * scale <= max(size[0] / 4, 20)]
    if not fitting:
        return
    length = fitting[-1]
    left, bottom = 8, size[1] - 8
    right = left + round(length * scale)
    for shift, colour in ((1, "black"), (0, "white")):
        pen.line([(left + shift, bottom + shift), (right + shift, bottom + shift)], colour, 3)
        for end in (left, right):
            pen.line([(end + shift, bottom - 5 + shift), (end + shift, bottom + 3 + shift)], colour, 2)
    _write(pen, (left, bottom - 8 - _TEXT - 2), f"{length} mm")


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
    pen.text(place, text, "white", _font(), stroke_width=2, stroke_fill="black")


def _opposite(sides: str) -> str:
    return "".join(_OPPOSITE.get(letter, "") for letter in sides)


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
