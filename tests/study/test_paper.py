from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pellucid.attribution.families import is_control
from pellucid.errors import InputError, MissingWeightsError, UnknownNameError
from pellucid.study import paper
from pellucid.study.config import StudyConfig
from pellucid.study.paper import TASKS, paper_studies, run_paper
from pellucid.study.runner import Study

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "src" / "pellucid" / "study" / "paper_studies"
FOLDERS = ("brain_mri", "skin", "chest_xray")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What the studies expect, but for the images."""
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


def test_examples_are_the_studies_that_are_shipped() -> None:
    examples = ROOT / "examples" / "paper"
    files = sorted(path.relative_to(SHIPPED) for path in SHIPPED.rglob("*.toml"))
    assert files == sorted(path.relative_to(examples) for path in examples.rglob("*.toml"))
    assert len(files) == 2 * len(TASKS)
    for file in files:
        assert (examples / file).read_bytes() == (SHIPPED / file).read_bytes()


@pytest.mark.parametrize("quick", [False, True])
def test_studies_follow_the_paper(data: Path, quick: bool) -> None:
    studies = paper_studies(data, quick=quick)
    assert tuple(studies) == TASKS
    for config, folder in zip(studies.values(), FOLDERS, strict=True):
        assert [dataset.path for dataset in config.datasets] == [str(data / folder)]
        methods = [name for name in config.explain.methods if not is_control(name)]
        assert methods == ["grad-cam-plus-plus", "xgrad-cam", "layer-cam", "eigen-grad-cam", "ablation-cam"]
        assert [name for name in config.explain.methods if is_control(name)] == ["random", "center-gaussian", "sobel"]
        assert config.evaluate.metrics == ("road",)
        names = [model.name for model in config.models]
        if quick:
            assert all(model.pretrained is False for model in config.models)
            assert config.folds == 1
        else:
            assert names == ["resnet50", "densenet121", "vgg16", "efficientnet_b0"]
            assert all(model.pretrained is True for model in config.models)
            assert (config.folds, config.datasets[0].split.use, config.datasets[0].image_size) == (5, "random", 224)


def test_tasks_are_chosen_in_the_papers_order(data: Path) -> None:
    assert list(paper_studies(data, ["chest", "brain"])) == ["brain", "chest"]
    with pytest.raises(UnknownNameError, match="'brian'"):
        paper_studies(data, ["brian"])


def test_missing_data_says_what_is_expected_where(data: Path) -> None:
    (data / "skin").rmdir()
    with pytest.raises(InputError) as told:
        paper_studies(data)
    text = str(told.value)
    assert "brain_mri (brain), skin (skin), chest_xray (chest)" in text
    assert f"{str(data)!r} without skin (skin)." in text
    assert "--data FOLDER" in text
    assert list(paper_studies(data, ["brain", "chest"])) == ["brain", "chest"]
    with pytest.raises(InputError, match="got no folder"):
        paper_studies(None)


def test_own_studies(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "skin.toml").write_text((SHIPPED / "quick" / "skin.toml").read_text().replace("epochs = ", "epochs = 1"))
    config = paper_studies(data, ["skin"], folder=own)["skin"]
    assert config.training.epochs > 100
    with pytest.raises(InputError, match=r"brain\.toml"):
        paper_studies(data, folder=own)
    with pytest.raises(InputError, match="quick"):
        paper_studies(data, ["skin"], quick=True, folder=own)


def test_runs_in_turn_and_tells_the_time_left(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for folder, count in zip(FOLDERS, (6, 2, 4), strict=True):
        for number in range(count):
            (data / folder / f"{number}.png").touch()
    ran = []

    def run_study(config: StudyConfig, output: Path, **_: object) -> Study:
        ran.append(output)
        return Study(output, config)

    times = iter((0.0, 600.0, 660.0, 700.0))
    monkeypatch.setattr(paper, "run_study", run_study)
    monkeypatch.setattr(paper, "monotonic", lambda: next(times))
    studies = {name: config.model_copy(update={"folds": 1}) for name, config in paper_studies(data).items()}
    with caplog.at_level(logging.INFO, "pellucid"):
        done = [task for task, _ in run_paper(studies, tmp_path / "out", progress=True)]
    assert done == list(TASKS)
    assert ran == [tmp_path / "out" / task for task in TASKS]
    # as many epochs each: brain has half of the images and took ten minutes
    assert "brain done after 10 min" in caplog.text
    assert "about 10 min 0 s left" in caplog.text


def test_missing_weights_name_the_ways_on(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_study(*_: object, **__: object) -> Study:
        raise MissingWeightsError("pretrained: can't be fetched.")

    monkeypatch.setattr(paper, "run_study", run_study)
    with pytest.raises(MissingWeightsError, match=r"fetched\. Or --quick.*--studies FOLDER"):
        next(run_paper(paper_studies(data, ["skin"]), tmp_path))
