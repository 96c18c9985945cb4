"""The registry of metrics, and the line that declares a metric of each family.

A metric gives one value per image, float64, for the maps of one method; NaN where it has none, and `missing` says in a
few words what that means. It is called with what `needs` names, in that order:

- "maps": (B, *S) float32, finite, on the images' device.
- "scores": `Scores`, what the network says of the images and of changed ones.
- "again": `Again`, the method's maps of changed images, and of a changed network.
- "masks": (B, *S) bool, True on the finding; each has a pixel.
- "boxes": a tensor (n, 2, axes) per image, the first corner and the one past the last of each box, n > 0.
- "anatomy": (B, *S) bool, True inside the organ; each has a pixel.
- "spacing": mm from one pixel to the next along each axis, or None where it isn't known.
- "other": (B, *S), the maps by another method; the value is the mean over the others that aren't controls.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from pellucid.registry import Registry

Metric = Callable[..., Tensor]
Declared = Callable[[Metric], Metric]

METRICS: Registry[Metric] = Registry("metric")

SHARE = (0.0, 1.0)
CORRELATION = (-1.0, 1.0)
ABOVE_ZERO = (0.0, math.inf)
ANY = (-math.inf, math.inf)


def faithfulness(
    name: str,
    *,
    source: str,
    higher_is_better: bool,
    range: tuple[float, float],
    missing: str = "",
    needs: tuple[str, ...] = ("scores", "maps"),
) -> Declared:
    """Declare a metric of whether the score follows the map as pixels go: `f(scores, maps (B, *S)) -> values (B,)`."""
    return METRICS.register(
        name,
        family="faithfulness",
        source=source,
        needs=needs,
        higher_is_better=higher_is_better,
        range=range,
        missing=missing,
    )


def localisation(
    name: str,
    *,
    source: str,
    higher_is_better: bool = True,
    range: tuple[float, float] = SHARE,
    missing: str = "",
    needs: tuple[str, ...] = ("maps", "masks"),
) -> Declared:
    """Declare a metric of a map against the truth: `f(maps (B, *S), masks (B, *S)) -> values (B,)`."""
    return METRICS.register(
        name,
        family="localisation",
        source=source,
        needs=needs,
        higher_is_better=higher_is_better,
        range=range,
        missing=missing,
    )


def complexity(
    name: str, *, source: str, higher_is_better: bool, range: tuple[float, float], missing: str = ""
) -> Declared:
    """Declare a metric of how much a map asks the eye to take in: `f(maps (B, *S)) -> values (B,)`."""
    return METRICS.register(
        name,
        family="complexity",
        source=source,
        needs=("maps",),
        higher_is_better=higher_is_better,
        range=range,
        missing=missing,
    )


def robustness(
    name: str,
    *,
    source: str,
    higher_is_better: bool,
    range: tuple[float, float],
    missing: str = "",
    needs: tuple[str, ...] = ("again", "maps"),
) -> Declared:
    """Declare a metric of how much a map changes as the image hardly does: `f(again, maps (B, *S)) -> values (B,)`."""
    return METRICS.register(
        name,
        family="robustness",
        source=source,
        needs=needs,
        higher_is_better=higher_is_better,
        range=range,
        missing=missing,
    )


def sanity(
    name: str, *, source: str, higher_is_better: bool, range: tuple[float, float], missing: str = ""
) -> Declared:
    """Declare a metric of how much a map owes to the network's weights: `f(again, maps (B, *S)) -> values (B,)`."""
    return METRICS.register(
        name,
        family="sanity",
        source=source,
        needs=("again", "maps"),
        higher_is_better=higher_is_better,
        range=range,
        missing=missing,
    )


def axiom(
    name: str,
    *,
    source: str,
    higher_is_better: bool,
    range: tuple[float, float],
    missing: str = "",
    needs: tuple[str, ...] = ("scores", "maps"),
) -> Declared:
    """Declare a metric of how far a map is from a rule it should keep: `f(scores, maps (B, *S)) -> values (B,)`."""
    return METRICS.register(
        name,
        family="axioms",
        source=source,
        needs=needs,
        higher_is_better=higher_is_better,
        range=range,
        missing=missing,
    )


def agreement(name: str, *, source: str, range: tuple[float, float], missing: str = "") -> Declared:
    """Declare a metric of how alike two methods' maps are: `f(maps (B, *S), other (B, *S)) -> values (B,)`."""
    return METRICS.register(
        name,
        family="agreement",
        source=source,
        needs=("maps", "other"),
        higher_is_better=True,
        range=range,
        missing=missing,
    )
