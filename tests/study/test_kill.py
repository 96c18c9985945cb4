"""Killed with `kill -9` in any stage and started again, a study ends with the same tables, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

CELL = "chest/test_resnet/fold-0"
STAGES = {  # what must be there before the kill
    "drawing the phantoms": "phantoms/chest/images",
    "reading the data": "phantoms/chest/manifest.csv",
    "describing the data": "data/chest_examples.zarr",
    "starting to train": f"{CELL}/inputs.json",
    "training, second epoch": f"{CELL}/resume.ckpt",
    "leaving training": f"{CELL}/history.parquet",
    "predicting": f"{CELL}/predictions.parquet",
    "explaining, within the first shard": f"{CELL}/maps.zarr/zarr.json",
    "explaining, second shard": f"{CELL}/shards/00000.json",
    "joining the shards": f"{CELL}/explained.parquet",
    "between two cells": f"{CELL}/cell.json",
    "the second cell": "chest/resnet10t/fold-0/resume.ckpt",
    "comparing": "statistics/models.csv",
    "reporting": "statistics/method_ranks.csv",
}
QUICK = ("training, second epoch", "explaining, second shard", "comparing")


def command(study: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "pellucid", "run", str(study), "--output", str(output), "--device", "cpu"]


def run_and_kill(study: Path, output: Path, when: Path) -> bool:
    """Start the study and kill it as soon as `when` is there; False when it ended before."""
    process = subprocess.Popen(
        command(study, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not when.exists() and process.poll() is None:
        time.sleep(0.002)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def tables(output: Path) -> dict[str, bytes]:
    """Every table of a study by its path, and the maps as arrays."""
    found = {
        str(path.relative_to(output)): path.read_bytes()
        for pattern in ("*.parquet", "*.csv", "*.safetensors", "cell.json")
        for path in output.rglob(pattern)
        if path.name != "times.csv"  # times are kept apart: they can't repeat
    }
    for path in output.rglob("maps.zarr"):
        group = zarr.open_group(path, mode="r")
        for name, array in group.arrays():
            found[f"{path.relative_to(output)}/{name}"] = np.asarray(array[:]).tobytes()
    return found


def check(study: Path, finished: Path, output: Path, stage: str) -> None:
    killed = run_and_kill(study, output, output / STAGES[stage])
    assert killed, f"the study ended before it could be killed while {stage}"
    again = subprocess.run(command(study, output), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    left, whole = tables(output), tables(finished)
    assert sorted(left) == sorted(whole)
    assert [name for name in whole if left[name] != whole[name]] == []
    leftovers = [path for path in output.rglob("*") if path.name in ("resume.ckpt", "shards")]
    assert leftovers == []


@pytest.mark.parametrize("stage", QUICK)
def test_a_killed_study_ends_with_the_same_tables(
    small_study: Path, finished_study: Path, tmp_path: Path, stage: str
) -> None:
    check(small_study, finished_study, tmp_path / "out", stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in QUICK])
def test_a_study_killed_anywhere_ends_with_the_same_tables(
    small_study: Path, finished_study: Path, tmp_path: Path, stage: str
) -> None:
    check(small_study, finished_study, tmp_path / "out", stage)


def test_ctrl_c_says_how_to_go_on(small_study: Path, finished_study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        command(small_study, output),
        stderr=subprocess.PIPE,
        text=True,
        # a parent that runs in the background hands down that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (output / CELL / "resume.ckpt").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "run the same command to go on" in told
    assert "Traceback" not in told
    subprocess.run(command(small_study, output), capture_output=True, check=True)
    assert tables(output) == tables(finished_study)
