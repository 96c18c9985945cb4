"""How much a map owes to the network: it should change with random weights, another class, or what was learnt.

A map that stays as it is shows the image, not what the network made of it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import generator_of, noisy
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.engine import unwrapped
from pellucid.errors import expected
from pellucid.metrics.again import Again, Change
from pellucid.metrics.families import CORRELATION, sanity
from pellucid.metrics.randomised import randomised
from pellucid.metrics.similarity import SIMILARITIES, Similarity, histogram_entropy, similarity_of

STAGES = 8
BINS = 100
_CLASS_DRAW = -1  # parts it from the neighbours' draws

_CONSTANT = "the map is constant, or the network has no weights"


@sanity(
    "parameter-randomisation",
    source="Adebayo et al. 2018, section 3.1: cascading randomisation from the top",
    higher_is_better=False,
    range=CORRELATION,
    missing=_CONSTANT,
)
def parameter_randomisation(
    again: Again, maps: Tensor, *, stages: int | None = STAGES, similarity: Similarity = "spearman", seed: int = 0
) -> Tensor:
    """Mean similarity of the map with those of networks whose weights are random from the output down.

    The last of the `stages` has none of its weights left; the others have the last used share of modules reset, in
    equal steps; None means a stage for each module. About 0 where the map owes all to the weights, 1 where it owes them
    nothing. A stage whose map is constant counts as 0.

    Raises:
        InputError: no stage, or an unknown similarity.
    """
    similarity_of(similarity)  # refused before anything runs
    if not again.owners:
        return _missing(maps)
    place = tuple(SIMILARITIES).index(similarity)
    each = [_stage(again, count, seed)[:, place] for count in cascade(len(again.owners), stages)]
    return torch.stack(each).mean(dim=0)


@sanity(
    "parameter-randomisation-efficient",
    source="Hedström et al. 2024, eMPRT",
    higher_is_better=True,
    range=(-1.0, math.inf),
    missing=_CONSTANT,
)
def parameter_randomisation_efficient(again: Again, maps: Tensor, *, seed: int = 0) -> Tensor:
    """Relative rise of the map's entropy as all of the network's weights become random.

    The entropy is that of how values spread over 100 equal bins between the map's least and largest.
    """
    if not again.owners:
        return _missing(maps)
    return rise(histogram_entropy(maps, BINS), _stage(again, len(again.owners), seed)[:, -1])


@sanity(
    "parameter-randomisation-smooth",
    source="Hedström et al. 2024, sMPRT",
    higher_is_better=False,
    range=CORRELATION,
    missing=_CONSTANT,
)
def parameter_randomisation_smooth(
    again: Again,
    maps: Tensor,
    *,
    stages: int | None = 4,
    similarity: Similarity = "spearman",
    draws: int = 8,
    noise: float = 0.1,
    seed: int = 0,
) -> Tensor:
    """`parameter-randomisation` of maps that are first averaged over noisy images, the same at every stage.

    Noise is Gaussian, of standard deviation `noise` times the image's range, in `draws` images.

    Raises:
        InputError: no stage or draw, noise below 0, or an unknown similarity.
    """
    if draws < 1:
        raise expected("draws", "at least 1", draws)
    if not noise >= 0:
        raise expected("noise", "0 or more, relative to the image's range", noise)
    alike = similarity_of(similarity)
    if not again.owners:
        return _missing(maps)

    def versions() -> Tensor:
        return again.versions(lambda image, generator: noisy(image.unsqueeze(0), noise, [generator])[0], draws)

    name = ("smooth", draws, noise)
    own = again.compared(name, averaged, versions=versions)
    each = []
    for count in cascade(len(again.owners), stages):
        change = random_from_the_top(again, count, seed)
        each.append(alike(own, again.compared((*name, count, seed), averaged, change, versions)))
    return torch.stack(each).mean(dim=0)


@sanity(
    "random-logit",
    source="Sixt et al. 2020, section 5: random logit",
    higher_is_better=False,
    range=CORRELATION,
    missing="the map is constant, or the network has one class alone",
)
def random_logit(again: Again, maps: Tensor, *, similarity: Similarity = "ssim") -> Tensor:
    """Similarity of the map with that for another class, which the image's seed draws.

    Raises:
        InputError: an unknown similarity.
    """
    alike = similarity_of(similarity)
    classes = again.logits.shape[1]
    if classes < 2:
        return _missing(maps)
    return alike(maps, again.toward(other_classes(again.target, again.draws, classes)))


@sanity(
    "data-randomisation",
    source="Adebayo et al. 2018, section 3.2",
    higher_is_better=False,
    range=CORRELATION,
    missing="the map is constant, or no network was given (pellucid.metric('data-randomisation', network=...))",
)
def data_randomisation(
    again: Again, maps: Tensor, *, network: nn.Module | None = None, similarity: Similarity = "spearman"
) -> Tensor:
    """Similarity of the map with that of a `network` that was trained on permuted labels.

    The network is explained by the same methods at the layer of the same name, for the same class, and given back as it
    was.

    Raises:
        InputError: an unknown similarity, or a network without that layer or class.
    """
    alike = similarity_of(similarity)
    if network is None:
        return _missing(maps)
    if not isinstance(network, nn.Module):
        raise expected("network", "a network, as the one that is explained", type(network).__name__)
    permuted = unwrapped(network)

    @contextlib.contextmanager
    def other(model: nn.Module) -> Iterator[nn.Module]:
        with borrowed(permuted):
            yield permuted

    return alike(maps, again.compared(("data", network), averaged, other))


def cascade(count: int, stages: int | None) -> list[int]:
    """How many of `count` modules are random in each stage, growing to all of them.

    Raises InputError for no stage.

    >>> cascade(10, 4), cascade(2, 8), cascade(3, None)
    ([2, 5, 8, 10], [1, 2], [1, 2, 3])
    """
    if stages is not None and stages < 1:
        raise expected("stages", "at least 1, or None for one per module", stages)
    steps = count if stages is None else min(stages, count)
    return [round(count * (step + 1) / steps) for step in range(steps)]


def rise(before: Tensor, after: Tensor) -> Tensor:
    """(after − before) / before; NaN where that is 0.

    >>> rise(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 1.0]))
    tensor([0.5000,    nan])
    """
    return (after - before) / torch.where(before == 0, math.nan, before)


def averaged(maps: Tensor, again: Tensor) -> Tensor:
    """The mean (B, *S) of each image's maps made again, (B, R, *S)."""
    return again.double().mean(dim=1)


def other_classes(target: Tensor, seeds: Tensor, classes: int) -> Tensor:
    """For each image a class (B,) other than its own, each as likely, as its seed draws."""
    draws = [int(torch.randint(classes - 1, (), generator=generator_of(seed, _CLASS_DRAW))) for seed in seeds.tolist()]
    drawn = torch.tensor(draws, device=target.device)
    return drawn + (drawn >= target)


def random_from_the_top(again: Again, count: int, seed: int) -> Change:
    """The change to a network whose `count` last used modules are random."""
    names = again.owners[:count]
    return lambda model: randomised(model, names, seed)


def _missing(maps: Tensor) -> Tensor:
    return torch.full((len(maps),), math.nan, dtype=torch.float64, device=maps.device)


def _stage(again: Again, count: int, seed: int) -> Tensor:
    """Of a stage's maps, (B, 3): each similarity with the map, then the entropy; so that no map is kept."""

    def compare(maps: Tensor, changed: Tensor) -> Tensor:
        one = changed[:, 0]
        alike = [similarity(maps, one) for similarity in SIMILARITIES.values()]
        return torch.stack([*alike, histogram_entropy(one, BINS)], dim=1)

    return again.compared(("random", count, seed), compare, random_from_the_top(again, count, seed))
