"""Mosaics of images of two kinds, on which evidence for a class has a known place without anybody drawing a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.errors import expected


@dataclass(frozen=True)
class Mosaics:
    """M mosaics of four images each, two of which are of the class to explain.

    Attributes:
        images: (M, C, *S), normalised as the images that they are made of.
        target: (M,) the class to explain.
        masks: (M, *S) bool, True on the two tiles of that class.
        sources: (M, 4) which image each tile is, in reading order.
    """

    images: Tensor
    target: Tensor
    masks: Tensor
    sources: Tensor


def mosaics(
    images: Tensor, labels: Tensor, generator: torch.Generator | None = None, *, shrink: bool = True
) -> Mosaics:
    """Mosaics for Focus (Arias-Duart et al. 2022): the share of a map's evidence on the two tiles of its class.

    Each image whose class has another one gets a mosaic: with that other, and with two of other classes, the four in
    random places. Explain them for their `target`; "energy-pointing" on their `masks` then is Focus, 1 where all
    evidence lies on the class's own tiles and 0.5 for a blind map.

    Arguments:
        images: (B, C, *S), normalised; tiles lie side by side along the last two axes.
        labels: (B,) the class of each, as an index.
        generator: where the choice and the places come from; None means seed 0.
        shrink: make each tile half as high and wide, so that the mosaic has the images' size, which every network
            takes; False keeps tiles as they are, and the mosaic is twice as high and wide.

    Raises:
        InputError: images or labels that don't fit, or no class with two images beside two images of others.

    >>> made = mosaics(torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]))
    >>> made.images.shape, made.target.tolist(), made.masks.float().mean(dim=(1, 2)).tolist()
    (torch.Size([4, 1, 8, 8]), [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5])
    """
    if images.ndim not in (4, 5) or not images.is_floating_point():
        raise expected("images", "a float tensor (B, C, *S)", f"shape {tuple(images.shape)}, {images.dtype}")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        wanted = f"a class for each of {len(images)} images, as integers"
        raise expected("labels", wanted, f"shape {tuple(labels.shape)}, {labels.dtype}")
    if shrink and min(images.shape[-2:]) < 2:
        raise expected("images", "at least 2 pixels along the last two axes", f"shape {tuple(images.shape)}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    sources, own = _chosen(labels.cpu(), generator)
    if not len(sources):
        raise expected("labels", "a class with two images or more, and two images of others", labels.tolist())
    height, width = images.shape[-2:]
    upper, left = (height // 2, width // 2) if shrink else (height, width)
    lower, right = (height - upper, width - left) if shrink else (height, width)
    made, marked = [], []
    for row in (slice(0, 2), slice(2, 4)):
        high = upper if row.start == 0 else lower
        one, other = sources[:, row].unbind(dim=1)
        made.append(torch.cat([_sized(images[one], high, left), _sized(images[other], high, right)], dim=-1))
        sides = zip(own[:, row].unbind(dim=1), (left, right), strict=True)
        marked.append(torch.cat([side.view(-1, 1, 1).expand(-1, high, wide) for side, wide in sides], dim=-1))
    masks = torch.cat(marked, dim=-2)
    together = torch.cat(made, dim=-2)
    if images.ndim == 5:
        masks = masks.unsqueeze(1).expand(-1, images.shape[2], -1, -1)
    return Mosaics(together, labels[sources[own].view(-1, 2)[:, 0]], masks.contiguous(), sources)


def _chosen(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which images (M, 4) are put together, and which of them (M, 4) are of the class; drawn image by image."""
    sources, own = [], []
    for place, label in enumerate(labels.tolist()):
        alike = (labels == label).nonzero().flatten()
        alike, others = alike[alike != place], (labels != label).nonzero().flatten()
        if not len(alike) or len(others) < 2:
            continue
        partner = alike[torch.randint(len(alike), (), generator=generator)].view(1)
        two = others[torch.randperm(len(others), generator=generator)[:2]]
        order = torch.randperm(4, generator=generator)
        sources.append(torch.cat([torch.tensor([place]), partner, two])[order])
        own.append(order < 2)
    empty = torch.zeros(0, 4)
    return (torch.stack(sources), torch.stack(own)) if sources else (empty.long(), empty.bool())


def _sized(images: Tensor, height: int, width: int) -> Tensor:
    """Images (M, C, *S) of another height and width; each pixel is the mean of what it covers."""
    if images.shape[-2:] == (height, width):
        return images
    if images.ndim == 5:
        return functional.adaptive_avg_pool3d(images, (images.shape[2], height, width))
    return functional.adaptive_avg_pool2d(images, (height, width))
