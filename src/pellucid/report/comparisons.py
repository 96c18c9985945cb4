"""What the tests between models say: sentences, and the tests beyond the t-tests as a table to fold away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pellucid.report.names import counted, measure_title, number, p_value
from pellucid.report.tables import T_TESTS, Cell, Table, between, degrees, model_tests_table, test_title

MOST_TOLD = 3  # pairs that are told one by one
_MARGINS = {
    "non-inferiority": "a model was shown not to be worse than another by more than",
    "equivalence": "two models were shown to differ by less than",
}


@dataclass(frozen=True)
class Comparisons:
    """How the models of a data set compare."""

    sentences: Sequence[str]
    first: Table | None
    """The t-tests."""
    others: Table | None
    """Every test that isn't a t-test."""
    remarks: Sequence[str]
    """Tests that weren't made, and those that are approximate, and why, each once."""


def comparisons(tests: pd.DataFrame, power: pd.DataFrame) -> Comparisons | None:
    """What the tests between models say.

    Args:
        tests: rows of `model_tests.csv` of one data set.
        power: rows of `power.csv` of it.
    """
    if tests.empty and power.empty:
        return None
    made = tests[tests["n"].fillna(0) > 0]
    others = made[~made["test"].isin(T_TESTS)]
    left = tests[tests["n"].fillna(0) == 0].drop_duplicates("test")
    rough = others[others["note"].astype(str).str.contains("approximate")].drop_duplicates("test")
    remarks = [f"{test_title(str(row['test']))}: {row['note']}" for _, row in pd.concat([left, rough]).iterrows()]
    return Comparisons(told(made, power), model_tests_table(made), _table(others), remarks)


def told(tests: pd.DataFrame, power: pd.DataFrame) -> list[str]:
    """Sentences on all test images: the first test, the margins, and what could have been found."""
    tests, power = (table[table["images"] == "all"] for table in (tests, power))
    if tests.empty:
        return []
    first = tests[tests["test"] == tests["test"].iloc[0]]
    found = []
    if len(first) <= MOST_TOLD:
        found += list(first["sentence"])
    else:
        clear = int((first["p_adjusted"].astype(float) <= 0.05).sum())
        found.append(f"{clear} of {counted(len(first), 'pair')} of models differ clearly ({_named(first)}).")
    for name, said in _MARGINS.items():
        rows = tests[tests["test"] == name]
        if len(rows) <= 2 * MOST_TOLD:
            found += list(rows["sentence"])
        else:
            shown = int((rows["p_adjusted"].astype(float) <= 0.05).sum())
            found.append(f"In {shown} of {counted(len(rows), 'comparison')} {said} {float(rows['margin'].iloc[0]):g}.")
    return [_tied(str(sentence)) for sentence in [*found, *_power(power)]]


def _named(rows: pd.DataFrame) -> str:
    title = test_title(str(rows["test"].iloc[0]))
    metric = measure_title(str(rows["metric"].iloc[0]))
    metric = metric if metric[:2].isupper() else metric.lower()
    return f"{title}{'-test' if title.endswith(' t') else ''}, {metric}"


def _power(power: pd.DataFrame) -> list[str]:
    known = power[np.isfinite(power["detectable"].astype(float))]
    if len(power) <= MOST_TOLD:
        return list(power["sentence"])
    if known.empty:
        return []
    low, high = (number(float(value)) for value in (known["detectable"].min(), known["detectable"].max()))
    units = counted(int(known["n"].max()), str(known["unit"].iloc[0]))
    span = f"a difference of {low}" if low == high else f"differences of {low} to {high}, by pair,"
    return [f"With {units} {span} would be found 8 times out of 10."]


def _table(tests: pd.DataFrame) -> Table | None:
    """A block per test, a row per pair."""
    if tests.empty:
        return None
    several = tests["images"].nunique() > 1
    rows, sizes = [], []
    for name, part in tests.groupby("test", sort=False):
        sizes.append(len(part))
        for _, test in part.iterrows():
            same = str(test["identical"]) == "True"
            images = [Cell(str(test["images"]))] if several else []
            rows.append([Cell(test_title(str(name))), _pair(test), *images, *_evidence(test, same)])
    unit = " ".join(dict.fromkeys(f"{unit}s" for unit in tests["unit"]))
    return Table(
        "Other tests between models",
        ["Test", "Pair", *(["Test images"] if several else []), "Difference in", "Difference", "Statistic", "p",
         "p corrected", "Effect size", f"n ({unit})"],
        rows,
        note="p corrected over its family, at most 0.05 in bold. In brackets intervals; those of non-inferiority and "
        "equivalence clear the margin where p is small.",
        heads=2,
        sizes=sizes,
        spanning=True,
        kind="long",
    )  # fmt: skip


def _pair(test: pd.Series) -> Cell:
    margin = float(test["margin"]) if str(test["margin"]) not in ("", "nan", "None") else None
    return Cell(f"{test['a']} − {test['b']}", "" if margin is None else f"margin {margin:g}")


def _evidence(test: pd.Series, same: bool) -> list[Cell]:
    subject = str(test["of"]) if str(test["of"]) not in ("", "nan") else ""
    what = {"AUROC": "AUROC", "mean rank": "Mean rank", "median": "Accuracy, median"}.get(
        str(test["measure"]), measure_title(str(test["metric"]))
    )
    if same:
        return [Cell(what, subject), Cell("identical"), Cell("–"), Cell("–"), Cell("–"), Cell("–"), _n(test)]
    adjusted = float(test["p_adjusted"])
    size = Cell(
        number(test["effect_size"], 2), f"{between(test['effect_low'], test['effect_high'], 2)} {test['effect']}"
    )
    if str(test["effect"]).startswith("difference"):
        size = Cell("the difference")
    return [
        Cell(what, subject),
        Cell(number(test["mean_difference"]), between(test["low"], test["high"])),
        Cell(number(test["statistic"], 2), degrees(test["df"])),
        Cell(p_value(test["p_value"])),
        Cell(p_value(adjusted), strong=bool(np.isfinite(adjusted) and adjusted <= 0.05)),
        size,
        _n(test),
    ]


def _n(test: pd.Series) -> Cell:
    return Cell(f"{int(test['n'])}")


def _tied(sentence: str) -> str:
    return sentence.replace(" %", "\u00a0%")
