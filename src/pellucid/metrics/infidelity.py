"""Infidelity: how far what a map foretells of a change of the image is from what the score does."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.families import ABOVE_ZERO, faithfulness
from pellucid.metrics.random_fills import NOISE, noise_everywhere, noise_of
from pellucid.metrics.removals import Sets
from pellucid.metrics.road import check_maps
from pellucid.metrics.scores import FillChoice, Scores
from pellucid.metrics.subsets import Squares, set_sums

LARGEST = 10 / 28  # the largest square's side, as in the paper's digits of 28 pixels
Perturbation = Literal["square", "noise"]


@faithfulness("infidelity", source="Yeh et al. 2019, definition 2.1", higher_is_better=False, range=ABOVE_ZERO)
def infidelity(
    scores: Scores,
    maps: Tensor,
    *,
    perturbation: Perturbation = "square",
    draws: int = 100,
    scaled: bool = True,
    fill: FillChoice = "zero",
) -> Tensor:
    """Mean squared difference between what the map foretells of a perturbation and the fall of the logit.

    "square" removes a random square, of any side up to 36 % of the axes, and reads the map as contributions: it
    foretells its own sum over the square. "noise" puts noise in the place of the whole image and reads the map as
    derivatives: it foretells its product with the difference, summed over channels. These are the two that the
    authors evaluate by. What it is measured in is the logit squared, so that values of one image compare.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        perturbation: "square" or "noise".
        draws: perturbations per image, the same for all maps of the image.
        scaled: scale each map by the factor that serves it best, be it negative, as the authors do: most maps, CAMs
            among them, aren't in units of the logit. False takes them as they are.
        fill: what takes the place of a square.

    Returns:
        (B,) float64, at least 0. A map of zeros foretells nothing and gets the mean square of the fall.

    >>> images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)), images)
    >>> bool(infidelity(scores, images[:, 0]) < 1e-9), bool(infidelity(scores, 1 - images[:, 0]) > 0.1)
    (True, True)
    """
    check_maps(scores, maps)
    if draws < 1:
        raise expected("draws", "at least 1", draws)
    if perturbation == "square":
        squares = Squares(scores.seeds, maps.shape[1:], draws, LARGEST)
        foretold, left = set_sums(squares, maps), scores.without(squares, fill, "logit")
    elif perturbation == "noise":
        foretold, left = _under_noise(scores, maps, draws)
    else:
        raise expected("perturbation", "'square' or 'noise'", repr(perturbation))
    return mean_difference(foretold, scores.unperturbed("logit").double().unsqueeze(1) - left.double(), scaled=scaled)


def mean_difference(foretold: Tensor, fallen: Tensor, *, scaled: bool) -> Tensor:
    """Mean square (B,) of the difference between two (B, R), the first scaled to fit where `scaled`."""
    if scaled:
        power = (foretold**2).mean(dim=1, keepdim=True)
        factor = (foretold * fallen).mean(dim=1, keepdim=True) / torch.where(power > 0, power, 1)  # the paper's beta
        foretold = factor * foretold
    return ((foretold - fallen) ** 2).mean(dim=1)


def _under_noise(scores: Scores, maps: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """What maps foretell (B, R) of the image's replacement by noise, and the scores (B, R) of noise alone."""
    everything = Sets(torch.ones(1, 1, *maps.shape[1:], dtype=torch.bool), len(maps))
    exact, foretold, left = maps.double(), [], []
    for draw in range(draws):
        left.append(scores.without(everything, noise_everywhere(draw), "logit"))
        noise = torch.stack([noise_of(seed, draw, scores.images.shape[1:]) for seed in scores.seeds.tolist()])
        difference = (scores.images - noise.to(scores.images) * NOISE).double().sum(dim=1)
        foretold.append((exact * difference).flatten(1).sum(dim=1))
    return torch.stack(foretold, dim=1), torch.cat(left, dim=1)
