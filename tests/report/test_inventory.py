"""The page of a DICOM folder: what it counts, what it shows, and that it names nobody."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from pellucid.cli.main import main
from pellucid.data.dicom.inventory import COLUMNS, Inventory, take_inventory
from pellucid.report.inventory import PICTURE, bars_of, fields_table, thumbnails, write_inventory

from references.burned import burned  # isort: skip


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three slices of three patients, one with words burned in, and a text."""
    root = tmp_path / "Zebrowski"
    random = np.random.default_rng(3)
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm", "CT_small.dcm")):
        dataset = pydicom.dcmread(Path(str(get_testdata_file(name))))
        dataset.PatientID, dataset.PatientName = f"MRN{number}", "Zebrowski^Anna"
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"1.9.{number}.2", f"1.9.{number}.1"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.9.{number}.3"
        dataset.PatientAge, dataset.InstitutionName, dataset.SeriesDescription = (
            f"0{number}1Y",
            "St. Zebra",
            "Zebrowski",
        )
        if number == 2:
            values, _ = burned(np.full((1, 128, 256), 60, np.uint8), random)
            dataset.Rows, dataset.Columns, dataset.BodyPartExamined = 128, 256, "HEAD"
            dataset.PixelData = (values[0].astype(np.int16) * 4).tobytes()
        root.mkdir(exist_ok=True)
        dataset.save_as(root / f"Zebrowski{number}.dcm")
    (root / "Zebrowski.txt").write_text("none")
    return root


def test_the_page_counts_shows_and_names_nobody(folder: Path, tmp_path: Path) -> None:
    assert main(["data", "convert", str(folder), "-o", str(tmp_path / "out"), "--label", "Modality"]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    for text in ("ebrowski", "St. Zebra", "MRN1", "1.9.1.2", "SeriesDescription", "http:", "https:"):
        assert text not in page.replace("http://www.w3.org", "").replace("https://www.w3.org", ""), text
    assert "3 pictures, 3 series, 3 studies, 3 patients." in page
    assert page.count("<figcaption>CT · GE MEDICAL SYSTEMS RHAPSODE") == 1
    assert "burned-in text blackened" in page
    assert "not a DICOM file" in page
    assert (tmp_path / "out" / PICTURE).read_bytes().startswith(b"\x89PNG")
    manifest = (tmp_path / "out" / "manifest.csv").read_text()
    assert "ebrowski" not in manifest
    assert "site-1" in manifest


def test_names_are_asked_for(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", str(folder), "-o", str(tmp_path / "out"), "--keep-ids", "--pictures"]) == 0
    manifest = (tmp_path / "out" / "manifest.csv").read_text()
    assert "MRN1" in manifest
    assert "St. Zebra" in manifest
    assert not (tmp_path / "out.key").exists()
    assert "1 file left out" in capsys.readouterr().out


def test_what_can_not_be_used_is_one_clear_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--label", "folder", "--labels", "x.csv"]
    assert main(["data", "convert", str(folder), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert "label: expected one of --label and --labels, got both." in capsys.readouterr().err
    assert main(["data", "convert", str(folder), "-o", str(tmp_path / "out"), "--volumes"]) == 2
    assert "folder: expected volumes of DICOM files, got none" in capsys.readouterr().err


def test_figures_are_those_of_the_table(folder: Path, tmp_path: Path) -> None:
    found = take_inventory(folder, pseudonyms=None, kind="pictures")
    bars = {each.title: dict(each.counts) for each in bars_of(found.table)}
    assert bars["Modality"] == {"CT": 2, "MR": 1}
    assert bars["Year"] == {"2004": 3}
    assert bars["Body part"] == {"not stated": 2, "HEAD": 1}
    assert "Label" not in bars
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in fields_table(found.table).rows}
    assert cells["Age, years"] == ["3 of 3", "3", "1 – 11 – 21"]
    assert cells["Patient"] == ["3 of 3", "3", "–"]
    assert cells["Tube voltage, kV"] == ["2 of 3", "1", "120"]
    assert cells["Field strength, T"] == ["0 of 3", "0", "–"]
    first, second = (write_inventory(found, tmp_path / name, "x").read_bytes() for name in "ab")
    assert first == second


def test_many_values_are_summed_up(folder: Path) -> None:
    table = take_inventory(folder, pseudonyms=None, kind="pictures").table
    many = table.iloc[[0] * 30].assign(machine=[f"machine {number}" for number in range(30)])
    counts = next(each.counts for each in bars_of(many) if each.title == "Machine")
    assert len(counts) == 12
    assert counts[-1] == ("19 others", 19)


def test_what_can_not_be_read_has_no_picture(tmp_path: Path, folder: Path) -> None:
    found = take_inventory(folder, pseudonyms=None, kind="pictures")
    gone = Inventory("pictures", found.table, tuple((tmp_path / "gone.dcm",) for _ in found.sources), ())
    assert thumbnails(gone) == []
    assert len(thumbnails(found)) == 3
    assert set(COLUMNS) == set(found.table)
