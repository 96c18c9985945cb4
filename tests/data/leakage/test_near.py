from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pellucid.data.leakage import NEAR_COLUMNS, copy_groups, copy_kind, find_near, near_groups, read_thumbnails
from pellucid.data.manifest import load_manifest
from pellucid.errors import InputError

Save = Callable[[Image.Image, Path], None]


def test_changed_copies_are_found_and_named_and_distinct_phantoms_are_not(
    phantoms: Mapping[str, list[np.ndarray]], changes: Mapping[str, Any], save: Save, tmp_path: Path
) -> None:
    wanted = {}
    for task, pictures in phantoms.items():
        for index, picture in enumerate(pictures):
            save(Image.fromarray(picture), tmp_path / task / f"{index:02d}.png")
        for index, (name, (change, ending, words)) in enumerate(changes.items()):
            copy = f"{task}/{index:02d}-{name}{ending}"
            save(change(Image.fromarray(pictures[index])), tmp_path / copy)
            wanted[f"{task}/{index:02d}.png", copy] = words
    pairs = find_near(load_manifest(tmp_path))
    assert tuple(pairs.columns) == NEAR_COLUMNS
    near = pairs[pairs["kind"] == "near"]
    ends = [tuple(sorted(pair, key=len)) for pair in near[["sample", "other"]].itertuples(index=False)]
    assert set(ends) == set(wanted)
    assert near["similarity"].between(0.95, 1).all()
    for end, row in zip(ends, near.itertuples(), strict=True):
        turned = wanted[end]
        if row.sample != end[0] and "90°" in turned:  # told from the copy to the original
            turned = turned.replace("clockwise", "anticlockwise")
        for word in turned.split(", "):
            assert word in row.transform, (end, row.transform)


def test_thumbnails_tell_brightness_and_go_on_after_a_lost_file(tmp_path: Path) -> None:
    for name, value in (("a", 40), ("b", 200)):
        pixels = np.full((80, 70), value, np.uint8)
        pixels[20:50, 20:50] += 40
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    made = read_thumbnails([tmp_path / name for name in ("a.png", "broken.png", "gone.png", "b.png")])
    assert made.readable.tolist() == [True, False, False, True]
    assert all(made.problems[index] for index in (1, 2))
    share = 900 / 5600
    for index, value in ((0, 40), (3, 200)):
        mean, spread = made.levels(index)
        assert mean == pytest.approx((value + 40 * share) / 255, abs=0.005)
        assert spread == pytest.approx(40 / 255 * np.sqrt(share * (1 - share)), rel=0.06)


def test_sixteen_bits_and_colour_are_copies_of_eight_and_grey(
    phantoms: Mapping[str, list[np.ndarray]], tmp_path: Path
) -> None:
    grey = phantoms["brain"][0]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(grey).save(tmp_path / "a" / "one.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "b" / "deep.png")
    tinted = np.stack([grey, grey, (grey * 0.9).astype(np.uint8)], axis=-1)
    Image.fromarray(tinted).save(tmp_path / "b" / "tinted.png")
    pairs = find_near(load_manifest(tmp_path))
    assert {frozenset(pair) for pair in pairs[["sample", "other"]].itertuples(index=False)} == {
        frozenset(pair)
        for pair in (("a/one.png", "b/deep.png"), ("a/one.png", "b/tinted.png"), ("b/deep.png", "b/tinted.png"))
    }


def test_a_second_set_is_searched_instead(phantoms: Mapping[str, list[np.ndarray]], save: Save, tmp_path: Path) -> None:
    for index, picture in enumerate(phantoms["skin"][:6]):
        save(Image.fromarray(picture), tmp_path / "first" / "ab"[index % 2] / f"{index}.png")
    save(Image.fromarray(phantoms["skin"][2][:, ::-1]), tmp_path / "second" / "a" / "mirrored.jpg")
    save(Image.fromarray(phantoms["skin"][3]), tmp_path / "second" / "a" / "same.png")
    save(Image.fromarray(phantoms["skin"][9]), tmp_path / "second" / "b" / "other.png")
    first, second = load_manifest(tmp_path / "first"), load_manifest(tmp_path / "second")
    made = read_thumbnails([second.root / sample for sample in second.table["sample"]])
    pairs = find_near(first, against=(second, made))
    assert pairs[["sample", "other", "kind", "transform"]].to_numpy().tolist() == [
        ["a/2.png", "a/mirrored.jpg", "near", "flipped left to right"]
    ]  # and not the identical one, which needs no likeness


def test_thresholds_out_of_order_are_refused(phantoms: Mapping[str, list[np.ndarray]], tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.fromarray(phantoms["chest"]["ab".index(label)]).save(tmp_path / label / "x.png")
    manifest = load_manifest(tmp_path)
    assert find_near(manifest).empty
    for near, alike in ((0.9, 0.95), (1.2, 0.9), (0.9, 0.3)):
        with pytest.raises(InputError, match="near: expected 0.5 ≤ alike ≤ near ≤ 1, got alike"):
            find_near(manifest, near=near, alike_from=alike)


def _pairs(*ends: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(ends, columns=["kind", "pixel_hash", "other_hash"])


def test_groups_chain_near_copies_and_take_twins_along() -> None:
    table = pd.DataFrame({"pixel_hash": ["z", "a", "b", "c", "d", "a", "e", "z"]})
    pairs = _pairs(("near", "a", "c"), ("near", "c", "b"), ("alike", "d", "e"), ("near", "gone", "d"))
    assert near_groups(table, pairs).tolist() == [-1, 0, 0, 0, -1, 0, -1, -1]
    assert copy_groups(table, pairs).tolist() == ["z", "near 0", "near 0", "near 0", "d", "near 0", "e", "z"]
    assert copy_groups(table, None).tolist() == table["pixel_hash"].tolist()
    assert near_groups(table, pairs.iloc[:0]).tolist() == [-1] * 8


def test_only_a_direct_copy_of_a_training_image_is_one() -> None:
    hashes = pd.Series(["a", "a", "b", "c", "d", "e"])
    split = pd.Series(["train", "test", "test", "test", "val", "test"])
    pairs = _pairs(("near", "b", "a"), ("near", "b", "c"), ("near", "a", "d"), ("alike", "a", "e"))
    # c is a copy of b, which no network saw
    assert copy_kind(hashes, split, pairs).tolist() == ["", "exact", "near", "", "near", ""]
    assert copy_kind(hashes, split).tolist() == ["", "exact", "", "", "", ""]
    left = split.where(hashes != "b", "excluded")
    assert copy_kind(hashes, left, pairs).tolist() == ["", "exact", "", "", "near", ""]
