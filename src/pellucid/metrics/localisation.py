"""Whether a map points at what it should: against a mask of the finding, its boxes, or the organ it is in.

Each takes maps as they are stored. Where values are equal, all of them count alike, as drawing among them at random
does on average: a constant map gets what a blind guess gets. A mask without a pixel gives NaN, as if the metric had not
been asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.components import box_overlap, largest_boxes
from pellucid.metrics.families import ABOVE_ZERO, localisation
from pellucid.metrics.ties import last_equal, mid_ranks, rising, top_count, top_weights

NO_EVIDENCE = "the map has no positive value"


@localisation("pointing-game", source="Zhang et al. 2018, section 4.1, without its margin of 15 pixels")
def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Hit (1) when the map's maximum lies in the mask, else miss (0).

    Where several positions share the maximum, the share of them that lies in the mask: what drawing one at random
    gives on average. So a constant map scores the mask's share of the image, as a blind guess does.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.

    Returns:
        (B,) float64 in [0, 1].

    >>> maps = torch.tensor([[[0.0, 2.0]], [[1.0, 1.0]]])
    >>> pointing_game(maps, torch.tensor([[[False, True]], [[False, True]]]))
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    flat, marked = maps.flatten(1), masks.flatten(1)
    largest = flat == flat.amax(dim=1, keepdim=True)
    return _where_any((largest & marked).sum(dim=1).double() / largest.sum(dim=1), marked)


@localisation("energy-pointing", source="Wang et al. 2020 (Score-CAM), section 4.3", missing=NO_EVIDENCE)
def energy_pointing(maps: Tensor, masks: Tensor) -> Tensor:
    """Relevance mass: the share of the map's positive part that lies in the mask.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.

    Returns:
        (B,) float64 in [0, 1]; NaN for a map without a positive value, which has no evidence to place.

    >>> maps = torch.tensor([[[1.0, 3.0]], [[-1.0, 0.0]]])
    >>> energy_pointing(maps, torch.tensor([[[False, True]], [[False, True]]]))
    tensor([0.7500,    nan], dtype=torch.float64)
    """
    positive, marked = maps.flatten(1).double().clamp(min=0), masks.flatten(1)
    inside = torch.where(marked, positive, 0).sum(dim=1)
    return _where_any(inside / positive.sum(dim=1), marked)


@localisation(
    "attribution-localisation",
    source="Kohlbrenner et al. 2020, the inside-total relevance ratio weighted by size",
    range=ABOVE_ZERO,
    missing=NO_EVIDENCE,
)
def attribution_localisation(maps: Tensor, masks: Tensor) -> Tensor:
    """How many times as dense the map's positive part is in the mask as over the whole image.

    It is the relevance mass of "energy-pointing" over the mask's share of the image, so that a large mask is no
    easier than a small one: a blind map scores 1, and one wholly in the mask one over that share.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.

    Returns:
        (B,) float64, at least 0; NaN for a map without a positive value.

    >>> maps = torch.tensor([[[1.0, 3.0]], [[1.0, 1.0]]])
    >>> attribution_localisation(maps, torch.tensor([[[False, True]], [[False, True]]]))
    tensor([1.5000, 1.0000], dtype=torch.float64)
    """
    return energy_pointing(maps, masks) / masks.flatten(1).double().mean(dim=1)


@localisation("relevance-rank", source="Arras et al. 2022 (CLEVR-XAI), relevance rank accuracy")
def relevance_rank(maps: Tensor, masks: Tensor) -> Tensor:
    """Of as many largest positions as the mask has, the share that lies in the mask.

    Positions that tie for the last places count by the share of them that gets one.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.

    Returns:
        (B,) float64 in [0, 1].

    >>> maps = torch.tensor([[[3.0, 2.0, 1.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]]])
    >>> relevance_rank(maps, torch.tensor([[[True, False, True, False]]] * 2))
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    marked = masks.flatten(1)
    counts = marked.sum(dim=1)
    return (top_weights(maps, counts) * marked).sum(dim=1) / counts


@localisation("top-k-intersection", source="Theiner et al. 2021")
def top_k_intersection(maps: Tensor, masks: Tensor, *, k: float = 0.02) -> Tensor:
    """The share of the map's k largest positions that lies in the mask.

    A mask of fewer positions than k can't reach 1. Positions that tie for the last places count by their share.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.
        k: a share of the map's positions in (0, 1], or, as a whole number, a count of them. 0.02 is about 1000 of
            224 × 224, another common choice.

    Returns:
        (B,) float64 in [0, 1].

    Raises:
        InputError: a k that is neither.

    >>> maps = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    >>> top_k_intersection(maps, torch.tensor([[[True, False, True, False]]]), k=3)
    tensor([0.6667], dtype=torch.float64)
    """
    marked = masks.flatten(1)
    count = top_count(k, marked.shape[1])
    share = (top_weights(maps, count) * marked).sum(dim=1) / count
    return _where_any(share.clamp(max=1), marked)  # shares of ties may sum to a rounding more


@localisation("iou", source="Zhou et al. 2016 (CAM), section 3.2, on pixels; Jaccard 1912", missing=NO_EVIDENCE)
def iou(maps: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Intersection over union of the mask and the positions whose value is at least a share of the map's maximum.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.
        threshold: that share, in (0, 1]; of the maximum as it is, not of the range from the least value.

    Returns:
        (B,) float64 in [0, 1]; NaN for a map without a positive value.

    Raises:
        InputError: a threshold outside (0, 1].

    >>> maps = torch.tensor([[[4.0, 2.0, 1.0, 0.0]]])
    >>> iou(maps, torch.tensor([[[True, False, True, False]]]))
    tensor([0.3333], dtype=torch.float64)
    """
    found, marked = _above(maps, threshold).flatten(1), masks.flatten(1)
    values = (found & marked).sum(dim=1).double() / (found | marked).sum(dim=1)
    return _where_any(_where_any(values, found), marked)


@localisation("auroc", source="Hanley & McNeil 1982, with pixels as cases", missing="the mask covers the whole image")
def auroc(maps: Tensor, masks: Tensor) -> Tensor:
    """Area under the ROC curve, pixels being the cases: a pixel in the mask has the larger value than one outside.

    The share of such pairs, equal values counting a half; by mid-ranks (Mann-Whitney). 0.5 is chance, and a map that
    ranks the mask last has 0. Where the finding is small, even a large area leaves most of the top outside: see
    `auprc`.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.

    Returns:
        (B,) float64 in [0, 1]; NaN for a mask of the whole image.

    >>> maps = torch.tensor([[[3.0, 2.0, 2.0, 0.0]]])
    >>> auroc(maps, torch.tensor([[[True, False, True, False]]]))
    tensor([0.8750], dtype=torch.float64)
    """
    marked = masks.flatten(1)
    inside = marked.sum(dim=1).double()
    outside = marked.shape[1] - inside
    wins = (mid_ranks(maps) * marked).sum(dim=1) - inside * (inside + 1) / 2
    return wins / (inside * outside)


@localisation("auprc", source="Davis & Goadrich 2006, as average precision, with pixels as cases")
def auprc(maps: Tensor, masks: Tensor) -> Tensor:
    """Area under the precision-recall curve, pixels being the cases, as average precision.

    The precision at each threshold weighed by the recall that it adds, without interpolation; equal values come
    together. A constant map has the mask's share of the image, which is chance.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.

    Returns:
        (B,) float64 in [0, 1].

    >>> maps = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    >>> auprc(maps, torch.tensor([[[True, False, True, False]]]))
    tensor([0.8333], dtype=torch.float64)
    """
    ordered, order = rising(-maps.flatten(1))
    marked = masks.flatten(1).gather(1, order)
    end = last_equal(ordered)
    precision = marked.cumsum(dim=1).gather(1, end).double() / (end + 1)
    return (precision * marked).sum(dim=1) / marked.sum(dim=1)


@localisation(
    "hit-rate",
    source="Choe et al. 2020 (MaxBoxAcc), at one threshold; Zhou et al. 2016 (CAM), section 3.2",
    needs=("maps", "boxes"),
    missing=NO_EVIDENCE,
)
def hit_rate(maps: Tensor, boxes: Sequence[Tensor], *, threshold: float = 0.2, overlap: float = 0.5) -> Tensor:
    """Hit (1) when the box round the map's largest part overlaps one of the finding's boxes enough, else miss (0).

    That part is the largest connected component (through corners too) of the positions whose value is at least
    `threshold` times the map's maximum. Where several are largest, the share of them that hits. Choe et al. take
    the threshold at which a method does best over a set; here it is given.

    Arguments:
        maps: (B, *S), finite.
        boxes: for each image (n, 2, axes), the first corner and the one past the last of each box, in pixels.
        threshold: share of the map's maximum in (0, 1]; 0.2 in Zhou et al.
        overlap: intersection over union from which on it is a hit, in (0, 1].

    Returns:
        (B,) float64 in [0, 1]; NaN for a map without a positive value, and where there is no box.

    Raises:
        InputError: a threshold or an overlap outside (0, 1].

    >>> maps = torch.tensor([[[0.0, 1.0, 0.9, 0.0, 0.3]]])
    >>> hit_rate(maps, [torch.tensor([[[0, 1], [1, 4]]])])
    tensor([1.], dtype=torch.float64)
    """
    if not 0 < overlap <= 1:
        raise expected("overlap", "an intersection over union in (0, 1]", overlap)
    values = [
        float((box_overlap(found, wanted.cpu()).amax(dim=1) >= overlap).double().mean()) if len(wanted) else math.nan
        for found, wanted in zip(largest_boxes(_above(maps, threshold)), boxes, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64, device=maps.device)


@localisation(
    "outside-anatomy",
    source="one minus Wang et al. 2020, section 4.3, with the organ's mask",
    higher_is_better=False,
    needs=("maps", "anatomy"),
    missing=NO_EVIDENCE,
)
def outside_anatomy(maps: Tensor, anatomy: Tensor) -> Tensor:
    """The share of the map's positive part that lies outside the organ, where no evidence of the finding can be.

    Arguments:
        maps: (B, *S), finite.
        anatomy: (B, *S) bool, True inside the organ.

    Returns:
        (B,) float64 in [0, 1]; NaN for a map without a positive value.

    >>> maps = torch.tensor([[[1.0, 3.0, -2.0]]])
    >>> outside_anatomy(maps, torch.tensor([[[False, True, False]]]))
    tensor([0.2500], dtype=torch.float64)
    """
    positive, marked = maps.flatten(1).double().clamp(min=0), anatomy.flatten(1)
    outside = torch.where(marked, 0, positive).sum(dim=1)
    return _where_any(outside / positive.sum(dim=1), marked)


@localisation(
    "peak-distance",
    source="the distance that Zhang et al. 2018 cut at a margin of 15 pixels",
    higher_is_better=False,
    range=ABOVE_ZERO,
    needs=("maps", "masks", "spacing"),
    missing="no spacing was given, so there are no mm (`peak-distance` with unit='pixels' counts pixels)",
)
def peak_distance(
    maps: Tensor, masks: Tensor, spacing: Tensor | None, *, unit: Literal["mm", "pixels"] = "mm"
) -> Tensor:
    """How far the map's maximum is from the finding: from its centre to that of the mask's nearest pixel.

    0 where it lies in the mask; the mean over positions that share the maximum.

    Arguments:
        maps: (B, *S), finite.
        masks: (B, *S) bool.
        spacing: (B, axes) mm from one pixel to the next along each axis, or None where it isn't known.
        unit: "mm"; or "pixels", which asks for no spacing and takes all axes alike.

    Returns:
        (B,) float64, 0 or more, in that unit; NaN for mm without a spacing.

    Raises:
        InputError: another unit.

    >>> maps, masks = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]]), torch.tensor([[[False, False, False, True]]])
    >>> peak_distance(maps, masks, torch.tensor([[1.0, 0.5]])), peak_distance(maps, masks, None, unit="pixels")
    (tensor([1.], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """
    if unit not in ("mm", "pixels"):
        raise expected("unit", "'mm' or 'pixels'", repr(unit))
    axes = maps.ndim - 1
    steps = torch.ones(len(maps), axes) if unit == "pixels" else spacing
    values = torch.full((len(maps),), math.nan, dtype=torch.float64)
    if steps is not None:
        for row, (saliency, mask, step) in enumerate(zip(maps.cpu(), masks.cpu(), steps.cpu(), strict=True)):
            if bool(mask.any()):
                tops, marked = ((each.nonzero() * step).numpy() for each in (saliency == saliency.max(), mask))
                values[row] = float(np.mean(cKDTree(marked).query(tops)[0]))
    return values.to(maps.device)


def _above(maps: Tensor, threshold: float) -> Tensor:
    """Positions (B, *S) whose value is at least a share of their map's maximum; none in a map without evidence."""
    if not 0 < threshold <= 1:
        raise expected("threshold", "a share of the map's maximum in (0, 1]", threshold)
    flat = maps.flatten(1).double()
    least = threshold * flat.amax(dim=1, keepdim=True)
    return ((flat >= least) & (least > 0)).view(maps.shape)


def _where_any(values: Tensor, marked: Tensor) -> Tensor:
    """Values (B,), NaN where a mask (B, N) is empty."""
    return torch.where(marked.any(dim=1), values, math.nan)
