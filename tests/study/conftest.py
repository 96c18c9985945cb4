"""A study small enough to run in a test: one phantom task, two tiny networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.report.build import build_report
from pellucid.study.runner import run_study

STUDY = """
name = "small"
seed = 3
models = ["test_resnet", "resnet10t"]

[[datasets]]
name = "chest"
path = "phantom:chest"
image_size = 64
channels = 1
images = 120

[training]
epochs = 2
batch_size = 16

[explain]
methods = ["layer-cam", "eigen-grad-cam", "random"]
images = 20

[statistics]
resamples = 200
"""


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML file of the small study."""
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="session")
def finished_study(small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the small study, run undisturbed."""
    output = tmp_path_factory.mktemp("finished")
    run_study(small_study, output, device="cpu")
    build_report(output)
    return output
