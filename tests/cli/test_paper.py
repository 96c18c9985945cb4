"""`pellucid paper` from phantoms to its page, checked again by the tool that knows nothing of pellucid."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pellucid.cli.main import main
from references.pages import Page

TOOL = Path(__file__).parents[2] / "tools" / "recompute_tables.py"
TABLES = ("accuracy", "network_tests", "confidence_increase", "method_tests", "times", "beside_paper")
STUDY = """
name = "tiny-{task}"
models = [{{ name = "test_resnet", learning_rate = 3e-3 }}, "test_efficientnet"]
datasets = [{{ name = "{task}", path = "phantom:{task}", image_size = 64, channels = {channels}, images = 40 }}]

[training]
epochs = 1
batch_size = 8

[explain]
images = 5
methods = ["grad-cam-plus-plus", "xgrad-cam", "layer-cam", "eigen-grad-cam", "random", "sobel"]

[evaluate]
metrics = ["road"]

[statistics]
resamples = 100
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for task, channels in (("brain", 1), ("skin", 3), ("chest", 1)):
        (folder / f"{task}.toml").write_text(STUDY.format(task=task, channels=channels))
    return folder


@pytest.fixture(scope="module")
def redone(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("redone")
    assert main(["paper", "--studies", str(studies), "--output", str(output), "--device", "cpu"]) == 0
    return output


def test_page_links_reports_that_are_there(redone: Path) -> None:
    page = Page((redone / "index.html").read_text(encoding="utf-8"))
    assert "6 networks on 3 tasks (brain, skin and chest), all finished" in page.text
    local = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert len(local) > 6
    for link in local:
        assert (redone / link).is_file(), link


def test_goes_on_where_it_was(redone: Path, studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (redone / "index.html").read_bytes()
    weights = {path: path.stat().st_mtime_ns for path in redone.rglob("weights.safetensors")}
    assert len(weights) == 6
    arguments = ["--studies", str(studies), "--output", str(redone), "--device", "cpu", "--task", "skin"]
    assert main(["paper", *arguments]) == 0
    assert capsys.readouterr().out.strip().endswith("index.html")
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert (redone / "index.html").read_bytes() == page  # of all three tasks still


def test_page_tells_no_patient(redone: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (redone / "index.html", *redone.glob("*.csv")))
    patients = {
        patient
        for path in redone.rglob("predictions.parquet")
        for patient in pd.read_parquet(path)["patient_id"]
        if patient
    }
    assert patients
    assert not [patient for patient in patients if patient in text]


def test_missing_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "--quick", "--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "brain_mri (brain), skin (skin), chest_xray (chest)" in told
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def recompute() -> Callable[[Path], int]:
    """The tool's main."""
    spec = importlib.util.spec_from_file_location("recompute_tables", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main


def test_tables_are_recomputed_without_pellucid(redone: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import recompute_tables; assert 'pellucid' not in sys.modules; "
    )
    code += "from pathlib import Path; sys.exit(recompute_tables.main(Path(sys.argv[2])))"
    command = [sys.executable, "-W", "error", "-c", code, str(TOOL.parent), str(redone)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in TABLES:
        assert f"{name}: " in done.stdout


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("accuracy", "macro_f1"),
        ("accuracy", "accuracy_low"),
        ("network_tests", "mean_difference"),
        ("confidence_increase", "mean"),
        ("confidence_increase", "high"),
        ("method_tests", "p_adjusted"),
        ("times", "seconds_per_image"),
        ("beside_paper", "here"),
    ],
)
def test_a_changed_table_is_found(
    redone: Path, recompute: Callable[[Path], int], capsys: pytest.CaptureFixture[str], name: str, column: str
) -> None:
    path = redone / f"{name}.csv"
    before = path.read_bytes()
    table = pd.read_csv(path)
    row = table[column].first_valid_index()
    assert row is not None
    table.loc[row, column] += 1e-6
    table.to_csv(path, index=False)
    try:
        assert recompute(redone) == 1
    finally:
        path.write_bytes(before)
    assert f"{name}: {column} differs by 1.0e-06" in capsys.readouterr().out


def test_a_missing_row_is_found(
    redone: Path, recompute: Callable[[Path], int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = redone / "confidence_increase.csv"
    before = path.read_bytes()
    path.write_bytes(b"".join(before.splitlines(keepends=True)[:-1]))
    try:
        assert recompute(redone) == 1
    finally:
        path.write_bytes(before)
    assert "confidence_increase: rows" in capsys.readouterr().out
