"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pellucid.attribution import METHODS
from pellucid.data.enhancements import ENHANCEMENTS
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.study.config import StudyConfig

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def block(language: str) -> str:
    (found,) = blocks(language)
    return found


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


def counts(toml: str) -> tuple[int, ...]:
    config = StudyConfig.model_validate(tomllib.loads(toml))
    return len(config.datasets), len(config.models), len(config.explain.methods), len(config.enhancements)


def test_a_fourth_data_set_a_fifth_network_and_a_sixth_method_are_three_lines() -> None:
    lines = blocks("toml")[1].splitlines()
    added = [line for line in lines if "# the " in line]
    kinds = ["fourth data set", "fifth network", "second enhancement", "sixth method"]
    assert [kind in line for kind, line in zip(kinds, added, strict=True)] == [True] * 4
    assert counts("\n".join(lines)) == (4, 5, 6, 2)
    assert counts("\n".join(line for line in lines if line not in added)) == (3, 4, 5, 1)
    for line, wanted in zip(added, [(3, 5, 6, 2), (4, 4, 6, 2), (4, 5, 6, 1), (4, 5, 5, 2)], strict=True):
        assert counts("\n".join(each for each in lines if each != line)) == wanted


def test_every_enhancement_is_named() -> None:
    assert set(ENHANCEMENTS.names()) <= set(_names(README))


def test_the_study_is_valid() -> None:
    config = StudyConfig.model_validate(tomllib.loads(blocks("toml")[0]))
    assert [model.name for model in config.models] == ["resnet50", "densenet121", "vgg16", "efficientnet_b0"]


def test_the_models_made_of_others_are_a_study() -> None:
    data = [{"name": "mine", "path": "phantom:chest"}]
    config = StudyConfig.model_validate({**tomllib.loads(blocks("toml")[2]), "datasets": data})
    assert [type(model).__name__ for model in config.models] == [
        *["ModelSettings"] * 2, "VoteSettings", *["FeaturesSettings"] * 2,
    ]  # fmt: skip


def test_the_training_that_is_shown_is_understood() -> None:
    config = StudyConfig.model_validate(tomllib.loads(blocks("toml")[3]))
    resnet, vgg = (model.trained_by(config.training) for model in config.models)
    assert (resnet.optimiser, vgg.optimiser, vgg.learning_rate) == (None, "sgd", "find")
    assert resnet.ema == vgg.ema == 0.999
