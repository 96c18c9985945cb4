import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from pellucid.data.transforms import Normalisation
from pellucid.errors import InputError
from pellucid.models.boosting import BoostedFeatures
from pellucid.models.checkpoints import load_weights
from pellucid.models.ensemble import Ensemble
from pellucid.report.build import build_report
from pellucid.study import combine
from pellucid.study.config import StudyConfig, parse_config
from pellucid.study.estimate import estimate_study
from pellucid.study.plan import plan
from pellucid.study.prepare import read_dataset
from pellucid.study.runner import run_study

VOTE = {"name": "vote", "members": ["test_resnet", "test_efficientnet"], "vote": "weighted"}
LINEAR = {"name": "linear", "features": ["test_resnet", "test_convnext"], "pretrained": False}
BOOSTED = {"name": "boosted", "features": ["test_resnet"], "classifier": "gradient-boosting", "pretrained": False}
MIXED = {"name": "mixed", "members": ["test_resnet", "linear"]}
MODELS = [VOTE, "test_resnet", "test_efficientnet", LINEAR, BOOSTED, MIXED]


def config(models: list[Any], **changed: Any) -> StudyConfig:
    fields: dict[str, Any] = {
        "name": "combined",
        "seed": 3,
        "models": models,
        "datasets": [{"name": "chest", "path": "phantom:chest", "image_size": 64, "channels": 1, "images": 60}],
        "training": {"epochs": 1, "batch_size": 16},
        "explain": {"methods": ["layer-cam", "feature-ablation", "random"], "images": 3},
        "evaluate": {"metrics": ["road"]},
        "statistics": {"resamples": 100},
    }
    return parse_config({**fields, **changed}, base=Path())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("combined")
    run_study(config(MODELS), output, device="cpu")
    return output


def cell(output: Path, model: str) -> Path:
    return output / "chest" / model / "fold-0"


def probabilities(output: Path, model: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_parquet(cell(output, model) / "predictions.parquet")
    table = table[table["split"] == split].sort_values("sample")
    values = table[[name for name in table if name.startswith("prob_")]].to_numpy()
    return values / values.sum(axis=1, keepdims=True), table[
        "label"
    ].to_numpy()  # softmax in float32 adds up to 1 ± 1e-7


def about(output: Path, model: str) -> dict[str, Any]:
    return json.loads((cell(output, model) / "cell.json").read_text())  # type: ignore[no-any-return]


def test_votes_come_after_their_members() -> None:
    names = [each.model.name for each in plan(config(MODELS))]
    assert names == ["test_resnet", "test_efficientnet", "linear", "boosted", "vote", "mixed"]


@pytest.mark.parametrize(("name", "members"), [("vote", VOTE["members"]), ("mixed", MIXED["members"])])
def test_a_vote_predicts_the_weighted_mean_of_its_members(finished: Path, name: str, members: list[str]) -> None:
    found, labels = probabilities(finished, name, "test")
    weights = about(finished, name)["combination"]["weights"]
    assert sum(weights) == pytest.approx(1)
    parts = [probabilities(finished, member, "test") for member in members]
    assert all((part[1] == labels).all() for part in parts)
    mean = sum(weight * part[0] for weight, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(found, mean, atol=1e-5)


def test_its_weights_are_the_best_on_the_validation_part_of_a_fine_grid(finished: Path) -> None:
    first, labels = probabilities(finished, "test_resnet", "val")
    second, _ = probabilities(finished, "test_efficientnet", "val")
    steps = np.linspace(0, 1, 2001)
    losses = [log_loss(labels, step * first + (1 - step) * second) for step in steps]
    assert about(finished, "vote")["combination"]["weights"][0] == pytest.approx(steps[np.argmin(losses)], abs=2e-3)


def test_its_weights_file_stands_by_itself(finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((cell(finished, "vote") / "weights.safetensors").read_bytes())
    network, card = load_weights(moved)
    assert isinstance(network, Ensemble)
    assert [member.architecture for member in card.members] == VOTE["members"]
    own, _ = load_weights(cell(finished, "test_resnet") / "weights.safetensors")
    for name, value in own.state_dict().items():
        torch.testing.assert_close(network.state_dict()[f"members.0.network.{name}"], value, rtol=0, atol=0)


def test_a_linear_classifier_of_features_is_fitted_on_the_training_part_alone(finished: Path) -> None:
    """Refitted by scikit-learn on features that the untrained networks pool."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    settings = config(MODELS)
    network, card = load_weights(cell(finished, "linear") / "weights.safetensors")
    prepared = read_dataset(settings.datasets[0], settings, finished)
    features, labels = {}, {}
    for split in ("train", "test"):
        rows = prepared.rows(0, split)
        dataset = prepared.images(rows).with_transform(Normalisation(card.mean, card.std, card.normalisation))
        images = torch.stack([dataset[place][0] for place in range(len(rows))])
        with torch.no_grad():
            parts = [each.network.forward_head(each.network.forward_features(images), True) for each in network.each()]
        features[split], labels[split] = torch.cat(parts, dim=1).double().numpy(), rows["label"].to_numpy()
    regression = LogisticRegression(
        C=about(finished, "linear")["combination"]["strength"], class_weight="balanced", max_iter=10_000
    )
    pipeline = make_pipeline(StandardScaler(), regression).fit(features["train"], labels["train"])
    found, _ = probabilities(finished, "linear", "test")
    np.testing.assert_allclose(found, pipeline.predict_proba(features["test"]), atol=5e-3)


def test_what_trees_cannot_give_is_missing_with_the_reason(finished: Path) -> None:
    card = about(finished, "boosted")
    assert card["methods"] == ["feature-ablation", "random"]
    assert "no gradient" in card["unmade"]["layer-cam"]
    scores = pd.read_parquet(cell(finished, "boosted") / "scores.parquet")
    assert set(scores["method"]) == {"feature-ablation", "random"}
    network, _ = load_weights(cell(finished, "boosted") / "weights.safetensors")
    assert isinstance(network, BoostedFeatures)
    assert about(finished, "vote")["unmade"] == {}


def test_the_report_says_what_models_are_made_of(finished: Path) -> None:
    page = build_report(finished).read_text()
    assert "weighted vote of test_resnet" in page
    assert "on frozen features of test_resnet" in page
    assert "of gradient boosting on frozen features of test_resnet" in page
    assert "No maps of boosted by LayerCAM" in page


def test_nothing_is_computed_twice(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another way to vote computes that vote alone, from what its members left."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    kept = {path: path.stat().st_mtime_ns for path in finished.rglob("weights.safetensors")}
    monkeypatch.setattr(combine, "obtain_network", refuse)
    monkeypatch.setattr(combine, "obtain_features", refuse)
    run_study(config(MODELS), finished, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("weights.safetensors")} == kept
    hard = {**MIXED, "vote": "accuracy"}
    with pytest.raises(InputError, match="1 cell would be trained anew"):
        run_study(config([*MODELS[:-1], hard]), finished, device="cpu")
    run_study(config([*MODELS[:-1], hard]), finished, device="cpu", fresh=True)
    changed = [path for path in finished.rglob("weights.safetensors") if path.stat().st_mtime_ns != kept[path]]
    assert changed == [cell(finished, "mixed") / "weights.safetensors"]
    run_study(config(MODELS), finished, device="cpu", fresh=True)


def test_a_vote_is_stale_where_a_member_is(finished: Path) -> None:
    longer = config([VOTE, {"name": "test_resnet", "epochs": 2}, *MODELS[2:]])
    states = estimate_study(longer, finished, device="cpu").cells.set_index("model")["state"]
    stale = {name for name, state in states.items() if state != "done"}
    assert stale == {"test_resnet", "vote", "mixed"}


def test_a_vote_fails_with_its_member_alone(tmp_path: Path) -> None:
    broken = {"name": "test_resnet", "learning_rate": 1e30}
    models = [VOTE, broken, "test_efficientnet"]
    study = run_study(config(models, explain={"images": 0}), tmp_path, device="cpu")
    reasons = study.failures.set_index("model")["reason"]
    assert set(reasons.index) == {"test_resnet", "vote"}
    assert "its member 'test_resnet' wasn't computed on fold 0" in reasons["vote"]
    assert set(study.predictions["model"]) == {"test_efficientnet"}


def test_an_estimate_probes_them_all(tmp_path: Path) -> None:
    costs = estimate_study(config(MODELS), tmp_path / "none", device="cpu").cells.set_index("model")
    assert (costs["seconds"] > 0).all()
    assert costs["bytes"]["vote"] > costs["bytes"]["test_resnet"]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["test_resnet", {**VOTE, "members": ["test_resnet", "test_resne"]}], "unknown member of 'vote' 'test_resne'"),
        (["test_resnet", {**VOTE, "vote": "hard"}], r"models\[2\].vote: input should be 'soft', 'weighted' or 'acc"),
        (["test_resnet", {**VOTE, "membres": 1}], r"unknown key 'models\[2\].membres'. Did you mean 'members'"),
        ([BOOSTED, "test_resnet", {**VOTE, "members": ["boosted", "test_resnet"]}], "not 'boosted', a vote or a boost"),
        ([{**LINEAR, "features": ["test_resnett"]}], r"models\[1\].features\[1\].name: unknown model"),
        ([{**LINEAR, "features": ["test_resnet", "test_resnet"]}], "'test_resnet' is given twice"),
        ([{**LINEAR, "classifer": "svm"}], "Did you mean 'classifier'"),
        ([{**LINEAR, "features": [{"name": "test_resnet", "pretraned": True}]}], "Did you mean 'pretrained'"),
        ([{**LINEAR, "features": ["resnet18-3d"]}], "one of volumes"),
    ],
)
def test_a_config_is_refused_in_words(models: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(models)
