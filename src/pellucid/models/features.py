"""Frozen features: what networks pool before their classifier, and a linear classifier of it as a network.

A logistic regression on pooled features is a network's own last layer with other weights, and one on the features of
several networks is a sum of such networks' logits; so it is explained as any network is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pellucid.errors import expected
from pellucid.models.ensemble import Ensemble, Member


def pooled(member: Member, images: Tensor) -> Tensor:
    """What enters the classifier of a member's network, (B, F), for images (B, C, *S) prepared for the whole.

    Raises:
        InputError: the network doesn't tell, as timm's do.
    """
    network = member.network
    maps_of, head_of = (getattr(network, name, None) for name in ("forward_features", "forward_head"))
    if not callable(maps_of) or not callable(head_of):
        raise expected("features", "one of timm's networks, which tell their features", type(network).__name__)
    features = head_of(maps_of(member.prepare(images)), pre_logits=True)
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise expected("features", "pooled features (B, F)", f"{got} of {type(network).__name__}")
    return features


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier of features: logits = features · weightᵀ + bias.

    Attributes:
        weight: (K, F), the standardisation taken in.
        bias: (K,)
        strength: C, the inverse of the penalty's weight.
        losses: C -> mean log loss over the inner folds; empty where there were too few groups for any.
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    strength: float
    losses: dict[float, float]


def linear_network(members: Sequence[Member], head: LinearHead, features: npt.NDArray[np.floating]) -> nn.Module:
    """Networks with their classifiers set to a linear head of their joined features, as one network.

    Of one member it is the member's network itself; of several an `Ensemble` whose logits add up. The maps of a member
    then count by the share of its part of the logits in their spread over the images that `features` (N, F) tell of.

    Raises:
        InputError: a network whose classifier isn't one linear layer on its pooled features.
    """
    layers = [_classifier(member.network) for member in members]
    classes, width = head.weight.shape
    if sum(layer.in_features for layer in layers) != width or any(layer.out_features != classes for layer in layers):
        sizes = " and ".join(f"{layer.out_features} × {layer.in_features}" for layer in layers)
        raise expected("features", f"classifiers of {classes} × {width} weights in all", sizes)
    means = features.mean(axis=0, dtype=np.float64)
    shared = (head.bias + head.weight @ means) / len(members)
    spreads = []
    start = 0
    for layer in layers:
        part = slice(start, start + layer.in_features)
        start = part.stop
        weight = head.weight[:, part]
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(shared - weight @ means[part]))  # each part's mean is the same
        spreads.append(float((features[:, part] @ weight.T).std(axis=0).sum()))
    if len(members) == 1:
        return members[0].network
    total = sum(spreads)
    shares = [spread / total for spread in spreads] if total > 0 else None
    return Ensemble(members, shares, adding=True)


def _classifier(network: nn.Module) -> nn.Linear:
    """The last layer of one of timm's networks."""
    getter = getattr(network, "get_classifier", None)
    layer = getter() if callable(getter) else None
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        kind = type(layer).__name__
        do = 'Choose another network for features, or classifier = "gradient-boosting".'
        raise expected(
            "features", "a network whose classifier is one linear layer", f"{kind} of {type(network).__name__}", do
        )
    return layer
