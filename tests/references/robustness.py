"""Robustness and sanity metrics written from their papers in plain loops, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def norm(values: Floats) -> float:
    return math.sqrt(sum(float(value) ** 2 for value in values.ravel()))


def relative_changes(own: Floats, near: Sequence[Floats]) -> list[float]:
    """Yeh 2019: the Frobenius norm of each neighbour's change over the map's own."""
    return [norm(each - own) / norm(own) for each in near]


def lipschitz(own: Floats, near: Sequence[Floats], image: Floats, images: Sequence[Floats]) -> float:
    """Alvarez-Melis & Jaakkola 2018: the largest ratio of changes."""
    return max(norm(each - own) / norm(other - image) for each, other in zip(near, images, strict=True))


def continuity(own: Floats, near: Sequence[Floats], image: Floats, images: Sequence[Floats]) -> float:
    """Montavon 2018: the largest ratio of the sum of the map's changes to the Euclidean change of the image."""
    found = []
    for each, other in zip(near, images, strict=True):
        change = sum(abs(float(one) - float(two)) for one, two in zip(own.ravel(), each.ravel(), strict=True))
        found.append(change / norm(other - image))
    return max(found)


def relative(own: Floats, other: Floats, least: float) -> float:
    """Norm of the elementwise quotient (own − other) / own."""
    total = 0.0
    for one, two in zip(own.ravel(), other.ravel(), strict=True):
        divisor = one if abs(one) >= least else (-least if one < 0 else least)
        total += ((one - two) / divisor) ** 2
    return math.sqrt(total)


def stability(
    own: Floats, near: Sequence[Floats], changes: Sequence[float], same: Sequence[bool], least: float
) -> float:
    """Agarwal 2022: the largest relative change of the map over what it follows, where the prediction is the same."""
    ratios = [
        relative(own, each, least) / max(change, least)
        for each, change, stays in zip(near, changes, same, strict=True)
        if stays
    ]
    return max(ratios) if ratios else math.nan


def overlap(own: Floats, other: Floats, count: int) -> float:
    """Share of the `count` largest values' places that are the same, of maps without ties."""
    tops = [set(sorted(range(each.size), key=lambda at, each=each: -each.ravel()[at])[:count]) for each in (own, other)]
    return len(tops[0] & tops[1]) / count


def consistency(codes: Sequence[object], classes: Sequence[int]) -> list[float]:
    """Dasgupta 2022: among the others with one's code, the share with one's class."""
    found = []
    for one, code in enumerate(codes):
        others = [two for two in range(len(codes)) if two != one and codes[two] == code]
        found.append(sum(classes[two] == classes[one] for two in others) / len(others) if others else math.nan)
    return found


def entropy(values: Floats, bins: int) -> float:
    counts, _ = np.histogram(values, bins=bins)
    return -sum(count / values.size * math.log(count / values.size) for count in counts if count)
