"""Several networks as one: they vote, or their logits add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import expected

if TYPE_CHECKING:
    from pellucid.models.zoo import Size  # which imports timm

Vote = Literal["soft", "weighted", "accuracy"]  # how the weights of a vote are found
_DECIMALS = 4  # of the weights found, so that rounding elsewhere can't change them
_ROUNDS = 100_000
_GAP = 1e-10


@dataclass(frozen=True)
class Preparation:
    """How images come: `mean` and `std` per channel in units of [0, 1], and their size."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: Size


class Member(nn.Module):
    """A network that takes images prepared for another one: `given` is made `wanted` on the way in, differentiably.

    Raises:
        InputError: the two have different numbers of channels or of axes.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, given: Preparation, wanted: Preparation) -> None:
        super().__init__()
        if len(given.mean) != len(wanted.mean) or isinstance(given.size, int) != isinstance(wanted.size, int):
            sides = [f"{len(each.mean)} channels of size {each.size}" for each in (given, wanted)]
            raise expected("members", f"networks that take the same images, {sides[0]}", sides[1])
        self.network = network
        self._size = None if given.size == wanted.size else wanted.size
        self._normalised_alike = given.mean == wanted.mean and given.std == wanted.std
        axes = 3 if isinstance(given.size, tuple) else 2
        means, deviations = (torch.tensor(each, dtype=torch.float64) for each in (given.mean, given.std))
        own_means, own_deviations = (torch.tensor(each, dtype=torch.float64) for each in (wanted.mean, wanted.std))
        shape = (1, -1, *(1,) * axes)
        scale = (deviations / own_deviations).float().reshape(shape)
        shift = ((means - own_means) / own_deviations).float().reshape(shape)
        # kept out of the state: they belong to the images, not to the network
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def prepare(self, images: Tensor) -> Tensor:
        """The images (B, C, *S) as this network wants them."""
        if self._size is not None:
            images = _resized(images, self._size)
        return images if self._normalised_alike else images * self.scale + self.shift

    def forward(self, images: Tensor) -> Tensor:
        """What the network gives for images (B, C, *S) prepared for the whole."""
        logits: Tensor = self.network(self.prepare(images))
        return logits


class Ensemble(nn.Module):
    """Networks of the same classes as one network.

    In a vote, the softmax of the output is the mean of the members' probabilities, weighted by `weights`. The output
    itself is the logarithm of that mean plus the mean of the members' log-partitions (log Σ exp of their logits), so
    that a vote of copies of one network gives that network's own logits, and every method the same map. Where
    `adding`, the members' logits add up instead, and the weights count only where their maps are averaged.

    Arguments:
        members: networks with the same outputs, two or more of them.
        weights: of each, at least 0; they add up to 1. Equal ones if not given.
        adding: whether logits add up.

    Raises:
        InputError: fewer than two members, or weights that aren't such.

    >>> from pellucid.models.ensemble import Ensemble, Member, Preparation
    >>> plain = Preparation((0.0,), (1.0,), 2)
    >>> nets = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]
    >>> vote = Ensemble([Member(net, plain, plain) for net in nets])
    >>> images = torch.rand(5, 1, 2, 2)
    >>> mean = (nets[0](images).softmax(dim=1) + nets[1](images).softmax(dim=1)) / 2
    >>> torch.allclose(vote(images).softmax(dim=1), mean)
    True
    """

    weights: Tensor

    def __init__(
        self, members: Sequence[Member], weights: Sequence[float] | None = None, *, adding: bool = False
    ) -> None:
        super().__init__()
        if len(members) < 2:
            raise expected("members", "two networks or more", len(members))
        values = [1 / len(members)] * len(members) if weights is None else [float(weight) for weight in weights]
        if len(values) != len(members) or min(values) < 0 or not math.isclose(sum(values), 1, abs_tol=1e-6):
            raise expected("weights", f"{len(members)} of them, at least 0, that add up to 1", values)
        self.members = nn.ModuleList(members)
        self.adding = adding
        self.register_buffer("weights", torch.tensor(values, dtype=torch.float32))

    def each(self) -> list[Member]:
        """The members."""
        return [member for member in self.members if isinstance(member, Member)]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, *S).

        Raises InputError for members whose outputs aren't logits of the same two classes or more.
        """
        logits = [member(images) for member in self.members]
        shapes = {tuple(each.shape) for each in logits}
        if len(shapes) > 1 or logits[0].ndim != 2 or logits[0].shape[1] < 2:
            raise expected("members", "logits (B, K) of the same classes, two or more", sorted(shapes))
        stacked = torch.stack(logits)
        if self.adding:
            return stacked.sum(dim=0)
        weights = self.weights.reshape(-1, 1, 1)
        voted = (stacked.log_softmax(dim=2) + weights.log()).logsumexp(dim=0)
        return voted + (weights * stacked.logsumexp(dim=2, keepdim=True)).sum(dim=0)


def vote_weights(vote: Vote, probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> list[float]:
    """Weights (M,) of the members of a vote, to four decimals; they add up to 1.

    Arguments:
        vote: "soft": equal ones. "accuracy": in proportion to the members' accuracies. "weighted": those with which the
            vote has the least mean log loss, a convex problem, solved by long steps of the EM algorithm for a mixture.
        probabilities: (M, N, K) of each member for N images that none of them was trained on: the validation part.
        labels: (N,) true classes, from 0.

    Raises:
        InputError: no images, or shapes that don't fit.

    >>> good, bad = [[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.5, 0.5]]
    >>> vote_weights("weighted", np.array([good, bad]), np.array([0, 1]))
    [1.0, 0.0]
    """
    if probabilities.ndim != 3 or labels.shape != probabilities.shape[1:2] or not len(labels):
        wanted = "probabilities (M, N, K) and labels (N,) of at least one image"
        raise expected("probabilities", wanted, f"shapes {probabilities.shape} and {labels.shape}")
    count = len(probabilities)
    if vote == "soft":
        return [1 / count] * count
    if vote == "accuracy":
        right = (probabilities.argmax(axis=2) == labels).mean(axis=1)
        return _rounded(right / right.sum()) if right.sum() > 0 else [1 / count] * count
    if vote != "weighted":
        raise expected("vote", "'soft', 'weighted' or 'accuracy'", repr(vote))
    return _rounded(_least_log_loss(probabilities[:, np.arange(len(labels)), labels].astype(np.float64)))


def _least_log_loss(likelihoods: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The shares (M,) of a mixture that maximise the mean log of Σ share · likelihood (M, N)."""
    likelihoods = np.maximum(likelihoods, np.finfo(np.float64).tiny)
    shares = np.full(len(likelihoods), 1 / len(likelihoods))
    score, stride = np.log(shares @ likelihoods).mean(), 1.0
    for _ in range(_ROUNDS):
        slopes = (likelihoods / (shares @ likelihoods)).mean(axis=1)
        if slopes.max() - 1 < _GAP:  # log of the largest slope bounds what is left to gain
            break
        stepped = shares * slopes**stride  # a stride of 1 is the EM step, which never loses
        stepped /= stepped.sum()
        found = np.log(stepped @ likelihoods).mean()
        if found >= score:
            shares, score, stride = stepped, found, stride * 2
        elif stride == 1:
            break  # nothing left but rounding
        else:
            stride = max(1.0, stride / 4)
    return shares


def _rounded(weights: npt.NDArray[np.float64]) -> list[float]:
    """To a few decimals, the largest taking up what is left over."""
    rounded = np.round(weights, _DECIMALS)
    largest = int(rounded.argmax())
    rounded[largest] = np.round(1 - np.delete(rounded, largest).sum(), _DECIMALS)
    return [float(weight) for weight in rounded]


def _resized(images: Tensor, size: Size) -> Tensor:
    if isinstance(size, tuple):
        return functional.interpolate(images, size=size, mode="trilinear", align_corners=False)
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
