"""Infidelity against plain loops, linear models whose exact map has none, and the peers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.infidelity import LARGEST, infidelity, mean_difference
from pellucid.metrics.random_fills import NOISE, noise_of
from pellucid.metrics.scores import Scores
from pellucid.metrics.subsets import Squares, set_sums
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
peers_warn = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_paper(shape: tuple[int, ...], scaled: bool) -> None:
    images, maps = drawn(2, 2, *shape), drawn(2, *shape, seed=1)
    readings = Readings(curved(shape, 2))
    scores = Scores(readings, images, SEEDS)
    by_square = infidelity(scores, maps, draws=9, scaled=scaled)
    by_noise = infidelity(scores, maps, perturbation="noise", draws=5, scaled=scaled)
    squares = Squares(SEEDS, shape, 9, LARGEST)
    score = readings.of_one(shape, "logit")
    for row, seed in enumerate(SEEDS.tolist()):
        image, saliency = images[row].double().flatten(1).numpy(), maps[row].double().flatten().numpy()
        sets = [squares.mask(row, number, shape).flatten().nonzero().flatten().tolist() for number in range(9)]
        slow = reference.infidelity_squares(score, image, saliency, sets, scaled=scaled)
        assert float(by_square[row]) == pytest.approx(slow, rel=1e-9)
        noises = [(noise_of(seed, draw, images.shape[1:]) * NOISE).flatten(1).double().numpy() for draw in range(5)]
        slow = reference.infidelity_noise(score, image, saliency, noises, scaled=scaled)
        assert float(by_noise[row]) == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_linear_model_the_exact_map_has_none(shape: tuple[int, ...]) -> None:
    """What each pixel adds, under squares; the weights, under noise, where a pixel's channels weigh the same."""
    images, weights = drawn(2, 2, *shape), drawn(1, *shape, seed=1).expand(2, *shape) / 10
    scores = Scores(Readings(linear(weights, bias=3)), images, SEEDS)
    adds, derivative = (images * weights).sum(dim=1), weights[:1].expand(2, *shape)
    for scaled in (True, False):
        assert infidelity(scores, adds, scaled=scaled).max() < 1e-10
        assert infidelity(scores, derivative, perturbation="noise", scaled=scaled).max() < 1e-10
    assert infidelity(scores, adds * 7).max() < 1e-10
    falls = reference_falls(scores, shape)
    torch.testing.assert_close(infidelity(scores, adds * 7, scaled=False), 36 * (falls**2).mean(dim=1))
    torch.testing.assert_close(infidelity(scores, -adds, scaled=False), 4 * (falls**2).mean(dim=1))
    assert infidelity(scores, -adds).max() < 1e-10  # the best scale may be negative: it turns a map's sign too


def reference_falls(scores: Scores, shape: tuple[int, ...]) -> Tensor:
    squares = Squares(SEEDS, shape, 100, LARGEST)
    return scores.unperturbed("logit").unsqueeze(1) - scores.without(squares, "zero", "logit")


@pytest.mark.parametrize("perturbation", ["square", "noise"])
def test_scaling_never_makes_it_worse_and_a_map_of_zeros_foretells_nothing(perturbation: str) -> None:
    images, maps = drawn(20, 2, 12, 10), drawn(20, 12, 10, seed=1)
    scores = Scores(Readings(curved((12, 10), 2)), images)
    options = {"perturbation": perturbation, "draws": 30}
    free, fixed = (infidelity(scores, maps, scaled=scaled, **options) for scaled in (True, False))
    nothing = infidelity(scores, torch.zeros_like(maps), **options)
    assert (free <= fixed).all()
    assert (free <= nothing + 1e-12).all()
    assert torch.equal(nothing, infidelity(scores, torch.zeros_like(maps), scaled=False, **options))
    assert (nothing > 0).all()


def test_of_a_model_that_looks_at_one_patch_the_map_of_the_patch_is_best() -> None:
    images, patch = drawn(8, 1, 12, 12), torch.zeros(1, 12, 12)
    patch[:, 3:7, 3:7] = 1
    scores = Scores(Readings(linear(patch)), images)
    inside = infidelity(scores, (images * patch)[:, 0])
    assert inside.max() < 1e-9
    assert (infidelity(scores, drawn(8, 12, 12, seed=3)) > 0.1).all()


def test_what_is_declared_and_refused() -> None:
    entry = METRICS["infidelity"]
    assert (entry.family, entry.higher_is_better, entry.range) == ("faithfulness", False, (0, np.inf))
    scores, maps = Scores(Readings(linear(torch.ones(1, 4, 4))), drawn(1, 1, 4, 4)), drawn(1, 4, 4)
    with pytest.raises(InputError, match="perturbation: expected 'square' or 'noise', got 'circle'"):
        infidelity(scores, maps, perturbation="circle")
    with pytest.raises(InputError, match="draws: expected at least 1"):
        infidelity(scores, maps, draws=0)


# The peers


@pytest.mark.parity
@peers_warn
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("perturbation", ["square", "noise"])
def test_equals_captum_with_the_same_perturbations(perturbation: str, scaled: bool) -> None:
    """Its perturbation is ours, image by image; for squares it is told the square, as for maps of contributions."""
    captum = pytest.importorskip("captum.metrics")
    model, images, maps = small_network(), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    squares = Squares(SEEDS, (6, 6), 10, LARGEST)
    masks = torch.stack([squares.mask(image, number, (6, 6)) for image in range(2) for number in range(10)])

    def perturbed(rows: Tensor) -> tuple[Tensor, Tensor]:
        if perturbation == "square":
            return masks.unsqueeze(1).float(), rows * ~masks.unsqueeze(1)
        noise = torch.stack([noise_of(seed, draw, (1, 6, 6)) for seed in SEEDS.tolist() for draw in range(10)]) * NOISE
        return rows - noise, noise

    found = captum.infidelity(
        model, perturbed, images, maps.unsqueeze(1), target=1, n_perturb_samples=10, normalize=scaled
    )
    ours = infidelity(network_scores(model, images, SEEDS), maps, perturbation=perturbation, draws=10, scaled=scaled)
    np.testing.assert_allclose(ours.numpy(), found.detach().numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parity
@peers_warn
def test_equals_quantus_where_it_removes_one_patch() -> None:
    """One patch, the whole image. Its map is multiplied by the difference, so it is given what ours is per unit."""
    quantus = pytest.importorskip("quantus")
    model, images, maps = small_network(), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    metric = quantus.Infidelity(perturb_patch_sizes=[6], n_perturb_samples=1, **AS_GIVEN)
    found = theirs(metric, model, images, maps / images[:, 0], softmax=False)
    scores = network_scores(model, images)
    fallen = scores.unperturbed("logit") - network_scores(model, images * 0).unperturbed("logit")
    ours = mean_difference(maps.flatten(1).sum(1, keepdim=True), fallen.unsqueeze(1), scaled=False)
    np.testing.assert_allclose(ours.numpy(), found, rtol=1e-4)


@pytest.mark.parity
@peers_warn
def test_quantus_adds_patch_to_patch_and_repeats_itself_and_ours_removes_one_at_a_time() -> None:
    quantus = pytest.importorskip("quantus")
    image, maps = drawn(1, 1, 6, 6), drawn(1, 6, 6, seed=1)
    model = Shown(small_network())
    theirs(quantus.Infidelity(perturb_patch_sizes=[3], n_perturb_samples=10, **AS_GIVEN), model, image, maps)
    rows = torch.stack(model.rows[1:])
    assert [int((row != image[0]).sum()) for row in rows[:4]] == [9, 18, 27, 36]
    assert torch.equal(rows, rows[:4].repeat(10, 1, 1, 1))  # ten samples of nothing random
    model = Shown(model.inner)
    infidelity(network_scores(model, image), maps, draws=50)
    sides = {int((row != image[0]).sum()) for row in model.rows[1:]}
    assert sides == {1, 4}  # up to 10 / 28 of 6 pixels
    assert len(model.rows) - 1 == len(torch.stack(model.rows[1:]).unique(dim=0))  # the same square is scored once


@pytest.mark.parity
@peers_warn
def test_quantus_fails_where_patches_do_not_fit_and_ours_does_not() -> None:
    quantus = pytest.importorskip("quantus")
    image, weights = drawn(1, 1, 6, 6), drawn(1, 6, 6, seed=1)
    model, maps = linear_network(weights[0]), weights * image[:, 0]
    with pytest.raises((ValueError, IndexError)):
        theirs(quantus.Infidelity(perturb_patch_sizes=[4], **AS_GIVEN), model, image, maps, softmax=False)
    assert infidelity(network_scores(model, image), maps).max() < 1e-9


@pytest.mark.parity
def test_squares_sums_are_what_the_map_foretells() -> None:
    """The one thing that captum is told by us: that contributions are summed over the square."""
    maps = drawn(2, 6, 6)
    squares = Squares(SEEDS, (6, 6), 4, 0.5)
    masks = torch.stack([squares.mask(1, number, (6, 6)) for number in range(4)])
    torch.testing.assert_close(set_sums(squares, maps)[1], (masks * maps[1].double()).sum(dim=(1, 2)))
