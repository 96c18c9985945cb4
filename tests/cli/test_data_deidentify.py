"""`pellucid data deidentify` from a user's side: what it says, leaves, and returns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from pellucid.cli.main import main
from pellucid.data.dicom.deidentify import folder as folder_module
from pellucid.data.dicom.deidentify.check import Problem


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("CT_small.dcm", "examples_palette.dcm"):
        shutil.copyfile(str(get_testdata_file(name)), folder / name)
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_a_folder_is_de_identified_and_its_traces_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["data", "deidentify", str(source), "--output", str(out), "--dates", "shift"]
    assert main([*command, "--keep", "patient-characteristics,device", "--clean", "descriptors"]) == 0
    told = capsys.readouterr()
    assert "2 files de-identified, 1 left out." in told.out
    assert "1 picture seems to bear burned-in text." in told.out
    assert "2 files read back" in told.out
    assert "nothing of the source's identifiers was found" in told.out
    assert f"key: {out}.key" in told.out
    assert f"burned-in text: {out}.review/index.html" in told.out
    assert "notes.txt: not a DICOM file" in told.err
    assert "CompressedSamples" not in told.out + told.err
    page = (tmp_path / "out.review" / "index.html").read_text()
    assert "seems to bear text" in page
    assert page.count("<img") == 1
    files = [pydicom.dcmread(path) for path in out.rglob("*.dcm")]
    codes = [item.CodeValue for item in files[0].DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113108", "113109", "113105", "113107"]
    ct = next(each for each in files if each.Modality == "CT")
    assert ct.PatientSex == "O"
    assert ct.StudyDate not in ("", "20040119")
    assert main([*command, "--keep", "patient-characteristics,device", "--clean", "descriptors"]) == 0
    assert "0 files de-identified, 2 were there, 1 left out." in capsys.readouterr().out


def test_pixels_are_cleaned_and_boxes_given_back(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "deidentify", str(source), "-o", str(tmp_path / "a")]) == 0
    assert main(["data", "deidentify", str(source), "-o", str(tmp_path / "b"), "--clean-pixels"]) == 0
    assert "seem" not in capsys.readouterr().out.split("log:")[-1]
    table = tmp_path / "a.review" / "boxes.csv"
    command = ["data", "deidentify", str(source), "-o", str(tmp_path / "c"), "--key", str(tmp_path / "a.key")]
    assert main([*command, "--boxes", str(table), "--keep-map", str(tmp_path / "map.csv")]) == 0
    assert f"map: {tmp_path / 'map.csv'}" in capsys.readouterr().out
    states = {pydicom.dcmread(path).get("BurnedInAnnotation") for path in (tmp_path / "c").rglob("*.dcm")}
    assert "NO" in states


def test_a_leak_is_told_and_is_an_exit_status(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leak = [Problem("a.dcm", "leak", "(0010,0010) PatientName has its value still")]
    monkeypatch.setattr(folder_module, "check_file", lambda *_, **__: leak)
    assert main(["data", "deidentify", str(source), "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "2 that may tell whose they are" in told
    assert "a.dcm: (0010,0010) PatientName has its value still" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dates", "move"], "dates: expected 'remove', 'shift' or 'keep', got 'move'."),
        (["--keep", "names"], "unknown part to keep 'names'."),
        (["--clean", "descriptor"], "unknown part to clean 'descriptor'. Did you mean 'descriptors'"),
        (["--boxes", "gone.csv"], "boxes: can't read gone.csv"),
    ],
)
def test_what_can_not_be_used_is_one_clear_line(
    source: Path, tmp_path: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "deidentify", str(source), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
