"""Phantom folders are whole, say the truth in their manifest, and aren't drawn twice."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pellucid.data.manifest import load_manifest
from pellucid.data.phantoms import TASKS, PhantomSample, draw_phantom, write, write_phantoms
from pellucid.errors import InputError, UnknownNameError


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(manifest: Path) -> pd.DataFrame:
    return pd.read_csv(manifest, keep_default_na=False)


def test_a_folder_reads_like_any_data_set(tmp_path: Path) -> None:
    written = write_phantoms("brain", tmp_path, images=8, size=64)
    manifest = load_manifest(tmp_path)
    assert manifest.classes == TASKS["brain"].classes
    assert manifest.unreadable == ()
    assert sorted(manifest.table["sample"]) == sorted(read(written)["path"])
    assert manifest.table["pixel_hash"].is_unique
    assert ((manifest.table["mask"] == "") == (manifest.table["label"] == "notumor")).all()


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices drawn, as they are drawn."""
    seen: list[int] = []

    def counted(task: str, index: int, *, size: int, seed: int) -> PhantomSample:
        seen.append(index)
        return draw_phantom(task, index, size=size, seed=seed)

    monkeypatch.setattr(write, "draw_phantom", counted)
    return seen


@pytest.mark.parametrize("task", TASKS)
def test_manifest_and_files_say_what_was_drawn(task: str, tmp_path: Path) -> None:
    manifest = write_phantoms(task, tmp_path / "data", images=9, size=64, seed=2)
    folder = manifest.parent
    assert manifest == (tmp_path / "data").resolve() / "manifest.csv"
    table = read(manifest)
    assert list(table.columns) == ["path", "label", "split", "patient_id", "age", "sex", "site", "mask"]
    assert len(table) == 9
    assert set(table["split"]) == {""}
    for index, row in table.iterrows():
        sample = draw_phantom(task, int(str(index)), size=64, seed=2)
        assert row["path"].startswith(f"images/{sample.label}/")
        facts = (row["label"], row["patient_id"], row["age"], row["sex"], row["site"])
        assert facts == (sample.label, sample.patient_id, sample.age, sample.sex, sample.site)
        with Image.open(folder / row["path"]) as image:
            np.testing.assert_array_equal(np.asarray(image), sample.image)
        if row["mask"]:
            with Image.open(folder / row["mask"]) as mask:
                np.testing.assert_array_equal(np.asarray(mask), sample.mask * np.uint8(255))
        assert bool(row["mask"]) == bool(sample.mask.any())
    files = {*table["path"], *table["mask"], "manifest.csv", "phantom.json"} - {""}
    assert set(bytes_of(folder)) == files


def test_a_whole_folder_is_not_drawn_again(tmp_path: Path, drawings: list[int]) -> None:
    write_phantoms("brain", tmp_path, images=6, size=64)
    assert drawings == list(range(6))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    write_phantoms("brain", tmp_path, images=6, size=64)
    assert drawings == list(range(6))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


def test_what_was_cut_off_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, drawings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_phantoms("skin", tmp_path / "whole", images=8, size=64).parent
    drawings.clear()
    kept = write._write_png
    written = 0

    def dying(path: Path, pixels: np.ndarray) -> None:
        nonlocal written
        written += 1
        if written == 6:  # the third mask stands, its image doesn't
            raise KeyboardInterrupt
        kept(path, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(write, "_write_png", dying)
        with pytest.raises(KeyboardInterrupt):
            write_phantoms("skin", tmp_path / "cut", images=8, size=64)
    assert not (tmp_path / "cut" / "manifest.csv").exists()
    drawings.clear()
    write_phantoms("skin", tmp_path / "cut", images=8, size=64)
    assert drawings == list(range(2, 8))
    assert bytes_of(tmp_path / "cut") == bytes_of(whole)


def test_a_picture_that_went_missing_is_drawn_again(tmp_path: Path, drawings: list[int]) -> None:
    table = read(write_phantoms("chest", tmp_path, images=6, size=64))
    before = bytes_of(tmp_path)
    drawings.clear()
    (tmp_path / table["path"][4]).unlink()
    (tmp_path / table["mask"][2]).unlink()
    write_phantoms("chest", tmp_path, images=6, size=64)
    assert drawings == [2, 4]
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("change", [{"task": "chest"}, {"size": 65}, {"seed": 1}, {"images": 5}])
def test_other_arguments_replace_what_stood_there(change: dict[str, int], tmp_path: Path) -> None:
    arguments = {"task": "brain", "images": 8, "size": 64, "seed": 0}
    for folder, given in (("same", arguments), ("same", arguments | change), ("fresh", arguments | change)):
        write_phantoms(
            str(given["task"]),
            tmp_path / folder,
            images=int(given["images"]),
            size=int(given["size"]),
            seed=int(given["seed"]),
        )
    assert bytes_of(tmp_path / "same") == bytes_of(tmp_path / "fresh")


def test_another_version_of_the_drawings_replaces_the_old_ones(
    tmp_path: Path, drawings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_phantoms("brain", tmp_path, images=4, size=64)
    drawings.clear()
    monkeypatch.setattr(write, "VERSION", write.VERSION + 1)
    write_phantoms("brain", tmp_path, images=4, size=64)
    assert drawings == [0, 1, 2, 3]


def test_a_folder_with_other_images_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="folder: expected a new folder"):
        write_phantoms("brain", tmp_path, images=4, size=64)
    assert list(bytes_of(tmp_path)) == ["images/mine.png"]


@pytest.mark.parametrize(("argument", "value"), [("images", 3), ("size", 32), ("seed", -1)])
def test_bad_arguments_are_named_and_nothing_is_written(argument: str, value: int, tmp_path: Path) -> None:
    given = {"images": 8, "size": 64, "seed": 0} | {argument: value}
    with pytest.raises(InputError, match=rf"^{argument}: expected"):
        write_phantoms("brain", tmp_path / "data", images=given["images"], size=given["size"], seed=given["seed"])
    assert not (tmp_path / "data").exists()


def test_an_unknown_task_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'skn'.*'skin'"):
        write_phantoms("skn", tmp_path / "data")
    assert not (tmp_path / "data").exists()
