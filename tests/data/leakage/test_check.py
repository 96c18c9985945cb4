from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pellucid.data.leakage import LeakageReport, check_leakage, report_leakage, shown_groups
from pellucid.data.leakage.finding import ROW_COLUMNS
from pellucid.data.leakage.shown import PER_GROUP, SHOWN_COLUMNS
from pellucid.data.manifest import Manifest, load_manifest

Save = Callable[[Image.Image, Path], None]


@pytest.fixture(scope="module")
def folder(phantoms: Mapping[str, list[np.ndarray]], save: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve skin phantoms, with an identical twin, a mirrored and a conflicting copy, and patients who cross."""
    root = tmp_path_factory.mktemp("leaking")
    rows = []

    def add(picture: np.ndarray, name: str, label: str, split: str, patient: str = "", lesion: str = "") -> None:
        save(Image.fromarray(picture), root / name)
        rows.append((name, label, split, patient, lesion))

    pictures = phantoms["skin"]
    for index, picture in enumerate(pictures):
        add(picture, f"{index:02d}.png", "ab"[index % 2], "train" if index < 8 else "test", f"P-{index:03d}")
    add(pictures[0], "twin.png", "a", "test")
    add(pictures[1][:, ::-1], "mirrored.jpg", "b", "test")
    add(np.rot90(pictures[2]), "turned.png", "b", "train")
    add(pictures[9], "quarrel.png", "a", "test")
    blurred = np.asarray(Image.fromarray(pictures[10]).resize((90, 90)))
    add(blurred[:, ::-1], "flipped.png", "a", "test", "P-010", "L1")
    add(np.roll(pictures[3], 30, 0), "rolled.png", "b", "test", "P-003", "L1")
    pd.DataFrame(rows, columns=["path", "label", "split", "patient_id", "lesion_id"]).to_csv(
        root / "manifest.csv", index=False
    )
    return root


@pytest.fixture(scope="module")
def report(folder: Path) -> LeakageReport:
    return check_leakage(load_manifest(folder))


def test_each_kind_of_leak_is_counted_once(report: LeakageReport) -> None:
    assert {finding.kind: finding.count for finding in report.findings} == {
        "exact-in-training": 1,
        "near-in-training": 1,
        "exact-copies": 4,
        "exact-conflicts": 1,
        "near-copies": 6,
        "near-conflicts": 1,
        "patients-across-splits": 1,
        "lesions-in-classes": 1,
    }
    assert report.parts == {"test": 9, "train": 9}
    assert (report.count("near-copies"), report.count("confounded")) == (6, 0)
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["alarm", "warning", "note"].index)


def test_rows_stand_by_group_with_part_label_and_change(report: LeakageReport) -> None:
    def rows(kind: str) -> list[list[object]]:
        finding = report.finding(kind)
        assert finding is not None
        assert tuple(finding.rows.columns) == ROW_COLUMNS
        return finding.rows[["group", "sample", "split", "label", "transform"]].to_numpy().tolist()

    assert rows("exact-in-training") == [[1, "00.png", "train", "a", ""], [1, "twin.png", "test", "a", ""]]
    assert rows("exact-conflicts") == [[2, "09.png", "test", "b", ""], [2, "quarrel.png", "test", "a", ""]]
    assert rows("near-in-training") == [
        [1, "01.png", "train", "b", ""],
        [1, "mirrored.jpg", "test", "b", "flipped left to right"],
    ]
    assert rows("near-conflicts") == [
        [2, "02.png", "train", "a", ""],
        [2, "turned.png", "train", "b", "rotated by 90° anticlockwise"],
    ]
    assert [row[1] for row in rows("near-copies")] == [
        "01.png", "mirrored.jpg", "02.png", "turned.png", "10.png", "flipped.png",
    ]  # fmt: skip
    assert rows("near-copies")[-1][-1] == "flipped left to right, resized"
    assert [row[1] for row in rows("patients-across-splits")] == ["03.png", "rolled.png"]
    assert [row[1] for row in rows("lesions-in-classes")] == ["flipped.png", "rolled.png"]


def test_sentences_are_plain_and_name_no_patient(report: LeakageReport) -> None:
    said = {finding.kind: finding.sentence for finding in report.findings}
    assert said["exact-in-training"].startswith("1 of 9 test images (11 %) have a pixel-identical twin in the training")
    assert said["exact-conflicts"].startswith("1 group of pixel-identical images bears different labels: 1 of a and b.")
    assert said["patients-across-splits"] == "1 patient has images in more than one part of the split."
    assert not any("P-0" in sentence for sentence in said.values())
    table = report.table()
    assert table["sentence"].tolist() == list(said.values())


def test_without_a_split_nothing_crosses(folder: Path) -> None:
    manifest = load_manifest(folder)
    found = check_leakage(replace(manifest, table=manifest.table.assign(split="")), near=None)
    assert [finding.kind for finding in found.findings] == ["exact-conflicts", "lesions-in-classes", "exact-copies"]


def test_an_unreadable_image_in_the_middle_is_told_of_and_the_rest_goes_on(folder: Path, report: LeakageReport) -> None:
    manifest = load_manifest(folder)
    gone = manifest.table.iloc[5]
    lost = manifest.table.assign(sample=manifest.table["sample"].replace(gone["sample"], "05-gone.png"))
    found = check_leakage(replace(manifest, table=lost, unreadable=(("torn.png", "the file is empty"),)))
    assert found.count("unreadable") == 2
    assert {finding.kind: finding.count for finding in found.findings if finding.kind != "unreadable"} == {
        finding.kind: finding.count for finding in report.findings
    }


def test_one_image_has_no_leakage(folder: Path) -> None:
    manifest = load_manifest(folder)
    found = check_leakage(replace(manifest, table=manifest.table.iloc[[5]].reset_index(drop=True)))
    assert found.findings == ()
    assert shown_groups(found).empty


def test_an_external_set_is_searched_for_copies(
    folder: Path, phantoms: Mapping[str, list[np.ndarray]], save: Save, tmp_path: Path
) -> None:
    save(Image.fromarray(phantoms["skin"][0]), tmp_path / "a" / "same.png")
    save(Image.fromarray(np.flipud(phantoms["skin"][5])), tmp_path / "a" / "upended.jpg")
    save(Image.fromarray(phantoms["brain"][5]), tmp_path / "c" / "other.png")
    found = check_leakage(load_manifest(tmp_path, name="outside"), against=load_manifest(folder, name="inside"))
    assert found.against == "inside"
    assert (found.count("exact-in-other-set"), found.count("near-in-other-set")) == (1, 1)
    near = found.finding("near-in-other-set")
    assert near is not None
    assert near.severity == "alarm"
    assert "1 of 3 images (33 %) have a near copy in inside: 1 a. Labels differ" not in near.sentence  # b isn't outside
    assert near.rows[["data_set", "sample", "label", "transform"]].to_numpy().tolist() == [
        ["outside", "a/upended.jpg", "a", ""],
        ["inside", "05.png", "b", "flipped top to bottom"],
    ]
    exact = found.finding("exact-in-other-set")
    assert exact is not None
    assert exact.rows["sample"].tolist() == ["a/same.png", "00.png", "twin.png"]


def test_looks_are_asked_only_where_patients_are_unknown(manifest_of: Callable[..., Manifest]) -> None:
    manifest = manifest_of("aabb", split=["train", "test"] * 2, patient_id=["p", "q", "", "r"])
    names, hashes = manifest.table["sample"], manifest.table["pixel_hash"]
    pairs = pd.DataFrame(
        [(names[i], names[j], "alike", 0.9, "resized", hashes[i], hashes[j]) for i, j in ((0, 1), (2, 3))],
        columns=["sample", "other", "kind", "similarity", "transform", "pixel_hash", "other_hash"],
    )
    found = report_leakage(manifest, pairs).finding("alike")
    assert found is not None
    assert (found.count, found.severity) == (1, "warning")
    assert found.rows["sample"].tolist() == [names[2], names[3]]
    assert found.rows["transform"].tolist() == ["", "resized"]
    table = manifest.table.assign(lesion_id=["", "", "one", "one"])
    assert report_leakage(replace(manifest, table=table), pairs).finding("alike") is None  # known to be of one lesion


def test_shown_groups_are_few_and_show_each_part_and_label(manifest_of: Callable[..., Manifest]) -> None:
    labels, splits = "a" * 10 + "b" * 2, ["train"] * 9 + ["test"] * 3
    manifest = manifest_of(labels + "cd" * 20, split=splits + ["train", "test"] * 20,
                           pixel_hash=["x"] * 12 + [f"y{index // 2}" for index in range(40)])  # fmt: skip
    shown = shown_groups(check_leakage(manifest, near=None))
    assert tuple(shown.columns) == SHOWN_COLUMNS
    first = shown[(shown["kind"] == "exact-conflicts") & (shown["group"] == 1)]
    assert len(first) == PER_GROUP
    assert first["size"].iloc[0] == 12
    assert set(zip(first["split"], first["label"], strict=True)) == {("train", "a"), ("test", "a"), ("test", "b")}
    counts = shown.drop_duplicates(["kind", "group"])["kind"].value_counts()
    assert counts.to_dict() == {"exact-conflicts": 3, "exact-in-training": 3, "exact-copies": 3}
    members = shown.groupby(["kind", "group"])["sample"].agg(frozenset)
    assert members.is_unique
