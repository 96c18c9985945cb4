"""Fills and removal curves written from their papers in plain loops, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
ScoreOfOne = Callable[[Floats], float]
FillOfOne = Callable[[Floats, Mask], Floats]


def places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every position, in the order in which an array is flattened."""
    return list(itertools.product(*(range(length) for length in shape)))


def put(image: Floats, removed: Mask, value: Callable[[int, tuple[int, ...]], float]) -> Floats:
    """The image (C, *S) with `value(channel, place)` at removed places (*S)."""
    filled = image.copy()
    for channel in range(len(image)):
        for place in places(removed.shape):
            if removed[place]:
                filled[(channel, *place)] = value(channel, place)
    return filled


def zero(image: Floats, removed: Mask) -> Floats:
    return put(image, removed, lambda channel, place: 0.0)


def mean(image: Floats, removed: Mask) -> Floats:
    return put(image, removed, lambda channel, place: sum(image[channel].ravel().tolist()) / image[channel].size)


def blur(image: Floats, removed: Mask, sigma: float) -> Floats:
    def blurred(channel: int, place: tuple[int, ...]) -> float:
        total = weights = 0.0
        for other in places(removed.shape):
            weight = math.exp(-sum((a - b) ** 2 for a, b in zip(place, other, strict=True)) / (2 * sigma**2))
            total += weight * image[(channel, *other)]
            weights += weight
        return total / weights

    return put(image, removed, blurred)


def nearest(image: Floats, removed: Mask, bank: Floats) -> list[int]:
    """The images of the bank that are nearest on the known pixels; several where they are equally near."""
    distances = []
    for other in bank:
        total = 0.0
        for place in places(removed.shape):
            if not removed[place]:
                total += sum((image[(c, *place)] - other[(c, *place)]) ** 2 for c in range(len(image)))
        distances.append(total)
    return [place for place, distance in enumerate(distances) if distance == min(distances)]


def first(order: Sequence[int], count: int, shape: tuple[int, ...]) -> Mask:
    """The first positions of an order as a mask."""
    removed = np.zeros(math.prod(shape), dtype=bool)
    for position in order[:count]:
        removed[position] = True
    return removed.reshape(shape)


def curve(
    score_of: ScoreOfOne, image: Floats, order: Sequence[int], counts: Sequence[int], fill: FillOfOne
) -> list[float]:
    """The score as the first positions of an order go, as many as each count says."""
    return [score_of(fill(image, first(order, count, image.shape[1:]))) for count in counts]


def area(values: Sequence[float], shares: Sequence[float]) -> float:
    """The area under a curve by the trapezoid rule."""
    total = 0.0
    for place in range(1, len(values)):
        total += (values[place] + values[place - 1]) / 2 * (shares[place] - shares[place - 1])
    return total


def patches(shape: tuple[int, ...], size: int) -> list[list[int]]:
    """The positions of each patch of `size` along each axis, from the first corner on."""
    found: dict[tuple[int, ...], list[int]] = {}
    for position, place in enumerate(places(shape)):
        found.setdefault(tuple(at // size for at in place), []).append(position)
    return [found[key] for key in sorted(found)]


def region_order(
    saliency: Floats, regions: Sequence[Sequence[int]], ties: Sequence[int], *, mean_of: bool
) -> list[list[int]]:
    """Regions from the most relevant to the least; where equal, as they stand in `ties`."""
    flat = saliency.ravel()
    relevance = [math.fsum(flat[position] for position in region) for region in regions]
    if mean_of:
        relevance = [total / len(region) for total, region in zip(relevance, regions, strict=True)]
    rank = {region: place for place, region in enumerate(ties)}
    order = sorted(range(len(regions)), key=lambda region: (-relevance[region], rank[region]))
    return [list(regions[region]) for region in order]


def region_curve(
    score_of: ScoreOfOne, image: Floats, regions: Sequence[Sequence[int]], fill: FillOfOne
) -> tuple[list[float], list[float]]:
    """The score as regions go one after another, and the shares that are gone; the first is the image's own."""
    order = [position for region in regions for position in region]
    counts = [0, *itertools.accumulate(len(region) for region in regions)]
    return curve(score_of, image, order, counts, fill), [count / len(order) for count in counts]


def scaled(saliency: Floats) -> Floats:
    """A map from its least and largest value to [0, 1]; one that is the same everywhere is 0."""
    low, high = saliency.min(), saliency.max()
    return np.zeros_like(saliency) if low == high else (saliency - low) / (high - low)


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's r; 0 where one doesn't vary."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / size if size else 0.0


def harmonic_mean(*parts: float) -> float:
    """0 where a part is."""
    return 0.0 if min(parts) <= 0 else len(parts) / sum(1 / part for part in parts)
