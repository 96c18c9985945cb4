"""Correlations over sets against plain loops, linear models whose faithful map is known, and the peer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.correlation import (
    faithfulness_correlation,
    faithfulness_estimate,
    mu_fidelity,
    pearson,
    sensitivity_n,
    spearman,
)
from pellucid.metrics.draws import tie_order
from pellucid.metrics.scores import Scores
from pellucid.metrics.subsets import RandomSets, blocks_of
from references import subsets as reference
from references.scored import (
    AS_GIVEN,
    Readings,
    Shown,
    curved,
    drawn,
    linear,
    linear_network,
    network_scores,
    small_network,
    theirs,
)

SHAPES = [(12, 10), (4, 5, 6)]
SEEDS = torch.tensor([5, 9])
quantus_warns = pytest.mark.filterwarnings("ignore")


def pixel_sets(sets: RandomSets, image: int) -> list[list[int]]:
    """An image's sets as lists of pixels."""
    labels = sets.labels.tolist()
    return [[pixel for pixel, cell in enumerate(labels) if cell in set(row)] for row in sets.members(image).tolist()]


def rows_of(images: Tensor) -> list[NDArray[np.float64]]:
    return [image.double().flatten(1).numpy() for image in images]


@pytest.mark.parametrize("shape", SHAPES)
def test_random_sets_equal_the_papers(shape: tuple[int, ...]) -> None:
    images, maps = drawn(2, 2, *shape), drawn(2, *shape, seed=1).relu()
    readings = Readings(curved(shape, 2))
    scores = Scores(readings, images, SEEDS)
    probability, logit = (readings.of_one(shape, reading) for reading in ("probability", "logit"))
    positions = math.prod(shape)
    cells = torch.arange(positions)
    by_size = [RandomSets(SEEDS, cells, size, 9) for size in (12, 40)]
    blocks = RandomSets(SEEDS, blocks_of(images, 3), 2, 9)
    found = [
        faithfulness_correlation(scores, maps, subsets=9, size=12, reading="probability"),
        faithfulness_correlation(scores, maps, subsets=9, size=40 / positions),
        sensitivity_n(scores, maps, sizes=(12, 40), subsets=9),
        mu_fidelity(scores, maps, grid=3, size=2, subsets=9),
    ]
    for row, (image, saliency) in enumerate(zip(rows_of(images), maps.double().flatten(1).numpy(), strict=True)):
        few, many = (pixel_sets(sets, row) for sets in by_size)
        slow = [
            reference.faithfulness_correlation(probability, image, saliency, few),
            reference.faithfulness_correlation(logit, image, saliency, many),
            reference.sensitivity_n(logit, image, saliency, [few, many]),
            reference.mu_fidelity(logit, image, saliency, pixel_sets(blocks, row)),
        ]
        assert [float(values[row]) for values in found] == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [12, 120])
def test_steps_of_the_map_equal_the_papers(shape: tuple[int, ...], steps: int) -> None:
    images, maps = drawn(2, 2, *shape), drawn(2, *shape, seed=1).relu()  # half zeros, so ties matter
    readings = Readings(curved(shape, 2))
    found = faithfulness_estimate(Scores(readings, images, SEEDS), maps, steps=steps)
    score = readings.of_one(shape, "probability")
    for row, (image, saliency) in enumerate(zip(rows_of(images), maps.double().flatten(1).numpy(), strict=True)):
        ties = tie_order(int(SEEDS[row]), 120).tolist()
        assert float(found[row]) == pytest.approx(
            reference.faithfulness_estimate(score, image, saliency, ties, steps), abs=1e-9
        )


CALLS = {
    "faithfulness-correlation": faithfulness_correlation,
    "sensitivity-n": sensitivity_n,
    "faithfulness-estimate": lambda scores, maps: faithfulness_estimate(scores, maps, reading="logit"),
    "mu-fidelity": mu_fidelity,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_linear_model_what_each_pixel_adds_is_right_and_its_opposite_wrong(
    name: str, shape: tuple[int, ...]
) -> None:
    """A removed set takes away exactly its sum: 1, whatever scale the map is in; -1 with the sign turned."""
    images, weights = drawn(2, 2, *shape), drawn(2, *shape, seed=1) / 10
    adds = (images * weights).sum(dim=1)
    scores = Scores(Readings(linear(weights, bias=0.4)), images, SEEDS)
    for scale in (1.0, -1e-6, 1e6):
        values = CALLS[name](scores, adds * scale)
        torch.testing.assert_close(values, torch.full_like(values, math.copysign(1, scale)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_a_map_of_nothing_relevant_is_near_zero_and_below_the_true_one(name: str) -> None:
    images, weights = drawn(30, 1, 12, 12), torch.zeros(1, 12, 12)
    weights[:, 2:6, 2:6] = 1
    scores = Scores(Readings(linear(weights)), images)
    blind, true = CALLS[name](scores, drawn(30, 12, 12, seed=3)), CALLS[name](scores, (images * weights)[:, 0])
    assert abs(float(blind.mean())) < 0.15
    assert (true > 0.5).all()
    assert (true > blind).all()


def test_only_sizes_at_which_it_is_defined_are_averaged_and_equal_sizes_count_once() -> None:
    image, weights = torch.zeros(1, 1, 3, 4), torch.zeros(1, 3, 4)
    image[..., 0, 0] = weights[..., 0, 0] = 1
    scores = Scores(Readings(linear(weights)), image)
    once = sensitivity_n(scores, image[:, 0], sizes=[3])
    assert float(once) == pytest.approx(1)
    assert torch.equal(sensitivity_n(scores, image[:, 0], sizes=[3, 0.25, 0.26]), once)
    two = drawn(1, 3, 4)
    each = torch.stack([sensitivity_n(scores, two, sizes=[size]) for size in (3, 6)])
    assert torch.equal(sensitivity_n(scores, two, sizes=[3, 6, 6]), each.mean(dim=0))


def test_a_score_that_saturates_has_no_fall_in_its_probability_but_in_its_logit() -> None:
    images, weights = torch.ones(1, 1, 6, 6), torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0))
    scores = Scores(Readings(linear(weights, bias=60)), images)
    assert faithfulness_correlation(scores, weights, reading="probability").isnan().all()
    assert float(faithfulness_correlation(scores, weights)) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(7,), (40,)])
def test_correlations_equal_plain_loops_with_ties(shape: tuple[int, ...]) -> None:
    one = drawn(6, *shape).mul(2).round().double()
    other = (one + drawn(6, *shape, seed=1)).round()
    for ours, slow in ((pearson, reference.pearson), (spearman, reference.spearman)):
        expected = [slow(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True)]
        np.testing.assert_allclose(ours(one, other).numpy(), expected, atol=1e-12)


def test_what_is_constant_but_for_rounding_has_no_correlation() -> None:
    constant = torch.full((1, 50), 0.1, dtype=torch.float64) * (1 + 1e-15 * drawn(1, 50).double())
    assert constant.unique().numel() > 1
    for correlation in (pearson, spearman):
        assert correlation(constant, drawn(1, 50, seed=1)).isnan().all()
        assert correlation(drawn(1, 50, seed=1), constant).isnan().all()


def test_options_that_make_no_sense_are_refused() -> None:
    scores, maps = Scores(Readings(linear(torch.ones(1, 4, 4))), drawn(1, 1, 4, 4)), drawn(1, 4, 4)
    with pytest.raises(InputError, match="sizes: expected at least one"):
        sensitivity_n(scores, maps, sizes=[])
    with pytest.raises(InputError, match="subsets: expected at least 2 sets, got 1"):
        faithfulness_correlation(scores, maps, subsets=1)
    with pytest.raises(InputError, match="steps: expected at least 2, got 1"):
        faithfulness_estimate(scores, maps, steps=1)
    with pytest.raises(InputError, match="grid: expected at least 2 blocks"):
        mu_fidelity(scores, maps, grid=1)


def test_what_is_declared() -> None:
    for name in CALLS:
        entry = METRICS[name]
        assert (entry.family, entry.needs, entry.higher_is_better) == ("faithfulness", ("scores", "maps"), True)
        assert entry.range == (-1, 1)


# The peer


def feed(monkeypatch: pytest.MonkeyPatch, sets: RandomSets) -> None:
    """Have Quantus draw our sets, which it asks for run by run, image by image."""
    images, runs = sets.shape
    drawings = iter([sets.members(image)[run] for run in range(runs) for image in range(images)])
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(drawings))


@pytest.mark.parity
@quantus_warns
@pytest.mark.parametrize("softmax", [True, False])
def test_equals_quantus_with_the_same_sets(monkeypatch: pytest.MonkeyPatch, softmax: bool) -> None:
    quantus = pytest.importorskip("quantus")
    model, images, maps = small_network(), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    scores = network_scores(model, images, SEEDS)
    reading = "probability" if softmax else "logit"
    each = []
    for size in (5, 12):
        ours = faithfulness_correlation(scores, maps, subsets=20, size=size, reading=reading)
        feed(monkeypatch, RandomSets(SEEDS, torch.arange(36), size, 20))
        metric = quantus.FaithfulnessCorrelation(nr_runs=20, subset_size=size, **AS_GIVEN)
        found = theirs(metric, model, images, maps, softmax=softmax)
        np.testing.assert_allclose(ours.numpy(), found, atol=1e-5)
        each.append(found)
    both = sensitivity_n(scores, maps, sizes=(5, 12), subsets=20, reading=reading)
    np.testing.assert_allclose(both.numpy(), np.mean(each, axis=0), atol=1e-5)


@pytest.mark.parity
@quantus_warns
@pytest.mark.parametrize("steps", [12, 36])
def test_faithfulness_estimate_equals_quantus(steps: int) -> None:
    quantus = pytest.importorskip("quantus")
    model, images, maps = small_network(), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    ours = faithfulness_estimate(network_scores(model, images), maps, steps=steps)
    metric = quantus.FaithfulnessEstimate(features_in_step=36 // steps, **AS_GIVEN)
    np.testing.assert_allclose(ours.numpy(), theirs(metric, model, images, maps), atol=1e-5)


@pytest.mark.parity
@quantus_warns
def test_quantus_draws_without_a_seed_and_ours_is_the_same_each_time() -> None:
    quantus = pytest.importorskip("quantus")
    model, images, maps = small_network(), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    metric = quantus.FaithfulnessCorrelation(nr_runs=20, subset_size=7, **AS_GIVEN)
    np.random.seed(0)  # noqa: NPY002 - the state that it draws from, so that this test is the same each time
    first, second = (theirs(metric, model, images, maps) for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    one, other = (faithfulness_correlation(network_scores(model, images), maps, subsets=20, size=7) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parity
@quantus_warns
@pytest.mark.parametrize("name", ["FaithfulnessCorrelation", "FaithfulnessEstimate"])
def test_quantus_takes_channels_of_a_pixel_apart_and_ours_together(name: str) -> None:
    quantus = pytest.importorskip("quantus")
    image, maps = drawn(1, 3, 6, 6), drawn(1, 6, 6, seed=1)
    options = {"nr_runs": 10, "subset_size": 8} if name == "FaithfulnessCorrelation" else {"features_in_step": 4}
    model = Shown(small_network(3))
    theirs(getattr(quantus, name)(**options, **AS_GIVEN), model, image, maps)
    split = sum(bool(((row != image[0]).any(0) != (row != image[0]).all(0)).any()) for row in model.rows)
    model = Shown(model.inner)
    ours = faithfulness_correlation if name == "FaithfulnessCorrelation" else faithfulness_estimate
    ours(network_scores(model, image), maps)
    apart = sum(bool(((row != image[0]).any(0) != (row != image[0]).all(0)).any()) for row in model.rows)
    assert split >= 10
    assert apart == 0


@pytest.mark.parity
@quantus_warns
def test_quantus_correlates_the_rounding_of_a_score_that_stays_and_ours_has_no_value() -> None:
    """A bias of 15 more saturates the softmax, so that the last bits of a number near 1 are all that moves."""
    quantus = pytest.importorskip("quantus")
    model, images, maps = small_network(), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    with torch.no_grad():
        model[3].bias[1] += 15
    found = theirs(quantus.FaithfulnessEstimate(**AS_GIVEN), model, images, maps)
    assert np.abs(found).min() > 0.05
    assert faithfulness_estimate(network_scores(model, images), maps, steps=36).isnan().all()


@pytest.mark.parity
@quantus_warns
def test_quantus_sensitivity_n_correlates_over_images_and_only_its_first_batch() -> None:
    """For the exact map of a linear model Ancona's correlation is 1 at every n; ours says so for each image.

    Quantus compares a single step's attributions with the fall after all steps up to it, over the images of the batch,
    and gives a number per step; from the second batch on, images count for nothing.
    """
    quantus = pytest.importorskip("quantus")
    images, weights = drawn(6, 1, 6, 6), drawn(6, 6, seed=1)
    model, maps = linear_network(weights), (images * weights)[:, 0]
    ours = sensitivity_n(network_scores(model, images), maps)
    torch.testing.assert_close(ours, torch.ones_like(ours), atol=1e-5, rtol=0)
    metric = quantus.SensitivityN(features_in_step=6, n_max_percentage=1.0, **AS_GIVEN)
    whole = theirs(metric, model, images, maps, softmax=False)
    assert whole.shape == (6,)  # by chance as many steps as images
    assert whole.min() < 0.8
    in_threes = theirs(metric, model, images, maps, softmax=False, batch_size=3)
    first_alone = theirs(metric, model, images[:3], maps[:3], softmax=False)
    assert np.array_equal(in_threes, first_alone)
    assert np.abs(in_threes - whole).max() > 0.05
