"""From an attribution of every channel to one map."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from pellucid.errors import expected

Channels = Literal["sum", "largest", "keep"]


def over_channels(attribution: Tensor, channels: Channels) -> Tensor:
    """Attributions (B, T, C, *S) as maps (B, T, *S).

    "sum" keeps what the attribution adds up to; "largest" takes the largest absolute value, which has no sign; "keep"
    leaves the channels as they are.

    >>> import torch
    >>> attribution = torch.tensor([[[[1.0, -2.0], [-3.0, 1.0]]]])  # (1, 1, 2, 2)
    >>> over_channels(attribution, "sum").flatten().tolist(), over_channels(attribution, "largest").flatten().tolist()
    ([-2.0, -1.0], [3.0, 2.0])
    """
    if channels == "sum":
        return attribution.sum(dim=2)
    if channels == "largest":
        return attribution.abs().amax(dim=2)
    if channels == "keep":
        return attribution
    raise expected("channels", "'sum', 'largest' or 'keep'", repr(channels))
