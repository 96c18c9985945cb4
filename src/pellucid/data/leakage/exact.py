"""Pixel-identical images: which they are, and which test images a network has seen in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pellucid.data.manifest import Manifest

COPY_COLUMNS = ("group", "kind", "sample", "split", "label")


@dataclass(frozen=True)
class CopyCounts:
    """How many groups of pixel-identical images there are, and how many images in them.

    `cross_split` and `cross_label` count the groups that lie in several given splits or bear several labels;
    `test_copies` the test images with a twin in the training part.
    """

    groups: int
    images: int
    cross_split: int
    cross_label: int
    test_copies: int


def find_copies(manifest: Manifest) -> pd.DataFrame:
    """Pixel-identical images, a row each: group (from 1), kind, sample, split, label.

    `kind` is "within_split" or "cross_split" by the split that the data set gives, with "+cross_label" when the
    group bears several labels. Groups are numbered by their first sample; without copies the table is empty.
    """
    table = manifest.table.sort_values("sample", ignore_index=True)
    table = table[table["pixel_hash"].duplicated(keep=False)]
    groups = table.groupby("pixel_hash", sort=False)
    kind = np.where(groups["split"].transform("nunique") > 1, "cross_split", "within_split").astype(object)
    conflicting = (groups["label"].transform("nunique") > 1).to_numpy(bool)
    kind[conflicting] = kind[conflicting] + "+cross_label"
    copies = table.assign(group=groups.ngroup().astype("int64") + 1, kind=pd.Series(kind, table.index, dtype="str"))
    return copies[list(COPY_COLUMNS)].sort_values(["group", "sample"], ignore_index=True)


def count_copies(manifest: Manifest) -> CopyCounts:
    """Count what `find_copies` lists, with the test images that have a twin in the given training part."""
    copies = find_copies(manifest)
    kinds = copies.drop_duplicates("group")["kind"]
    table = manifest.table
    seen = copy_in_train(table["pixel_hash"], table["split"])
    return CopyCounts(
        groups=len(kinds),
        images=len(copies),
        cross_split=int(kinds.str.contains("cross_split").sum()),
        cross_label=int(kinds.str.contains("cross_label").sum()),
        test_copies=int((seen & (table["split"] == "test")).sum()),
    )


def copy_in_train(pixel_hash: pd.Series, split: pd.Series) -> pd.Series:
    """Whether each image outside of the training part has a pixel-identical twin in it.

    >>> copy_in_train(pd.Series(["a", "a", "b"]), pd.Series(["train", "test", "test"])).tolist()
    [False, True, False]
    """
    training = split == "train"
    return pixel_hash.isin(pixel_hash[training]) & ~training
