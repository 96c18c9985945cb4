"""The command as a user meets it: what is printed, and the exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pellucid
from pellucid.cli.main import main
from pellucid.cli.options import parse_data
from pellucid.models.checkpoints import read_card
from pellucid.study.estimate import Estimate


def draw(path: Path, bright: bool, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 90, (40, 40), dtype=np.uint8)
    if bright:
        pixels[10:30, 10:30] += 120
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for index in range(40):
        draw(root / ("bright" if index % 2 else "dark") / f"{index}.png", bool(index % 2), index)
    return root


@pytest.fixture(scope="session")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    chosen = "--model test_resnet --size 32 --channels 1 --epochs 6 --batch-size 8 --learning-rate 0.01 --device cpu"
    assert main(["train", str(folder), "--output", str(output), *chosen.split()]) == 0
    return output


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pellucid {pellucid.__version__}\n"
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb in ("demo", "run", "train", "predict", "explain", "evaluate", "report", "methods", "doctor"):
        assert verb in listed


def test_import_is_light() -> None:
    heavy = ("torch", "pandas", "timm", "lightning", "matplotlib", "numba")
    script = f"import sys, pellucid.cli.main; print([name for name in {heavy} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_methods_lists_methods_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for name in (
        "grad-cam-plus-plus",
        "ablation-cam",
        "sobel",
        "road-morf",
        "pointing-game",
        "-0.5 to",
        "noise=0.01",
        "clahe",
    ):
        assert name in listed


def test_train_leaves_weights_and_predictions(trained: Path) -> None:
    predictions = pd.read_parquet(trained / "predictions.parquet")
    assert set(predictions["split"]) == {"val", "test"}
    np.testing.assert_allclose(predictions[["prob_bright", "prob_dark"]].sum(axis=1), 1, rtol=1e-6)
    assert (trained / "weights.safetensors").exists()
    assert (trained / "history.parquet").exists()


def test_weights_trained_under_an_enhancement_carry_it(folder: Path, tmp_path: Path) -> None:
    chosen = "--model test_resnet --size 32 --channels 1 --epochs 1 --batch-size 8 --device cpu"
    given = ["train", str(folder), "--output", str(tmp_path), *chosen.split()]
    assert main([*given, "--enhancement", "gamma[gamma=0.8]"]) == 0
    assert read_card(tmp_path / "weights.safetensors").enhancement == "gamma[gamma=0.8]"
    assert main([*given, "--enhancement", "gama"]) == 2


def test_a_plan_shows_enhancements_with_their_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cell = {"dataset": "d", "model": "n + hog[cell=4]", "seed": 0, "fold": 0, "state": "done", "seconds": 0, "bytes": 1}
    monkeypatch.setattr("pellucid.study.estimate.estimate_study", lambda *_, **__: Estimate(pd.DataFrame([cell])))
    text = 'models = ["test_resnet"]\ndatasets = [{name = "d", path = "phantom:skin"}]\n'
    (tmp_path / "study.toml").write_text(text)
    assert main(["run", str(tmp_path / "study.toml"), "-o", str(tmp_path / "out"), "--dry"]) == 0
    assert "hog[cell=4]" in capsys.readouterr().out


def test_predict_writes_a_row_per_image_and_names_what_it_skips(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes((folder / "dark" / "0.png").read_bytes()[:60])
    out = tmp_path / "p.csv"
    arguments = [str(folder), str(tmp_path), "--model", str(trained / "weights.safetensors"), "-o", str(out)]
    assert main(["predict", *arguments]) == 0
    told = capsys.readouterr()
    assert "40 predictions, 1 skipped" in told.out
    assert "broken.png" in told.err
    table = pd.read_csv(out)
    assert len(table) == 40
    assert list(table.columns) == ["path", "predicted", "prob_bright", "prob_dark"]
    again = pd.read_parquet(trained / "predictions.parquet").set_index("sample")["prob_bright"]
    probabilities = table.set_index(table["path"].map(lambda path: "/".join(Path(path).parts[-2:])))["prob_bright"]
    np.testing.assert_allclose(probabilities[again.index], again, atol=1e-6)
    assert main(["predict", *arguments, "--strict"]) == 1
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["run", "none.toml", "-o", "out"], 2, "can't read none.toml"),
        (["run"], 2, "Missing argument"),
        (["trian"], 2, "trian"),
        (["train", "nowhere", "-o", "out"], 2, "nowhere"),
        (["train", "nowhere", "-o", "out", "--model", "resnet81"], 2, "Did you mean 'resnet18'"),
        (["train", "phantom:brian", "-o", "out"], 2, "Did you mean 'brain'"),
        (["train", "phantom:brain", "-o", "out", "--device", "cuda:77"], 2, "device: expected"),
        (["predict", "x.png", "--model", "none.safetensors"], 2, "weights: expected a file, got 'none.safetensors'"),
        (["report", "nowhere"], 2, "nowhere"),
    ],
)
def test_errors_are_one_clear_line_and_a_status(
    arguments: list[str],
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    written = capsys.readouterr().err
    assert told in written
    assert "Traceback" not in written


def test_data_is_a_path_or_a_named_path() -> None:
    assert parse_data(["a=/x", "b=c:/y"]) == {"a": "/x", "b": "c:/y"}
    assert parse_data(["/x/a=b"]) == {"": "/x/a=b"}
    assert parse_data([]) == {}
