"""One finding of the leakage check, and how counts and names are put into its sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Severity = Literal["alarm", "warning", "note"]
ROW_COLUMNS = ("group", "sample", "split", "label", "transform", "similarity")
_NAMED = 3


@dataclass(frozen=True)
class LeakageFinding:
    """One finding: its kind, how grave it is, what was counted, a sentence or two, and the rows behind it.

    `severity`: "alarm" where a test score can't be believed without a remedy, "warning" where something is to be
    decided, "note" for a fact. `rows` of copies, patients and lesions have group, sample, split, label, transform and
    similarity (missing where they don't apply), so that each group stands together.
    """

    kind: str
    severity: Severity
    count: int
    sentence: str
    rows: pd.DataFrame


def number_groups(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Rows with `group` from 1, numbered by the first sample of each value of `key`, and all of ROW_COLUMNS.

    >>> rows = pd.DataFrame({"sample": ["b", "a", "c"], "split": "", "label": "x", "key": [7, 8, 7]})
    >>> number_groups(rows, "key")[["group", "sample"]].to_numpy().tolist()
    [[1, 'a'], [2, 'b'], [2, 'c']]
    """
    rows = rows.sort_values("sample", ignore_index=True)
    rows = rows.assign(group=rows.groupby(key, sort=False).ngroup() + 1)
    for column in ROW_COLUMNS:
        if column not in rows:
            rows[column] = float("nan") if column == "similarity" else ""
    return rows[list(ROW_COLUMNS)].sort_values(["group", "sample"], ignore_index=True)


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    >>> counted(1, "image"), counted(1200, "class", "classes")
    ('1 image', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def share(part: int, whole: int) -> str:
    """A share in whole per cent.

    >>> share(251, 394)
    '64 %'
    """
    return f"{round(100 * part / whole)} %"


def joined(words: Sequence[str]) -> str:
    """Words with "and" before the last.

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def conflicts(groups: pd.DataFrame) -> str:
    """How many groups bear which labels, the commonest first: "78 of melanoma and nevus, 1 of …".

    >>> conflicts(pd.DataFrame({"group": [1, 1, 2, 2], "label": ["b", "a", "a", "b"]}))
    '2 of a and b'
    """
    named = groups.groupby("group")["label"].agg(lambda labels: joined(sorted(set(labels)))).value_counts()
    order = sorted(named.items(), key=lambda item: (-item[1], str(item[0])))
    told = [f"{count} of {labels}" for labels, count in order[:_NAMED]]
    if len(order) > _NAMED:
        told.append(f"{sum(count for _, count in order[_NAMED:])} of others")
    return joined(told)
