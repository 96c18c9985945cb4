"""How alike a map and one that was made again are, (B, *S) each, by ranks or by structure; and how spread a map is.

A constant map has no similarity (NaN). One made again that is constant, as a CAM without a positive value, says nothing
of the map, which counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.agreement import rank_correlation, ssim
from pellucid.metrics.ties import is_constant

Similarity = Literal["spearman", "ssim"]


def similarity_of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of that name, "spearman" or "ssim"; raises InputError for another."""
    if name not in SIMILARITIES:
        raise expected("similarity", " or ".join(map(repr, SIMILARITIES)), repr(name))
    return SIMILARITIES[name]


def by_ranks(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation (B,), float64 in [-1, 1].

    >>> by_ranks(torch.tensor([[1.0, 2.0, 9.0]] * 3), torch.tensor([[0.0, 4.0, 5.0], [3, 2, 1], [7, 7, 7]]))
    tensor([ 1., -1.,  0.], dtype=torch.float64)
    """
    return _of_varied(rank_correlation(maps, others), maps, others)


def by_structure(maps: Tensor, others: Tensor) -> Tensor:
    """SSIM (B,), float64 in [-1, 1], of maps each scaled to [0, 1].

    >>> maps = torch.arange(144.0).view(1, 12, 12)
    >>> by_structure(maps, 5 * maps)
    tensor([1.], dtype=torch.float64)
    """
    return _of_varied(ssim(maps, others), maps, others)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman": by_ranks,
    "ssim": by_structure,
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


def _of_varied(values: Tensor, maps: Tensor, others: Tensor) -> Tensor:
    """Values (B,) in [-1, 1] where both maps vary; NaN where the first is constant, else 0 where the other is."""
    known = torch.where(is_constant(others), 0, values.clamp(-1, 1))
    return torch.where(is_constant(maps), math.nan, known)
