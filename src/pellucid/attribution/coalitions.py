"""Methods that hide random sets of regions and fit the scores: LIME and KernelSHAP.

`score_of`, `images`, `seeds` and `baseline` are as in `perturbation`, `regions` as in `superpixels.regions_of`. A
coalition is a set of regions that are kept, written as zeros and ones (n,). Every pixel of a region bears the region's
whole coefficient.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.attribution.asking import Scores, generator_of
from pellucid.attribution.baselines import baseline_of
from pellucid.attribution.families import perturbation
from pellucid.attribution.hiding import painted, region_scores
from pellucid.attribution.superpixels import Regions, regions_of
from pellucid.errors import expected


@perturbation("lime", source="Ribeiro et al. 2016, eq. 2 and algorithm 1; cosine distance")
def lime(
    score_of: Scores,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 1000,
    regions: Regions = 7,
    baseline: float | Tensor = 0.0,
    surrogate: Literal["ridge", "lasso"] = "ridge",
    penalty: float = 1.0,
    width: float = 0.25,
) -> Tensor:
    """Coefficients of a weighted linear fit to the scores of images with half of their regions hidden at random.

    The first sample is the whole image. A sample weighs exp(-d² / width²), d being the cosine distance between its
    coalition and the whole. `penalty` is the `alpha` of scikit-learn's Ridge or Lasso.

    Raises:
        InputError: fewer than 2 samples, a width of 0, a negative penalty, or another surrogate.
    """
    from sklearn.linear_model import Lasso, Ridge  # slow to import, and nothing else here needs it

    if samples < 2:
        raise expected("samples", "at least 2", samples)
    if not width > 0:
        raise expected("width", "above 0", width)
    if penalty < 0:
        raise expected("penalty", "at least 0", penalty)
    if surrogate not in ("ridge", "lasso"):
        raise expected("surrogate", "'ridge' or 'lasso'", repr(surrogate))
    labels = regions_of(images, regions)
    drawn = [
        halves(int(of.max()) + 1, samples, generator_of(int(seed), 0)) for of, seed in zip(labels, seeds, strict=True)
    ]
    scores = _scores(score_of, images, baseline, labels, drawn)
    fit = {"ridge": Ridge, "lasso": Lasso}[surrogate]
    found = []
    for kept, y in zip(drawn, scores, strict=True):
        model = fit(alpha=penalty).fit(kept.double().numpy(), y.numpy(), sample_weight=nearness(kept, width).numpy())
        found.append(torch.from_numpy(model.coef_.reshape(y.shape[1], -1).T))
    return painted(found, labels, images)


@perturbation("kernel-shap", source="Lundberg & Lee 2017, theorem 2; Covert & Lee 2021, eq. 7 and paired sampling")
def kernel_shap(
    score_of: Scores,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 2048,
    regions: Regions = 7,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """Shapley values of the regions: a share of score(image) - score(baseline) each, to which they add up exactly.

    They are exact where every coalition fits into `samples`, so up to 11 regions by default. Else coalitions are drawn
    by the Shapley kernel, each with its complement; where they leave values open, the most even ones are taken.

    Raises:
        InputError: fewer samples than twice the regions, where they can't all be drawn.
    """
    labels = regions_of(images, regions)
    counts = [int(of.max()) + 1 for of in labels]
    if any(2**n > samples and samples < 2 * n for n in counts):
        raise expected("samples", f"at least {2 * max(counts)}, twice the regions", samples)
    drawn = [shapley_coalitions(n, samples, generator_of(int(seed), 0)) for n, seed in zip(counts, seeds, strict=True)]
    scores = _scores(score_of, images, baseline, labels, [kept for kept, _ in drawn])
    found = [shapley_fit(kept, weights, y) for (kept, weights), y in zip(drawn, scores, strict=True)]
    return painted(found, labels, images)


def halves(n: int, samples: int, draws: torch.Generator) -> Tensor:
    """Coalitions (samples, n): the whole, then each region kept with probability 1/2."""
    kept = torch.rand(samples, n, generator=draws) < 0.5
    kept[0] = True
    return kept.float()


def nearness(kept: Tensor, width: float) -> Tensor:
    """Weights (N,) of coalitions (N, n): exp(-d² / width²) of their cosine distance d to the whole, in float64.

    >>> nearness(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), 1.0)
    tensor([1.0000, 0.3679], dtype=torch.float64)
    """
    distance = 1 - kept.double().mean(dim=1).sqrt()  # the cosine between k of n ones and n ones is sqrt(k / n)
    return torch.exp(-((distance / width) ** 2))


def shapley_coalitions(n: int, samples: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Coalitions (N, n) that begin with none and all, and their weights (N,); the first two have none.

    All of them with the Shapley kernel's weights where 2**n <= samples; else pairs of complements drawn by the kernel,
    each weighing 1.

    >>> shapley_coalitions(2, 4, torch.Generator())[0].tolist()
    [[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    ends = torch.tensor([[0.0], [1.0]]).expand(2, n)
    if 2**n <= samples:
        codes = torch.arange(1, 2**n - 1).unsqueeze(1)
        inner = (codes >> torch.arange(n) & 1).float()
        each = inner.sum(dim=1).long().tolist()
        weights = torch.tensor([(n - 1) / (math.comb(n, k) * k * (n - k)) for k in each], dtype=torch.float64)
    else:
        pairs = samples // 2 - 1
        size = torch.arange(1, n, dtype=torch.float64)
        sizes = torch.multinomial(1 / (size * (n - size)), pairs, replacement=True, generator=draws) + 1
        order = torch.rand(pairs, n, generator=draws).argsort(dim=1).argsort(dim=1)
        first = (order < sizes.unsqueeze(1)).float()
        inner = torch.stack([first, 1 - first], dim=1).flatten(0, 1)
        weights = torch.ones(len(inner), dtype=torch.float64)
    return torch.cat([ends, inner]), torch.cat([torch.zeros(2, dtype=torch.float64), weights])


def shapley_fit(kept: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    """Coefficients (n, T) of the weighted linear fit that is exact for the first two coalitions, none and all.

    Arguments:
        kept: (N, n), as `shapley_coalitions` gives them.
        weights: (N,).
        scores: (N, T), in float64.

    >>> kept = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> shapley_fit(kept, torch.ones(4), torch.tensor([[1.0], [6.0], [3.0], [2.0]])).flatten().tolist()  # 5 to share
    [3.0, 2.0]
    """
    n = kept.shape[1]
    z, y = kept.double().numpy(), scores.double().numpy()
    even = (y[1] - y[0]) / n
    share = z.mean(axis=1, keepdims=True)
    root = np.sqrt(weights.double().numpy())[:, None]
    # what is left after even shares is fitted by coefficients that add up to 0
    rest, *_ = np.linalg.lstsq(root * (z - share), root * (y - y[0] - n * share * even), rcond=None)
    return torch.from_numpy(even + rest - rest.mean(axis=0))


def _scores(
    score_of: Scores, images: Tensor, baseline: float | Tensor, labels: Tensor, drawn: list[Tensor]
) -> list[Tensor]:
    """Scores (N, T) of each image's coalitions (N, n)."""
    counts = [len(kept) for kept in drawn]
    start = baseline_of(baseline, images)
    return region_scores(score_of, images, start, labels, counts, lambda i, draw: drawn[i][draw])
