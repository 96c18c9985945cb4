"""Methods that ask how much of the score's variation a region's masking explains: Sobol indices and HSIC.

`score_of`, `images`, `seeds` and `baseline` are as in `perturbation`, `regions` as in `superpixels.regions_of`. A
design says for each row how much stays of each region, (N, n) in [0, 1]. Every pixel of a region bears its index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.attribution.asking import Scores, generator_of
from pellucid.attribution.baselines import baseline_of
from pellucid.attribution.families import perturbation
from pellucid.attribution.hiding import painted, region_scores
from pellucid.attribution.superpixels import Regions, regions_of
from pellucid.errors import expected

MOST_REGIONS = 10_600  # two axes each, of the 21 201 that SciPy's Sobol sequence has


@perturbation("sobol", source="Fel et al. 2021, section 3; Jansen 1999")
def sobol(
    score_of: Scores,
    images: Tensor,
    seeds: Tensor,
    *,
    designs: int = 32,
    regions: Regions = 8,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """Total-order Sobol index of each region: the share of the score's variance in which its masking has a part.

    Masks are quasi-random, `designs` times (regions + 1) of them; a power of 2 is best. A score that doesn't vary
    gives zeros.

    Raises:
        InputError: fewer than 2 designs, or more regions than the sequence has axes for.
    """
    if designs < 2:
        raise expected("designs", "at least 2", designs)
    labels = regions_of(images, regions)
    counts = [int(of.max()) + 1 for of in labels]
    if max(counts) > MOST_REGIONS:
        raise expected("regions", f"at most {MOST_REGIONS} for quasi-random masks", max(counts))
    pairs = [two_designs(n, designs, generator_of(int(seed), 0)).float() for n, seed in zip(counts, seeds, strict=True)]

    def kept(i: int, draw: Tensor) -> Tensor:
        """The first design, then the first with one column after another from the second."""
        column, row = draw // designs - 1, draw % designs
        first, second = pairs[i]
        return torch.where(column.unsqueeze(1) == torch.arange(counts[i]), second[row], first[row])

    rows = [designs * (n + 1) for n in counts]
    scores = region_scores(score_of, images, baseline_of(baseline, images), labels, rows, kept)
    found = [jansen(each[:designs], each[designs:].unflatten(0, (-1, designs))) for each in scores]
    return painted(found, labels, images)


@perturbation("hsic", source="Novello et al. 2022, section 3; Gretton et al. 2005, section 3.1")
def hsic(
    score_of: Scores,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 1024,
    regions: Regions = 8,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """Dependence between a region's being kept and the score, over images with half of their regions hidden.

    The kernel of the masks tells equal from unequal; the score's is Gaussian with the median distance between unequal
    scores as its width. A score that doesn't vary gives zeros.

    Raises:
        InputError: fewer than 2 samples.
    """
    if samples < 2:
        raise expected("samples", "at least 2", samples)
    labels = regions_of(images, regions)
    drawn = [
        (torch.rand(samples, int(of.max()) + 1, generator=generator_of(int(seed), 0)) < 0.5).float()
        for of, seed in zip(labels, seeds, strict=True)
    ]
    start = baseline_of(baseline, images)
    scores = region_scores(score_of, images, start, labels, [samples] * len(images), lambda i, draw: drawn[i][draw])
    return painted([dependence(kept, y) for kept, y in zip(drawn, scores, strict=True)], labels, images)


def two_designs(n: int, designs: int, draws: torch.Generator) -> Tensor:
    """Two quasi-random designs (2, N, n) in [0, 1], which fill the cube of their 2n axes evenly together.

    A Sobol sequence, moved by one random vector around the cube (Cranley & Patterson 1976).
    """
    from scipy.stats import qmc  # slow to import, and nothing else here needs it

    length = 1 << (designs - 1).bit_length()  # the sequence is even over powers of 2
    points = torch.from_numpy(qmc.Sobol(2 * n, scramble=False).random(length)[:designs])
    moved: Tensor = (points + torch.rand(2 * n, generator=draws, dtype=torch.float64)) % 1
    return moved.reshape(designs, 2, n).movedim(1, 0)


def jansen(scores: Tensor, replaced: Tensor) -> Tensor:
    """Total-order indices (n, T) by Jansen's estimator, 0 where the scores don't vary.

    Arguments:
        scores: (N, T), at a first design.
        replaced: (n, N, T), at the same design with one column from a second.

    >>> jansen(torch.tensor([[1.0], [3.0]]), torch.tensor([[[3.0], [1.0]], [[1.0], [3.0]]])).flatten().tolist()
    [1.0, 0.0]
    """
    part = (scores - replaced).square().mean(dim=1) / 2
    index: Tensor = torch.where(scores.std(dim=0) > rounding(scores), part / scores.var(dim=0), 0.0)
    return index


def rounding(scores: Tensor) -> Tensor:
    """Differences (T,) that scores (N, T) from a network in float32 may have without meaning any."""
    largest: Tensor = scores.abs().amax(dim=0)
    return 1e-5 * largest  # a score is often the small sum of large terms


def dependence(kept: Tensor, scores: Tensor) -> Tensor:
    """HSIC (n, T) between each region's mask and the scores: tr(K H L H) / (N - 1)², 0 where the scores don't vary.

    Arguments:
        kept: (N, n), zeros and ones.
        scores: (N, T).

    >>> kept = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> dependence(kept, kept[:, :1]).flatten().tolist()  # the score is the first region's mask
    [0.1748..., 0.0]
    """
    sign = 2 * kept.double() - 1  # K = 1/2 where masks are equal, -1/2 elsewhere, is half their signs' product
    centred = sign - sign.mean(dim=0)
    found = []
    for y, least in zip(scores.double().unbind(dim=1), rounding(scores), strict=True):
        distance = (y.unsqueeze(1) - y).abs()
        apart = distance[*torch.triu_indices(len(y), len(y), 1)]
        apart = apart[apart > least]  # of a score with few values, the median over all pairs may be 0
        if not len(apart):
            found.append(torch.zeros_like(centred[0]))
            continue
        inner = torch.exp(-((distance / apart.median()) ** 2) / 2)
        found.append((centred * (inner @ centred)).sum(dim=0) / 2 / (len(y) - 1) ** 2)
    return torch.stack(found, dim=1)
