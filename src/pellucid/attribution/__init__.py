"""How a map is made: pure functions, and the engine that runs them on a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.attribution import (  # declares the methods
    attention,
    cam,
    coalitions,
    controls,
    deep_lift,
    extremal,
    full_grad,
    gradient,
    guided,
    perturbation,
    refine,
    relevance,
    sensitivity,
)
from pellucid.attribution.aims import at, box_score, class_over_region, multi_label, output_at
from pellucid.attribution.engine import GridWarning, explain
from pellucid.attribution.explanation import Explanation, concatenate
from pellucid.attribution.families import METHODS, Method
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.saved import load_explanation
from pellucid.attribution.targets import Aim
from pellucid.attribution.tokens import Tokens
from pellucid.attribution.views import Flips, Noise, Scales, Window
from pellucid.registry import Choice

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "METHODS",
    "Aim",
    "Explanation",
    "Flips",
    "GridWarning",
    "Noise",
    "Scales",
    "Tokens",
    "Window",
    "at",
    "attention",
    "box_score",
    "cam",
    "class_over_region",
    "coalitions",
    "concatenate",
    "controls",
    "deep_lift",
    "explain",
    "extremal",
    "full_grad",
    "gradient",
    "guided",
    "load_explanation",
    "method",
    "methods",
    "multi_label",
    "output_at",
    "perturbation",
    "refine",
    "relevance",
    "resize_maps",
    "sensitivity",
]


def method(name: str, **options: object) -> Choice[Method]:
    """A method with options, to pass to `explain`; a bare name means its defaults.

    Raises UnknownNameError for a name or an option that isn't known, naming the nearest.

    >>> method("grad-cam", positive=False).label
    'grad-cam[positive=False]'
    """
    return METHODS.choose(name, **options)


def methods() -> pd.DataFrame:
    """The registered methods as a table: name, family, needs, better, options, source, summary.

    >>> methods()["family"].unique().tolist()
    ['attention', 'cam', 'rescoring-cam', 'perturbation', 'control', 'gradient', 'layered-cam',
     'relevance']
    """
    table = METHODS.table()
    families = list(dict.fromkeys(table["family"]))
    return table.sort_values("family", key=lambda names: names.map(families.index), kind="stable", ignore_index=True)
