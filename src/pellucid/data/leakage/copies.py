"""Findings on copies: pixel-identical and near ones, within parts, across them, and with conflicting labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pellucid.data.leakage.finding import (
    ROW_COLUMNS,
    LeakageFinding,
    Severity,
    conflicts,
    counted,
    joined,
    number_groups,
    share,
)
from pellucid.data.leakage.near import copy_kind, near_groups

_PARTS = {"test": "test", "val": "validation"}


def findings(table: pd.DataFrame, pairs: pd.DataFrame) -> list[LeakageFinding]:
    """What there is to say of copies in a data set with its split, and of pictures that are only alike.

    A group has one number in all findings on pixel-identical copies, and one in all on near copies.
    """
    kinds = copy_kind(table["pixel_hash"], table["split"], pairs)
    groups = near_groups(table, pairs)
    exact = number_groups(table[table["pixel_hash"].duplicated(keep=False)], "pixel_hash")
    near = number_groups(table.assign(number=groups)[groups >= 0], "number")
    if len(near):
        near = _with_transforms(near, pairs, table)
    found = [*_in_training("exact", exact, table, kinds), *_in_training("near", near, table, kinds)]
    return [*found, *_of("exact", exact), *_of("near", near), *_alike(table, pairs)]


def _of(kind: str, rows: pd.DataFrame) -> list[LeakageFinding]:
    """Copies of one kind, and those of them whose labels conflict."""
    if rows.empty:
        return []
    words = "are pixel-identical to another" if kind == "exact" else "show the same picture in other pixels"
    groups = rows.groupby("group")
    crossing, conflicting = (groups[column].nunique() > 1 for column in ("split", "label"))
    sentence = f"{counted(len(rows), 'image')} in {counted(len(crossing), 'group')} {words}"
    if kind == "near":
        sentence += " (resized, recompressed, flipped, turned or brightened)"
    sentence += f"; {crossing.sum()} groups lie in several parts." if crossing.any() else "."
    found = [LeakageFinding(f"{kind}-copies", "note", len(rows), sentence, rows)]
    if conflicting.any():
        chosen = _kept(rows, set(conflicting.index[conflicting]))
        what = "pixel-identical images" if kind == "exact" else "near copies"
        bear = "group of {} bears" if conflicting.sum() == 1 else "groups of {} bear"
        sentence = (
            f"{conflicting.sum()} {bear.format(what)} different labels: {conflicts(chosen)}. "
            "At most one of the labels is right, and no network can learn both."
        )
        found.append(LeakageFinding(f"{kind}-conflicts", "alarm", int(conflicting.sum()), sentence, chosen))
    return found


def _in_training(kind: str, rows: pd.DataFrame, table: pd.DataFrame, kinds: pd.Series) -> list[LeakageFinding]:
    """Images outside of the training part with a copy of one kind in it."""
    seen = kinds == kind
    if not seen.any():
        return []
    parts = []
    for part, name in _PARTS.items():
        here = table["split"] == part
        if count := int((seen & here).sum()):
            parts.append(f"{count} of {counted(int(here.sum()), f'{name} image')} ({share(count, here.sum())})")
    test = int((seen & (table["split"] == "test")).sum())
    severity: Severity = "alarm" if test else "warning"
    words = "a pixel-identical twin" if kind == "exact" else "a near copy, but no identical twin,"
    sentence = f"{joined(parts)} have {words} in the training part, which a network can know by heart."
    chosen = _kept(rows, set(rows.loc[rows["sample"].isin(table.loc[seen, "sample"]), "group"]))
    return [LeakageFinding(f"{kind}-in-training", severity, test or int(seen.sum()), sentence, chosen)]


def _alike(table: pd.DataFrame, pairs: pd.DataFrame) -> list[LeakageFinding]:
    """Pairs that fall short of copies, as neighbouring slices do."""
    pairs = pairs[pairs["kind"] == "alike"]
    known = table.set_index("sample")
    owners = [known["patient_id"].reindex(pairs[end]).to_numpy(str) for end in ("sample", "other")]
    pairs = pairs[(owners[0] == "") | (owners[1] == "")]  # of known patients, ids tell more than looks
    if "lesion_id" in known:
        lesions = [known["lesion_id"].fillna("").reindex(pairs[end]).to_numpy(str) for end in ("sample", "other")]
        pairs = pairs[(lesions[0] == "") | (lesions[0] != lesions[1])]
    if pairs.empty:
        return []
    splits = [known["split"].reindex(pairs[end]).to_numpy() for end in ("sample", "other")]
    crossing = int((splits[0] != splits[1]).sum())
    severity: Severity = "warning" if crossing else "note"
    sentence = (
        f"{counted(len(pairs), 'further pair')} of images {'is' if len(pairs) == 1 else 'are'} as alike as "
        "neighbouring slices of one patient or two pictures of one lesion, of which nothing else tells"
        + (f"; {crossing} of them lie in different parts." if crossing else ".")
    )
    order = np.lexsort((-pairs["similarity"].to_numpy(), splits[0] == splits[1]))
    ordered = pairs.iloc[order].reset_index(drop=True)
    ends = [
        pd.DataFrame({"sample": ordered["sample"], "turn": 0, "transform": "", "similarity": np.nan}),
        pd.DataFrame({"sample": ordered["other"], "turn": 1, **ordered[["transform", "similarity"]]}),
    ]
    rows = pd.concat([end.assign(group=ordered.index + 1) for end in ends]).sort_values(["group", "turn"])
    rows = rows.merge(table[["sample", "split", "label"]], on="sample", how="left")
    return [LeakageFinding("alike", severity, len(pairs), sentence, rows[list(ROW_COLUMNS)])]


def _kept(rows: pd.DataFrame, groups: set[int]) -> pd.DataFrame:
    return rows[rows["group"].isin(groups)].reset_index(drop=True)


def _with_transforms(rows: pd.DataFrame, pairs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of near groups with what was done to an earlier image of the group to get each, and how alike they are.

    An image is told of by its most similar pair with an earlier one, identical copies like the first of them.
    """
    pairs = pairs[pairs["kind"] == "near"].sort_values(["similarity", "sample"], ascending=[False, True])
    made = pairs.drop_duplicates("other").set_index("other_hash")  # `sample` is earlier than `other`
    hashes = table.set_index("sample")["pixel_hash"].reindex(rows["sample"])
    first = ~rows["group"].duplicated().to_numpy()
    later = pairs.drop_duplicates("sample").set_index("pixel_hash")  # for those that are like later ones alone
    transform = hashes.map(made["transform"]).fillna("").to_numpy(dtype=object, copy=True)
    similarity = hashes.map(made["similarity"]).fillna(hashes.map(later["similarity"])).to_numpy(float, copy=True)
    leads = set(hashes[first])
    twin = np.array([value in leads for value in hashes]) & ~first
    transform[first], similarity[first] = "", np.nan
    transform[twin], similarity[twin] = "pixel-identical", 1.0
    return rows.assign(transform=transform, similarity=similarity)
