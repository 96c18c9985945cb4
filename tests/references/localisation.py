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
