"""Controls: maps that know nothing of the model, beside which every method is read.

Each takes `images` (B, C, *S) and `seeds` (B,), one per image, and gives maps (B, *S). Only `random` draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.attribution.families import control


@control("random", source="Adebayo et al. 2018, a map without information")
def random(images: Tensor, seeds: Tensor) -> Tensor:
    """Uniform noise in [0, 1), independent for every pixel; an image's own seed alone decides its draws.

    >>> maps = random(torch.zeros(2, 3, 4, 4), torch.tensor([5, 5]))
    >>> bool((maps[0] == maps[1]).all()), maps.shape
    (True, torch.Size([2, 4, 4]))
    """
    shape = images.shape[2:]
    draws = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    return torch.stack(draws).to(images)


@control("center-gaussian", source="the bias of photographs towards their centre")
def center_gaussian(images: Tensor, seeds: Tensor, *, width: float = 0.25) -> Tensor:
    """A Gaussian around the centre with peak 1, whose standard deviation is `width` times each axis's length.

    >>> center_gaussian(torch.zeros(1, 1, 2, 2), torch.tensor([0]), width=0.5)  # half a pixel off on both axes
    tensor([[[0.7788, 0.7788],
             [0.7788, 0.7788]]])
    """
    bell = torch.ones((), dtype=images.dtype, device=images.device)
    for length in images.shape[2:]:
        offsets = torch.arange(length, dtype=images.dtype, device=images.device) - (length - 1) / 2
        bell = bell.unsqueeze(-1) * torch.exp(-(offsets**2) / (2 * (width * length) ** 2))
    return bell.expand(images.shape[0], *bell.shape).clone()


@control("sobel", source="Adebayo et al. 2018, an edge detector; Sobel & Feldman 1968")
def sobel(images: Tensor, seeds: Tensor) -> Tensor:
    """Strength of the edges: Euclidean norm of the Sobel derivatives over axes and channels, borders replicated.

    >>> step = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]] * 3]])
    >>> sobel(step, torch.tensor([0]))[0, 1]
    tensor([0., 4., 4., 0.])
    """
    axes = range(2, images.ndim)
    energy = torch.zeros_like(images)
    for across in axes:
        derivative = images
        for axis in axes:
            before, after = _neighbours(derivative, axis)
            derivative = after - before if axis == across else before + 2 * derivative + after
        energy += derivative**2
    return energy.sum(dim=1).sqrt()


@control("image", source="Adebayo et al. 2018, the image itself")
def image(images: Tensor, seeds: Tensor) -> Tensor:
    """Brightness above the image's darkest place: the mean over channels, less its least value.

    So the background of a scan is 0, and which places rank first doesn't depend on how the image was normalised, as
    long as its channels were normalised alike. The absolute value would: zero is then a mean grey, and black ranks
    with white. A flat image gives zeros.

    >>> image(torch.tensor([[[[-1.0, 0.0, 2.0]], [[-1.0, 0.0, 0.0]]]]), torch.tensor([0]))
    tensor([[[0., 1., 2.]]])
    """
    brightness = images.mean(dim=1)
    return brightness - brightness.amin(dim=tuple(range(1, brightness.ndim)), keepdim=True)


def _neighbours(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Values one step before and after along an axis, the border repeated."""
    length = values.shape[axis]
    steps = torch.arange(length, device=values.device)
    before = values.index_select(axis, (steps - 1).clamp(min=0))
    after = values.index_select(axis, (steps + 1).clamp(max=length - 1))
    return before, after
