from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pellucid.data.leakage import check_leakage
from pellucid.data.manifest import Manifest, load_manifest
from pellucid.data.phantoms.draw import draw_phantom
from pellucid.report.findings import Accuracy, copies_finding, data_findings
from pellucid.report.leakage import scores_table, write_leakage


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[Path, Manifest]]:
    """Write the page of a small set with copies and patients, one of them in a file's name, into a folder."""
    root = tmp_path_factory.mktemp("set")
    rows = []
    for index in range(12):
        pixels = draw_phantom("skin", index, size=96).image
        name = f"KEY-{index:04d}_scan.png"
        Image.fromarray(pixels).save(root / name)
        rows.append((name, "ab"[index % 2], "train" if index < 8 else "test", f"KEY-{index:04d}", "ab"[index % 2] * 3))
        if index in (0, 1):
            name = f"copy{index}.{('png', 'jpg')[index]}"
            Image.fromarray((pixels, np.fliplr(pixels))[index]).save(root / name)
            rows.append((name, "a", "test", "", "aaa"))
    columns = ["path", "label", "split", "patient_id", "scanner"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "manifest.csv", index=False)

    def write(output: Path) -> tuple[Path, Manifest]:
        manifest = load_manifest(root, name="skin & co")
        return write_leakage(check_leakage(manifest), manifest, output), manifest

    return write


def test_the_page_shows_findings_and_pictures_and_loads_nothing(
    checked: Callable[[Path], tuple[Path, Manifest]], tmp_path: Path
) -> None:
    page, _ = checked(tmp_path)
    html = page.read_text()
    text = re.sub(r"[ \n]+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.S)))
    assert "skin &amp; co" in text
    assert "14 images (6 test, 8 training)" in text
    assert "1 of 6 test images (17\u00a0%) have a pixel-identical twin in the training part" in text
    assert "Near copies with different labels" in text
    assert "Class and source are confounded" in text
    assert "flipped left to right (" in text
    pictures = re.findall(r'<img src="([^"]+)" alt="([^"]+)"', html)
    assert len(pictures) == 4
    assert all(uri.startswith("data:image/webp;base64,") and alt for uri, alt in pictures)
    assert not re.search(r'(src|href)="(?!data:|#)', html)


def test_no_patient_reaches_any_file(checked: Callable[[Path], tuple[Path, Manifest]], tmp_path: Path) -> None:
    (tmp_path / "near-in-other-set.csv").write_text("left by a former check")
    page, manifest = checked(tmp_path)
    written = sorted(file.name for file in page.parent.iterdir())
    assert written == [
        "confounded.csv", "exact-copies.csv", "exact-in-training.csv", "findings.csv", "index.html",
        "near-conflicts.csv", "near-copies.csv", "near-in-training.csv",
    ]  # fmt: skip
    for file in page.parent.iterdir():
        assert "KEY-" not in file.read_text()
    table = pd.read_csv(page.parent / "exact-in-training.csv")
    assert table["sample"].tolist() == ["…_scan.png", "copy0.png"]
    # an image is found again by its number
    assert [sorted(manifest.table["sample"])[number - 1] for number in table["number"]] == [
        "KEY-0000_scan.png",
        "copy0.png",
    ]


def test_the_same_check_leaves_the_same_bytes(checked: Callable[[Path], tuple[Path, Manifest]], tmp_path: Path) -> None:
    first, second = checked(tmp_path / "a")[0].parent, checked(tmp_path / "b")[0].parent
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_scores_stand_with_and_without_the_copies() -> None:
    both = {"all": Accuracy(0.9, 0.8, 0.95, 100, 0.5), "without copies": Accuracy(0.6, 0.4, 0.7, 40, 0.5)}
    table = scores_table({"resnet": both, "vgg": {"all": both["all"]}})
    assert table is not None
    (row,) = table.rows
    assert [cell.text.replace("\u00a0", " ") for cell in row] == [
        "resnet", "90.0 % (80.0 % to 95.0 %)", "60.0 % (40.0 % to 70.0 %)", "30.0 points",
    ]  # fmt: skip
    assert [cell.small for cell in row[1:3]] == ["100 images", "40 images"]
    assert scores_table({"vgg": {"all": both["all"]}}) is None


def test_findings_count_near_copies_apart_and_alarm_of_sources() -> None:
    found = copies_finding(394, 259, {}, 8)
    assert found is not None
    assert "259 images of the 394" in found.text
    assert "(251 pixel-identical, 8 resized, recompressed, flipped or the like)." in found.text
    leaks = [
        {"kind": "confounded", "severity": "alarm", "count": 1, "sentence": "Site tells covid19."},
        {"kind": "exact-copies", "severity": "note", "count": 4, "sentence": "4 images are copies."},
    ]
    assert [(each.text, each.tone) for each in data_findings({"leakage": leaks})] == [("Site tells covid19.", "alarm")]
