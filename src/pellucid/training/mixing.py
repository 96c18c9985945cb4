"""Mixup and CutMix: training on pairs of images and their labels mixed in one proportion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixer(mixup: float, cutmix: float, classes: int) -> Mix | None:
    """What takes images (B, C, *S) and labels (B,) to mixed images and shares of classes (B, K); None mixes nothing.

    `mixup` and `cutmix` are the α of the Beta distributions that shares are drawn from; where both are above 0, a fair
    draw takes one of them for the batch. Draws are from torch's generator on the CPU. In volumes the box of CutMix goes
    through the whole depth. Sources: Zhang et al. 2018; Yun et al. 2019.
    """
    if not mixup and not cutmix:
        return None
    from torchvision.transforms import v2  # takes a second to import

    ways: list[Mix] = []
    if mixup:
        ways.append(v2.MixUp(alpha=mixup, num_classes=classes))
    if cutmix:
        ways.append(v2.CutMix(alpha=cutmix, num_classes=classes))

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        way = ways[int(torch.randint(len(ways), ()))]
        planes = images.flatten(1, -3) if images.ndim > 4 else images
        mixed, shares = way(planes, labels)
        return mixed.reshape(images.shape), shares

    return mix


def binary_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (B, K) against labels (B, K) in [0, 1], each by itself.

    `weights` (K,) multiply the loss of having a label; smoothing moves each target towards one half.
    """
    softened = target * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, softened, pos_weight=weights)


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (B, K) against labels (B,) or shares of classes (B, K), with a weight per class.

    A weighted mean: the sum over images is divided by the sum of their weights, for shares as for labels.
    """
    if target.ndim == 1 or weights is None:
        return functional.cross_entropy(logits, target, weights, label_smoothing=smoothing)
    total = functional.cross_entropy(logits, target, weights, label_smoothing=smoothing, reduction="sum")
    return total / (target @ weights).sum()
