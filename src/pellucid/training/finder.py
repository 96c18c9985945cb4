"""A learning rate from a range test: train a copy while the rate grows, and see where the loss falls fastest."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pellucid.models.layout import channels_last
from pellucid.progress import progress
from pellucid.training.classifier import Batch, Item
from pellucid.training.mixing import cross_entropy
from pellucid.training.optimisation import make_optimiser
from pellucid.training.settings import TrainingSettings

BOUNDS = {"adamw": (1e-6, 0.1), "sgd": (1e-5, 1.0)}
FEWEST, MOST = 40, 100  # steps of the test, two epochs' where that lies between
_FALL = 0.05  # share of the loss at the beginning that it must fall by to tell anything
_DIVERGED = 3.0  # times the least loss so far


@dataclass(frozen=True)
class FoundRate:
    """What a range test found: the rate, why it is that, and the curve."""

    rate: float
    reason: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]


def find_learning_rate(
    network: nn.Module,
    train: DataLoader[Item],
    settings: TrainingSettings,
    *,
    class_weights: Tensor | None = None,
    fallback: float,
    seed: int = 0,
    device: torch.device | None = None,
    show_progress: bool = False,
) -> FoundRate:
    """Train a copy of the network at rates that grow geometrically, and take the rate at the steepest fall of the loss.

    The network itself isn't touched. The test takes 40 to 100 steps and ends early when the loss isn't finite or thrice
    its least. `fallback` is taken where the loss doesn't fall. Every draw follows from the seed. Source: Smith 2017,
    section 3.3.
    """
    low, high = BOUNDS[settings.optimiser or "adamw"]
    steps = min(MOST, max(FEWEST, 2 * len(train)))
    rates = np.geomspace(low, high, steps).tolist()
    device = device or torch.device("cpu")
    tried = copy.deepcopy(network).to(device).train()
    optimiser = make_optimiser(tried, settings, 1.0)
    scales = [group["lr"] for group in optimiser.param_groups]
    weights = None if class_weights is None else class_weights.to(device)
    losses: list[float] = []
    with progress("finding a learning rate", steps, show=show_progress) as advance:
        for step, (images, labels, _) in enumerate(_batches(train, steps)):
            torch.manual_seed(seed * 1_000_003 + step)
            for group, scale in zip(optimiser.param_groups, scales, strict=True):
                group["lr"] = rates[step] * scale
            optimiser.zero_grad()
            logits = tried(channels_last(images.to(device)))
            loss = cross_entropy(logits, labels.to(device), weights, settings.label_smoothing)
            if not torch.isfinite(loss) or (losses and float(loss.detach()) > _DIVERGED * min(losses)):
                break
            losses.append(float(loss.detach()))
            loss.backward()
            if settings.gradient_clip:
                nn.utils.clip_grad_norm_(tried.parameters(), settings.gradient_clip)
            optimiser.step()
            advance(1)
    rate, reason = steepest(rates[: len(losses)], losses, fallback)
    return FoundRate(rate, reason, tuple(rates[: len(losses)]), tuple(losses))


def steepest(rates: Sequence[float], losses: Sequence[float], fallback: float) -> tuple[float, str]:
    """The rate at which the smoothed loss falls fastest by the rate's logarithm, before its minimum; and why.

    `fallback` where there are fewer than ten losses, or the loss falls by less than 5 %.

    >>> rates = [10 ** (k / 10 - 5) for k in range(50)]
    >>> steepest(rates, [1 / (1 + rate / 1e-3) for rate in rates], fallback=0.1)
    (0.001, 'steepest fall of the loss in a range test')
    >>> steepest(rates, [1.0] * 50, fallback=0.1)[0]
    0.1
    """
    if len(losses) < 10:
        return fallback, f"the family's default: the range test ended after {len(losses)} steps"
    smooth = _smoothed(np.asarray(losses), max(1, len(losses) // 12))
    lowest = int(smooth.argmin())
    if lowest < 2 or smooth[0] - smooth[lowest] < _FALL * smooth[0]:
        return fallback, "the family's default: the loss didn't fall in a range test"
    slope = np.gradient(smooth, np.log(np.asarray(rates)))[: lowest + 1]
    return float(f"{rates[int(slope.argmin())]:.3g}"), "steepest fall of the loss in a range test"


def _smoothed(values: np.ndarray, reach: int) -> np.ndarray:
    """Means over so many neighbours on either side, fewer at the ends, alike on both."""
    means = []
    for place in range(len(values)):
        near = min(reach, place, len(values) - 1 - place)
        means.append(values[place - near : place + near + 1].mean())
    return np.asarray(means)


def _batches(train: DataLoader[Item], steps: int) -> Iterator[Batch]:
    """So many batches, from as many epochs as it takes."""
    given = 0
    for epoch in range(math.ceil(steps / len(train))):
        if hasattr(train.sampler, "set_epoch"):
            train.sampler.set_epoch(epoch)
        for batch in train:
            if given == steps:
                return
            given += 1
            yield batch
