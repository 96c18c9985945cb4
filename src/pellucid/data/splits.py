"""Part a data set into training, validation and test, so that nothing that belongs together is parted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from pellucid.data.leakage import copy_in_train
from pellucid.data.manifest import Manifest
from pellucid.errors import InputError, expected

SPLIT_COLUMNS = ("sample", "label", "fold", "split", "copy_in_train", "patient_id")
_GROUPING = ("patient_id", "pixel_hash", "lesion_id")
_ATTEMPTS = 20
_PASSES = 10
_NAMED = 3


def assign_splits(
    manifest: Manifest,
    *,
    test: float = 0.2,
    validation: float = 0.15,
    folds: int = 1,
    seed: int = 0,
    split: Literal["auto", "given", "random"] = "auto",
) -> pd.DataFrame:
    """A row per image and fold: sample, label, fold (from 0), split, copy_in_train, patient_id.

    Images of one patient, of one lesion (column lesion_id) and pixel-identical copies stay together; labels are
    stratified, and each part holds each class. A given test part stays as it is. Where no validation part is given,
    it is drawn from the training part, and images bound to a test image (copies, lesions) aren't drawn, so that the
    choice of weights never sees the test. With several folds each image is tested once. The result depends on the
    seed and on what the rows hold, not on their order.

    Arguments:
        manifest: the data set.
        test: share of all images, where no test part is given and `folds` is 1.
        validation: share of what isn't tested.
        folds: 1, or the number of folds, at least 2.
        seed: of the draws.
        split: "auto" honours a given split where there is one, "given" insists on one, "random" pools all images.

    Raises InputError when a patient is in two given parts, a class is too small to be in each part, or several
    folds are asked of a given split.
    """
    for name, share in (("test", test), ("validation", validation)):
        if not 0 < share < 1:
            raise expected(name, "a share between 0 and 1", share)
    if folds < 1:
        raise expected("folds", "1 or more", folds)
    table = manifest.table.sort_values("sample", ignore_index=True)
    groups = independent_groups(table)
    if _is_given(table, split):
        if folds > 1:
            raise expected(
                "folds", "1 where the data set gives a split", folds,
                do='Choose the split "random" to pool all images, or folds = 1.',
            )  # fmt: skip
        parts = [_honour(table, groups, test, validation, seed)]
    elif folds == 1:
        _require(table, groups, 3, "training, validation and test")
        parts = [_hold_out(table, groups, test, validation, seed)]
    else:
        parts = _fold(table, groups, folds, validation, seed)
    frames = []
    for fold, part in enumerate(parts):
        assigned = pd.Series(part, table.index, dtype="str")
        seen = copy_in_train(table["pixel_hash"], assigned)
        frames.append(table.assign(fold=fold, split=assigned, copy_in_train=seen)[list(SPLIT_COLUMNS)])
    return pd.concat(frames, ignore_index=True)


def independent_groups(table: pd.DataFrame) -> np.ndarray:
    """Number (N,) of the group of each image: images bound by a patient, a lesion or identical pixels share one.

    >>> independent_groups(pd.DataFrame({"patient_id": ["p", "p", "", ""], "pixel_hash": ["a", "b", "b", "c"]}))
    array([0, 0, 0, 1])
    """
    rows, owners, count = [], [], len(table)
    for column in _GROUPING:
        if column not in table:
            continue
        values = table[column].astype(object).where(table[column].notna(), "").astype(str)
        known = np.flatnonzero(values != "")
        codes, _ = pd.factorize(values.iloc[known])
        rows.append(known)
        owners.append(codes + count)
        count += int(codes.max(initial=-1)) + 1
    edges = (np.concatenate(rows), np.concatenate(owners))
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(count, count))
    components = connected_components(graph, directed=False)[1][: len(table)]
    return pd.factorize(components)[0]


def split_notes(manifest: Manifest, splits: pd.DataFrame) -> tuple[str, ...]:
    """What a reader must know of a split besides its counts, in plain words."""
    table = manifest.table.merge(splits[splits["fold"] == 0][["sample", "split"]], on="sample", suffixes=("_given", ""))
    notes = []
    for part in ("val", "test"):
        missing = [name for name in manifest.classes if name not in set(table.loc[table["split"] == part, "label"])]
        if missing:
            notes.append(f"The given {part} part holds no image of {_named(missing)}.")
    leaked = int((splits["copy_in_train"] & (splits["split"] == "val")).sum())
    if leaked:
        notes.append(f"{leaked} images of the given validation part have a pixel-identical twin in training.")
    if "lesion_id" in table:
        lesions = table[table["lesion_id"].notna() & (table["lesion_id"] != "")]
        crossing = int((lesions.groupby("lesion_id")["split"].nunique() > 1).sum())
        if crossing:
            notes.append(f"{crossing} lesions have images in more than one part of the given split.")
    return tuple(notes)


def _is_given(table: pd.DataFrame, split: str) -> bool:
    """Whether the data set's own split is to be honoured; naming only a training part gives none."""
    if split not in ("auto", "given", "random"):
        raise expected("split", "'auto', 'given' or 'random'", repr(split))
    there = set(table["split"])
    if split == "random" or (split == "auto" and not there & {"val", "test"}):
        return False
    if split == "given" and "test" not in there:
        raise expected("split", "a data set that gives a test part", "none", do='Choose "auto" or "random".')
    without = table.loc[table["split"] == "", "sample"]
    if len(without):
        raise expected(
            "split", "a split for each image or for none", f"{len(without)} images without, e.g. {without.iloc[0]}",
            do='Fill the column, or choose the split "random".',
        )  # fmt: skip
    return True


def _honour(table: pd.DataFrame, groups: np.ndarray, test: float, validation: float, seed: int) -> np.ndarray:
    """The given parts, and those that are missing drawn from the training part."""
    _refuse_shared_patients(table)
    parts = table["split"].to_numpy(dtype=object, copy=True)
    missing = [part for part in ("test", "val") if part not in set(parts)]
    _require(
        table, groups, 1 + len(missing), "training" + "".join(f" and {part}" for part in missing), parts == "train"
    )
    shares = {"test": test, "val": validation}
    for number, part in enumerate(missing):
        training = np.flatnonzero(parts == "train")
        bound = np.isin(groups[training], groups[parts != "train"])
        keep = len(missing) - number
        chosen = _take(table, groups, training, shares[part], keep, seed, number, ~bound)
        if chosen is None:  # a class has no image that isn't bound
            chosen = _take(table, groups, training, shares[part], keep, seed, number)
        parts[_found(chosen)] = part
    return parts


def _hold_out(table: pd.DataFrame, groups: np.ndarray, test: float, validation: float, seed: int) -> np.ndarray:
    parts = np.full(len(table), "train", dtype=object)
    parts[_found(_take(table, groups, np.arange(len(table)), test, 2, seed, 0))] = "test"
    parts[_found(_take(table, groups, np.flatnonzero(parts == "train"), validation, 1, seed, 1))] = "val"
    return parts


def _fold(table: pd.DataFrame, groups: np.ndarray, folds: int, validation: float, seed: int) -> list[np.ndarray]:
    _require(table, groups, max(folds, 3), f"{folds} folds")
    labels = table["label"].to_numpy(str)
    for attempt in range(_ATTEMPTS):
        state = int(_generator(seed, 2, attempt).integers(2**31))
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=state)
        all_parts = []
        for number, (rest, tested) in enumerate(splitter.split(labels, labels, groups)):
            chosen = _take(table, groups, rest, validation, 1, seed, 3 + number)
            if chosen is None or set(labels[tested]) != set(labels):
                break
            parts = np.full(len(table), "train", dtype=object)
            parts[tested], parts[chosen] = "test", "val"
            all_parts.append(parts)
        if len(all_parts) == folds:
            return all_parts
    raise _no_parting(f"{folds} folds")


def _take(
    table: pd.DataFrame,
    groups: np.ndarray,
    rows: np.ndarray,
    share: float,
    keep: int,
    seed: int,
    stage: int,
    allowed: np.ndarray | None = None,
) -> np.ndarray | None:
    """Rows to part from `rows`: whole groups, near `share` of each class, at least one group of each.

    At least `keep` groups of each class stay. None when no such choice is found.
    """
    classes, labels = np.unique(table["label"].to_numpy(str)[rows], return_inverse=True)
    names, members = np.unique(groups[rows], return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (members, labels), 1)
    free = np.ones(len(names), bool)
    if allowed is not None:
        free[members[~allowed]] = False
    for attempt in range(_ATTEMPTS):
        taken = _draw(counts, share, keep, free, _generator(seed, stage, attempt))
        if taken is not None:
            chosen: np.ndarray = rows[taken[members]]
            return chosen
    return None


def _draw(
    counts: np.ndarray, share: float, keep: int, free: np.ndarray, generator: np.random.Generator
) -> np.ndarray | None:
    """Choose groups (G,) so that their class counts (G, K) come near `share`: each in turn, the large ones first, is
    taken or given back when that brings them nearer, until none does."""
    present = counts > 0
    wanted = np.maximum(share * counts.sum(axis=0), 1)
    got = np.zeros(counts.shape[1])
    staying = present.sum(axis=0)
    taken = np.zeros(len(counts), bool)
    order = generator.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]

    def spared(group: int) -> bool:
        return bool(free[group] and (staying[present[group]] > keep).all())

    def distance(change: np.ndarray) -> float:
        return float(((got + change - wanted) ** 2 / wanted).sum())

    for _ in range(_PASSES):
        before = taken.copy()
        for group in order:
            sign = -1 if taken[group] else 1
            if (taken[group] or spared(group)) and distance(sign * counts[group]) < distance(np.zeros_like(got)):
                taken[group] = not taken[group]
                got, staying = got + sign * counts[group], staying - sign * present[group]
        if (taken == before).all():
            break
    for missing in np.flatnonzero(got == 0):
        candidates = [group for group in order if present[group, missing] and not taken[group] and spared(group)]
        if got[missing] == 0 and candidates:
            nearest = min(candidates, key=lambda group: distance(counts[group]))
            taken[nearest] = True
            got, staying = got + counts[nearest], staying - present[nearest]
    return taken if (got > 0).all() else None


def _require(table: pd.DataFrame, groups: np.ndarray, needed: int, parts: str, pool: np.ndarray | None = None) -> None:
    """Refuse a class with fewer independent groups than there are parts."""
    pool = np.ones(len(table), bool) if pool is None else pool
    labels = table["label"].to_numpy(str)
    for name in np.unique(labels):
        here = pool & (labels == name)
        independent = len(np.unique(groups[here]))
        if independent < needed:
            bound = f" ({here.sum()} bound by patient, lesion or identical pixels)" if here.sum() > independent else ""
            where = "" if pool.all() else " in the training part"
            raise expected(
                "label", f"at least {needed} independent images of each class{where}, for {parts}",
                f"{independent} of {name!r}{bound}",
                do=f"Add images of {name!r}, merge it into another class, or leave it out.",
            )  # fmt: skip


def _refuse_shared_patients(table: pd.DataFrame) -> None:
    known = table[table["patient_id"] != ""]
    crossing = known[known.groupby("patient_id")["split"].transform("nunique") > 1]
    if len(crossing):
        # patients are told by files: their ids stay out of messages and logs
        first = crossing[crossing["patient_id"] == crossing["patient_id"].iloc[0]].drop_duplicates("split")
        named = ", ".join(f"{row.sample} ({row.split})" for row in first.itertuples())
        raise expected(
            "split", "each patient in one part of the given split",
            f"{crossing['patient_id'].nunique()} patients in several, e.g. the one of {named}",
            do='Correct the split, or choose the split "random" to part all patients anew.',
        )  # fmt: skip


def _found(chosen: np.ndarray | None) -> np.ndarray:
    if chosen is None:
        raise _no_parting("training, validation and test")
    return chosen


def _no_parting(parts: str) -> InputError:
    return expected(
        "label", f"classes that can be in each of {parts}", "classes bound to each other by patients or copies",
        do="Merge the small classes, or lower the number of folds.",
    )  # fmt: skip


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
