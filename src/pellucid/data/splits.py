"""Part a data set into training, validation and test, so that nothing that belongs together is parted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from pellucid.data.groups import EVERY, NO_LABEL, LabelledGroups, found, independent_groups, labelled_groups
from pellucid.data.labels import classes_in
from pellucid.data.leakage import copy_groups, copy_kind
from pellucid.data.manifest import Manifest
from pellucid.errors import expected, unknown_name

SPLIT_COLUMNS = ("sample", "label", "fold", "split", "copy_in_train", "copy_kind", "patient_id")
Action = Literal["keep", "drop", "group"]
_NAMED = 3


def assign_splits(
    manifest: Manifest,
    *,
    test: float = 0.2,
    validation: float = 0.15,
    folds: int = 1,
    repeats: int = 1,
    leave_out: str | None = None,
    seed: int = 0,
    split: Literal["auto", "given", "random"] = "auto",
    near: pd.DataFrame | None = None,
    action: Action = "keep",
) -> pd.DataFrame:
    """A row per image and fold: sample, label, fold (from 0), split, copy_in_train, copy_kind, patient_id.

    Images of one patient, of one lesion (column lesion_id) and copies stay together where parts are drawn; labels are
    stratified, and each part holds each class. A given test part stays as it is. Where no validation part is given,
    it is drawn from the training part, and images bound to a test image (copies, lesions) aren't drawn, so that the
    choice of weights never sees the test. With several folds each image is tested once. With several repeats the
    same is drawn so often, the folds numbered on. With `leave_out`, each value of that column is the test part of one
    fold, in their sorted order; images elsewhere that are bound to it are "excluded" from that fold. The result
    depends on the seed and on what the rows hold, not on their order.

    Arguments:
        manifest: the data set.
        test: share of all images, where no test part is given and `folds` is 1.
        validation: share of what isn't tested.
        folds: 1, or the number of folds, at least 2.
        repeats: how many times the images are parted anew.
        leave_out: a column of the manifest, such as "site"; `test`, `folds`, `repeats` and `split` have no say then.
        seed: of the draws.
        split: "auto" honours a given split where there is one, "given" insists on one, "random" pools all images.
        near: near copies as `find_near` gives them, which count as copies beside the pixel-identical ones.
        action: what to do about copies that a given split parts. "keep" flags them: copy_in_train, and copy_kind
            "exact" or "near"; "drop" makes "excluded" of training and validation images with a copy in the test part,
            of training images with one in validation, and of all copies whose labels conflict; "group" pools all
            images and draws the parts anew.

    Raises InputError when a patient is in two given parts, a class is too small to be in each part, several folds
    or repeats are asked of a given split, or the column to leave out by isn't there, has gaps or one value.
    """
    for name, share in (("test", test), ("validation", validation)):
        if not 0 < share < 1:
            raise expected(name, "a share between 0 and 1", share)
    for name, count in (("folds", folds), ("repeats", repeats)):
        if count < 1:
            raise expected(name, "1 or more", count)
    table = manifest.table.sort_values("sample", ignore_index=True)
    split = _pooled(split, action)
    images = labelled_groups(table, independent_groups(table, near), (seed,), manifest.multi_label)
    if leave_out is not None:
        parts = _leave_out(table, images, leave_out, validation)
    elif _is_given(table, split):
        for name, count in (("folds", folds), ("repeats", repeats)):
            if count > 1:
                raise expected(
                    name, "1 where the data set gives a split", count,
                    do=f'Choose the split "random" to pool all images, or {name} = 1.',
                )  # fmt: skip
        parts = [_honour(table, images, test, validation)]
    else:
        parts = []
        for repeat in range(repeats):
            drawn = replace(images, seed=(seed, repeat) if repeat else (seed,))
            parts += [_hold_out(drawn, test, validation)] if folds == 1 else _fold(drawn, folds, validation)
    frames = []
    for fold, part in enumerate(parts):
        kept = _without_copies(table, images, part, near) if action == "drop" else part
        assigned = pd.Series(kept, table.index, dtype="str")
        kind = copy_kind(table["pixel_hash"], assigned, near)
        frame = table.assign(fold=fold, split=assigned, copy_in_train=kind != "", copy_kind=kind)
        frames.append(frame[list(SPLIT_COLUMNS)])
    return pd.concat(frames, ignore_index=True)


def inner_folds(table: pd.DataFrame, folds: int, seed: int, *, multi_label: bool = False) -> list[pd.Series]:
    """Part rows once more for nested cross-validation: per fold, which of them validate; groups stay together.

    Arguments:
        table: rows of a manifest (label, patient_id, pixel_hash …).
        folds: how many, at least 2.
        seed: of the draws.
        multi_label: whether an image may have several labels.

    Raises InputError when a class has fewer independent groups than there are folds.
    """
    images = labelled_groups(table, independent_groups(table), (seed, 0xF01D), multi_label)
    images.require(folds, f"{folds} inner folds")
    remaining, parts = np.arange(len(table)), []
    for fold in range(folds):
        later = folds - 1 - fold
        chosen = images.take(remaining, 1 / (later + 1), stage=fold, keep=later) if later else remaining
        chosen = found(chosen, f"{folds} inner folds")
        remaining = np.setdiff1d(remaining, chosen)
        parts.append(pd.Series(np.isin(np.arange(len(table)), chosen), table.index))
    return parts


def left_out_values(table: pd.DataFrame, column: str) -> tuple[str, ...]:
    """The values of a column by which folds are left out, sorted.

    Raises InputError when the column isn't there, lacks a value somewhere, or has one value only.
    """
    if column not in table:
        raise unknown_name("column to leave out by", column, [str(name) for name in table if name not in SPLIT_COLUMNS])
    values = table[column].astype(object).where(table[column].notna(), "").astype(str)
    if gaps := int((values == "").sum()):
        raise expected(
            "leave_out", f"a value of {column!r} for each image", f"{gaps} images without",
            do="Fill the column, or leave those images out.",
        )  # fmt: skip
    found = tuple(sorted(set(values)))
    if len(found) < 2:
        raise expected("leave_out", f"two or more values of {column!r}", f"only {found[0]!r}")
    return found


def split_notes(manifest: Manifest, splits: pd.DataFrame) -> tuple[str, ...]:
    """What a reader must know of a split besides its counts, in plain words."""
    table = manifest.table.merge(splits[splits["fold"] == 0][["sample", "split"]], on="sample", suffixes=("_given", ""))
    notes = []
    for part in ("val", "test"):
        there = classes_in(table.loc[table["split"] == part, "label"], manifest.multi_label)
        missing = [name for name in manifest.classes if name not in there]
        if missing:
            notes.append(f"The given {part} part holds no image of {_named(missing)}.")
    leaked = int((splits["copy_in_train"] & (splits["split"] == "val")).sum())
    if leaked:
        notes.append(f"{leaked} images of the given validation part have a copy in training.")
    if "lesion_id" in table:
        lesions = table[table["lesion_id"].notna() & (table["lesion_id"] != "")]
        crossing = int((lesions.groupby("lesion_id")["split"].nunique() > 1).sum())
        if crossing:
            notes.append(f"{crossing} lesions have images in more than one part of the given split.")
    return tuple(notes)


def _pooled(split: Literal["auto", "given", "random"], action: str) -> Literal["auto", "given", "random"]:
    """The split to make, once the action has had its say."""
    if action not in ("keep", "drop", "group"):
        raise expected("action", "'keep', 'drop' or 'group'", repr(action))
    if action == "group" and split == "given":
        raise expected(
            "action", "'keep' or 'drop' with a given split", "'group', which draws the parts anew",
            do='Choose the split "auto" or "random" to pool all images.',
        )  # fmt: skip
    return "random" if action == "group" else split


def _without_copies(
    table: pd.DataFrame, images: LabelledGroups, parts: np.ndarray, near: pd.DataFrame | None
) -> np.ndarray:
    """Parts in which images that copy what is tested or validated, or whose copies' labels conflict, are "excluded"."""
    copies = copy_groups(table, near)
    several = table.groupby(copies)["label"].transform("nunique").to_numpy() > 1
    kept = np.where(several, "excluded", parts).astype(object)
    for part, judged in (("train", ("test", "val")), ("val", ("test",))):
        seen = copies.isin(set(copies[np.isin(kept, judged)])).to_numpy()
        kept[seen & (kept == part)] = "excluded"
    for part in set(parts.tolist()) - {"excluded"}:
        of_part, left = (images.members[where == part].any(axis=0) for where in (parts, kept))
        lost = [
            name
            for name, gone in zip(images.names, of_part & ~left, strict=True)
            if gone and name not in (NO_LABEL, EVERY)
        ]
        if lost:
            raise expected(
                "action", f"images of {lost[0]!r} that stay in the {part} part without the copies", "none",
                do='Choose "keep" or "group" instead of "drop".',
            )  # fmt: skip
    return kept


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


def _honour(table: pd.DataFrame, images: LabelledGroups, test: float, validation: float) -> np.ndarray:
    """The given parts, and those that are missing drawn from the training part."""
    _refuse_shared_patients(table)
    parts = table["split"].to_numpy(dtype=object, copy=True)
    missing = [part for part in ("test", "val") if part not in set(parts)]
    images.require(1 + len(missing), "training" + "".join(f" and {part}" for part in missing), parts == "train")
    shares = {"test": test, "val": validation}
    for stage, part in enumerate(missing):
        training = np.flatnonzero(parts == "train")
        free = ~np.isin(images.groups[training], images.groups[parts != "train"])
        keep = len(missing) - stage
        chosen = images.take(training, shares[part], stage=stage, keep=keep, free=free)
        if chosen is None:  # all images of a class are bound to given ones
            chosen = images.take(training, shares[part], stage=stage, keep=keep)
        parts[found(chosen, "training, validation and test")] = part
    return parts


def _hold_out(images: LabelledGroups, test: float, validation: float) -> np.ndarray:
    wanted = "training, validation and test"
    images.require(3, wanted)
    parts = np.full(len(images), "train", dtype=object)
    for stage, (part, share) in enumerate((("test", test), ("val", validation))):
        training = np.flatnonzero(parts == "train")
        parts[found(images.take(training, share, stage=stage, keep=2 - stage), wanted)] = part
    return parts


def _leave_out(table: pd.DataFrame, images: LabelledGroups, column: str, validation: float) -> list[np.ndarray]:
    values = left_out_values(table, column)
    all_parts = []
    for fold, value in enumerate(values):
        parts = np.full(len(images), "train", dtype=object)
        tested = table[column].astype(str).to_numpy() == value
        parts[np.isin(images.groups, images.groups[tested])] = "excluded"
        parts[tested] = "test"
        wanted = f"training and validation without {column} {value!r}"
        images.require(2, wanted, parts == "train")
        chosen = images.take(np.flatnonzero(parts == "train"), validation, stage=fold, keep=1)
        parts[found(chosen, wanted)] = "val"
        all_parts.append(parts)
    return all_parts


def _fold(images: LabelledGroups, folds: int, validation: float) -> list[np.ndarray]:
    # with two folds, what one fold tests must hold a group to train on and one to validate with for the other
    least = 2 if folds == 2 else 1
    images.require(max(3, folds * least), f"{folds} folds")
    remaining = np.arange(len(images))
    all_parts = []
    for fold in range(folds):
        tested: np.ndarray | None = remaining
        if (later := folds - 1 - fold) > 0:
            tested = images.take(remaining, 1 / (later + 1), stage=2 * fold, keep=later * least, least=least)
        tested = found(tested, f"{folds} folds")
        remaining = np.setdiff1d(remaining, tested)
        parts = np.full(len(images), "train", dtype=object)
        parts[tested] = "test"
        chosen = images.take(np.flatnonzero(parts == "train"), validation, stage=2 * fold + 1, keep=1)
        parts[found(chosen, f"{folds} folds")] = "val"
        all_parts.append(parts)
    return all_parts


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


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
