"""Extremal masks: the smooth part of an image, of a given area, that keeps its score the highest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pellucid.attribution.asking import Gradients
from pellucid.attribution.baselines import baseline_of
from pellucid.attribution.families import METHODS
from pellucid.attribution.hiding import hidden, wide
from pellucid.errors import expected

RATE, MOMENTUM = 0.01, 0.9  # of the descent
GROWTH = 1.0035  # of the area's weight, at every step
TEMPERATURE = 1 / 20  # of the smooth maximum
WIDTH = 0.09  # of a cell's kernel, as a share of the longest axis: 20 of 224 pixels
ROUNDING = 1e-5  # below which values of a mask are equal
CHUNK = 2**24  # distances held at once


@METHODS.register(
    "extremal-masks",
    family="perturbation",
    source="Fong et al. 2019, section 3, preservation game",
    needs=("image gradients",),
)
def extremal_masks(
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2),
    steps: int = 800,
    cells: int = 12,
    weight: float = 300.0,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """Mean over several areas of the smooth mask of that area which keeps the score the highest, in [0, 1].

    Outside the mask stands the `baseline`, where the paper blurs. A mask has `cells` along each axis. `weight` holds a
    mask to its area, against the score; it grows by 0.35 % at each of `steps`. Every explained class of an image has
    masks of its own, each of which asks for `steps` gradients.

    Raises:
        InputError: no areas, areas outside (0, 1), or no steps or cells.
    """
    if not areas or not all(0 < area < 1 for area in areas):
        raise expected("areas", "one or more shares of the image, between 0 and 1", areas)
    for name, value in (("steps", steps), ("cells", cells)):
        if value < 1:
            raise expected(name, "at least 1", value)
    if weight < 0:
        raise expected("weight", "at least 0", weight)
    start = baseline_of(baseline, images)
    classes = gradient_of(images[:1], torch.zeros(1, dtype=torch.long, device=images.device)).shape[1]
    total = torch.zeros(len(images), classes, *images.shape[2:], dtype=wide(images), device=images.device)
    wanted = torch.tensor(list(areas)).to(total)
    problems = torch.cartesian_prod(torch.arange(len(images)), torch.arange(classes), torch.arange(len(wanted)))
    for sample, of, area in (part.to(images.device).unbind(dim=1) for part in problems.split(gradient_of.rows)):
        aim = _Aim(images[sample], sample, of, wanted[area], start)
        masks = _descend(gradient_of, aim, steps, cells, weight)
        total.index_put_((sample, of), masks / len(wanted), accumulate=True)
    return total


@dataclass(frozen=True)
class _Aim:
    """The masks that are sought at once, M of them."""

    images: Tensor  # (M, C, *S)
    sample: Tensor  # (M,), the image each mask is for
    score: Tensor  # (M,), the place of the score it keeps
    areas: Tensor  # (M,), as shares
    baseline: Tensor  # (C, *S)


def _descend(gradient_of: Gradients, aim: _Aim, steps: int, cells: int, weight: float) -> Tensor:
    """Masks (M, *S) after gradient descent with momentum from whole ones, values held in [0, 1]."""
    shape = aim.images.shape[2:]
    values = torch.ones(len(aim.areas), cells ** len(shape), dtype=aim.areas.dtype, device=aim.areas.device)
    speed = torch.zeros_like(values)
    rows = torch.arange(len(values), device=values.device)
    for _ in range(steps):
        leaf = values.requires_grad_()
        masks = smooth_masks(leaf, shape, cells)
        kept = hidden(aim.images, masks.detach(), aim.baseline)
        slopes = gradient_of(kept, aim.sample)[rows, aim.score]  # (M, C, *S)
        gain = (slopes * (aim.images - aim.baseline)).sum(dim=1).to(masks)  # of the score with the mask
        loss = weight * area_error(masks, aim.areas).sum() - (gain * masks).sum()
        (slope,) = torch.autograd.grad(loss, leaf)
        speed = MOMENTUM * speed + slope
        values = (leaf.detach() - RATE * speed).clamp(0, 1)
        weight *= GROWTH
    with torch.no_grad():
        return smooth_masks(values, shape, cells)


def area_error(masks: Tensor, areas: Tensor) -> Tensor:
    """Mean squared distance (M,) of masks (M, *S) from ones that are 1 on their highest `areas` (M,), a share, else 0.

    Values equal to rounding share what their ranks should be, lest symmetric masks depend on the order of a sort.

    >>> area_error(torch.tensor([[1.0, 0.0, 0.0, 0.5]]), torch.tensor([0.25])) * 4
    tensor([0.2500])
    """
    values = masks.flatten(1)
    fixed = values.detach().contiguous()
    ranked = fixed.sort(dim=1).values
    below = torch.searchsorted(ranked, fixed - ROUNDING)
    upto = torch.searchsorted(ranked, fixed + ROUNDING, right=True)
    zeros = (values.shape[1] * (1 - areas)).round().unsqueeze(1)
    aims = ((upto - zeros) / (upto - below)).clamp(0, 1)
    return (values - aims).square().mean(dim=1)


def smooth_masks(values: Tensor, shape: Sequence[int], cells: int) -> Tensor:
    """Masks (M, *shape): at each pixel the smooth maximum of the cells' values (M, cells^axes) times their kernel.

    The kernel is 1 up to the width and falls as exp(-(z - 1)² / 4) beyond, z being the distance over the width.
    """
    pixels = torch.cartesian_prod(*[torch.arange(length) for length in shape]).to(values)
    spread = [(torch.arange(cells) + 0.5) * length / cells - 0.5 for length in shape]
    centres = torch.cartesian_prod(*spread).to(values)
    width = WIDTH * max(shape)

    def part(values: Tensor, pixels: Tensor) -> Tensor:
        beyond = ((pixels.unsqueeze(1) - centres).square().sum(dim=2).sqrt() / width - 1).clamp(min=0)
        found = values.unsqueeze(1) * torch.exp(-beyond.square() / 4)  # (M, pixels, cells)
        return (found * (found / TEMPERATURE).softmax(dim=2)).sum(dim=2)

    chunks = pixels.split(max(1, CHUNK // values.numel()))
    # made again on the way back, since all pixels times all cells are too many to keep
    fields = [checkpoint(part, values, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    return torch.cat(fields, dim=1).reshape(-1, *shape)
