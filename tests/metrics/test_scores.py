"""What metrics share: each removal is made once, whoever asks and in whatever form; sets, readings and blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pellucid.errors import InputError, UnknownNameError
from pellucid.metrics.fills import FILLS, filling
from pellucid.metrics.removals import First, Joined, Sets, position_numbers
from pellucid.metrics.scores import Scores


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Counted:
    """The sum of a row's pixels, and how many rows came at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, rows: Tensor, sample: Tensor) -> Tensor:
        self.calls.append(len(rows))
        return rows.flatten(1).sum(dim=1)


def orders_of(images: int, positions: int) -> Tensor:
    return torch.stack([torch.randperm(positions, generator=torch.Generator().manual_seed(i)) for i in range(images)])


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)])
def test_scores_without_positions_are_those_of_images_without_them(shape: tuple[int, ...]) -> None:
    images = drawn(3, 2, *shape)
    positions = images[0, 0].numel()
    orders, counts = orders_of(3, positions), [0, 1, 7, positions]
    scores = Scores(Counted(), images)
    found = scores.without(First(orders, counts), "zero")
    assert found.shape == (3, 4)
    for image in range(3):
        for place, count in enumerate(counts):
            kept = images[image].flatten(1).clone()
            kept[:, orders[image, :count]] = 0
            assert found[image, place].item() == pytest.approx(kept.sum().item(), abs=1e-4)
    assert torch.equal(found[:, 0], scores.unperturbed())


def test_equal_sets_are_scored_once_in_whatever_form_they_come() -> None:
    images, counted = drawn(2, 1, 4, 5), Counted()
    orders = orders_of(2, 20)
    scores = Scores(counted, images)
    first = scores.without(First(orders, [3, 8]), "zero")
    asked = sum(counted.calls)
    assert asked == 2 + 4
    masks = torch.zeros(2, 2, 20, dtype=torch.bool)
    for image in range(2):
        masks[image, 0, orders[image, :8]] = True
        masks[image, 1, orders[image, :3]] = True
    assert torch.equal(scores.without(Sets(masks.view(2, 2, 4, 5)), "zero"), first.flip(1))
    backwards = First(orders.flip(1), [12, 17])  # what is kept here is removed there
    scores.without(backwards, "zero")
    assert sum(counted.calls) == asked + 4
    joined = scores.without(Joined(First(orders, [8]), First(orders, [3])), "zero")
    assert torch.equal(joined, first.flip(1))
    assert sum(counted.calls) == asked + 4 == scores.rows
    scores.without(First(orders, [3]), filling("linear", noise=0.0))  # another fill is another image
    assert sum(counted.calls) == asked + 6


def test_a_set_that_is_asked_twice_at_once_is_made_once() -> None:
    counted = Counted()
    scores = Scores(counted, drawn(1, 1, 4, 4))
    same = scores.without(First(orders_of(1, 16), [5, 5, 5]), "zero")
    assert same[0].unique().numel() == 1
    assert sum(counted.calls) == 1 + 1


def test_counts_can_differ_between_images() -> None:
    images = torch.ones(2, 1, 2, 2)
    scores = Scores(Counted(), images)
    found = scores.without(First(torch.arange(4).expand(2, 4), torch.tensor([[1, 2], [3, 4]])), "zero")
    assert found.tolist() == [[3, 2], [1, 0]]


def test_masks_of_one_image_serve_all() -> None:
    scores = Scores(Counted(), torch.ones(3, 1, 2, 2))
    masks = torch.tensor([[[[True, False], [False, False]]]])
    assert scores.without(Sets(masks, images=3), "zero").tolist() == [[3], [3], [3]]


def test_readings_are_the_columns() -> None:
    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        logit = rows.flatten(1).sum(dim=1)
        return torch.stack([logit.sigmoid(), logit, torch.full_like(logit, 2)], dim=1)

    images = drawn(2, 1, 3, 3)
    scores = Scores(score_of, images)
    total = images.flatten(1).sum(dim=1)
    torch.testing.assert_close(scores.unperturbed("logit"), total)
    torch.testing.assert_close(scores.unperturbed(), total.sigmoid())
    assert scores.unperturbed("class").tolist() == [2, 2]
    torch.testing.assert_close(scores.of(2 * images, torch.arange(2), "logit"), 2 * total)
    with pytest.raises(InputError, match="reading: expected 'probability' or 'logit' or 'class', got 'odds'"):
        scores.unperturbed("odds")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="score_of: expected three columns"):
        Scores(Counted(), images).unperturbed("class")


def test_only_a_block_is_held() -> None:
    counted = Counted()
    images = drawn(2, 1, 4, 4)
    scores = Scores(counted, images, block_bytes=3 * 16 * 4)
    scores.without(First(orders_of(2, 16), range(1, 9)), "zero")
    scores.of(images.repeat(4, 1, 1, 1), torch.arange(2).repeat(4))
    assert max(counted.calls[1:]) == 3


def test_says_whether_a_change_moved_the_score() -> None:
    images = drawn(2, 1, 4, 4)
    scores = Scores(lambda rows, sample: torch.where(sample == 0, 1.0, rows.flatten(1).sum(dim=1)), images)
    scores.without(First(orders_of(2, 16), [4]), "zero")
    assert scores.changed.tolist() == [False, True]


def test_fills_are_named_by_their_options_and_unknown_ones_refused() -> None:
    assert filling("linear", noise=0.0).label == "linear[noise=0.0]"
    assert {"linear", "zero"} <= set(FILLS.names())
    with pytest.raises(UnknownNameError, match="unknown fill 'liner'. Did you mean 'linear'"):
        Scores(Counted(), drawn(1, 1, 3, 3)).without(First(orders_of(1, 9), [1]), "liner")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: First(torch.arange(4)[None], [5]), "counts: expected numbers of positions from 0 to 4"),
        (lambda: Sets(torch.zeros(1, 2, 3)), "masks: expected a bool tensor"),
        (
            lambda: Joined(First(orders_of(1, 4), [1]), First(orders_of(2, 4), [1])),
            "parts: expected removals of the same",
        ),
    ],
)
def test_bad_removals_are_named(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_removals_of_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="removals: expected sets of 1 images, got of 2"):
        Scores(Counted(), drawn(1, 1, 2, 2)).without(First(orders_of(2, 4), [1]), "zero")


def test_prints_tell_sets_apart() -> None:
    numbers = position_numbers(64)
    order = torch.arange(64)[None]
    prints = First(order, range(65)).prints(0, numbers)
    assert prints.unique().numel() == 65
    assert prints[0] == 0
