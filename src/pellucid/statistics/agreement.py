"""How far readers agree: on ratings, and on where a finding is."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import krippendorff
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import expected
from pellucid.statistics.bootstrap import RESAMPLES, Estimate, bootstrap, of_rows
from pellucid.statistics.units import FloatArray, UnitIds, numbers, units_of

Level = Literal["nominal", "ordinal", "interval", "ratio"]


@dataclass(frozen=True)
class MaskAgreement:
    """How far R readers agree on the pixels of N images, image by image; `summarise` makes one number of each row."""

    alpha: FloatArray = field(repr=False)
    """(N,) Krippendorff's alpha, pixels being the units: 1 full agreement, 0 chance. NaN where all readers mark nothing
    or everything, since there is nothing to tell apart."""
    pairs: tuple[tuple[int, int], ...]
    """The P = R (R − 1) / 2 pairs of readers, by their places."""
    dice: FloatArray = field(repr=False)
    """(P, N) twice the pixels that both mark over those of the one and of the other, in [0, 1]. NaN where neither marks
    any."""
    iou: FloatArray = field(repr=False)
    """(P, N) the pixels that both mark over those that either does, likewise."""


def rating_agreement(
    ratings: ArrayLike,
    level: Level = "ordinal",
    units: UnitIds | str = "image",
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """Krippendorff's alpha between readers who rate the same cases, with its patient-clustered bootstrap interval.

    1 is full agreement, 0 what chance gives, below 0 less than chance. Cases that fewer than two readers rated say
    nothing of agreement and are left out.

    Args:
        ratings: (R, N) numbers, a row per reader and a column per case; NaN where a reader gave none.
        level: what the numbers mean: names ("nominal"), an order ("ordinal"), equal steps ("interval"), or those from a
            true zero ("ratio").
        units: patient id per case ("" unknown), or the word for what each case is.
        resamples, confidence, generator: as in `bootstrap`.

    Returns:
        Alpha, `n` being the cases rated by two readers or more and `n_missing` the others. It has no value where all
        ratings are the same.

    Raises:
        InputError: fewer than two readers, an unknown level, infinite values, or ids that don't fit.

    Source: Krippendorff 2019, Content Analysis, chapter 12; computed by the library `krippendorff`.

    >>> rating_agreement([[1, 2, 3, 3, 2, 1], [1, 2, 3, 4, 2, 1]]).text()
    '0.972 (95 % interval 0.662 to 1.000)'
    """
    table = numbers("ratings", ratings)
    if table.ndim != 2 or len(table) < 2:
        raise expected("ratings", "a row for each of two readers or more, shape (R, N)", f"shape {table.shape}")
    if level not in get_args(Level):
        raise expected("level", " or ".join(map(repr, get_args(Level))), repr(level))
    found = units_of(units, table.shape[1])
    rated = np.isfinite(table).sum(axis=0) > 1
    domain = np.unique(table[:, rated][np.isfinite(table[:, rated])])
    counts = (table.T[:, :, None] == domain).sum(axis=1)
    order = found.order(*counts.T)
    order = order[rated[order]]
    kept = counts[order]
    alpha = {"alpha": of_rows(lambda rows: _alpha(kept[rows], domain, level))}
    resampled = bootstrap(alpha, found.take(order), resamples=resamples, confidence=confidence, generator=generator)
    return replace(resampled["alpha"], n_missing=int((~rated).sum()))


def mask_agreement(masks: ArrayLike) -> MaskAgreement:
    """Agreement of readers who mark a finding in the same images, in 2-D or 3-D.

    Alpha is corrected for chance over the whole image, so a small finding on a large background doesn't raise it;
    Dice and intersection over union see the marked pixels alone.

    Args:
        masks: (R, N, *S) bool, or 0 and 1: what each of R readers marks in each of N images.

    Raises:
        InputError: fewer than two readers, or values other than 0 and 1.

    Source: Krippendorff 2019, Content Analysis, chapter 12 (nominal); Dice 1945; Jaccard 1912.

    >>> found = mask_agreement([[[[1, 1, 0, 0]]], [[[1, 0, 0, 0]]]])
    >>> found.alpha.round(3).tolist(), found.dice.round(3).tolist(), found.iou.tolist()
    ([0.533], [[0.667]], [[0.5]])
    """
    given = np.asarray(masks)
    if given.ndim < 3 or len(given) < 2:
        raise expected("masks", "masks of two readers or more, shape (R, N, *S)", f"shape {given.shape}")
    if given.dtype != bool and not np.isin(given, (0, 1)).all():
        raise expected("masks", "bool, or 0 and 1", "other values", do="Compare with a threshold or a label first.")
    marked = given.astype(bool).reshape(*given.shape[:2], -1)
    votes = marked.sum(axis=0)
    counts = np.stack([len(marked) - votes, votes], axis=-1)
    pairs = tuple(itertools.combinations(range(len(marked)), 2))
    both = np.array([(marked[a] & marked[b]).sum(axis=-1) for a, b in pairs])
    total = np.array([marked[a].sum(axis=-1) + marked[b].sum(axis=-1) for a, b in pairs])
    return MaskAgreement(
        alpha=np.array([_alpha(image, np.arange(2), "nominal") for image in counts]),
        pairs=pairs,
        dice=_share(2 * both, total),
        iou=_share(both, total - both),
    )


def _alpha(counts: NDArray[np.integer], domain: NDArray[np.generic], level: Level) -> float:
    """Alpha of units by how often each got each value of the domain; NaN where all got the same."""
    if (counts.sum(axis=0) > 0).sum() < 2:
        return math.nan
    return float(krippendorff.alpha(value_counts=counts, value_domain=domain, level_of_measurement=level))


def _share(part: NDArray[np.integer], whole: NDArray[np.integer]) -> FloatArray:
    shares = np.full(whole.shape, math.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
