"""Localisation metrics in plain loops."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def pointing_game(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Zhang et al. 2018: is the maximum in the mask? The mean over the places that share the maximum."""
    largest = max(saliency.ravel().tolist())
    hits = [bool(inside) for value, inside in zip(saliency.ravel(), mask.ravel(), strict=True) if value == largest]
    return sum(hits) / len(hits)


def energy_pointing(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Wang et al. 2020: energy inside the mask over all energy, of the positive part."""
    inside = total = 0.0
    for value, marked in zip(saliency.ravel().tolist(), mask.ravel().tolist(), strict=True):
        if value > 0:
            total += value
            inside += value if marked else 0.0
    return inside / total if total else math.nan


def attribution_localisation(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Kohlbrenner et al. 2020: relevance inside over all of it, times the image's size over the mask's."""
    return energy_pointing(saliency, mask) * saliency.size / sum(mask.ravel().tolist())


def top_share(saliency: NDArray[np.float64], mask: NDArray[np.bool_], count: int) -> float:
    """The share of the `count` largest that is marked, from the largest value down; ties share what is left."""
    left, hits = float(count), 0.0
    pairs = list(zip(saliency.ravel().tolist(), mask.ravel().tolist(), strict=True))
    for value in sorted({value for value, _ in pairs}, reverse=True):
        tied = [marked for each, marked in pairs if each == value]
        taken = min(left, len(tied))
        hits += taken * sum(tied) / len(tied)
        left -= taken
    return hits / count


def relevance_rank(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Arras et al. 2022: of the K largest, K being the mask's pixels, the share in the mask."""
    return top_share(saliency, mask, int(mask.sum()))


def top_k_intersection(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Theiner et al. 2021: of the k largest, two hundredths of the pixels, the share in the mask."""
    return top_share(saliency, mask, max(1, round(0.02 * mask.size)))


def iou(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Intersection over union of the mask and what reaches half of the maximum."""
    largest = max(saliency.ravel().tolist())
    if largest <= 0:
        return math.nan
    both = either = 0
    for value, marked in zip(saliency.ravel().tolist(), mask.ravel().tolist(), strict=True):
        both += value >= 0.5 * largest and marked
        either += value >= 0.5 * largest or marked
    return both / either


def auroc(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Hanley & McNeil 1982: pairs of a pixel inside and one outside, of which the inner is larger; equal ones half."""
    inside, outside = saliency[mask].tolist(), saliency[~mask].tolist()
    if not outside:
        return math.nan
    wins = sum((one > other) + 0.5 * (one == other) for one in inside for other in outside)
    return wins / (len(inside) * len(outside))


def auprc(saliency: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Average precision: over thresholds, precision times the recall that each adds."""
    total = recall = 0.0
    for threshold in sorted(set(saliency.ravel().tolist()), reverse=True):
        found = saliency >= threshold
        reached = (found & mask).sum() / mask.sum()
        total += (found & mask).sum() / found.sum() * (reached - recall)
        recall = reached
    return float(total)


def outside_anatomy(saliency: NDArray[np.float64], anatomy: NDArray[np.bool_]) -> float:
    """Positive part outside the organ over all of it."""
    return energy_pointing(saliency, ~anatomy)


def peak_distance(saliency: NDArray[np.float64], mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> float:
    """From each of the largest positions to the nearest in the mask, by trying all; the mean of them."""
    away = [
        min(math.dist(peak * spacing, place * spacing) for place in np.argwhere(mask))
        for peak in np.argwhere(saliency == saliency.max())
    ]
    return sum(away) / len(away)


def parts(mask: NDArray[np.bool_]) -> list[set[tuple[int, ...]]]:
    """Connected components, through corners too, by flooding from each position."""
    left = {tuple(place) for place in np.argwhere(mask).tolist()}
    found = []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            here = edge.pop()
            part.add(here)
            for step in np.ndindex(*(3,) * mask.ndim):
                there = tuple(at + by - 1 for at, by in zip(here, step, strict=True))
                if there in left:
                    left.remove(there)
                    edge.append(there)
        found.append(part)
    return found


def hit_rate(saliency: NDArray[np.float64], boxes: NDArray[np.float64]) -> float:
    """Choe et al. 2020 at one threshold: does the box of a largest part at 0.2 overlap a given box by half?"""
    largest = saliency.max()
    if largest <= 0:
        return math.nan
    found = parts(saliency >= 0.2 * largest)
    size = max(len(part) for part in found)
    hits = []
    for part in found:
        if len(part) == size:
            corners = np.array([np.min(list(part), axis=0), np.max(list(part), axis=0) + 1])
            hits.append(any(_overlap(corners, box) >= 0.5 for box in boxes))
    return sum(hits) / len(hits)


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    shared = size_one = size_other = 1.0
    for axis in range(one.shape[1]):
        shared *= max(0.0, min(one[1, axis], other[1, axis]) - max(one[0, axis], other[0, axis]))
        size_one *= one[1, axis] - one[0, axis]
        size_other *= other[1, axis] - other[0, axis]
    return shared / (size_one + size_other - shared)
