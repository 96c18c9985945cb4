"""Networks crossed with enhancements: scores, tests against none, and what each enhancement does to an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pellucid.report.figures import drawn
from pellucid.report.gallery import Group, small_example
from pellucid.report.names import listed, measure_title, number, p_value, percent
from pellucid.report.read import DatasetResult, open_pictures
from pellucid.report.tables import Cell, Table, between, interval, test_title
from pellucid.study.enhancement_tests import METRICS, reference_of, whole_scores

ALPHA = 0.05
BETTER, WORSE = "▲", "▼"


def crossed_tables(dataset: DatasetResult, models: pd.DataFrame, tests: pd.DataFrame, confidence: float) -> list[Table]:
    """A table per set of images, a row per network and metric, a column per enhancement; none where there is one only.

    Arguments:
        dataset: its cells say which network and enhancement each model is.
        models: the data set's scores with intervals.
        tests: the data set's tests of enhancements.
        confidence: of the intervals.
    """
    arms = _arms(dataset)
    enhancements = list(dict.fromkeys(enhancement for _, enhancement in arms.values()))
    if len(enhancements) < 2:
        return []
    pooled = whole_scores(models[models["fold"] == "all"])
    return [
        _crossed(str(images), part, tests[tests["images"] == images], arms, enhancements, confidence)
        for images, part in pooled.groupby("images", sort=False)
    ]


def enhancement_tests_tables(tests: pd.DataFrame) -> list[Table]:
    """Each enhancement of each network against none, a table per set of images: differences, p and effects.

    Where folds were compared the corrected resampled t-test is shown; the paired one stands in the CSV.
    """
    shown = tests[tests["test"] == _deciding(tests)]
    return [_against(str(images), part) for images, part in shown.groupby("images", sort=False)]


def enhanced_examples(dataset: DatasetResult) -> list[Group]:
    """The first example of each class as the networks saw it under each enhancement, in the order of the classes."""
    opened = open_pictures(dataset.picture_file("examples"))
    if opened is None:
        return []
    arrays, attributes = opened
    labels = list(attributes["labels"])
    enhancements = list(dict.fromkeys(enhancement for _, enhancement in _arms(dataset).values()))
    groups = []
    for label in (label for label in dataset.classes if label in labels):
        pictures = [
            drawn(
                small_example(arrays, attributes, labels.index(label), name),
                f"Example of the class {label} under {name}",
                _title(name),
            )
            for name in enhancements
        ]
        groups.append(Group(label, pictures, wide="volumes" in arrays))
    return groups


def _arms(dataset: DatasetResult) -> dict[str, tuple[str, str]]:
    """Network and enhancement of each model, in the order of the cells."""
    return {
        cell.model: (str(cell.card.get("network", cell.model)), str(cell.card.get("enhancement", "none")))
        for cell in dataset.cells
    }


def _crossed(
    images: str,
    models: pd.DataFrame,
    tests: pd.DataFrame,
    arms: Mapping[str, tuple[str, str]],
    enhancements: Sequence[str],
    confidence: float,
) -> Table:
    known = {(*arms[str(row["model"])], row["metric"]): row for _, row in models.iterrows() if row["model"] in arms}
    marks = _marks(tests)
    networks = list(dict.fromkeys(network for network, _ in arms.values()))
    metrics = [metric for metric in METRICS if any(key[2] == metric for key in known)]
    rows = []
    for network in networks:
        for metric in metrics:
            found = {name: known[network, name, metric] for name in enhancements if (network, name, metric) in known}
            best = _best({name: float(row["value"]) for name, row in found.items()})
            cells = [Cell(network), Cell(measure_title(metric))]
            for name in enhancements:
                if name not in found:
                    cells.append(Cell("–"))
                    continue
                value, low, high = (float(found[name][column]) for column in ("value", "low", "high"))
                cell = interval(value, low, high, strong=name in best)
                mark = marks.get((network, name, metric), "")
                cells.append(Cell(f"{cell.text} {mark}".strip(), cell.small, cell.strong))
            rows.append(cells)
    reference = reference_of(enhancements)
    note = (
        f"In brackets {percent(confidence, 0)} intervals from a bootstrap that resamples patients where they are "
        f"known; the best of each row in bold. {BETTER} better and {WORSE} worse than {reference}, at a corrected p "
        "below 0.05."
    )
    title = "Networks and enhancements" + ("" if images == "all" else f", test images {images}")
    return Table(
        title,
        ["Network", "Metric", *map(_title, enhancements)],
        rows,
        note=note,
        heads=2,
        sizes=[len(metrics)] * len(networks),
        spanning=True,
    )


def _against(images: str, tests: pd.DataFrame) -> Table:
    metrics = [metric for metric in METRICS if metric in set(tests["metric"])]
    rows, sizes = [], []
    for network, part in tests.groupby("model", sort=False):
        sizes.append(part["a"].nunique())
        for enhancement, pair in part.groupby("a", sort=False):
            by_metric = {str(test["metric"]): test for _, test in pair.iterrows()}
            units = {f"{int(test['n'])} {test['unit']}s" for test in by_metric.values() if np.isfinite(test["n"])}
            cells = [Cell(str(network)), Cell(_title(str(enhancement))), Cell(listed(sorted(units)) or "–")]
            for metric in metrics:
                cells += _tested(by_metric[metric]) if metric in by_metric else [Cell("–"), Cell("–")]
            rows.append(cells)
    title = f"Enhancements against {tests['b'].iloc[0]}" + ("" if images == "all" else f", test images {images}")
    columns = [column for metric in metrics for column in (f"{measure_title(metric)}, difference", "p, effect size")]
    note = (
        f"By the {test_title(str(tests['test'].iloc[0]))}-test. p is corrected for all such tests of enhancements in "
        "the study, below 0.05 in bold; effect size: mean difference over the standard deviation of differences. In "
        "brackets 95 % intervals, each of its difference alone."
    )
    return Table(title, ["Network", "Enhancement", "n", *columns], rows, note=note, heads=2, sizes=sizes, spanning=True)


def _tested(test: pd.Series) -> list[Cell]:
    """A difference over its interval, and its corrected p over the effect size."""
    difference = Cell(number(test["mean_difference"]), between(test["low"], test["high"]))
    if str(test["identical"]) == "True":
        return [difference, Cell("identical")]
    effect = f"d {number(test['effect_size'], 2)} {between(test['effect_low'], test['effect_high'], 2)}".strip()
    known = np.isfinite(test["effect_size"])
    return [difference, Cell(p_value(test["p_adjusted"]), effect if known else "", _significant(test["p_adjusted"]))]


def _deciding(tests: pd.DataFrame) -> str:
    """The test that counts: the one for folds that share training images, where there are folds."""
    name = "corrected-resampled-t"
    return name if name in set(tests["test"]) else "paired-t"


def _title(enhancement: str) -> str:
    """A label that may break into lines.

    >>> _title("clahe[clip_limit=0.02,tiles=4]")
    'clahe [clip_limit=0.02, tiles=4]'
    """
    return enhancement.replace("[", " [").replace(",", ", ")


def _marks(tests: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    """Which way an enhancement of a network differs by a metric, where that is shown."""
    shown = tests[(tests["test"] == _deciding(tests)) & (tests["p_adjusted"].astype(float) < ALPHA)]
    return {
        (str(test["model"]), str(test["a"]), str(test["metric"])): BETTER if test["mean_difference"] > 0 else WORSE
        for _, test in shown.iterrows()
    }


def _best(values: Mapping[str, float]) -> set[str]:
    """The names of the greatest value, ties to three digits together; none where all are tied."""
    finite = {name: round(value, 3) for name, value in values.items() if np.isfinite(value)}
    best = {name for name, value in finite.items() if value == max(finite.values())}
    return best if len(best) < len(finite) else set()


def _significant(value: float) -> bool:
    return bool(np.isfinite(value) and value < ALPHA)
