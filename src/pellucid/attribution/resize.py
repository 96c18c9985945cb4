"""Enlarge maps from a layer's grid to the image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.errors import expected

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (..., *grid) as maps (..., *size), bilinear or trilinear with half-pixel centres.

    Arguments:
        maps: any number of leading axes, then one, two or three spatial axes.
        size: the new length of each spatial axis.

    Raises:
        InputError: other numbers of spatial axes.

    >>> import torch
    >>> resize_maps(torch.tensor([[[0.0, 4.0]]]), (1, 4))
    tensor([[[0., 1., 3., 4.]]])
    """
    axes = len(size)
    if axes not in _MODES or maps.ndim < axes:
        raise expected("size", "one to three lengths, one per spatial axis of the maps", tuple(size))
    leading, grid = maps.shape[: maps.ndim - axes], maps.shape[maps.ndim - axes :]
    if tuple(grid) == tuple(size):
        return maps
    flat = maps.reshape(-1, 1, *grid)
    return interpolate(flat, size=tuple(size), mode=_MODES[axes], align_corners=False).reshape(*leading, *size)
