"""What the documents show runs as it stands there, and the names that they give are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.metrics import METRICS
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.study.config import parse_config

DOCS = Path(__file__).parent.parent / "docs"
STUDIES = [
    (path.name, number, text)
    for path in sorted(DOCS.glob("*.md"))
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL))
]


@pytest.mark.parametrize(("page", "number", "text"), STUDIES, ids=lambda value: str(value)[:12])
def test_the_study_is_valid(page: str, number: int, text: str) -> None:
    config = parse_config(tomllib.loads(text), base=Path("/x"), where=f"{page}, example {number + 1}")
    assert config.datasets
    assert config.models


def test_there_are_studies() -> None:
    assert len(STUDIES) >= 4


MEASURING = (DOCS / "measuring.md").read_text(encoding="utf-8")
CHOOSING, COMING = MEASURING.split("## Coming from")
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]*\|$", COMING, flags=re.MULTILINE)


def test_the_examples_of_measuring_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    card = ModelCard("test_resnet", 224, 1, ("a", "b"), (0.5,), (0.2,), "data-set")
    save_weights(tmp_path / "weights.safetensors", card.build(), card)
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", MEASURING, flags=re.DOTALL):
        exec(example, names)  # our own text
    assert set(names["means"].index.get_level_values("method")) == {"layer-cam", "saliency", "random", "sobel"}
    assert set(names["table"]["metric"]) == {"energy-pointing", "peak-distance"}
    assert names["table"]["value"].notna().all()
    assert len(names["focus"]) == 2 * 8
    assert set(names["verdicts"]["verdict"]) <= {"trusted", "doubtful", "not trusted"}


def test_measuring_names_metrics_that_there_are() -> None:
    assert f"any of {len(METRICS.names())}\nmetrics" in MEASURING
    asked = re.findall(r"^\| .+\?.* \| [a-z]+ \| ([^|]+) \|$", CHOOSING, flags=re.MULTILINE)
    assert len(asked) == len({entry.family for entry in METRICS})
    named = {name for cell in [*asked, *(here for there, here in ROWS if there != "there")] for name in _names(cell)}
    assert len(named) > 40
    assert named <= set(METRICS.names()) | {"weighted", "combined", "mosaics", "fill", "on", "with", "a"}


def test_every_metric_of_quantus_and_grad_cam_has_its_row() -> None:
    constants = pytest.importorskip("quantus.helpers.constants")
    kinds = constants.AVAILABLE_METRICS.values()
    theirs = {metric.__name__ for kind in kinds for metric in kind.values()}
    grad_cam = pytest.importorskip("pytorch_grad_cam.metrics.road")
    theirs |= {name for name in vars(grad_cam) if name.startswith("ROAD")}
    rows = {name.strip() for there, _ in ROWS for name in there.split(",")}
    assert theirs <= rows


def _names(cell: str) -> list[str]:
    return re.findall(r"[a-z][a-z-]*", cell)
