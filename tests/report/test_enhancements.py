"""Networks crossed with enhancements, as the report shows them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from pellucid.data.enhancements import enhance
from pellucid.report.build import build_report
from pellucid.report.enhancements import crossed_tables, enhanced_examples, enhancement_tests_tables
from pellucid.report.gallery import as_seen, gallery
from pellucid.report.names import number, p_value
from pellucid.report.read import StudyResult, read_study

METRICS = ("accuracy", "macro_f1", "auroc")
Make = Callable[..., Path]

ENHANCEMENTS = ("none", "clahe", "gamma[gamma=0.7]")
MODELS = ("resnet18", "mobilenetv3_small_100")


@pytest.fixture(scope="module")
def crossed(made_study: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_study(
        tmp_path_factory.mktemp("crossed") / "run",
        models=MODELS,
        enhancements=ENHANCEMENTS,
        folds=3,
        test=30,
        explained=0,
        missing=[("brain", "mobilenetv3_small_100 + clahe", fold) for fold in range(3)],
        accuracy=0.6,
    )


@pytest.fixture(scope="module")
def study(crossed: Path) -> StudyResult:
    return read_study(crossed)


def test_a_row_per_network_and_metric_and_a_column_per_enhancement(study: StudyResult) -> None:
    dataset = study.datasets[0]
    models, tests = study.table("models", "brain"), study.table("enhancement_tests", "brain")
    (table,) = crossed_tables(dataset, models, tests, 0.95)
    assert list(table.columns) == ["Network", "Metric", "none", "clahe", "gamma [gamma=0.7]"]
    assert [(row[0].text, row[1].text) for row in table.rows] == [
        (network, metric) for network in MODELS for metric in ("Accuracy", "Macro F1", "AUROC")
    ]
    answers = {
        (cell.card["network"], cell.card["enhancement"]): pd.concat(
            [each.test for each in dataset.cells if each.model == cell.model]
        )
        for cell in dataset.cells
    }
    for network, f1_row, auroc_row in zip(MODELS, table.rows[1::3], table.rows[2::3], strict=True):
        for enhancement, f1, auroc in zip(ENHANCEMENTS, f1_row[2:], auroc_row[2:], strict=True):
            if (network, enhancement) in answers:
                said = answers[network, enhancement]
                truth, shares = said["label"], said[[f"prob_{name}" for name in dataset.classes]]
                wanted = f1_score(truth, said["predicted"], average="macro")
                assert f1.text.split()[0] == f"{wanted:.3f}"
                wanted = roc_auc_score(truth, shares, multi_class="ovr", average="macro", labels=list(dataset.classes))
                assert auroc.text.split()[0] == f"{wanted:.3f}"
    for network, row in zip(MODELS, table.rows[::3], strict=True):
        values = {}
        for enhancement, cell in zip(ENHANCEMENTS, row[2:], strict=True):
            if (network, enhancement) not in answers:
                assert cell.text == "–"  # as was left out above
                continue
            values[enhancement] = answers[network, enhancement]["correct"].mean()
            assert cell.text.split()[0] == f"{values[enhancement]:.3f}"
            low, high = (float(end) for end in cell.small.strip("[]").split(", "))
            assert low <= values[enhancement] <= high
        strong = [name for name, cell in zip(ENHANCEMENTS, row[2:], strict=True) if cell.strong]
        assert strong == [name for name in values if values[name] == max(values.values())]


def test_a_difference_that_is_shown_is_marked_and_others_are_not(study: StudyResult) -> None:
    dataset, models = study.datasets[0], study.table("models", "brain")
    tests = study.table("enhancement_tests", "brain").copy()
    tests["p_adjusted"], tests["mean_difference"] = 0.3, 0.1
    (unmarked,) = crossed_tables(dataset, models, tests, 0.95)
    assert not re.search("[▲▼]", "".join(cell.text for row in unmarked.rows for cell in row))
    shown = (tests["model"] == "resnet18") & (tests["a"] == "clahe") & (tests["metric"] == "accuracy")
    tests.loc[shown & (tests["test"] == "corrected-resampled-t"), "p_adjusted"] = 0.01
    (marked,) = crossed_tables(dataset, models, tests, 0.95)
    assert marked.rows[0][3].text.endswith(" ▲")
    assert sum("▲" in cell.text for row in marked.rows for cell in row) == 1
    tests.loc[shown, "mean_difference"] = -0.1
    assert crossed_tables(dataset, models, tests, 0.95)[0].rows[0][3].text.endswith(" ▼")
    # the paired t alone, which folds that share training images make too sure, marks nothing where the other is there
    tests.loc[shown, "p_adjusted"] = np.where(tests.loc[shown, "test"] == "paired-t", 0.01, 0.3)
    assert crossed_tables(dataset, models, tests, 0.95)[0].rows[0][3].text[-1] not in "▲▼"


def test_the_tests_are_listed_with_what_was_subtracted(study: StudyResult) -> None:
    tests = study.table("enhancement_tests", "brain")
    assert len(tests) == 3 * 3 * 2  # three enhancements that are there, metrics, tests
    (table,) = enhancement_tests_tables(tests)
    assert [[cell.text for cell in row[:3]] for row in table.rows] == [
        ["resnet18", "clahe", "3 folds"],
        ["resnet18", "gamma [gamma=0.7]", "3 folds"],
        ["mobilenetv3_small_100", "gamma [gamma=0.7]", "3 folds"],
    ]
    assert list(table.sizes) == [2, 1]
    assert [name.split(",")[0] for name in table.columns[3::2]] == ["Accuracy", "Macro F1", "AUROC"]
    corrected = tests[(tests["test"] == "corrected-resampled-t") & (tests["model"] == "resnet18")]
    entries = zip(METRICS, table.rows[0][3::2], table.rows[0][4::2], strict=True)
    for metric, difference, p in entries:
        known = corrected[(corrected["metric"] == metric) & (corrected["a"] == "clahe")].iloc[0]
        assert difference.text == number(known["mean_difference"])
        assert p.text == p_value(known["p_adjusted"])
        assert p.small.startswith(f"d {number(known['effect_size'], 2)} [")
    assert enhancement_tests_tables(tests.iloc[:0]) == []


def test_each_class_is_shown_under_each_enhancement(study: StudyResult) -> None:
    groups = enhanced_examples(study.datasets[0])
    assert [group.title for group in groups] == ["glioma", "meningioma", "no tumour"]
    for group in groups:
        assert [picture.caption for picture in group.pictures] == ["none", "clahe", "gamma [gamma=0.7]"]
        assert len({picture.uri for picture in group.pictures}) == len(ENHANCEMENTS)


def test_pictures_are_enhanced_as_networks_saw_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    wanted = enhance(torch.from_numpy(image).float() / 255, "clahe").numpy() * 255
    assert np.abs(as_seen(image, "clahe").astype(float) - wanted).max() <= 0.51
    assert as_seen(image, "none") is image


def test_maps_lie_over_images_as_the_network_saw_them(made_study: Make, tmp_path: Path) -> None:
    enhancements = ("none", "negative")
    folder = made_study(
        tmp_path / "run", models=("resnet18",), enhancements=enhancements, test=12, explained=12, methods=("sobel",)
    )
    dataset = read_study(folder).datasets[0]
    for model in ("resnet18", "resnet18 + negative"):
        found = gallery(dataset, model)
        assert found is not None
        changed = model != "resnet18"
        assert ("Images are shown as negative leaves them." in found.note) == changed
        for strip in found.strips:
            data = base64.b64decode(strip.pictures[0].uri.partition(",")[2])
            corner = np.asarray(Image.open(io.BytesIO(data)).convert("L"))[:8, :8]  # black around the head
            assert abs(float(corner.mean()) - 255 * changed) < 5


def test_the_page_has_them_and_a_csv(crossed: Path) -> None:
    page = build_report(crossed).read_text(encoding="utf-8")
    assert "Networks and enhancements" in page
    assert "Enhancements against none" in page
    assert (crossed / "report" / "enhancement_tests.csv").is_file()


def test_a_study_of_one_enhancement_has_no_such_part(made_study: Make, tmp_path: Path) -> None:
    folder = made_study(tmp_path / "run", explained=0, test=12)
    study = read_study(folder)
    assert crossed_tables(study.datasets[0], study.table("models", "brain"), pd.DataFrame(), 0.95) == []
    assert "<h4>Enhancements</h4>" not in build_report(folder).read_text(encoding="utf-8")
