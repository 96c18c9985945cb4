"""Tensors with channels last in memory, on which convolutions run faster; their values are the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def channels_last(images: Tensor) -> Tensor:
    """Images or weights (B, C, *S), as they are where they lie so already, else a copy."""
    layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
    return images.contiguous(memory_format=layout)


def lay_out(network: nn.Module) -> None:
    """Give a network's convolutions such weights, which spares them from laying them anew in every pass."""
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            parameter.data = channels_last(parameter.data)
