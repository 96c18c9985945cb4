"""How alike the maps of two methods are, and a table of it over all pairs of methods."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.attribution.explanation import Explanation
from pellucid.errors import expected
from pellucid.metrics.families import CORRELATION, METRICS, SHARE, Metric, agreement
from pellucid.metrics.ties import is_constant, mid_ranks, top_count, top_weights
from pellucid.registry import Choice

if TYPE_CHECKING:
    import pandas as pd

CONSTANT = "one of the maps is the same everywhere"
_WINDOW, _WIDTH = 5, 1.5  # pixels to each side, and standard deviation, of the window of Wang et al. 2004
_C1, _C2 = 0.01**2, 0.03**2  # their constants, for values in [0, 1]


@agreement("rank-correlation", source="Spearman 1904; Adebayo et al. 2018", range=CORRELATION, missing=CONSTANT)
def rank_correlation(maps: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of two maps over their positions, equal values sharing the mean of their ranks.

    Arguments:
        maps, other: (B, *S), finite.

    Returns:
        (B,) float64 in [−1, 1]; NaN where a map is the same everywhere.

    >>> rank_correlation(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.1, 0.2, 0.3]]))
    tensor([1.], dtype=torch.float64)
    """
    one, two = (ranks - ranks.mean(dim=1, keepdim=True) for ranks in (mid_ranks(maps), mid_ranks(other)))
    spread = (one.square().sum(dim=1) * two.square().sum(dim=1)).sqrt()
    return ((one * two).sum(dim=1) / spread).clamp(-1, 1)


@agreement("ssim", source="Wang et al. 2004, eq. 13; Adebayo et al. 2018", range=CORRELATION, missing=CONSTANT)
def ssim(maps: Tensor, other: Tensor) -> Tensor:
    """Mean structural similarity of two maps, each scaled from its least and largest value to [0, 1].

    The window is the Gaussian of Wang et al.: standard deviation 1.5, 5 positions to each side, fewer along an axis
    shorter than 11; it stays within the map.

    Arguments:
        maps, other: (B, *S), finite.

    Returns:
        (B,) float64 in [−1, 1]; NaN where a map is the same everywhere.

    >>> one = torch.rand(1, 16, 16)
    >>> round(float(ssim(one, 3 * one + 1)), 6)
    1.0
    """
    one, two = _scaled(maps), _scaled(other)
    moments = torch.stack([one, two, one * one, two * two, one * two])
    for axis in range(2, moments.ndim):
        moments = _blurred(moments, axis)
    mean, mean_two, square, square_two, product = moments
    variances = square - mean**2 + square_two - mean_two**2
    covariance = product - mean * mean_two
    similar = (2 * mean * mean_two + _C1) * (2 * covariance + _C2)
    values: Tensor = similar / ((mean**2 + mean_two**2 + _C1) * (variances + _C2))
    return values.flatten(1).mean(dim=1).clamp(-1, 1)


@agreement("top-k-overlap", source="Jaccard 1912, of the largest values", range=SHARE, missing=CONSTANT)
def top_k_overlap(maps: Tensor, other: Tensor, *, k: float = 0.1) -> Tensor:
    """Intersection over union of the k largest positions of two maps.

    Positions that tie for the last places belong by the share of them that gets one, and the overlap is that of fuzzy
    sets: the sum of the lesser of both shares over that of the greater.

    Arguments:
        maps, other: (B, *S), finite.
        k: a share of the positions in (0, 1], or, as a whole number, a count of them.

    Returns:
        (B,) float64 in [0, 1]; NaN where a map is the same everywhere.

    Raises:
        InputError: a k that is neither.

    >>> top_k_overlap(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[4.0, 1.0, 2.0, 3.0]]), k=2)
    tensor([0.3333], dtype=torch.float64)
    """
    count = top_count(k, maps[0].numel())
    one, two = top_weights(maps, count), top_weights(other, count)
    values = torch.minimum(one, two).sum(dim=1) / torch.maximum(one, two).sum(dim=1)
    return torch.where(is_constant(maps) | is_constant(other), math.nan, values)


def agreement_table(
    explanation: Explanation,
    metrics: Sequence[str | Choice[Metric]] = ("rank-correlation", "ssim", "top-k-overlap"),
) -> pd.DataFrame:
    """How alike the maps of each pair of methods are, image by image.

    Arguments:
        explanation: maps (B, *S) by two methods or more.
        metrics: agreement metrics, by name or with options from `pellucid.metric`.

    Returns:
        A row per image, pair and metric: sample (the image's place), method and other (each pair once, in the order of
        the explanation), metric, value; NaN where a map isn't finite or is the same everywhere.

    Raises:
        InputError: fewer than two methods, maps of several classes, or a metric of another family.

    >>> from pellucid.attribution import explain
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> methods = ["saliency", "input-x-gradient", "random"]
    >>> agreement_table(explain(model, torch.rand(2, 1, 8, 8), methods=methods), ["rank-correlation"]).shape
    (6, 5)
    """
    import pandas as pd

    choices = [METRICS.resolve(each) for each in metrics]
    wrong = [choice.label for choice in choices if choice.entry.family != "agreement"]
    if wrong or not choices:
        names = ", ".join(METRICS.names("agreement"))
        raise expected("metrics", f"metrics of agreement ({names})", ", ".join(wrong) or "none")
    if len(explanation.maps) < 2:
        raise expected("explanation", "maps by two methods or more", len(explanation.maps))
    if explanation.target.ndim != 1:
        raise expected("explanation", "maps of one class", "maps of several", do="Compare one class's maps at a time.")
    parts = []
    for (method, maps), (other, theirs) in itertools.combinations(explanation.maps.items(), 2):
        finite = (maps.isfinite() & theirs.isfinite()).flatten(1).all(dim=1)
        for choice in choices:
            values = torch.full((len(maps),), math.nan, dtype=torch.float64)
            if bool(finite.any()):
                values[finite] = choice.entry.function(maps[finite], theirs[finite], **choice.options).cpu()
            row = {"sample": range(len(maps)), "method": method, "other": other, "metric": choice.label}
            parts.append(pd.DataFrame({**row, "value": values.numpy()}))
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("sample", kind="stable", ignore_index=True)


def _scaled(maps: Tensor) -> Tensor:
    """Each map from its least and largest value to [0, 1]; NaN where they are the same."""
    flat = maps.flatten(1).double()
    least, largest = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    return ((flat - least) / (largest - least)).view(maps.shape)


def _blurred(values: Tensor, axis: int) -> Tensor:
    """Means under the window along one axis, where it lies within the values."""
    length = values.shape[axis]
    reach = min(_WINDOW, (length - 1) // 2)
    weights = [math.exp(-(offset**2) / (2 * _WIDTH**2)) for offset in range(-reach, reach + 1)]
    means = torch.zeros_like(values.narrow(axis, 0, length - 2 * reach))
    for start, weight in enumerate(weights):  # faster than a convolution in float64
        means.add_(values.narrow(axis, start, means.shape[axis]), alpha=weight / sum(weights))
    return means
