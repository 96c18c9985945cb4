"""How alike a map and one that was made again are, (B, *S) each, by ranks or by structure; and how spread a map is.

A constant map has no similarity (NaN). One made again that is constant, as a CAM without a positive value, says nothing
of the map, which counts as 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import expected

Similarity = Literal["spearman", "ssim"]

_WINDOW, _WIDTH = 11, 1.5  # of SSIM's Gaussian window: positions, and standard deviation
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2  # SSIM's constants, (K L)² for L = 1


def similarity_of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of that name, "spearman" or "ssim"; raises InputError for another."""
    if name not in SIMILARITIES:
        raise expected("similarity", " or ".join(map(repr, SIMILARITIES)), repr(name))
    return SIMILARITIES[name]


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation (B,), float64 in [-1, 1]; equal values share the mean of their ranks.

    >>> rank_correlation(torch.tensor([[1.0, 2.0, 9.0]] * 3), torch.tensor([[0.0, 4.0, 5.0], [3, 2, 1], [7, 7, 7]]))
    tensor([ 1., -1.,  0.], dtype=torch.float64)
    """
    one, two = (_centred(_ranks(values.flatten(1).double())) for values in (maps, others))
    size = (one.square().sum(dim=1) * two.square().sum(dim=1)).sqrt()
    return _of_varied((one * two).sum(dim=1) / size, maps, others)


def structural_similarity(maps: Tensor, others: Tensor) -> Tensor:
    """SSIM (B,), float64 in [-1, 1], of maps each scaled from its least and largest value to [0, 1], over any axes.

    Of negative values, SSIM's product of two signs would call opposites alike. Windows are Gaussian, 11 positions wide
    with standard deviation 1.5, or as wide as the map allows, and lie wholly inside.

    Source: Wang et al. 2004, equation 13.

    >>> maps = torch.arange(144.0).view(1, 12, 12)
    >>> structural_similarity(maps, 5 * maps)
    tensor([1.], dtype=torch.float64)
    """
    one, two = _scaled(maps), _scaled(others)
    mean_one, mean_two = _windowed(one), _windowed(two)
    var_one = _windowed(one * one) - mean_one**2
    var_two = _windowed(two * two) - mean_two**2
    shared = _windowed(one * two) - mean_one * mean_two
    above = (2 * mean_one * mean_two + _LUMINANCE) * (2 * shared + _CONTRAST)
    below = (mean_one**2 + mean_two**2 + _LUMINANCE) * (var_one + var_two + _CONTRAST)
    return _of_varied((above / below).flatten(1).mean(dim=1), maps, others)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman": rank_correlation,
    "ssim": structural_similarity,
}


def histogram_entropy(maps: Tensor, bins: int = 100) -> Tensor:
    """Entropy (B,) in nats, float64, of how a map's values spread over equal bins from its least to its largest.

    0 for a constant map, log `bins` where each bin holds as many.

    >>> histogram_entropy(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    tensor([0.0000, 0.6931], dtype=torch.float64)
    """
    flat = maps.flatten(1).double()
    low = flat.amin(dim=1, keepdim=True)
    span = flat.amax(dim=1, keepdim=True) - low
    places = ((flat - low) / torch.where(span == 0, 1, span) * bins).long().clamp(0, bins - 1)
    counts = torch.zeros(len(flat), bins, dtype=torch.float64, device=flat.device)
    counts.scatter_add_(1, places, torch.ones_like(flat))
    shares = counts / flat.shape[1]
    return 0.0 - torch.xlogy(shares, shares).sum(dim=1)  # never -0


def _ranks(flat: Tensor) -> Tensor:
    """Ranks from 0 of each row's values, ties sharing their mean."""
    ordered, order = flat.sort(dim=1)
    count = flat.shape[1]
    places = torch.arange(count, device=flat.device).expand_as(order)
    rises = ordered[:, 1:] > ordered[:, :-1]
    edge = torch.ones_like(rises[:, :1])
    first = torch.where(torch.cat([edge, rises], dim=1), places, 0).cummax(dim=1).values
    ends = torch.where(torch.cat([rises, edge], dim=1), places, count)
    last = ends.flip(1).cummin(dim=1).values.flip(1)
    return torch.empty_like(flat).scatter_(1, order, (first + last).double() / 2)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(dim=1, keepdim=True)


def _of_varied(values: Tensor, maps: Tensor, others: Tensor) -> Tensor:
    """Values (B,) in [-1, 1] where both maps vary; NaN where the first is constant, else 0 where the other is."""
    known = torch.where(_constant(others), 0, values.clamp(-1, 1))
    return torch.where(_constant(maps), math.nan, known)


def _constant(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    return flat.amax(dim=1) == flat.amin(dim=1)


def _scaled(maps: Tensor) -> Tensor:
    """Each map from its least and largest value to [0, 1]; NaN where it is constant."""
    axes = tuple(range(1, maps.ndim))
    wide = maps.double()
    least = wide.amin(axes, keepdim=True)
    return (wide - least) / (wide.amax(axes, keepdim=True) - least)


def _windowed(values: Tensor) -> Tensor:
    """The mean of each Gaussian window that lies inside the map."""
    for axis in range(1, values.ndim):
        length = min(_WINDOW, values.shape[axis] - 1 + values.shape[axis] % 2)
        offsets = torch.arange(length, dtype=torch.float64, device=values.device) - (length - 1) / 2
        weights = torch.exp(-(offsets**2) / (2 * _WIDTH**2))
        steps = values.shape[axis] - length + 1
        shifted = [values.narrow(axis, place, steps) for place in range(length)]
        weighed = zip((weights / weights.sum()).tolist(), shifted, strict=True)
        values = functools.reduce(lambda total, pair: total.add(pair[1], alpha=pair[0]), weighed, 0 * shifted[0])
    return values
