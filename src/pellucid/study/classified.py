"""The measures of a study's classifiers as rows of a table, with thresholds chosen on the validation part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pellucid.statistics import (
    THRESHOLD_RULES,
    Decision,
    Measured,
    Units,
    choose_thresholds,
    decide,
    label_predictions,
    measure,
    measure_labels,
    predictions,
)

MEASURE_COLUMNS = (
    "metric", "class", "rule", "threshold_low", "threshold_high", "value", "low", "high", "n", "positives", "clusters",
    "unit", "note",
)  # fmt: skip
NETWORK = ("seed", "fold")
"""What tells the networks of one model apart, each of which has thresholds of its own."""
STATED_THRESHOLD = 0.5


def measured_rows(
    test: pd.DataFrame,
    validation: pd.DataFrame,
    units: Units,
    *,
    resamples: int,
    confidence: float,
) -> list[dict[str, Any]]:
    """Every measure of what one or several networks said of test images, pooled.

    Args:
        test: rows of `predictions.parquet` of the test part.
        validation: those of the validation part, of the same networks: thresholds are chosen here, never on `test`.
        units: the patients of the rows of `test`, which the intervals resample.
        resamples, confidence: of the intervals.

    Returns:
        A row per measure with `MEASURE_COLUMNS`: "class" is "" for all classes together; "rule" is "argmax", "fixed",
        a name in `THRESHOLD_RULES`, or "" where no decision enters; the thresholds are the smallest and the largest of
        the pooled networks; "positives" are the class's images.
    """
    classes = classes_of(test)
    several = label_columns(test, classes)
    probabilities = _columns(test, "prob_", classes)
    generator = np.random.default_rng(0)
    decisions = [_chosen(rule, test, validation, classes, several) for rule in THRESHOLD_RULES.names()]
    if several or len(classes) == 2:
        decisions.insert(0, decide("fixed", probabilities, STATED_THRESHOLD))
    if several:
        answers = label_predictions(_truth(test, classes, several), probabilities, classes)
        found = measure_labels(
            answers, units, decisions, resamples=resamples, confidence=confidence, generator=generator
        )
    else:
        said = predictions(list(test["label"]), list(test["predicted"]), probabilities, classes)
        found = measure(said, units, decisions, resamples=resamples, confidence=confidence, generator=generator)
    positives = dict(zip(classes, _truth(test, classes, several).sum(axis=0).tolist(), strict=True))
    return [_row(each, positives.get(each.label)) for each in found]


def main_rows(models: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of measures that are of all classes together, none at a threshold that was chosen.

    So that each measure is there once per network, fold and set of images.
    """
    return models[(models["class"] == "") & models["rule"].isin(("", "argmax", "fixed"))]


def classes_of(answers: pd.DataFrame) -> list[str]:
    """The classes whose probabilities stand in a table of predictions, in its order.

    Tables of several data sets are joined, so another data set's classes are empty columns, which don't count.
    """
    columns = [name for name in answers.columns if name.startswith("prob_") and answers[name].notna().all()]
    return [name.removeprefix("prob_") for name in columns]


def label_columns(answers: pd.DataFrame, classes: Sequence[str]) -> bool:
    """Whether images may have several labels, each with a column of its own."""
    names = [f"label_{name}" for name in classes]
    return all(name in answers.columns and answers[name].notna().all() for name in names)


def _chosen(
    rule: str,
    test: pd.DataFrame,
    validation: pd.DataFrame,
    classes: Sequence[str],
    several: bool,
) -> Decision:
    """Decisions on the test images, each by the thresholds of its own network."""
    limits = np.full((len(test), len(classes)), np.nan)
    why = [""] * len(classes)
    trained, asked = _network(validation), _network(test)
    for network in np.unique(asked):
        own = validation[trained == network]
        truth = _truth(own, classes, several)
        values, reasons = choose_thresholds(truth, _columns(own, "prob_", classes), rule)
        limits[asked == network] = values
        why = [old or new for old, new in zip(why, reasons, strict=True)]
    return decide(rule, _columns(test, "prob_", classes), limits, why)


def _network(answers: pd.DataFrame) -> np.ndarray:
    """(N,) which network each row is of."""
    return np.array(["/".join(map(str, key)) for key in answers[list(NETWORK)].itertuples(index=False)], dtype=str)


def _truth(answers: pd.DataFrame, classes: Sequence[str], several: bool) -> np.ndarray:
    """(N, K) which classes each image has."""
    if several:
        return _columns(answers, "label_", classes).astype(bool)
    return np.column_stack([(answers["label"] == name).to_numpy(bool) for name in classes])


def _columns(answers: pd.DataFrame, prefix: str, classes: Sequence[str]) -> np.ndarray:
    return answers[[prefix + name for name in classes]].to_numpy(float)


def _row(each: Measured, positives: int | None) -> dict[str, Any]:
    low, high = each.thresholds or (None, None)
    estimate = each.estimate
    return {
        "metric": each.metric.replace("-", "_"),
        "class": each.label,
        "rule": each.rule,
        "threshold_low": low,
        "threshold_high": high,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "positives": positives,
        "clusters": estimate.units,
        "unit": estimate.unit,
        "note": estimate.note,
    }
