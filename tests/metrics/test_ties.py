"""Ranks and top shares in which equal values count alike."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics.ties import last_equal, mid_ranks, rising, top_count, top_weights


def tied(rows: int = 6, positions: int = 40, seed: int = 0) -> Tensor:
    """Maps of five values, -0 and 0 among them."""
    maps = torch.randint(-2, 3, (rows, positions), generator=torch.Generator().manual_seed(seed)).float()
    maps[:, ::3] *= -1  # 0 becomes -0
    return maps


def test_ranks_equal_scipy_whatever_the_sign_of_zero() -> None:
    maps = tied()
    assert torch.equal(mid_ranks(maps), torch.from_numpy(stats.rankdata(maps.numpy(), axis=1)))
    assert torch.equal(mid_ranks(maps), mid_ranks(maps + 0.0))
    assert torch.equal(mid_ranks(maps.view(6, 5, 8)), mid_ranks(maps))


def test_rows_rise_and_each_value_is_found_again() -> None:
    maps = tied()
    ordered, order = rising(maps)
    assert torch.equal(ordered, maps.sort(dim=1).values)
    assert torch.equal(maps.gather(1, order), ordered)


def test_top_weights_are_the_chance_to_be_drawn() -> None:
    values = [2.0, 1.0, 1.0, 1.0, 0.0]
    orders = list(itertools.permutations(range(5)))
    for count in range(6):
        drawn = np.zeros(5)
        for order in orders:
            drawn[sorted(order, key=lambda place: -values[place])[:count]] += 1 / len(orders)
        np.testing.assert_allclose(top_weights(torch.tensor([values]), count)[0], drawn, atol=1e-12)


def test_top_weights_sum_to_their_own_count() -> None:
    maps = tied()
    counts = torch.tensor([0, 1, 7, 20, 39, 40])
    weights = top_weights(maps, counts)
    torch.testing.assert_close(weights.sum(dim=1), counts.double())
    assert ((weights >= 0) & (weights <= 1)).all()
    assert torch.equal(weights[2], top_weights(maps[2:3], 7)[0])


def test_the_last_of_equal_values() -> None:
    ordered = tied().sort(dim=1, descending=True).values
    wanted = [[max(np.flatnonzero(row == value)) for value in row] for row in ordered.numpy()]
    assert last_equal(ordered).tolist() == wanted


def test_k_is_a_count_or_a_share() -> None:
    assert [top_count(k, 40) for k in (1, 40, 0.5, 1.0, 0.001)] == [1, 40, 20, 40, 1]


@pytest.mark.parametrize("k", [0, -1, 41, 0.0, 1.01, -0.5])
def test_another_k_is_refused(k: float) -> None:
    with pytest.raises(InputError, match="^k"):
        top_count(k, 40)
