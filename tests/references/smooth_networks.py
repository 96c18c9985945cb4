"""A network without kinks and its images, on which methods that look at the whole network are tested."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import pellucid


def network(axes: int = 2) -> nn.Module:
    torch.manual_seed(1)
    conv = (nn.Conv2d, nn.Conv3d)[axes - 2]
    pool = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 2]
    return nn.Sequential(conv(2, 5, 3, padding=1), nn.Softplus(), conv(5, 6, 3), nn.Tanh(), pool(2), nn.Flatten(),
                         nn.Linear(6 * 2**axes, 3)).eval()  # fmt: skip


def pictures(count: int = 3, axes: int = 2) -> Tensor:
    return torch.randn(count, 2, *(8, 7, 5)[:axes], generator=torch.Generator().manual_seed(2))


def linear_model(size: int = 2 * 8 * 7) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 3))


def explained(model: nn.Module, images: Tensor, choice: object, **options: object) -> Tensor:
    (found,) = pellucid.explain(model, images, [choice], **options).maps.values()  # type: ignore[list-item,arg-type]
    return found
