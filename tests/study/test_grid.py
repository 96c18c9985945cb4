"""Studies of several seeds, folds, enhancements, sites and external sets, on forty small pictures."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pellucid.cli.main import main
from pellucid.errors import InputError
from pellucid.files import read_json
from pellucid.models.checkpoints import read_card
from pellucid.report.build import build_report
from pellucid.study.config import StudyConfig, parse_config
from pellucid.study.estimate import estimate_study
from pellucid.study.runner import config_changes, run_study
from pellucid.training.predict import predict_files


def draw(folder: Path, images: int, *, seed: int = 0, names: tuple[str, str] = ("dark", "bright")) -> Path:
    """A folder with two classes that differ by a bright square, and a manifest with sites and patients."""
    rows = ["path,label,site,patient_id"]
    for index in range(images):
        path = folder / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng((seed, index)).integers(0, 90, (32, 32), dtype=np.uint8)
        pixels[8:24, 8:24] += 120 * (index % 2)
        Image.fromarray(pixels).save(path)
        rows.append(f"{path.name},{names[index % 2]},{('oslo', 'riga')[index // (images // 2)]},p{seed}-{index}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


def study(folder: Path, dataset: Mapping[str, Any] | None = None, **fields: Any) -> StudyConfig:
    """A config of one small network on the folder's images."""
    known: dict[str, Any] = {
        "datasets": [{"name": "own", "path": "own", "image_size": 32, "channels": 1, **(dataset or {})}],
        "models": ["test_resnet"],
        "training": {"epochs": 1, "batch_size": 8},
        "explain": {"methods": ["grad-cam", "random"], "images": 4},
        "statistics": {"resamples": 100},
    }
    return parse_config({**known, **fields}, base=folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder / "own", 40)
    draw(folder / "abroad", 12, seed=1, names=("gloomy", "bright"))
    return folder


@pytest.fixture(scope="module")
def grid(pictures: Path) -> StudyConfig:
    abroad = {"name": "abroad", "path": "abroad", "labels": {"gloomy": "dark"}}
    dataset = {"external": [abroad], "split": {"use": "random"}}
    return study(pictures, dataset, folds=2, seeds=[1, 2], enhancements=["none", "negative"])


@pytest.fixture(scope="module")
def finished_grid(grid: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("grid")
    run_study(grid, output, device="cpu")
    return output


def test_every_cell_of_the_grid_is_told_apart(finished_grid: Path, grid: StudyConfig) -> None:
    found = run_study(grid, finished_grid, device="cpu")  # nothing is computed again
    cells = found.predictions[["model", "network", "enhancement", "seed", "fold"]].drop_duplicates()
    assert len(cells) == 8
    assert set(cells["model"]) == {"test_resnet", "test_resnet + negative"}
    assert set(cells["network"]) == {"test_resnet"}
    folder = finished_grid / "own" / "test_resnet+negative" / "fold-1-seed-2"
    card = read_json(folder / "cell.json")
    assert (card["enhancement"], card["seed"], card["fold"]) == ("negative", 2, 1)
    tested = found.predictions.query("split == 'test'").groupby(["model", "seed"])["sample"]
    assert (tested.nunique() == 40).all()
    assert (tested.size() == 40).all()


def test_weights_predict_files_under_their_enhancement_as_the_study_did(finished_grid: Path, pictures: Path) -> None:
    folder = finished_grid / "own" / "test_resnet+negative" / "fold-0-seed-1"
    wanted = pd.read_parquet(folder / "predictions.parquet").query("split == 'test'")
    files = [pictures / "own" / sample for sample in wanted["sample"]]
    weights = folder / "weights.safetensors"
    assert read_card(weights).enhancement == "negative"
    found, _ = predict_files(files, weights, device=torch.device("cpu"))
    columns = [name for name in found.columns if name.startswith("prob_")]
    assert len(columns) == 2
    np.testing.assert_allclose(found[columns], wanted[columns], atol=1e-5)


def test_enhancements_are_held_against_none(finished_grid: Path) -> None:
    tests = pd.read_csv(finished_grid / "statistics" / "enhancement_tests.csv")
    assert set(tests["model"]) == {"test_resnet"}
    assert set(tests["a"] + " − " + tests["b"]) == {"negative − none"}
    assert set(tests["metric"]) == {"accuracy", "macro_f1", "auroc"}
    models = pd.read_csv(finished_grid / "statistics" / "models.csv", dtype={"fold": str})
    models = models[(models["images"] == "all") & (models["fold"] != "all") & (models["metric"] == "auroc")]
    models = models[models["class"].isna()]
    by_fold = models.pivot(index="fold", columns="model", values="value")
    difference = (by_fold["test_resnet + negative"] - by_fold["test_resnet"]).mean()
    found = tests[(tests["metric"] == "auroc") & (tests["images"] == "all")]
    np.testing.assert_allclose(found["mean_difference"], difference, atol=1e-12)
    assert sorted(found["test"]) == ["corrected-resampled-t", "paired-t"]


def test_arms_are_compared_by_folds_and_seeds_are_averaged(finished_grid: Path) -> None:
    tests = pd.read_csv(finished_grid / "statistics" / "model_tests.csv")
    row = tests[(tests["test"] == "paired-t") & (tests["images"] == "all")].iloc[0]
    assert {row["a"], row["b"]} == {"test_resnet", "test_resnet + negative"}
    predictions = pd.concat(
        pd.read_parquet(path).assign(arm=path.parts[-3], fold=path.parts[-2][5])
        for path in finished_grid.glob("own/*/*/predictions.parquet")
    ).query("split == 'test'")
    by_fold = predictions.groupby(["arm", "fold"])["correct"].mean().unstack()
    difference = (by_fold.loc["test_resnet"] - by_fold.loc["test_resnet+negative"]).mean()
    assert row["mean_difference"] == pytest.approx(difference, abs=1e-12)
    assert row["n"] == 2


def test_external_sets_are_predicted_by_every_network_and_never_trained_on(finished_grid: Path) -> None:
    models = pd.read_csv(finished_grid / "statistics" / "models.csv")
    rows = models[(models["images"] == "external abroad") & (models["fold"] == "all")]
    accuracy = rows[(rows["metric"] == "accuracy") & (rows["model"] == "test_resnet")].iloc[0]
    paths = sorted(finished_grid.glob("own/test_resnet/*/external.parquet"))
    tables = [pd.read_parquet(path) for path in paths]
    assert [len(table) for table in tables] == [12] * 4
    assert set(tables[0]["label"]) == {"dark", "bright"}
    assert accuracy["value"] == pytest.approx(np.mean([table["correct"].mean() for table in tables]))
    assert accuracy["clusters"] == 12  # patients, not rows
    splits = pd.read_parquet(finished_grid / "splits.parquet")
    assert len(splits["sample"].unique()) == 40
    page = build_report(finished_grid).read_text()
    assert "12 images that no training touched" in page
    assert "no training touched them" in page


def test_a_set_added_later_costs_no_training(finished_grid: Path, grid: StudyConfig, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished_grid, output)
    draw(tmp_path / "later", 6, seed=2)
    (dataset,) = grid.datasets
    more = dataset.model_copy(
        update={"external": (*dataset.external, dataset.external[0].model_copy(
            update={"name": "later", "path": str(tmp_path / "later"), "labels": {}}
        ))}
    )  # fmt: skip
    config = grid.model_copy(update={"datasets": (more,)})
    before = {path: path.stat().st_mtime_ns for path in output.rglob("weights.safetensors")}
    with pytest.raises(InputError, match="8 cells would be asked about external sets anew"):
        run_study(config, output, device="cpu")
    run_study(config, output, device="cpu", fresh=True)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("weights.safetensors")} == before
    models = pd.read_csv(output / "statistics" / "models.csv")
    assert {"external abroad", "external later"} <= set(models["images"])


def test_an_external_set_with_other_classes_is_refused(pictures: Path, tmp_path: Path) -> None:
    config = study(pictures, {"external": [{"name": "abroad", "path": "abroad"}]})
    with pytest.raises(InputError, match=r"external set 'abroad'.*\(bright, dark\), got also gloomy.*labels = "):
        run_study(config, tmp_path / "out", device="cpu")


def test_sites_are_left_out_one_by_one(pictures: Path, tmp_path: Path) -> None:
    config = study(pictures, {"split": {"leave_out": "site"}})
    found = run_study(config, tmp_path / "out", device="cpu")
    tested = found.predictions.query("split == 'test'")
    assert tested.groupby("fold")["sample"].apply(lambda names: sorted(names, key=len)[0]).tolist() == [
        "0.png",
        "20.png",
    ]
    facts = read_json(tmp_path / "out" / "data" / "own.json")
    assert facts["folds"] == ["site oslo", "site riga"]
    page = build_report(tmp_path / "out").read_text()
    assert "Each fold tests one value of" in page
    assert "Site riga" in page


def test_a_class_that_a_site_lacks_is_told_and_what_needs_it_is_missing(tmp_path: Path) -> None:
    draw(tmp_path / "own", 40)
    manifest = tmp_path / "own" / "manifest.csv"
    rows = manifest.read_text().splitlines()
    rows[1:11] = [row.replace("oslo", "bonn") for row in rows[1:11]]
    manifest.write_text("\n".join(row for row in rows if "bright,riga" not in row))  # Riga has dark ones only
    run_study(study(tmp_path, {"split": {"leave_out": "site"}}), tmp_path / "out", device="cpu")
    notes = read_json(tmp_path / "out" / "data" / "own.json")["notes"]
    assert "The fold that tests site riga holds no image of bright." in notes
    models = pd.read_csv(tmp_path / "out" / "statistics" / "models.csv", dtype={"fold": str}, keep_default_na=False)
    row = models[(models["fold"] == "2") & (models["metric"] == "auroc") & (models["class"] == "")].iloc[0]
    assert row["value"] == ""
    assert "none of 'bright'" in row["note"]
    assert "NaN" not in build_report(tmp_path / "out").read_text()


def test_fewer_patients_than_folds_is_an_error_that_says_what_to_do(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least 21 independent images of each class, for 21 folds, got 20 of"):
        run_study(study(pictures, {"split": {"use": "random"}}, folds=21), tmp_path / "out", device="cpu")


def test_settings_are_tuned_within_each_fold(pictures: Path, tmp_path: Path) -> None:
    tuning = {"folds": 2, "learning_rate": [1e-9, 3e-3]}
    config = study(pictures, {"split": {"use": "random"}}, tuning=tuning, training={"epochs": 3, "batch_size": 8})
    run_study(config, tmp_path, device="cpu")
    cell = tmp_path / "own" / "test_resnet" / "fold-0"
    table = pd.read_parquet(cell / "tuning.parquet")
    assert len(table) == 4
    best = table.groupby("learning_rate")["val_loss"].mean().idxmin()
    assert read_json(cell / "cell.json")["tuned"] == {"learning_rate": best}
    assert best == 3e-3
    assert not (cell / "tuning").exists()


def test_a_cell_that_fails_leaves_the_others_be(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    models = '["test_resnet", {name = "resnet10t", learning_rate = 1e30}]'
    text = f"""
        models = {models}
        datasets = [{{name = "own", path = "{pictures / "own"}", image_size = 32, channels = 1}}]
        training = {{epochs = 2, batch_size = 8}}
        explain = {{methods = ["grad-cam", "random"], images = 4}}
    """
    (tmp_path / "study.toml").write_text(text)
    run = ["run", str(tmp_path / "study.toml"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main(run) == 1
    told = capfd.readouterr().err
    assert "own / resnet10t / fold 0 failed and is left out: training diverged in epoch" in told
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "training diverged" in page
    models_table = pd.read_csv(tmp_path / "out" / "statistics" / "models.csv")
    assert set(models_table["model"]) == {"test_resnet"}
    weights = (tmp_path / "out" / "own" / "test_resnet" / "fold-0" / "weights.safetensors").stat().st_mtime_ns
    (tmp_path / "study.toml").write_text(text.replace("1e30", "1e-3"))
    assert main(run) == 0
    again = (tmp_path / "out" / "own" / "test_resnet" / "fold-0" / "weights.safetensors").stat().st_mtime_ns
    assert again == weights
    assert "training diverged" not in (tmp_path / "out" / "report" / "index.html").read_text()


def test_a_dry_run_tells_what_there_is_to_do_and_writes_nothing(
    pictures: Path, finished_grid: Path, grid: StudyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = estimate_study(grid, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    assert len(found.cells) == 8
    assert set(found.cells["state"]) == {"to do"}
    assert (found.cells["seconds"] > 0).all()
    assert math.isfinite(found.seconds)
    weights = (finished_grid / "own" / "test_resnet" / "fold-0-seed-1" / "weights.safetensors").stat().st_size
    assert found.cells["bytes"].iloc[0] == pytest.approx(weights, rel=0.2)
    done = estimate_study(grid, finished_grid, device="cpu")
    assert set(done.cells["state"]) == {"done"}
    assert done.seconds == 0
    longer = grid.model_copy(update={"training": grid.training.model_copy(update={"epochs": 2})})
    assert set(estimate_study(longer, finished_grid, device="cpu").cells["state"]) == {
        "done from other settings, to do anew"
    }
    (tmp_path / "study.toml").write_text(
        f"""models = ["test_resnet"]
        datasets = [{{name = "own", path = "{pictures / "own"}", image_size = 32, channels = 1}}]"""
    )
    assert main(["run", str(tmp_path / "study.toml"), "-o", str(tmp_path / "out"), "--device", "cpu", "--dry"]) == 0
    told = capsys.readouterr().out
    assert "1 cells, 0 done" in told
    assert "Nothing was computed or written" in told
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_seed_are_identical(pictures: Path, tmp_path: Path) -> None:
    config = study(pictures)
    for name in ("a", "b"):
        run_study(config, tmp_path / name, device="cpu")
    left, right = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for pattern in ("*.parquet", "*.safetensors", "statistics/*.csv")
            for path in (tmp_path / name).rglob(pattern)
        }
        for name in ("a", "b")
    )
    assert left == right
    assert {path.name for path in left} >= {
        "weights.safetensors",
        "predictions.parquet",
        "scores.parquet",
        "models.csv",
    }


def test_changes_of_a_config_are_told_by_their_keys(pictures: Path) -> None:
    import tomllib

    from pellucid.study.config import write_config

    before = tomllib.loads(write_config(study(pictures)))
    after = study(pictures, {"image_size": 64}, seeds=[1], models=["test_resnet", "resnet10t"])
    assert config_changes(before, after) == [
        "seeds was [] and is [1]",
        "datasets.own.image_size was 32 and is 64",
    ]


@pytest.mark.slow
def test_killed_at_twenty_random_moments_a_grid_ends_with_the_same_tables(
    pictures: Path, grid: StudyConfig, finished_grid: Path, tmp_path: Path
) -> None:
    import os
    import signal
    import time

    from pellucid.study.config import write_config

    (tmp_path / "grid.toml").write_text(write_config(grid))
    output = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "pellucid",
        "run",
        str(tmp_path / "grid.toml"),
        "-o",
        str(output),
        "--device",
        "cpu",
    ]
    draws = np.random.default_rng(0)
    finished: dict[Path, int] = {}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    kills = 0
    while kills < 20:
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        until = time.monotonic() + draws.uniform(3, 12)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        now = {path: path.stat().st_mtime_ns for path in output.rglob("cell.json")}
        assert {path: now[path] for path in finished} == finished  # no cell is computed twice
        finished = now
        if process.returncode == 0:  # it came to its end between two kills: the next ones meet another run
            assert _tables(output) == _tables(finished_grid)
            shutil.rmtree(output)
            finished = {}
    subprocess.run(command, check=True, capture_output=True)
    assert _tables(output) == _tables(finished_grid)


def _tables(output: Path) -> dict[str, str]:
    """A hash of every table, weights file and card by its path."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in ("*.parquet", "*.safetensors", "cell.json", "statistics/*.csv")
        for path in output.rglob(pattern)
    }
