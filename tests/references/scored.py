"""Small networks as metrics see them: scores of rows with three readings, and how many rows were asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.metrics.scores import READINGS, Reading

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
