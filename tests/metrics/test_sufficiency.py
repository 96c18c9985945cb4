"""Sufficiency against plain loops, cases with a known answer, and the peer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution import explain
from pellucid.errors import InputError
from pellucid.metrics import METRICS, metric
from pellucid.metrics import sufficiency as module
from pellucid.metrics.evaluate import MissingValuesWarning, evaluate
from pellucid.metrics.sufficiency import sufficiency
from references import subsets as reference
from references.scored import drawn

SHAPES = [(6, 5), (3, 5, 4)]
peers_warn = pytest.mark.filterwarnings("ignore")


def clusters(shape: tuple[int, ...], images: int = 12) -> tuple[Tensor, Tensor]:
    """Maps around three directions, with classes that follow them now and then; one of zeros, two far from others."""
    centres = drawn(3, *shape)
    maps = torch.stack([centres[place % 3] * (1 + place) for place in range(images)])
    maps += 0.2 * maps.flatten(1).norm(dim=1).view(-1, *(1,) * len(shape)) / 5 * drawn(images, *shape, seed=1)
    maps[-1] = 0
    maps[-2] = drawn(*shape, seed=2)
    classes = torch.tensor([place % 3 if place % 4 else 0 for place in range(images)])
    return maps, classes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threshold", [0.3, 0.6, 1.2])
def test_equals_the_paper(shape: tuple[int, ...], threshold: float) -> None:
    maps, classes = clusters(shape)
    slow = reference.sufficiency(maps.double().flatten(1).numpy(), classes.tolist(), threshold)
    found = sufficiency(maps, classes, threshold=threshold)
    np.testing.assert_allclose(found.numpy(), slow, atol=1e-12)
    assert found.dtype == torch.float64
    if threshold == 0.6:
        assert found.isnan().any()
        assert {0.0, 1.0} < set(found.nan_to_num().tolist())


def test_a_part_of_the_positions_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, classes = clusters((6, 5))
    whole = [sufficiency(maps, classes, distance=distance) for distance in ("euclidean", "standardised")]
    monkeypatch.setattr(module, "_POSITIONS", 7)
    parts = [sufficiency(maps, classes, distance=distance) for distance in ("euclidean", "standardised")]
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def test_all_half_and_none_of_the_alike_are_of_the_class() -> None:
    alike = drawn(1, 4, 4).expand(5, 4, 4) * torch.tensor([1.0, 2, 3, 4, 5]).view(5, 1, 1)
    assert sufficiency(alike, torch.zeros(5)).tolist() == [1] * 5
    assert sufficiency(alike, torch.arange(5)).tolist() == [0] * 5
    assert sufficiency(alike, torch.tensor([0, 0, 0, 1, 1])).tolist() == [0.5, 0.5, 0.5, 0.25, 0.25]


def test_nothing_near_is_missing() -> None:
    apart = torch.eye(4).view(4, 2, 2)
    assert sufficiency(apart, torch.zeros(4)).isnan().all()
    assert sufficiency(apart[:1], torch.zeros(1)).isnan().all()
    assert sufficiency(apart, torch.zeros(4), threshold=1.5).tolist() == [1] * 4
    assert sufficiency(apart[:1], torch.zeros(1), distance="standardised").isnan().all()


def test_maps_of_zeros_are_alike_and_far_from_others() -> None:
    maps = torch.cat([torch.zeros(2, 3, 3), drawn(2, 3, 3)])
    found = sufficiency(maps, torch.zeros(4), threshold=0.9)
    assert found[:2].tolist() == [1, 1]
    equal = torch.full((3, 3, 3), 0.1)
    assert sufficiency(equal, torch.tensor([0, 0, 1])).tolist() == [0.5, 0.5, 0]
    assert sufficiency(equal, torch.tensor([0, 0, 1]), distance="standardised").tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_a_map_does_not_matter(scale: float) -> None:
    maps, classes = clusters((6, 5))
    assert torch.equal(sufficiency(maps * scale, classes).nan_to_num(-1), sufficiency(maps, classes).nan_to_num(-1))


def test_the_runner_gives_it_all_images_and_says_what_is_missing() -> None:
    maps = torch.cat([drawn(1, 6, 6).expand(3, 6, 6), drawn(1, 6, 6, seed=1)])
    images = drawn(4, 1, 6, 6, seed=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    explanation = dataclasses.replace(explain(model, images, ["random"]), maps={"one": maps})
    with pytest.warns(MissingValuesWarning, match="no other image has a map like it"):
        table = evaluate(model, images, explanation, metric("sufficiency"), batch_size=1)
    with torch.no_grad():
        classes = model(images).argmax(dim=1)
    assert table["value"].fillna(-1).tolist() == sufficiency(maps, classes).nan_to_num(-1).tolist()


def test_what_is_declared_and_refused() -> None:
    entry = METRICS["sufficiency"]
    assert (entry.needs, entry.higher_is_better, entry.range) == (("all maps", "all classes"), True, (0, 1))
    with pytest.raises(InputError, match="classes: expected a class for each of 2 maps"):
        sufficiency(torch.zeros(2, 3, 3), torch.zeros(3))
    with pytest.raises(InputError, match="threshold: expected a distance of 0 or more, got -1"):
        sufficiency(torch.zeros(2, 3, 3), torch.zeros(2), threshold=-1)
    with pytest.raises(InputError, match="distance: expected 'euclidean' or 'standardised', got 'cosine'"):
        sufficiency(torch.zeros(2, 3, 3), torch.zeros(2), distance="cosine")


# The peer


class ByFirstPixel(nn.Module):
    """The class is the first pixel's value."""

    def forward(self, images: Tensor) -> Tensor:
        """One-hot logits."""
        return nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float()


def theirs(maps: Tensor, classes: Tensor, threshold: float, batch_size: int = 64) -> Any:
    quantus = pytest.importorskip("quantus")
    images = drawn(len(maps), 1, *maps.shape[1:])
    images[:, 0, 0, 0] = classes.float()
    peer = quantus.Sufficiency(
        threshold=threshold, abs=False, normalise=True, return_aggregate=False, disable_warnings=True
    )
    return np.array(
        peer(
            model=ByFirstPixel().eval(),
            x_batch=images.numpy(),
            y_batch=np.zeros(len(maps), int),
            a_batch=maps.unsqueeze(1).numpy(),
            batch_size=batch_size,
            device="cpu",
        )
    )


@pytest.mark.parity
@peers_warn
@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_equals_quantus_in_one_batch_where_some_are_near(threshold: float) -> None:
    maps, classes = drawn(10, 6, 6), torch.tensor([0, 1, 2, 0, 0, 1, 1, 0, 2, 0])
    maps += 2 * drawn(3, 6, 6, seed=1)[classes]
    classes[[0, 5]] = 2  # which their maps don't say
    ours = sufficiency(maps, classes, threshold=threshold, distance="standardised")
    found = theirs(maps, classes, threshold)
    near = ~ours.isnan()
    assert near.sum() >= 4
    assert len(ours[near].unique()) > 1
    np.testing.assert_allclose(ours[near].numpy(), found[near.numpy()], atol=1e-12)


@pytest.mark.parity
@peers_warn
def test_quantus_gives_zero_where_nothing_is_near_and_ours_no_value() -> None:
    maps, classes = drawn(6, 6, 6), torch.zeros(6, dtype=torch.long)
    assert theirs(maps, classes, 0.1).tolist() == [0] * 6
    assert sufficiency(maps, classes, threshold=0.1, distance="standardised").isnan().all()


@pytest.mark.parity
@peers_warn
def test_quantus_compares_within_a_batch_and_ours_over_all_images() -> None:
    """Images 0 and 2, 1 and 3 are alike and of one class: none of it is seen in batches of two."""
    maps, classes = drawn(2, 6, 6)[torch.tensor([0, 1, 0, 1])], torch.tensor([0, 1, 0, 1])
    assert theirs(maps, classes, 0.6).tolist() == [1] * 4
    assert theirs(maps, classes, 0.6, batch_size=2).tolist() == [0] * 4
    assert sufficiency(maps, classes).tolist() == [1] * 4


@pytest.mark.parity
@peers_warn
def test_quantus_finds_nothing_near_where_a_pixel_never_varies_and_ours_leaves_it_out() -> None:
    """A corner that every map leaves at zero has no standard deviation: its distances are all NaN."""
    maps, classes = drawn(1, 6, 6).expand(4, 6, 6) + 0.01 * drawn(4, 6, 6, seed=1), torch.zeros(4, dtype=torch.long)
    maps[0] += 5
    maps[:, 0, 0] = 0
    assert theirs(maps, classes, 0.6).tolist() == [0] * 4
    found = sufficiency(maps, classes, distance="standardised").tolist()
    assert found[1:] == [1] * 3
    assert math.isnan(found[0])
