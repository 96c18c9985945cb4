"""Whether a map points at what it should: against a mask of the finding."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.metrics.families import localisation


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
    flat = maps.flatten(1)
    largest = flat == flat.amax(dim=1, keepdim=True)
    return (largest & masks.flatten(1)).sum(dim=1).double() / largest.sum(dim=1)


@localisation(
    "energy-pointing", source="Wang et al. 2020 (Score-CAM), section 4.3", missing="the map has no positive value"
)
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
    positive = maps.flatten(1).double().clamp(min=0)
    inside = torch.where(masks.flatten(1), positive, 0).sum(dim=1)
    return inside / positive.sum(dim=1)
