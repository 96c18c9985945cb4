"""The page of arXiv 2503.08420 redone: its tables and figures from three studies, beside what it published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.errors import InputError
from pellucid.files import write_table, write_text
from pellucid.report.about import PROTOCOL, ROAD
from pellucid.report.gallery import Gallery, gallery
from pellucid.report.names import counted, listed, method_title, number, p_value, percent
from pellucid.report.page import page
from pellucid.report.paper_numbers import (
    METHODS,
    NETWORKS,
    PUBLISHED_CONFIDENCE,
    beside_paper,
    paper_sheets,
)
from pellucid.report.read import DatasetResult, StudyResult, read_study
from pellucid.report.scores import method_order, times_table
from pellucid.report.tables import Cell, Table, between, interval, model_tests_table
from pellucid.study.paper import TASKS

Sheets = Mapping[str, pd.DataFrame]
_UNKNOWN = "not known here"


@dataclass(frozen=True)
class TaskPart:
    """What the page shows of one task."""

    name: str
    link: str
    missing: str
    tables: Sequence[Table]
    gallery: Gallery | None


def build_paper(output: Path) -> Path:
    """Write `output`/index.html and its tables as CSV from the studies in `output`/TASK; returns the page.

    Tasks that aren't there are left out, and cells that aren't finished are named.

    Raises InputError when no task's study is there.
    """
    studies = {task: read_study(output / task) for task in TASKS if (output / task / "study.toml").is_file()}
    if not studies:
        raise InputError(
            f"output: expected a folder with the study of a task ({', '.join(TASKS)}), got {str(output)!r}."
        )
    sheets = paper_sheets(studies)
    for name, sheet in sheets.items():
        write_table(output / f"{name}.csv", sheet)
    path = output / "index.html"
    write_text(path, render_paper(studies, sheets))
    return path


def render_paper(studies: Mapping[str, StudyResult], sheets: Sheets) -> str:
    """The page's HTML; the CSV tables stand beside it, and each task's own report in its folder."""
    datasets = [dataset for study in studies.values() for dataset in study.datasets]
    return page(
        "paper.html.j2",
        intro=_intro(datasets),
        alarms=_alarms(sheets["accuracy"]),
        tables=[
            table
            for table in (
                beside_table(sheets),
                differences_table(studies),
                accuracy_table(sheets["accuracy"], datasets),
            )
            if table is not None
        ],
        parts=[
            _task_part(task, study, dataset, sheets) for task, study in studies.items() for dataset in study.datasets
        ],
        sheets=list(sheets),
        protocol=PROTOCOL,
        road=ROAD,
    )


def _intro(datasets: Sequence[DatasetResult]) -> str:
    done = sum(len(dataset.cells) for dataset in datasets)
    missing = sum(len(dataset.missing) for dataset in datasets)
    tasks = listed([dataset.name for dataset in datasets])
    state = "all finished" if not missing else f"{done} of {done + missing} finished"
    return f"{counted(done + missing, 'network')} on {counted(len(datasets), 'task')} ({tasks}), {state}."


def _alarms(accuracy: pd.DataFrame) -> list[str]:
    """A warning for each network that isn't better than chance, and for test images that are copies."""
    told = [] if len(accuracy) else ["No network is finished yet."]
    for _, row in accuracy[accuracy["at_chance"].astype(bool)].iterrows():
        where, so = "", "What its maps show and how they score means nothing."
        if row["images"] != "all":
            where, so = " without the copies", "Its maps may show memory and not evidence."
        held = f"accuracy {_told(row, 'accuracy')}, where the commonest class has {percent(row['commonest_class'])}"
        if np.isfinite(row["balanced_accuracy_low"]):
            chance = percent(row["one_over_classes"])
            held = f"balanced accuracy {_told(row, 'balanced_accuracy')}, where chance is {chance}"
        told.append(f"{row['model']} on {row['task']} is at chance{where}: {held}. {so}")
    for task, rows in accuracy.groupby("task", sort=False):
        counts = rows.groupby("images")["n"].max()
        clean, everything = int(counts.get("without copies", counts["all"])), int(counts["all"])
        if clean < everything:
            told.append(
                f"{task}: {everything - clean} of {everything} test images ({percent(1 - clean / everything, 0)}) are "
                "copies of training images. Only the figures without them say how well a network generalises."
            )
    return told


def _told(row: pd.Series, name: str) -> str:
    return f"{percent(row[name])} ({percent(row[f'{name}_low'])} to {percent(row[f'{name}_high'])})"


def beside_table(sheets: Sheets) -> Table | None:
    """Each published number and finding that is known here, beside what each network gave."""
    found = beside_paper(sheets)
    if found.empty:
        return None
    lost = sheets["accuracy"][sheets["accuracy"]["at_chance"].astype(bool) & (sheets["accuracy"]["images"] == "all")]
    at_chance = set(zip(lost["task"], lost["model"], strict=True))
    networks = [*dict.fromkeys(found["network"])]
    rows = []
    for (claim, published), part in found.groupby(["finding", "published"], sort=False):
        known = {row["network"]: row for _, row in part.iterrows()}
        rows.append([Cell(str(claim)), Cell(str(published)), *(_said(known.get(name), at_chance) for name in networks)])
    return Table(
        "Beside the paper",
        ["Finding", "The paper", *(f"Here: {name}’s family" for name in networks)],
        rows,
        note=(
            "The published numbers are those known here; of which network the paper’s confidence increases are isn’t. "
            "The table below says what differs: another network, size or set of images gives other numbers."
        ),
        kind="words",
    )


def _said(row: pd.Series | None, at_chance: set[tuple[str, str]]) -> Cell:
    if row is None:
        return Cell("–")
    if row["kind"] == "holds":
        text = "holds" if row["here"] else "doesn’t hold"
    else:
        text = percent(row["here"]) if row["kind"] == "accuracy" else number(row["here"])
    return Cell(text, str(row["model"]) + ("; at chance" if (row["task"], row["model"]) in at_chance else ""))


def differences_table(studies: Mapping[str, StudyResult]) -> Table:
    """What was done here, task by task, beside what is known of the paper."""
    pairs = [(study, dataset) for study in studies.values() for dataset in study.datasets]
    rows = [
        ("Networks", [", ".join(_names(study)) for study, _ in pairs], ", ".join(NETWORKS)),
        ("Weights at the start", [_weights(study) for study, _ in pairs], _UNKNOWN),
        ("Input", [_input(dataset) for _, dataset in pairs], _UNKNOWN),
        ("Images: training, validation, test", [_images(dataset) for _, dataset in pairs], _UNKNOWN),
        ("Classes", [str(len(dataset.classes)) for _, dataset in pairs], _UNKNOWN),
        ("Split", [_split(study, dataset) for study, dataset in pairs], _UNKNOWN),
        ("Epochs", [_epochs(dataset) for _, dataset in pairs], _UNKNOWN),
        ("Explained test images", [_explained(dataset) for _, dataset in pairs], _UNKNOWN),
        ("Methods", [_methods(study) for study, _ in pairs], ", ".join(map(method_title, METHODS))),
        ("Score of a map", ["ROAD"] * len(pairs), "ROAD confidence increase"),
        ("Tests between networks", [_tests(study) for study, _ in pairs], "paired t"),
    ]
    return Table(
        "What differs from the paper",
        ["", *(dataset.name for _, dataset in pairs), "The paper"],
        [[Cell(title), *map(Cell, here), Cell(paper)] for title, here, paper in rows],
        kind="words",
    )


def _models(study: StudyResult) -> list[Mapping[str, object]]:
    return [model if isinstance(model, Mapping) else {"name": model} for model in study.config.get("models", ())]


def _names(study: StudyResult) -> list[str]:
    return [str(model["name"]) for model in _models(study)]


def _weights(study: StudyResult) -> str:
    kinds = {
        {"False": "random", "True": "pretrained"}.get(str(model.get("pretrained", False)), "from a file")
        for model in _models(study)
    }
    return listed(sorted(kinds))


def _input(dataset: DatasetResult) -> str:
    facts = dataset.facts
    return f"{facts['channels']} × {facts['image_size']} × {facts['image_size']}" if facts else "–"


def _images(dataset: DatasetResult) -> str:
    counts = pd.DataFrame(dataset.facts.get("counts", []), columns=["fold", "split", "label", "images"])
    first = counts[counts["fold"] == counts["fold"].min()].groupby("split")["images"].sum()
    return ", ".join(str(int(first.get(split, 0))) for split in ("train", "val", "test"))


def _split(study: StudyResult, dataset: DatasetResult) -> str:
    if study.folds > 1:
        return f"{study.folds} folds, each image tested once"
    return "as the data give it" if dataset.facts.get("given_split") else "drawn at random"


def _epochs(dataset: DatasetResult) -> str:
    trained = [int(cell.card["epochs"]) for cell in dataset.cells]
    least, most = min(trained, default=0), max(trained, default=0)
    return "–" if not trained else f"{most}" if least == most else f"{least} to {most}"


def _explained(dataset: DatasetResult) -> str:
    return str(max((int(cell.card.get("explained", 0)) for cell in dataset.cells), default=0))


def _methods(study: StudyResult) -> str:
    asked = [str(name) for name in study.config.get("explain", {}).get("methods", ())]
    named = [method_title(name) for name in asked if name not in METHODS and not is_control(name)]
    controls = sum(map(is_control, asked))
    same = "the same" if set(METHODS) <= set(asked) else ", ".join(method_title(n) for n in asked if n in METHODS)
    return ", ".join([same, *named]) + (f"; {counted(controls, 'control')} beside them" if controls else "")


def _tests(study: StudyResult) -> str:
    kinds = "paired t and corrected resampled t, by folds" if study.folds > 1 else "paired t, by patients or images"
    correction = study.config.get("statistics", {}).get("correction", "holm")
    return f"{kinds}; p corrected ({'Holm' if correction == 'holm' else 'Benjamini–Hochberg'})"


def accuracy_table(accuracy: pd.DataFrame, datasets: Sequence[DatasetResult]) -> Table | None:
    """The paper's first table: accuracy and F1 per network and task, with chance beside each accuracy."""
    if accuracy.empty:
        return None
    sizes = {(cell.dataset, cell.model): cell.card["parameters"] for dataset in datasets for cell in dataset.cells}
    rows = []
    for _, row in accuracy.iterrows():
        published = row["paper_accuracy"]
        chance = bool(row["at_chance"])
        rows.append(
            [
                Cell(str(row["task"])),
                Cell(str(row["model"]), f"{sizes[row['task'], row['model']] / 1e6:.1f} M, {row['network'] or 'none'}"),
                Cell(str(row["images"])),
                Cell(str(row["n"])),
                _share(row, "accuracy"),
                Cell(percent(row["commonest_class"])),
                _share(row, "balanced_accuracy"),
                Cell(percent(row["one_over_classes"]), "at chance" if chance else "", strong=chance),
                interval(row["macro_f1"], row["macro_f1_low"], row["macro_f1_high"]),
                Cell(percent(published, 2)),
            ]
        )
    columns = [
        "Task", "Network", "Test images", "n", "Accuracy", "Commonest class", "Balanced accuracy", "1 / classes",
        "Macro F1", "The paper’s accuracy",
    ]  # fmt: skip
    return Table(
        "Accuracy and F1 of each network and task",
        columns,
        rows,
        note=(
            "Under each network its parameters and the paper’s network of its family. Chance stands right of each "
            "accuracy: naming the commonest class each time, and one over the classes that occur, which the interval "
            "of the balanced accuracy must lie above. "
            "Under values their bootstrap intervals, which resample patients where they are known."
        ),
        heads=3,
        sizes=accuracy.groupby("task", sort=False).size().tolist(),
        spanning=True,
    )


def _share(row: pd.Series, name: str) -> Cell:
    """A share over its interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    bounds = f"{number(100 * low, 1)} to {number(100 * high, 1)}" if np.isfinite(low) and np.isfinite(high) else ""
    return Cell(percent(row[name]), bounds)


def _task_part(task: str, study: StudyResult, dataset: DatasetResult, sheets: Sheets) -> TaskPart:
    name = dataset.name

    def of(sheet: str) -> pd.DataFrame:
        table = sheets[sheet]
        return table[table["task"] == name]

    tests = model_tests_table(study.table("model_tests", name))
    times = times_table(dataset)
    tables = [
        replace(tests, caption="Paired tests between the networks") if tests else None,
        confidence_table(of("confidence_increase"), of("accuracy"), dataset.classes),
        controls_table(of("confidence_increase"), of("method_tests")),
        replace(times, caption="Time per image and method") if times else None,
    ]
    best = of("accuracy")
    best = best[best["images"] == "all"].sort_values("accuracy", ascending=False, kind="stable")
    shown = str(best["model"].iloc[0]) if len(best) else ""
    return TaskPart(
        name=name,
        link=f"{task}/report/index.html",
        missing=listed(list(dataset.missing)),
        tables=[table for table in tables if table is not None],
        gallery=_one_per_class(gallery(dataset, shown)) if shown else None,
    )


def _one_per_class(full: Gallery | None) -> Gallery | None:
    """The first strip of each class: a right prediction where there is one."""
    if full is None:
        return None
    first = {strip.label: strip for strip in reversed(full.strips)}
    return replace(full, strips=[strip for strip in full.strips if first[strip.label] is strip])


def confidence_table(increase: pd.DataFrame, accuracy: pd.DataFrame, classes: Sequence[str]) -> Table | None:
    """The paper's second table: mean confidence increase per true class, network and method, beside its numbers."""
    increase = increase[increase["images"] == "all"]
    if increase.empty:
        return None
    methods = method_order(increase)
    lost = set(accuracy.loc[accuracy["at_chance"].astype(bool) & (accuracy["images"] == "all"), "model"])
    rows, sizes = [], []
    for label in (*classes, "all"):
        of_label = increase[increase["label"] == label]
        block = [_published_row(str(increase["task"].iloc[0]), label, methods)]
        for model, part in of_label.groupby("model", sort=False):
            known = {str(row["method"]): row for _, row in part.iterrows()}
            finite = {name: row["mean"] for name, row in known.items() if not is_control(name)}
            best = max(finite, key=lambda name: np.nan_to_num(finite[name], nan=-np.inf), default="")
            block.append(
                [
                    Cell("All classes" if label == "all" else label),
                    Cell(str(model), "at chance" if model in lost else ""),
                    Cell(str(int(part["n"].max()))),
                    *(
                        interval(known[name]["mean"], known[name]["low"], known[name]["high"], strong=name == best)
                        if name in known
                        else Cell("–")
                        for name in methods
                    ),
                ]
            )
        found = [row for row in block if row is not None]
        if len(found) > (block[0] is not None):
            rows += found
            sizes.append(len(found))
    return Table(
        "Confidence increase (ROAD) by true class, network and method",
        ["True class", "Network", "n", *map(_heading, methods)],
        rows,
        note=(
            "(LeRF − MoRF) / 2 on the probability of the predicted class: higher is better, 0 is a map that ranks "
            "nothing. In brackets intervals; each row’s best method in bold. † Control, which knows nothing of the "
            "network."
        ),
        heads=2,
        sizes=sizes,
        spanning=True,
    )


def _published_row(task: str, label: str, methods: Sequence[str]) -> list[Cell] | None:
    published = PUBLISHED_CONFIDENCE.get((task, label))
    if published is None:
        return None
    return [
        Cell(label),
        Cell("the paper", "network not known"),
        Cell("–"),
        *(Cell(number(published.get(name), 2), strong=name in published) for name in methods),
    ]


def controls_table(increase: pd.DataFrame, tests: pd.DataFrame) -> Table | None:
    """Each method less the best control of its network: a method that isn't better has shown nothing."""
    increase = increase[(increase["images"] == "all") & (increase["label"] == "all")]
    tests = tests[tests["images"] == "all"]
    models = [str(name) for name in dict.fromkeys(increase["model"])]
    names = [name for name in method_order(increase) if not is_control(name)]
    best = {}
    for model in models:
        controls = increase[(increase["model"] == model) & increase["control"].astype(bool) & increase["mean"].notna()]
        if len(controls):
            best[model] = str(controls.sort_values("mean", kind="stable")["method"].iloc[-1])
    if not best or tests.empty:
        return None
    known = {(row["model"], row["a"], row["b"]): row for _, row in tests.iterrows()}
    rows = [[Cell(method_title(name)), *(_less(known, model, name, best[model]) for model in best)] for name in names]
    return Table(
        "Each method less the best control",
        ["Method − control", *(f"{model}: {method_title(best[model])}" for model in best)],
        rows,
        note=(
            "Mean difference in confidence increase, its interval, and the p of the paired t-test, corrected over all "
            "pairs of methods and networks of the task; below 0.05 in bold."
        ),
    )


def _less(known: Mapping[tuple[str, str, str], pd.Series], model: str, method: str, control: str) -> Cell:
    row = known.get((model, method, control))
    sign = 1.0
    if row is None:
        row, sign = known.get((model, control, method)), -1.0
    if row is None or not np.isfinite(row["mean_difference"]):
        return Cell("–")
    low, high = sorted((sign * row["low"], sign * row["high"]))
    p = float(row["p_adjusted"])
    return Cell(number(sign * row["mean_difference"]), f"{between(low, high)} p {p_value(p)}", strong=p < 0.05)


def _heading(method: str) -> str:
    return method_title(method) + ("\u00a0†" if is_control(method) else "")
