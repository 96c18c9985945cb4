"""Does the score fall, as sets of pixels go, by as much as the map says they weigh? Correlations over random sets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.families import CORRELATION, faithfulness
from pellucid.metrics.ranking import removal_orders
from pellucid.metrics.removals import Removals
from pellucid.metrics.road import check_maps
from pellucid.metrics.scores import FillChoice, Reading, Scores
from pellucid.metrics.subsets import Parts, RandomSets, blocks_of, set_size, set_sums
from pellucid.metrics.ties import mid_ranks

SIZES = (0.0125, 0.05, 0.2, 0.8)  # shares of the positions, evenly apart on a logarithmic scale up to 80 %
SAME = "the map, or the fall of the score, is the same for every set"
_ROUNDING = 1e-6  # a score that moves by less, relative to itself or to 1, doesn't move
_EXACT = 1e-10  # sums of float32 values in float64 that are equal differ by less


@faithfulness(
    "faithfulness-correlation",
    source="Bhatt et al. 2020, definition 3",
    higher_is_better=True,
    range=CORRELATION,
    missing=SAME,
)
def faithfulness_correlation(
    scores: Scores,
    maps: Tensor,
    *,
    subsets: int = 100,
    size: float = 0.2,
    fill: FillChoice = "zero",
    reading: Reading = "logit",
) -> Tensor:
    """Pearson's correlation between a random set's sum in the map and the score's fall when the set is removed.

    The paper leaves open which output of a classifier f is. The logit is what maps explain, and moves where a network
    is so sure that the probability doesn't.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        subsets: random sets of positions per image, the same for all maps of the image.
        size: positions in a set, a share of all or a whole number.
        fill: what takes the place of removed pixels.
        reading: "logit" or "probability".

    Returns:
        (B,) float64 in [-1, 1]; NaN where the map or the fall is the same for every set.

    >>> images = torch.tensor([[[[4.0, 3.0, 2.0, 1.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)), images)
    >>> faithfulness_correlation(scores, images[:, 0], size=2)
    tensor([1.], dtype=torch.float64)
    """
    check_maps(scores, maps)
    sets = _random(scores, subsets, size)
    return pearson(weights(sets, maps), falls(scores, sets, fill, reading))


@faithfulness(
    "sensitivity-n",
    source="Ancona et al. 2018, section 4 and figure 4",
    higher_is_better=True,
    range=CORRELATION,
    missing=SAME,
)
def sensitivity_n(
    scores: Scores,
    maps: Tensor,
    *,
    sizes: Sequence[float] = SIZES,
    subsets: int = 100,
    fill: FillChoice = "zero",
    reading: Reading = "logit",
) -> Tensor:
    """The correlation of "faithfulness-correlation" at several sizes of the sets, averaged.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        sizes: the paper's n, shares of all positions or whole numbers. Sizes that give the same n count once.
        subsets: random sets per size, the same as those of "faithfulness-correlation".
        fill: what takes the place of removed pixels.
        reading: "logit" or "probability".

    Returns:
        (B,) float64 in [-1, 1], the mean over the sizes at which it is defined; NaN where it is at none.

    >>> images = torch.tensor([[[[4.0, 3.0, 2.0, 1.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)), images)
    >>> sensitivity_n(scores, images[:, 0], sizes=[1, 2])
    tensor([1.], dtype=torch.float64)
    """
    check_maps(scores, maps)
    if not len(sizes):
        raise expected("sizes", "at least one size of the sets", "none")
    each = {sets.size: sets for sets in (_random(scores, subsets, size) for size in sizes)}
    found = [pearson(weights(sets, maps), falls(scores, sets, fill, reading)) for sets in each.values()]
    return torch.stack(found).nanmean(dim=0)


@faithfulness(
    "mu-fidelity",
    source="Bhatt et al. 2020, definition 3, over a grid and by ranks as in Xplique",
    higher_is_better=True,
    range=CORRELATION,
    missing=SAME,
)
def mu_fidelity(
    scores: Scores,
    maps: Tensor,
    *,
    grid: int = 9,
    size: float = 0.2,
    subsets: int = 200,
    fill: FillChoice = "zero",
) -> Tensor:
    """Spearman's correlation between a random set of blocks' sum in the map and the fall of the logit.

    Single pixels scattered over a large image hardly show to a network; blocks of a coarse grid do. Each set has the
    same number of blocks, as the definition says (Xplique draws each block by chance, so that its sets differ in size).

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        grid: blocks along each axis.
        size: blocks in a set, a share of all or a whole number.
        subsets: random sets of blocks per image, the same for all maps of the image.
        fill: what takes the place of removed pixels.

    Returns:
        (B,) float64 in [-1, 1]; NaN where the map or the fall is the same for every set.

    >>> images = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)) ** 3, images)
    >>> mu_fidelity(scores, images[:, 0], grid=3)
    tensor([1.], dtype=torch.float64)
    """
    check_maps(scores, maps)
    if grid < 2:
        raise expected("grid", "at least 2 blocks along each axis", grid)
    cells = blocks_of(scores.images, grid)
    sets = RandomSets(scores.seeds, cells, set_size(size, int(cells.max()) + 1), subsets)
    return spearman(weights(sets, maps), falls(scores, sets, fill, "logit"))


@faithfulness(
    "faithfulness-estimate",
    source="Alvarez-Melis & Jaakkola 2018, section 5.2",
    higher_is_better=True,
    range=CORRELATION,
    missing="the map, or the fall of the score, is the same for every step",
)
def faithfulness_estimate(
    scores: Scores,
    maps: Tensor,
    *,
    steps: int = 64,
    fill: FillChoice = "zero",
    reading: Reading = "probability",
) -> Tensor:
    """Pearson's correlation between the map's sum over a step's pixels and the score's fall when they alone go.

    The paper removes one feature at a time and reads the probability. Pixels are taken in the order of the map and
    in `steps` of equal size, since one by one they are too many and too small; as many steps as pixels is the paper's.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        steps: into how many parts the pixels are cut.
        fill: what takes the place of removed pixels.
        reading: "probability" or "logit".

    Returns:
        (B,) float64 in [-1, 1]; NaN where the map or the fall is the same for every step.

    >>> images = torch.tensor([[[[4.0, 3.0, 2.0, 1.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)), images)
    >>> faithfulness_estimate(scores, images[:, 0], steps=4)
    tensor([1.], dtype=torch.float64)
    """
    check_maps(scores, maps)
    parts = Parts(removal_orders(maps, scores.seeds)[0], steps)
    return pearson(weights(parts, maps), falls(scores, parts, fill, reading))


def weights(sets: Removals, maps: Tensor) -> Tensor:
    """What maps say of each set, (B, R) float64; 0 of a constant map, though sets differ in size: it says nothing."""
    flat = maps.flatten(1)
    constant = flat.amax(dim=1, keepdim=True) == flat.amin(dim=1, keepdim=True)
    return torch.where(constant, 0, set_sums(sets, maps))


def falls(scores: Scores, sets: Removals, fill: FillChoice, reading: Reading) -> Tensor:
    """By how much the score falls (B, R) when each set goes, float64; 0 where rounding alone can have moved it.

    A row that is the same to rounding throughout is 0 throughout.
    """
    plain = scores.unperturbed(reading).double().unsqueeze(1)
    found = plain - scores.without(sets, fill, reading).double()
    grain = _ROUNDING * plain.abs().clamp(min=1)
    moved = (found.abs() > grain) & (found.amax(dim=1, keepdim=True) - found.amin(dim=1, keepdim=True) > grain)
    return torch.where(moved, found, 0)


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation (B,) of the rows of two (B, R), float64; NaN where a row is constant to rounding.

    >>> pearson(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]), torch.tensor([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]]))
    tensor([1.0000,    nan], dtype=torch.float64)
    """
    a, b = _unit(one.double()), _unit(other.double().to(one.device))
    return (a * b).sum(dim=1).clamp(-1, 1)


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of the ranks, equal values sharing their mean rank; NaN where a row is constant."""
    constant = _unit(one.double()).isnan().any(dim=1) | _unit(other.double()).to(one.device).isnan().any(dim=1)
    return torch.where(constant, torch.nan, pearson(_ranks(one), _ranks(other).to(one.device)))


def _unit(rows: Tensor) -> Tensor:
    """Rows (B, R) less their mean, of length 1; NaN where they are constant to rounding."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    constant = length <= _EXACT * rows.shape[1] ** 0.5 * rows.abs().amax(dim=1, keepdim=True)
    return torch.where(constant, torch.nan, centred / length)


def _ranks(rows: Tensor) -> Tensor:
    """Mid-ranks, of which sums that are equal but for rounding share one."""
    values = rows.double()
    largest = values.abs().amax(dim=1, keepdim=True)
    return mid_ranks((values / torch.where(largest > 0, largest, 1)).round(decimals=10))


def _random(scores: Scores, subsets: int, size: float) -> RandomSets:
    """Random sets of positions."""
    positions = scores.images.shape[2:].numel()
    return RandomSets(scores.seeds, torch.arange(positions), set_size(size, positions), subsets)
