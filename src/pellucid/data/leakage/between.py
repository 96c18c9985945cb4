"""Findings on copies of a data set's images in a second one, as of an external test set in the training data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pellucid.data.leakage.finding import LeakageFinding, conflicts, counted, joined, share
from pellucid.data.manifest import Manifest


def findings(manifest: Manifest, other: Manifest, pairs: pd.DataFrame) -> list[LeakageFinding]:
    """Images that have a pixel-identical or near copy in `other`; `pairs` as `find_near` gives them across sets."""
    mine, theirs = manifest.table, other.table
    exact = mine[["sample", "pixel_hash"]].merge(
        theirs[["sample", "pixel_hash"]].rename(columns={"sample": "other"}), on="pixel_hash"
    )
    near = pairs[pairs["kind"] == "near"]
    doubled = near.merge(mine[["sample", "pixel_hash"]], on="pixel_hash", suffixes=("_first", ""))
    doubled = doubled.merge(
        theirs[["sample", "pixel_hash"]].set_axis(["twin", "other_hash"], axis=1), on="other_hash"
    ).assign(other=lambda rows: rows["twin"])
    found = []
    for kind, links, words in (
        ("exact-in-other-set", exact.assign(transform="pixel-identical", similarity=1.0), "a pixel-identical copy"),
        ("near-in-other-set", doubled, "a near copy"),
    ):
        if len(links):
            count = links["sample"].nunique()
            sentence = (
                f"{count} of {counted(len(mine), 'image')} ({share(count, len(mine))}) have {words} in {other.name}: "
                f"{_by_label(mine, links['sample'])}."
            )
            rows = _rows(manifest, other, links)
            differing = _differing(rows, set(manifest.classes) & set(other.classes))
            if len(differing):
                several = differing["group"].nunique()
                sentence += f" Labels differ in {counted(several, 'group')}: {conflicts(differing)}."
            found.append(LeakageFinding(kind, "alarm", count, sentence, rows))
    return found


def _by_label(table: pd.DataFrame, samples: pd.Series) -> str:
    counts = table[table["sample"].isin(set(samples))]["label"].value_counts()
    order = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    named = [f"{count} {label}" for label, count in order[:4]]
    if len(order) > 4:
        named.append(f"{sum(count for _, count in order[4:])} of other classes")
    return joined(named)


def _differing(rows: pd.DataFrame, common: set[str]) -> pd.DataFrame:
    """Groups with several of the labels that both sets use; other names may mean the same."""
    rows = rows[rows["label"].isin(common)]
    return rows[rows.groupby("group")["label"].transform("nunique") > 1]


def _rows(manifest: Manifest, other: Manifest, links: pd.DataFrame) -> pd.DataFrame:
    """A group per image of the data set: it, then its copies in the other, the most similar first."""
    links = links.sort_values(["sample", "similarity", "other"], ascending=[True, False, True])
    first = (
        links[["sample"]].drop_duplicates().assign(transform="", similarity=np.nan, owner=lambda rows: rows["sample"])
    )
    second = links.assign(owner=links["sample"], sample=links["other"])
    rows = pd.concat(
        [
            first.merge(manifest.table[["sample", "split", "label"]], on="sample").assign(
                data_set=manifest.name, turn=0
            ),
            second[["owner", "sample", "transform", "similarity"]]
            .merge(other.table[["sample", "split", "label"]], on="sample", how="left")
            .assign(data_set=other.name, turn=1),
        ],
        ignore_index=True,
    )
    rows = rows.sort_values(["owner", "turn"], kind="stable", ignore_index=True)
    rows["group"] = rows.groupby("owner", sort=False).ngroup() + 1
    return rows[["group", "data_set", "sample", "split", "label", "transform", "similarity"]]
