"""Networks crossed with enhancements: scores, tests against none, and what each enhancement does to an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pellucid.drawing import enlarge, to_picture
from pellucid.report.figures import drawn
from pellucid.report.gallery import SMALL, Group, as_seen
from pellucid.report.names import measure_title, number, p_value, percent
from pellucid.report.read import DatasetResult, open_pictures
from pellucid.report.tables import Cell, Table, between, degrees, interval, test_title
from pellucid.study.enhancement_tests import METRICS, reference_of

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
    pooled = models[models["fold"] == "all"]
    return [
        _crossed(str(images), part, tests[tests["images"] == images], arms, enhancements, confidence)
        for images, part in pooled.groupby("images", sort=False)
    ]


def enhancement_tests_table(tests: pd.DataFrame) -> Table | None:
    """Each enhancement of each network against none: the difference, its interval, p and effect."""
    if tests.empty:
        return None
    rows, sizes = [], []
    for network, part in tests.groupby("model", sort=False):
        sizes.append(len(part))
        for _, test in part.iterrows():
            same = str(test["identical"]) == "True"
            adjusted = test["p_adjusted"]
            effect = Cell(number(test["effect_size"], 2), between(test["effect_low"], test["effect_high"], 2))
            rows.append(
                [
                    Cell(str(network)),
                    Cell(f"{test['a']} − {test['b']}"),
                    Cell(measure_title(str(test["metric"]))),
                    Cell(str(test["images"])),
                    Cell(test_title(str(test["test"]))),
                    Cell(number(test["mean_difference"]), between(test["low"], test["high"])),
                    Cell("identical" if same else number(test["statistic"], 2), "" if same else degrees(test["df"])),
                    Cell("–" if same else p_value(test["p_value"])),
                    Cell("–" if same else p_value(adjusted), strong=not same and _significant(adjusted)),
                    Cell("–") if same else effect,
                    Cell(f"{int(test['n'])}" if np.isfinite(test["n"]) else "–", f"{test['unit']}s"),
                ]
            )
    return Table(
        f"Enhancements against {tests['b'].iloc[0]}",
        [
            "Network", "Enhancements", "Metric", "Test images", "Test", "Difference", "t", "p", "p corrected",
            "Effect size", "n",
        ],
        rows,
        note="p corrected for all tests of enhancements of this kind in the study, below 0.05 in bold. In brackets "
        "intervals.",
        heads=2,
        kind="long",
        sizes=sizes,
        spanning=True,
    )  # fmt: skip


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
        image = arrays["images"][labels.index(label)]
        pictures = [
            drawn(enlarge(to_picture(as_seen(image, name)), SMALL), f"Example of the class {label} under {name}", name)
            for name in enhancements
        ]
        groups.append(Group(label, pictures))
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
        ["Network", "Metric", *enhancements],
        rows,
        note=note,
        heads=2,
        sizes=[len(metrics)] * len(networks),
        spanning=True,
    )


def _marks(tests: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    """Which way an enhancement of a network differs by a metric, where the test that corrects most says so."""
    found = {}
    for name in ("paired-t", "corrected-resampled-t"):  # the second counts where there is one
        for _, test in tests[tests["test"] == name].iterrows():
            mark = BETTER if float(test["mean_difference"]) > 0 else WORSE
            key = (str(test["model"]), str(test["a"]), str(test["metric"]))
            found[key] = mark if _significant(test["p_adjusted"]) else ""
    return found


def _best(values: Mapping[str, float]) -> set[str]:
    """The names of the greatest value, ties to three digits together; none where all are tied."""
    finite = {name: round(value, 3) for name, value in values.items() if np.isfinite(value)}
    best = {name for name, value in finite.items() if value == max(finite.values())}
    return best if len(best) < len(finite) else set()


def _significant(value: float) -> bool:
    return bool(np.isfinite(value) and value < ALPHA)
