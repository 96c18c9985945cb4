"""How much a map asks the eye to take in: few places that carry it, or many.

All of them read the size of a map's values, whatever their sign, so that a place that speaks against the class counts
as one that speaks for it. A map that is zero everywhere has no value: it isn't the simplest map, it is none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.families import ABOVE_ZERO, SHARE, complexity
from pellucid.metrics.ties import rising

ALL_ZERO = "the map is zero everywhere"


@complexity(
    "sparseness",
    source="Chalasani et al. 2020; Hurley & Rickard 2009",
    higher_is_better=True,
    range=SHARE,
    missing=ALL_ZERO,
)
def sparseness(maps: Tensor) -> Tensor:
    """Gini index of the sizes of a map's values: 0 when all are equal, near 1 when one position has everything.

    That one position gives 1 − 1/N in a map of N.

    Arguments:
        maps: (B, *S), finite.

    Returns:
        (B,) float64 in [0, 1); NaN for a map that is zero everywhere.

    >>> sparseness(torch.tensor([[0.0, 0.0, 0.0, -2.0], [1.0, 1.0, 1.0, 1.0]]))
    tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    ordered, _ = rising(_sizes(maps))
    count = ordered.shape[1]
    weights = 2 * torch.arange(1, count + 1, dtype=torch.float64, device=maps.device) - count - 1
    return ((weights * ordered).sum(dim=1) / (count * ordered.sum(dim=1))).clamp(min=0)  # rounding of a constant map


@complexity(
    "entropy",
    source="Bhatt et al. 2020, definition 5 (complexity)",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing=ALL_ZERO,
)
def entropy(maps: Tensor) -> Tensor:
    """Entropy, in nats, of each position's share of the sizes of a map's values.

    0 when one position has everything, ln N when all N have the same; compare it between maps of one size only.

    Arguments:
        maps: (B, *S), finite.

    Returns:
        (B,) float64, 0 to ln N; NaN for a map that is zero everywhere.

    >>> entropy(torch.tensor([[0.0, 0.0, 0.0, -2.0], [1.0, 1.0, 1.0, 1.0]]))
    tensor([0.0000, 1.3863], dtype=torch.float64)
    """
    sizes = _sizes(maps)
    shares: Tensor = torch.special.entr(sizes / sizes.sum(dim=1, keepdim=True))
    return shares.sum(dim=1)


@complexity(
    "effective-complexity",
    source="Nguyen & Martínez 2020, counting values as Quantus does rather than by the model's loss",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing=ALL_ZERO,
)
def effective_complexity(maps: Tensor, *, eps: float = 1e-5) -> Tensor:
    """How many positions have a value whose size is above `eps` times the largest of that map.

    Each map is measured by its own largest, so that neither its scale nor the other images matter. The paper counts the
    features that a model needs to stay within a loss, which this stands for.

    Arguments:
        maps: (B, *S), finite.
        eps: share of the map's largest size, in [0, 1).

    Returns:
        (B,) float64, 1 to N positions; NaN for a map that is zero everywhere.

    Raises:
        InputError: an eps outside [0, 1).

    >>> effective_complexity(torch.tensor([[4.0, -2.0, 1.0, 0.0]]), eps=0.25)
    tensor([2.], dtype=torch.float64)
    """
    if not 0 <= eps < 1:
        raise expected("eps", "a share of the map's largest value in [0, 1)", eps)
    sizes = _sizes(maps)
    largest = sizes.amax(dim=1, keepdim=True)
    counts = (sizes > eps * largest).sum(dim=1).double()
    return torch.where(largest[:, 0] > 0, counts, math.nan)


def _sizes(maps: Tensor) -> Tensor:
    return maps.flatten(1).double().abs()
