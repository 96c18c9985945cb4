"""ROAD (remove and debias): the class score as pixels are removed in the order of a map, and its summaries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.draws import noise_field, sample_seeds
from pellucid.metrics.families import removal
from pellucid.metrics.imputation import linear_imputation
from pellucid.metrics.ranking import removal_count, removal_orders, removed_mask

ScoreOf = Callable[[Tensor, Tensor], Tensor]

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NOISE = 0.01
_BLOCK_BYTES = 64 << 20  # perturbed images held at once


@dataclasses.dataclass(frozen=True)
class RoadCurves:
    """Scores of B images as pixels are removed, most or least relevant first.

    Attributes:
        fractions: (F,) float64, the realised shares of removed pixels.
        morf: (B, F) scores, most relevant first; (B, M, F) for M maps of each image.
        lerf: likewise, least relevant first.
        unperturbed: (B,) scores of the images themselves.
    """

    fractions: Tensor
    morf: Tensor
    lerf: Tensor
    unperturbed: Tensor


CurvesOf = Callable[[Sequence[float], float], RoadCurves]


def road_curves(
    score_of: ScoreOf,
    images: Tensor,
    maps: Tensor,
    *,
    fractions: Sequence[float] = FRACTIONS,
    noise: float = NOISE,
    seeds: Tensor | None = None,
) -> RoadCurves:
    """Remove growing shares of each image's pixels in the order of its map, impute them, and score what is left.

    Exactly round(fraction · N) positions go, all channels together; ties are broken by the image's seed. Perturbed
    images that several maps or both orders of one image have in common are made and scored once.

    Arguments:
        score_of: `(images (M, C, *S), sample (M,)) -> (M,)`, the probability of the explained class; row j derives
            from image `sample[j]`.
        images: (B, C, *S), normalised.
        maps: (B, *S), or (B, M, *S) for several maps of each image; finite.
        fractions: shares of removed pixels in [0, 1].
        noise: standard deviation of the normal noise on imputed pixels, in units of the normalised image; 0 for none.
            An image's noise is drawn once, so that a pixel gets the same at every fraction and for every map.
        seeds: (B,) one per image, for ties and noise; None draws them from seed 0.

    Raises:
        InputError: an argument that can't be used.

    Source: Rong et al. 2022 (ROAD).

    >>> images = torch.tensor([[[[4.0, 0.0, 0.0, 0.0]]]])
    >>> curves = road_curves(lambda rows, sample: rows.amax((1, 2, 3)) / 4, images, images[:, 0], fractions=[0.5])
    >>> bool(curves.lerf > curves.morf), curves.unperturbed
    (True, tensor([1.]))
    """
    _check(images, maps, noise, fractions)
    seeds = sample_seeds(None, len(images)) if seeds is None else seeds
    several = maps if maps.ndim == images.ndim else maps.unsqueeze(1)
    shape, positions = images.shape[2:], images.shape[2:].numel()
    counts = [removal_count(fraction, positions) for fraction in fractions]
    numbers = _set_numbers(positions).to(maps.device)
    rows = _Rows(score_of, images.detach(), noise, seeds)
    places = []
    for image, seed in enumerate(seeds):
        orders = torch.cat(removal_orders(several[image], seed.expand(several.shape[1])))
        sets, place = _distinct(orders, [0, *counts], numbers)
        places.append(place + rows.count)
        for order, count in sets:
            rows.add(image, removed_mask(orders[order], count, shape))
    scores = rows.finish()[torch.stack(places).to(images.device)]  # (B, 2M, 1 + F)
    curves = scores[:, :, 1:].unflatten(1, (2, several.shape[1]))
    morf, lerf = (curves if several is maps else curves.squeeze(2)).unbind(1)
    realised = torch.tensor([count / positions for count in counts], dtype=torch.float64)
    return RoadCurves(realised, morf, lerf, scores[:, 0, 0])


@removal("road", source="Rong et al. 2022; combined as in Chaddad et al. 2025", higher_is_better=True)
def road(curves_of: CurvesOf, *, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE) -> Tensor:
    """Confidence increase: mean over fractions of half the score's lead, least over most relevant first.

    >>> curves = RoadCurves(torch.tensor([0.5]), torch.tensor([[0.2]]), torch.tensor([[0.8]]), torch.tensor([0.9]))
    >>> road(lambda fractions, noise: curves)
    tensor([0.3000])
    """
    curves = curves_of(fractions, noise)
    return ((curves.lerf - curves.morf) / 2).mean(dim=-1)


@removal("road-morf", source="Rong et al. 2022", higher_is_better=False)
def road_morf(curves_of: CurvesOf, *, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE) -> Tensor:
    """Mean score over fractions, most relevant pixels removed first."""
    return curves_of(fractions, noise).morf.mean(dim=-1)


@removal("road-lerf", source="Rong et al. 2022", higher_is_better=True)
def road_lerf(curves_of: CurvesOf, *, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE) -> Tensor:
    """Mean score over fractions, least relevant pixels removed first."""
    return curves_of(fractions, noise).lerf.mean(dim=-1)


class _Rows:
    """Perturbed images, imputed and scored a block at a time, so that only a block is ever held."""

    def __init__(self, score_of: ScoreOf, images: Tensor, noise: float, seeds: Tensor) -> None:
        self.score_of, self.images, self.noise, self.seeds = score_of, images, noise, seeds
        self.block = max(1, _BLOCK_BYTES // (images[0].numel() * images.element_size()))
        self.count = 0
        self.pending: list[tuple[int, Tensor]] = []
        self.scores: list[Tensor] = []

    def add(self, image: int, removed: Tensor) -> None:
        """Plan the image without the pixels in the mask (*S)."""
        self.pending.append((image, removed))
        self.count += 1
        if len(self.pending) == self.block:
            self._score()

    def finish(self) -> Tensor:
        """The scores of all rows, in the order in which they were added."""
        if self.pending:
            self._score()
        return torch.cat(self.scores)

    def _score(self) -> None:
        sample = torch.tensor([image for image, _ in self.pending], device=self.images.device)
        removed = torch.stack([mask for _, mask in self.pending]).to(self.images.device)
        self.pending = []
        rows = linear_imputation(self.images[sample], removed)
        if self.noise:
            noises = {
                image: noise_field(int(self.seeds[image]), self.images.shape[1:]).to(rows) * self.noise
                for image in set(sample.tolist())
            }
            for row, mask, image in zip(rows, removed, sample.tolist(), strict=True):
                row += noises[image] * mask
        scores = self.score_of(rows, sample)
        if not isinstance(scores, Tensor) or scores.shape != sample.shape:
            got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise expected("score_of", f"one score for each of {len(sample)} rows", got)
        self.scores.append(scores.detach().to(self.images.device))


def _set_numbers(positions: int) -> Tensor:
    """A random 64-bit number per position; a set's print is their sum (Zobrist), so equal sets have equal prints."""
    return torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, positions))


def _distinct(orders: Tensor, counts: Sequence[int], numbers: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
    """The distinct sets that the first `counts` positions of each order (R, N) form.

    Returns the sets as (order, count), and for each order and count the place of its set (R, len(counts)).
    """
    prints = torch.nn.functional.pad(numbers[orders].cumsum(dim=1), (1, 0))[:, list(counts)].cpu()
    _, first, place = np.unique(prints.numpy(), return_index=True, return_inverse=True)
    sets = [divmod(index, len(counts)) for index in first.tolist()]
    return [(order, counts[step]) for order, step in sets], torch.from_numpy(place).view(prints.shape)


def _check(images: Tensor, maps: Tensor, noise: float, fractions: Sequence[float]) -> None:
    if not len(fractions):
        raise expected("fractions", "at least one share of removed pixels", "none")
    if not noise >= 0:
        raise expected("noise", "a standard deviation of 0 or more", noise)
    if not 3 <= images.ndim <= 5 or not images.numel():
        raise expected("images", "a float tensor (B, C, *S)", f"shape {tuple(images.shape)}")
    wanted = (images.shape[0], *images.shape[2:])
    one_map = (maps.shape[0], *maps.shape[2:]) if maps.ndim == images.ndim else maps.shape
    if tuple(one_map) != wanted or not maps.numel():
        raise expected("maps", f"shape {wanted}, a value per pixel", tuple(maps.shape), do="Resize the maps first.")
    for name, values in (("images", images), ("maps", maps)):
        if not bool(values.isfinite().all()):
            raise expected(name, "finite values", "NaN or infinity")
