"""Connected parts of masks, and the boxes round them, on the CPU; 2-D and 3-D alike."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


def components(masks: Tensor) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of masks (B, *S) from 1, all images in one go; positions touch at corners too.

    Returns:
        Labels (B, *S), 0 outside, no label in two images; and how many there are.

    >>> labels, count = components(torch.tensor([[[True, False, True]], [[True, True, False]]]))
    >>> labels.tolist(), count
    ([[[1, 0, 2]], [[3, 3, 0]]], 3)
    """
    structure = np.zeros((3,) * masks.ndim, dtype=bool)
    structure[1] = True  # images don't touch each other
    labels, count = ndimage.label(masks.cpu().numpy(), structure)
    return labels.astype(np.int32, copy=False), int(count)


def largest_boxes(masks: Tensor) -> list[Tensor]:
    """The box round the largest connected component of each mask (B, *S); round each of them where several are largest.

    Returns:
        For each image float64 (n, 2, axes), the first corner and the one past the last; (0, 2, axes) for an empty mask.

    >>> largest_boxes(torch.tensor([[[True, False, True, True]]]))
    [tensor([[[0., 2.],
             [1., 4.]]], dtype=torch.float64)]
    """
    labels, count = components(masks)
    regions = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    largest = np.zeros(len(masks), dtype=sizes.dtype)
    np.maximum.at(largest, [image.start for image, *_ in regions], sizes)
    boxes: list[list[list[list[int]]]] = [[] for _ in masks]
    for size, (image, *sides) in zip(sizes, regions, strict=True):
        if size == largest[image.start]:
            boxes[image.start].append([[side.start for side in sides], [side.stop for side in sides]])
    axes = masks.ndim - 1
    return [torch.tensor(each, dtype=torch.float64).view(-1, 2, axes) for each in boxes]


def box_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union (n, m) of boxes (n, 2, axes) with boxes (m, 2, axes).

    >>> box_overlap(torch.tensor([[[0, 0], [2, 2]]]), torch.tensor([[[0, 1], [2, 3]]]))
    tensor([[0.3333]], dtype=torch.float64)
    """
    one, other = one.double().unsqueeze(1), other.double().unsqueeze(0)
    low, high = torch.maximum(one[:, :, 0], other[:, :, 0]), torch.minimum(one[:, :, 1], other[:, :, 1])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    sizes = [(each[:, :, 1] - each[:, :, 0]).prod(dim=-1) for each in (one, other)]
    return shared / (sizes[0] + sizes[1] - shared)
