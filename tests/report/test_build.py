"""Whole reports of made-up studies, the well-formed one and the odd ones."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pellucid.errors import InputError
from pellucid.report.build import build_report
from references.pages import Page

Make = Callable[..., Path]
FEW = ("xgrad-cam", "grad-cam", "sobel")  # methods where the case isn't about them


def page_of(output: Path) -> Page:
    path = build_report(output)
    assert path == output / "report" / "index.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def whole(made_study: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, two models, many copies, one cell missing."""
    return made_study(
        tmp_path_factory.mktemp("whole"),
        datasets=("brain", "skin"),
        copies=0.65,
        accuracy=0.35,
        unreadable=[("a/b<c>.png", "truncated file")],
        notes=["No ages are known."],
        missing=[("skin", "resnet18", 0)],
    )


@pytest.fixture(scope="module")
def page(whole: Path) -> Page:
    return page_of(whole)


def test_the_report_needs_nothing_from_elsewhere(whole: Path, page: Page) -> None:
    html = (whole / "report" / "index.html").read_text(encoding="utf-8")
    assert "script" not in page.tags
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"url\(\s*['\"]?http|@import|src=['\"]http", html)
    assert len(html) < 5_000_000


def test_every_link_of_the_contents_leads_somewhere(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_the_report_can_be_read_without_seeing_it(page: Page) -> None:
    assert all(page.alts)
    assert page.headless == 0


def test_copies_are_an_alarm_with_both_accuracies(page: Page) -> None:
    assert re.search(r"are pixel-identical copies of training images", page.text)
    assert re.search(r"resnet18: accuracy [\d.]+ % \([\d.]+ % to [\d.]+ %\) on all test images, [\d.]+ %", page.text)
    assert "without copies" in page.text


def test_a_missing_cell_is_named_and_the_rest_is_shown(page: Page) -> None:
    assert "3 of 4 finished" in page.text
    assert "Not finished: resnet18 isn’t in this report" in page.text


def test_findings_name_grid_and_coinciding_methods_and_controls(page: Page) -> None:
    assert "grid of 4 × 4 at layer layer4" in page.text
    assert "XGrad-CAM and Grad-CAM give the same map up to scale on resnet18" in page.text
    assert "Sobel edges" in page.text
    assert "identical" in page.text


def test_no_patient_and_no_path_is_told(whole: Path, page: Page) -> None:
    assert "PAT-" not in (whole / "report" / "index.html").read_text(encoding="utf-8")
    assert "/home/someone" not in page.text
    assert "secret" not in page.text
    for sheet in (whole / "report").glob("*.csv"):
        assert "PAT-" not in sheet.read_text()


def test_notes_reasons_and_names_of_skipped_files_tell_no_patient(made_study: Make, tmp_path: Path) -> None:
    output = made_study(
        tmp_path,
        methods=FEW,
        models=("resnet18",),
        explained=4,
        notes=["Masks missing for 3 images, e.g. PAT-0000/scan.png."],
        unreadable=[("train/glioma/PAT-9999.png", "can't open /home/someone/secret/PAT-0001.png")],
    )
    page = page_of(output)
    assert "PAT-" not in page.text
    assert "/home/someone" not in page.text
    assert "Masks missing for 3 images, e.g. …/scan.png." in page.text
    assert "train/glioma/….png" in page.text


def test_sections_of_the_issue_are_there(page: Page) -> None:
    for words in (
        "Images per class and part", "Examples of each class", "Leakage", "Files that couldn’t be read", "The networks",
        "Models on the test images", "All measures of mobilenetv3_small_100", "All classes together", "Cohen’s κ",
        "Tests between models", "Confusion matrices", "Confidence increase by true class",
        "MoRF", "LeRF", "Pointing game", "Relevance mass", "Tests between methods", "Mean ranks of the methods",
        "A bar joins methods that aren’t told apart", "Time per image", "Gallery",
        "How it was made", "How to cite", "arXiv:2503.08420", "Glossary", "No ages are known.", "data-set",
    ):  # fmt: skip
        assert words in page.text, words


def test_the_gallery_shows_right_and_wrong_with_class_and_probability(page: Page) -> None:
    assert re.search(r"✓ right true glioma · predicted glioma · probability of glioma \d+ %", page.text)
    assert re.search(r"✗ wrong true glioma · predicted (meningioma|no tumour) · probability of", page.text)
    assert "Colour scale from no evidence to the map’s maximum" in page.alts
    assert "(no evidence)" in page.text  # the map that is zero everywhere


def test_pictures_open(page: Page) -> None:
    pictures = [source for source in page.sources if not source.startswith("data:image/svg")]
    for source in pictures[:: max(1, len(pictures) // 12)]:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.width <= 256


def test_tables_stand_beside_the_report_as_csv(whole: Path, page: Page) -> None:
    folder = whole / "report"
    names = {path.stem for path in folder.glob("*.csv")}
    assert {
        "counts",
        "models",
        "model_tests",
        "confusion",
        "scores",
        "confidence_increase",
        "method_ranks",
        "times",
    } <= names
    confusion = pd.read_csv(folder / "confusion.csv")
    brain = confusion[
        (confusion["dataset"] == "brain") & (confusion["model"] == "resnet18") & (confusion["images"] == "all")
    ]
    assert brain["count"].sum() == 60
    wide = pd.read_csv(folder / "confidence_increase.csv")
    overall = wide[(wide["dataset"] == "brain") & (wide["model"] == "resnet18") & (wide["images"] == "all")]
    overall = overall[(overall["label"] == "all") & (overall["correct"] == "all")]
    scores = pd.read_parquet(whole / "brain/resnet18/fold-0/scores.parquet")
    road = scores[(scores["metric"] == "road") & (scores["method"] == "layer-cam")]["value"]
    assert overall["layer-cam"].item() == pytest.approx(road.mean())


def test_the_same_files_give_the_same_report(whole: Path, page: Page) -> None:
    first = (whole / "report" / "index.html").read_bytes()
    assert build_report(whole).read_bytes() == first


def test_markup_in_names_is_shown_and_not_run(made_study: Make, tmp_path: Path) -> None:
    nasty = ("<script>alert(1)</script>", 'a "b" & c', "none")
    output = made_study(tmp_path, methods=FEW, classes=nasty, notes=["<b>note</b>"], models=("resnet18",), explained=6)
    page = page_of(output)
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "<b>note</b>" in page.text


def test_without_masks_localisation_is_left_out(made_study: Make, tmp_path: Path) -> None:
    page = page_of(made_study(tmp_path, methods=FEW, masks=False, models=("resnet18",), explained=6))
    assert "Where the maps lie" not in page.text
    assert "Lesion outline" not in page.text
    assert "inside the lesion" not in page.text
    assert "One model only" in page.text
    assert "Tests between models" not in page.text


def test_folds_are_pooled_and_told(made_study: Make, tmp_path: Path) -> None:
    page = page_of(made_study(tmp_path, methods=FEW, folds=3, test=18, explained=4, missing=[("brain", "resnet18", 1)]))
    assert "Accuracy per fold, all test images" in page.text
    assert "Smallest and largest count over 3 folds" in page.text
    assert "resnet18, fold 1 isn’t in this report" in page.text
    assert "mobilenetv3_small_100, 54 test images" in page.text
    assert "Fold 0." in page.text


def test_a_class_never_predicted_is_named(made_study: Make, tmp_path: Path) -> None:
    page = page_of(made_study(tmp_path, methods=FEW, never_predicted="meningioma", models=("resnet18",), explained=6))
    assert "resnet18 never predicts meningioma" in page.text
    assert "Never predicted: meningioma." in page.text


def test_two_classes_and_signed_maps_in_colour(made_study: Make, tmp_path: Path) -> None:
    page = page_of(made_study(tmp_path, methods=FEW, classes=("sick", "well"), signed=True, channels=3, explained=8))
    assert "Colour scale of signed maps, from evidence against to evidence for the class" in page.alts


def test_ranks_of_the_methods_stand_as_a_diagram_and_beside_the_controls(whole: Path, page: Page) -> None:
    ranks = pd.read_csv(whole / "report" / "method_ranks.csv")
    road = ranks[(ranks["dataset"] == "brain") & (ranks["model"] == "resnet18") & (ranks["metric"] == "road")]
    road = road[road["images"] == "all"].set_index("method")
    assert road["mean_rank"].idxmin() in ("xgrad-cam", "grad-cam")
    assert road.loc["xgrad-cam", "mean_rank"] == road.loc["grad-cam", "mean_rank"]  # the same map up to scale
    assert road["best_control"].unique().tolist() == ["sobel"]
    (alt,) = [alt for alt in page.alts if alt and "Critical-difference diagram" in alt and "resnet18," not in alt][:1]
    assert f"XGrad-CAM {road.loc['xgrad-cam', 'mean_rank']:.2f}" in alt
    assert f"Critical difference {road['critical_difference'].iloc[0]:.2f}" in alt


def test_nothing_explained_is_said(made_study: Make, tmp_path: Path) -> None:
    page = page_of(made_study(tmp_path, methods=FEW, explained=0, patients=False))
    assert "No image of resnet18 was explained" in page.text
    assert "No patients are known" in page.text
    assert "Models on the test images" in page.text
    assert "No image was explained, or its picture isn’t there." in page.text


def test_nine_long_names_are_written_upwards(made_study: Make, tmp_path: Path) -> None:
    long = tuple(f"pigmented benign keratosis number {number}" for number in range(9))
    output = made_study(tmp_path, methods=FEW, classes=long, models=("resnet18",), explained=9)
    page_of(output)
    assert 'class="table matrix upright"' in (output / "report" / "index.html").read_text(encoding="utf-8")


def test_no_pictures_no_statistics_no_environment(made_study: Make, tmp_path: Path) -> None:
    output = made_study(tmp_path, methods=FEW, pictures=False, models=("resnet18",), explained=6)
    shutil.rmtree(output / "statistics")
    (output / "environment.json").unlink()
    (output / "splits.parquet").unlink()
    page = page_of(output)
    assert "Confusion matrices" in page.text
    assert "isn’t there" in page.text


def test_a_study_killed_at_once_still_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        'models = ["resnet18"]\n[[datasets]]\nname = "brain"\npath = "phantom:brain"\n'
    )
    page = page_of(tmp_path)
    assert "No network is finished yet." in page.text
    assert "This data set wasn’t read yet." in page.text
    assert "0 of 1 finished" in page.text


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"output: expected the folder of a study"):
        build_report(tmp_path)
