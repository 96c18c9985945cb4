"""Exactly k positions go, whatever ties a map has."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pellucid.errors import InputError
from pellucid.metrics.draws import tie_order
from pellucid.metrics.ranking import removal_count, removal_orders, removed_mask
from references import road as reference

SHAPES = [(9, 7), (4, 3, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [3, 1000])
def test_equals_plain_sorting(shape: tuple[int, ...], levels: int) -> None:
    draw = torch.Generator().manual_seed(1)
    maps = torch.randint(-levels, levels, (4, *shape), generator=draw).float()
    seeds = torch.tensor([5, 6, 7, 5])
    morf, lerf = removal_orders(maps, seeds)
    for saliency, seed, most, least in zip(maps.double().numpy(), seeds.tolist(), morf, lerf, strict=True):
        ties = tie_order(seed, saliency.size).tolist()
        assert most.tolist() == reference.order(saliency, ties, most_relevant_first=True)
        assert least.tolist() == reference.order(saliency, ties, most_relevant_first=False)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.37, 0.5, 0.6, 0.9, 1.0])
def test_a_map_that_is_60_percent_zeros_loses_exactly_k_pixels(fraction: float) -> None:
    saliency = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0)) + 0.1
    saliency.view(-1)[torch.randperm(400, generator=torch.Generator().manual_seed(1))[:240]] = 0
    count = removal_count(fraction, 400)
    assert count == round(400 * fraction)
    for order in removal_orders(saliency, torch.tensor([9])):
        assert int(removed_mask(order[0], count, (20, 20)).sum()) == count


def test_sets_of_growing_fraction_are_nested() -> None:
    order = removal_orders(torch.rand(1, 8, 8).round(decimals=1), torch.tensor([2]))[0][0]
    masks = [removed_mask(order, count, (8, 8)) for count in range(65)]
    assert all(bool((smaller <= larger).all()) for smaller, larger in itertools.pairwise(masks))


def test_ties_differ_between_images_and_repeat() -> None:
    flat = torch.zeros(3, 10, 10)
    morf, lerf = removal_orders(flat, torch.tensor([1, 2, 1]))
    assert torch.equal(morf[0], morf[2])
    assert not torch.equal(morf[0], morf[1])
    assert torch.equal(morf, lerf)  # a constant map prefers neither order


def test_tied_zeros_are_spread_over_the_image() -> None:
    saliency = torch.zeros(1, 100, 100)
    saliency[:, :40] = 1 + torch.rand(1, 40, 100)
    _, lerf = removal_orders(saliency, torch.tensor([0]))
    removed = removed_mask(lerf[0], 3000, (100, 100))
    rows = removed[40:].double().mean(dim=1)
    assert not removed[:40].any()
    assert abs(rows.mean() - 0.5) < 0.01
    assert rows.std() < 0.1  # half of each row, not half of the rows


def test_negative_zero_equals_zero() -> None:
    signed = torch.tensor([[0.0, -0.0] * 8])
    assert torch.equal(removal_orders(signed, torch.tensor([3]))[0], removal_orders(signed.abs(), torch.tensor([3]))[0])


def test_a_map_in_a_batch_is_ranked_as_alone() -> None:
    maps = torch.rand(5, 6, 6).round(decimals=1)
    seeds = torch.arange(5)
    together = removal_orders(maps, seeds)
    for row in range(5):
        alone = removal_orders(maps[row : row + 1], seeds[row : row + 1])
        assert all(torch.equal(a[row], b[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("fraction", [-0.1, 1.01, np.nan])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"fractions: expected shares of removed pixels in \[0, 1\]"):
        removal_count(fraction, 100)
