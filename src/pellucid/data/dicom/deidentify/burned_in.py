"""Where a picture seems to bear text: strokes of one width and grey that stand in a line.

It warns and doesn't promise. Handwriting, text larger than a sixth of the picture, text as faint as what is around
it, and lone letters, such as the markers of the side on radiographs, aren't found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

LONGEST = 2048  # pixels; larger pictures are looked at smaller
SMALL = 400  # pixels; up to here pictures are looked at larger as well
LEAST_HEIGHT = 6  # of a letter, in pixels
LEAST_LETTERS = 3
FRAMES = 8  # of a film that are looked at

_WIDEST_STROKE = 9
_CONTRAST = 0.22  # of the range of greys, between a letter and what is around it
_FAINT = 0.05  # the same on even ground
_GROUND = 5.0  # how many times less the ground then varies
_FLAT, _SHARE = 0.06, 0.4  # Sobel's filter on even ground, and how much of such there is around faint text
_LEVELS = (0.04, 0.22, 0.45)  # of that contrast, at which parts are told from each other
_FULL = 0.93  # of the range of greys, which text on bright tissue reaches
_EVEN = 0.16  # standard deviation of grey within a letter, of its contrast
_GAP = 1.8  # times the height, between letters of a line
_WIDEST = 12  # times its height, of letters that touch each other
_STRUCTURE = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Box:
    """Where text seems to be: rows `top` to `bottom` and columns `left` to `right`, the latter of each excluded."""

    top: int
    left: int
    bottom: int
    right: int
    letters: int


@dataclass(frozen=True)
class _Letter:
    top: int
    left: int
    bottom: int
    right: int
    grey: float
    stroke: float
    count: int  # of letters that touch each other

    @property
    def height(self) -> int:
        return self.bottom - self.top


def find_text(frames: np.ndarray) -> list[Box]:
    """Boxes around what seems to be text.

    Arguments:
        frames: pictures (F, C, H, W) of one film, C 1 or 3, any type; text is what all frames have at one place.
    """
    if min(frames.shape[2:]) < 2 * LEAST_HEIGHT:
        return []
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))]
    step = -(-max(frames.shape[2:]) // LONGEST)
    chosen = np.asarray(chosen[:, :, ::step, ::step] if step > 1 else chosen, np.float32)
    bright = chosen.max(axis=1).min(axis=0)  # what is bright in all frames, in one colour at least
    dark = chosen.min(axis=1).max(axis=0)
    found = []
    for grey in (_scaled(bright), 1 - _scaled(dark)):
        found += [_moved(box, step, frames.shape) for box in _in_grey(grey)]
        if max(grey.shape) <= SMALL:  # letters of few pixels touch each other
            found += [_moved(box, 0.5, frames.shape) for box in _in_grey(ndimage.zoom(grey, 2, order=1))]
    return _joined(found)


def _in_grey(grey: np.ndarray) -> list[Box]:
    return [box for mask in _parts(grey) for box in _lines(_letters(grey, mask))]


def _moved(box: Box, step: float, shape: Sequence[int]) -> Box:
    """A box in pixels of the picture, a little wider."""
    edge = max(2, round(2 * step))
    return Box(
        max(0, math.floor(box.top * step) - edge),
        max(0, math.floor(box.left * step) - edge),
        min(shape[2], math.ceil(box.bottom * step) + edge),
        min(shape[3], math.ceil(box.right * step) + edge),
        box.letters,
    )


def _scaled(grey: np.ndarray) -> np.ndarray:
    low, high = np.percentile(grey, (1.0, 99.8))
    low, high = (low, high) if high > low else (float(grey.min()), float(grey.max()))
    if not high > low:
        return np.zeros(grey.shape, np.float32)
    return np.clip((grey - low) / (high - low), 0, 1).astype(np.float32)


def _parts(grey: np.ndarray) -> Iterator[np.ndarray]:
    """Masks whose connected parts may be letters: what stands out from around, and what is as bright as can be."""
    size = 2 * _WIDEST_STROKE + 1
    above = grey - ndimage.grey_opening(grey, size=(size, size))
    steep = np.maximum(np.abs(ndimage.sobel(grey, 0)), np.abs(ndimage.sobel(grey, 1)))
    even = ndimage.uniform_filter((steep < _FLAT).astype(np.float32), size) > _SHARE
    yield (above > _LEVELS[0]) & even
    for level in _LEVELS[1:]:
        yield above > level
    yield (above > _CONTRAST) & (grey > _FULL)


def _letters(grey: np.ndarray, mask: np.ndarray) -> list[_Letter]:
    """Bright parts that are built like letters."""
    labels, count = ndimage.label(mask, structure=_STRUCTURE)
    if not count:
        return []
    tallest = max(4 * LEAST_HEIGHT, min(96, min(grey.shape) // 6))
    letters = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if LEAST_HEIGHT <= height <= tallest and width <= _WIDEST * height:
            letter = _letter(grey, labels, number, (rows.start, columns.start, rows.stop, columns.stop))
            if letter is not None:
                letters.append(letter)
    return letters


def _letter(grey: np.ndarray, labels: np.ndarray, number: int, box: tuple[int, int, int, int]) -> _Letter | None:
    top, left, bottom, right = box
    outer = np.s_[max(0, top - 3) : bottom + 3, max(0, left - 3) : right + 3]
    own = labels[outer] == number
    values = grey[outer][own]
    height, width = bottom - top, right - left
    filled = len(values) / (height * width)
    if len(values) < LEAST_HEIGHT or (filled > 0.9 and width > 0.5 * height) or filled < 0.12:
        return None
    stroke = 2 * float(ndimage.distance_transform_edt(np.pad(own, 1)).max()) - 1
    if stroke > max(2.5, 0.42 * height):
        return None
    close = ndimage.binary_dilation(own, _STRUCTURE)
    outside = np.sort(grey[outer][ndimage.binary_dilation(close, _STRUCTURE, iterations=2) & ~close])
    bright = np.sort(values)[len(values) // 2 :]
    level = float(bright[len(bright) // 2])
    contrast = level - float(outside[7 * len(outside) // 10]) if len(outside) else 0.0
    even = contrast >= _FAINT and float(outside.std()) * _GROUND <= contrast
    if not (contrast >= _CONTRAST or even) or float(bright.std()) > _EVEN * contrast:
        return None
    count = 1
    if width > 1.6 * height:  # letters that touch: as many strokes stand side by side
        rows = np.flatnonzero(own.any(axis=1))
        strokes = [np.count_nonzero(np.diff(own[row].astype(np.int8)) == 1) for row in rows]
        count = round(width / (0.75 * height))
        if float(np.median(strokes)) < 0.9 * count:
            return None
    return _Letter(top, left, bottom, right, level, stroke, count)


def _lines(letters: Sequence[_Letter]) -> list[Box]:
    """Letters that stand beside each other, of like height, stroke and grey."""
    order = sorted(letters, key=lambda letter: letter.left)
    parents = list(range(len(order)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    reach = max((letter.height for letter in order), default=0) * _GAP
    for first, letter in enumerate(order):
        for second in range(first + 1, len(order)):
            other = order[second]
            if other.left - letter.right > reach:
                break
            if _beside(letter, other):
                parents[root(second)] = root(first)
    groups: dict[int, list[_Letter]] = {}
    for index, letter in enumerate(order):
        groups.setdefault(root(index), []).append(letter)
    return [_around(group) for group in groups.values() if _is_text(group)]


def _beside(one: _Letter, other: _Letter) -> bool:
    tall, small = max(one.height, other.height), min(one.height, other.height)
    gap = other.left - one.right
    if tall > 1.7 * small or gap > _GAP * tall or gap < -0.3 * small:
        return False
    if min(abs(one.bottom - other.bottom), abs(one.top - other.top)) > max(1, 0.15 * tall):
        return False
    strokes = sorted((one.stroke, other.stroke))
    return abs(one.grey - other.grey) < 0.15 and strokes[1] <= 2.2 * strokes[0] + 1


def _is_text(group: Sequence[_Letter]) -> bool:
    if sum(letter.count for letter in group) < LEAST_LETTERS:
        return False
    widths = np.array([letter.right - letter.left for letter in group])
    heights = np.array([letter.height for letter in group])
    if (widths <= np.maximum(2, 0.3 * heights)).all():  # the marks of a scale
        return False
    bottoms = np.array([letter.bottom for letter in group])
    tops = np.array([letter.top for letter in group])
    level = min(_unlevel(bottoms, group), _unlevel(tops, group))
    return level <= max(1.0, 0.2 * float(np.median(heights)))


def _unlevel(edges: np.ndarray, group: Sequence[_Letter]) -> float:
    """How far a line's edge strays from a straight line, in pixels; a quarter of the letters may stray more."""
    centres = np.array([(letter.left + letter.right) / 2 for letter in group])
    middle = np.median(edges)
    slope = 0.0 if np.ptp(centres) == 0 else float(np.polyfit(centres, edges, 1)[0])
    if abs(slope) > 0.12:
        return float("inf")
    return float(np.percentile(np.abs(edges - middle - slope * (centres - np.median(centres))), 75))


def _around(group: Sequence[_Letter]) -> Box:
    return Box(
        min(letter.top for letter in group),
        min(letter.left for letter in group),
        max(letter.bottom for letter in group),
        max(letter.right for letter in group),
        sum(letter.count for letter in group),
    )


def _joined(boxes: Sequence[Box]) -> list[Box]:
    """Boxes that overlap become one."""
    result: list[Box] = []
    for box in sorted(boxes, key=lambda each: (each.top, each.left)):
        for place, other in enumerate(result):
            if box.top < other.bottom and other.top < box.bottom and box.left < other.right and other.left < box.right:
                result[place] = Box(
                    min(box.top, other.top),
                    min(box.left, other.left),
                    max(box.bottom, other.bottom),
                    max(box.right, other.right),
                    max(box.letters, other.letters),
                )
                break
        else:
            result.append(box)
    return result
