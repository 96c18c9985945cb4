"""Complexity metrics in plain loops."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def sparseness(saliency: NDArray[np.float64]) -> float:
    """Gini index as half the mean difference of all pairs over the mean (Hurley & Rickard 2009)."""
    sizes = [abs(value) for value in saliency.ravel().tolist()]
    total = sum(sizes)
    apart = sum(abs(one - other) for one in sizes for other in sizes)
    return apart / (2 * len(sizes) * total) if total else math.nan


def entropy(saliency: NDArray[np.float64]) -> float:
    """Bhatt et al. 2020: entropy of each position's fractional contribution."""
    sizes = [abs(value) for value in saliency.ravel().tolist()]
    shares = [size / sum(sizes) for size in sizes if size] if sum(sizes) else [math.nan]
    return -sum(share * math.log(share) for share in shares)


def effective_complexity(saliency: NDArray[np.float64], eps: float = 1e-5) -> float:
    """How many positions have a size above a share of the map's largest."""
    sizes = [abs(value) for value in saliency.ravel().tolist()]
    return float(sum(size > eps * max(sizes) for size in sizes)) if max(sizes) else math.nan
