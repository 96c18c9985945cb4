"""Rules that a map should keep: sum to what it explains, be zero where nothing counts, not care for a shift."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pellucid.errors import expected
from pellucid.metrics.again import Again, Change
from pellucid.metrics.families import ABOVE_ZERO, SHARE, axiom
from pellucid.metrics.monotonicity import CELLS, DRAWS, expected_change
from pellucid.metrics.removals import Sets
from pellucid.metrics.road import check_maps
from pellucid.metrics.scores import FillChoice, Scores
from pellucid.metrics.subsets import Blocks, about

_ROUNDING = 1e-6  # scores that differ by less, relative to the larger or to 1, are the same


@axiom(
    "completeness",
    source="Sundararajan et al. 2017, proposition 1",
    higher_is_better=False,
    range=ABOVE_ZERO,
    missing="the baseline has the score of the image, so that there is nothing to add up to",
)
def completeness(scores: Scores, maps: Tensor, *, fill: FillChoice = "zero", relative: bool = True) -> Tensor:
    """How far a map's sum is from the logit of the image less that of the baseline, relative to that difference.

    The rule is kept by integrated gradients, DeepLIFT, SHAP and, without biases, LRP and input times gradient, for
    their own baseline. CAMs, saliency and whatever is scaled or cut at zero aren't meant to sum to anything: their
    value says that and no more, and ranks nothing.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        fill: what the baseline is made of, all pixels being removed.
        relative: divide by the difference; False leaves the error in units of the logit.

    Returns:
        (B,) float64, at least 0, 0 for a complete map and 1 for a map of zeros; NaN where relative to nothing.

    >>> images = torch.tensor([[[[4.0, 3.0, 2.0, 1.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)), images)
    >>> completeness(scores, images[:, 0]), completeness(scores, images[:, 0] / 2)
    (tensor([0.], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    check_maps(scores, maps)
    everything = Sets(torch.ones(1, 1, *maps.shape[1:], dtype=torch.bool), len(maps))
    plain = scores.unperturbed("logit").double()
    difference = plain - scores.without(everything, fill, "logit")[:, 0].double()
    error = (maps.double().flatten(1).sum(dim=1) - difference).abs()
    if not relative:
        return error
    nothing = difference.abs() <= _ROUNDING * plain.abs().clamp(min=1)
    return torch.where(nothing, torch.nan, error / difference.abs())


@axiom("non-sensitivity", source="Nguyen & Martinez 2020, metric 2.2", higher_is_better=False, range=SHARE)
def non_sensitivity(
    scores: Scores, maps: Tensor, *, cells: int = CELLS, draws: int = DRAWS, tolerance: float = 1e-5
) -> Tensor:
    """The share of blocks that the map marks and the score doesn't depend on, or the other way round.

    A block's pixels are replaced by others drawn from the image, as for "monotonicity-correlation", which asks for
    the same images; the score depends on a block where the logit's root mean square change is above `tolerance`,
    relative to the logit or to 1. A map marks a block where a value of it is above `tolerance`, relative to the
    largest. The paper's features are single ones, as many blocks as pixels, and it counts them.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        cells: about so many blocks, as many along each axis.
        draws: replacements of each block.
        tolerance: what counts as zero.

    Returns:
        (B,) float64 in [0, 1].

    >>> images = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> scores = Scores(lambda rows, sample: rows[:, 0, :2].sum((1, 2)), images)
    >>> upper = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 4, 1).expand(1, 4, 4)
    >>> non_sensitivity(scores, upper, cells=16), non_sensitivity(scores, 1 - upper, cells=16)
    (tensor([0.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    check_maps(scores, maps)
    blocks = Blocks(about(cells, scores.images), len(maps))
    size = maps.flatten(1).abs()
    marks = size > tolerance * size.amax(dim=1, keepdim=True)
    marked = torch.zeros(blocks.shape, device=maps.device).index_add_(
        1, blocks.labels.flatten().to(maps.device), marks.float()
    )
    plain = scores.unperturbed("logit").double().unsqueeze(1)
    depends = expected_change(scores, blocks, draws).sqrt() > tolerance * plain.abs().clamp(min=1)
    return ((marked > 0) != depends.to(maps.device)).double().mean(dim=1)


@axiom(
    "input-invariance",
    source="Kindermans et al. 2017, section 2",
    higher_is_better=False,
    range=(0.0, 2.0),
    missing="both maps are zero",
    needs=("again", "maps"),
)
def input_invariance(again: Again, maps: Tensor, *, shift: float = -1.0) -> Tensor:
    """How far the map moves as a constant is added to the image and taken off again by the network.

    The network takes it off before all else, so that for every image it says exactly what it said of the unshifted
    one. (Put in the bias of a first layer that pads with zeros, as the paper does for one that doesn't pad, it wouldn't
    be undone at the border.) Methods that weigh by the image itself, as input times gradient does, break the rule.

    Arguments:
        again: the method, to be asked for maps of the shifted images.
        maps: (B, *S), finite.
        shift: the constant, in units of the normalised image.

    Returns:
        (B,) float64 in [0, 2], the Euclidean distance of the two maps relative to the longer; NaN where both are zero.

    Raises:
        InputError: a scripted network, or a shift of 0.
    """
    if not shift:
        raise expected("shift", "a number other than 0", shift)
    name = ("input-invariance", shift)
    return again.compared(name, _apart, _undoing(shift), lambda: (again.images + shift).unsqueeze(1))


def _apart(maps: Tensor, again: Tensor) -> Tensor:
    """Distances (B,) of maps from those made again (B, 1, *S), relative to the longer of the two."""
    one, other = maps.double().flatten(1), again.double().to(maps.device).flatten(1)
    longer = torch.maximum(one.norm(dim=1), other.norm(dim=1))
    apart: Tensor = (one - other).norm(dim=1) / longer
    return apart


def _undoing(shift: float) -> Change:
    """A change of a network that takes a shift off each image it is given."""

    @contextlib.contextmanager
    def shifted(model: nn.Module) -> Iterator[nn.Module]:
        if isinstance(model, torch.jit.ScriptModule):
            wanted, do = "a network whose input can be shifted", "Leave 'input-invariance' out, or don't script it."
            raise expected("model", wanted, "a scripted one", do=do)
        handle = model.register_forward_pre_hook(lambda _, given: (given[0] - shift, *given[1:]))
        try:
            yield model
        finally:
            handle.remove()

    return shifted
