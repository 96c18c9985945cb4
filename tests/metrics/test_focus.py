"""Focus: energy pointing on mosaics of two classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

import pellucid
from pellucid.errors import InputError
from pellucid.metrics import mosaics
from pellucid.metrics.localisation import energy_pointing
from references.explaining import drawn, network


def labelled(count: int = 7, axes: int = 2) -> tuple[Tensor, Tensor]:
    size = (10, 8) if axes == 2 else (4, 10, 8)
    return drawn(count, 1, *size), torch.tensor([0, 1, 0, 2, 1, 0, 1])[:count]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("shrink", [True, False])
def test_tiles_lie_where_they_are_said_to(axes: int, shrink: bool) -> None:
    images, labels = labelled(axes=axes)
    made = mosaics(images, labels, shrink=shrink)
    height, width = (5, 4) if shrink else (10, 8)
    assert made.images.shape == (6, 1, *images.shape[2:-2], 2 * height, 2 * width)  # the only image of class 2 has none
    pool = {2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}[axes]
    tiles = pool(images, 2 if axes == 2 else (1, 2, 2)) if shrink else images
    for mosaic, target, mask, sources in zip(made.images, made.target, made.masks, made.sources, strict=True):
        assert len(set(sources.tolist())) == 4
        for place, source in enumerate(sources.tolist()):
            rows = slice(place // 2 * height, (place // 2 + 1) * height)
            columns = slice(place % 2 * width, (place % 2 + 1) * width)
            assert torch.allclose(mosaic[..., rows, columns], tiles[source])
            own = mask[..., rows, columns]
            assert own.all() if labels[source] == target else not own.any()
        assert Counter((labels[sources] == target).tolist()) == {True: 2, False: 2}
    assert made.target.tolist() == [0, 1, 0, 1, 0, 1]


def test_odd_sizes_are_kept() -> None:
    images = drawn(4, 2, 7, 9)
    made = mosaics(images, torch.tensor([0, 0, 1, 1]))
    assert made.images.shape == (4, 2, 7, 9)
    assert made.masks.shape == (4, 7, 9)


def test_every_place_is_drawn_and_the_same_each_time() -> None:
    images, labels = drawn(60, 1, 4, 4), torch.arange(60) % 3
    one, other = mosaics(images, labels), mosaics(images, labels)
    assert torch.equal(one.sources, other.sources)
    assert not torch.equal(one.sources, mosaics(images, labels, torch.Generator().manual_seed(1)).sources)
    own = labels[one.sources] == one.target[:, None]
    assert len({tuple(row) for row in own.tolist()}) == 6


def test_a_map_of_the_class_scores_one_of_the_others_none_and_a_blind_one_half() -> None:
    images, labels = labelled()
    made = mosaics(images, labels)
    assert energy_pointing(made.masks.float(), made.masks).tolist() == pytest.approx([1] * 6)
    assert energy_pointing((~made.masks).float(), made.masks).tolist() == pytest.approx([0] * 6)
    assert energy_pointing(torch.ones(6, 10, 8), made.masks).tolist() == pytest.approx([0.5] * 6)


def test_they_are_explained_and_measured_as_any_images() -> None:
    images, labels = drawn(6, 1, 16, 16), torch.tensor([0, 1, 0, 1, 0, 1])
    made = mosaics(images, labels)
    explanation = pellucid.explain(network(), made.images, ["saliency", "random"], made.target)
    table = pellucid.evaluate(network(), made.images, explanation, ["energy-pointing"], made.masks)
    assert table["value"].between(0, 1).all()
    assert len(table) == 12


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_equals_quantus() -> None:
    quantus = pytest.importorskip("quantus")
    images, labels = labelled()
    made = mosaics(images, labels)
    maps = drawn(6, 10, 8, seed=3)
    own = (labels[made.sources] == made.target[:, None]).long()
    peer = quantus.Focus(disable_warnings=True, normalise=False)
    theirs = peer(
        model=network(),
        x_batch=made.images.numpy(),
        y_batch=made.target.numpy(),
        a_batch=maps.unsqueeze(1).numpy(),
        custom_batch=np.array(own),
        channel_first=True,
    )
    np.testing.assert_allclose(energy_pointing(maps, made.masks), np.ravel(theirs), rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(4, 8, 8), torch.tensor([0, 0, 1, 1]), "images: expected a float tensor"),
        (torch.ones(4, 1, 8, 8).long(), torch.tensor([0, 0, 1, 1]), "images: expected a float tensor"),
        (torch.rand(4, 1, 1, 8), torch.tensor([0, 0, 1, 1]), "images: expected at least 2 pixels"),
        (torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1]), "labels: expected a class for each of 4 images"),
        (torch.rand(4, 1, 8, 8), torch.rand(4), "labels: expected a class for each of 4 images"),
        (torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 0, 1]), "labels: expected a class with two images or more"),
        (torch.rand(4, 1, 8, 8), torch.arange(4), "labels: expected a class with two images or more"),
    ],
)
def test_what_can_t_be_put_together_is_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mosaics(images, labels)
