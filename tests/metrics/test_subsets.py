"""Sets of positions: what they are, what they depend on, and that metrics and methods share them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.axioms import completeness, non_sensitivity
from pellucid.metrics.correlation import (
    faithfulness_correlation,
    faithfulness_estimate,
    mu_fidelity,
    sensitivity_n,
)
from pellucid.metrics.draws import set_generator
from pellucid.metrics.fills import FILLS
from pellucid.metrics.infidelity import infidelity
from pellucid.metrics.monotonicity import monotonicity, monotonicity_correlation
from pellucid.metrics.removals import Removals
from pellucid.metrics.scores import Scores
from pellucid.metrics.subsets import Blocks, Parts, RandomSets, Squares, about, blocks_of, set_size, set_sums
from references.scored import Readings, curved, drawn

SHAPES = [(12, 10), (4, 5, 6)]
SEEDS = torch.tensor([5, 9])
Few = Callable[[Scores, Tensor], Tensor]
OF_THE_IMAGE: dict[str, Few] = {
    "faithfulness-correlation": lambda scores, maps: faithfulness_correlation(scores, maps, subsets=20),
    "sensitivity-n": lambda scores, maps: sensitivity_n(scores, maps, sizes=(0.2, 0.6), subsets=20),
    "mu-fidelity": lambda scores, maps: mu_fidelity(scores, maps, grid=3, subsets=20),
    "monotonicity-correlation": lambda scores, maps: monotonicity_correlation(scores, maps, cells=9, draws=2),
    "infidelity": lambda scores, maps: infidelity(scores, maps, draws=12),
    "infidelity by noise": lambda scores, maps: infidelity(scores, maps, perturbation="noise", draws=4),
    "completeness": completeness,
    "non-sensitivity": lambda scores, maps: non_sensitivity(scores, maps, cells=9, draws=2),
}
OF_THE_MAP: dict[str, Few] = {
    "faithfulness-estimate": lambda scores, maps: faithfulness_estimate(scores, maps, steps=12),
    "monotonicity": lambda scores, maps: monotonicity(scores, maps, steps=12),
}
ALL = OF_THE_IMAGE | OF_THE_MAP


def all_sets(shape: tuple[int, ...]) -> list[Removals]:
    positions = math.prod(shape)
    images = torch.zeros(2, 1, *shape)
    return [
        RandomSets(SEEDS, torch.arange(positions), positions // 4, 7),
        RandomSets(SEEDS, blocks_of(images, 3), 4, 7),
        Blocks(about(27, images), 2),
        Parts(drawn(2, positions).argsort(dim=1), 7),
        Squares(SEEDS, shape, 7, 0.5),
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_prints_and_sums_are_those_of_the_masks(shape: tuple[int, ...]) -> None:
    numbers = torch.from_numpy(np.random.default_rng(1).integers(-(2**63), 2**63 - 1, math.prod(shape)))
    maps = drawn(2, *shape)
    for sets in all_sets(shape):
        sums = set_sums(sets, maps)
        for image in range(2):
            masks = torch.stack([sets.mask(image, number, shape) for number in range(sets.shape[1])])
            assert masks.flatten(1).any(dim=1).all()
            assert sets.prints(image, numbers).tolist() == [int(numbers[mask.flatten()].sum()) for mask in masks]
            for mask, total in zip(masks, sums[image], strict=True):
                assert float(total) == pytest.approx(float(maps[image][mask].double().sum()), abs=1e-12)


def test_random_sets_are_of_the_size_asked_for_all_different_and_even() -> None:
    sets = RandomSets(torch.tensor([3]), torch.arange(50), 10, 2000)
    masks = torch.stack([sets.mask(0, number, (5, 10)) for number in range(2000)]).flatten(1)
    assert (masks.sum(dim=1) == 10).all()
    assert len({tuple(mask.tolist()) for mask in masks}) == 2000
    assert (masks.float().mean(dim=0) - 0.2).abs().max() < 0.05  # 5.6 standard errors


def test_random_sets_are_drawn_from_the_images_seed_and_more_of_them_begin_alike() -> None:
    cells = torch.arange(30)
    few, many = RandomSets(SEEDS, cells, 6, 4), RandomSets(SEEDS.flip(0), cells, 6, 9)
    assert (few.members(0) == many.members(1)[:4]).all()
    assert (few.members(1) == many.members(0)[:4]).all()
    assert (few.members(0) != few.members(1)).any()


def test_squares_are_square_lie_inside_and_reach_every_corner() -> None:
    squares = Squares(torch.tensor([3]), (8, 8), 600, 0.5)
    sides = squares.corners[0, :, 1] - squares.corners[0, :, 0]
    assert (sides[:, 0] == sides[:, 1]).all()
    assert set(sides[:, 0].tolist()) == {1, 2, 3, 4}
    covered = torch.stack([squares.mask(0, number, (8, 8)) for number in range(600)]).any(dim=0)
    assert covered.all()


def test_a_size_is_a_share_or_a_number() -> None:
    assert [set_size(size, 10) for size in (0.25, 0.01, 0.999, 1, 9)] == [2, 1, 9, 1, 9]
    for size in (0, 10, 0.0, 1.0, -0.5, 1.5):
        with pytest.raises(InputError, match="size: expected a share between 0 and 1, or a number of cells"):
            set_size(size, 10)


@pytest.mark.parametrize("name", ["resampled", "noisy-baseline"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fill_that_draws_gives_a_pixel_the_same_whatever_else_is_removed(name: str, shape: tuple[int, ...]) -> None:
    images = drawn(2, 3, *shape)
    fill = FILLS[name].function
    removed = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)) < 0.4
    some, everything = fill(images, removed, SEEDS), fill(images, torch.ones_like(removed), SEEDS)
    mask = removed.unsqueeze(1).expand_as(images)
    assert torch.equal(some[mask], everything[mask])
    assert torch.equal(some[~mask], images[~mask])
    assert (some != images).any(dim=1)[removed].float().mean() > 0.9
    assert torch.equal(everything[1:], fill(images[1:], torch.ones_like(removed[1:]), SEEDS[1:]))
    assert not torch.equal(everything, fill(images, torch.ones_like(removed), SEEDS, draw=1))
    assert torch.equal(some, fill(images.movedim(1, -1).contiguous().movedim(-1, 1), removed, SEEDS))  # channels last


def test_resampled_pixels_come_whole_from_the_same_image() -> None:
    images = torch.arange(2 * 3 * 40.0).view(2, 3, 40)
    drawn_anew = FILLS["resampled"].function(images, torch.ones(2, 40, dtype=torch.bool), SEEDS)
    for image, filled in zip(images, drawn_anew, strict=True):
        pixels = {tuple(pixel) for pixel in image.T.tolist()}
        found = [tuple(pixel) for pixel in filled.T.tolist()]
        assert set(found) <= pixels
        assert len(set(found)) > 15


def test_a_noisy_baseline_has_the_deviation_asked_for() -> None:
    images, everything = torch.ones(1, 1, 80, 80), torch.ones(1, 80, 80, dtype=torch.bool)
    noise = FILLS["noisy-baseline"].function(images, everything, SEEDS[:1], deviation=0.5)
    assert abs(float(noise.std()) - 0.5) < 0.02
    assert abs(float(noise.mean())) < 0.02


def test_kinds_of_draws_of_one_seed_are_unlike() -> None:
    assert len({int(set_generator(7, *kind).integers(2**62)) for kind in ((0, 1), (1, 1), (1, 2), (2, 1))}) == 4


@pytest.mark.parametrize("name", OF_THE_IMAGE)
def test_a_second_methods_map_costs_no_further_rows(name: str) -> None:
    readings = Readings(curved((12, 10), 2))
    scores = Scores(readings, drawn(2, 2, 12, 10), SEEDS)
    OF_THE_IMAGE[name](scores, drawn(2, 12, 10, seed=1))
    asked = len(readings.rows)
    assert asked > 2
    OF_THE_IMAGE[name](scores, drawn(2, 12, 10, seed=2))
    assert len(readings.rows) == scores.rows == asked


def test_metrics_share_the_sets_in_which_they_coincide() -> None:
    readings = Readings(curved((12, 10), 2))
    scores, maps = Scores(readings, drawn(2, 2, 12, 10), SEEDS), drawn(2, 12, 10, seed=1)
    OF_THE_IMAGE["faithfulness-correlation"](scores, maps)
    before = scores.rows
    OF_THE_IMAGE["sensitivity-n"](scores, maps)  # of two sizes, one is known
    assert scores.rows == before + 2 * 20
    OF_THE_IMAGE["monotonicity-correlation"](scores, maps)
    before = scores.rows
    OF_THE_IMAGE["non-sensitivity"](scores, maps)
    assert scores.rows == before


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_image_has_the_value_it_has_in_a_batch(name: str, shape: tuple[int, ...]) -> None:
    images, maps, seeds = drawn(3, 2, *shape), drawn(3, *shape, seed=1), torch.tensor([4, 5, 6])
    logit = curved(shape, 2)
    together = ALL[name](Scores(Readings(logit), images, seeds), maps)
    assert together.shape == (3,)
    assert together.dtype == torch.float64
    alone = [
        ALL[name](Scores(Readings(logit), images[i : i + 1], seeds[i : i + 1], block_bytes=5000), maps[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_values_of_any_map_lie_in_the_range_that_is_declared(name: str) -> None:
    scores = Scores(Readings(curved((12, 10), 2)), drawn(40, 2, 12, 10))
    maps = torch.cat([drawn(20, 12, 10, seed=1), drawn(20, 12, 10, seed=2).relu().round()])
    for place in range(10):
        maps[place, : place + 1] = 0
    values = ALL[name](scores, maps)
    low, high = METRICS[name.split(" ")[0]].range or (math.nan, math.nan)
    assert values.isfinite().all()
    assert ((low <= values) & (values <= high)).all()
    assert len(values.unique()) > 2


@pytest.mark.parametrize("name", ALL)
def test_all_channels_of_a_pixel_go_together(name: str) -> None:
    image = drawn(1, 3, 12, 10)
    readings = Readings(curved((12, 10), 3))
    ALL[name](Scores(readings, image), drawn(1, 12, 10, seed=1))
    for row in readings.rows:
        changed = row != image[0]
        assert torch.equal(changed.any(dim=0), changed.all(dim=0))


@pytest.mark.parametrize(
    "name", sorted(ALL.keys() - {"infidelity", "infidelity by noise", "completeness", "non-sensitivity"})
)
def test_a_map_that_says_nothing_of_where_and_a_score_that_never_changes_have_no_value(name: str) -> None:
    images = drawn(2, 2, 12, 10)
    if name != "monotonicity":  # it asks for an order alone, and a constant map has one by chance
        constant = torch.stack([torch.zeros(12, 10), torch.full((12, 10), 0.1)])
        assert ALL[name](Scores(Readings(curved((12, 10), 2)), images), constant).isnan().all()
    still = Scores(Readings(lambda rows: torch.full((len(rows),), 0.7)), images)
    assert ALL[name](still, drawn(2, 12, 10, seed=1)).isnan().all()
    assert METRICS[name].missing


@pytest.mark.parametrize("name", ALL)
def test_a_map_of_another_shape_or_with_nan_is_refused(name: str) -> None:
    scores = Scores(Readings(curved((12, 10), 2)), drawn(1, 2, 12, 10))
    with pytest.raises(InputError, match="maps: expected shape"):
        ALL[name](scores, torch.zeros(1, 6, 5))
    with pytest.raises(InputError, match="maps: expected finite values"):
        ALL[name](scores, torch.full((1, 12, 10), torch.nan))
