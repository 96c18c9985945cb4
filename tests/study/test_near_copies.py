from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image

from pellucid.data.manifest import load_manifest
from pellucid.data.phantoms.draw import draw_phantom
from pellucid.files import read_json, read_table
from pellucid.study import near_copies as module
from pellucid.study.config import StudyConfig, parse_config
from pellucid.study.dataset_settings import LeakageSettings
from pellucid.study.near_copies import near_copies
from pellucid.study.prepare import prepare_dataset


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set with a split, an identical and a mirrored copy in its test part; an external set with two more."""
    root = tmp_path_factory.mktemp("data")
    pictures = [draw_phantom("skin", index, size=64).image for index in range(44)]

    def save(pixels: np.ndarray, *parts: str) -> None:
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for index, picture in enumerate(pictures[:40]):
        save(picture, "set", "train" if index < 30 else "test", "ab"[index % 2], f"{index:02d}.png")
    save(pictures[0], "set", "test", "a", "same.png")
    save(np.fliplr(pictures[1]), "set", "test", "b", "mirrored.png")
    save(np.fliplr(pictures[3]), "outside", "b", "mirrored.png")
    save(pictures[2], "outside", "a", "same.png")
    for index in (40, 41, 42, 43):
        save(pictures[index], "outside", "ab"[index % 2], f"{index}.png")
    return root / "set", root / "outside"


def _config(folders: tuple[Path, Path], **leakage: object) -> StudyConfig:
    dataset = {
        "name": "skin", "path": str(folders[0]), "image_size": 32, "leakage": leakage,
        "external": [{"name": "outside", "path": str(folders[1])}],
    }  # fmt: skip
    return parse_config({"datasets": [dataset], "models": ["test_resnet"], "explain": {"images": 2}}, base=Path("/"))


def test_pairs_are_found_once_and_kept(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, outside = load_manifest(folders[0], name="skin"), load_manifest(folders[1], name="outside")
    found = near_copies(manifest, {"outside": outside}, LeakageSettings(), tmp_path)
    ends = found.within[["sample", "other"]].to_numpy().tolist()
    assert ends == [["test/b/mirrored.png", "train/b/01.png"]]
    assert found.across("outside")[["sample", "other"]].to_numpy().tolist() == [["train/b/03.png", "b/mirrored.png"]]
    found.store(tmp_path, "skin")
    monkeypatch.setattr(module, "read_thumbnails", lambda *_, **__: pytest.fail("looked again"))
    again = near_copies(manifest, {"outside": outside}, LeakageSettings(), tmp_path)
    pd.testing.assert_frame_equal(again.pairs, found.pairs)
    assert not near_copies(manifest, {}, LeakageSettings(near=False), tmp_path).sought
    with pytest.raises(pytest.fail.Exception, match="looked again"):
        near_copies(manifest, {"outside": outside}, LeakageSettings(threshold=0.9), tmp_path)


def test_a_given_split_is_kept_flagged_and_described(folders: tuple[Path, Path], tmp_path: Path) -> None:
    prepared = prepare_dataset(_config(folders).datasets[0], _config(folders), tmp_path)
    flagged = prepared.splits[prepared.splits["copy_in_train"]].set_index("sample")["copy_kind"]
    assert flagged.to_dict() == {"test/a/same.png": "exact", "test/b/mirrored.png": "near"}
    outside = prepared.external_rows("outside").set_index("sample")["copy_in_train"]
    assert outside[outside].index.tolist() == ["a/same.png", "b/mirrored.png"]
    facts = read_json(tmp_path / "data" / "skin.json")
    assert (facts["duplicates"]["cross_split"], facts["duplicates"]["near_cross_split"]) == (2, 1)
    assert facts["external"]["outside"]["copies"] == 2
    counts = {each["kind"]: each["count"] for each in facts["leakage"]}
    assert counts == {
        "exact-in-other-set": 1, "near-in-other-set": 1, "exact-in-training": 1, "near-in-training": 1,
        "exact-copies": 2, "near-copies": 2, "no-patients": 42,
    }  # fmt: skip
    rows = read_table(tmp_path / "data" / "skin_leakage.csv")
    assert set(rows["kind"]) == set(counts) - {"no-patients"}
    shown = zarr.open_group(tmp_path / "data" / "skin_leakage.zarr", mode="r")
    assert shown["images"].shape == (len(shown.attrs["sample"]), 3, 32, 32) == (8, 3, 32, 32)


@pytest.mark.parametrize(("action", "given"), [("drop", True), ("group", False)])
def test_copies_are_dropped_or_grouped_where_asked(
    folders: tuple[Path, Path], tmp_path: Path, action: str, given: bool
) -> None:
    config = _config(folders, action=action)
    prepared = prepare_dataset(config.datasets[0], config, tmp_path)
    assert not prepared.splits["copy_in_train"].any()
    parts = prepared.splits.set_index("sample")["split"]
    if action == "drop":
        assert parts[parts == "excluded"].index.tolist() == ["train/a/00.png", "train/b/01.png"]
    else:
        assert parts["train/a/00.png"] == parts["test/a/same.png"]
        assert parts["train/b/01.png"] == parts["test/b/mirrored.png"]
    facts = read_json(tmp_path / "data" / "skin.json")
    assert facts["given_split"] is given
    assert (
        "2 images are left out, as copies of test images or of images with another label." in facts["notes"]
    ) is given
    kinds = {each["kind"] for each in facts["leakage"]}
    assert not kinds & {"exact-in-training", "near-in-training"}


def test_near_copies_can_be_left_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = _config(folders, near=False)
    prepared = prepare_dataset(config.datasets[0], config, tmp_path)
    assert prepared.splits["copy_kind"].value_counts().to_dict() == {"": 41, "exact": 1}
    assert not (tmp_path / "data" / "skin_near.parquet").exists()
