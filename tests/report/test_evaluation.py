"""The page of an evaluation, made up with known ranks; the well-formed one and the odd ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pellucid.errors import InputError
from pellucid.report.evaluation import write_evaluation
from pellucid.report.ranked import fill_of, range_of
from references.pages import Page

STRENGTH = {"grad-cam": 0.30, "layer-cam": 0.27, "lime[samples=9]": 0.02, "random": 0.0, "sobel": 0.06}
METRICS = ("road", "road-morf", "pointing-game")
IMAGES = 24


def made_table(images: int = IMAGES, methods: tuple[str, ...] = tuple(STRENGTH)) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    rows = []
    for image in range(images):
        for method in methods:
            score = STRENGTH.get(method, 0.1) + 0.04 * draws.normal()
            for metric, value in zip(METRICS, (score, 0.5 - score, float(score > 0.1)), strict=True):
                empty = metric == "pointing-game" and image % 4 == 3
                rows.append((image, method, metric, np.nan if empty else value, "the mask is empty" if empty else ""))
    return pd.DataFrame(rows, columns=["sample", "method", "metric", "value", "reason"])


def made_samples(images: int = IMAGES) -> pd.DataFrame:
    places = np.arange(images)
    labels = np.array(["ill", "well", "worse"])[places % 3]
    return pd.DataFrame(
        {
            "sample": [f"{label}/PAT-{place // 2:03d}_scan{place:02d}.png" for place, label in enumerate(labels)],
            "patient_id": [f"PAT-{place // 2:03d}" for place in places],
            "label": labels,
            "predicted": np.where(places % 5 == 1, "ill", labels),
        }
    )


def made_verdicts(images: int = IMAGES) -> pd.DataFrame:
    words = ("trusted", "doubtful", "not trusted")
    rows = [
        (image, method, words[(image + place) % 3], f"scores 0.1{place} above PAT-{image // 2:03d}’s floor")
        for image in range(images)
        for place, method in enumerate(("grad-cam", "layer-cam"))
    ]
    return pd.DataFrame(rows, columns=["sample", "method", "verdict", "evidence"])


def by_name(table: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    return table.assign(sample=samples["sample"].to_numpy()[table["sample"]])


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("evaluation")
    samples = made_samples()
    verdicts = by_name(made_verdicts(), samples)
    path = write_evaluation(
        by_name(made_table(), samples), output, samples=samples, verdicts=verdicts, title="Chest, resnet18"
    )
    assert path == output / "index.html"
    return output


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return page_of(folder / "index.html")


def test_the_page_needs_nothing_from_elsewhere(folder: Path, page: Page) -> None:
    assert "script" not in page.tags
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(page.alts)
    assert page.headless == 0


def test_findings_tell_unit_counts_and_the_floor(page: Page) -> None:
    assert "24 images, 5 methods, 2 of them controls, 3 metrics." in page.text
    assert "Methods are paired by patient (12 patients, 24 images); a patient’s images are averaged first." in page.text
    assert "30 of 360 values are missing" in page.text
    assert re.search(r"The network is right on \d+ of 24 images whose class is known", page.text)
    assert re.search(
        r"The methods differ over 12 patients \(Friedman’s χ² [\d.]+ on 4, corrected p < 0.001\)", page.text
    )
    assert "2 of 3 methods beat the best control, Sobel edges" in page.text


def test_each_metric_stands_with_direction_range_fill_and_a_diagram(page: Page) -> None:
    assert "Confidence increase (ROAD) ↑" in page.text
    assert "MoRF ↓" in page.text
    assert "Higher is better; from −0.5 to 0.5. Removed pixels are filled by “linear”" in page.text
    assert "Lower is better; from 0 to 1." in page.text
    diagrams = [alt for alt in page.alts if alt and alt.startswith("Critical-difference diagram of")]
    assert len(diagrams) == len(METRICS)
    assert "Grad-CAM" in diagrams[0]
    assert "Critical difference 1.7" in diagrams[0]  # 2.728 · sqrt(5 · 6 / (6 · 12)) = 1.761


def test_classes_stand_apart_by_right_and_wrong_predictions(page: Page) -> None:
    assert "Confidence increase (ROAD) ↑, mean by true class" in page.text
    assert "Confidence increase (ROAD) ↑, mean rank by true class" in page.text
    assert "All classes all 12" in page.text
    assert "worse all" in page.text


def test_missing_values_are_counted_with_reasons(folder: Path, page: Page) -> None:
    assert "Missing values" in page.text
    assert "Pointing game the mask is empty 30 6 each of 5 methods" in page.text
    missing = pd.read_csv(folder / "missing.csv")
    assert missing["images"].sum() == 30


def test_verdicts_are_words_beside_colours_and_counted(folder: Path, page: Page) -> None:
    for words in ("✓ trusted", "? doubtful", "✗ not trusted", "Images by verdict", "What each verdict rests on"):
        assert words in page.text
    assert "Grad-CAM 8 33 % 8 33 % 8 33 %" in page.text
    assert "scores 0.10 above …’s floor" in page.text
    html = (folder / "index.html").read_text(encoding="utf-8")
    cells = re.findall(r'<td style="background:(#\w+);color:(#\w+)">([^<]*trusted|[^<]*doubtful)', html)
    assert len({colours[:2] for colours in cells}) == 3
    assert {word.replace("\u00a0", " ") for *_, word in cells} == {"✓ trusted", "? doubtful", "✗ not trusted"}
    sheet = pd.read_csv(folder / "verdicts.csv")
    assert len(sheet) == 2 * IMAGES
    assert list(sheet.columns) == ["number", "image", "method", "verdict", "evidence"]


def test_no_patient_is_told(folder: Path) -> None:
    files = list(folder.iterdir())
    assert {file.name for file in files} == {"index.html", "ranks.csv", "tests.csv", "missing.csv", "verdicts.csv"}
    for file in files:
        assert "PAT-" not in file.read_text(encoding="utf-8"), file
    assert "ill/…_scan00.png" in (folder / "index.html").read_text(encoding="utf-8")


def test_an_absolute_path_is_cut_to_its_file_also_without_patients(tmp_path: Path) -> None:
    samples = pd.DataFrame({"sample": [f"/home/someone/secret/scan{place}.png" for place in range(IMAGES)]})
    verdicts = by_name(made_verdicts(), samples)
    table = by_name(made_table(), samples)
    table.loc[0, ["value", "reason"]] = [np.nan, "can't read /home/someone/secret/map.npy"]
    html = write_evaluation(table, tmp_path, samples=samples, verdicts=verdicts).read_text(encoding="utf-8")
    assert "scan3.png" in html
    assert "can&#39;t read map.npy" in html
    assert "secret" not in html + (tmp_path / "missing.csv").read_text() + (tmp_path / "verdicts.csv").read_text()


def test_the_same_tables_give_the_same_page(folder: Path, tmp_path: Path) -> None:
    samples = made_samples()
    again = write_evaluation(
        by_name(made_table(), samples), tmp_path, samples=samples, title="Chest, resnet18",
        verdicts=by_name(made_verdicts(), samples),
    )  # fmt: skip
    assert again.read_bytes() == (folder / "index.html").read_bytes()


def test_a_table_alone_is_enough(tmp_path: Path) -> None:
    path = write_evaluation(made_table(), tmp_path)
    page = page_of(path)
    assert "no patients are known" in page.text
    assert "Can I trust this map?" not in page.text
    assert "By true class" not in page.text
    assert not (tmp_path / "verdicts.csv").exists()
    ranks = pd.read_csv(tmp_path / "ranks.csv")
    best = ranks[ranks["metric"] == "road"].sort_values("mean_rank")["method"].iloc[0]
    assert best == "grad-cam"


def test_images_named_apart_and_numbered_patients_are_shown_by_name(tmp_path: Path) -> None:
    samples = made_samples().assign(sample=range(IMAGES), patient_id=[str(place // 2) for place in range(IMAGES)])
    samples["image"] = [f"{label}/….png" for label in samples["label"]]
    samples["target"] = samples["predicted"]
    page = page_of(write_evaluation(made_table(), tmp_path, samples=samples, verdicts=made_verdicts()))
    assert "Image 1 ill/….png" in page.text
    assert "Image 2 well/….png" in page.text
    assert re.search(r"The class that was explained: ill in \d+ images, ", page.text)


def test_a_network_no_better_than_the_commonest_class_is_an_alarm(tmp_path: Path) -> None:
    samples = made_samples().assign(predicted="ill", label=np.where(np.arange(IMAGES) < 8, "ill", "well"))
    page = page_of(write_evaluation(made_table(), tmp_path, samples=samples))
    assert "The network is right on 33 % of these images; always naming the commonest class would be right on 67 %" in (
        page.text
    )


def test_methods_no_better_than_controls_are_an_alarm(tmp_path: Path) -> None:
    table = made_table()
    table.loc[~table["method"].isin(["random", "sobel"]), "value"] = 0.0
    table.loc[(table["metric"] == "road-morf") & ~table["method"].isin(["random", "sobel"]), "value"] = 1.0
    page = page_of(write_evaluation(table, tmp_path))
    assert "By no metric is any method shown to be better than the best control" in page.text


def test_without_controls_the_page_says_that_there_is_no_floor(tmp_path: Path) -> None:
    page = page_of(write_evaluation(made_table(methods=("grad-cam", "layer-cam", "lime")), tmp_path))
    assert "No control was scored, so that no number has a floor." in page.text
    assert "Less best control" not in page.text


def test_two_methods_are_tested_and_drawn(tmp_path: Path) -> None:
    page = page_of(write_evaluation(made_table(methods=("grad-cam", "random")), tmp_path))
    assert "Wilcoxon’s signed ranks" in page.text
    assert sum("Critical-difference diagram of" in (alt or "") for alt in page.alts) == len(METRICS)


@pytest.mark.parametrize(("images", "methods"), [(2, tuple(STRENGTH)), (1, ("grad-cam",)), (5, ("grad-cam",))])
def test_too_little_for_a_test_is_said(tmp_path: Path, images: int, methods: tuple[str, ...]) -> None:
    page = page_of(write_evaluation(made_table(images, methods), tmp_path))
    assert "Not tested: " in page.text
    assert "only" in page.text
    assert page.sources == []


def test_metrics_without_values_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    table = made_table()
    table.loc[table["metric"] == "pointing-game", ["value", "reason"]] = [np.nan, "no masks were given"]
    page = page_of(write_evaluation(table, tmp_path))
    assert "pointing-game: no image has a value." in page.text
    assert "no masks were given" in page.text
    assert "Localisation Does the map" not in page.text
    table["value"] = np.nan
    nothing = page_of(write_evaluation(table, tmp_path / "nothing"))
    assert "No metric has a value by which methods could be ranked." in nothing.text


def test_markup_in_names_is_shown_and_not_run(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    samples = made_samples().assign(label=nasty)
    table = made_table(methods=("grad-cam", nasty, "random"))
    page = page_of(write_evaluation(table, tmp_path, samples=samples, title=nasty))
    assert "script" not in page.tags
    assert nasty in page.text


def test_twenty_methods_with_long_names_have_a_whole_page(tmp_path: Path) -> None:
    methods = (*(f"integrated-gradients[baseline=blur,steps={steps}]" for steps in range(18)), "random", "sobel")
    path = write_evaluation(made_table(8, methods), tmp_path)
    page = page_of(path)
    assert 'class="table matrix upright"' in path.read_text(encoding="utf-8")
    assert "20 methods, 2 of them controls" in page.text
    assert "Integrated gradients [baseline=blur,steps=17]" in page.text


def test_many_images_are_shown_in_part_and_listed_whole(tmp_path: Path) -> None:
    table, verdicts = made_table(120, ("grad-cam", "layer-cam", "random")), made_verdicts(120)
    page = page_of(write_evaluation(table, tmp_path, verdicts=verdicts))
    assert "The first 100 of 120 images; verdicts.csv has all." in page.text
    assert "Image 101" not in page.text
    assert len(pd.read_csv(tmp_path / "verdicts.csv")) == 240


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "fine"}, "verdicts: expected a verdict of trusted, doubtful and not trusted, got 'fine'"),
        ({"sample": 999}, "verdicts: expected samples that the table has, got 999"),
    ],
)
def test_verdicts_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_evaluation(made_table(), tmp_path, verdicts=made_verdicts().assign(**change))
    with pytest.raises(InputError, match="verdicts: expected columns"):
        write_evaluation(made_table(), tmp_path, verdicts=made_verdicts().drop(columns="evidence"))
    assert not (tmp_path / "index.html").exists()


def test_fill_and_range_in_words() -> None:
    assert range_of("pointing-game") == "from 0 to 1"
    assert fill_of("road[noise=0.0]") == fill_of("road-lerf") != ""
    assert fill_of("energy-pointing") == ""
    assert fill_of("deletion[fill=blur]").startswith(("blur", "“blur”"))
