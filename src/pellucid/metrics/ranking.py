"""Which positions are removed, and in what order: exactly k of them, whatever ties a map has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.draws import tie_order


def removal_count(fraction: float, positions: int) -> int:
    """How many of an image's positions the fraction removes, k = round(fraction · N).

    Raises InputError for a fraction outside [0, 1].

    >>> removal_count(0.3, 224 * 224)
    15053
    """
    if not 0 <= fraction <= 1:
        raise expected("fractions", "shares of removed pixels in [0, 1]", fraction)
    return round(fraction * positions)


def removal_orders(maps: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Positions from the first removed to the last, most relevant first (MoRF) and least relevant first (LeRF).

    Where a map has equal values, a random order decides, drawn from the image's seed and the same for both and for
    every map of the image. So equal maps lose equal pixels, and a constant map loses the same ones either way.

    Arguments:
        maps: (B, *S), finite.
        seeds: (B,), one per map; maps of one image share theirs.

    Returns:
        Two tensors (B, N) of flat positions, N being the positions of a map.

    >>> morf, lerf = removal_orders(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([0]))
    >>> morf.tolist(), lerf.tolist()
    ([[1, 2, 0]], [[0, 2, 1]])
    """
    flat = maps.flatten(1) + 0.0  # -0 becomes 0: some sorts tell them apart
    by_seed = {seed: tie_order(seed, flat.shape[1]) for seed in set(seeds.tolist())}
    ties = torch.stack([by_seed[seed] for seed in seeds.tolist()]).to(flat.device)
    shuffled = flat.gather(1, ties)
    morf = ties.gather(1, shuffled.argsort(dim=1, descending=True, stable=True))
    lerf = ties.gather(1, shuffled.argsort(dim=1, stable=True))
    return morf, lerf


def removed_mask(order: Tensor, count: int, shape: Sequence[int]) -> Tensor:
    """The first `count` positions of an order (N,) as a mask (*S), True where removed.

    >>> removed_mask(torch.tensor([1, 2, 0]), 2, (1, 3))
    tensor([[False,  True,  True]])
    """
    mask = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    mask[order[:count]] = True
    return mask.view(*shape)
