"""The page of an evaluation: methods ranked by every metric, beside the controls, and a verdict on each map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.errors import expected
from pellucid.files import write_table, write_text
from pellucid.metrics import METRICS
from pellucid.metrics.lesions import Froc
from pellucid.report.about import method_terms
from pellucid.report.diagram import rank_diagram
from pellucid.report.evaluated_volumes import ShownPart, shown_part
from pellucid.report.figures import Drawn
from pellucid.report.froc import FrocPart, froc_part
from pellucid.report.names import counted, listed, method_title, metric_title, number, p_value, percent
from pellucid.report.page import page
from pellucid.report.privacy import hide_in_path, hide_in_prose
from pellucid.report.ranked import (
    UNFLOORED,
    VERDICTS,
    class_tables,
    evidence_table,
    family_of,
    fill_of,
    methods_table,
    metric_heading,
    metric_table,
    missing_table,
    range_of,
    ranks_table,
    verdict_counts,
    verdict_table,
)
from pellucid.report.scroll import script
from pellucid.report.tables import Cell, Table
from pellucid.study.ranking import MetricRanking, Rankings, by_place, rank_methods

FAMILIES = {
    "faithfulness": "Does the score follow the map as pixels go?",
    "localisation": "Does the map lie where the finding is?",
    "robustness": (
        "Does the map stay as the image hardly changes? A control may well be the steadiest: what never looks at the "
        "network isn’t moved by it."
    ),
    "sanity": "Does the map change as the network does?",
    "complexity": (
        "How much does the map ask the eye to take in? A control may well be the simplest, and a simple map isn’t "
        "thereby right."
    ),
    "axioms": "Does the map keep the rules that its numbers promise?",
    "agreement": "Do methods say the same?",
}
_VERDICT_COLUMNS = ("sample", "method", "verdict", "evidence")
DIAGRAM_METHODS = 2


@dataclass(frozen=True)
class MetricPart:
    """What the page shows of one metric."""

    anchor: str
    title: str
    meaning: str
    facts: str
    finding: str
    diagram: Drawn | None
    table: Table
    classes: Sequence[Table]


@dataclass(frozen=True)
class FamilyPart:
    """The metrics of one family."""

    name: str
    question: str
    anchor: str
    metrics: Sequence[MetricPart]


@dataclass(frozen=True)
class MetricTerm:
    """A metric in the glossary."""

    title: str
    meaning: str
    facts: str
    source: str


def write_evaluation(
    table: pd.DataFrame,
    output: Path,
    *,
    samples: pd.DataFrame | None = None,
    verdicts: pd.DataFrame | None = None,
    thresholds: str = "",
    title: str = "Evaluation",
    curves: Mapping[str, Froc] | None = None,
    shown: Sequence[tuple[int, Path]] = (),
) -> Path:
    """Write `index.html`, which needs nothing else, and its tables as CSV into a folder; returns the HTML file.

    Images are numbered in the order of `samples`. Patient ids never reach the files; they are hidden in names too.

    Arguments:
        table: sample, method, metric, value, reason, as `pellucid.evaluate` gives it.
        output: the folder, made where it isn't there.
        samples: a row per sample: sample, and any of image (the name that is shown, else sample's), patient_id, label
            (true class), predicted, correct and target (the class that was explained).
        verdicts: sample, method, verdict ("trusted", "doubtful" or "not trusted") and evidence, one line.
        thresholds: what the verdicts were drawn by, in sentences.
        title: of the page.
        curves: the free-response ROC curve of each method.
        shown: of volumes, the place among the samples and the file of each that can be scrolled through.

    Raises:
        InputError: tables that don't fit; says which column or sample.
        PellucidError: the folder can't be written.
    """
    rankings = rank_methods(table, samples)
    rankings = replace(rankings, overall=tuple(sorted(rankings.overall, key=_place)))
    facts = _facts(table, samples)
    verdicts = None if verdicts is None else _verdicts(verdicts, facts, samples)
    patients = set(facts["patient_id"]) - {""}
    missing = rankings.missing.assign(reason=[hide_in_prose(text, patients) for text in rankings.missing["reason"]])
    rankings = replace(rankings, missing=missing)
    sheets = {"ranks": rankings.table(), "tests": rankings.tests(), "missing": rankings.missing}
    if verdicts is not None:
        names = facts.set_index("sample")["image"]
        sheets["verdicts"] = verdicts.assign(image=[names[sample] for sample in verdicts["sample"]])
        sheets["verdicts"] = sheets["verdicts"][["number", "image", *_VERDICT_COLUMNS[1:]]]
    for name, sheet in sheets.items():
        write_table(output / f"{name}.csv", sheet)
    path = output / "index.html"
    seen = shown_part(shown, facts, verdicts)
    write_text(path, _page(rankings, facts, verdicts, table, (title, thresholds), froc_part(curves or {}), seen))
    return path


def _page(
    rankings: Rankings,
    facts: pd.DataFrame,
    verdicts: pd.DataFrame | None,
    table: pd.DataFrame,
    texts: tuple[str, str],  # the title, and what the verdicts were drawn by
    froc: FrocPart | None,
    shown: ShownPart | None,
) -> str:
    title, thresholds = texts
    methods = [str(name) for name in dict.fromkeys(table["method"])]
    metrics = sorted(dict.fromkeys(str(name) for name in table["metric"]), key=_family_place)
    titles = {row["sample"]: Cell(f"Image {row['number']}", row["image"]) for row in facts.to_dict("records")}
    families = [
        FamilyPart(
            name=family.capitalize(),
            question=FAMILIES.get(family, ""),
            anchor=f"family-{family}",
            metrics=[
                _metric_part(ranking, rankings) for ranking in rankings.overall if family_of(ranking.metric) == family
            ],
        )
        for family in dict.fromkeys(family_of(ranking.metric) for ranking in rankings.overall)
    ]
    return page(
        "evaluation.html.j2",
        title=title,
        intro=_intro(methods, metrics, rankings),
        alarms=_alarms(rankings, facts),
        notes=_notes(rankings, facts, table),
        methods_table=methods_table(rankings),
        ranks_table=ranks_table(rankings),
        counts=None if verdicts is None else verdict_counts(verdicts),
        thresholds=thresholds,
        verdict_table=None if verdicts is None else verdict_table(verdicts, titles),
        evidence_table=None if verdicts is None else evidence_table(verdicts, titles),
        families=families,
        froc=froc,
        shown=shown,
        scroll_script="" if shown is None else script(),
        missing=missing_table(rankings.missing),
        glossary=[_term(metric) for metric in metrics if metric.partition("[")[0] in METRICS],
        methods=method_terms(methods),
    )


def metric_diagram(ranking: MetricRanking) -> Drawn | None:
    """The critical-difference diagram of a metric; None where nothing was tested."""
    ranks = {score.method: score.mean_rank for score in ranking.methods if score.mean_rank is not None}
    if ranking.adjusted_p is None or len(ranks) < DIAGRAM_METHODS:
        return None
    return rank_diagram(ranks, ranking.groups, ranking.ranks.critical_difference, metric_title(ranking.metric))


def _metric_part(ranking: MetricRanking, rankings: Rankings) -> MetricPart:
    entry = METRICS[ranking.metric.partition("[")[0]]
    parts = [part for part in rankings.parts if part.metric == ranking.metric]
    return MetricPart(
        anchor=f"metric-{rankings.overall.index(ranking)}",
        title=metric_heading(ranking.metric),
        meaning=entry.summary,
        facts=_metric_facts(ranking.metric),
        finding=_finding(ranking),
        diagram=metric_diagram(ranking),
        table=metric_table(ranking),
        classes=class_tables(parts, ranking),
    )


def _metric_facts(metric: str) -> str:
    """Direction, range, what takes the place of removed pixels, and what a missing value means."""
    entry = METRICS[metric.partition("[")[0]]
    better = {True: "Higher is better", False: "Lower is better", None: "Neither way is better"}
    facts = [f"{better[entry.higher_is_better]}; {range_of(metric)}."]
    if fill_of(metric):
        facts.append(f"Removed pixels are filled by {fill_of(metric)}.")
    if entry.missing:
        facts.append(f"Missing where {entry.missing}.")
    return " ".join(facts)


def _finding(ranking: MetricRanking) -> str:
    """What the ranks say, and how sure it is."""
    ranks, unit = ranking.ranks, ranking.ranks.unit
    over = f"over {counted(ranks.n, unit)}"
    if ranks.n_missing:
        over += f" ({counted(ranks.n_missing, 'image')} left out, where a method has no value)"
    if ranking.adjusted_p is None:
        return f"Not tested: {ranks.note}"
    p = f"corrected p {p_value(ranking.adjusted_p)}"
    if ranks.identical:
        said = f"All methods coincide {over}."
    elif not ranking.differ:
        said = f"No difference between the methods is shown {over} ({_test(ranking)}, {p})."
    else:
        best = ranking.methods[0].method
        near = sorted({name for group in ranking.groups if best in group for name in group} - {best})
        near.sort(key=[score.method for score in ranking.methods].index)
        apart = f", not told apart from {listed([method_title(name) for name in near])}" if near else ""
        said = f"The methods differ {over} ({_test(ranking)}, {p}). {method_title(best)} ranks first{apart}."
    floors = [score for score in ranking.methods if score.beats_controls is not None]
    if floors:
        beat = sum(bool(score.beats_controls) for score in floors)
        said += f" {beat} of {counted(len(floors), 'method')} beat the best control, {_floor(ranking)}."
    return f"{said} {ranks.note}".strip() if not ranks.identical else said


def _test(ranking: MetricRanking) -> str:
    ranks = ranking.ranks
    if ranks.test == "wilcoxon":
        return "Wilcoxon’s signed ranks"
    return f"Friedman’s χ² {number(ranks.statistic, 1)} on {ranks.df:g}"


def _floor(ranking: MetricRanking) -> str:
    mean = next(score.mean.value for score in ranking.methods if score.method == ranking.best_control)
    return f"{method_title(str(ranking.best_control))} ({number(mean)})"


def _intro(methods: Sequence[str], metrics: Sequence[str], rankings: Rankings) -> str:
    controls = sum(map(is_control, methods))
    of_which = f", {controls} of them {'a control' if controls == 1 else 'controls'}" if controls else ""
    counts = f"{counted(len(methods), 'method')}{of_which}, {counted(len(metrics), 'metric')}"
    return f"{counted(rankings.images, 'image')}, {counts}."


def _alarms(rankings: Rankings, facts: pd.DataFrame) -> list[str]:
    """What takes the meaning from the numbers."""
    alarms = []
    known = facts[(facts["label"] != "") & (facts["predicted"] != "")]
    if len(known):
        right = float((known["label"] == known["predicted"]).mean())
        commonest = float(known["label"].value_counts(normalize=True).max())
        if known["label"].nunique() > 1 and right <= commonest:
            alarms.append(
                f"The network is right on {percent(right, 0)} of these images; always naming the commonest class would "
                f"be right on {percent(commonest, 0)}. Maps of a network that knows no better mean nothing."
            )
    tested = [
        ranking
        for ranking in rankings.overall
        if family_of(ranking.metric) not in UNFLOORED
        and any(score.beats_controls is not None for score in ranking.methods)
    ]
    beaten = [ranking for ranking in tested if any(score.beats_controls for score in ranking.methods)]
    if tested and not beaten:
        alarms.append("By no metric is any method shown to be better than the best control, which knows no network.")
    return alarms


def _notes(rankings: Rankings, facts: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """What a reader must know before the numbers."""
    notes = [rankings.pairing()]
    if not any(is_control(str(name)) for name in set(table["method"])):
        notes.append("No control was scored, so that no number has a floor.")
    if "target" in facts:
        classes = facts["target"].value_counts()
        of_each = listed([f"{name} in {counted(int(count), 'image')}" for name, count in classes.items()])
        notes.append(f"The class that was explained: {of_each}.")
    known = (facts["label"] != "") & (facts["predicted"] != "")
    if known.any():
        right = int((facts["label"] == facts["predicted"])[known].sum())
        notes.append(f"The network is right on {right} of {counted(int(known.sum()), 'image')} whose class is known.")
    gone = int(rankings.missing["images"].sum())
    if gone:
        notes.append(f"{gone} of {counted(len(table), 'value')} are missing, for reasons told below.")
    return [*notes, *rankings.notes]


def _term(metric: str) -> MetricTerm:
    entry = METRICS[metric.partition("[")[0]]
    return MetricTerm(metric_heading(metric), entry.summary, _metric_facts(metric), entry.source)


def _facts(table: pd.DataFrame, samples: pd.DataFrame | None) -> pd.DataFrame:
    """Per sample its number, the name that may be shown, and what is known of it."""
    if samples is None:
        samples = pd.DataFrame({"sample": list(dict.fromkeys(table["sample"]))})
    facts = pd.DataFrame({"sample": list(samples["sample"]), "number": range(1, len(samples) + 1)})
    for column in ("patient_id", "label", "predicted"):
        given = samples[column] if column in samples else [""] * len(samples)
        facts[column] = ["" if pd.isna(value) else str(value) for value in given]
    if "target" in samples:
        facts["target"] = samples["target"].astype(str).to_numpy()
    patients = set(facts["patient_id"]) - {""}
    names = samples["image"] if "image" in samples else samples["sample"]
    facts["image"] = ["" if isinstance(name, int) else _shown(str(name), patients) for name in names]
    return facts


def _shown(name: str, patients: set[str]) -> str:
    """A name without the folders of an absolute path and without patients."""
    path = PurePosixPath(name.replace("\\", "/"))
    return hide_in_path(path.name if path.is_absolute() or ":" in path.parts[:1] else name, patients)


def _verdicts(verdicts: pd.DataFrame, facts: pd.DataFrame, samples: pd.DataFrame | None) -> pd.DataFrame:
    """Verdicts with their image's number, in the order of the images; evidence without patients."""
    absent = [name for name in _VERDICT_COLUMNS if name not in verdicts]
    if absent:
        raise expected("verdicts", f"columns {', '.join(_VERDICT_COLUMNS)}", ", ".join(map(str, verdicts.columns)))
    odd = sorted(set(verdicts["verdict"].astype(str)) - set(VERDICTS))
    if odd:
        raise expected("verdicts", f"a verdict of {listed(list(VERDICTS))}", repr(odd[0]))
    if samples is not None and by_place(verdicts, samples):
        verdicts = verdicts.assign(sample=facts["sample"].to_numpy()[verdicts["sample"]])
    numbers: Mapping[object, int] = dict(zip(facts["sample"], facts["number"], strict=True))
    unknown = [sample for sample in verdicts["sample"] if sample not in numbers]
    if unknown:
        raise expected("verdicts", "samples that the table has", repr(unknown[0]))
    patients = set(facts["patient_id"]) - {""}
    evidence = [hide_in_prose(str(line), patients) for line in verdicts["evidence"]]
    told = verdicts.assign(number=[numbers[sample] for sample in verdicts["sample"]], evidence=evidence)
    return told.sort_values("number", kind="stable", ignore_index=True)


def _place(ranking: MetricRanking) -> int:
    return _family_place(ranking.metric)


def _family_place(metric: str) -> int:
    """Where a metric's family stands on the page."""
    family = family_of(metric)
    return list(FAMILIES).index(family) if family in FAMILIES else len(FAMILIES)
