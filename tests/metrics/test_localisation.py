"""Localisation against plain loops and cases with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.metrics import METRICS
from pellucid.metrics.localisation import energy_pointing, pointing_game
from references import localisation as reference

NAMES = METRICS.names("localisation")
SHAPES = [(6, 5), (4, 3, 5)]


def with_mask(shape: tuple[int, ...], seed: int = 0, images: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randint(-3, 4, (images, *shape), generator=draw).float()  # many ties
    masks = torch.rand(images, *shape, generator=draw) < 0.3
    masks.flatten(1)[:, 0] = True
    return maps, masks


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_paper(name: str, shape: tuple[int, ...]) -> None:
    maps, masks = with_mask(shape)
    slow = [
        getattr(reference, name.replace("-", "_"))(saliency, mask)
        for saliency, mask in zip(maps.double().numpy(), masks.numpy(), strict=True)
    ]
    np.testing.assert_allclose(METRICS[name].function(maps, masks).numpy(), slow, rtol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (4, 4, 4)])
@pytest.mark.parametrize(("inside", "share"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_relevance_all_half_and_not_in_the_mask(shape: tuple[int, ...], inside: float, share: float) -> None:
    mask = torch.zeros(1, *shape, dtype=torch.bool)
    mask[:, :2] = True
    saliency = torch.where(mask, inside / mask.sum(), (1 - inside) / (~mask).sum())
    assert energy_pointing(saliency, mask).item() == pytest.approx(share, abs=1e-6)


def test_negative_relevance_neither_counts_nor_is_counted() -> None:
    saliency = torch.tensor([[[3.0, 1.0, -50.0, -7.0]]])
    assert energy_pointing(saliency, torch.tensor([[[True, False, True, False]]])).item() == 0.75


@pytest.mark.parametrize("saliency", [torch.zeros(1, 2, 2), -torch.ones(1, 2, 2)])
def test_a_map_without_evidence_has_no_relevance_mass(saliency: Tensor) -> None:
    assert math.isnan(energy_pointing(saliency, torch.ones(1, 2, 2, dtype=torch.bool)).item())


def test_the_maximum_hits_or_misses() -> None:
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[:, 1, 1] = True
    saliency = torch.zeros(2, 3, 3)
    saliency[0, 1, 1], saliency[1, 0, 1] = 1e-6, 1e-6
    assert pointing_game(saliency, mask).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("value", [0.0, 4.0, -1.0])
def test_a_constant_map_points_as_a_blind_guess(value: float) -> None:
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 0] = True
    assert pointing_game(torch.full((1, 4, 5), value), mask).item() == 0.25


def test_tied_maxima_count_by_their_share() -> None:
    saliency = torch.tensor([[[9.0, 9.0, 9.0, 1.0]]])
    assert pointing_game(saliency, torch.tensor([[[True, True, False, True]]])).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", NAMES)
def test_one_image_scores_as_in_a_batch(name: str) -> None:
    maps, masks = with_mask((6, 6))
    function = METRICS[name].function
    together = function(maps, masks)
    alone = torch.cat([function(maps[row : row + 1], masks[row : row + 1]) for row in range(len(maps))])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", NAMES)
def test_a_positive_scale_changes_nothing(name: str) -> None:
    maps, masks = with_mask((6, 6), seed=3)
    function = METRICS[name].function
    torch.testing.assert_close(function(maps * 1024, masks), function(maps, masks), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_declares_itself(name: str) -> None:
    entry = METRICS[name]
    assert entry.higher_is_better
    assert entry.needs == ("masks",)
    assert entry.source
