"""Metrics that compare a map with the scores of sets of pixels, and the axioms, in plain loops from their papers.

Images are (C, N) with pixels in a row, maps (N,), a set a list of pixels; `score` takes an image (C, N).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Score = Callable[[Floats], float]
PixelSet = Sequence[int]


def without(image: Floats, pixels: PixelSet, instead: Floats | None = None) -> Floats:
    """The image with zero, or what another image (C, N) has, at some pixels."""
    changed = image.copy()
    for pixel in pixels:
        for channel in range(len(image)):
            changed[channel, pixel] = 0.0 if instead is None else instead[channel, pixel]
    return changed


def pearson(one: Sequence[float], other: Sequence[float]) -> float:
    """The product-moment correlation; NaN where a side doesn't vary."""
    mean, mean_other = sum(one) / len(one), sum(other) / len(other)
    product = sum((a - mean) * (b - mean_other) for a, b in zip(one, other, strict=True))
    square = sum((a - mean) ** 2 for a in one)
    square_other = sum((b - mean_other) ** 2 for b in other)
    return product / math.sqrt(square * square_other) if square * square_other else math.nan


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean."""
    below = [sum(each < value for each in values) for value in values]
    equal = [sum(each == value for each in values) for value in values]
    return [low + (same + 1) / 2 for low, same in zip(below, equal, strict=True)]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation of ranks."""
    return pearson(ranks(one), ranks(other))


def sums(saliency: Floats, sets: Sequence[PixelSet]) -> list[float]:
    """What the map says of each set."""
    return [sum(float(saliency[pixel]) for pixel in pixels) for pixels in sets]


def drops(score: Score, image: Floats, sets: Sequence[PixelSet]) -> list[float]:
    """The score's fall as each set becomes zero."""
    return [score(image) - score(without(image, pixels)) for pixels in sets]


def faithfulness_correlation(score: Score, image: Floats, saliency: Floats, sets: Sequence[PixelSet]) -> float:
    """Bhatt et al. 2020, definition 3."""
    return pearson(sums(saliency, sets), drops(score, image, sets))


def sensitivity_n(score: Score, image: Floats, saliency: Floats, by_size: Sequence[Sequence[PixelSet]]) -> float:
    """Ancona et al. 2018: a correlation for each n, averaged over n."""
    each = [faithfulness_correlation(score, image, saliency, sets) for sets in by_size]
    return sum(each) / len(each)


def mu_fidelity(score: Score, image: Floats, saliency: Floats, sets: Sequence[PixelSet]) -> float:
    """The same over blocks, by ranks."""
    return spearman(sums(saliency, sets), drops(score, image, sets))


def descending(saliency: Floats, ties: Sequence[int]) -> list[int]:
    """Pixels from most to least relevant, equal ones in the order of `ties`."""
    return sorted(range(len(saliency)), key=lambda pixel: (-saliency[pixel], ties.index(pixel)))


def faithfulness_estimate(score: Score, image: Floats, saliency: Floats, ties: Sequence[int], steps: int) -> float:
    """Alvarez-Melis & Jaakkola 2018, a step of the map's order in a feature's place; steps of equal size."""
    order = descending(saliency, ties)
    size = len(order) // steps
    sets = [order[step * size : (step + 1) * size] for step in range(steps)]
    return faithfulness_correlation(score, image, saliency, sets)


def monotonicity(score: Score, image: Floats, saliency: Floats, ties: Sequence[int], steps: int) -> list[bool]:
    """Arya et al. 2019: whether the score holds or rises at each step after the first, least relevant added first."""
    order = descending(saliency, ties)
    size = len(order) // steps
    after = [score(without(image, order[: len(order) - (step + 1) * size])) for step in range(steps)]
    return [later >= earlier for earlier, later in itertools.pairwise(after)]


def expected_changes(score: Score, image: Floats, blocks: Sequence[PixelSet], drawn: Sequence[Floats]) -> list[float]:
    """Nguyen & Martinez 2020: the expected squared loss over replacements of each feature."""
    return [
        sum((score(without(image, pixels, other)) - score(image)) ** 2 for other in drawn) / len(drawn)
        for pixels in blocks
    ]


def monotonicity_correlation(
    score: Score, image: Floats, saliency: Floats, blocks: Sequence[PixelSet], drawn: Sequence[Floats]
) -> float:
    """Nguyen & Martinez 2020, metric 2.3."""
    return spearman([abs(each) for each in sums(saliency, blocks)], expected_changes(score, image, blocks, drawn))


def non_sensitivity(
    score: Score, image: Floats, saliency: Floats, blocks: Sequence[PixelSet], drawn: Sequence[Floats]
) -> int:
    """Nguyen & Martinez 2020, metric 2.2: the symmetric difference of what isn't marked and what doesn't count."""
    unmarked = {place for place, pixels in enumerate(blocks) if all(saliency[pixel] == 0 for pixel in pixels)}
    changes = expected_changes(score, image, blocks, drawn)
    idle = {place for place, change in enumerate(changes) if change < 1e-20}
    return len(unmarked ^ idle)


def mean_difference(foretold: Sequence[float], fallen: Sequence[float], *, scaled: bool) -> float:
    """Yeh et al. 2019, definition 2.1, and the scale that serves the map best."""
    factor = 1.0
    if scaled:
        power = sum(each * each for each in foretold)
        factor = sum(a * b for a, b in zip(foretold, fallen, strict=True)) / power if power else 0.0
    return sum((factor * a - b) ** 2 for a, b in zip(foretold, fallen, strict=True)) / len(fallen)


def infidelity_squares(
    score: Score, image: Floats, saliency: Floats, squares: Sequence[PixelSet], *, scaled: bool
) -> float:
    """By squares that are removed; the map holds contributions."""
    return mean_difference(sums(saliency, squares), drops(score, image, squares), scaled=scaled)


def infidelity_noise(score: Score, image: Floats, saliency: Floats, noises: Sequence[Floats], *, scaled: bool) -> float:
    """By a noisy baseline in the image's place; the map holds derivatives, the same for each channel."""
    foretold, fallen = [], []
    for noise in noises:
        change = image - noise
        foretold.append(
            sum(float(saliency[pixel] * change[channel, pixel]) for channel, pixel in np.ndindex(*image.shape))
        )
        fallen.append(score(image) - score(image - change))
    return mean_difference(foretold, fallen, scaled=scaled)


def sufficiency(maps: Floats, classes: Sequence[int], threshold: float) -> list[float]:
    """Dasgupta et al. 2022: among others whose map lies near, both scaled to length 1, the share of the same class."""
    found = []
    for place, own in enumerate(maps):
        near = []
        for other, saliency in enumerate(maps):
            lengths = [math.sqrt(float((each**2).sum())) or 1.0 for each in (own, saliency)]
            distance = math.sqrt(float(((own / lengths[0] - saliency / lengths[1]) ** 2).sum()))
            if other != place and distance <= threshold:
                near.append(classes[other] == classes[place])
        found.append(sum(near) / len(near) if near else math.nan)
    return found


def completeness(score: Score, image: Floats, saliency: Floats) -> float:
    """Sundararajan et al. 2017, proposition 1: the error relative to what is to be added up to."""
    difference = score(image) - score(np.zeros_like(image))
    return abs(sum(saliency.tolist()) - difference) / abs(difference)
