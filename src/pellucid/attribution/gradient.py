"""Gradient methods: what the score's derivatives with respect to the image say, plain, averaged or along a path.

Throughout, `gradient_of(rows, sample)` gives gradients (M, T, C, *S) of the T explained scores at rows that derive from
the images `sample`; `images` is (B, C, *S), `seeds` (B,) one per image. Maps are (B, T, *S), or (B, T, C, *S) with
`channels="keep"`. Averages are streamed: no more than `gradient_of.rows` images are in flight, whatever the draws.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pellucid.attribution.asking import Gradients, generator_of, noisy
from pellucid.attribution.baselines import baseline_of
from pellucid.attribution.channels import Channels, over_channels
from pellucid.attribution.families import gradient
from pellucid.errors import expected


@gradient("saliency", source="Simonyan et al. 2014, section 3.1")
def saliency(gradient_of: Gradients, images: Tensor, seeds: Tensor, *, channels: Channels = "largest") -> Tensor:
    """Absolute gradient of the score, the largest over channels."""
    return over_channels(gradient_of(images, _everyone(images)).abs(), channels)


@gradient("input-x-gradient", source="Shrikumar et al. 2016, gradient times input")
def input_x_gradient(gradient_of: Gradients, images: Tensor, seeds: Tensor, *, channels: Channels = "sum") -> Tensor:
    """The image times the gradient: each value's share of the score, were the network linear."""
    return over_channels(images.unsqueeze(1) * gradient_of(images, _everyone(images)), channels)


@gradient("smooth-grad", source="Smilkov et al. 2017, section 3")
def smooth_grad(
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 25,
    noise: float = 0.15,
    channels: Channels = "largest",
) -> Tensor:
    """Mean gradient over copies of the image with Gaussian noise of `noise` times the image's range."""
    return over_channels(_noisy_mean(gradient_of, images, seeds, samples, noise, lambda slopes: slopes), channels)


@gradient("smooth-grad-squared", source="Hooker et al. 2019, SmoothGrad-Squared")
def smooth_grad_squared(
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 25,
    noise: float = 0.15,
    channels: Channels = "largest",
) -> Tensor:
    """Mean squared gradient over copies of the image with Gaussian noise."""
    return over_channels(_noisy_mean(gradient_of, images, seeds, samples, noise, torch.square), channels)


@gradient("var-grad", source="Adebayo et al. 2018, VarGrad; Seo et al. 2018")
def var_grad(
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 25,
    noise: float = 0.15,
    channels: Channels = "largest",
) -> Tensor:
    """Variance of the gradient over copies of the image with Gaussian noise, divided by their number."""
    mean, square = _noisy_mean(gradient_of, images, seeds, samples, noise, _moments).unbind(dim=1)
    return over_channels((square - mean.square()).clamp(min=0).to(images), channels)


@gradient("integrated-gradients", source="Sundararajan et al. 2017, eq. 1; Gauss-Legendre nodes")
def integrated_gradients(
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    steps: int = 50,
    baseline: float | Tensor = 0.0,
    channels: Channels = "sum",
) -> Tensor:
    """Gradients averaged along the straight line from a baseline to the image, times their difference.

    Summed over pixels and channels the map is score(image) - score(baseline), up to the error of `steps` nodes.
    `baseline` is a value of the normalised image, or a tensor that broadcasts to one image (C, *S).
    """
    _at_least_one("steps", steps)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    places, shares = torch.from_numpy((nodes + 1) / 2).to(images), torch.from_numpy(weights / 2).to(images)
    start = baseline_of(baseline, images)
    away = images - start

    def rows(sample: Tensor, draw: Tensor) -> Tensor:
        return start + _per_row(places[draw], images) * away[sample]

    mean = _streamed(gradient_of, images, steps, rows, lambda slopes, draw: _per_row(shares[draw], slopes) * slopes)
    return over_channels(away.unsqueeze(1) * mean, channels)


@gradient("expected-gradients", source="Erion et al. 2021, eq. 3; GradientSHAP of Lundberg & Lee 2017")
def expected_gradients(
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 50,
    background: float | Tensor = 0.0,
    channels: Channels = "sum",
) -> Tensor:
    """Integrated gradients averaged over baselines drawn from a background, each at one random place of its line.

    `background` is a value of the normalised image, or images (N, C, *S) to draw from.
    """
    _at_least_one("samples", samples)
    pool = background if isinstance(background, Tensor) and background.ndim == images.ndim else None
    pool = (baseline_of(background, images).unsqueeze(0) if pool is None else pool).to(images)
    if not len(pool) or pool.shape[1:] != images.shape[1:]:
        raise expected("background", f"a value, or images (N, {_shape(images)})", f"shape {tuple(pool.shape)}")
    away: list[Tensor] = []  # of the rows in flight

    def rows(sample: Tensor, draw: Tensor) -> Tensor:
        drawn = [
            (torch.randint(len(pool), (), generator=source), torch.rand((), generator=source))
            for source in (generator_of(int(seeds[i]), int(k)) for i, k in zip(sample, draw, strict=True))
        ]
        start = pool[torch.stack([which for which, _ in drawn]).to(pool.device)]
        away[:] = [images[sample] - start]
        return start + _per_row(torch.stack([place for _, place in drawn]).to(images), images) * away[0]

    mean = _streamed(gradient_of, images, samples, rows, lambda slopes, draw: away[0].unsqueeze(1) * slopes / samples)
    return over_channels(mean, channels)


def _moments(slopes: Tensor) -> Tensor:
    """Gradients and their squares, stacked behind the first axis."""
    wide = slopes if slopes.device.type == "mps" else slopes.double()  # the variance is a difference of them
    return torch.stack([wide, wide.square()], dim=1)


def _noisy_mean(
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    samples: int,
    noise: float,
    of: Callable[[Tensor], Tensor],
) -> Tensor:
    """Mean of what `of` makes of the gradients (M, T, C, *S) at noisy copies of the images."""
    _at_least_one("samples", samples)
    if noise < 0:
        raise expected("noise", "a share of the image's range, at least 0", noise)

    def rows(sample: Tensor, draw: Tensor) -> Tensor:
        sources = (generator_of(int(seeds[i]), int(k)) for i, k in zip(sample, draw, strict=True))
        return noisy(images[sample], noise, sources)

    return _streamed(gradient_of, images, samples, rows, lambda slopes, draw: of(slopes)).div_(samples)


def _streamed(
    gradient_of: Gradients,
    images: Tensor,
    draws: int,
    rows: Callable[[Tensor, Tensor], Tensor],
    weighed: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Sum over an image's draws of `weighed(gradients at rows(sample, draw), draw)`, few rows at a time."""
    total: Tensor | None = None
    for sample, draw in gradient_of.draws([draws] * len(images)):
        here = sample.to(images.device)
        part = weighed(gradient_of(rows(sample, draw), here), draw)
        if total is None:
            total = part.new_zeros((len(images), *part.shape[1:]))
        total.index_add_(0, here, part)
    assert total is not None
    return total


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    """Values (M,) that broadcast over `like` (M, ...)."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _everyone(images: Tensor) -> Tensor:
    return torch.arange(len(images), device=images.device)


def _at_least_one(argument: str, value: int) -> None:
    if value < 1:
        raise expected(argument, "at least 1", value)


def _shape(images: Tensor) -> str:
    return ", ".join(map(str, images.shape[1:]))
