"""Which groups of a leakage report are worth a look: a few of each kind, the images that differ most in them first."""

from __future__ import annotations

import pandas as pd

from pellucid.data.leakage.check import LeakageReport

KINDS = {
    "exact-in-other-set": 3,
    "near-in-other-set": 6,
    "exact-conflicts": 3,
    "near-conflicts": 6,
    "exact-in-training": 3,
    "near-in-training": 6,
    "lesions-across-splits": 3,
    "patients-across-splits": 3,
    "near-copies": 6,
    "alike": 6,
    "exact-copies": 3,
}
"""How many groups of each kind are shown."""
PER_GROUP = 4
SHOWN_COLUMNS = ("kind", "group", "size", "data_set", "sample", "split", "label", "transform", "similarity")


def shown_groups(report: LeakageReport) -> pd.DataFrame:
    """Rows to show as pictures: kind, group (as the finding numbers it), size, then data_set and the rows' columns.

    Of a group up to four images, each part and label once before any twice; a group that stands under one kind
    already isn't shown again.
    """
    chosen, seen = [], set()
    for kind, most in KINDS.items():
        finding = report.finding(kind)
        if finding is None:
            continue
        left = most
        for _, rows in finding.rows.groupby("group", sort=True):
            members = frozenset(rows["sample"])
            if members in seen:
                continue
            seen.add(members)
            turn = rows.groupby(["split", "label"]).cumcount()
            turn.iloc[0] = -1  # what the transforms start from
            picked = rows.loc[turn.sort_values(kind="stable").index[:PER_GROUP]].sort_index()
            chosen.append(picked.assign(kind=kind, size=len(rows)))
            left -= 1
            if left == 0:
                break
    if not chosen:
        return pd.DataFrame(columns=list(SHOWN_COLUMNS))
    shown = pd.concat(chosen, ignore_index=True)
    if "data_set" not in shown:
        shown["data_set"] = report.name
    return shown.assign(data_set=shown["data_set"].fillna(report.name))[list(SHOWN_COLUMNS)]
