"""What a user does wrong, or what is wrong with the data: a clear message, and nothing finished is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.cli.main import main
from pellucid.models import zoo

STUDY = """
models = [{model}]
[[datasets]]
name = "own"
path = "images"
image_size = 32
channels = 1
[training]
epochs = 1
batch_size = 8
[explain]
methods = ["grad-cam", "random"]
images = 4
[statistics]
resamples = 100
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of forty images in two class folders, ready to run."""
    for index in range(40):
        label = "bright" if index % 2 else "dark"
        path = tmp_path / "images" / label / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 90, (32, 32), dtype=np.uint8)
        pixels[8:24, 8:24] += 120 * (index % 2)
        Image.fromarray(pixels).save(path)
    (tmp_path / "study.toml").write_text(STUDY.format(model='"test_resnet"'))
    return tmp_path


def run(folder: Path, *options: str) -> int:
    return main(["run", str(folder / "study.toml"), "-o", str(folder / "out"), "--device", "cpu", *options])


def test_a_truncated_image_is_listed_counted_and_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = folder / "images" / "dark" / "0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    assert run(folder) == 0
    report = (folder / "out" / "report" / "index.html").read_text()
    assert "dark/0.png" in report
    assert "39 images" in report
    capsys.readouterr()
    assert run(folder, "--strict") == 1
    assert "dark/0.png" in capsys.readouterr().err


def test_an_empty_folder_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()
    assert run(folder) == 2
    assert "images" in capsys.readouterr().err


def test_a_class_with_one_image_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((folder / "images" / "dark").iterdir())[1:]:
        path.unlink()
    assert run(folder) == 2
    assert "dark" in capsys.readouterr().err


def test_a_patient_in_two_given_splits_is_an_error_that_names_no_patient(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,label,split,patient_id"]
    for index in range(40):
        label, split = ("bright" if index % 2 else "dark"), ("test" if index < 10 else "train")
        rows.append(f"{label}/{index}.png,{label},{split},{'SECRET7' if index in (0, 20) else index}")
    (folder / "images" / "manifest.csv").write_text("\n".join(rows))
    assert run(folder) == 2
    told = capsys.readouterr().err
    assert "dark/0.png" in told
    assert "SECRET7" not in told


def test_a_hub_out_of_reach_is_said_before_anything_is_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zoo.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(zoo, "_cached", lambda *_: False)
    (folder / "study.toml").write_text(STUDY.format(model='{name = "resnet18", pretrained = true}'))
    assert run(folder) == 1
    assert "pretrained = false" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_an_output_that_is_a_file_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").write_text("")
    assert run(folder) == 2
    assert "out" in capsys.readouterr().err


def test_a_full_disk_loses_nothing_finished(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small file system in memory fills up while training; given room, the study goes on."""
    output = folder / "out"
    output.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(output)], check=False)
    if os.geteuid() != 0 or mounted.returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        assert run(folder) == 1
        told = capsys.readouterr().err
        assert "room" in told
        assert "Traceback" not in told
        assert (output / "data" / "own.json").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(output)], check=True)
        assert run(folder) == 0
        assert (output / "report" / "index.html").exists()
    finally:
        subprocess.run(["umount", str(output)], check=True)
