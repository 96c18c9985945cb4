"""ROAD (remove and debias): the class score as pixels are removed in the order of a map, and its summaries."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.families import SHARE, faithfulness
from pellucid.metrics.fills import filling
from pellucid.metrics.ranking import removal_count, removal_orders
from pellucid.metrics.removals import First, Joined
from pellucid.metrics.scores import Scores

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NOISE = 0.01


@dataclasses.dataclass(frozen=True)
class RoadCurves:
    """Scores of B images as pixels are removed, most or least relevant first.

    Attributes:
        fractions: (F,) float64, the realised shares of removed pixels.
        morf: (B, F) scores, most relevant first.
        lerf: likewise, least relevant first.
        unperturbed: (B,) scores of the images themselves.
    """

    fractions: Tensor
    morf: Tensor
    lerf: Tensor
    unperturbed: Tensor


def road_curves(
    scores: Scores, maps: Tensor, *, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE
) -> RoadCurves:
    """Remove growing shares of each image's pixels in the order of its map, impute them, and score what is left.

    Exactly round(fraction · N) positions go, all channels together; ties are broken by the image's seed.

    Arguments:
        scores: what the network says of the images; its probability of the explained class is read.
        maps: (B, *S), finite.
        fractions: shares of removed pixels in [0, 1].
        noise: standard deviation of the normal noise on imputed pixels, in units of the normalised image; 0 for none.

    Raises:
        InputError: an argument that can't be used.

    Source: Rong et al. 2022 (ROAD).

    >>> images = torch.tensor([[[[4.0, 0.0, 0.0, 0.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.amax((1, 2, 3)) / 4, images)
    >>> curves = road_curves(scores, images[:, 0], fractions=[0.5])
    >>> bool(curves.lerf > curves.morf), curves.unperturbed
    (True, tensor([1.]))
    """
    counts = _counts(scores, maps, fractions, noise)
    morf, lerf = (First(order, counts) for order in removal_orders(maps, scores.seeds))
    both = scores.without(Joined(morf, lerf), filling("linear", noise=noise))
    realised = torch.tensor([count / maps[0].numel() for count in counts], dtype=torch.float64)
    return RoadCurves(realised, both[:, : len(counts)], both[:, len(counts) :], scores.unperturbed())


@faithfulness(
    "road",
    source="Rong et al. 2022; combined as in Chaddad et al. 2025",
    higher_is_better=True,
    range=(-0.5, 0.5),
)
def road(scores: Scores, maps: Tensor, *, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE) -> Tensor:
    """Confidence increase: mean over fractions of half the score's lead, least over most relevant first.

    >>> images = torch.tensor([[[[4.0, 0.0, 0.0, 0.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.amax((1, 2, 3)) / 4, images)
    >>> bool(road(scores, images[:, 0]) > road(scores, -images[:, 0]))
    True
    """
    curves = road_curves(scores, maps, fractions=fractions, noise=noise)
    return ((curves.lerf - curves.morf) / 2).mean(dim=-1)


@faithfulness("road-morf", source="Rong et al. 2022", higher_is_better=False, range=SHARE)
def road_morf(scores: Scores, maps: Tensor, *, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE) -> Tensor:
    """Mean score over fractions, most relevant pixels removed first."""
    counts = _counts(scores, maps, fractions, noise)
    morf, _ = removal_orders(maps, scores.seeds)
    return scores.without(First(morf, counts), filling("linear", noise=noise)).mean(dim=-1)


@faithfulness("road-lerf", source="Rong et al. 2022", higher_is_better=True, range=SHARE)
def road_lerf(scores: Scores, maps: Tensor, *, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE) -> Tensor:
    """Mean score over fractions, least relevant pixels removed first."""
    counts = _counts(scores, maps, fractions, noise)
    _, lerf = removal_orders(maps, scores.seeds)
    return scores.without(First(lerf, counts), filling("linear", noise=noise)).mean(dim=-1)


def _counts(scores: Scores, maps: Tensor, fractions: Sequence[float], noise: float) -> list[int]:
    """How many positions go at each fraction, once the arguments have been checked."""
    check_maps(scores, maps)
    if not len(fractions):
        raise expected("fractions", "at least one share of removed pixels", "none")
    if not noise >= 0:
        raise expected("noise", "a standard deviation of 0 or more", noise)
    return [removal_count(fraction, maps[0].numel()) for fraction in fractions]


def check_maps(scores: Scores, maps: Tensor) -> None:
    """Raise InputError where maps aren't one finite value per pixel of the images."""
    wanted = (scores.images.shape[0], *scores.images.shape[2:])
    if tuple(maps.shape) != wanted or not maps.numel():
        raise expected("maps", f"shape {wanted}, a value per pixel", tuple(maps.shape), do="Resize the maps first.")
    if not bool(maps.isfinite().all()):
        raise expected("maps", "finite values", "NaN or infinity")
