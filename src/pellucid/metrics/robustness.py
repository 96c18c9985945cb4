"""How much a map changes while the image, and what the network says of it, hardly do.

Neighbours of an image are drawn once for all methods and all metrics that ask for the same radius and number of draws.
A radius is in units of the normalised image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.errors import expected
from pellucid.metrics.again import Again, Near
from pellucid.metrics.families import ABOVE_ZERO, SHARE, robustness
from pellucid.metrics.ranking import removal_count, removal_orders

RADIUS = 0.2
DRAWS = 10
LEAST = 1e-6  # the smallest divisor in relative stability
CHANGES = (0.05, 0.1, 0.2, 0.4, 0.8)  # of an attack, relative to the image's norm
_HALF = 0.5

_EMPTY = "the map is all zero"
_UNSTABLE = "the map is all zero, or no neighbour keeps the prediction"


# ---- the formulas: maps (B, *S) and images (B, C, *S) beside R neighbours' (B, R, ...); R values (B, R) each ----


def relative_change(maps: Tensor, near: Tensor) -> Tensor:
    """Frobenius norm of the map's change, relative to the map's own (Yeh 2019, as their code has it).

    NaN where the map is all zero.

    >>> relative_change(torch.tensor([[3.0, 4.0]]), torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]))
    tensor([[0., 1.]], dtype=torch.float64)
    """
    own = maps.unsqueeze(1).double().flatten(2)
    return _distance(maps, near) / _or_nan(_norm(own))


def lipschitz_ratio(maps: Tensor, near: Tensor, images: Tensor, near_images: Tensor) -> Tensor:
    """The map's change for each unit by which the image changes (Alvarez-Melis & Jaakkola 2018).

    >>> maps, images = torch.tensor([[1.0, 1.0]]), torch.tensor([[[0.0, 0.0]]])
    >>> lipschitz_ratio(maps, torch.tensor([[[1.0, 3.0]]]), images, torch.tensor([[[[0.5, 0.0]]]]))
    tensor([[4.]], dtype=torch.float64)
    """
    return _distance(maps, near) / _or_nan(_distance(images, near_images))


def continuity_ratio(maps: Tensor, near: Tensor, images: Tensor, near_images: Tensor) -> Tensor:
    """The sum of the map's changes in size for each unit by which the image changes (Montavon et al. 2018).

    NaN for a neighbour that is the image itself.

    >>> maps, images = torch.tensor([[1.0, 1.0]]), torch.tensor([[[0.0, 0.0]]])
    >>> continuity_ratio(maps, torch.tensor([[[2.0, 3.0]]]), images, torch.tensor([[[[3.0, 4.0]]]]))
    tensor([[0.6000]], dtype=torch.float64)
    """
    change = (near.double() - maps.unsqueeze(1).double()).flatten(2).abs().sum(dim=2)
    return change / _or_nan(_distance(images, near_images))


def relative_stability(maps: Tensor, near: Tensor, change: Tensor, least: float = LEAST) -> Tensor:
    """The map's relative change, pixel by pixel, over a `change` (B, R) of what it should follow.

    Source: Agarwal et al. 2022, RIS, ROS and RRS, with the Euclidean norm. Neither divisor is below `least`.

    >>> maps = torch.tensor([[2.0, -2.0]])
    >>> relative_stability(maps, torch.tensor([[[3.0, -2.0]]]), torch.tensor([[0.25]]))
    tensor([[2.]], dtype=torch.float64)
    """
    moved = relative_distance(maps, near, least) / change.double().clamp(min=least)
    return torch.where(maps.flatten(1).any(dim=1, keepdim=True), moved, math.nan)


def relative_distance(values: Tensor, near: Tensor, least: float = LEAST) -> Tensor:
    """Euclidean norm of (values − near) / values, each divisor at least `least` in size, with its sign kept.

    >>> relative_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[[4.0, 0.0]]]))
    tensor([[1.]], dtype=torch.float64)
    """
    own = values.unsqueeze(1).double().flatten(2)
    divisor = torch.where(own.abs() < least, torch.where(own < 0, -least, least), own)
    return _norm((own - near.double().flatten(2)) / divisor)


def top_overlap(maps: Tensor, near: Tensor, seeds: Tensor, count: int) -> Tensor:
    """Share of a map's `count` most relevant positions that are among the neighbours' maps' too.

    Ties are broken by the image's seed, the same way in both.

    >>> maps = torch.tensor([[1.0, 2.0, 3.0]])
    >>> top_overlap(maps, torch.tensor([[[9.0, 0.0, 8.0]]]), torch.tensor([0]), 2)
    tensor([[0.5000]], dtype=torch.float64)
    """
    draws = near.shape[1]
    own = _top(maps.flatten(1), seeds, count).unsqueeze(1)
    theirs = _top(near.flatten(0, 1).flatten(1), seeds.repeat_interleave(draws), count).unflatten(0, (-1, draws))
    both: Tensor = (own & theirs).sum(dim=2).double()
    return both / count


def consistent_share(codes: Tensor, classes: Tensor) -> Tensor:
    """Share of the other images with the same code that are predicted to be of the same class; NaN without any.

    Arguments:
        codes: (n, m), the explanations made discrete, equal where all m values are.
        classes: (n,), the predictions.

    >>> consistent_share(torch.tensor([[0], [0], [0], [1]]), torch.tensor([5, 5, 7, 5]))
    tensor([0.5000, 0.5000, 0.0000,    nan], dtype=torch.float64)
    """
    _, group = codes.unique(dim=0, return_inverse=True)
    _, both = torch.stack([group, classes.to(group)], dim=1).unique(dim=0, return_inverse=True)
    return _others(both) / _or_nan(_others(group))


# ---- the metrics ----


@robustness(
    "max-sensitivity",
    source="Yeh et al. 2019, SENS_MAX; divided by the map's norm as in their code",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing=_EMPTY,
)
def max_sensitivity(again: Again, maps: Tensor, *, radius: float = RADIUS, draws: int = DRAWS) -> Tensor:
    """The largest relative change of the map, over images with uniform noise of at most `radius` in each value."""
    return relative_change(maps, neighbours(again, radius, draws).maps).amax(dim=1)


@robustness(
    "avg-sensitivity",
    source="Yeh et al. 2019; Bhatt et al. 2020, the mean in place of the largest",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing=_EMPTY,
)
def avg_sensitivity(again: Again, maps: Tensor, *, radius: float = RADIUS, draws: int = DRAWS) -> Tensor:
    """The mean relative change of the map, over images with uniform noise of at most `radius` in each value."""
    return relative_change(maps, neighbours(again, radius, draws).maps).mean(dim=1)


@robustness(
    "local-lipschitz",
    source="Alvarez-Melis & Jaakkola 2018, the local Lipschitz estimate, by drawing in place of a search",
    higher_is_better=False,
    range=ABOVE_ZERO,
)
def local_lipschitz(again: Again, maps: Tensor, *, radius: float = RADIUS, draws: int = DRAWS) -> Tensor:
    """The map's largest change per unit of the image's, over images with uniform noise of at most `radius`."""
    near = neighbours(again, radius, draws)
    return lipschitz_ratio(maps, near.maps, again.images, near.images).amax(dim=1)


@robustness(
    "continuity",
    source="Montavon et al. 2018, explanation continuity, over translations",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing="the map is all zero, or the image the same wherever it is moved",
)
def continuity(again: Again, maps: Tensor, *, reach: int = 4, draws: int = DRAWS, relative: bool = True) -> Tensor:
    """The map's largest change per unit of the image's, as the image is moved by a few pixels.

    The map's change is the sum of its values' changes in size, the image's is Euclidean. Where the paper takes any two
    images and shows digits being moved, each image is moved here by whole pixels along all axes, what enters at an edge
    repeating the edge.

    Arguments:
        again: makes the method's maps again.
        maps: (B, *S), finite.
        reach: pixels by which it is moved at most along each axis.
        draws: moves per image, the same for all methods.
        relative: divide by the sum of the map's own values in size, so that methods of other units compare; False is
            the paper's.

    Returns:
        (B,) float64, at least 0, per unit of the normalised image; NaN where no move changes the image, or relative to
        a map of zeros.

    Raises:
        InputError: a reach or a number of draws below 1.
    """
    near = moved(again, reach, draws)
    ratios = continuity_ratio(maps, near.maps, again.images, near.images)
    some = ~ratios.isnan()
    largest = torch.where(some.any(dim=1), ratios.nan_to_num(nan=0.0).amax(dim=1), math.nan)
    return largest / _or_nan(maps.flatten(1).double().abs().sum(dim=1)) if relative else largest


@robustness(
    "relative-input-stability",
    source="Agarwal et al. 2022, RIS",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing=_UNSTABLE,
)
def relative_input_stability(
    again: Again, maps: Tensor, *, radius: float = RADIUS, draws: int = DRAWS, least: float = LEAST
) -> Tensor:
    """The map's largest relative change over the image's, pixel by pixel, over neighbours with the same prediction."""
    near = neighbours(again, radius, draws)
    change = relative_distance(again.images, near.images, least)
    return _largest(relative_stability(maps, near.maps, change, least), again, near)


@robustness(
    "relative-output-stability",
    source="Agarwal et al. 2022, ROS",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing=_UNSTABLE,
)
def relative_output_stability(
    again: Again, maps: Tensor, *, radius: float = RADIUS, draws: int = DRAWS, least: float = LEAST
) -> Tensor:
    """The map's largest relative change over the change of the logits, over neighbours with the same prediction."""
    near = neighbours(again, radius, draws)
    change = _distance(again.logits, near.logits)
    return _largest(relative_stability(maps, near.maps, change, least), again, near)


@robustness(
    "relative-representation-stability",
    source="Agarwal et al. 2022, RRS",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing=_UNSTABLE + ", or the network has no weights",
)
def relative_representation_stability(
    again: Again, maps: Tensor, *, radius: float = RADIUS, draws: int = DRAWS, layer: str = "", least: float = LEAST
) -> Tensor:
    """The map's largest relative change over that of the network's inner representation of the image.

    Over neighbours with the same prediction. The representation is the output of the module named `layer`; "" means the
    penultimate features, what enters the last layer of weights.

    Raises:
        InputError: no such layer, or one that doesn't run or give a tensor.
    """
    near = neighbours(again, radius, draws)
    if not layer and not again.owners:
        return torch.full((len(maps),), math.nan, dtype=torch.float64, device=maps.device)
    own = again.features_of(again.images, layer, "own")
    theirs = again.features_of(near.images.flatten(0, 1), layer, near.name).unflatten(0, near.images.shape[:2])
    change = relative_distance(own, theirs, least)
    return _largest(relative_stability(maps, near.maps, change, least), again, near)


@robustness(
    "attack",
    source="Ghorbani et al. 2019, top-k intersection under random-sign perturbation",
    higher_is_better=True,
    range=ABOVE_ZERO,
    missing="the map is constant, or the image all zero",
)
def attack(
    again: Again, maps: Tensor, *, changes: Sequence[float] = CHANGES, draws: int = 4, top: float = 0.02
) -> Tensor:
    """The smallest change of the image that moves the map while the prediction stays.

    Each value of the image goes up or down by the same amount, in `draws` random ways; the same ways are tried at each
    of the growing `changes`, the norm of the change relative to the image's. The map has moved where less than half of
    its `top` share of positions is still among the most relevant. Infinite where no change that was tried moves it.

    Raises:
        InputError: changes that aren't positive, or a top share without a position.
    """
    steps = sorted(changes)
    if not steps or not steps[0] > 0:
        raise expected("changes", "one or more, all above 0", changes)
    count = removal_count(top, maps[0].numel())
    if not count:
        raise expected("top", f"a share of {maps[0].numel()} positions that holds one at least", top)
    flat = maps.flatten(1)
    usable = (flat.amax(dim=1) > flat.amin(dim=1)) & again.images.flatten(1).any(dim=1)
    smallest = torch.full((len(maps),), math.inf, dtype=torch.float64, device=maps.device)
    for step in steps:
        if not bool((usable & smallest.isinf()).any()):
            break
        overlaps, same = _attacked(again, step, draws, count)
        hit = ((overlaps < _HALF) & same).any(dim=1)
        smallest = torch.where(smallest.isinf() & hit, step, smallest)
    return torch.where(usable, smallest, math.nan)


def _attacked(again: Again, step: float, draws: int, count: int) -> tuple[Tensor, Tensor]:
    """Overlaps (B, R) of the maps' `count` top positions, and whether the prediction stays, after an attack's step."""

    def moved(image: Tensor, generator: torch.Generator) -> Tensor:
        signs = torch.randint(0, 2, image.shape, generator=generator) * 2 - 1
        return image + step * image.square().mean().sqrt() * signs.to(image)

    def overlap(own: Tensor, near: Tensor) -> Tensor:
        return top_overlap(own, near, again.draws, count)

    def versions() -> Tensor:
        return again.versions(moved, draws)

    name = ("attack", step, draws)
    overlaps = again.compared((name, count), overlap, versions=versions)
    classes = again.shared(name, lambda: again.logits_of(versions().flatten(0, 1)).argmax(dim=1))
    same = classes.unflatten(0, (-1, draws)) == again.logits.argmax(dim=1, keepdim=True)
    return overlaps, same.to(overlaps.device)


@robustness(
    "consistency",
    source="Dasgupta et al. 2022, local consistency",
    higher_is_better=True,
    range=SHARE,
    missing="the map is constant, or no other image has the same discrete explanation",
    needs=("all maps", "all classes"),
)
def consistency(maps: Tensor, classes: Tensor, *, grid: int = 4, top: int = 1) -> Tensor:
    """Share of the other images with the same discrete explanation that have the same prediction.

    A map is made discrete as the set of its `top` cells with the largest mean, of a grid of `grid` cells along each
    axis; cells that are as large as the last of them count too.

    Arguments:
        maps: (n, *S) of all images.
        classes: (n,) their predicted classes.
        grid, top: see above.

    Returns:
        (n,) float64 in [0, 1].

    Raises:
        InputError: fewer cells than `top`, or none.

    >>> maps = torch.zeros(3, 8, 8)
    >>> maps[:2, 0, 0] = maps[2, 7, 7] = 1.0
    >>> consistency(maps, torch.tensor([1, 1, 1]))
    tensor([1., 1., nan], dtype=torch.float64)
    """
    axes = maps.ndim - 1
    if grid < 1 or not 0 < top <= grid**axes:
        raise expected("top", f"from 1 to the {max(grid, 0) ** axes} cells of the grid", top)
    pool = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)[axes - 1]
    cells = pool(maps.double().unsqueeze(1), grid).flatten(1)
    codes = cells >= cells.topk(top, dim=1).values[:, -1:]
    shares = torch.full((len(maps),), math.nan, dtype=torch.float64, device=maps.device)
    flat = maps.flatten(1)
    says = flat.amax(dim=1) > flat.amin(dim=1)
    if bool(says.any()):
        shares[says] = consistent_share(codes[says].long(), classes.to(maps.device)[says])
    return shares


def neighbours(again: Again, radius: float, draws: int) -> Near:
    """Images with uniform noise of at most `radius` in each value, and their maps and logits.

    Raises InputError for a radius of 0 or less, or no draw.
    """
    if not radius > 0:
        raise expected("radius", "more than 0, in units of the normalised image", radius)
    if draws < 1:
        raise expected("draws", "at least 1", draws)

    def noisy(image: Tensor, generator: torch.Generator) -> Tensor:
        return image + radius * (2 * torch.rand(image.shape, generator=generator) - 1).to(image)

    return again.near(noisy, ("uniform", float(radius)), draws)


def moved(again: Again, reach: int, draws: int) -> Near:
    """Images moved by at most `reach` pixels along each axis, never by none, and their maps and logits.

    Raises InputError for a reach or a number of draws below 1.
    """
    for name, value in {"reach": reach, "draws": draws}.items():
        if value < 1:
            raise expected(name, "at least 1", value)

    def shifted(image: Tensor, generator: torch.Generator) -> Tensor:
        shape, side = image.shape[1:], 2 * reach + 1
        number = int(torch.randint(side ** len(shape) - 1, (), generator=generator))
        number += number >= side ** len(shape) // 2  # in the middle is the move by none
        wide = functional.pad(image.unsqueeze(0), (reach, reach) * len(shape), mode="replicate")[0]
        for axis, length in enumerate(shape, start=1):
            number, start = divmod(number, side)
            wide = wide.narrow(axis, start, length)
        return wide

    return again.near(shifted, ("moved", reach), draws)


def _largest(values: Tensor, again: Again, near: Near) -> Tensor:
    """The largest (B,) of values (B, R) over neighbours with the image's own prediction; NaN where none has it."""
    same = near.logits.argmax(dim=2) == again.logits.argmax(dim=1, keepdim=True)
    same = same.to(values.device)
    found = torch.where(same, values, -math.inf).amax(dim=1)
    return torch.where(same.any(dim=1), found, math.nan)


def _distance(values: Tensor, near: Tensor) -> Tensor:
    return _norm(near.double().flatten(2) - values.unsqueeze(1).double().flatten(2))


def _norm(values: Tensor) -> Tensor:
    """Euclidean norms (B, R) of values (B, R, N)."""
    return values.square().sum(dim=2).sqrt()


def _others(labels: Tensor) -> Tensor:
    """How many others (n,) have each one's label."""
    counts: Tensor = labels.bincount()[labels]
    return counts.double() - 1


def _or_nan(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, math.nan, divisor)


def _top(flat: Tensor, seeds: Tensor, count: int) -> Tensor:
    """Which positions (B, N) are among the `count` most relevant."""
    order, _ = removal_orders(flat, seeds)
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order[:, :count], True)
