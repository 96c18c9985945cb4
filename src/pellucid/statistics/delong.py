"""DeLong's test of two paired AUROCs, for independent images and for images clustered in patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pellucid.errors import expected
from pellucid.statistics.mcnemar import refuse_clusters
from pellucid.statistics.registry import comparison
from pellucid.statistics.results import TestResult, check_confidence
from pellucid.statistics.units import FloatArray, UnitIds, Units, numbers, units_of
from pellucid.statistics.wording import count

_FEW = 20  # units below which the normal approximation is rough


@dataclass(frozen=True)
class Placements:
    """Where each image stands among those of the other kind, of one class against the rest."""

    auroc: float
    cases: FloatArray
    """(m,) share of controls below each case, ties half; in the order of the images."""
    controls: FloatArray
    """(n,) share of cases above each control."""


def placements(positive: NDArray[np.bool_], scores: FloatArray) -> Placements:
    """Placements by midranks, in the time it takes to sort.

    Args:
        positive: (N,) whether an image is a case; both kinds must be there.
        scores: (N,) higher for cases.

    Source: Sun & Xu 2014, Fast implementation of DeLong's algorithm, IEEE Signal Processing Letters 21.

    >>> placements(np.array([True, False, True, False]), np.array([0.9, 0.4, 0.4, 0.1])).auroc
    0.875
    """
    ranks = stats.rankdata(scores)
    m, n = int(positive.sum()), int((~positive).sum())
    cases = (ranks[positive] - stats.rankdata(scores[positive])) / n
    controls = 1 - (ranks[~positive] - stats.rankdata(scores[~positive])) / m
    return Placements(float(cases.mean()), cases, controls)


@comparison("delong", needs=("labels", "probabilities", "units"), source="DeLong et al. 1988; Sun & Xu 2014")
def delong(
    labels: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str = "image",
    *,
    positive: int | None = None,
    confidence: float = 0.95,
) -> TestResult:
    """DeLong's test of two AUROCs on the same images.

    Args:
        labels: (N,) position of each image's true class.
        a, b: (N,) scores of the second of two classes, or (N, K) probabilities; NaN is missing.
        units: patient id per image ("" unknown), of which none may occur twice, or the word for what each row is.
        positive: the class held against the rest; None means the second of two classes, and of more the unweighted
            mean over all classes, whose variance has the covariances between the classes' components.
        confidence: of the interval.

    Returns:
        A TestResult, whose statistic is z and whose scores are AUROCs. The effect is the difference in AUROC itself.
        Sides that rank all images alike are `identical`; a class that has no image, or that all images have, and
        AUROCs without spread (both 1) give no p and a note.

    Raises:
        InputError: where a patient has several images: `delong_clustered` is the form for them; for shapes that don't
            fit or labels that aren't positions.

    Source: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44; Sun & Xu 2014 (fast form).

    >>> result = delong([0, 0, 0, 1, 1, 1], [0.1, 0.4, 0.3, 0.6, 0.35, 0.8], [0.2, 0.5, 0.3, 0.4, 0.1, 0.9])
    >>> round(result.mean_a, 3), round(result.mean_b, 3), round(result.p_value, 3)
    (0.889, 0.556, 0.083)
    """
    refuse_clusters(units, len(numbers("labels", labels)), "delong", "delong-clustered (Obuchowski 1997)")
    return _compared("delong", labels, a, b, units, positive, confidence)


@comparison("delong-clustered", needs=("labels", "probabilities", "units"), source="Obuchowski 1997")
def delong_clustered(
    labels: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str = "image",
    *,
    positive: int | None = None,
    confidence: float = 0.95,
) -> TestResult:
    """DeLong's test of images clustered in patients: components are summed within a patient before they are squared.

    Arguments and result are `delong`'s, which it equals where each patient has one image; `n` counts patients.

    Raises:
        InputError: for shapes that don't fit or labels that aren't positions.

    Source: Obuchowski 1997, Nonparametric analysis of clustered ROC curve data, Biometrics 53, 567–578.

    >>> patients = ["p", "q", "q", "r", "r", "s"]
    >>> a, b = [0.1, 0.4, 0.3, 0.6, 0.35, 0.8], [0.2, 0.5, 0.3, 0.4, 0.1, 0.9]
    >>> round(delong_clustered([0, 0, 0, 1, 1, 1], a, b, patients).p_value, 3)
    0.134
    """
    return _compared("delong-clustered", labels, a, b, units, positive, confidence)


def _compared(
    name: str,
    labels: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    units: UnitIds | str,
    positive: int | None,
    confidence: float,
) -> TestResult:
    check_confidence(confidence)
    truth, left, right = _tables(labels, a, b)
    present = np.isfinite(left).all(axis=1) & np.isfinite(right).all(axis=1)
    found = units_of(units, len(truth)).take(np.flatnonzero(present))
    truth, left, right = truth[present], left[present], right[present]
    wanted = _classes(left.shape[1], positive)

    def result(reason: str, **known: Any) -> TestResult:
        empty = dict.fromkeys(
            ("statistic", "p_value", "df", "mean_a", "mean_b", "mean_difference", "interval", "effect_size",
             "effect_interval")
        )  # fmt: skip
        fields = {**empty, **known, "measure": "AUROC", "effect": "difference in AUROC"}
        return TestResult(
            name=name,
            n=found.count,
            n_missing=int((~present).sum()),
            unit=found.unit,
            confidence=confidence,
            note=" ".join(part for part in (reason, found.note) if part),
            **fields,
        )

    if not len(truth):
        return result("No image has scores of both sides.")
    cases = [truth == (1 if left.shape[1] == 1 else place) for place in wanted]
    counts = [int(case.sum()) for case in cases]
    if 0 in counts or len(truth) in counts:
        kind = "of the class" if 0 in counts else "of any other class"
        more = f" (class {wanted[counts.index(0)] + 1})" if 0 in counts and len(wanted) > 1 else ""
        return result(f"There is no image {kind}{more}, so AUROC has no value.")
    columns = [0 if left.shape[1] == 1 else place for place in wanted]
    ours = [placements(case, left[:, column]) for case, column in zip(cases, columns, strict=True)]
    theirs = [placements(case, right[:, column]) for case, column in zip(cases, columns, strict=True)]
    mean_a, mean_b = (float(np.mean([each.auroc for each in side])) for side in (ours, theirs))
    means = {"mean_a": mean_a, "mean_b": mean_b, "mean_difference": mean_a - mean_b}
    if all(_alike(one, other) for one, other in zip(ours, theirs, strict=True)):
        same = f"Identical: both sides rank {count(len(truth), 'image')} alike."
        return result(same, p_value=1.0, identical=True, **means)
    variance, few = _variance(cases, ours, theirs, found)
    if few < 2:
        return result(f"One {found.unit} only has an image of a kind, so AUROC has no spread.", **means)
    if variance <= 1e-24:
        return result("The AUROCs have no spread to hold their difference against.", **means)
    error = float(np.sqrt(variance))
    difference = mean_a - mean_b
    reach = float(stats.norm.isf((1 - confidence) / 2)) * error
    interval = (max(-1.0, difference - reach), min(1.0, difference + reach))
    return result(
        f"{count(few, found.unit)} only with an image of a kind: p is approximate." if few < _FEW else "",
        statistic=difference / error,
        p_value=float(2 * stats.norm.sf(abs(difference) / error)),
        interval=interval,
        effect_size=difference,
        effect_interval=interval,
        **means,
    )


def _tables(labels: ArrayLike, a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    truth, left, right = numbers("labels", labels), numbers("a", a), numbers("b", b)
    left, right = (side[:, None] if side.ndim == 1 else side for side in (left, right))
    if truth.ndim != 1 or left.shape != right.shape or left.shape[:1] != truth.shape or left.ndim != 2:
        got = f"{truth.shape}, {left.shape} and {right.shape}"
        raise expected("labels, a, b", "labels (N,) and scores (N,) or (N, K) of both sides", got)
    k = max(left.shape[1], 2)
    if not (np.isfinite(truth).all() and (truth == np.round(truth)).all() and ((truth >= 0) & (truth < k)).all()):
        raise expected("labels", f"positions of {k} classes, 0 to {k - 1}", "others")
    return truth.astype(np.intp), left, right


def _classes(columns: int, positive: int | None) -> Sequence[int]:
    """The classes whose AUROCs are averaged."""
    k = max(columns, 2)
    if positive is None:
        return range(k) if k > 2 else (1,)
    if not 0 <= positive < k or (columns == 1 and positive != 1):
        raise expected("positive", f"a class with scores, 0 to {k - 1}", positive)
    return (positive,)


def _alike(one: Placements, other: Placements) -> bool:
    return np.allclose(one.cases, other.cases, rtol=0, atol=1e-12) and np.allclose(
        one.controls, other.controls, rtol=0, atol=1e-12
    )


def _variance(
    cases: Sequence[NDArray[np.bool_]], ours: Sequence[Placements], theirs: Sequence[Placements], units: Units
) -> tuple[float, int]:
    """Variance of the mean difference over the classes, and the fewest units that have an image of a kind.

    Of one class it is Obuchowski's S10/m + S01/n + 2·S11/(mn); between two classes the sum over units of the products
    of what each adds to either difference, times I/(I − 1).
    """
    everyone = units.count / max(1, units.count - 1)
    total, few = 0.0, units.count
    parts = []
    for case, one, other in zip(cases, ours, theirs, strict=True):
        m, n = int(case.sum()), int((~case).sum())
        of_cases = _summed(one.cases - other.cases - (one.auroc - other.auroc), units.codes[case], units.count) / m
        of_controls = (
            _summed(one.controls - other.controls - (one.auroc - other.auroc), units.codes[~case], units.count) / n
        )
        with_cases, with_controls = (len(np.unique(units.codes[kind])) for kind in (case, ~case))
        few = min(few, with_cases, with_controls)
        if few < 2:
            return 0.0, few
        total += with_cases / (with_cases - 1) * float(of_cases @ of_cases)
        total += with_controls / (with_controls - 1) * float(of_controls @ of_controls)
        total += 2 * everyone * float(of_cases @ of_controls)
        parts.append(of_cases + of_controls)
    together = np.sum(parts, axis=0)
    between = float(together @ together) - sum(float(part @ part) for part in parts)
    return (total + everyone * between) / len(parts) ** 2, few


def _summed(values: FloatArray, codes: NDArray[np.intp], count: int) -> FloatArray:
    return np.asarray(np.bincount(codes, weights=values, minlength=count))
