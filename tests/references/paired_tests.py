"""Slow tests of two sides, written from the papers: every way gone through, every pair of images looked at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

# Hamilton depression scale of nine patients at a first and a second visit: Hollander & Wolfe 1973, p. 29,
# as in the examples of R's `wilcox.test`
DEPRESSION = (
    [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30],
    [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29],
)

# outcome after six months (1 poor), the WFNS grade and two biomarkers of 113 patients with an aneurysmal subarachnoid
# haemorrhage: Turck et al. 2010, Intensive Care Medicine 36, the data `aSAH` of R's pROC
OUTCOME = [int(digit) for digit in (
    "0000110100101100101110100000" "0000100110110000000001100010" "0010100111011011110001101000"
    "0001000000000000111111000100" "0"
)]  # fmt: skip
WFNS = [int(digit) for digit in (
    "1111325412525512522521111212" "1134214541425511241125521251" "2221511252145244141214212324"
    "2145115422111312522555244511" "1"
)]  # fmt: skip
S100B = [
    0.13, 0.14, 0.1, 0.04, 0.13, 0.1, 0.47, 0.16, 0.18, 0.1, 0.12, 0.1, 0.44, 0.71, 0.04, 0.08, 0.49, 0.04, 0.07,
    0.33, 0.09, 0.09, 0.07, 0.11, 0.07, 0.17, 0.07, 0.11, 0.13, 0.19, 0.05, 0.16, 0.41, 0.14, 0.34, 0.35, 0.48, 0.09,
    0.96, 0.25, 0.5, 0.46, 0.16, 0.07, 0.43, 0.45, 0.11, 0.08, 0.09, 0.86, 0.52, 0.08, 0.06, 0.13, 2.07, 0.1, 0.14,
    0.15, 0.07, 0.06, 0.77, 0.05, 0.09, 0.3, 0.03, 0.09, 0.04, 0.23, 0.7, 0.09, 0.27, 0.71, 0.08, 0.26, 0.08, 0.16,
    0.09, 0.13, 0.1, 0.08, 0.11, 0.33, 0.11, 0.28, 0.07, 0.1, 0.32, 0.22, 0.07, 0.05, 0.24, 0.38, 0.1, 0.15, 0.08,
    0.14, 0.1, 0.07, 0.04, 0.19, 0.56, 0.14, 0.58, 0.32, 0.82, 0.74, 0.15, 0.47, 0.17, 0.44, 0.15, 0.5, 0.48,
]  # fmt: skip
NDKA = [
    3.01, 8.54, 8.09, 10.42, 17.4, 12.75, 6.0, 13.2, 15.54, 6.01, 15.96, 17.86, 5.18, 8.9, 13.41, 20.75, 11.6, 16.11,
    32.37, 54.82, 32.41, 49.94, 40.34, 9.47, 6.29, 12.53, 6.54, 6.3, 80.3, 12.8, 9.8, 9.81, 9.85, 18.21, 5.03, 14.04,
    21.93, 8.02, 7.42, 8.38, 6.59, 9.63, 13.12, 7.96, 14.34, 41.43, 7.63, 7.06, 12.59, 13.56, 3.87, 9.44, 7.66, 12.98,
    419.19, 27.19, 22.27, 9.95, 21.22, 11.73, 10.4, 58.83, 6.39, 11.09, 12.22, 13.67, 17.21, 22.63, 12.9, 9.7, 21.57,
    8.23, 72.57, 15.54, 10.51, 10.6, 14.57, 5.19, 9.63, 4.61, 21.48, 17.3, 12.71, 9.44, 11.07, 19.46, 10.83, 5.37,
    11.97, 7.75, 9.83, 10.55, 28.49, 8.53, 12.57, 12.9, 46.83, 11.68, 12.67, 9.01, 9.57, 34.06, 11.72, 14.26, 47.61,
    11.67, 24.58, 10.33, 13.87, 15.89, 22.43, 6.79, 13.45,
]  # fmt: skip


def signed_rank_p(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's test by all signs of the ranks; no zeros."""
    ranks = stats.rankdata(np.abs(differences))
    middle = ranks.sum() / 2
    far = abs(ranks[np.asarray(differences) > 0].sum() - middle)
    sums = [sum(itertools.compress(ranks, way)) for way in itertools.product((0, 1), repeat=len(ranks))]
    return float(np.mean([abs(total - middle) >= far - 1e-9 for total in sums]))


def pair_means(differences: Sequence[float]) -> list[float]:
    """Means of any two, each with itself too, sorted."""
    return sorted((x + y) / 2 for x, y in itertools.combinations_with_replacement(differences, 2))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Share of all sign flips whose sum lies as far from 0."""
    far = abs(math.fsum(differences))
    ways = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(math.fsum(sign * value for sign, value in zip(way, differences, strict=True))) for way in ways]
    return float(np.mean([total >= far - 1e-10 for total in sums]))


def tango_bound(ours: int, theirs: int, n: int, confidence: float, upper: bool) -> float:
    """Where the score statistic, at the shares that are likeliest given the difference, reaches the normal's tail."""
    z = float(stats.norm.isf((1 - confidence) / 2))

    def statistic(delta: float) -> float:
        def unlikely(share: float) -> float:  # share: theirs / n; ours / n is it plus delta
            parts = [(ours, share + delta), (theirs, share), (n - ours - theirs, 1 - 2 * share - delta)]
            return -sum(count * math.log(max(chance, 1e-300)) for count, chance in parts if count)

        low, high = max(0.0, -delta), (1 - delta) / 2
        share = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        return float((ours - theirs - n * delta) / math.sqrt(n * (2 * share + delta - delta**2)))

    middle = (ours - theirs) / n
    edges = (middle, 0.999) if upper else (-0.999, middle)
    return float(optimize.brentq(lambda delta: statistic(delta) + (z if upper else -z), *edges, xtol=1e-10))


def components(positive: NDArray, scores: NDArray) -> tuple[float, NDArray, NDArray]:
    """AUROC and DeLong's components of cases and controls, pair by pair."""
    kernel = [
        [1.0 if case > control else 0.5 if case == control else 0.0 for control in scores[~positive]]
        for case in scores[positive]
    ]
    table = np.array(kernel)
    return float(table.mean()), table.mean(axis=1), table.mean(axis=0)


def delong_z(positive: NDArray, a: NDArray, b: NDArray) -> tuple[float, float, float]:
    """Difference in AUROC, its standard error and z: DeLong et al. 1988."""
    found = [components(positive, side) for side in (a, b)]
    s10 = np.cov(np.vstack([each[1] for each in found]))
    s01 = np.cov(np.vstack([each[2] for each in found]))
    both = s10 / positive.sum() + s01 / (~positive).sum()
    contrast = np.array([1.0, -1.0])
    error = math.sqrt(contrast @ both @ contrast)
    return found[0][0] - found[1][0], error, (found[0][0] - found[1][0]) / error


def obuchowski_variance(positive: NDArray, a: NDArray, b: NDArray, patients: Sequence[str]) -> float:
    """Variance of the difference in AUROC of clustered images, patient by patient: Obuchowski 1997."""
    names = sorted(set(patients))
    owner = np.array(patients)
    m, n = int(positive.sum()), int((~positive).sum())
    with_cases = sum(bool((positive & (owner == name)).any()) for name in names)
    with_controls = sum(bool((~positive & (owner == name)).any()) for name in names)
    sums = []
    for side in (a, b):
        area, cases, controls = components(positive, side)
        of_cases = [
            sum(value - area for value, who in zip(cases, owner[positive], strict=True) if who == name)
            for name in names
        ]
        of_controls = [
            sum(value - area for value, who in zip(controls, owner[~positive], strict=True) if who == name)
            for name in names
        ]
        sums.append((of_cases, of_controls))

    def covariance(one: int, other: int) -> float:
        (x, y), (v, w) = sums[one], sums[other]
        s10 = with_cases / ((with_cases - 1) * m) * sum(p * q for p, q in zip(x, v, strict=True))
        s01 = with_controls / ((with_controls - 1) * n) * sum(p * q for p, q in zip(y, w, strict=True))
        s11 = len(names) / (len(names) - 1) * sum(p * q for p, q in zip(x, w, strict=True))
        s11_turned = len(names) / (len(names) - 1) * sum(p * q for p, q in zip(y, v, strict=True))
        return s10 / m + s01 / n + (s11 + s11_turned) / (m * n)

    return covariance(0, 0) + covariance(1, 1) - 2 * covariance(0, 1)
