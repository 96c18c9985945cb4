from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from pellucid.study.prepare import choose_explained


def rows(counts: dict[str, int]) -> pd.DataFrame:
    names = [(f"{label}/{index:03d}", label) for label, count in counts.items() for index in range(count)]
    return pd.DataFrame(names, columns=["sample", "label"])


def test_classes_are_explained_in_equal_numbers_as_far_as_they_go() -> None:
    chosen = choose_explained(rows({"a": 50, "b": 50, "rare": 3}), 23, seed=0)
    assert chosen["label"].value_counts().to_dict() == {"a": 10, "b": 10, "rare": 3}
    assert chosen["sample"].is_monotonic_increasing


def test_the_choice_follows_the_seed_and_not_the_order_of_rows() -> None:
    table = rows({"a": 30, "b": 30})
    one = choose_explained(table, 10, seed=1)
    assert one.equals(choose_explained(table.sample(frac=1, random_state=5), 10, seed=1))
    assert not one.equals(choose_explained(table, 10, seed=2))
    assert len(choose_explained(table, 1000, seed=1)) == 60
    assert choose_explained(table, 0, seed=1).empty


def test_a_data_set_is_described_for_the_report(finished_study: Path) -> None:
    facts = json.loads((finished_study / "data" / "chest.json").read_text())
    splits = pd.read_parquet(finished_study / "splits.parquet")
    assert facts["images"] == len(splits) == 120
    assert sum(row["images"] for row in facts["counts"]) == 120
    assert facts["classes"] == ["covid19", "normal", "pneumonia"]
    assert facts["duplicates"]["groups"] == 0
    assert facts["masks"] > 0
    # phantoms of one patient stay in one part
    assert splits.groupby("patient_id")["split"].nunique().max() == 1


def test_pictures_of_the_explained_images_stand_beside_their_masks(finished_study: Path) -> None:
    group = zarr.open_group(finished_study / "data" / "chest_explained_fold-0.zarr", mode="r")
    explained = pd.read_parquet(finished_study / "chest" / "test_resnet" / "fold-0" / "explained.parquet")
    samples = group.attrs["samples"]
    assert list(explained["sample"]) == samples
    masks = np.asarray(group["masks"][:])
    assert group["images"].shape == (len(samples), 1, 64, 64)
    np.testing.assert_array_equal(masks.any(axis=(1, 2)), explained["has_mask"])
    share = masks.mean(axis=(1, 2))
    np.testing.assert_allclose(explained["lesion_share"].fillna(0), share)
    assert set(explained["label"][~explained["has_mask"]]) <= {"normal"}
