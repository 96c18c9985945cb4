"""Gradient boosting on frozen features: trees kept as arrays, and run by torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.models.ensemble import Member
from pellucid.models.features import pooled


@dataclass(frozen=True)
class TreeShape:
    """How much room trees take: rounds of boosting, trees in each, nodes of the largest, and steps to the deepest."""

    rounds: int
    outputs: int
    nodes: int
    depth: int


class Trees(nn.Module):
    """Boosted regression trees, all walked at once.

    Every tensor is (rounds · outputs, nodes): which feature a node asks for, at most which value leads left, where left
    and right lead, and what a leaf adds. A leaf leads to itself.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    baseline: Tensor

    def __init__(self, shape: TreeShape) -> None:
        super().__init__()
        self.shape = shape
        size = (shape.rounds * shape.outputs, shape.nodes)
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.long))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("baseline", torch.zeros(shape.outputs))

    def forward(self, features: Tensor) -> Tensor:
        """What the trees add up to, (B, outputs), for features (B, F)."""
        trees = torch.arange(len(self.feature), device=features.device)
        node = torch.zeros(len(features), len(trees), dtype=torch.long, device=features.device)
        for _ in range(self.shape.depth):
            asked = features.gather(1, self.feature[trees, node])
            node = torch.where(asked <= self.threshold[trees, node], self.left[trees, node], self.right[trees, node])
        values: Tensor = self.value[trees, node].reshape(len(features), self.shape.rounds, self.shape.outputs)
        return values.sum(dim=1) + self.baseline


class BoostedFeatures(nn.Module):
    """Boosted trees on what networks pool, as one network without a gradient.

    The networks' classifiers are taken off. Its output is logits (B, K); two classes have logits that differ in sign.
    """

    def __init__(self, members: Sequence[Member], shape: TreeShape) -> None:
        super().__init__()
        for member in members:
            member.network.reset_classifier(0)  # type: ignore[operator]
        self.members = nn.ModuleList(members)
        self.trees = Trees(shape)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, *S), without a graph."""
        features = [pooled(member, images) for member in self.members if isinstance(member, Member)]
        logits: Tensor = self.trees(torch.cat(features, dim=1).float())
        return torch.cat([-logits, logits], dim=1) / 2 if logits.shape[1] == 1 else logits
