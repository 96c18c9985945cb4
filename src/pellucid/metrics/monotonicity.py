"""Does the score rise as pixels come back in the order of the map, and move most where the map says so?"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.correlation import spearman, weights
from pellucid.metrics.families import CORRELATION, SHARE, faithfulness
from pellucid.metrics.random_fills import resampling
from pellucid.metrics.ranking import removal_orders
from pellucid.metrics.removals import First
from pellucid.metrics.road import check_maps
from pellucid.metrics.scores import FillChoice, Scores
from pellucid.metrics.subsets import Blocks, about, part_bounds

_ROUNDING = 1e-6  # a score that moves by less doesn't move
CELLS, DRAWS = 64, 8


@faithfulness(
    "monotonicity",
    source="Arya et al. 2019, section 4",
    higher_is_better=True,
    range=SHARE,
    missing="the score is the same after every step",
)
def monotonicity(
    scores: Scores, maps: Tensor, *, steps: int = 64, fill: FillChoice = "zero", whole: bool = False
) -> Tensor:
    """The share of steps at which the probability doesn't fall, as pixels are added from least to most relevant.

    The paper asks whether it never falls, and its answer is yes where this is exactly 1; since almost no map of an
    image is without a fall, the share tells maps apart and `whole` gives the paper's yes (1) or no (0). As in the
    authors' code the states after each step are compared, so that the empty image isn't among them. Where a map says
    that pixels speak against the class, the score ought to fall as they are added, which counts against the map.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        steps: into how many parts of equal size the pixels are cut; the paper's are single features.
        fill: what stands in the place of pixels that haven't been added.
        whole: 1 where no step falls, else 0.

    Returns:
        (B,) float64 in [0, 1]; NaN where the score never changes.

    >>> images = torch.tensor([[[[4.0, 3.0, 2.0, 1.0]]]])
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)), images)
    >>> monotonicity(scores, images[:, 0], steps=4)
    tensor([1.], dtype=torch.float64)
    """
    check_maps(scores, maps)
    most_first = removal_orders(maps, scores.seeds)[0]
    left = [maps[0].numel() - added for added in part_bounds(maps[0].numel(), steps)[1:]]
    found = scores.without(First(most_first, left), fill).double()
    rises = found.diff(dim=1)
    grain = _ROUNDING * found.abs().amax(dim=1, keepdim=True).clamp(min=1)
    steady = rises >= -grain
    share = steady.all(dim=1).double() if whole else steady.double().mean(dim=1)
    return torch.where((rises.abs() <= grain).all(dim=1), torch.nan, share)


@faithfulness(
    "monotonicity-correlation",
    source="Nguyen & Martinez 2020, metric 2.3",
    higher_is_better=True,
    range=CORRELATION,
    missing="the map, or the change of the score, is the same for every block",
)
def monotonicity_correlation(scores: Scores, maps: Tensor, *, cells: int = CELLS, draws: int = DRAWS) -> Tensor:
    """Spearman's correlation between |attribution| and the expected squared change of the logit, over blocks.

    A block's attribution is the map's sum over it. Its pixels are replaced by others drawn from the image, `draws`
    times, the same for all methods; the paper's features are single ones, as many blocks as pixels.

    Arguments:
        scores: what the network says of the images.
        maps: (B, *S), finite.
        cells: about so many blocks, as many along each axis.
        draws: replacements of each block.

    Returns:
        (B,) float64 in [-1, 1]; NaN where the map or the change is the same for every block.

    >>> images = torch.tensor([[[[1.0, -1.0, 1.0, -1.0]]]])
    >>> scores = Scores(lambda rows, sample: (rows * torch.tensor([8.0, 4.0, 2.0, 1.0])).sum((1, 2, 3)), images)
    >>> bool(monotonicity_correlation(scores, torch.tensor([[[8.0, 4.0, 2.0, 1.0]]]), draws=32) > 0.9)
    True
    """
    check_maps(scores, maps)
    blocks = Blocks(about(cells, scores.images), len(maps))
    return spearman(weights(blocks, maps).abs(), expected_change(scores, blocks, draws))


def expected_change(scores: Scores, blocks: Blocks, draws: int) -> Tensor:
    """Mean square (B, R) of the logit's change over random replacements of each block; 0 where it is rounding."""
    if draws < 1:
        raise expected("draws", "at least 1", draws)
    plain = scores.unperturbed("logit").double().unsqueeze(1)
    grain = _ROUNDING * plain.abs().clamp(min=1)
    total = torch.zeros(blocks.shape, dtype=torch.float64, device=plain.device)
    for draw in range(draws):
        change = scores.without(blocks, resampling(draw), "logit").double() - plain
        total += torch.where(change.abs() > grain, change, 0) ** 2
    return total / draws
