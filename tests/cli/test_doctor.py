"""`pellucid doctor` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from pellucid.attribution import METHODS
from pellucid.cli.main import main
from pellucid.models.checkpoints import ModelCard, save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = ModelCard("test_resnet", 64, 1, ("benign", "malignant"), (0.5,), (0.25,), "data-set")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(path, card.build(), card)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["doctor", *arguments]) == 0
    return capsys.readouterr().out


def test_weights_are_looked_over_in_plain_text(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, str(weights), "--device", "cpu")
    lines = out.splitlines()
    assert lines[0] == "test_resnet (ResNet), on images of 1 × 64 × 64"
    assert lines[1].startswith("layer: auto takes layer4, ")
    assert lines[1].endswith("a grid of 2 × 2, which is coarse: below 7, maps can't tell small structures apart")
    assert lines[2] == "layout: channels first"
    assert lines[3].startswith("head: affine: ")
    assert "act1 (ReLU)" in lines[4]
    assert lines[5] == "run more than once: none"
    assert "grad-cam = xgrad-cam = hires-cam" in lines[6]
    rows = [line.split("\t") for line in lines if "\t" in line]
    runs = {row[0]: row[2] for row in rows}
    assert runs["ablation-cam"] == "yes"
    assert runs["score-cam"] == "yes, not tried"
    assert runs["le-grad"] == "no"
    assert {entry.name for entry in METHODS} <= set(runs)
    assert not any(mark in out for mark in ("\x1b", "│", "┃"))


def test_json_holds_all_layers(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, str(weights), "--json"))
    assert found["auto"] == {"name": "layer4", "kind": "Sequential", "channels": found["auto"]["channels"],
                             "grid": [2, 2], "layout": "channels first", "prefix": 0}  # fmt: skip
    names = [each["name"] for each in found["layers"]]
    assert names[-1] == "layer4"
    assert "layer4.0.conv1" in names
    assert {each["name"] for each in found["methods"]} == {entry.name for entry in METHODS}
    assert found["coarse"] is True


def test_a_terminal_gets_tables(
    weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    out = told(capsys, str(weights))
    assert "│ layer4" in out
    assert "│ ablation-cam" in out


def test_a_bare_name_a_state_dict_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--size", "64", "--channels", "1"]
    bare = json.loads(told(capsys, "test_vit", "--json", "--size", "160", "--channels", "1"))
    assert (bare["network"], bare["image"]) == ("VisionTransformer", [1, 160, 160])
    assert bare["auto"]["layout"] == "tokens"
    assert bare["auto"]["prefix"] == 1
    state = tmp_path / "plain.safetensors"
    torch.manual_seed(0)
    safetensors.torch.save_file(timm.create_model("test_resnet", num_classes=3, in_chans=1).state_dict(), state)
    picture = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 60), dtype=np.uint8)).save(picture)
    arguments = ["--arch", "test_resnet", "--classes", "3", "--image", str(picture), *chosen]
    found = json.loads(told(capsys, str(state), "--json", *arguments))
    assert (found["network"], found["image"], found["head"]) == ("ResNet", [1, 64, 64], "affine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet81"], "unknown model 'resnet81'. Did you mean 'resnet18'"),
        (["none.safetensors"], "none.safetensors"),
        (["test_resnet", "--channels", "2"], "channels: expected 1 or 3, got 2"),
        (["test_resnet", "--classes", "a,a"], "classes: expected names with commas between, each once, got 'a,a'"),
        (["test_resnet", "--arch", "test_resnet"], "classes: expected how many the network tells apart"),
        (["test_resnet", "--image", "none.png"], "none.png"),
    ],
)
def test_errors_are_one_clear_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *arguments]) in (1, 2)
    written = capsys.readouterr().err
    assert message in written
    assert "Traceback" not in written
