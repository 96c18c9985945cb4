"""Damaged DICOM and NIfTI files: no crash, no hang, no flood of memory, and one kind of error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
WORKER = TESTS / "dicom_files" / "fuzz_worker.py"
COMMAND = (sys.executable, "-W", "ignore", "-X", "faulthandler", str(WORKER))
SECONDS = 2.0
MEMORY = 2**30


def check(folder: Path, count: int, workers: int, patience: float) -> None:
    """Read so many damaged files, and see that each is read or refused in time and within memory."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [*COMMAND, str(folder), *map(str, (each, count, workers))],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for each in range(workers)
    ]  # fmt: skip
    for each, process in enumerate(running):
        told, _ = process.communicate(timeout=patience)
        number = folder / f"{each}.number"
        assert process.returncode == 0, (number.read_text() if number.exists() else "", told)
    lines = "".join(path.read_text() for path in folder.glob("*.jsonl")).splitlines()
    results = [json.loads(line) for line in lines]
    assert len(results) == count
    wrong = [result for result in results if not result[1].startswith(("read", "refused: "))]
    assert not wrong, wrong[:5]
    slowest, largest = max(results, key=lambda result: result[2]), max(result[3] for result in results)
    assert slowest[2] < SECONDS, slowest
    assert largest < MEMORY
    kinds = Counter("read" if result[1] == "read" else "refused" for result in results)
    print(f"\n{dict(kinds)}; slowest {slowest[2]} s, most memory {largest / 2**20:.0f} MiB")  # noqa: T201
    assert min(kinds["read"], kinds["refused"]) > count // 10


def test_some_damaged_files(tmp_path: Path) -> None:
    check(tmp_path, 400, 1, 300)


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    check(tmp_path, 10_000, 2, 3000)
