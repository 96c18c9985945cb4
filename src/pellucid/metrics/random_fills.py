"""Fills that draw anew: what an expectation over replacements of the removed pixels is taken over."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.metrics.draws import set_generator
from pellucid.metrics.fills import Fill, fill, filling
from pellucid.registry import Choice

_RESAMPLED, _NOISY = range(100, 102)  # kinds of draws
NOISE = 0.2


@fill("resampled", source="Nguyen & Martinez 2020, section 2.3, by the image's own pixels", needs=("seeds",))
def resampled(images: Tensor, removed: Tensor, seeds: Tensor, *, draw: int = 0) -> Tensor:
    """Each removed pixel takes the values, all channels, of a pixel drawn at random from the same image.

    So the replacement is distributed as the image's pixels are. `draw` numbers the drawing; a pixel gets the same in
    it whatever else is removed.
    """
    filled = images.clone(memory_format=torch.contiguous_format)  # so that what is flattened below is a view
    positions = removed[0].numel()
    sources = {
        seed: torch.from_numpy(set_generator(seed, _RESAMPLED, draw).integers(positions, size=positions))
        for seed in set(seeds.tolist())
    }
    for row, seed in enumerate(seeds.tolist()):
        places = removed[row].flatten().nonzero().flatten()
        source = sources[seed].to(places.device)[places]
        filled[row].flatten(1)[:, places] = images[row].flatten(1)[:, source]
    return filled


@fill("noisy-baseline", source="Yeh et al. 2019, section 2.2", needs=("seeds",))
def noisy_baseline(
    images: Tensor, removed: Tensor, seeds: Tensor, *, deviation: float = NOISE, draw: int = 0
) -> Tensor:
    """Normal noise around zero, of standard deviation `deviation` in units of the normalised image.

    `draw` numbers the drawing; a pixel gets the same in it whatever else is removed.
    """
    filled = images.clone()
    for seed in set(seeds.tolist()):
        noise = noise_of(seed, draw, images.shape[1:]).to(images) * deviation
        rows = (seeds == seed).nonzero().flatten().to(images.device)
        filled[rows] = torch.where(removed[rows].unsqueeze(1), noise, images[rows])
    return filled


def resampling(draw: int) -> Choice[Fill]:
    """The fill "resampled" in one drawing."""
    return filling("resampled", draw=draw)


def noise_everywhere(draw: int) -> Choice[Fill]:
    """The fill "noisy-baseline" in one drawing."""
    return filling("noisy-baseline", draw=draw)


def noise_of(seed: int, draw: int, shape: torch.Size) -> Tensor:
    """Standard normal values, float32, of the shape (C, *S) of one image."""
    return torch.from_numpy(set_generator(seed, _NOISY, draw).standard_normal(tuple(shape), dtype="float32"))
