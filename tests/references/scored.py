"""Small networks as metrics see them, the rows that they are shown, and Quantus on the same networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pellucid.metrics.scores import READINGS, Reading, Scores

Logits = Callable[[Tensor], Tensor]  # (M, C, *S) -> (M,)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Readings:
    """A score of three readings from one logit; every row it is shown is kept."""

    def __init__(self, logit: Logits) -> None:
        self.logit = logit
        self.rows: list[Tensor] = []

    def __call__(self, rows: Tensor, sample: Tensor) -> Tensor:
        self.rows += list(rows)
        logit = self.logit(rows)
        return torch.stack([logit.sigmoid(), logit, torch.zeros_like(logit)], dim=1)

    def of_one(self, shape: tuple[int, ...], reading: Reading) -> Callable[[NDArray[np.float64]], float]:
        """The score of an image (C, N) in float64, read one way."""

        def score(image: NDArray[np.float64]) -> float:
            row = torch.from_numpy(image).view(1, len(image), *shape)
            return float(self(row, torch.zeros(1))[0, READINGS.index(reading)])

        return score


def linear(weights: Tensor, bias: float = 0.0) -> Logits:
    """A logit that is linear in the pixels, in float64; weights (C, *S)."""
    return lambda rows: (rows.double() * weights.double()).flatten(1).sum(dim=1) + bias


def curved(shape: tuple[int, ...], channels: int) -> Logits:
    """A logit in which pixels interact, in float64: two hidden units."""
    first, second = drawn(2, channels, *shape, seed=21).double()

    def logit(rows: Tensor) -> Tensor:
        exact = rows.double()
        hidden = ((exact * first).flatten(1).sum(dim=1) / 16).tanh()
        return hidden + ((exact * second).flatten(1).sum(dim=1) / 20) ** 2 - 0.3

    return logit


def small_network(channels: int = 1) -> nn.Module:
    """A convolution and a linear layer over 6 x 6 pixels, three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).eval()


def network_scores(model: nn.Module, images: Tensor, seeds: Tensor | None = None) -> Scores:
    """Of class 1."""

    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        with torch.no_grad():
            logits = model(rows)
        return torch.stack([logits.softmax(dim=1)[:, 1], logits[:, 1], logits.argmax(dim=1)], dim=1)

    return Scores(score_of, images, seeds)


def theirs(metric: Any, model: nn.Module, images: Tensor, maps: Tensor, *, softmax: bool = True, **options: Any) -> Any:
    """What Quantus's metric gives for class 1."""
    found = metric(
        model=model,
        x_batch=images.numpy(),
        y_batch=np.ones(len(images), int),
        a_batch=maps.unsqueeze(1).numpy(),
        softmax=softmax,
        device="cpu",
        **options,
    )
    return np.array(found, float)


AS_GIVEN = {
    "abs": False,
    "normalise": False,
    "return_aggregate": False,
    "perturb_baseline": 0.0,
    "disable_warnings": True,
}


class Shown(nn.Module):
    """Keeps the rows that it is shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = inner, list[Tensor]()
        self.eval()

    def forward(self, rows: Tensor) -> Tensor:
        self.rows += list(rows)
        logits: Tensor = self.inner(rows)
        return logits


def linear_network(weights: Tensor) -> nn.Module:
    """Class 1's logit is linear in the pixels, others are 0."""
    layer = nn.Linear(weights.numel(), 3, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1] = weights.flatten()
    return nn.Sequential(nn.Flatten(), layer).eval()
