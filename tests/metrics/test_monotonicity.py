"""Monotonicity and its correlation against plain loops, linear models whose order is known, and the peer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.axioms import non_sensitivity
from pellucid.metrics.draws import tie_order
from pellucid.metrics.monotonicity import monotonicity, monotonicity_correlation
from pellucid.metrics.random_fills import resampled
from pellucid.metrics.scores import Scores
from pellucid.metrics.subsets import about
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


def replacements(image: Tensor, seed: int, draws: int) -> list[NDArray[np.float64]]:
    """The images (C, N) from which each drawing takes its replacements."""
    everything = torch.ones(1, *image.shape[1:], dtype=torch.bool)
    return [
        resampled(image[None], everything, torch.tensor([seed]), draw=draw)[0].double().flatten(1).numpy()
        for draw in range(draws)
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [12, 120])
def test_equals_the_paper(shape: tuple[int, ...], steps: int) -> None:
    images, maps = drawn(2, 2, *shape), drawn(2, *shape, seed=1).relu()  # half zeros, so ties matter
    readings = Readings(curved(shape, 2))
    scores = Scores(readings, images, SEEDS)
    share, whole = monotonicity(scores, maps, steps=steps), monotonicity(scores, maps, steps=steps, whole=True)
    score = readings.of_one(shape, "probability")
    for row in range(2):
        image, saliency = images[row].double().flatten(1).numpy(), maps[row].double().flatten().numpy()
        ties = tie_order(int(SEEDS[row]), 120).tolist()
        steady = reference.monotonicity(score, image, saliency, ties, steps)
        assert float(share[row]) == pytest.approx(sum(steady) / (steps - 1), abs=1e-12)
        assert float(whole[row]) == all(steady)
        assert 0.2 < float(share[row]) < 1


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_and_non_sensitivity_equal_the_papers(shape: tuple[int, ...]) -> None:
    images, maps = drawn(2, 2, *shape), drawn(2, *shape, seed=1)
    idle = curved(shape, 2)
    readings = Readings(lambda rows: idle(torch.cat([rows[:, :, :2], torch.zeros_like(rows[:, :, 2:])], dim=2)))
    maps[:, -1] = 0
    scores = Scores(readings, images, SEEDS)
    labels = about(27, images).flatten().tolist()
    blocks = [[pixel for pixel, cell in enumerate(labels) if cell == number] for number in range(max(labels) + 1)]
    correlation = monotonicity_correlation(scores, maps, cells=27, draws=3)
    wrong = non_sensitivity(scores, maps, cells=27, draws=3)
    score = readings.of_one(shape, "logit")
    for row in range(2):
        image, saliency = images[row].double().flatten(1).numpy(), maps[row].double().flatten().numpy()
        other = replacements(images[row], int(SEEDS[row]), 3)
        slow = reference.monotonicity_correlation(score, image, saliency, blocks, other)
        assert float(correlation[row]) == pytest.approx(slow, abs=1e-9)
        apart = reference.non_sensitivity(score, image, saliency, blocks, other)
        assert 0 < apart < len(blocks)
        assert float(wrong[row]) == pytest.approx(apart / len(blocks))


@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_linear_model_the_score_rises_at_each_step_where_all_pixels_speak_for_the_class(
    shape: tuple[int, ...],
) -> None:
    images, weights = drawn(3, 1, *shape).abs(), drawn(1, *shape, seed=1).abs() / 20
    for saliency in (images * weights, drawn(3, 1, *shape, seed=2)):  # then any order does
        scores = Scores(Readings(linear(weights)), images)
        assert monotonicity(scores, saliency[:, 0]).tolist() == [1, 1, 1]
        assert monotonicity(scores, saliency[:, 0], whole=True).tolist() == [1, 1, 1]
    against = Scores(Readings(linear(-weights)), images)
    assert monotonicity(against, (images * weights)[:, 0]).tolist() == [0, 0, 0]


def test_what_speaks_against_the_class_is_added_first_and_lets_the_score_fall() -> None:
    """Of the exact map of a linear model, as many steps fall as pixels speak against the class."""
    weights = torch.linspace(-4, 6, 101)[torch.linspace(-4, 6, 101).abs() > 1e-6].view(1, 10, 10)
    scores = Scores(Readings(linear(weights / 50)), torch.ones(1, 1, 10, 10))
    against = int((weights < 0).sum())
    assert float(monotonicity(scores, weights, steps=100)) == pytest.approx(1 - (against - 1) / 99)
    assert float(monotonicity(scores, weights, steps=100, whole=True)) == 0


def test_steps_that_only_rounding_moves_are_no_falls() -> None:
    calls = []

    def trembling(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return rows.double().flatten(1).sum(dim=1) + 1e-8 * torch.arange(len(rows)).flip(0)

    image = torch.zeros(1, 1, 6, 6)
    image[..., 0, 0] = 1
    assert float(monotonicity(Scores(Readings(trembling), image), image[:, 0], steps=36)) == 1
    assert max(calls) > 30


def test_of_a_linear_model_weights_come_in_the_order_of_the_change_they_make() -> None:
    """Pixels of ±1 by a coin: the expected squared change is twice the squared weight, whatever the sign."""
    image = drawn(1, 1, 6, 6).sign()
    weights = (1.5 ** torch.arange(36.0)).view(1, 6, 6)
    weights = weights * drawn(1, 6, 6, seed=3).sign() / weights.max()
    scores = Scores(Readings(linear(weights)), image)
    value = float(monotonicity_correlation(scores, weights, cells=36, draws=40))
    assert value > 0.98
    assert float(monotonicity_correlation(scores, 1 / weights, cells=36, draws=40)) == pytest.approx(-value)
    assert abs(float(monotonicity_correlation(scores, drawn(1, 6, 6, seed=4), cells=36, draws=40))) < 0.5


def test_of_a_model_that_looks_at_one_patch_the_map_of_the_patch_is_best() -> None:
    images, patch = drawn(5, 1, 12, 12), torch.zeros(1, 12, 12)
    patch[:, 3:6, 3:6] = 1
    scores = Scores(Readings(linear(patch)), images)
    best = monotonicity_correlation(scores, patch.expand(5, 12, 12), cells=16)
    assert (best > 0.99).all()  # one block of 3 x 3 counts, the others tie
    assert (monotonicity_correlation(scores, 1 - patch.expand(5, 12, 12), cells=16) < -0.99).all()


def test_what_is_declared() -> None:
    assert METRICS["monotonicity"].range == (0, 1)
    assert METRICS["monotonicity-correlation"].range == (-1, 1)
    assert METRICS["monotonicity"].higher_is_better
    assert METRICS["monotonicity-correlation"].higher_is_better
    scores, maps = Scores(Readings(linear(torch.ones(1, 4, 4))), drawn(1, 1, 4, 4)), drawn(1, 4, 4)
    with pytest.raises(InputError, match="cells: expected at least 2 blocks, got 1"):
        monotonicity_correlation(scores, maps, cells=1)
    with pytest.raises(InputError, match="draws: expected at least 1, got 0"):
        monotonicity_correlation(scores, maps, draws=0)


# The peer


@pytest.mark.parity
@quantus_warns
def test_quantus_never_adds_a_pixel_and_calls_every_map_monotone() -> None:
    """It puts the baseline where the image's pixels should come back: each step is scored on the empty image."""
    quantus = pytest.importorskip("quantus")
    speaking, maps = linear_network(drawn(6, 6, seed=1).abs() / 9), drawn(6, 6, 6, seed=2)
    for inner, images, answer in ((speaking, drawn(6, 1, 6, 6).abs(), 1), (small_network(), drawn(6, 1, 6, 6), 0)):
        model = Shown(inner)
        found = theirs(quantus.Monotonicity(features_in_step=3, **AS_GIVEN), model, images, maps)
        assert found.tolist() == [1] * 6
        assert not torch.stack(model.rows).any()
        ours = monotonicity(network_scores(inner, images), maps, steps=12, whole=True)
        assert ours.tolist() == [answer] * 6  # any order of pixels that all speak for the class; a random one


@pytest.mark.parity
@quantus_warns
def test_correlation_equals_quantus_with_the_same_replacements() -> None:
    """Quantus divides by the squared score, which leaves ranks as they are, where no score is near zero."""
    quantus = pytest.importorskip("quantus")
    model, images, maps = small_network(), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    other = np.stack([np.stack(replacements(image, int(seed), 4)) for image, seed in zip(images, SEEDS, strict=True)])
    draws = iter(range(10**6))

    def replaced(arr: Any, indices: Any, **_: Any) -> Any:
        changed, draw = arr.copy(), next(draws) % 4
        for row, pixels in enumerate(indices):
            changed[row, pixels] = other[row, draw, 0, pixels]
        return changed

    options = {**AS_GIVEN, "abs": True, "perturb_func": replaced}
    found = theirs(quantus.MonotonicityCorrelation(nr_samples=4, **options), model, images, maps, softmax=False)
    ours = monotonicity_correlation(network_scores(model, images, SEEDS), maps, cells=36, draws=4)
    np.testing.assert_allclose(ours.numpy(), found, atol=1e-5)


@pytest.mark.parity
@quantus_warns
def test_quantus_correlation_fails_where_one_image_scores_near_zero_and_ours_does_not() -> None:
    quantus = pytest.importorskip("quantus")
    images, maps = drawn(3, 1, 6, 6), drawn(3, 6, 6, seed=1)
    images[1] = 0
    model = linear_network(drawn(6, 6, seed=2))
    metric = quantus.MonotonicityCorrelation(nr_samples=2, **{**AS_GIVEN, "perturb_baseline": "uniform"})
    with pytest.raises(ValueError, match="NumPy boolean array indexing assignment"):
        theirs(metric, model, images, maps, softmax=False)
    ours = monotonicity_correlation(network_scores(model, images), maps, cells=36)
    assert ours[[0, 2]].isfinite().all()
    assert ours[1].isnan()  # nothing but zeros to draw from


@pytest.mark.parity
@quantus_warns
def test_quantus_correlation_draws_one_value_for_all_pixels_of_a_step_and_without_a_seed() -> None:
    quantus = pytest.importorskip("quantus")
    image, maps = drawn(1, 1, 6, 6), drawn(1, 6, 6, seed=1)
    model = Shown(small_network())
    options = {**AS_GIVEN, "perturb_baseline": "uniform"}
    metric = quantus.MonotonicityCorrelation(nr_samples=3, features_in_step=3, **options)
    theirs(metric, model, image, maps)
    asked = len(model.rows)
    kinds = {len(row[row != image[0]].unique()) for row in model.rows[1:asked]}
    assert kinds == {1}
    theirs(metric, model, image, maps)
    assert not torch.equal(torch.stack(model.rows[:asked]), torch.stack(model.rows[asked:]))
    model = Shown(model.inner)
    one = monotonicity_correlation(network_scores(model, image), maps, cells=4, draws=3)
    assert min(len(row[row != image[0]].unique()) for row in model.rows[1:]) >= 5
    assert torch.equal(one, monotonicity_correlation(network_scores(model, image), maps, cells=4, draws=3))
    assert not math.isnan(float(one))
