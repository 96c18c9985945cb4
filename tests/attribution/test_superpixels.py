"""Blocks of equal size, and superpixels that follow edges."""

from __future__ import annotations

import pytest
import torch

from pellucid.attribution.superpixels import regions_of


@pytest.mark.parametrize("shape", [(8, 7), (8, 7, 5)])
def test_blocks_tile_every_axis_evenly(shape: tuple[int, ...]) -> None:
    labels = regions_of(torch.zeros(2, 3, *shape), 3)
    assert labels.shape == (2, *shape)
    counts = labels[0].flatten().bincount()
    assert len(counts) == 3 ** len(shape)
    assert int(counts.max()) <= torch.Size([-(-length // 3) for length in shape]).numel()
    assert int(counts.min()) >= torch.Size([length // 3 for length in shape]).numel()


def test_an_axis_shorter_than_its_blocks_has_one_per_pixel() -> None:
    assert regions_of(torch.zeros(1, 1, 2, 6), (7, 3)).tolist() == [[[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]]


def test_a_function_may_draw_each_image_regions_of_its_own() -> None:
    images = torch.tensor([[[[1.0, 5.0]]], [[[3.0, 3.0]]]])
    assert regions_of(images, lambda image: (image[0] > 2) * 9).tolist() == [[[0, 1]], [[0, 0]]]


@pytest.mark.parametrize("axes", [2, 3])
def test_superpixels_follow_edges(axes: int) -> None:
    images = torch.zeros(1, 2, *(24,) * axes)
    images[:, :, 9:] = 3.0
    labels = regions_of(images, "slic")[0]
    assert labels.shape == (24,) * axes
    assert 10 < int(labels.max()) + 1 < 100
    assert not set(labels[:9].flatten().tolist()) & set(labels[9:].flatten().tolist())
