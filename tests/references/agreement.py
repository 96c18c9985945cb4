"""Agreement in plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's correlation of ranks, each the mean of the places that a value could take."""
    first, second = _ranks(one.ravel().tolist()), _ranks(other.ravel().tolist())
    means = sum(first) / len(first), sum(second) / len(second)
    product = sum((a - means[0]) * (b - means[1]) for a, b in zip(first, second, strict=True))
    squares = sum((a - means[0]) ** 2 for a in first) * sum((b - means[1]) ** 2 for b in second)
    return product / math.sqrt(squares) if squares else math.nan


def ssim(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Wang et al. 2004, eq. 13, at each place where the window fits, on maps from 0 to 1."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    one, other = ((each - each.min()) / np.ptp(each) for each in (one, other))
    reach = [min(5, (length - 1) // 2) for length in one.shape]
    weights = np.ones([2 * side + 1 for side in reach])
    for place in np.ndindex(weights.shape):
        away = sum((at - side) ** 2 for at, side in zip(place, reach, strict=True))
        weights[place] = math.exp(-away / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for corner in np.ndindex(*(length - 2 * side for length, side in zip(one.shape, reach, strict=True))):
        window = tuple(slice(at, at + 2 * side + 1) for at, side in zip(corner, reach, strict=True))
        x, y = one[window], other[window]
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
        shared = (weights * (x - mean_x) * (y - mean_y)).sum()
        upper = (2 * mean_x * mean_y + 0.01**2) * (2 * shared + 0.03**2)
        values.append(upper / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)))
    return float(np.mean(values))


def top_k_overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Jaccard's index of the largest tenth, as fuzzy sets in which ties share the places that are left."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    count = max(1, round(0.1 * one.size))
    first, second = _belongs(one.ravel().tolist(), count), _belongs(other.ravel().tolist(), count)
    pairs = list(zip(first, second, strict=True))
    return sum(min(pair) for pair in pairs) / sum(max(pair) for pair in pairs)


def krippendorff_nominal(counts: list[list[int]]) -> float:
    """Krippendorff's alpha from how often each unit got each value: observed over expected disagreement of pairs."""
    counts = [unit for unit in counts if sum(unit) > 1]
    total = sum(map(sum, counts))
    observed = sum(
        unit[a] * unit[b] / (sum(unit) - 1) for unit in counts for a, b in itertools.permutations(range(len(unit)), 2)
    )
    columns = [sum(column) for column in zip(*counts, strict=True)]
    wanted = sum(columns[a] * columns[b] for a, b in itertools.permutations(range(len(columns)), 2))
    return 1 - (total - 1) * observed / wanted


def _ranks(values: list[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def _belongs(values: list[float], count: int) -> list[float]:
    above = [sum(other > value for other in values) for value in values]
    tied = [sum(other == value for other in values) for value in values]
    return [min(1.0, max(0.0, (count - more) / equal)) for more, equal in zip(above, tied, strict=True)]
