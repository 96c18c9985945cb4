"""Several views of an image, whose maps are brought back to it and averaged: test-time augmentation and windows.

A view turns images (B, C, *S) into others (B, C, *V), and maps of those (B, ..., *V) back into maps (B, ..., *S) with a
weight for each place, 0 where the view doesn't reach. What is explained in every view is the same class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.attribution.asking import generator_of, noisy
from pellucid.errors import expected, unknown_name

Blending = Literal["gaussian", "constant"]
_TAPER = 0.25  # share of half a zoomed view over which its weight falls to 0
_SALT = 0x51ED2701  # parts a view's draws from a method's


class View(Protocol):
    """One way to look at images."""

    def of(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The images (B, C, *S) in this view, (B, C, *V); `seeds` (B,) decide what is drawn."""

    def back(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, ..., *V) where they belong in the image, (B, ..., *S), and the weight (*S) of each place."""


@dataclass(frozen=True)
class Plain:
    """The image as it is.

    Arguments:
        size: of the image, *S.
    """

    size: tuple[int, ...]

    def of(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The images."""
        return images

    def back(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The maps."""
        return maps, torch.ones(self.size)


@dataclass(frozen=True)
class Mirrored:
    """Mirrored along some of the spatial axes, the first of which is 0."""

    size: tuple[int, ...]
    axes: tuple[int, ...]

    def of(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The images mirrored."""
        return self._flipped(images)

    def back(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The maps mirrored once more."""
        return self._flipped(maps), torch.ones(self.size)

    def _flipped(self, values: Tensor) -> Tensor:
        return values.flip([axis - len(self.size) for axis in self.axes])


@dataclass(frozen=True)
class Zoomed:
    """Enlarged about the centre by a factor within the same frame; below 1, the border is repeated around it."""

    size: tuple[int, ...]
    factor: float

    def of(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The images enlarged, linearly between pixels."""
        return self._sampled(images, 1 / self.factor, "border")

    def back(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The maps made smaller again; their weight falls to 0 where the view ends, lest an edge shows in the mean."""
        leading = maps.shape[: maps.ndim - len(self.size)]
        flat = maps.reshape(1, -1, *self.size)
        weight = torch.ones(())
        for length in self.size:
            place = ((torch.arange(length) + 0.5) * 2 / length - 1) * self.factor
            inside = (1 - place.abs()) / _TAPER if self.factor > 1 else torch.ones(length)
            weight = weight.unsqueeze(-1) * inside.clamp(0, 1)
        return self._sampled(flat, self.factor, "border").reshape(*leading, *self.size), weight

    def _sampled(self, values: Tensor, step: float, outside: str) -> Tensor:
        """Values (B, C, *S) read at places `step` times as far from the centre."""
        axes = len(self.size)
        turn = torch.eye(axes, axes + 1, dtype=values.dtype, device=values.device) * step
        grid = functional.affine_grid(turn.expand(len(values), -1, -1), list(values.shape), align_corners=False)
        return functional.grid_sample(values, grid, padding_mode=outside, align_corners=False)


@dataclass(frozen=True)
class Noisy:
    """With Gaussian noise of `deviation` times the image's range, drawn for the image and the view's `number`."""

    size: tuple[int, ...]
    deviation: float
    number: int

    def of(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The images with noise."""
        return noisy(images, self.deviation, (generator_of(int(seed) ^ _SALT, self.number) for seed in seeds))

    def back(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The maps."""
        return maps, torch.ones(self.size)


@dataclass(frozen=True)
class Cropped:
    """A window of the image: where it starts, how long it is, and how a place in it weighs."""

    size: tuple[int, ...]
    start: tuple[int, ...]
    lengths: tuple[int, ...]
    blending: Blending

    def of(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The window's part of the images."""
        for axis, first, length in zip(self._axes(), self.start, self.lengths, strict=True):
            images = images.narrow(axis, first, length)
        return images

    def back(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The maps at the window's place, 0 around it."""
        leading = maps.shape[: maps.ndim - len(self.size)]
        whole, weight = maps.new_zeros(*leading, *self.size), torch.zeros(self.size)
        seeds = torch.zeros(0)
        self.of(whole, seeds).copy_(maps)
        self.of(weight, seeds).copy_(blending_weights(self.lengths, self.blending))
        return whole, weight

    def _axes(self) -> range:
        return range(-len(self.size), 0)


@dataclass(frozen=True)
class Both:
    """A view of a view."""

    outer: View
    inner: View

    def of(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The inner view of the outer."""
        return self.inner.of(self.outer.of(images, seeds), seeds)

    def back(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Back through both; their weights multiply."""
        maps, within = self.inner.back(maps)
        maps, weight = self.outer.back(maps)
        placed, _ = self.outer.back(within.unsqueeze(0))
        return maps, weight * placed[0]


def blending_weights(lengths: Sequence[int], blending: Blending) -> Tensor:
    """How much a place in a window counts beside those of overlapping windows.

    "constant": 1. "gaussian": a bell about the window's centre with a standard deviation of an eighth of its length
    along each axis, at least a thousandth, so that what a network sees at a window's border counts least.

    >>> blending_weights([4], "gaussian")
    tensor([0.0111, 0.6065, 0.6065, 0.0111])
    """
    weights = torch.ones(())
    for length in lengths:
        away = torch.arange(length) - (length - 1) / 2
        bell = torch.exp(-(away**2) / (2 * (length / 8) ** 2))
        weights = weights.unsqueeze(-1) * (bell if blending == "gaussian" else torch.ones(length))
    return weights.clamp(min=1e-3)


@dataclass(frozen=True)
class Window:
    """A window that slides over images larger than what a network takes.

    Windows overlap by the share `overlap` of their length; the last along an axis ends at the border. Each place's map
    is the mean over the windows that hold it, weighed as `blending_weights` says; the score is the windows' mean. Sums
    of a blended map no longer add up to the score.

    Arguments:
        size: length along each spatial axis, in pixels, or one for all.
        overlap: at least 0, below 1.
        blending: "gaussian" or "constant".
    """

    size: int | Sequence[int]
    overlap: float = 0.5
    blending: Blending = "gaussian"

    def views(self, shape: Sequence[int]) -> list[View]:
        """The windows over images of spatial `shape`.

        Raises:
            InputError: a window that is longer than an axis, an overlap outside [0, 1), another blending.

        >>> [view.start for view in Window(4, overlap=0.5).views([9])]
        [(0,), (2,), (4,), (5,)]
        """
        lengths = [self.size] * len(shape) if isinstance(self.size, int) else list(self.size)
        if len(lengths) != len(shape) or not all(1 <= a <= b for a, b in zip(lengths, shape, strict=True)):
            raise expected("window", f"1 to {tuple(shape)} pixels along the axes", self.size)
        if not 0 <= self.overlap < 1:
            raise expected("window", "an overlap of at least 0, below 1", self.overlap)
        if self.blending not in ("gaussian", "constant"):
            raise expected("window", "'gaussian' or 'constant' blending", repr(self.blending))
        starts = []
        for length, whole in zip(lengths, shape, strict=True):
            step = max(1, round(length * (1 - self.overlap)))
            starts.append(sorted({min(first, whole - length) for first in range(0, whole - length + step, step)}))
        size, within = tuple(shape), tuple(lengths)
        return [Cropped(size, start, within, self.blending) for start in itertools.product(*starts)]


@dataclass(frozen=True)
class Flips:
    """The image and its mirror images along each of the `axes` and all of them together; -1 is left to right."""

    axes: tuple[int, ...] = (-1,)

    def views(self, shape: Sequence[int]) -> list[View]:
        """Two views for an axis, four for two. Raises InputError for an axis that isn't there."""
        axes = [axis + len(shape) if axis < 0 else axis for axis in self.axes]
        if len(set(axes)) < len(axes) or not all(0 <= axis < len(shape) for axis in axes):
            raise expected("smooth", f"different axes from {-len(shape)} to {len(shape) - 1}", self.axes)
        chosen = itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(len(axes) + 1))
        return [Mirrored(tuple(shape), each) if each else Plain(tuple(shape)) for each in chosen]


@dataclass(frozen=True)
class Scales:
    """The image at several scales about its centre, within its own frame, so that any network takes them."""

    factors: tuple[float, ...] = (0.8, 1.0, 1.25)

    def views(self, shape: Sequence[int]) -> list[View]:
        """A view for each factor. Raises InputError for none, one below 0.1 or above 10, or all above 1."""
        if not self.factors or not all(0.1 <= factor <= 10 for factor in self.factors) or min(self.factors) > 1:
            raise expected("smooth", "factors from 0.1 to 10, one of them at most 1", self.factors)
        size = tuple(shape)
        return [Plain(size) if math.isclose(factor, 1) else Zoomed(size, factor) for factor in self.factors]


@dataclass(frozen=True)
class Noise:
    """Copies of the image with Gaussian noise of `deviation` times the image's range."""

    samples: int = 8
    deviation: float = 0.1

    def views(self, shape: Sequence[int]) -> list[View]:
        """A view for each copy. Raises InputError for no samples or a negative deviation."""
        if self.samples < 1 or self.deviation < 0:
            raise expected("smooth", "at least 1 sample, and a deviation of 0 or more", self)
        return [Noisy(tuple(shape), self.deviation, number) for number in range(self.samples)]


Smoothing = Flips | Scales | Noise
_BY_NAME = {"flips": Flips(), "scales": Scales(), "noise": Noise()}


def smoothing_views(smooth: object, shape: Sequence[int]) -> list[View]:
    """The views that a method's `smooth` option asks for, over images of spatial `shape`.

    `smooth` is "flips", "scales", "noise", several joined by "+", or one of `Flips`, `Scales`, `Noise` or several in a
    tuple; None asks for the image alone.

    Raises:
        InputError: something else, or views that images of this shape don't have.

    >>> len(smoothing_views("flips+scales", (8, 8)))
    6
    """
    parts = smooth.split("+") if isinstance(smooth, str) else smooth if isinstance(smooth, tuple) else (smooth,)
    views: list[View] = [Plain(tuple(shape))]
    for part in parts if smooth is not None else ():
        if isinstance(part, str) and part not in _BY_NAME:
            raise unknown_name("smooth", part, _BY_NAME)
        one = _BY_NAME[part] if isinstance(part, str) else part
        if not isinstance(one, Smoothing):
            raise expected("smooth", "'flips', 'scales', 'noise' or Flips, Scales, Noise", repr(part))
        views = combined(views, one.views(shape))
    return views


def combined(outer: Sequence[View], inner: Sequence[View]) -> list[View]:
    """Each of the inner views within each of the outer."""
    return [
        first if isinstance(second, Plain) else second if isinstance(first, Plain) else Both(first, second)
        for first in outer
        for second in inner
    ]


@dataclass(frozen=True)
class Views:
    """The views of a whole call: windows, and within each what a method's `smooth` option asks for.

    `inside` is the spatial shape of a window's image.
    """

    windows: list[View]
    inside: tuple[int, ...]

    @classmethod
    def over(cls, shape: tuple[int, ...], window: Window | int | Sequence[int] | None) -> Self:
        """Views of images of spatial `shape`. Raises InputError for windows that don't fit."""
        if window is None:
            return cls([Plain(shape)], shape)
        windows = (window if isinstance(window, Window) else Window(window)).views(shape)
        return cls(windows, next(view.lengths for view in windows if isinstance(view, Cropped)))

    def smoothed(self, smooth: object) -> list[View]:
        """The views for one value of the option."""
        return combined(self.windows, smoothing_views(smooth, self.inside))

    def sample(self, images: Tensor) -> Tensor:
        """The images (B, C, *S) as the network sees them in the first window."""
        return self.windows[0].of(images, torch.zeros(len(images), dtype=torch.long))
