from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

from pellucid.attribution.engine import explain
from pellucid.data.transforms import Normalisation
from pellucid.errors import InputError
from pellucid.models.checkpoints import load_weights
from pellucid.study import cell as module
from pellucid.study.predictions import prediction_table
from pellucid.study.runner import run_study

CELL = Path("chest/test_resnet/fold-0")


def test_predictions_follow_the_probabilities() -> None:
    known = pd.DataFrame(
        {
            "sample": ["a", "b", "c"],
            "patient_id": ["p", "p", ""],
            "split": ["val", "test", "test"],
            "label": ["x", "y", "y"],
            "copy_in_train": [False, True, False],
        }
    )
    table = prediction_table(known, torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]]), ("x", "y"))
    assert list(table["predicted"]) == ["x", "y", "x"]
    assert list(table["correct"]) == [True, True, False]
    assert list(table["prob_y"].round(6)) == [0.5, 0.8, 0.1]


def test_coinciding_methods_are_those_of_every_shard() -> None:
    shards = [[["a", "b", "c"], ["d", "e"]], [["a", "b"], ["d", "e"]], [["a", "b"], ["c", "d", "e"]]]
    assert module._coinciding(shards) == [["a", "b"], ["d", "e"]]
    assert module._coinciding([[["a", "b"]], []]) == []
    assert module._coinciding([]) == []


def test_shards_that_a_kill_left_after_the_card_are_cleared_away(
    small_study: Path, finished_study: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished_study, output)
    before = (output / CELL / "cell.json").stat().st_mtime_ns
    (output / CELL / "shards").mkdir()
    (output / CELL / "shards" / "00000.json").write_text("{}")
    run_study(small_study, output, device="cpu")
    assert not (output / CELL / "shards").exists()
    assert (output / CELL / "cell.json").stat().st_mtime_ns == before


def test_a_cell_says_what_it_was(finished_study: Path) -> None:
    card = json.loads((finished_study / CELL / "cell.json").read_text())
    assert card["classes"] == ["covid19", "normal", "pneumonia"]
    assert card["explained"] == len(pd.read_parquet(finished_study / CELL / "explained.parquet")) == 20
    assert card["normalisation"]["origin"] == "data-set"
    assert card["grid"] == [2, 2]
    assert 0 < card["chance"] <= 1
    times = json.loads((finished_study / CELL / "times.json").read_text())
    assert set(times["explain"]) == {"layer-cam", "eigen-grad-cam", "random"}
    assert all(seconds > 0 for seconds in times["explain"].values())
    assert times["forward_seconds_per_image"] > 0
    assert times["shared_seconds_per_image"] > 0  # the pass with its gradient, apart from a plain one


def test_stored_maps_and_scores_are_those_of_the_stored_weights(finished_study: Path) -> None:
    network, card = load_weights(finished_study / CELL / "weights.safetensors")
    pictures = zarr.open_group(finished_study / "data" / "chest_explained_fold-0.zarr", mode="r")
    images = torch.from_numpy(np.asarray(pictures["images"][:])).float() / 255
    images = Normalisation(card.mean, card.std, "data-set").normalise(images)
    explained = pd.read_parquet(finished_study / CELL / "explained.parquet")
    target = torch.tensor([card.classes.index(name) for name in explained["target"]])
    with pytest.warns(UserWarning, match="grid"):
        again = explain(network, images, methods=["layer-cam"], target=target)
    stored = zarr.open_group(finished_study / CELL / "maps.zarr", mode="r")["layer-cam"]
    scale = np.abs(stored[:]).max()
    # the pictures are rounded to 8 bits
    np.testing.assert_allclose(stored[:] / scale, again.layer_maps["layer-cam"].numpy() / scale, atol=0.02)
    np.testing.assert_allclose(explained["probability"], again.probability, atol=0.01)


def test_a_changed_explanation_keeps_the_weights_and_a_changed_training_does_not(
    finished_study: Path, small_study: Path, tmp_path: Path
) -> None:
    import shutil

    output = tmp_path / "out"
    shutil.copytree(finished_study, output)
    weights = output / CELL / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    text = small_study.read_text().replace('"resnet10t"', "").replace('"test_resnet", ', '"test_resnet"')
    fewer = tmp_path / "fewer.toml"
    fewer.write_text(text.replace("images = 20", "images = 6"))
    with pytest.raises(InputError, match=r"explain.images was 20 and is 6. 1 cell would be explained anew"):
        run_study(fewer, output, device="cpu")
    run_study(fewer, output, device="cpu", fresh=True)
    assert weights.stat().st_mtime_ns == before
    assert len(pd.read_parquet(output / CELL / "explained.parquet")) == 6
    longer = tmp_path / "longer.toml"
    longer.write_text(text.replace("images = 20", "images = 6").replace("epochs = 2", "epochs = 3"))
    with pytest.raises(InputError, match=r"training.epochs was 2 and is 3. 1 cell would be trained anew"):
        run_study(longer, output, device="cpu")
    run_study(longer, output, device="cpu", fresh=True)
    assert weights.stat().st_mtime_ns != before
    assert len(pd.read_parquet(output / CELL / "history.parquet")) == 3


def test_the_controls_are_the_same_for_every_model(finished_study: Path) -> None:
    groups = [
        zarr.open_group(finished_study / f"chest/{name}/fold-0/maps.zarr", mode="r")
        for name in ("test_resnet", "resnet10t")
    ]
    np.testing.assert_array_equal(groups[0]["random"][:], groups[1]["random"][:])
