"""What takes the place of removed pixels: each a pure function, and the line that declares it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.metrics.draws import noise_field
from pellucid.metrics.imputation import linear_imputation
from pellucid.registry import Choice, Registry

Fill = Callable[..., Tensor]

FILLS: Registry[Fill] = Registry("fill")


def fill(name: str, *, source: str, needs: tuple[str, ...] = ()) -> Callable[[Fill], Fill]:
    """Declare a fill: `f(images (M, C, *S), removed (M, *S)) -> filled (M, C, *S)`, known pixels unchanged.

    It is called with what `needs` names besides, in that order: "seeds", one per row (M,), the same for all rows of an
    image; "bank", images (K, C, *S) that aren't among those explained.
    """
    return FILLS.register(name, family="fill", source=source, needs=needs)


def filling(name: str, **options: object) -> Choice[Fill]:
    """A fill with options, to pass as a metric's `fill`; a bare name means its defaults.

    >>> filling("linear", noise=0.0).label
    'linear[noise=0.0]'
    """
    return FILLS.choose(name, **options)


@fill("linear", source="Rong et al. 2022 (ROAD), section 4.2 and appendix", needs=("seeds",))
def linear(images: Tensor, removed: Tensor, seeds: Tensor, *, noise: float = 0.01) -> Tensor:
    """Noisy linear imputation: the weighted mean of a pixel's neighbours, known and removed alike.

    `noise` is the standard deviation of the normal noise on imputed pixels, in units of the normalised image. An
    image's noise is drawn once, so that a pixel gets the same whatever else is removed.
    """
    filled = linear_imputation(images, removed)
    if noise:
        fields = {seed: noise_field(seed, images.shape[1:]).to(filled) * noise for seed in set(seeds.tolist())}
        for row, mask, seed in zip(filled, removed, seeds.tolist(), strict=True):
            row += fields[seed] * mask
    return filled


@fill("zero", source="Samek et al. 2017, section III")
def zero(images: Tensor, removed: Tensor) -> Tensor:
    """Zero, which after normalisation is the mean over the data set, as a rule mid-grey."""
    return torch.where(removed.unsqueeze(1), 0, images)
