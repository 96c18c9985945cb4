"""Cut images into regions that are hidden together: blocks, superpixels, or what the user draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pellucid.errors import expected

Regions = int | Sequence[int] | str | Tensor | Callable[[Tensor], Tensor]

SUPERPIXELS = 50  # about so many, as in Ribeiro et al.'s figures


def regions_of(images: Tensor, regions: Regions) -> Tensor:
    """Numbers (B, *S) of the region that each pixel of `images` (B, C, *S) belongs to, from 0 without gaps.

    Arguments:
        images: (B, C, *S).
        regions: the number of blocks along each axis, one for all or one per axis; "slic" for about 50 superpixels of
            like values (Achanta et al. 2012); whole numbers (*S), shared by all images; or a
            function from an image (C, *S) to such numbers.

    Raises:
        InputError: regions of another shape or kind.

    >>> regions_of(torch.zeros(1, 1, 2, 4), 2).tolist()
    [[[0, 0, 1, 1], [2, 2, 3, 3]]]
    """
    shape = images.shape[2:]
    if isinstance(regions, str):
        if regions != "slic":
            raise expected("regions", "blocks per axis, 'slic', whole numbers or a function", repr(regions))
        return torch.stack([_numbered(_slic(image), shape) for image in images]).to(images.device)
    if isinstance(regions, Tensor):
        return _numbered(regions, shape).to(images.device).expand(len(images), *shape)
    if callable(regions):
        return torch.stack([_numbered(regions(image), shape) for image in images]).to(images.device)
    blocks = [regions] * len(shape) if isinstance(regions, int) else list(regions)
    if len(blocks) != len(shape) or min(blocks) < 1:
        raise expected("regions", f"at least 1 block along each of {len(shape)} axes", regions)
    return _blocks(shape, blocks).to(images.device).expand(len(images), *shape)


def _blocks(shape: Sequence[int], blocks: Sequence[int]) -> Tensor:
    """Numbers (*S) of blocks of equal size to a pixel, at most one per pixel of an axis."""
    numbers = torch.zeros((), dtype=torch.long)
    for length, wanted in zip(shape, blocks, strict=True):
        count = min(wanted, length)
        numbers = numbers.unsqueeze(-1) * count + torch.arange(length) * count // length
    return numbers


def _numbered(labels: object, shape: torch.Size) -> Tensor:
    """Any whole numbers (*S) as numbers from 0 without gaps, in the same order."""
    if not isinstance(labels, Tensor) or labels.shape != shape or labels.is_floating_point():
        came = f"shape {tuple(labels.shape)}, {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise expected("regions", f"whole numbers ({', '.join(map(str, shape))})", came)
    numbers: Tensor = labels.unique(return_inverse=True)[1]
    return numbers


def _slic(image: Tensor) -> Tensor:
    """Superpixels (*S) of an image (C, *S), whose channels are scaled to [0, 1] together."""
    from skimage.segmentation import slic  # takes a while to import, and nothing else here needs it

    values = image.detach().float().cpu()
    low, high = values.amin(), values.amax()
    scaled = ((values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)).movedim(0, -1).numpy()
    # 0.1 suits values in [0, 1], as 10 does Lab colours up to 100
    numbers = slic(scaled, n_segments=SUPERPIXELS, compactness=0.1, convert2lab=False, channel_axis=-1, start_label=0)
    return torch.from_numpy(numbers)
