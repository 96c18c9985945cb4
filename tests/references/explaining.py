"""Networks so small that maps are known, and the simplest ways to explain them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pellucid.metrics.again import Again, Explained

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(classes: int = 3, channels: int = 1, axes: int = 2) -> nn.Module:
    """Two convolutions, a batch norm with statistics of its own, and a linear layer."""
    convolution, norm, pool = {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d),
    }[axes]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            convolution(channels, 4, 3, padding=1),
            norm(4),
            nn.ReLU(),
            convolution(4, 4, 3),
            nn.ReLU(),
            pool(2),
            nn.Flatten(),
            nn.Linear(4 * 2**axes, classes),
        )
        norm_of = made[1]
        nn.init.uniform_(norm_of.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm_of.running_var, 0.5, 2)
        nn.init.uniform_(norm_of.weight, 0.5, 2)
        nn.init.uniform_(norm_of.bias, -0.5, 0.5)
        return made


def linear_network(weights: Tensor) -> nn.Module:
    """Logits are the inner products of the image with `weights` (n, C, *S)."""
    layer = nn.Linear(weights[0].numel(), len(weights), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights.flatten(1))
    return nn.Sequential(nn.Flatten(), layer)


def gradient(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Gradient of the target's logit, summed over channels."""
    leaf = images.detach().requires_grad_()
    score = model(leaf).gather(1, target.unsqueeze(1)).sum()
    return torch.autograd.grad(score, leaf)[0].sum(dim=1)


def gradient_times_input(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    return gradient(model, images, target) * images.sum(dim=1)


def edges(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """A map that knows nothing of the network."""
    return images.sum(dim=1).diff(dim=-1, append=images.sum(dim=1)[..., -1:]).abs()


class Explaining:
    """Explains by functions with labels, and counts its calls and their rows."""

    def __init__(self, **by: Explain) -> None:
        self.by = by
        self.rows: list[int] = []

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        assert len(images) == len(target) == len(seeds)
        self.rows.append(len(images))
        return {label: explain(model, images, target) for label, explain in self.by.items()}


class Asked:
    """An `Explained` of a network, and how often the network and the explainer were asked."""

    def __init__(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, draws: Tensor | None = None, **by: Explain
    ) -> None:
        self.model, self.images = model.eval(), images
        self.explainer = Explaining(**(by or {"map": gradient}))
        self.forward: list[int] = []
        with torch.no_grad():
            classes = model(images).argmax(dim=1) if target is None else target
        seeds = torch.arange(len(images))
        self.maps = dict(self.explainer(model, images, classes, seeds))
        self.explainer.rows.clear()
        draws = 100 + seeds if draws is None else draws
        self.explained = Explained(model, self.explainer, self._logits, images, classes, seeds, draws, self.maps)

    def _logits(self, rows: Tensor) -> Tensor:
        self.forward.append(len(rows))
        with torch.no_grad():
            logits: Tensor = self.model(rows)
        return logits

    def __call__(self, label: str = "map") -> tuple[Again, Tensor]:
        """What a metric is called with."""
        return Again(self.explained, label), self.maps[label]
