"""The tables on maps: confidence increase per class, localisation, tests between methods, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.report.diagram import rank_diagram
from pellucid.report.figures import Drawn
from pellucid.report.names import counted, metric_title, number, p_value, seconds
from pellucid.report.ranked import family_of, heading, metric_heading
from pellucid.report.read import CellResult, DatasetResult
from pellucid.report.tables import Cell, Table, interval
from pellucid.statistics import groups_within
from pellucid.study.ranking import direction

CURVES = ("road", "road-morf", "road-lerf")
ALPHA = 0.05
_ORDERS = "MoRF removes the most relevant pixels first and should lower the probability, LeRF the least relevant."
PREDICTIONS = (("all", "all"), ("right", "right"), ("wrong", "wrong"))


def method_order(scores: pd.DataFrame) -> list[str]:
    """Methods as they were asked for, the controls last."""
    names = [str(name) for name in dict.fromkeys(scores["method"])]
    return [name for name in names if not is_control(name)] + [name for name in names if is_control(name)]


def confidence_table(model: str, scores: pd.DataFrame, classes: Sequence[str], target: str) -> Table | None:
    """The paper's table: mean confidence increase per true class and method, right and wrong predictions apart."""
    road = scores[scores["metric"] == "road"]
    if road.empty:
        return None
    methods = method_order(road)
    known = {(row["label"], row["correct"], row["method"]): row for _, row in road.iterrows()}
    rows, sizes = [], []
    for label in (*classes, "all"):
        block = 0
        for correct, title in PREDICTIONS:
            found = {method: known[label, correct, method] for method in methods if (label, correct, method) in known}
            n = max((int(row["n"]) for row in found.values()), default=0)
            if n == 0 and correct == "all":
                break
            best = _best({method: float(row["mean"]) for method, row in found.items() if not is_control(method)})
            cells = [Cell("All classes" if label == "all" else label), Cell(title), Cell(str(n))]
            for method in methods:
                row = found.get(method)
                if row is None or n == 0:
                    cells.append(Cell("–"))
                else:
                    cells.append(interval(row["mean"], row["low"], row["high"], strong=method in best))
            rows.append(cells)
            block += 1
        if block:
            sizes.append(block)
    return Table(
        f"Confidence increase by true class, {model}",
        ["True class", "Predictions", "n", *(heading(method) for method in methods)],
        rows,
        note=(
            f"ROAD, (LeRF − MoRF) / 2 on the probability of the {target} class; higher is better, 0 is a map that "
            "ranks nothing. In brackets intervals; the best method of each row in bold. † Control, which knows "
            "nothing of the network."
        ),
        heads=2,
        sizes=sizes,
        spanning=True,
    )


def family_tables(model: str, scores: pd.DataFrame, share: float) -> list[Table]:
    """Each method's metrics over all explained images, a table per family; `share` is the lesion's of the image."""
    part = _overall(scores)
    metrics = [name for name in CURVES if name in set(part["metric"])]
    metrics += [str(name) for name in dict.fromkeys(part["metric"]) if name not in CURVES]
    tables = []
    for family in dict.fromkeys(map(family_of, metrics)):
        own = [name for name in metrics if family_of(name) == family]
        if family == "localisation":
            table = _localisation_table(model, part, own, share)
        else:
            title = f"{family.capitalize() or 'Other metrics'} over all explained images, {model}"
            table = _by_method(title, part, own, _ORDERS if {"road-morf", "road-lerf"} & set(own) else "")
        if table is not None:
            tables.append(table)
    return tables


def _localisation_table(model: str, part: pd.DataFrame, metrics: Sequence[str], share: float) -> Table | None:
    """Where the maps lie, the relevance mass beside the lesion's share of the image; None where no image has a mask."""
    part = part[part["metric"].isin(metrics) & (part["n"].fillna(0) > 0)]
    if part.empty:
        return None
    n = int(part["n"].max())
    missing = int(part.loc[part["n"] == n, "missing"].fillna(0).min())
    note = f"Over {counted(n, 'image')} with a lesion mask" + (
        f"; {counted(missing, 'image')} without one left out." if missing else "."
    )
    table = _by_method(f"Where the maps lie, {model}", part, [name for name in metrics if name in set(part["metric"])])
    mass = part[part["metric"] == "energy-pointing"].set_index("method")["mean"]
    if mass.empty or not share > 0:
        return replace(table, note=f"{note} {table.note}")
    rows = [
        [*row, Cell(number(float(mass[method]) / share, 1) if method in mass.index else "–")]
        for method, row in zip(method_order(part), table.rows, strict=True)
    ]
    note += (
        f" The lesion covers {number(100 * share, 1)}\u00a0% of these images on average: an even map has that "
        "relevance mass and a ratio of 1."
    )
    columns = [*table.columns, "Mass over lesion’s share"]
    return replace(table, columns=columns, rows=rows, note=f"{note} {table.note}")


def method_tests_table(model: str, tests: pd.DataFrame, methods: Sequence[str]) -> Table | None:
    """Every pair of methods: mean difference row − column, with the corrected p under it."""
    if tests.empty:
        return None
    pairs: dict[tuple[str, str], tuple[float, float, bool]] = {}
    for _, test in tests.iterrows():
        a, b, same = str(test["a"]), str(test["b"]), str(test["identical"]) == "True"
        pairs[a, b] = (float(test["mean_difference"]), float(test["p_adjusted"]), same)
        pairs[b, a] = (-float(test["mean_difference"]), float(test["p_adjusted"]), same)
    names = [name for name in methods if any(name in pair for pair in pairs)]
    rows = []
    for a in names:
        cells = [Cell(heading(a))]
        for b in names:
            if a == b:
                cells.append(Cell("·"))
            elif (a, b) not in pairs:
                cells.append(Cell("–"))
            else:
                difference, p, same = pairs[a, b]
                if same:
                    cells.append(Cell("identical"))
                else:
                    cells.append(Cell(number(difference), f"p {p_value(p)}", strong=bool(p < 0.05)))
        rows.append(cells)
    unit, n = str(tests["unit"].iloc[0]), tests["n"].max()
    return Table(
        f"Tests between methods on the confidence increase, {model}",
        ["Row − column", *(heading(name) for name in names)],
        rows,
        note=(
            f"Paired t-tests over {int(n)} {unit}s; p corrected over all pairs of the study, below 0.05 in bold. "
            "“identical”: the maps are the same up to scale on this network, so there is nothing to test. † Control."
        ),
    )


def ranks_table(model: str, ranks: pd.DataFrame) -> Table | None:
    """Each method's mean rank by every metric, with a tick where it beats the best control."""
    ranks = ranks[ranks["mean_rank"].notna()]
    if ranks.empty:
        return None
    metrics = [str(name) for name in dict.fromkeys(ranks["metric"])]
    known = {(row["method"], row["metric"]): row for _, row in ranks.iterrows()}
    first = ranks.groupby("metric")["mean_rank"].min()
    rows = []
    for method in method_order(ranks):
        cells = [Cell(heading(method))]
        for metric in metrics:
            row = known.get((method, metric))
            if row is None:
                cells.append(Cell("–"))
            else:
                beats = "✓ beats controls" if str(row["beats_controls"]) == "True" else ""
                cells.append(Cell(number(row["mean_rank"], 2), beats, strong=row["mean_rank"] == first[metric]))
        rows.append(cells)
    tests = ranks.drop_duplicates("metric").set_index("metric")
    p_values = (p_value(float(tests["friedman_p_adjusted"][metric])) for metric in metrics)
    counts = (str(int(tests["ranked"][metric])) for metric in metrics)
    rows += [[Cell("Friedman p"), *map(Cell, p_values)], [Cell("n"), *map(Cell, counts)]]
    unit = str(ranks["unit"].iloc[0])
    return Table(
        f"Mean ranks of the methods, {model}",
        ["Method", *map(metric_heading, metrics)],
        rows,
        note=(
            f"Ranked within each {unit}; 1 is best, in bold. n: {unit}s with a value of every method. p: that all "
            "methods rank alike; ✓: better than the best control by a paired t-test; both corrected over the study. "
            "† Control."
        ),
        sizes=(len(rows) - 2, 2),
        kind="small",
    )


def ranks_diagram(model: str, ranks: pd.DataFrame, metric: str = "road") -> Drawn | None:
    """The critical-difference diagram of a metric; None where the methods weren't tested."""
    ranks = ranks[(ranks["metric"] == metric) & ranks["mean_rank"].notna() & ranks["friedman_p_adjusted"].notna()]
    if len(ranks) < 2:
        return None
    means = {str(name): float(rank) for name, rank in zip(ranks["method"], ranks["mean_rank"], strict=True)}
    p, least = (float(ranks[name].iloc[0]) for name in ("friedman_p_adjusted", "critical_difference"))
    difference = least if np.isfinite(least) else None
    if p > ALPHA:
        groups: tuple[tuple[str, ...], ...] = (tuple(means),)
    else:
        groups = () if difference is None else groups_within(means, difference)
    of = f"Mean ranks by {metric_title(metric)}, {model}"
    caption = (
        f"{of}, over {counted(int(ranks['ranked'].iloc[0]), str(ranks['unit'].iloc[0]))}. A bar joins methods that "
        f"aren’t told apart (corrected p of all ranking alike {p_value(p)}; Nemenyi at 5 %). † Control."
    )
    return replace(rank_diagram(means, groups, difference, of), caption=caption)


def times_table(dataset: DatasetResult) -> Table | None:
    """The paper's table: seconds per image and method, and its ratio to a plain forward pass."""
    models = [model for model in dataset.models if any(cell.times.get("explain") for cell in dataset.of_model(model))]
    timed = {name for cell in dataset.cells for name in cell.times.get("explain", {})}
    asked = dict.fromkeys(name for cell in dataset.cells for name in cell.card.get("methods", ()))
    methods = [name for name in asked if name in timed]
    if not methods:
        return None
    methods = [name for name in methods if not is_control(name)] + [name for name in methods if is_control(name)]
    forward = {
        model: _mean([cell.times.get("forward_seconds_per_image") for cell in dataset.of_model(model)])
        for model in models
    }

    def timed_row(title: str, values: dict[str, float]) -> list[Cell]:
        ratios = {model: values[model] / forward[model] if forward[model] > 0 else np.nan for model in models}
        marks = {model: f"× {_ratio(ratio)}" if np.isfinite(ratio) else "" for model, ratio in ratios.items()}
        return [Cell(title), *(Cell(seconds(values[model]), marks[model]) for model in models)]

    shared = {
        model: _mean([cell.times.get("shared_seconds_per_image") for cell in dataset.of_model(model)])
        for model in models
    }
    own = {
        method: {
            model: _mean([cell.times.get("explain", {}).get(method) for cell in dataset.of_model(model)])
            for model in models
        }
        for method in methods
    }
    total = {model: float(np.nansum([shared[model], *(own[method][model] for method in methods)])) for model in models}
    rows = [
        timed_row("Plain forward pass", forward),
        timed_row("Shared: forward pass and gradient", shared),
        *(timed_row(heading(method), own[method]) for method in methods),
        timed_row("Shared pass and all methods", total),
    ]
    rows.append(
        [
            Cell("Scoring, all methods and metrics"),
            *(
                Cell(seconds(_mean([cell.times.get("evaluate_seconds_per_image") for cell in dataset.of_model(model)])))
                for model in models
            ),
        ]
    )
    devices = sorted({str(cell.times.get("device")) for cell in dataset.cells if cell.times.get("device")})
    return Table(
        "Time per image",
        ["Method", *models],
        rows,
        note=(
            f"On {', '.join(devices) or 'an unknown device'}; a method’s row is what it adds to the pass that all "
            "share, and under each time stands its ratio to a plain forward pass. † Control."
        ),
        sizes=(1, 1, len(methods), 1, 1),
    )


def lesion_share(cells: Sequence[CellResult], images: str = "all") -> tuple[float, int]:
    """Mean share of the image that a lesion covers, and how many explained images have one."""
    shares = []
    for cell in cells:
        rows = cell.explained["has_mask"].astype(bool)
        if images != "all":
            rows &= ~cell.explained["copy_in_train"].astype(bool)
        shares.append(cell.explained.loc[rows, "lesion_share"].astype(float))
    values = pd.concat(shares)
    values = values[values > 0]
    return (float(values.mean()), len(values)) if len(values) else (0.0, 0)


def _by_method(caption: str, part: pd.DataFrame, metrics: Sequence[str], note: str = "") -> Table:
    methods = method_order(part)
    known = {(row["method"], row["metric"]): row for _, row in part.iterrows()}
    best = {}
    for metric in metrics:
        sign = -1.0 if direction(metric) is False else 1.0
        best[metric] = _best(
            {
                method: sign * float(known[method, metric]["mean"])
                for method in methods
                if not is_control(method) and (method, metric) in known
            }
        )
    rows = []
    for method in methods:
        cells = [Cell(heading(method))]
        for metric in metrics:
            row = known.get((method, metric))
            cells.append(
                Cell("–")
                if row is None
                else interval(row["mean"], row["low"], row["high"], strong=method in best[metric])
            )
        rows.append(cells)
    columns = ["Method", *map(metric_heading, metrics)]
    note = f"{note} In brackets intervals; the best method in bold. † Control.".strip()
    return Table(caption, columns, rows, note=note, kind="small")


def _overall(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[(scores["label"] == "all") & (scores["correct"] == "all")]


def _best(means: dict[str, float]) -> set[str]:
    """The methods with the greatest mean, ties to three digits together; none where all are tied."""
    finite = {name: value for name, value in means.items() if np.isfinite(value)}
    if not finite:
        return set()
    top = round(max(finite.values()), 3)
    best = {name for name, value in finite.items() if round(value, 3) == top}
    return best if len(best) < len(finite) or len(finite) == 1 else set()


def _ratio(value: float) -> str:
    """Two digits that count, and all of those before the point."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _mean(values: Sequence[float | None]) -> float:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else float("nan")
