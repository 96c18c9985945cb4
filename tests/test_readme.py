"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pellucid.attribution import METHODS
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.study.config import StudyConfig

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    card = ModelCard("test_resnet", 256, 1, ("a", "b"), (0.5,), (0.2,), "data-set")
    (tmp_path / "runs/one").mkdir(parents=True)
    save_weights(tmp_path / "runs/one/weights.safetensors", card.build(), card)
    names: dict[str, object] = {}
    exec(block("python"), names)  # our own text
    assert names["explanation"].maps["layer-cam"].shape == (4, 256, 256)  # type: ignore[attr-defined]
    assert set(names["table"]["metric"]) == {"road", "road-morf"}  # type: ignore[index]
    assert (tmp_path / "explained.zarr").is_dir()


def test_every_method_is_in_the_table() -> None:
    listed = {name for row in re.findall(r"^\| [^|]+ \| (.*) \|$", README, flags=re.MULTILINE) for name in _names(row)}
    assert listed >= set(METHODS.names())


def _names(row: str) -> list[str]:
    return re.findall(r"[a-z][a-z-]+", row)


def test_the_study_is_valid() -> None:
    config = StudyConfig.model_validate(tomllib.loads(block("toml")))
    assert [model.name for model in config.models] == ["resnet50", "densenet121", "vgg16", "efficientnet_b0"]
