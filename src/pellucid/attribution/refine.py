"""Maps of several layers in one: fine where early layers are, and only where the last one sees evidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.attribution.cam import grad_cam_plus_plus
from pellucid.attribution.families import layered_cam
from pellucid.attribution.resize import resize_maps

Layers = int | tuple[str, ...]


@layered_cam("refine-cam", source="Domeniconi et al. 2026, RefineCAM, the product over layers")
def refine_cam(
    activations: Sequence[Tensor], gradients: Sequence[Tensor], size: Sequence[int], *, layers: Layers = 4
) -> Tensor:
    """Product of the layers' Grad-CAM++, each scaled from its least and largest value to [0, 1] and enlarged.

    `layers` are how many there are at most, the explained one and the last before it at each finer scale, or the names
    of those that go with it. A layer whose map is the same everywhere sees nothing, so that the product is zero.

    >>> coarse, fine = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[3.0, 1.0, 2.0, 3.0]]]])
    >>> refine_cam([fine, coarse], [torch.ones_like(fine), torch.ones_like(coarse)], (1, 4))
    tensor([[[0.0000, 0.0000, 0.3750, 1.0000]]])
    """
    product: Tensor | None = None
    for maps, slopes in zip(activations, gradients, strict=True):
        enlarged = resize_maps(_scaled(grad_cam_plus_plus(maps, slopes)), size)
        product = enlarged if product is None else product * enlarged
    assert product is not None
    return product


def _scaled(maps: Tensor) -> Tensor:
    """Maps (B, *s) from their least and largest value to [0, 1], zero where these differ by rounding alone."""
    axes = tuple(range(1, maps.ndim))
    least, most = maps.amin(dim=axes, keepdim=True), maps.amax(dim=axes, keepdim=True)
    spread = most - least
    uneven = spread > 16 * torch.finfo(maps.dtype).eps * most
    return torch.where(uneven, (maps - least) / torch.where(uneven, spread, 1), 0)
