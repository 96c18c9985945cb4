from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pellucid.data.layout import list_folder, list_table
from pellucid.errors import InputError, UnknownNameError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def table(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows(listing_table: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    return list(listing_table[list(columns)].itertuples(index=False, name=None))


def test_class_folders(tmp_path: Path) -> None:
    listing = list_folder(touch(tmp_path, "b/2.JPG", "a/1.png", "a/deeper/3.tiff"))
    assert rows(listing.table, "sample", "label", "split") == [
        ("a/1.png", "a", ""),
        ("a/deeper/3.tiff", "a", ""),
        ("b/2.JPG", "b", ""),
    ]
    assert listing.notes == ()


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        (("train", "val", "test"), ("train", "val", "test")),
        (("Training", "Validation", "Testing"), ("train", "val", "test")),
        (("TRAIN", "valid", "Test"), ("train", "val", "test")),
    ],
)
def test_split_folders(folders: tuple[str, ...], wanted: tuple[str, ...], tmp_path: Path) -> None:
    listing = list_folder(touch(tmp_path, *(f"{folder}/{name}/1.png" for folder in folders for name in "ab")))
    found = {(row.sample.split("/")[0], row.split) for row in listing.table.itertuples()}
    assert found == set(zip(folders, wanted, strict=True))
    assert set(listing.table["label"]) == {"a", "b"}


def test_split_folders_beside_class_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both: train beside a, b"):
        list_folder(touch(tmp_path, "train/a/1.png", "a/1.png", "b/1.png"))


def test_hidden_files_and_junk_are_passed_over_in_silence(tmp_path: Path) -> None:
    names = ("a/1.png", "b/2.png", ".git/a.png", "a/.hidden.png", "a/._1.png", "__MACOSX/a/1.png")
    listing = list_folder(touch(tmp_path, *names, "a/Thumbs.db", "b/desktop.ini", ".DS_Store"))
    assert list(listing.table["sample"]) == ["a/1.png", "b/2.png"]
    assert listing.notes == ()


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    listing = list_folder(touch(tmp_path, "a/1.png", "b/2.png", "loose.png", "a/notes.txt", "b/x.csv"))
    assert any("1 images lie outside of the class folders" in note and "loose.png" in note for note in listing.notes)
    assert any("2 files that aren't images" in note and "a/notes.txt" in note for note in listing.notes)


def test_formats_that_are_not_read_are_listed_not_hidden(tmp_path: Path) -> None:
    listing = list_folder(touch(tmp_path, "a/1.dcm", "a/2.nii.gz", "b/3.png"))
    assert len(listing.table) == 3


def test_splits_inside_of_classes_are_noted(tmp_path: Path) -> None:
    listing = list_folder(touch(tmp_path, "a/train/1.png", "b/test/2.png"))
    assert any("put splits outermost" in note for note in listing.notes)


def test_links(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "secret.png")
    root = touch(tmp_path / "data", "a/1.png", "b/2.png")
    (root / "c").symlink_to(outside, target_is_directory=True)
    assert any("1 linked folders weren't followed, e.g. c." in note for note in list_folder(root).notes)
    (root / "a" / "leak.png").symlink_to(outside / "secret.png")
    with pytest.raises(InputError, match="inside"):
        list_folder(root)


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class folders of images in .*got no image\\."):
        list_folder(tmp_path)
    with pytest.raises(InputError, match="no image in class folders"):
        list_folder(touch(tmp_path, "1.png"))


def test_a_manifest_with_every_column(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "path,label,split,patient_id,age,sex,site,mask_path,scanner,slice\n"
        "x/1.png,a,Training,007,41,F,Rome,m/1.png,GE,3\n"
        "x\\2.png, b ,validation,,unknown,,,,,\n",
    )
    listing = list_table(path)
    assert rows(listing.table, "sample", "label", "split", "patient_id", "sex", "site", "mask") == [
        ("x/1.png", "a", "train", "007", "F", "Rome", "m/1.png"),
        ("x/2.png", "b", "val", "", "", "", ""),
    ]
    assert listing.table["age"].iloc[0] == 41.0
    assert pd.isna(listing.table["age"].iloc[1])
    assert listing.table["slice"].iloc[0] == 3
    assert listing.notes == ("1 ages aren't numbers and count as unknown.",)


def test_a_manifest_with_only_what_is_needed(tmp_path: Path) -> None:
    listing = list_table(table(tmp_path, "Path,LABEL\n1.png,NA\n2.png,None\n"))
    assert rows(listing.table, "label", "split", "patient_id", "sex", "site", "mask") == [
        ("NA", "", "", "", "", ""),
        ("None", "", "", "", "", ""),
    ]
    assert listing.table["age"].isna().all()


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    data = pd.DataFrame({"path": ["1.png", "2.png"], "label": [0, 1], "patient_id": [7.0, None], "age": [40, None]})
    data.to_parquet(tmp_path / "m.parquet")
    found = list_table(tmp_path / "m.parquet").table
    assert rows(found, "sample", "label", "patient_id") == [("1.png", "0", "7"), ("2.png", "1", "")]
    assert found["age"].iloc[0] == 40.0


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("path,label\n1.png,ä\n".encode("utf-8-sig"))
    assert list_table(tmp_path / "m.csv").table["label"].tolist() == ["ä"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n1.png,a\n", "column 'path'.*There are: image, label"),
        ("paths,label\n1.png,a\n", "column 'path'.*Rename 'paths'"),
        ("path,labels\n1.png,a\n", "column 'label'.*Rename 'labels'"),
        ("path;label\n1.png;a\n", "semicolons"),
        ("path,label,mask,mask_path\n1.png,a,,\n", "one column 'mask'"),
        ("path,label\n", "without rows"),
        ("", "can't read"),
        ("path,label\n1.png,a\n./1.png,b\n", "1 paths twice, e.g. 1.png"),
        ("path,label\n1.png,\n2.png,a\n", "1 without, e.g. 1.png"),
        ("path,label\n,a\n", "the path of an image"),
        ("path,label\n../1.png,a\n", "inside"),
        ("path,label\nx/../../1.png,a\n", "inside"),
        ("path,label\n/etc/passwd,a\n", "inside"),
        ("path,label,mask\n1.png,a,../m.png\n", "inside"),
        ('path,label\n"1.png,a\n', "can't read"),
    ],
)
def test_manifests_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        list_table(table(tmp_path, text))


def test_an_unknown_split_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown split 'tset'. Did you mean 'test'"):
        list_table(table(tmp_path, "path,label,split\n1.png,a,tset\n"))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("path,label\n1.png,ä\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        list_table(tmp_path / "m.csv")
    (tmp_path / "m.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="can't read"):
        list_table(tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        list_table(touch(tmp_path, "m.xlsx") / "m.xlsx")


def test_an_absolute_path_inside_is_made_relative(tmp_path: Path) -> None:
    found = list_table(table(tmp_path, f"path,label\n{tmp_path}/x/1.png,a\n")).table
    assert found["sample"].tolist() == ["x/1.png"]
