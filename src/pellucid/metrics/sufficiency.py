"""Sufficiency: do images that are explained alike belong to one class?"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.families import SHARE, faithfulness

Distance = Literal["euclidean", "standardised"]
_POSITIONS = 1 << 14  # of all maps, in float64 at once


@faithfulness(
    "sufficiency",
    source="Dasgupta et al. 2022, definition 3",
    higher_is_better=True,
    range=SHARE,
    missing="no other image has a map like it",
    needs=("all maps", "all classes"),
)
def sufficiency(maps: Tensor, classes: Tensor, *, threshold: float = 0.6, distance: Distance = "euclidean") -> Tensor:
    """Of the other images whose map is like an image's own, the share that is predicted to be of its class.

    Two maps are alike where their distance is at most `threshold`: Euclidean between the maps scaled to length 1, so
    from 0 through 1.41 (nothing in common) to 2, and 0.6 for maps whose cosine is 0.82. Between a map of zeros and any
    other it is 1. "standardised" divides each position by its standard deviation over the images, leaves positions
    out that don't vary, and divides by the largest distance, as Quantus does; it says less the fewer images there are.

    Arguments:
        maps: (B, *S) of all images, finite.
        classes: (B,) the class that is predicted of each.
        threshold: the largest distance of maps that are alike.
        distance: "euclidean" or "standardised".

    Returns:
        (B,) float64 in [0, 1]; NaN where no other map is like an image's own.

    >>> maps = torch.tensor([[[1.0, 0.0]], [[2.0, 0.1]], [[1.0, 0.1]], [[0.0, 1.0]]])
    >>> sufficiency(maps, torch.tensor([0, 0, 1, 1]))
    tensor([0.5000, 0.5000, 0.0000,    nan], dtype=torch.float64)
    """
    if maps.ndim < 2 or classes.shape != maps.shape[:1]:
        raise expected("classes", f"a class for each of {len(maps)} maps", f"shape {tuple(classes.shape)}")
    if not threshold >= 0:
        raise expected("threshold", "a distance of 0 or more", threshold)
    if distance not in get_args(Distance):
        raise expected("distance", " or ".join(map(repr, get_args(Distance))), repr(distance))
    apart = _distances(maps.flatten(1), standardised=distance == "standardised")
    alike = (apart <= threshold) & ~torch.eye(len(maps), dtype=torch.bool, device=maps.device)
    same = classes.to(maps.device) == classes.to(maps.device).unsqueeze(1)
    return (alike & same).sum(dim=1).double() / alike.sum(dim=1)


def _distances(flat: Tensor, *, standardised: bool) -> Tensor:
    """Distances (B, B) of the rows of (B, N), a part of the positions at a time."""
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True, dtype=torch.float64)
    squares = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat.device)
    for part in flat.split(_POSITIONS, dim=1):
        values = part.double()
        scale = values.std(dim=0, correction=0) if standardised else length
        values = values / torch.where(scale > 0, scale, torch.inf)
        squares += torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    apart = squares.sqrt()
    return apart / apart.max().clamp(min=torch.finfo(apart.dtype).tiny) if standardised else apart
