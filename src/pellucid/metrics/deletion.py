"""Curves of the score as a map's pixels, patches or superpixels go, or come, and the areas under them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.attribution.superpixels import Regions, regions_of
from pellucid.errors import expected
from pellucid.metrics.families import SHARE, faithfulness
from pellucid.metrics.fills import filling
from pellucid.metrics.ranking import removal_orders
from pellucid.metrics.removals import First
from pellucid.metrics.road import check_maps
from pellucid.metrics.scores import FillChoice, Reading, Scores

STEPS = 56  # of 896 pixels at 224; a finer curve costs more and moves its area little
UNIFORM = filling("noise", kind="uniform")


@faithfulness(
    "deletion",
    source="Petsiuk et al. 2018 (RISE), causal metrics",
    higher_is_better=False,
    range=SHARE,
)
def deletion(
    scores: Scores, maps: Tensor, *, steps: int = STEPS, fill: FillChoice = "zero", reading: Reading = "probability"
) -> Tensor:
    """Area under the score as the most relevant pixels go first, over the share that is gone.

    From the whole image to none of it in `steps` of equal size to a pixel, by the trapezoid rule over the realised
    shares. The paper takes 224 steps at 224 pixels. Ties are broken by the image's seed.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        steps: how many changed images are scored of each; where there are more of them than pixels, as many as those.
        fill: what takes the place of removed pixels.
        reading: "probability", or "logit", whose area has no bounds.

    Returns:
        (B,) float64.

    >>> images = torch.tensor([[[[4.0, 0.0, 0.0, 0.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.amax((1, 2, 3)) / 4, images)
    >>> deletion(scores, images[:, 0])
    tensor([0.1250], dtype=torch.float64)
    """
    order = _order(scores, maps)
    return _area(scores, First(order, _counts(order.shape[1], steps)), fill, reading)


@faithfulness(
    "insertion",
    source="Petsiuk et al. 2018 (RISE), causal metrics",
    higher_is_better=True,
    range=SHARE,
)
def insertion(
    scores: Scores, maps: Tensor, *, steps: int = STEPS, fill: FillChoice = "blur", reading: Reading = "probability"
) -> Tensor:
    """Area under the score as the most relevant pixels come first, over the share that is there.

    It starts where `fill` has taken the place of everything, by default from the blurred image, since sharp edges of
    what was put into an empty one mislead networks. Pixels come in the order in which `deletion` removes them.

    >>> images = torch.tensor([[[[4.0, 0.0, 0.0, 0.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.amax((1, 2, 3)) / 4, images)
    >>> insertion(scores, images[:, 0], fill="zero")
    tensor([0.8750], dtype=torch.float64)
    """
    order = _order(scores, maps).flip(1)
    return _area(scores, First(order, _counts(order.shape[1], steps)), fill, reading)


@faithfulness(
    "pixel-flipping",
    source="Bach et al. 2015, pixel-flipping",
    higher_is_better=False,
    range=SHARE,
)
def pixel_flipping(
    scores: Scores,
    maps: Tensor,
    *,
    features_in_step: int | None = None,
    fill: FillChoice = "zero",
    reading: Reading = "probability",
) -> Tensor:
    """Deletion in steps of so many pixels: area under the score over the share that is gone.

    The last step takes what is left. `features_in_step=None` makes it deletion's steps, which are then scored once for
    both.
    """
    order = _order(scores, maps)
    positions = order.shape[1]
    if features_in_step is None:
        return _area(scores, First(order, _counts(positions, STEPS)), fill, reading)
    _check_whole("features_in_step", features_in_step)
    return _area(scores, First(order, [*range(0, positions, features_in_step), positions]), fill, reading)


@faithfulness(
    "region-perturbation",
    source="Samek et al. 2017, section III (AOPC)",
    higher_is_better=True,
    range=(-1.0, 1.0),
)
def region_perturbation(
    scores: Scores,
    maps: Tensor,
    *,
    patch_size: int | None = None,
    regions: int = 100,
    fill: FillChoice = UNIFORM,
    reading: Reading = "probability",
) -> Tensor:
    """Mean fall of the score over the first steps in which patches go, those of the largest summed relevance first.

    The mean over L + 1 steps, of which step 0 is the image itself, as the paper has it; L is `regions` or all patches
    where there are fewer. The paper's uniform noise has each channel's own mean and spread here.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        patch_size: pixels along each axis; patches at the far borders are cut to what is left of the image. None makes
            about 625 patches of an image, so 9 pixels at 224, as in the paper, and of a volume as many.
        regions: how many patches go, one after another; as many changed images are scored.
        fill: what takes the place of removed pixels.
        reading: "probability", or "logit", whose fall has no bounds.
    """
    check_maps(scores, maps)
    _check_whole("regions", regions)
    patches = patch_numbers(maps.shape[1:], _patch_size(maps.shape[1:], 625, patch_size)).expand(maps.shape)
    removals = region_removals(maps, patches, scores.seeds)
    counts = removals.counts[:, 1 : 1 + regions]
    curve = _read(scores, First(removals.orders, counts), fill, reading)
    falls = scores.unperturbed(reading).cpu().double().unsqueeze(1) - curve
    return falls.sum(dim=1) / (1 + counts.shape[1])


@faithfulness(
    "selectivity",
    source="Montavon et al. 2018, explanation selectivity",
    higher_is_better=False,
    range=SHARE,
)
def selectivity(
    scores: Scores,
    maps: Tensor,
    *,
    patch_size: int | None = None,
    fill: FillChoice = "zero",
    reading: Reading = "probability",
) -> Tensor:
    """Area under the score as all patches go, those of the largest summed relevance first, over the share of pixels.

    Patches are of `patch_size` pixels along each axis; at the far borders they are cut to what is left of the image.
    None makes about 196 of an image, so 16 pixels at 224, and of a volume as many.
    """
    check_maps(scores, maps)
    patches = patch_numbers(maps.shape[1:], _patch_size(maps.shape[1:], 196, patch_size)).expand(maps.shape)
    return _area(scores, region_removals(maps, patches, scores.seeds), fill, reading)


@faithfulness(
    "irof",
    source="Rieger & Hansen 2020 (IROF)",
    higher_is_better=True,
    range=(-float("inf"), 1.0),
    missing="the score of the image itself is 0, or it has one superpixel alone, whose order says nothing",
)
def irof(scores: Scores, maps: Tensor, *, regions: Regions = "slic", fill: FillChoice = "mean") -> Tensor:
    """Area over the relative score as superpixels go, those of the largest mean relevance first, over the share gone.

    The score is relative to that of the image itself, of which a change can make more, so that the area may be
    negative. The area is taken over the share of pixels, since superpixels aren't of one size.

    Arguments:
        scores: what the network says of the images; its probability of the explained class is read.
        maps: (B, *S), finite.
        regions: "slic" for about 50 superpixels, blocks per axis, whole numbers (*S), or a
            function from an image (C, *S) to such numbers.
        fill: what takes the place of removed pixels.

    Raises:
        InputError: regions that can't be used.
    """
    check_maps(scores, maps)
    if isinstance(regions, str):  # the same for every method's maps
        numbers = scores.kept(("regions", regions), lambda: regions_of(scores.images, regions))
    else:
        numbers = regions_of(scores.images, regions)
    whole = scores.unperturbed().cpu().double()
    over = 1 - _area(scores, region_removals(maps, numbers, scores.seeds, mean=True), fill, "probability") / whole
    return torch.where(numbers.flatten(1).amax(dim=1).cpu() > 0, over, torch.nan)


def patch_numbers(shape: Sequence[int], size: int) -> Tensor:
    """Numbers (*S) of the patches of `size` pixels along each axis, from the first corner on; the last may be cut.

    >>> patch_numbers((2, 5), 2)
    tensor([[0, 0, 1, 1, 2],
            [0, 0, 1, 1, 2]])
    """
    _check_whole("patch_size", size)
    numbers = torch.zeros((), dtype=torch.long)
    for length in shape:
        numbers = numbers.unsqueeze(-1) * -(-length // size) + torch.arange(length) // size
    return numbers


def region_removals(maps: Tensor, regions: Tensor, seeds: Tensor, *, mean: bool = False) -> First:
    """Regions that go one after another, from none to all, those of the largest relevance first.

    Arguments:
        maps: (B, *S), finite.
        regions: (B, *S) numbers from 0 without gaps.
        seeds: (B,) that break ties.
        mean: whether relevance is the mean over a region, or the sum.

    Returns:
        Counts (B, 1 + R), R being the most regions that an image has; where one has fewer, its last count repeats.
    """
    orders, counts = [], []
    for saliency, numbers, seed in zip(maps.flatten(1).cpu(), regions.flatten(1).cpu(), seeds, strict=True):
        sizes = numbers.bincount()
        relevance = numbers.bincount(saliency.double())  # in order, so that equal sums are equal to the last bit
        order = removal_orders((relevance / sizes if mean else relevance).unsqueeze(0), seed.view(1))[0][0]
        orders.append(order.argsort()[numbers].argsort(stable=True))
        counts.append(sizes[order].cumsum(dim=0))
    table = torch.nn.utils.rnn.pad_sequence(counts, batch_first=True, padding_value=maps[0].numel())
    return First(torch.stack(orders).to(maps.device), torch.nn.functional.pad(table, (1, 0)))


def _order(scores: Scores, maps: Tensor) -> Tensor:
    """Positions (B, N), the most relevant first."""
    check_maps(scores, maps)
    return removal_orders(maps, scores.seeds)[0]


def _counts(positions: int, steps: int) -> list[int]:
    """From 0 to all positions in steps that differ by one position at most, none of them empty."""
    _check_whole("steps", steps)
    steps = min(steps, positions)
    return [round(step * positions / steps) for step in range(steps + 1)]


def _read(scores: Scores, removals: First, fill: FillChoice, reading: Reading) -> Tensor:
    """Scores (B, R) float64 on the CPU."""
    if reading == "class":
        raise expected("reading", "'probability' or 'logit'", "'class', a number that has no order")
    return scores.without(removals, fill, reading).cpu().double()


def _area(scores: Scores, removals: First, fill: FillChoice, reading: Reading) -> Tensor:
    """Area (B,) under the curve over the realised shares, by the trapezoid rule."""
    shares = removals.counts.double() / removals.orders.shape[1]
    return torch.trapezoid(_read(scores, removals, fill, reading), shares, dim=1)


def _patch_size(shape: Sequence[int], patches: int, size: int | None) -> int:
    """The size that was asked for, or one that makes about so many patches of an image with equal sides."""
    return max(1, round(max(shape) / round(patches ** (1 / len(shape))))) if size is None else size


def _check_whole(name: str, value: int) -> None:
    if value < 1:
        raise expected(name, "a whole number of 1 or more", value)
