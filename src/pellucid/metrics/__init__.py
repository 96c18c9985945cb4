"""How good a map is: pure functions, and `evaluate` that runs them on a network."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from pellucid.metrics import (  # declares the metrics
    agreement,
    axioms,
    complexity,
    confidence,
    correlation,
    deletion,
    infidelity,
    lesions,
    localisation,
    monotonicity,
    road,
    robustness,
    sanity,
    sufficiency,
)
from pellucid.metrics.families import METRICS, Metric
from pellucid.metrics.fills import FILLS, filling
from pellucid.metrics.focus import mosaics
from pellucid.metrics.scores import Scores
from pellucid.metrics.truth import Truth
from pellucid.registry import Choice

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FILLS",
    "METRICS",
    "Scores",
    "Truth",
    "agreement",
    "axioms",
    "complexity",
    "confidence",
    "correlation",
    "deletion",
    "filling",
    "infidelity",
    "lesions",
    "localisation",
    "metric",
    "metrics",
    "monotonicity",
    "mosaics",
    "road",
    "robustness",
    "sanity",
    "sufficiency",
]


def metric(name: str, **options: object) -> Choice[Metric]:
    """A metric with options, to pass to `evaluate`; a bare name means its defaults.

    Raises UnknownNameError for a name or an option that isn't known, naming the nearest.

    >>> metric("road", noise=0.0).label
    'road[noise=0.0]'
    """
    return METRICS.choose(name, **options)


class _Metrics(ModuleType):
    """This package, which is also the public function `pellucid.metrics()`, whichever was imported first."""

    def __call__(self) -> pd.DataFrame:
        """The registered metrics as a table: name, family, needs, better, range, options, source, summary, and more."""
        return METRICS.table()


sys.modules[__name__].__class__ = _Metrics

if TYPE_CHECKING:

    def metrics() -> pd.DataFrame:
        """The registered metrics as a table: name, family, needs, better, range, options, source, summary, and more."""

else:
    metrics = sys.modules[__name__]
