"""The tables on data, models and their mistakes, as the report prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pellucid.drawing import colour_of
from pellucid.report.composed import layer_words, made_of
from pellucid.report.names import counted, listed, measure_title, number, p_value, percent, seconds, size_words
from pellucid.report.read import CellResult, DatasetResult
from pellucid.study.classified import main_rows

SPLITS = ("train", "val", "test")
SPLIT_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
LONG_NAMES = 50  # letters of all class names, above which column names are written upwards
MODEL_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "mcc")
LABEL_METRICS = ("subset_accuracy", "macro_f1", "macro_auroc", "macro_auprc", "hamming_loss")
T_TESTS = ("corrected-resampled-t", "paired-t")
_TEST_TITLES = {
    "mcnemar": "McNemar",
    "mcnemar-clustered": "McNemar, clustered",
    "delong": "DeLong",
    "delong-clustered": "DeLong, clustered",
    "wilcoxon": "Wilcoxon",
    "friedman-nemenyi": "Friedman–Nemenyi",
    "non-inferiority": "non-inferiority",
}


@dataclass(frozen=True)
class Cell:
    """One entry: its main text, a smaller second line, emphasis, and colours where a table is also a picture."""

    text: str
    small: str = ""
    strong: bool = False
    colours: tuple[str, str] | None = None


@dataclass(frozen=True)
class Table:
    """A table ready to print: the first `heads` entries of each row are its heading."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    heads: int = 1
    kind: str = (
        ""  # "small" may stand beside another in print; "matrix", or "matrix upright" for column names written upwards;
        # "words" for sentences; "long" may break between pages
    )
    sizes: Sequence[int] = field(default_factory=tuple)  # rows per block, a rule between blocks
    spanning: bool = False  # the first heading of a block stands for all its rows


def texts(*words: str) -> list[Cell]:
    """Plain entries."""
    return [Cell(word) for word in words]


def counts_table(dataset: DatasetResult) -> Table | None:
    """Images per class and split; with several folds the smallest and largest count."""
    records = pd.DataFrame(dataset.facts.get("counts", []), columns=["fold", "split", "label", "images"])
    if records.empty:
        return None
    wide = records.pivot_table(index=["fold", "label"], columns="split", values="images", fill_value=0, aggfunc="sum")
    wide = wide.reindex(columns=list(SPLITS), fill_value=0).astype(int)

    def entry(values: pd.Series) -> str:
        low, high = int(values.min()), int(values.max())
        return str(low) if low == high else f"{low}–{high}"

    rows = []
    for label in dataset.classes:
        of_class = wide[wide.index.get_level_values("label") == label]
        of_class = of_class if len(of_class) else pd.DataFrame([dict.fromkeys(SPLITS, 0)])
        total = of_class.sum(axis=1)
        rows.append(texts(label, *(entry(of_class[split]) for split in SPLITS), entry(total)))
    totals = wide.groupby(level="fold").sum()
    rows.append([Cell(cell.text, strong=True) for cell in texts(
        "All", *(entry(totals[split]) for split in SPLITS), entry(totals.sum(axis=1))
    )])  # fmt: skip
    folds = records["fold"].nunique()
    return Table(
        "Images per class and part",
        ["Class", *(SPLIT_TITLES[split] for split in SPLITS), "All"],
        rows,
        note=" ".join(
            [f"Smallest and largest count over {folds} folds."] * (folds > 1)
            + ["An image may have several labels, and counts for each."] * dataset.multi_label
        ),
        sizes=(len(rows) - 1, 1),
    )


def models_table(models: pd.DataFrame, chances: dict[tuple[str, str], float], confidence: float) -> Table | None:
    """The main measures with intervals, on all test images and without the copies."""
    models = main_rows(models)
    if models.empty:
        return None
    pooled = models[models["fold"] == "all"] if (models["fold"] == "all").any() else models
    several = not (pooled["metric"] == "accuracy").any()
    shown = LABEL_METRICS if several else MODEL_METRICS
    rows, units = [], set()
    notes: dict[str, dict[str, list[str]]] = {}  # note, metric, the rows it holds for
    for (model, images), part in pooled.groupby(["model", "images"], sort=False):
        by_metric = part.drop_duplicates("metric").set_index("metric")
        cells = [Cell(str(model)), Cell(str(images))]
        for metric in shown:
            if metric not in by_metric.index:
                cells.append(Cell(number(None)))
                continue
            value, low, high = (float(by_metric[name][metric]) for name in ("value", "low", "high"))
            cells.append(interval(value, low, high))
            note = str(by_metric["note"][metric])
            if note not in ("", "nan"):
                row = str(model) if images == "all" else f"{model} {images}"
                notes.setdefault(note, {}).setdefault(measure_title(metric), []).append(row)
        units.add(str(part["unit"].iloc[0]))
        n, clusters = int(part["n"].iloc[0]), part["clusters"].iloc[0]
        if not several:
            cells.append(Cell(percent(chances.get((str(model), str(images))))))
        grouped = np.isfinite(clusters) and int(clusters) != n
        cells.append(Cell(str(n), f"{int(clusters)} {part['unit'].iloc[0]}s" if grouped else ""))
        rows.append(cells)
    note = f"In brackets {percent(confidence, 0)} intervals from a bootstrap that resamples {listed(sorted(units))}s."
    if several:
        note += " A label is said to be there from a probability of 0.5 on."
    else:
        note += " Commonest class: the accuracy of always naming it."
    if pooled["images"].str.contains("without copies").any():
        note += " “Without copies” leaves out the images that have a copy in the training part."
    if pooled["images"].str.startswith("external ").any():
        note += " “External” sets come from elsewhere, and no training touched them."
    return Table(
        "Models on the test images",
        [
            "Model",
            "Test images",
            *(measure_title(metric) for metric in shown),
            *([] if several else ["Commonest class"]),
            "n",
        ],
        rows,
        note=" ".join([note, *(_noted(text, rows_of) for text, rows_of in notes.items())]),
        heads=2,
    )


def _noted(note: str, rows_of: dict[str, list[str]]) -> str:
    """A note once for all metrics and rows that share it."""
    metrics_of: dict[tuple[str, ...], list[str]] = {}
    for metric, rows in rows_of.items():
        metrics_of.setdefault(tuple(rows), []).append(metric)
    where = "; ".join(f"{listed(metrics)} of {listed(rows)}" for rows, metrics in metrics_of.items())
    return f"{where}: {note.rstrip('.')}."


def folds_table(models: pd.DataFrame, titles: Sequence[str] = ()) -> Table | None:
    """Accuracy fold by fold, where there are several.

    `titles`: what each fold is called, such as the site that it leaves out; by default its number.
    """
    rows = models[(models["fold"] != "all") & (models["metric"] == "accuracy") & (models["images"] == "all")]
    folds = sorted(rows["fold"].unique(), key=lambda fold: (len(fold), fold))
    if len(folds) < 2:
        return None
    named = dict(enumerate(titles))
    wide = rows.pivot_table(index="model", columns="fold", values="value", sort=False)
    body = [texts(str(model), *(percent(values.get(fold)) for fold in folds)) for model, values in wide.iterrows()]
    columns = ["Model", *(_capitalised(named.get(int(fold), f"fold {fold}")) for fold in folds)]
    return Table("Accuracy per fold, all test images", columns, body)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def model_tests_table(tests: pd.DataFrame) -> Table | None:
    """Every pair of models with its t-test, corrected p and effect size."""
    tests = tests[tests["test"].isin(T_TESTS)]
    if tests.empty:
        return None
    rows = []
    for _, test in tests.iterrows():
        same = str(test["identical"]) == "True"
        effect = Cell(number(test["effect_size"], 2), between(test["effect_low"], test["effect_high"], 2))
        rows.append(
            [
                Cell(f"{test['a']} − {test['b']}"),
                Cell(str(test["images"])),
                Cell(test_title(str(test["test"]))),
                Cell(number(test["mean_difference"]), between(test["low"], test["high"])),
                Cell("identical" if same else f"{number(test['statistic'], 2)}", "" if same else degrees(test["df"])),
                Cell("–" if same else p_value(test["p_value"])),
                Cell(
                    "–" if same else p_value(test["p_adjusted"]), strong=not same and _significant(test["p_adjusted"])
                ),
                Cell("–") if same else effect,
                Cell(f"{int(test['n'])}" if np.isfinite(test["n"]) else "–", str(test["unit"]) + "s"),
            ]
        )
    columns = ["Pair", "Test images", "Test", "Difference in accuracy", "t", "p", "p corrected", "Effect size", "n"]
    note = "p corrected over the declared family of tests, below 0.05 in bold. In brackets intervals."
    return Table("Tests between models", columns, rows, note=note, heads=2)


def confusion_table(cells: Sequence[CellResult], classes: Sequence[str], images: str) -> Table | None:
    """Test images by true and predicted class over all folds of one model."""
    test = pd.concat([cell.test for cell in cells], ignore_index=True)
    if images != "all":
        test = test[~test["copy_in_train"].astype(bool)]
    if test.empty:
        return None
    counts = confusion(test, classes)
    rows = []
    for label, row in zip(classes, counts, strict=True):
        total = int(row.sum())
        shares = row / total if total else np.zeros(len(row))
        entries = [
            Cell(
                str(int(count)),
                percent(share, 0) if count else "",
                colours=colour_of(share) if total else None,
            )
            for count, share in zip(row, shares, strict=True)
        ]
        rows.append([Cell(label, f"n = {total}"), *entries])
    never = [label for label, column in zip(classes, counts.T, strict=True) if column.sum() == 0]
    caption = f"{cells[0].model}, {counted(len(test), 'test image')}" + ("" if images == "all" else f" {images}")
    return Table(
        caption,
        ["True class ↓ predicted →", *classes],
        rows,
        note=f"Never predicted: {listed(never)}." if never else "",
        kind="matrix" if len("".join(classes)) < LONG_NAMES else "matrix upright",
    )


def confusion(test: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Counts (true, predicted) in the order of `classes`."""
    position = {label: index for index, label in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for label, predicted in zip(test["label"], test["predicted"], strict=True):
        counts[position[label], position[predicted]] += 1
    return counts


def training_table(dataset: DatasetResult) -> Table | None:
    """How each network was trained: size, epochs, layer, time."""
    rows = []
    for cell in dataset.cells:
        card, times = cell.card, cell.times
        grid = card.get("grid")
        place = cell.place if len(dataset.of_model(cell.model)) > 1 else ""
        mean, std = (", ".join(number(value) for value in card["normalisation"][part]) for part in ("mean", "std"))
        rows.append(
            [
                Cell(cell.model, "; ".join(part for part in (place, made_of(card.get("combination"))) if part)),
                Cell(f"{card['parameters'] / 1e6:.2f} M"),
                Cell(f"{card['channels']} × {size_words(card['image_size'])}"),
                Cell(str(card["normalisation"]["origin"]), f"mean {mean}; sd {std}"),
                Cell(f"{card['best_epoch']} of {card['epochs']}", "stopped early" if card.get("stopped_early") else "")
                if card["epochs"]
                else Cell("–"),
                Cell(seconds(times.get("train_seconds"))),
                Cell(layer_words(card.get("layer")), " × ".join(map(str, grid)) + " grid" if grid else ""),
            ]
        )
    columns = ["Model", "Parameters", "Input", "Normalisation", "Best epoch", "Training time", "Explained layer"]
    return Table("The networks", columns, rows) if rows else None


def interval(value: float, low: float, high: float, digits: int = 3, *, strong: bool = False) -> Cell:
    """A value over its interval."""
    return Cell(number(value, digits), between(low, high, digits), strong=strong)


def between(low: float, high: float, digits: int = 3) -> str:
    """An interval in brackets, or nothing where there is none."""
    if low is None or high is None or not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def degrees(df: float) -> str:
    """Degrees of freedom."""
    return f"df {df:g}" if df is not None and np.isfinite(df) else ""


def test_title(name: str) -> str:
    """A test's name in words.

    >>> test_title("corrected-resampled-t")
    'corrected resampled t'
    """
    return _TEST_TITLES.get(name, name.replace("-", " "))


def _significant(value: float) -> bool:
    return bool(np.isfinite(value) and value < 0.05)
