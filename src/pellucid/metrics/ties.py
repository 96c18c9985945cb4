"""Ranks and top shares of maps that treat equal values alike, as a random order would on average."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import expected


def is_constant(maps: Tensor) -> Tensor:
    """Which maps (B, *S) are the same everywhere, (B,) bool."""
    flat = maps.flatten(1)
    return (flat == flat[:, :1]).all(dim=1)


def mid_ranks(maps: Tensor) -> Tensor:
    """Ranks (B, N) float64 of each map's N positions, 1 for the least; equal values share the mean of theirs.

    >>> mid_ranks(torch.tensor([[5.0, 2.0, 5.0, 9.0]]))
    tensor([[2.5000, 1.0000, 2.5000, 4.0000]], dtype=torch.float64)
    """
    ordered, order = rising(maps.flatten(1))
    first, last = _runs(ordered)
    ranks = (first + last).double() / 2 + 1
    return torch.empty_like(ranks).scatter_(1, order, ranks)


def rising(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, N) from the least value to the largest, and where each value stood; equal ones in any order.

    >>> rising(torch.tensor([[5.0, 2.0, 9.0]]))
    (tensor([[2., 5., 9.]]), tensor([[1, 0, 2]]))
    """
    if rows.device.type != "cpu":
        return torch.sort(rows, dim=1)
    order = torch.from_numpy(np.argsort(rows.detach().numpy(), axis=1))  # several times faster than torch's
    return rows.gather(1, order), order


def top_weights(maps: Tensor, counts: Tensor | int) -> Tensor:
    """How much each position (B, N) belongs to the `counts` largest of its map, float64 in [0, 1].

    1 above the least value that still belongs, 0 below it; positions that have that value share what is left, as
    drawing among them at random does on average. So each row sums to its count.

    Arguments:
        maps: (B, *S).
        counts: how many positions, from 0 to N; for all maps or (B,).

    >>> top_weights(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), 2)
    tensor([[1.0000, 0.5000, 0.5000, 0.0000]], dtype=torch.float64)
    """
    flat = maps.flatten(1)
    counts = torch.as_tensor(counts, device=flat.device).expand(len(flat)).unsqueeze(1)
    last = flat.shape[1] + 1 - counts[:, 0].clamp(min=1)
    least = torch.stack([row.kthvalue(int(k), keepdim=True).values for row, k in zip(flat, last, strict=True)])
    above, tied = flat > least, flat == least
    share = (counts - above.sum(dim=1, keepdim=True)).double() / tied.sum(dim=1, keepdim=True)
    return torch.where(above, 1.0, torch.where(tied, share, 0.0)) * (counts > 0)


def top_count(k: float, positions: int) -> int:
    """How many positions `k` means: a whole number counts them, a fraction is their share, rounded, at least one.

    Raises InputError for a share outside (0, 1] or a count outside 1 to `positions`.

    >>> top_count(1000, 224 * 224), top_count(0.02, 224 * 224)
    (1000, 1004)
    """
    if isinstance(k, int):
        if not 1 <= k <= positions:
            raise expected(
                "k", f"a count from 1 to {positions}, the positions of a map", k, do="Or give a share: 0.02."
            )
        return k
    if not 0 < k <= 1:
        raise expected("k", "a share of the positions in (0, 1], or a whole number of them", k)
    return max(1, round(k * positions))


def last_equal(ordered: Tensor) -> Tensor:
    """The last place (B, N) at which each value of sorted rows stands.

    >>> last_equal(torch.tensor([[9.0, 5.0, 5.0, 2.0]]))
    tensor([[0, 2, 2, 3]])
    """
    return _runs(ordered)[1]


def _runs(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last place (B, N) of the run of equal values that each place of sorted rows is in."""
    places = torch.arange(ordered.shape[1], device=ordered.device).expand(ordered.shape)
    changes = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones_like(ordered[:, :1], dtype=torch.bool)
    first = torch.where(torch.cat([edge, changes], dim=1), places, 0).cummax(dim=1).values
    end = torch.where(torch.cat([changes, edge], dim=1), places, ordered.shape[1])
    return first, end.flip(1).cummin(dim=1).values.flip(1)
