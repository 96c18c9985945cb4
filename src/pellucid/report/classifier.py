"""Every measure of a classifier, folded away under its table: all classes together, then each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pellucid.report.names import measure_title, number, percent
from pellucid.report.tables import Cell, Table, interval

DECIDED = ("sensitivity", "specificity", "ppv", "npv", "f1")
RANKED = ("auroc", "auprc")
LOSSES = ("brier", "log_loss")
_RULES = {"argmax": "Predicted class", "fixed": "Stated", "youden": "Youden", "sensitivity-0.9": "Sensitivity 0.9"}


@dataclass(frozen=True)
class Measures:
    """What is folded away of one model on one set of images."""

    title: str
    tables: Sequence[Table]


def measures(title: str, models: pd.DataFrame, confidence: float) -> Measures:
    """All measures of one model on one set of test images.

    Args:
        title: the model, and the images where they aren't all.
        models: rows of `models.csv` of this model, images and fold.
        confidence: of the intervals.
    """
    of_classes = models[models["class"] != ""]
    firsts = of_classes.drop_duplicates("class")
    shares = {str(row["class"]): float(row["positives"]) / float(row["n"]) for _, row in firsts.iterrows()}
    tables = [_overall(models[models["class"] == ""], confidence), _ranked(of_classes, shares)]
    tables += [_decided(name, of_classes[of_classes["class"] == name], shares[name]) for name in shares]
    return Measures(title, [table for table in tables if table is not None])


def _overall(rows: pd.DataFrame, confidence: float) -> Table | None:
    """A row per measure of all classes together, a column per rule of several labels."""
    if rows.empty:
        return None
    rules = _rules(rows)
    by_name: dict[str, list[Cell]] = {}
    for name, part in rows.groupby("metric", sort=False):
        of_rule = {str(row["rule"]): row for _, row in part.iterrows()}
        if len(rules) > 1 and "" not in of_rule:
            by_name[str(name)] = [_value(of_rule.get(rule)) for rule in rules]
        else:
            by_name[str(name)] = [_value(next(iter(of_rule.values()))), *(Cell("") for _ in rules[1:])]
    heads = [_heading(rule, rows) for rule in rules] if len(rules) > 1 else ["Value"]
    return Table(
        "All classes together",
        ["Measure", *heads],
        [[Cell(measure_title(name)), *cells] for name, cells in by_name.items()],
        note=f"In brackets {percent(confidence, 0)} intervals. The glossary says what each measure is. {_notes(rows)}",
    )


def _ranked(rows: pd.DataFrame, shares: Mapping[str, float]) -> Table | None:
    """How well each class is told from the rest at any threshold."""
    shown = [name for name in (*RANKED, *LOSSES) if name in set(rows["metric"])]
    if not shown:
        return None
    body = []
    for label, share in shares.items():
        of_class = {str(row["metric"]): row for _, row in rows[rows["class"] == label].iterrows()}
        cells = [_value(of_class.get(name)) for name in shown]
        body.append([Cell(label, f"{percent(share)} of images"), *cells])
    return Table(
        "Each class against the rest, at any threshold",
        ["Class", *(measure_title(name) for name in shown)],
        body,
        note="Guessing has an AUROC of 0.5 and an AUPRC of the class’s share of the images. "
        + _notes(rows[rows["metric"].isin(shown)]),
    )


def _decided(label: str, rows: pd.DataFrame, share: float) -> Table | None:
    """What is decided on one class, a column per rule."""
    decided = rows[rows["metric"].isin(DECIDED)]
    of_rule = {rule: decided.loc[decided["rule"] == rule, "value"] for rule in _rules(decided)}
    same = "fixed" in of_rule and "argmax" in of_rule and of_rule["fixed"].tolist() == of_rule["argmax"].tolist()
    rules = [rule for rule, values in of_rule.items() if values.notna().any() and not (same and rule == "fixed")]
    if not rules:
        return None
    body = []
    for name in DECIDED:
        found = {str(row["rule"]): row for _, row in decided[decided["metric"] == name].iterrows()}
        body.append([Cell(measure_title(name)), *(_value(found.get(rule)) for rule in rules)])
    return Table(
        f"{label}, {percent(share)} of images",
        ["Measure", *(_heading(rule, decided) for rule in rules)],
        body,
        note=_notes(decided),
        kind="small",
    )


def _rules(rows: pd.DataFrame) -> list[str]:
    """The rules by which is decided, in their order; "" stands for none."""
    return [rule for rule in dict.fromkeys(rows["rule"].astype(str)) if rule] or [""]


def _heading(rule: str, rows: pd.DataFrame) -> str:
    """A rule with its threshold: "Youden: ≥ 0.41"."""
    part = rows[rows["rule"] == rule]
    low, high = float(part["threshold_low"].min()), float(part["threshold_high"].max())
    title = _RULES.get(rule, rule)
    if not np.isfinite(low):
        return title
    return f"{title}: ≥\u00a0{number(low, 2)}" + (f"–{number(high, 2)}" if number(high, 2) != number(low, 2) else "")


def _value(row: pd.Series | None) -> Cell:
    if row is None:
        return Cell(number(None))
    return interval(float(row["value"]), float(row["low"]), float(row["high"]))


def _notes(rows: pd.DataFrame) -> str:
    """Why values are missing, each reason once."""
    missing = rows[rows["value"].isna()]
    return " ".join(dict.fromkeys(str(note) for note in missing["note"] if str(note) not in ("", "nan")))
