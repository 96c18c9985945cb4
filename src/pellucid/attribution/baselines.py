"""What stands for "nothing there" in an image."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.errors import expected


def baseline_of(baseline: float | Tensor, images: Tensor) -> Tensor:
    """A baseline (C, *S) for `images` (B, C, *S), from a value of the normalised image or what broadcasts to it.

    Raises InputError for a tensor that doesn't broadcast to one image.

    >>> baseline_of(torch.tensor([[[1.0]], [[2.0]]]), torch.zeros(4, 2, 3, 3))[:, 0, 0].tolist()
    [1.0, 2.0]
    """
    values = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
    try:
        return values.expand(images.shape[1:])
    except RuntimeError:
        wanted = f"a value, or a tensor that broadcasts to ({', '.join(map(str, images.shape[1:]))})"
        raise expected("baseline", wanted, f"shape {tuple(values.shape)}") from None
