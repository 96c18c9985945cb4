"""A study of pictures with several labels, from its TOML to its report; its tables by scikit-learn and by hand."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics

import pellucid
from pellucid.attribution import aims
from pellucid.errors import InputError
from pellucid.files import read_json
from pellucid.models.checkpoints import load_weights
from pellucid.report.build import build_report
from pellucid.study.config import parse_config
from pellucid.study.evaluate_files import evaluate_files
from pellucid.study.evaluate_question import EvaluationQuestion
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.runner import run_study
from pellucid.training.predict import as_wanted, predict_files
from references.labelled import LABELS, write_labelled

STUDY = """
name = "several"
seed = 1
models = ["test_resnet"]

[[datasets]]
name = "shapes"
path = "pictures"
task = "multi-label"
image_size = 32
channels = 1

[training]
epochs = 6
batch_size = 16
learning_rate = 3e-3
balance = "weights"

[explain]
methods = ["layer-cam", "random"]
images = 8

[statistics]
resamples = 100
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    write_labelled(root / "pictures", 120)
    (root / "study.toml").write_text(STUDY)
    run_study(root / "study.toml", root / "out", device="cpu")
    build_report(root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def answers(output: Path) -> pd.DataFrame:
    return pd.read_parquet(output / "shapes" / "test_resnet" / "fold-0" / "predictions.parquet")


def of(answers: pd.DataFrame, kind: str) -> np.ndarray:
    return answers[[f"{kind}_{name}" for name in LABELS]].to_numpy()


def test_each_label_has_a_probability_of_its_own(output: Path, answers: pd.DataFrame) -> None:
    truth, probabilities = of(answers, "label"), of(answers, "prob")
    texts = ["|".join(name for name, one in zip(LABELS, row, strict=True) if one) for row in truth]
    assert answers["label"].tolist() == texts
    said = probabilities >= 0.5
    np.testing.assert_array_equal(answers["correct"], (said == truth).all(axis=1))
    assert (np.abs(probabilities.sum(axis=1) - 1) > 0.05).any()  # no softmax
    network, card = load_weights(output / "shapes" / "test_resnet" / "fold-0" / "weights.safetensors")
    assert card.multi_label
    assert card.classes == LABELS
    files = [output.parent / "pictures" / sample for sample in answers["sample"][:5]]
    table, _ = predict_files(
        files, output / "shapes" / "test_resnet" / "fold-0" / "weights.safetensors", device=torch.device("cpu")
    )
    np.testing.assert_allclose(of(table, "prob"), probabilities[:5], atol=1e-5)
    assert table["predicted"].tolist() == answers["predicted"].tolist()[:5]
    assert not network.training


def test_the_network_learns_the_labels(answers: pd.DataFrame) -> None:
    test = answers[answers["split"] == "test"]
    assert metrics.roc_auc_score(of(test, "label"), of(test, "prob"), average="macro") > 0.75


def test_the_table_of_models_agrees_with_scikit_learn(output: Path, answers: pd.DataFrame) -> None:
    test, validation = (answers[answers["split"] == split] for split in ("test", "val"))
    truth, probabilities = of(test, "label"), of(test, "prob")
    table = pd.read_csv(output / "statistics" / "models.csv", keep_default_na=False, na_values={"value": [""]})
    whole = table[table["class"] == ""].set_index(["metric", "rule"])["value"].astype(float)
    assert whole["macro_auroc", ""] == pytest.approx(metrics.roc_auc_score(truth, probabilities, average="macro"))
    assert whole["micro_auprc", ""] == pytest.approx(
        metrics.average_precision_score(truth, probabilities, average="micro")
    )
    assert whole["subset_accuracy", "fixed"] == pytest.approx(metrics.accuracy_score(truth, probabilities >= 0.5))
    assert whole["hamming_loss", "fixed"] == pytest.approx(metrics.hamming_loss(truth, probabilities >= 0.5))
    for place, name in enumerate(LABELS):
        of_label = table[table["class"] == name].set_index(["metric", "rule"])["value"].astype(float)
        _, found, limits = metrics.roc_curve(
            of(validation, "label")[:, place], of(validation, "prob")[:, place], drop_intermediate=False
        )
        said = probabilities[:, place] >= limits[found >= 0.9].max()
        assert of_label["sensitivity", "sensitivity-0.9"] == pytest.approx(metrics.recall_score(truth[:, place], said))


def test_each_image_is_explained_for_a_label_of_its_own(output: Path, answers: pd.DataFrame) -> None:
    explained = pd.read_parquet(output / "shapes" / "test_resnet" / "fold-0" / "explained.parquet")
    known = answers.set_index("sample").loc[explained["sample"]]
    probabilities = of(known, "prob")
    targets = [LABELS[place] for place in probabilities.argmax(axis=1)]
    assert explained["target"].tolist() == targets
    np.testing.assert_allclose(explained["probability"], probabilities.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(explained["probability"], 1 / (1 + np.exp(-explained["score"])), atol=1e-5)
    there = known[[f"label_{name}" for name in LABELS]].to_numpy()[np.arange(len(known)), probabilities.argmax(axis=1)]
    assert explained["label"].tolist() == [
        name if one else f"no {name}" for name, one in zip(targets, there, strict=True)
    ]
    np.testing.assert_array_equal(explained["correct"], there == (probabilities.max(axis=1) >= 0.5))


def test_true_labels_are_explained_where_that_is_asked(answers: pd.DataFrame, output: Path) -> None:
    from pellucid.study.cell import explained_classes

    _, card = load_weights(output / "shapes" / "test_resnet" / "fold-0" / "weights.safetensors")
    truth, probabilities = of(answers, "label"), of(answers, "prob")
    for row, name in enumerate(explained_classes(answers, card, "true")):
        place = LABELS.index(name)
        if truth[row].any():
            assert truth[row, place]
            assert probabilities[row, place] == probabilities[row][truth[row]].max()
        else:
            assert probabilities[row, place] == probabilities[row].max()


def test_files_are_explained_by_a_labels_own_probability(output: Path, tmp_path: Path) -> None:
    model = load_weights(output / "shapes" / "test_resnet" / "fold-0" / "weights.safetensors")
    picture = output.parent / "pictures" / "005.png"
    explain_files([picture], model, tmp_path / "maps", Question(methods=("layer-cam",), target="disc"))
    (record,) = (read_json(path) for path in (tmp_path / "maps").glob("*.json"))
    table, _ = predict_files(
        [picture], output / "shapes" / "test_resnet" / "fold-0" / "weights.safetensors", device=torch.device("cpu")
    )
    assert record["target"] == "disc"
    assert record["probability"] == pytest.approx(table["prob_disc"].item(), abs=1e-5)


def test_facts_and_report_count_labels(output: Path) -> None:
    facts = read_json(output / "data" / "shapes.json")
    splits = pd.read_parquet(output / "splits.parquet")
    of_labels = splits.assign(label=splits["label"].str.split("|")).explode("label")
    for count in facts["counts"]:
        rows = (of_labels["split"] == count["split"]) & (of_labels["label"] == count["label"])
        assert count["images"] == rows.sum()
    assert not any(found["kind"] == "patients-in-classes" for found in facts["leakage"])
    page = (output / "report" / "index.html").read_text(encoding="utf-8")
    for words in ("Subset accuracy", "AUROC, macro", "Hamming loss", "An image may have several labels", "F1, micro"):
        assert words in page
    assert "Confusion matrices" not in page
    assert pd.read_csv(output / "report" / "confusion.csv").empty


def test_what_several_labels_do_not_go_with_is_refused(tmp_path: Path) -> None:
    dataset = {"name": "a", "path": "a", "task": "multi-label"}
    study = {"models": ["test_resnet"], "datasets": [dataset]}
    assert parse_config(study, base=tmp_path).datasets[0].multi_label
    with pytest.raises(InputError, match="phantoms are"):
        parse_config({**study, "datasets": [{**dataset, "path": "phantom:brain"}]}, base=tmp_path)
    with pytest.raises(InputError, match='Set task = "multi-label"'):
        parse_config({**study, "datasets": [{"name": "a", "path": "a", "labels": ["x"]}]}, base=tmp_path)
    vote = {"name": "both", "members": ["test_resnet", "resnet10t"]}
    with pytest.raises(InputError, match="which votes or takes features"):
        parse_config({**study, "models": ["test_resnet", "resnet10t", vote]}, base=tmp_path)
    write_labelled(tmp_path / "a", 60)
    training = {"balance": "sampling", "epochs": 1}
    small = {**dataset, "path": str(tmp_path / "a"), "image_size": 32, "channels": 1}
    config = parse_config({**study, "datasets": [small], "training": training}, base=tmp_path)
    with pytest.raises(InputError, match="balance: expected 'weights' or 'none' where an image may have several"):
        run_study(config, tmp_path / "out", device="cpu")


def test_files_are_evaluated_by_a_label_of_their_own(output: Path, tmp_path: Path) -> None:
    folder = output.parent / "pictures"
    weights = load_weights(output / "shapes" / "test_resnet" / "fold-0" / "weights.safetensors")
    question = EvaluationQuestion(
        metrics=(pellucid.metric("road", fractions=(0.3, 0.6)),), methods=("layer-cam",), controls=("random",)
    )
    table = pd.read_csv(folder / "manifest.csv", keep_default_na=False).iloc[:8]
    (tmp_path / "in").mkdir()
    for path in table["path"]:
        shutil.copy(folder / path, tmp_path / "in" / Path(path).name)
    table.assign(path=[Path(path).name for path in table["path"]]).to_csv(tmp_path / "in" / "manifest.csv", index=False)
    found = evaluate_files([tmp_path / "in"], weights, tmp_path / "out", question)
    network, card = weights
    images = torch.stack(
        [as_wanted(pellucid.read_image(tmp_path / "in" / name), card) for name in found.samples["image"]]
    )
    with torch.no_grad():
        probabilities = network.eval()(images).sigmoid()
    places = probabilities.argmax(dim=1)
    assert found.samples["target"].tolist() == [card.classes[place] for place in places]
    np.testing.assert_allclose(found.samples["probability"], probabilities.amax(dim=1), atol=1e-5)
    truth = dict(zip((Path(path).name for path in table["path"]), table["label"], strict=True))
    for row in found.samples.to_dict("records"):
        there = row["target"] in str(truth[row["image"]]).split("|")
        assert row["label"] == (row["target"] if there else f"no {row['target']}")
        assert row["predicted"] == (row["target"] if row["probability"] >= 0.5 else f"no {row['target']}")
    with warnings.catch_warnings(action="ignore"):
        explanation = pellucid.explain(network, images[:4], "layer-cam", target=aims.multi_label(places[:4]))
        alone = pellucid.evaluate(
            network,
            images[:4],
            explanation,
            question.metrics,
            generator=torch.Generator().manual_seed(0),
            multi_label=True,
        )
    own = found.scores[(found.scores["method"] == "layer-cam") & (found.scores["sample"] < 4)]
    np.testing.assert_allclose(own["value"], alone["value"], atol=1e-5)
