"""Findings on classes that their source or their files tell, and on age and sex."""

from __future__ import annotations

import pandas as pd

from pellucid.data.leakage.confounding import FEWEST, PEOPLE, associations
from pellucid.data.leakage.finding import LeakageFinding, counted, joined
from pellucid.data.manifest import Manifest

TELLING = 0.9
HINTING = 0.8
CERTAIN = 0.75  # the least lower bound
_SHOWN = 3


def findings(manifest: Manifest) -> list[LeakageFinding]:
    """Columns and file properties that tell a class, the gravest first in each finding, then age and sex as facts.

    A balanced accuracy of 0.9 or more alarms, of 0.8 or more warns, where the lower bound is at least 0.75. On four
    public sets the columns that are known to be of the source reach 0.90 to 1, all others at most 0.89.
    """
    found = associations(manifest)
    found = found[found["low"] >= CERTAIN]
    sources = found[~found["column"].isin(PEOPLE)]
    results = []
    grave = sources[sources["balanced_accuracy"] >= TELLING]
    for kind, rows in (
        ("confounded", grave),
        ("hinted", sources[(sources["balanced_accuracy"] >= HINTING) & ~sources.index.isin(grave.index)]),
    ):
        if len(rows):
            results.append(_finding(kind, rows.reset_index(drop=True)))
    people = found[found["column"].isin(PEOPLE) & (found["balanced_accuracy"] >= HINTING)]
    return results + _people(manifest.table, people.reset_index(drop=True))


def _finding(kind: str, rows: pd.DataFrame) -> LeakageFinding:
    told = [
        f"{row.column} for {row.label} ({row.balanced_accuracy:.2f}; mostly {row.value})"
        for row in rows.drop_duplicates("column").head(_SHOWN).itertuples()
    ]
    named = list(dict.fromkeys(rows["label"]))
    more = [counted(len(named) - _SHOWN, "further class", "further classes")] if len(named) > _SHOWN else []
    classes = joined(named[:_SHOWN] + more)
    if kind == "confounded":
        sentence = f"Class and source are confounded: without a look at the picture, {classes} can be told by "
        sentence += (
            f"{joined(list(dict.fromkeys(rows['column'])))}. Best by balanced accuracy, of which 0.5 is chance: "
        )
        sentence += f"{joined(told)}. A network can learn the source instead of the disease."
        return LeakageFinding(kind, "alarm", len(rows), sentence, rows)
    sentence = f"Without a look at the picture, {classes} can often be told. Best by balanced accuracy, of which 0.5 "
    sentence += f"is chance: {joined(told)}."
    return LeakageFinding(kind, "warning", len(rows), sentence, rows)


def _people(table: pd.DataFrame, told: pd.DataFrame) -> list[LeakageFinding]:
    """How age and sex differ between classes: facts, which may be the disease's own."""
    parts, rows = [], []
    ages = table.dropna(subset="age")
    if (means := _means(ages["age"], ages["label"], "mean age")) is not None:
        low, high = means.iloc[0], means.iloc[-1]
        parts.append(
            f"the mean age runs from {low['value']:.0f} years ({low['label']}) to {high['value']:.0f} ({high['label']})"
        )
        rows.append(means)
    known = table[table["sex"] != ""]
    if known["sex"].nunique() > 1:
        first = min(known["sex"])
        means = _means((known["sex"] == first).astype(float), known["label"], f"share of sex {first}")
        if means is not None:
            low, high = means.iloc[0], means.iloc[-1]
            parts.append(
                f"the share of sex {first} from {100 * low['value']:.0f} % ({low['label']}) to "
                f"{100 * high['value']:.0f} % ({high['label']})"
            )
            rows.append(means)
    if not parts:
        return []
    sentence = f"Between classes {joined(parts)}, where they are known."
    for column, classes in told.groupby("column", sort=False):
        row = classes.iloc[0]
        words = f"Whether {column} is given" if row["value"] == "none given" else str(column).capitalize()
        sentence += f" {words} tells {row['label']} (balanced accuracy {row['balanced_accuracy']:.2f})."
    sentence += " That may be the disease's own."
    return [LeakageFinding("age-and-sex", "note", len(parts), sentence, pd.concat(rows, ignore_index=True))]


def _means(values: pd.Series, labels: pd.Series, column: str) -> pd.DataFrame | None:
    """Mean of each class with enough images, the lowest first; None for fewer than two classes."""
    counts = labels.value_counts()
    classes = sorted(str(label) for label in counts.index[counts >= FEWEST])
    rows = [(column, label, float(values[labels == label].mean()), int(counts[label])) for label in classes]
    means = pd.DataFrame(rows, columns=["column", "label", "value", "images"])
    return means.sort_values("value", kind="stable", ignore_index=True) if len(means) > 1 else None
