"""What an evaluation comes to: values in order, means beside the best control, what is missing, what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.metrics.families import Metric
from pellucid.metrics.lesions import Froc
from pellucid.registry import Choice
from pellucid.statistics.bootstrap import summarise

COLUMNS = ("metric", "family", "better", "method", "control", "n", "missing", "mean", "low", "high", "best", "floor")


def scores_table(
    rows: Sequence[tuple[Any, ...]], methods: Sequence[str], metrics: Sequence[Choice[Metric]]
) -> pd.DataFrame:
    """Rows (sample, method, metric, value, reason) as a table, in the order of images, methods and metrics."""
    places = {label: place for place, label in enumerate(methods)}
    labels = {choice.label: place for place, choice in enumerate(metrics)}
    ordered = sorted(rows, key=lambda row: (row[0], places[row[1]], labels[row[2]]))
    table = pd.DataFrame(ordered, columns=["sample", "method", "metric", "value", "reason"])
    return table.astype({"value": "float64"})


def froc_table(curves: Mapping[str, Froc]) -> pd.DataFrame:
    """A row per method and threshold: the share of lesions that are found, and false positives per image."""
    tables = [
        pd.DataFrame(
            {
                "method": label,
                "threshold": curve.thresholds.numpy(),
                "sensitivity": curve.sensitivity.numpy(),
                "false_positives_per_image": curve.false_positives.numpy(),
            }
        )
        for label, curve in curves.items()
    ]
    return pd.concat(tables, ignore_index=True)


def numbered(patients: Sequence[str]) -> list[str]:
    """A number for each patient, in the order of the images; "" where unknown.

    >>> numbered(["P-07", "", "P-03", "P-07"])
    ['1', '', '2', '1']
    """
    numbers = {name: str(place + 1) for place, name in enumerate(dict.fromkeys(filter(None, patients)))}
    return [numbers.get(name, "") for name in patients]


def summary_table(
    scores: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Choice[Metric]], patients: Sequence[str]
) -> pd.DataFrame:
    """A row per metric and method: n, missing, the mean over images, and its 95 % interval by resampled patients.

    `floor` is the mean of the control that does best, `best` marks the method that does best among those that aren't
    controls; `patients` (N,) is "" where unknown, and such an image counts as a patient of its own.
    """
    rows = []
    for choice in metrics:
        sign = 1.0 if choice.entry.higher_is_better else -1.0
        means: dict[str, float] = {}
        numbers: dict[str, tuple[float, ...]] = {}
        for method in methods:
            part = scores[(scores["metric"] == choice.label) & (scores["method"] == method)]
            values = part["value"].to_numpy(float)
            estimate = summarise(np.where(np.isfinite(values), values, np.nan), [patients[s] for s in part["sample"]])
            bounds = [np.nan if each is None else each for each in (estimate.value, estimate.low, estimate.high)]
            numbers[method] = (estimate.n, len(values) - estimate.n, *bounds)
            if estimate.value is not None:
                means[method] = estimate.value
        own = [sign * mean for method, mean in means.items() if not is_control(method)]
        controls = [sign * mean for method, mean in means.items() if is_control(method)]
        floor = sign * max(controls) if controls else np.nan
        better = "higher" if sign > 0 else "lower"
        for method, found in numbers.items():
            best = not is_control(method) and method in means and sign * means[method] == max(own)
            rows.append((choice.label, choice.entry.family, better, method, is_control(method), *found, best, floor))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def missing_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Of how many images a value is missing, by metric, method and reason; no row where none is."""
    gone = scores[scores["value"].isna()]
    counts = gone.groupby(["metric", "method", "reason"], sort=False)["sample"].nunique()
    return counts.rename("images").reset_index()


def metric_record(choice: Choice[Metric]) -> dict[str, Any]:
    """What a record says of a metric, with the options that it was called with, defaults too."""
    entry = choice.entry
    options = {**entry.options, **choice.options}
    return {
        "family": entry.family,
        "better": "higher" if entry.higher_is_better else "lower",
        "range": None if entry.range is None else [str(end) for end in entry.range],
        "needs": list(entry.needs),
        "options": {name: value.label if isinstance(value, Choice) else repr(value) for name, value in options.items()},
        "source": entry.source,
    }
