"""Percentile bootstrap that resamples patients, since images of one patient aren't independent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pellucid.errors import expected
from pellucid.statistics.units import FloatArray, UnitIds, Units, numbers, units_of
from pellucid.statistics.wording import count, number, span

WeightStatistic: TypeAlias = Callable[[FloatArray], FloatArray]
"""From weights (R, N), how often each of N rows was drawn in each of R resamples, to R values, NaN where undefined."""

ColumnStatistic: TypeAlias = Callable[[FloatArray], FloatArray]
"""From weights (R, N) to R values of each of M statistics, (R, M), NaN where undefined."""

RESAMPLES = 2000
_CHUNK = 4_000_000  # weights held at a time: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval; None where there is none, and then `note` says why."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    n: int
    """Rows that entered."""
    n_missing: int
    """Rows left out because their value is missing."""
    units: int
    """Patients (or images) that were resampled."""
    unit: str
    """What was resampled: "patient", or "image" where no patient ids are known."""
    resamples: int
    undefined: int
    """Resamples left out because the statistic has no value there (a class is absent)."""
    randomness: str
    """"seed 0" or "given generator"."""
    note: str
    """What a reader must know, in sentences, or ""."""

    def text(self) -> str:
        """The value with its interval: "0.863 (95 % interval 0.81 to 0.90)"; the reason where it is missing."""
        if self.value is None:
            return f"missing: {self.note}"
        if self.low is None or self.high is None:
            return f"{number(self.value)} (no interval: {self.note})"
        return f"{number(self.value)} ({span(self.low, self.high, self.confidence)})"


def bootstrap(
    statistics: Mapping[str, WeightStatistic],
    units: Units,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> dict[str, Estimate]:
    """Give every statistic its percentile interval, all on the same resamples of whole units.

    Resample r draws `units.count` units with replacement by `generator.integers(count, size=(resamples, count))`;
    a row's weight is how often its unit was drawn. Resamples in which a statistic is undefined are left out of its
    interval and counted; where that is more than half of them, no interval is given.

    Args:
        statistics: functions of the rows' weights, by name; `of_rows` makes one from a function of row numbers.
        units: the units of the N rows, from `units_of`.
        resamples: how many.
        confidence: of the interval, between 0 and 1.
        generator: source of the draws; None means seed 0.

    Returns:
        An Estimate for each name.

    Raises:
        InputError: for a confidence outside (0, 1) or fewer than one resample.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3; resampling of whole clusters:
        Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8.

    >>> values = np.array([0.0, 1.0, 1.0, 1.0])
    >>> mean = lambda weights: weights @ values / weights.sum(axis=1)
    >>> bootstrap({"mean": mean}, units_of(["a", "b", "c", "c"], 4), resamples=500)["mean"].text()
    '0.750 (95 % interval 0.158 to 1.000)'
    """

    def columns(weights: FloatArray) -> FloatArray:
        if not weights.shape[1]:  # without rows nothing is asked
            return np.full((1, len(statistics)), np.nan)
        return np.column_stack([statistic(weights) for statistic in statistics.values()])

    if not statistics:
        return {}
    estimates = bootstrap_columns(columns, units, resamples=resamples, confidence=confidence, generator=generator)
    return dict(zip(statistics, estimates, strict=True))


def bootstrap_columns(
    statistic: ColumnStatistic,
    units: Units,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> tuple[Estimate, ...]:
    """The same for M statistics that share their work: one function gives a column for each.

    Args:
        statistic: from weights (R, N) to (R, M), also for N = 0, where all are missing whatever it says.
        units, resamples, confidence, generator: as in `bootstrap`.

    Returns:
        An Estimate for each column.

    Raises:
        InputError: for a confidence outside (0, 1) or fewer than one resample.
    """
    if not 0 < confidence < 1:
        raise expected("confidence", "a share between 0 and 1", confidence, do="Give 0.95 for a 95 % interval.")
    if resamples < 1:
        raise expected("resamples", "at least 1", resamples)
    n = len(units.codes)
    values = statistic(np.ones((1, n)))[0]
    if not n:
        values = np.full(len(values), np.nan)
    drawn = [np.zeros((0, len(values)))]
    if units.count > 1:
        drawn += [statistic(weights) for weights in _row_weights(units, resamples, generator)]
    randomness = "seed 0" if generator is None else "given generator"
    columns = np.concatenate(drawn).T
    return tuple(
        _estimate(float(value), column, units, confidence, randomness)
        for value, column in zip(values, columns, strict=True)
    )


def of_rows(statistic: Callable[[np.ndarray], float]) -> WeightStatistic:
    """Turn a function of row numbers (a row drawn twice appears twice) into one of weights, called per resample.

    >>> data = np.array([1.0, 2.0, 9.0])
    >>> of_rows(lambda rows: float(np.median(data[rows])))(np.array([[1.0, 2.0, 0.0]])).tolist()
    [2.0]
    """

    def weighted(weights: FloatArray) -> FloatArray:
        rows = np.arange(weights.shape[1])
        return np.array([statistic(np.repeat(rows, row.astype(np.intp))) for row in weights])

    return weighted


def mean_of(values: FloatArray) -> WeightStatistic:
    """The mean of the values (N,) that are there, NaN being missing, as a function of the rows' weights.

    >>> mean_of(np.array([1.0, np.nan, 4.0]))(np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])).tolist()
    [2.5, nan]
    """
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)

    def mean(weights: FloatArray) -> FloatArray:
        total = weights @ present.astype(np.float64)
        return np.asarray(np.divide(weights @ filled, total, out=np.full(len(weights), np.nan), where=total > 0))

    return mean


def summarise(
    values: ArrayLike,
    units: UnitIds | str = "image",
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """Mean of per-sample values with its patient-clustered bootstrap interval.

    Args:
        values: (N,) a value per sample, NaN where missing; the missing are left out and counted.
        units: patient id per sample ("" unknown), or the word for what each sample is.
        resamples, confidence, generator: as in `bootstrap`.

    Returns:
        The mean over the samples that have a value. It doesn't depend on the order of the samples.

    Raises:
        InputError: for infinite values or ids that don't fit.

    >>> estimate = summarise([0.2, 0.4, float("nan"), 0.9], ["a", "a", "b", "c"])
    >>> estimate.value, estimate.n, estimate.n_missing, estimate.units
    (0.5, 3, 1, 2)
    """
    column = numbers("values", values)
    if column.ndim != 1:
        raise expected("values", "one value per sample, shape (N,)", f"shape {column.shape}")
    found = units_of(units, len(column))
    present = np.isfinite(column)
    order = found.order(column)
    order = order[present[order]]
    kept = column[order]

    def mean(weights: FloatArray) -> FloatArray:
        return np.asarray(weights @ kept / weights.sum(axis=1))

    resampled = bootstrap(
        {"mean": mean}, found.take(order), resamples=resamples, confidence=confidence, generator=generator
    )
    return replace(resampled["mean"], n_missing=len(column) - len(kept))


def _estimate(value: float, drawn: FloatArray, units: Units, confidence: float, randomness: str) -> Estimate:
    defined = drawn[np.isfinite(drawn)]
    undefined = len(drawn) - len(defined)
    low, high = None, None
    notes = [units.note] if units.note else []
    if not len(units.codes):
        notes.append("No row has a value.")
    elif not np.isfinite(value):
        notes.append("The statistic has no value on these rows.")
    elif units.count == 1:
        notes.append(f"There is 1 {units.unit} only, so nothing to resample.")
    elif 2 * undefined > len(drawn):
        notes.append(f"The statistic has no value in {undefined} of {count(len(drawn), 'resample')}.")
    else:
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.quantile(defined, [tail, 1 - tail]))
        if undefined:
            notes.append(f"{undefined} of {count(len(drawn), 'resample')} had no value and are left out.")
        if low == high:
            notes.append("The resamples agree, so the interval can't show how uncertain this is.")
    return Estimate(
        value=value if np.isfinite(value) else None,
        low=low,
        high=high,
        confidence=confidence,
        n=len(units.codes),
        n_missing=0,
        units=units.count,
        unit=units.unit,
        resamples=len(drawn),
        undefined=undefined,
        randomness=randomness,
        note=" ".join(notes),
    )


def _row_weights(units: Units, resamples: int, generator: np.random.Generator | None) -> Iterator[FloatArray]:
    generator = np.random.default_rng(0) if generator is None else generator
    step = max(1, _CHUNK // len(units.codes))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = generator.integers(units.count, size=(size, units.count))
        draws += np.arange(size)[:, None] * units.count  # a range of bins for each resample
        times = np.bincount(draws.ravel(), minlength=size * units.count).reshape(size, units.count)
        yield times.astype(np.float64)[:, units.codes]
