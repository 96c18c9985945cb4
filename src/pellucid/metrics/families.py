"""The registry of metrics, and the line that declares a metric of each family: `@faithfulness("name", source=…, …)`.

Each takes what `Registry.register` does, of which some is the family's: higher_is_better, range and missing are the
metric's own as a rule.

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
from functools import partial

from torch import Tensor

from pellucid.registry import Registry

Metric = Callable[..., Tensor]

METRICS: Registry[Metric] = Registry("metric")

SHARE = (0.0, 1.0)
CORRELATION = (-1.0, 1.0)
ABOVE_ZERO = (0.0, math.inf)


# whether the score follows the map as pixels go: f(scores, maps (B, *S)) -> values (B,)
faithfulness = partial(METRICS.register, family="faithfulness", needs=("scores", "maps"))

# a map against the truth: f(maps (B, *S), masks (B, *S)) -> values (B,)
localisation = partial(
    METRICS.register, family="localisation", needs=("maps", "masks"), higher_is_better=True, range=SHARE
)

# how much a map asks the eye to take in: f(maps (B, *S)) -> values (B,)
complexity = partial(METRICS.register, family="complexity", needs=("maps",))

# how much a map changes as the image hardly does: f(again, maps (B, *S)) -> values (B,)
robustness = partial(METRICS.register, family="robustness", needs=("again", "maps"))

# how much a map owes to the network's weights: f(again, maps (B, *S)) -> values (B,)
sanity = partial(METRICS.register, family="sanity", needs=("again", "maps"))

# how far a map is from a rule that it should keep: f(scores, maps (B, *S)) -> values (B,)
axiom = partial(METRICS.register, family="axioms", needs=("scores", "maps"))

# how alike two methods' maps are: f(maps (B, *S), other (B, *S)) -> values (B,)
agreement = partial(METRICS.register, family="agreement", needs=("maps", "other"), higher_is_better=True)
