"""Peaks and FROC in plain loops."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from references.localisation import parts

Place = tuple[int, ...]


def peaks(saliency: NDArray[np.float64], radius: int = 1) -> list[tuple[float, Place]]:
    """Value and place of each local maximum above 0, the highest first; a plateau is one."""
    found = []
    for value in sorted(set(saliency.ravel().tolist()), reverse=True):
        plateaus = parts(saliency == value) if value > 0 else []
        for plateau in plateaus:
            largest = all(_window(saliency, place, radius).max() == value for place in plateau)
            if largest and len(plateau) < saliency.size:
                found.append((value, _middle(plateau)))
    return sorted(found, key=lambda peak: (-peak[0], peak[1]))


def froc(
    maps: NDArray[np.float64], masks: NDArray[np.bool_], spacing: NDArray[np.float64], reach: float
) -> list[tuple[float, float, float]]:
    """Threshold, sensitivity and false positives per image, for each value of a candidate that changes either."""
    candidates = [peaks(saliency) for saliency in maps]
    lesions = [parts(mask) for mask in masks]
    curve = [(math.inf, 0.0, 0.0)]
    for threshold in sorted({value for each in candidates for value, _ in each}, reverse=True):
        hits = wrong = 0
        for found, wanted in zip(candidates, lesions, strict=True):
            kept = [place for value, place in found if value >= threshold]
            hits += sum(any(_distance(place, lesion, spacing) <= reach for place in kept) for lesion in wanted)
            wrong += sum(all(_distance(place, lesion, spacing) > reach for lesion in wanted) for place in kept)
        point = hits / sum(map(len, lesions)), wrong / len(maps)
        if point != curve[-1][1:]:
            curve.append((threshold, *point))
    return curve


def score(curve: list[tuple[float, float, float]]) -> float:
    """Mean sensitivity at seven rates, each on the line between the two points of the curve round it."""
    total = 0.0
    for rate in (0.125, 0.25, 0.5, 1, 2, 4, 8):
        before = [(wrong, hits) for _, hits, wrong in curve if wrong <= rate][-1]
        after = [(wrong, hits) for _, hits, wrong in curve if wrong > rate]
        along = (rate - before[0]) / (after[0][0] - before[0]) if after else 0.0
        total += before[1] + (along * (after[0][1] - before[1]) if after else 0.0)
    return total / 7


def lesion_recall(saliency: NDArray[np.float64], mask: NDArray[np.bool_], extra: int = 0) -> float:
    """Share of lesions that hold one of the highest peaks, over every way to choose among those that tie."""
    found, lesions = peaks(saliency), parts(mask)
    count = min(len(lesions) + extra, len(found))
    least = found[count - 1][0] if count else math.inf
    above = [place for value, place in found if value > least]
    tied = [place for value, place in found if value == least]
    shares = []
    for chosen in itertools.combinations(tied, count - len(above)):
        kept = {*above, *chosen}
        shares.append(Fraction(sum(bool(lesion & kept) for lesion in lesions), len(lesions)))
    return float(sum(shares) / len(shares))


def _window(saliency: NDArray[np.float64], place: Place, radius: int) -> NDArray[np.float64]:
    return saliency[tuple(slice(max(0, at - radius), at + radius + 1) for at in place)]


def _middle(plateau: set[Place]) -> Place:
    """The place nearest to the centre; of several the first."""
    centre = [Fraction(sum(along), len(plateau)) for along in zip(*plateau, strict=True)]
    return min(sorted(plateau), key=lambda place: sum((a - b) ** 2 for a, b in zip(place, centre, strict=True)))


def _distance(place: Place, lesion: set[Place], spacing: NDArray[np.float64]) -> float:
    return min(math.dist(np.array(place) * spacing, np.array(other) * spacing) for other in lesion)
