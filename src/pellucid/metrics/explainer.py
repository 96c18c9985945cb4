"""Make an explanation's maps again, by the methods that its labels name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from pellucid.attribution.engine import GridWarning, Precision, explain
from pellucid.attribution.explanation import Explanation
from pellucid.attribution.families import METHODS, Method
from pellucid.errors import UnknownNameError
from pellucid.metrics.again import Explainer
from pellucid.registry import Choice


@dataclass(frozen=True)
class ByLabel:
    """Explains by methods from the registry, at one layer."""

    choices: tuple[Choice[Method], ...]
    layer: str
    batch_size: int
    max_memory: int | None = None
    precision: Precision = "float32"

    @property
    def labels(self) -> frozenset[str]:
        """The methods whose maps it makes."""
        return frozenset(choice.label for choice in self.choices)

    def only(self, label: str) -> ByLabel:
        """The same for one method alone."""
        return replace(self, choices=tuple(choice for choice in self.choices if choice.label == label))

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        """Maps (M, *S) by label."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GridWarning)  # it was said when the maps were made
            explanation = explain(
                model,
                images,
                self.choices,
                target.cpu(),
                self.layer or "auto",
                self.batch_size,
                seeds.cpu(),
                max_memory=self.max_memory,
                precision=self.precision,
            )
        return explanation.maps


def explainer_of(
    explanation: Explanation, batch_size: int, max_memory: int | None = None, precision: Precision = "float32"
) -> Explainer:
    """Runs those methods of an explanation whose labels are known, at the layer that was explained."""
    choices = []
    for label in explanation.maps:
        try:
            choices.append(METHODS.from_label(label))
        except UnknownNameError:  # a user's own map
            continue
    several = "," in explanation.layer
    return ByLabel(() if several else tuple(choices), explanation.layer, batch_size, max_memory, precision)


def explains(explainer: Explainer, label: str) -> bool:
    """Whether an explainer makes this method's maps; a user's own is taken to make all."""
    return label in explainer.labels if isinstance(explainer, ByLabel) else True
