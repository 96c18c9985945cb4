"""The registry of metrics, and the line that declares a metric of each family."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pellucid.registry import Registry

Metric = Callable[..., Tensor]

METRICS: Registry[Metric] = Registry("metric")

REMOVAL_CURVES = "removal-curves"
MASKS = "masks"


def removal(name: str, *, source: str, higher_is_better: bool) -> Callable[[Metric], Metric]:
    """Declare a metric of the scores as pixels are removed: `f(curves_of, *, fractions, noise) -> values (B,)`.

    `curves_of(fractions, noise)` gives the RoadCurves, computed once for all metrics that ask for the same.
    """
    return METRICS.register(
        name, family="faithfulness", source=source, needs=(REMOVAL_CURVES,), higher_is_better=higher_is_better
    )


def localisation(name: str, *, source: str) -> Callable[[Metric], Metric]:
    """Declare a metric of a map against a mask, more being better: `f(maps (B, *S), masks (B, *S)) -> values (B,)`.

    Every mask it is given has a pixel; NaN says that a map has no value.
    """
    return METRICS.register(name, family="localisation", source=source, needs=(MASKS,), higher_is_better=True)
