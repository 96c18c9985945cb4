from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import recall_score

from pellucid.errors import InputError
from pellucid.files import write_text
from pellucid.report.paper import build_paper
from pellucid.study.summary import summarise_stored
from references.pages import Page

CLASSES = {
    "brain": ("glioma", "meningioma", "notumor"),
    "skin": ("melanoma", "nevus", "vascular lesion"),
    "chest": ("covid19", "normal", "pneumonia"),
}
MODELS = ("resnet10t", "densenet_light", "vgg_bn_light", "tinynet_e")


@pytest.fixture(scope="module")
def redone(made_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("paper")
    for task, classes in CLASSES.items():
        accuracy = 0.34 if task == "skin" else 0.8
        copies = 0.4 if task == "brain" else 0.0
        made_study(
            output / task, datasets=(task,), models=MODELS, classes=classes, accuracy=accuracy, copies=copies,
            masks=False,
        )  # fmt: skip
    build_paper(output)
    return output


def test_page_holds_each_table_of_each_task(redone: Path) -> None:
    page = Page((redone / "index.html").read_text(encoding="utf-8"))
    assert not page.open
    assert not page.headless
    text = page.text
    for caption in ("Beside the paper", "What differs from the paper", "Accuracy and F1 of each network and task"):
        assert text.count(caption) == 1
    for caption in (
        "Paired tests between the networks",
        "Confidence increase (ROAD) by true class, network and method",
        "Each method less the best control",
        "Time per image and method",
        "A map of each class",
    ):
        assert text.count(caption) == 3, caption
    for task, classes in CLASSES.items():
        assert f"{task}/report/index.html" in page.links
        assert task in page.ids
        for label in classes:
            assert text.count(f"true {label} · predicted") == 1
    for name in ("accuracy", "network_tests", "confidence_increase", "method_tests", "times", "beside_paper"):
        assert f"{name}.csv" in page.links
        assert len(pd.read_csv(redone / f"{name}.csv"))


def test_published_numbers_stand_beside(redone: Path) -> None:
    beside = pd.read_csv(redone / "beside_paper.csv")
    published = beside.groupby("finding", sort=False)["published"].first()
    assert published["Accuracy of ResNet50 on skin"] == "86.31\u00a0%"
    assert published["Confidence increase on glioma, XGrad-CAM"] == "0.12"
    assert published["Confidence increase on glioma, Grad-CAM++"] == "0.09"
    assert published["Confidence increase on glioma, LayerCAM"] == "0.08"
    accuracy = pd.read_csv(redone / "accuracy.csv").set_index(["task", "model", "images"])
    here = beside[beside["kind"] == "accuracy"]["here"]
    assert here.tolist() == [accuracy["accuracy"]["skin", "resnet10t", "all"]]
    assert accuracy["paper_accuracy"].notna().sum() == 1
    increase = pd.read_csv(redone / "confidence_increase.csv")
    means = increase[(increase["images"] == "all") & (increase["label"] == "all") & ~increase["control"]]
    skin = means[means["task"] == "skin"].pivot(index="model", columns="method", values="mean")
    weakest = beside[beside["finding"].str.startswith("EigenGradCAM")].set_index("model")["here"]
    assert weakest.to_dict() == (skin.idxmin(axis=1) == "eigen-grad-cam").astype(float).to_dict()
    text = Page((redone / "index.html").read_text(encoding="utf-8")).text
    assert "86.31 %" in text
    assert "the paper network not known – 0.09 0.12 0.08 – –" in text


def test_accuracy_without_copies_has_a_row_of_its_own(made_study: Callable[..., Path], tmp_path: Path) -> None:
    made_study(tmp_path / "skin", datasets=("skin",), models=MODELS[:1], classes=CLASSES["skin"], copies=0.4)
    text = Page(build_paper(tmp_path).read_text(encoding="utf-8")).text
    accuracy = pd.read_csv(tmp_path / "accuracy.csv").set_index("images")["accuracy"]
    assert accuracy["all"] != accuracy["without copies"]
    for images, where in (("all", ""), ("without copies", ", without copies")):
        assert f"Accuracy of ResNet50 on skin{where} 86.31 % {100 * accuracy[images]:.1f} % resnet10t" in text


def test_chance_and_copies_are_warned_of(redone: Path) -> None:
    accuracy = pd.read_csv(redone / "accuracy.csv")
    lost = accuracy[(accuracy["task"] == "skin") & accuracy["at_chance"]]
    assert len(lost)
    text = Page((redone / "index.html").read_text(encoding="utf-8")).text
    for model in lost["model"]:
        assert f"{model} on skin is at chance: balanced accuracy " in text
    fine = accuracy[~accuracy["at_chance"]]
    for task, model in zip(fine["task"], fine["model"], strict=True):
        assert f"{model} on {task} is at chance:" not in text
    assert "brain: " in text
    assert "test images (" in text
    assert "skin: " not in text.split("Beside the paper")[0]  # no copies there


def test_without_copies_a_class_may_be_absent(made_study: Callable[..., Path], tmp_path: Path) -> None:
    made_study(tmp_path / "chest", datasets=("chest",), models=MODELS[:2], classes=CLASSES["chest"], copies=0.3)
    expected = {}
    for path in (tmp_path / "chest").rglob("predictions.parquet"):
        answers = pd.read_parquet(path)
        answers["copy_in_train"] |= answers["label"] == "covid19"
        answers.to_parquet(path)
        clean = answers[~answers["copy_in_train"] & (answers["split"] == "test")]
        present = sorted(set(clean["label"]))
        assert present == ["normal", "pneumonia"]
        expected[path.parts[-3]] = recall_score(clean["label"], clean["predicted"], labels=present, average="macro")
    summarise_stored(tmp_path / "chest")
    build_paper(tmp_path)
    accuracy = pd.read_csv(tmp_path / "accuracy.csv").set_index(["images", "model"]).loc["without copies"]
    assert accuracy["balanced_accuracy"].to_dict() == pytest.approx(expected, abs=1e-12)
    assert (accuracy["one_over_classes"] == 0.5).all()
    assert (accuracy["balanced_accuracy_low"] < accuracy["balanced_accuracy"]).all()
    assert (accuracy["at_chance"] == (accuracy["balanced_accuracy_low"] <= 0.5)).all()


def test_page_tells_no_patient_and_no_place(redone: Path) -> None:
    for path in (redone / "index.html", *redone.glob("*.csv")):
        text = path.read_text(encoding="utf-8")
        assert "PAT-" not in text
        assert "secret" not in text
        assert "someone" not in text


def test_unfinished_cells_are_named_and_tasks_left_out(made_study: Callable[..., Path], tmp_path: Path) -> None:
    made_study(
        tmp_path / "skin", datasets=("skin",), models=MODELS[:2], classes=CLASSES["skin"], folds=2,
        missing=(("skin", MODELS[1], 1),),
    )  # fmt: skip
    text = Page(build_paper(tmp_path).read_text(encoding="utf-8")).text
    assert "4 networks on 1 task (skin), 3 of 4 finished" in text
    assert "Not finished: densenet_light, fold 1" in text
    assert "corrected resampled t" in text


def test_page_of_nothing_finished(tmp_path: Path) -> None:
    study = """
        name = "x"
        models = [{ name = "resnet10t" }]
        datasets = [{ name = "skin", path = "skin" }]
    """
    write_text(tmp_path / "skin" / "study.toml", study)
    text = Page(build_paper(tmp_path).read_text(encoding="utf-8")).text
    assert "No network is finished yet" in text


def test_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"brain, skin, chest"):
        build_paper(tmp_path)
