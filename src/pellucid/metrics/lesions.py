"""Maps as detectors of several lesions: which of them the peaks find, and how many peaks find none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import max_pool3d

from pellucid.errors import expected
from pellucid.metrics.components import components
from pellucid.metrics.families import localisation

RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # false positives per image at which LUNA16 reads the sensitivity

Lesion = NDArray[np.float64]  # (n, axes): the centres of a lesion's pixels


@dataclass(frozen=True)
class Froc:
    """Free-response ROC curve of a set of maps, from the strictest threshold, at which nothing is found.

    Attributes:
        thresholds: (T,) float64, falling from infinity; candidates of this value or more count.
        sensitivity: (T,) float64 in [0, 1], the share of all lesions that are found; NaN where there is no lesion.
        false_positives: (T,) float64, candidates that find no lesion, per image.
        score: mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image; NaN where there is no lesion.
        images: how many images, those without a lesion among them.
        lesions: how many lesions.
    """

    thresholds: Tensor
    sensitivity: Tensor
    false_positives: Tensor
    score: float
    images: int
    lesions: int

    def at(self, rates: Sequence[float]) -> Tensor:
        """Sensitivity at so many false positives per image, linear between the curve's points.

        Beyond the last point it stays what it is there, since the maps have no more candidates.
        """
        values = np.interp(np.asarray(rates, dtype=float), self.false_positives.numpy(), self.sensitivity.numpy())
        return torch.from_numpy(np.atleast_1d(values))


@dataclass(frozen=True, eq=False)
class Detections:
    """What the peaks of one map find.

    Attributes:
        lesions: (L,) float64, of each lesion the value of the highest peak on it, -inf where there is none.
        wrong: (n,) float64, the values of peaks that find no lesion.
    """

    lesions: NDArray[np.float64]
    wrong: NDArray[np.float64]


@dataclass(frozen=True)
class Peaks:
    """Candidates of one map, the highest first.

    Attributes:
        places: (n, axes) float64, in pixels.
        values: (n,) float64, above 0.
    """

    places: NDArray[np.float64]
    values: NDArray[np.float64]


def froc(
    maps: Tensor,
    lesions: Tensor | Sequence[Tensor],
    *,
    spacing: Sequence[float] | Tensor | None = None,
    reach: float = 0.0,
    radius: int = 1,
) -> Froc:
    """How many of the lesions a set of maps finds, against false positives per image, as the threshold falls.

    Candidates are the peaks of a map (see `peaks`). One finds each lesion from which it is no further than `reach`; of
    several on one lesion the highest counts and the others are neither hits nor false positives. One that finds none is
    a false positive. An image without a lesion counts as a normal one: it can only add false positives. Values are
    compared across images as they are, so scale the maps first where their scale says nothing.

    Arguments:
        maps: (B, *S), finite.
        lesions: (B, *S) bool, whose connected components are the lesions (touching at a corner is touching); or
            integers, each value above 0 a lesion of its own; or for each image its boxes (n, 2, axes) in pixels, the
            first corner and the one past the last.
        spacing: mm from one pixel to the next along each axis, for all images or (B, axes); None for pixels.
        reach: how far a candidate may be from the nearest pixel of a lesion, in mm, or in pixels without a spacing.
        radius: pixels to each side among which a candidate is the largest.

    Returns:
        The curve, with a point for each value at which a lesion is found or a false positive comes.

    Raises:
        InputError: maps that aren't finite, lesions or a spacing that don't fit them, a reach below 0, a radius
            below 1.

    Source: Bunch et al. 1978 (free-response ROC); Setio et al. 2017 (LUNA16) for hits, normal images and the score.

    >>> maps = torch.tensor([[[0.0, 9.0, 0.0, 5.0, 0.0]], [[0.0, 0.0, 7.0, 0.0, 0.0]]])
    >>> masks = torch.tensor([[[True, True, False, False, False]], [[False, False, False, False, True]]])
    >>> curve = froc(maps, masks)
    >>> curve.sensitivity, curve.false_positives
    (tensor([0.0000, 0.5000, 0.5000, 0.5000], dtype=torch.float64),
     tensor([0.0000, 0.0000, 0.5000, 1.0000], dtype=torch.float64))
    """
    return froc_of(detections(maps, lesions, spacing=spacing, reach=reach, radius=radius))


def detections(
    maps: Tensor,
    lesions: Tensor | Sequence[Tensor],
    *,
    spacing: Sequence[float] | Tensor | None = None,
    reach: float = 0.0,
    radius: int = 1,
) -> list[Detections]:
    """What the peaks of each map find, as `froc` says; its arguments are those of `froc`, and so are its errors."""
    if not reach >= 0:
        raise expected("reach", "a distance of 0 or more", reach)
    found = peaks(maps, radius=radius)
    steps = _steps(spacing, maps)
    made = []
    for row, each in enumerate(_lesions(maps, lesions)):
        near = _near(found[row].places, each, steps[row], reach)
        best = np.array([float(found[row].values[hit].max(initial=-math.inf)) for hit in near])
        made.append(Detections(best, found[row].values[~near.any(axis=0)]))
    return made


def froc_of(found: Sequence[Detections]) -> Froc:
    """The curve of what was found in each of several images, gathered a few images at a time.

    >>> maps = torch.tensor([[[0.0, 9.0, 0.0, 5.0, 0.0]], [[0.0, 0.0, 7.0, 0.0, 0.0]]])
    >>> masks = torch.tensor([[[True, True, False, False, False]], [[False, False, False, False, True]]])
    >>> apart = [*detections(maps[:1], masks[:1]), *detections(maps[1:], masks[1:])]
    >>> froc_of(apart).score == froc(maps, masks).score
    True
    """
    best, wrong = (np.concatenate([getattr(each, name) for each in found]) for name in ("lesions", "wrong"))
    return _curve(best, wrong, len(found))


def peaks(maps: Tensor, *, radius: int = 1) -> list[Peaks]:
    """The local maxima above 0 of each map, the highest first, then by their place.

    A peak is the largest value among the positions up to `radius` to each side of it. Neighbours (corners too) that
    share that value are one peak, which stands on the one of them nearest to their centre. A plateau with a higher
    neighbour is none, and neither is a map that is the same everywhere.

    Arguments:
        maps: (B, *S), finite, of 1 to 3 axes.
        radius: 1 or more.

    Raises:
        InputError: a radius below 1, or maps of more axes or not finite.

    >>> peaks(torch.tensor([[[0.0, 3.0, 3.0, 3.0, 1.0, 4.0]]]))[0].places.tolist()
    [[0.0, 5.0], [0.0, 2.0]]
    """
    if not (isinstance(radius, int) and radius >= 1):
        raise expected("radius", "a whole number of pixels, 1 or more", radius)
    if not 2 <= maps.ndim <= 4:
        raise expected("maps", "a map (B, *S) of 1 to 3 axes", f"shape {tuple(maps.shape)}")
    if not bool(maps.isfinite().all()):
        raise expected("maps", "finite values", "NaN or infinity")
    tops = (maps == _largest_round(maps, radius)) & (maps > 0)
    beside = _largest_round(torch.where(tops, -math.inf, maps), 1)  # the largest neighbour that is no top
    labels, count = components(tops)
    where = np.argwhere(labels)
    label = labels[labels > 0] - 1
    sizes = np.bincount(label, minlength=count)
    slopes = np.bincount(label, (beside >= maps).cpu().numpy()[labels > 0], minlength=count)
    sums = np.stack([np.bincount(label, along, minlength=count).astype(np.int64) for along in where.T], axis=-1)
    away = ((where * sizes[label, None] - sums[label]) ** 2).sum(axis=1)  # from the centre, times the size, squared
    order = np.lexsort((away, label))
    middle = where[order[np.searchsorted(label[order], np.arange(count))]]
    middle = middle[(slopes == 0) & (sizes < maps[0].numel())]
    values = maps.cpu().double().numpy()[tuple(middle.T)]
    order = np.lexsort((*middle.T[:0:-1], -values, middle[:, 0]))
    ends = np.searchsorted(middle[order, 0], np.arange(1, len(maps)))
    parts = [np.split(each[order], ends) for each in (middle[:, 1:].astype(np.float64), values)]
    return [Peaks(*part) for part in zip(*parts, strict=True)]


@localisation("lesion-recall", source="sensitivity per lesion, as in Setio et al. 2017 (LUNA16)")
def lesion_recall(maps: Tensor, masks: Tensor, *, extra: int = 0, radius: int = 1) -> Tensor:
    """The share of an image's lesions that hold one of its map's highest peaks, as many as there are lesions.

    Peaks that tie for the last of them count as drawing among them at random does on average. A map without a peak
    finds no lesion.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool, whose connected components are the lesions.
        extra: peaks that are looked at beyond one per lesion.
        radius: pixels to each side among which a peak is the largest.

    Returns:
        (B,) float64 in [0, 1].

    Raises:
        InputError: fewer than 0 extra peaks, a radius below 1.

    >>> maps = torch.tensor([[[0.0, 9.0, 0.0, 5.0, 0.0, 7.0]]])
    >>> masks = torch.tensor([[[True, True, False, True, False, False]]])
    >>> lesion_recall(maps, masks), lesion_recall(maps, masks, extra=1)
    (tensor([0.5000], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    if not extra >= 0:
        raise expected("extra", "a number of peaks, 0 or more", extra)
    found = peaks(maps, radius=radius)
    axes = maps.ndim - 1
    values = []
    for each, lesions in zip(found, _lesions(maps, masks), strict=True):
        near = _near(each.places, lesions, np.ones(axes), 0.0)
        values.append(_recall(each.values, near, len(lesions) + extra) if lesions else math.nan)
    return torch.tensor(values, dtype=torch.float64, device=maps.device)


def _recall(values: NDArray[np.float64], near: NDArray[np.bool_], count: int) -> float:
    """Expected share of lesions (L, n) that hold one of the `count` highest of n peaks, ties drawn at random."""
    if count >= len(values):
        return float(near.any(axis=1).mean())
    above, tied = values > values[count - 1], values == values[count - 1]
    places, candidates = count - int(above.sum()), int(tied.sum())
    draws = math.comb(candidates, places)
    missed = [0 if hit[above].any() else math.comb(candidates - int(hit[tied].sum()), places) for hit in near]
    return 1 - sum(missed) / (draws * len(missed))


def _curve(best: NDArray[np.float64], wrong: NDArray[np.float64], images: int) -> Froc:
    hits = best[np.isfinite(best)]
    thresholds: NDArray[np.float64] = np.concatenate([[math.inf], np.unique(np.concatenate([hits, wrong]))[::-1]])

    def reached(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return len(values) - np.searchsorted(np.sort(values), thresholds).astype(np.float64)

    sensitivity = reached(hits) / len(best) if len(best) else np.full(len(thresholds), math.nan)
    points, shares, rates = (torch.from_numpy(each) for each in (thresholds, sensitivity, reached(wrong) / images))
    curve = Froc(points, shares, rates, score=math.nan, images=images, lesions=len(best))
    return replace(curve, score=float(curve.at(RATES).mean()))


def _lesions(maps: Tensor, lesions: Tensor | Sequence[Tensor]) -> list[list[Lesion]]:
    """The lesions of each image."""
    size = tuple(maps.shape[1:])
    if not isinstance(lesions, Tensor):
        if len(lesions) != len(maps) or any(tuple(each.shape[1:]) != (2, len(size)) for each in lesions):
            got = [tuple(each.shape) for each in lesions[:3]]
            raise expected("lesions", f"boxes (n, 2, {len(size)}) of each of {len(maps)} images", f"shapes {got}")
        return [[_pixels(box.tolist()) for box in each] for each in lesions]
    if lesions.shape != maps.shape or lesions.is_floating_point():
        wanted = f"a bool or integer tensor {tuple(maps.shape)}, a value per pixel"
        raise expected("lesions", wanted, f"shape {tuple(lesions.shape)}, {lesions.dtype}")
    labels = components(lesions)[0] if lesions.dtype == torch.bool else lesions.cpu().numpy()
    return [[np.argwhere(each == label).astype(np.float64) for label in np.unique(each[each > 0])] for each in labels]


def _pixels(box: list[list[float]]) -> Lesion:
    """The pixels that a box touches."""
    sides = [np.arange(math.floor(low), math.ceil(high), dtype=np.float64) for low, high in zip(*box, strict=True)]
    return np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(sides))


def _near(
    places: NDArray[np.float64], lesions: list[Lesion], step: NDArray[np.float64], reach: float
) -> NDArray[np.bool_]:
    """Which of n places are within reach of which of L lesions, (L, n)."""
    near = np.zeros((len(lesions), len(places)), dtype=bool)
    for row, lesion in enumerate(lesions):
        if len(lesion) and len(places):
            near[row] = cKDTree(lesion * step).query(places * step)[0] <= reach
    return near


def _steps(spacing: Sequence[float] | Tensor | None, maps: Tensor) -> NDArray[np.float64]:
    """From one pixel to the next along each axis (B, axes), in mm; 1 where that isn't known."""
    axes = maps.ndim - 1
    if spacing is None:
        return np.ones((len(maps), axes))
    steps = torch.as_tensor(spacing, dtype=torch.float64).cpu()
    if tuple(steps.shape) not in ((axes,), (len(maps), axes)) or not bool((steps > 0).all()):
        raise expected("spacing", f"mm above 0, {axes} of them or ({len(maps)}, {axes})", f"{steps.tolist()}")
    return steps.expand(len(maps), axes).numpy()


def _largest_round(maps: Tensor, radius: int) -> Tensor:
    """The largest value (B, *S) up to `radius` to each side of each position."""
    sides = maps.ndim - 1
    volume = maps.reshape(len(maps), 1, *(1,) * (3 - sides), *maps.shape[1:])
    reach = [0] * (3 - sides) + [radius] * sides
    pooled = max_pool3d(volume, [2 * side + 1 for side in reach], stride=1, padding=reach)
    return pooled.view(maps.shape)
