"""The tables of an evaluation: ranks, floors, classes, missing values and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.drawing import colour_of
from pellucid.metrics import FILLS, METRICS
from pellucid.registry import Choice
from pellucid.report.names import counted, method_title, metric_title, number, p_value, percent
from pellucid.report.tables import LONG_NAMES, Cell, Table, between
from pellucid.study.ranking import MethodScore, MetricRanking, Rankings, direction

VERDICTS = {  # word -> its sign and colours, which differ in lightness too
    "trusted": ("✓", ("#cfe6f5", "#08306b")),
    "doubtful": ("?", ("#fff0bf", "#4a3a00")),
    "not trusted": ("✗", ("#f4c9ad", "#6b1e00")),
}
SHOWN = 100  # images in the tables of verdicts; the CSV has all
UNFLOORED = ("robustness", "complexity")  # families in which a map that knows no network may be the best there is
_ARROWS = {True: "↑", False: "↓", None: ""}
_UNSAID = dict.fromkeys(("road", "road-morf", "road-lerf"), "linear")  # the fill of metrics that take no other


def heading(method: str) -> str:
    """A method's name, with a dagger for a control."""
    return method_title(method) + ("\u00a0†" if is_control(method) else "")


def arrow_of(metric: str) -> str:
    """Which way of a metric is better; "" where neither is, or where nothing is known of it.

    >>> arrow_of("deletion[fill=blur]")
    '↓'
    """
    return _ARROWS[direction(metric)]


def metric_heading(metric: str) -> str:
    """A metric's name with the arrow of its better direction."""
    return f"{metric_title(metric)}\u00a0{arrow_of(metric)}".rstrip()


def methods_table(rankings: Rankings) -> Table | None:
    """By how many metrics each method ranks first and beats the controls."""
    methods = _methods(rankings.overall)
    rows = []
    for method in methods:
        scores = {
            ranking.metric: score for ranking in rankings.overall for score in ranking.methods if score.method == method
        }
        first = sum(_first(ranking, method) for ranking in rankings.overall)
        shown = [
            score.beats_controls
            for metric, score in scores.items()
            if score.beats_controls is not None and family_of(metric) not in UNFLOORED
        ]
        beats = "control" if is_control(method) else f"{sum(shown)} of {len(shown)}" if shown else "–"
        rows.append([Cell(heading(method)), Cell(f"{first} of {len(scores)}"), Cell(beats)])
    note = (
        "By how many metrics. Beats the controls: better than the best of them by a corrected paired test; metrics of "
        f"{' and '.join(UNFLOORED)} aren’t counted there, since a map that knows no network may be the best. † Control."
    )
    columns = ["Method", "Ranks first", "Beats the controls"]
    return Table("Methods at a glance", columns, rows, note=note, kind="small") if rows else None


def ranks_table(rankings: Rankings) -> Table | None:
    """Mean rank of every method by every metric, the darker the better."""
    methods = _methods(rankings.overall)
    if not methods:
        return None
    rows, sizes, family = [], [], ""
    for ranking in rankings.overall:
        if family_of(ranking.metric) != family:
            family = family_of(ranking.metric)
            sizes.append(0)
        sizes[-1] += 1
        ranks = {score.method: score.mean_rank for score in ranking.methods}
        last = max(len(ranking.ranks.methods) - 1, 1)
        cells = [Cell(metric_heading(ranking.metric), family if sizes[-1] == 1 else "")]
        for method in methods:
            rank = ranks.get(method)
            shade = None if rank is None else colour_of(0.85 * (1 - (rank - 1) / last))
            cells.append(Cell(number(rank, 1), colours=shade))
        cells.append(Cell(p_value(ranking.adjusted_p), strong=ranking.differ))
        rows.append(cells)
    names = [method_title(method) + (" (control)" if is_control(method) else "") for method in methods]
    return Table(
        "Mean ranks by every metric",
        ["Metric", *names, "Friedman p"],
        rows,
        note=(
            "1 is best, and darker is better. p: that all methods rank alike, corrected over the metrics by Holm, at "
            "most 0.05 in bold."
        ),
        kind="matrix" if len("".join(names)) < LONG_NAMES else "matrix upright",
        sizes=sizes,
    )


def metric_table(ranking: MetricRanking) -> Table:
    """The methods by one metric, the best first, each beside the best control."""
    controls = ranking.best_control is not None
    digits = _digits(ranking)
    rows = [_method_row(score, ranking.best_control, digits) for score in ranking.methods]
    columns = ["Method", "Mean rank", "Mean", "n", "Missing"]
    if controls:
        columns[3:3] = ["Less best control", "p", "Beats controls"]
    unit = ranking.ranks.unit
    note = f"n: {unit}s with a value. In brackets intervals from a bootstrap that resamples {unit}s."
    if controls:
        note += f" p: paired t-tests against {heading(str(ranking.best_control))}, corrected by Holm over all metrics."
    note += " † Control."
    return Table(metric_heading(ranking.metric), columns, rows, note=note, kind="small")


def class_tables(parts: Sequence[MetricRanking], whole: MetricRanking) -> list[Table]:
    """Means, then mean ranks, of each method by true class, right and wrong predictions apart."""
    methods = _methods([whole])
    if not parts:
        return []
    means, ranks, sizes = [], [], []
    label, digits = None, _digits(whole)
    of_all = [part for part in parts if part.label == "all"]
    for part in (*(part for part in parts if part.label != "all"), whole, *of_all):
        known = {score.method: score for score in part.methods}
        if part.label != label:
            label = part.label
            sizes.append(0)
        sizes[-1] += 1
        least = min((score.mean_rank for score in part.methods if score.mean_rank is not None), default=math.nan)
        title = [Cell("All classes" if label == "all" else label), Cell(part.correct)]
        most = max(score.mean.n for score in part.methods)
        means.append([*title, Cell(str(most)), *(_mean(known[method], part, digits) for method in methods)])
        entries = [
            Cell(number(rank, 2), strong=rank is not None and rank == least)
            for rank in (known[method].mean_rank for method in methods)
        ]
        ranks.append([*title, Cell(str(part.ranks.n)), *entries])
    name = metric_heading(whole.metric)
    columns = ["True class", "Predictions", "n", *(heading(method) for method in methods)]
    unit = whole.ranks.unit
    return [
        Table(
            f"{name}, mean by true class", columns, means, heads=2, sizes=sizes, spanning=True,
            note=f"n: {unit}s with a value. In brackets intervals; the best method of each row in bold. † Control.",
        ),
        Table(
            f"{name}, mean rank by true class", columns, ranks, heads=2, sizes=sizes, spanning=True,
            note=f"n: {unit}s with a value of every method. Not tested: within a class ranks only describe. † Control.",
        ),
    ]  # fmt: skip


def missing_table(missing: pd.DataFrame) -> Table | None:
    """How many values each metric lacks, and why."""
    if missing.empty:
        return None
    rows, sizes = [], []
    for metric, part in missing.groupby("metric", sort=False):
        reasons = list(part.groupby("reason", sort=False))
        for reason, of_reason in reasons:
            counts = of_reason.groupby("images", sort=False)["method"].apply(list)
            alike = [f"{images} each of {_some(names)}" if len(names) > 1 else f"{images} of {method_title(names[0])}"
                     for images, names in counts.items()]  # fmt: skip
            rows.append(
                [Cell(metric_title(str(metric))), Cell(str(reason)), Cell(str(int(of_reason["images"].sum()))),
                 Cell("; ".join(alike))]
            )  # fmt: skip
        sizes.append(len(reasons))
    columns = ["Metric", "Reason", "Values", "Images of methods"]
    return Table("Missing values", columns, rows, heads=2, sizes=sizes, spanning=True, kind="words")


def verdict_table(verdicts: pd.DataFrame, titles: Mapping[object, Cell]) -> Table:
    """An image per row, a method per column; the word, its sign and its colour."""
    methods = [str(name) for name in dict.fromkeys(verdicts["method"])]
    known = {(row["sample"], row["method"]): str(row["verdict"]) for row in verdicts.to_dict("records")}
    samples = list(dict.fromkeys(verdicts["sample"]))
    rows = [
        [titles[sample], *(_verdict(known.get((sample, method))) for method in methods)] for sample in samples[:SHOWN]
    ]
    more = f"The first {SHOWN} of {len(samples)} images; verdicts.csv has all. " if len(samples) > SHOWN else ""
    note = f"{more}What each rests on stands below, a line for each map."
    return Table("Verdict on each map", ["Image", *map(heading, methods)], rows, note=note, kind="matrix long")


def evidence_table(verdicts: pd.DataFrame, titles: Mapping[object, Cell]) -> Table:
    """The line of evidence of each verdict."""
    shown = list(dict.fromkeys(verdicts["sample"]))[:SHOWN]
    told = {sample: verdicts[verdicts["sample"] == sample].to_dict("records") for sample in shown}
    rows = [
        [titles[sample], Cell(heading(str(row["method"]))), _verdict(str(row["verdict"])), Cell(str(row["evidence"]))]
        for sample, part in told.items()
        for row in part
    ]
    sizes = [len(part) for part in told.values()]
    columns = ["Image", "Method", "Verdict", "Evidence"]
    return Table("What each verdict rests on", columns, rows, heads=2, sizes=sizes, spanning=True, kind="words long")


def family_of(metric: str) -> str:
    """A metric's family; "" where nothing is known of it.

    >>> family_of("road[noise=0.0]")
    'faithfulness'
    """
    name = metric.partition("[")[0]
    return METRICS[name].family if name in METRICS else ""


def range_of(metric: str) -> str:
    """A metric's least and greatest possible value, in words.

    >>> range_of("road")
    'from −0.5 to 0.5'
    """
    low, high = METRICS[metric.partition("[")[0]].range or (-math.inf, math.inf)
    if math.isinf(low) and math.isinf(high):
        return "any value"
    if math.isinf(high):
        return f"{low:g} or more".replace("-", "−")
    if math.isinf(low):
        return f"{high:g} or less".replace("-", "−")
    return f"from {low:g} to {high:g}".replace("-", "−")


def fill_of(metric: str) -> str:
    """What takes the place of removed pixels, in words; "" where a metric removes none.

    >>> fill_of("road"), fill_of("pointing-game")
    ("“linear” (the weighted mean of a pixel's neighbours, known and removed alike)", '')
    """
    metric_name, _, given = metric.removesuffix("]").partition("[")
    chosen = next((part.partition("=")[2] for part in given.split(",") if part.startswith("fill=")), None)
    fill = chosen if chosen is not None else METRICS[metric_name].options.get("fill", _UNSAID.get(metric_name, ""))
    label = fill.label if isinstance(fill, Choice) else str(fill)
    name = label.partition("[")[0]
    if name not in FILLS:
        return label
    meaning = FILLS[name].summary.rstrip(".").rpartition(": ")[2]
    return f"“{label}” ({meaning[:1].lower()}{meaning[1:]})"


def _methods(rankings: Sequence[MetricRanking]) -> list[str]:
    """Methods, the controls last, otherwise by their mean rank in the first ranking."""
    names = list(dict.fromkeys(score.method for ranking in rankings for score in ranking.methods))
    return [name for name in names if not is_control(name)] + [name for name in names if is_control(name)]


def _first(ranking: MetricRanking, method: str) -> bool:
    ranks = {score.method: score.mean_rank for score in ranking.methods if score.mean_rank is not None}
    return method in ranks and ranks[method] == min(ranks.values())


def _method_row(score: MethodScore, best_control: str | None, digits: int) -> list[Cell]:
    row = [Cell(heading(score.method)), Cell(number(score.mean_rank, 2)), _interval(score, digits)]
    if best_control is not None:
        row += _floor_cells(score, best_control, digits)
    return [*row, Cell(str(score.mean.n)), Cell(str(score.missing))]


def _floor_cells(score: MethodScore, best_control: str, digits: int) -> list[Cell]:
    """Difference from the best control, its p, and whether it is shown to be better."""
    if score.method == best_control:
        return [Cell("floor"), Cell(""), Cell("")]
    if score.floor is None:
        return [Cell("") if score.control else Cell("–")] * 3
    result = score.floor.result
    low, high = result.interval or (math.nan, math.nan)
    small = between(low, high, digits)
    difference = Cell("identical") if result.identical else Cell(number(result.mean_difference, digits), small)
    answer = {True: "✓\u00a0yes", False: "no", None: "not testable"}[score.beats_controls]
    return [difference, Cell(p_value(score.floor.adjusted_p)), Cell(answer, strong=bool(score.beats_controls))]


def _interval(score: MethodScore, digits: int) -> Cell:
    low, high = (math.nan if bound is None else bound for bound in (score.mean.low, score.mean.high))
    return Cell(number(score.mean.value, digits), between(low, high, digits))


def _mean(score: MethodScore, part: MetricRanking, digits: int) -> Cell:
    means = [each.mean.value for each in part.methods if each.mean.value is not None and not each.control]
    best = (max if part.higher_is_better else min)(means) if means else None
    value = score.mean.value
    alike = best is not None and value is not None and round(value, digits) == round(best, digits)
    return replace(_interval(score, digits), strong=alike and not score.control)


def _digits(ranking: MetricRanking) -> int:
    """Decimals that show three figures of the largest mean, and at least as many as a share needs."""
    largest = max((abs(score.mean.value) for score in ranking.methods if score.mean.value), default=1.0)
    return min(max(2 - math.floor(math.log10(largest)), 0), 9) if largest < 0.1 or largest >= 10 else 3


def verdict_counts(verdicts: pd.DataFrame, caption: str = "Images by verdict", note: str = "") -> Table:
    """How many maps of each method can be trusted, doubted and not trusted, with the share of each."""
    methods = [str(name) for name in dict.fromkeys(verdicts["method"])]
    rows = []
    for method in methods:
        said = verdicts.loc[verdicts["method"] == method, "verdict"]
        shares = [Cell(str(int((said == word).sum())), percent(float((said == word).mean()), 0)) for word in VERDICTS]
        rows.append([Cell(heading(method)), *shares])
    columns = ["Method", *(f"{sign}\u00a0{word}" for word, (sign, _) in VERDICTS.items())]
    return Table(caption, columns, rows, note=note, kind="small")


def _verdict(word: str | None) -> Cell:
    if word is None:
        return Cell("–")
    sign, colours = VERDICTS.get(word, ("", None))
    return Cell(f"{sign}\u00a0{word}".strip(), colours=colours)


def _some(methods: Sequence[str]) -> str:
    return counted(len(methods), "method") if len(methods) > 4 else ", ".join(method_title(name) for name in methods)
