from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pellucid.data.leakage import COPY_COLUMNS, CopyCounts, copy_in_train, count_copies, find_copies
from pellucid.data.manifest import Manifest, load_manifest


def test_groups_and_kinds(manifest_of: Callable[..., Manifest]) -> None:
    manifest = manifest_of(
        "aabbab" + "ab",
        split=["train", "test", "train", "train", "val", "test", "train", "train"],
        pixel_hash=["w", "w", "x", "x", "y", "y", "only", "once"],
    )
    copies = find_copies(manifest)
    assert tuple(copies.columns) == COPY_COLUMNS
    assert copies.to_numpy().tolist() == [
        [1, "cross_split", "0000.png", "train", "a"],
        [1, "cross_split", "0001.png", "test", "a"],
        [2, "within_split", "0002.png", "train", "b"],
        [2, "within_split", "0003.png", "train", "b"],
        [3, "cross_split+cross_label", "0004.png", "val", "a"],
        [3, "cross_split+cross_label", "0005.png", "test", "b"],
    ]
    assert count_copies(manifest) == CopyCounts(groups=3, images=6, cross_split=2, cross_label=1, test_copies=1)


def test_no_copies_give_an_empty_table(manifest_of: Callable[..., Manifest]) -> None:
    manifest = manifest_of("ab")
    assert find_copies(manifest).empty
    assert tuple(find_copies(manifest).columns) == COPY_COLUMNS
    assert count_copies(manifest) == CopyCounts(0, 0, 0, 0, 0)


def test_the_order_of_rows_does_not_matter(manifest_of: Callable[..., Manifest]) -> None:
    manifest = manifest_of("aabb", pixel_hash=["x", "y", "y", "x"])
    turned = Manifest("turned", Path(), manifest.table.iloc[::-1], manifest.classes)
    pd.testing.assert_frame_equal(find_copies(turned), find_copies(manifest))


def test_training_images_are_no_copies_of_themselves() -> None:
    hashes = pd.Series(["a", "a", "a", "b", "c", "b"])
    split = pd.Series(["train", "train", "val", "val", "test", "test"])
    assert copy_in_train(hashes, split).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("pack", "wanted"),
    [
        ("brain_mri", CopyCounts(groups=300, images=694, cross_split=213, cross_label=0, test_copies=251)),
        ("skin", CopyCounts(groups=159, images=318, cross_split=18, cross_label=155, test_copies=18)),
        ("chest_xray", CopyCounts(groups=1, images=2, cross_split=0, cross_label=0, test_copies=0)),
    ],
)
def test_the_copies_of_real_packs_are_those_that_their_makers_list(
    pack: str, wanted: CopyCounts, shared_data: Path
) -> None:
    manifest = load_manifest(shared_data / pack)
    assert count_copies(manifest) == wanted
    listed = pd.read_csv(shared_data / pack / "leakage.csv").rename(columns={"path": "sample"})
    assert _groups(find_copies(manifest)) == _groups(listed)


def _groups(copies: pd.DataFrame) -> set[tuple[str, tuple[tuple[str, str, str], ...]]]:
    return {
        (group["kind"].iloc[0], tuple(sorted(group[["sample", "split", "label"]].itertuples(index=False, name=None))))
        for _, group in copies.groupby("group")
    }
