from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.cli.main import main
from pellucid.data.phantoms.draw import draw_phantom


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for index in range(6):
        place = root / ("train", "test")[index // 4] / "ab"[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_phantom("brain", index, size=96).image).save(place)
    mirrored = np.fliplr(draw_phantom("brain", 0, size=96).image)
    Image.fromarray(mirrored).save(root / "test" / "a" / "mirrored.png")
    return root


def test_a_folder_is_checked_and_a_page_left(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(folder), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out.replace("\u00a0", " ")
    assert "Alarm    1 of 3 test images (33 %) have a near copy, but no identical twin, in the training part" in out
    assert "Note     No patient ids are known" in out
    assert f"page: {tmp_path / 'out' / 'index.html'}" in out
    assert (tmp_path / "out" / "near-in-training.csv").exists()


def test_near_copies_can_be_left_out_and_a_second_set_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(folder), "--no-near"]) == 0
    assert "near copy" not in capsys.readouterr().out
    assert main(["data", "check", str(folder / "test"), "--against", str(folder)]) == 0
    out = capsys.readouterr().out.replace("\u00a0", " ")
    assert "3 of 3 images (100 %) have a pixel-identical copy in" in out
    assert "1 of 3 images (33 %) have a near copy in" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone"], "path: expected a folder of images or a manifest file, got 'gone', which isn't there."),
        ([".", "--threshold", "1.5"], "threshold: expected a similarity from 0.5 to 1, got 1.5."),
    ],
)
def test_what_can_not_be_used_is_one_clear_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", *arguments]) == 2
    assert told in capsys.readouterr().err
