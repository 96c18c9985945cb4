from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from pellucid.study.store import SHARD, CellStore, fingerprint, table_fingerprint, write_pictures


def test_fingerprints_follow_values_not_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    table = pd.DataFrame({"sample": ["a", "b"], "label": ["x", "y"]})
    assert table_fingerprint(table) == table_fingerprint(table.iloc[::-1])
    assert table_fingerprint(table) != table_fingerprint(table.assign(label=["y", "x"]))


def filled(folder: Path) -> CellStore:
    store = CellStore(folder)
    store.accept({"training": "a", "explaining": "b"})
    for path in (store.weights, store.history, store.predictions, store.scores, store.explained, store.card):
        path.write_text("")
    store.write_shard(0, {"rows": 1}, {"m": np.zeros((2, 3, 3), np.float32)}, total=2)
    (folder / "notes-of-the-user.txt").write_text("mine")
    return store


def test_the_same_inputs_keep_everything(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.accept({"training": "a", "explaining": "b"})
    assert store.finished
    assert store.shard_done(0)


def test_other_explanations_keep_the_training(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.accept({"training": "a", "explaining": "c"})
    assert not store.finished
    assert store.weights.exists()
    assert store.predictions.exists()
    assert not store.scores.exists()
    assert not store.maps.exists()
    assert not store.shard_done(0)


def test_other_training_drops_all_that_is_ours_and_nothing_else(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.accept({"training": "z", "explaining": "b"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.json", "notes-of-the-user.txt"]


def test_maps_cut_off_in_the_first_shard_are_begun_again(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.maps.mkdir()
    (store.maps / "zarr.json").write_text('{"half')
    total = SHARD + 2
    values = np.arange(total * 4, dtype=np.float32).reshape(total, 2, 2)
    store.write_shard(0, {"shard": 0}, {"m": values[:SHARD]}, total)
    store.write_shard(1, {"shard": 1}, {"m": values[SHARD:]}, total)
    array = zarr.open_group(store.maps, mode="r")["m"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], values)
    assert array.attrs["resize"] == "bilinear"
    assert store.read_shards() == [{"shard": 0}, {"shard": 1}]
    store.drop_shards()
    assert store.read_shards() == []


def test_pictures_replace_the_former_ones_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_pictures(path, {"images": np.zeros((3, 1, 4, 4), np.uint8), "old": np.zeros(1)}, {"samples": ["a"]})
    write_pictures(path, {"images": np.ones((2, 1, 4, 4), np.uint8)}, {"samples": ["b"]})
    group = zarr.open_group(path, mode="r")
    assert sorted(group.array_keys()) == ["images"]
    assert group.attrs["samples"] == ["b"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
