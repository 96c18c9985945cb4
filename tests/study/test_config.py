from pathlib import Path
from typing import Any

import pytest

from pellucid.errors import InputError
from pellucid.study.config import StudyConfig, parse_config, read_config, write_config

MINIMAL: dict[str, Any] = {"datasets": [{"name": "skin", "path": "skin"}], "models": ["resnet18"]}


def parse(base: Path = Path("/data"), **changes: Any) -> StudyConfig:
    return parse_config({**MINIMAL, **changes}, base=base)


def test_five_lines_are_enough() -> None:
    config = parse()
    assert config.models[0].name == "resnet18"
    assert config.datasets[0].path == "/data/skin"
    assert config.folds == 1


def test_the_written_config_reads_back_the_same(tmp_path: Path) -> None:
    config = parse(models=[{"name": "resnet18", "pretrained": "w.safetensors", "learning_rate": 0.01}, "vgg16"])
    (tmp_path / "study.toml").write_text(write_config(config))
    assert read_config(tmp_path / "study.toml") == config


def test_enhancements_are_names_labels_or_tables_in_one_spelling(tmp_path: Path) -> None:
    table = {"name": "clahe", "tiles": 4, "clip_limit": 0.02}
    config = parse(enhancements=["none", "gamma[gamma=0.7]", table])
    assert config.enhancements == ("none", "gamma[gamma=0.7]", "clahe[clip_limit=0.02,tiles=4]")
    (tmp_path / "study.toml").write_text(write_config(config))
    assert read_config(tmp_path / "study.toml") == config
    assert parse().enhancements == ("none",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"enhancements": ["clah"]}, "enhancements: unknown enhancement 'clah'. Did you mean 'clahe'"),
        ({"enhancements": [{"name": "gamma", "gamma": -1}]}, "gamma: expected a number above 0, got -1"),
        ({"enhancements": ["hog", {"name": "hog"}]}, "enhancements: the name 'hog' is given twice"),
        ({"trainning": {}}, "unknown key 'trainning'. Did you mean 'training'"),
        ({"training": {"epoch": 3}}, "unknown key 'training.epoch'. Did you mean 'epochs'"),
        (
            {"training": {"augmentation": {"rotate": 3}}},
            "unknown key 'training.augmentation.rotate'. Did you mean 'rotation'",
        ),
        (
            {"datasets": [{"name": "a", "path": "b", "imagesize": 3}]},
            r"unknown key 'datasets\[1\].imagesize'. Did you mean 'image_size'",
        ),
        ({"models": ["resnet81"]}, r"models\[1\].name: unknown model 'resnet81'. Did you mean 'resnet18'"),
        ({"models": ["resnet18-3d"]}, r"models: expected a network of pictures.* got 'resnet18-3d', one of"),
        ({"models": [{"name": "resnet18", "lr": 1}]}, r"unknown key 'models\[1\].lr'. Known: "),
        ({"explain": {"methods": ["gradcam"]}}, "explain.methods: unknown method 'gradcam'. Did you mean 'grad-cam'"),
        ({"evaluate": {"metrics": ["roda"]}}, "evaluate.metrics: unknown metric 'roda'. Did you mean 'road'"),
        ({"datasets": [{"name": "a", "path": "phantom:brian"}]}, "unknown phantom 'brian'. Did you mean 'brain'"),
        ({"training": {"epochs": 0}}, "training.epochs: .*greater than or equal to 1, got 0"),
        ({"training": {"learning_rate": "fnd"}}, 'training.learning_rate: should be .*, or "find", got .fnd'),
        ({"training": {"learning_rate": 0}}, "training.learning_rate: should be a number greater than 0.*, got 0"),
        ({"models": [{"name": "vgg16", "learning_rate": -1}]}, r"models\[1\].learning_rate: should be .*, got -1"),
        ({"models": [{"name": "vgg16", "training": {"ema": 1}}]}, r"models\[1\].training.ema: .*less than 1, got 1"),
        (
            {"models": [{"name": "vgg16", "training": {"mixupp": 1}}]},
            r"unknown key 'models\[1\].training.mixupp'. Did you mean 'mixup'",
        ),
        ({"training": {"epochs": "many"}}, "training.epochs: .*integer.*, got 'many'"),
        ({"datasets": [{"path": "x"}]}, r"datasets\[1\].name: expected a value, got none"),
        ({"datasets": []}, "datasets: .*at least 1 item"),
        ({"models": ["resnet18", "resnet18"]}, "models: the name 'resnet18' is given twice"),
        ({"datasets": [{"name": "../x", "path": "x"}]}, r"datasets\[1\].name: .*pattern"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_nearest_that_can(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse(**changes)


def test_a_network_may_be_trained_by_settings_of_its_own(tmp_path: Path) -> None:
    own = {"optimiser": "sgd", "batch_size": 32, "augmentation": {"rotation": 0.0}}
    config = parse(
        models=[{"name": "vgg16", "epochs": 7, "training": own}, {"name": "resnet18", "learning_rate": "find"}],
        training={"batch_size": 8, "epochs": 3, "mixup": 0.2, "augmentation": {"vertical_flip": True}},
    )
    (tmp_path / "study.toml").write_text(write_config(config))
    for each in (config, read_config(tmp_path / "study.toml")):
        vgg, resnet = (model.trained_by(each.training) for model in each.models)
        assert (vgg.epochs, vgg.batch_size, vgg.optimiser, vgg.mixup) == (7, 32, "sgd", 0.2)
        assert (vgg.augmentation.rotation, vgg.augmentation.vertical_flip) == (0.0, True)
        assert (resnet.epochs, resnet.batch_size, resnet.learning_rate) == (3, 8, "find")
        assert resnet.optimiser is None
        assert resnet.augmentation.rotation == 10.0


def test_data_given_on_the_command_line_replaces_the_path(tmp_path: Path) -> None:
    config = parse_config(MINIMAL, base=Path("/x"), data={"": str(tmp_path)})
    assert config.datasets[0].path == str(tmp_path)
    two = {**MINIMAL, "datasets": [{"name": "a", "path": "a"}, {"name": "b", "path": "phantom:brain"}]}
    config = parse_config(two, base=Path("/x"), data={"a": str(tmp_path)})
    assert [dataset.path for dataset in config.datasets] == [str(tmp_path), "phantom:brain"]
    with pytest.raises(InputError, match="several data sets"):
        parse_config(two, base=Path("/x"), data={"": str(tmp_path)})
    with pytest.raises(InputError, match="unknown data set 'c'"):
        parse_config(two, base=Path("/x"), data={"c": str(tmp_path)})


def test_a_file_that_is_not_toml_or_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't read .*none.toml: No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("models = [")
    with pytest.raises(InputError, match=r"bad.toml isn't valid TOML: ."):
        read_config(tmp_path / "bad.toml")


def test_leakage_is_set_per_data_set() -> None:
    (dataset,) = parse(datasets=[{"name": "a", "path": "b", "leakage": {"action": "drop"}}]).datasets
    assert (dataset.leakage.action, dataset.leakage.near) == ("drop", True)
    assert 0.5 <= dataset.leakage.alike <= dataset.leakage.threshold <= 1
    for leakage, told in (
        ({"action": "burn"}, r"datasets\[1\].leakage.action: .*'keep', 'drop' or 'group'"),
        ({"threshold": 0.8}, "alike: expected at most the threshold, 0.8, got 0.85"),
        ({"treshold": 0.9}, "unknown key 'datasets\\[1\\].leakage.treshold'. Did you mean 'threshold'"),
    ):
        with pytest.raises(InputError, match=told):
            parse(datasets=[{"name": "a", "path": "b", "leakage": leakage}])
