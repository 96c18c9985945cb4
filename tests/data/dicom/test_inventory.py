"""A data set from a DICOM folder: what its rows say, and that nobody is named in them."""

from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import Dataset

from pellucid.data.dicom.dataset_files import MANIFEST, SKIPPED, write_dataset
from pellucid.data.dicom.deidentify import Pseudonyms
from pellucid.data.dicom.inventory import COLUMNS, Inventory, age_of, take_inventory
from pellucid.data.manifest import load_manifest
from pellucid.data.splits import assign_splits
from pellucid.errors import InputError

SERIES = (
    ("benign", "Q1", "St. Zebra"),
    ("benign", "Q2", "St. Gnu"),
    ("tumour", "Q3", "St. Zebra"),
    ("tumour", "Q3", ""),
)
NAMES = Pseudonyms(bytes(32))


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ct(path: Path, patient: str, series: int, place: float, **values: object) -> None:
    """A slice of a patient's series."""
    dataset = pydicom.dcmread(Path(str(get_testdata_file("CT_small.dcm"))))
    dataset.PatientID, dataset.PatientName = patient, f"Zebrowski^{patient}"
    dataset.StudyInstanceUID = f"1.9.8.{series}.1"
    dataset.SeriesInstanceUID = f"1.9.8.{series}.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.9.8.{series}.3.{int(place)}"
    dataset.ImagePositionPatient, dataset.InstanceNumber = [0, 0, place], int(place)
    dataset.PixelData = np.roll(dataset.pixel_array, int(place) + 7 * series).tobytes()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two series of four slices of each of two patients, in the folders of two classes; a text beside."""
    root = tmp_path / "scans"
    for number, (label, patient, site) in enumerate(SERIES):
        for place in range(4):
            path = root / label / f"Zebrowski{number}" / f"{place}.dcm"
            said = {"InstitutionName": site, "PatientAge": "061Y", "BodyPartExamined": "CHEST"}
            ct(path, patient, number, 5.0 * place, **said)
    (root / "notes.txt").write_text("none")
    return root


def taken(folder: Path, **options: object) -> Inventory:
    return take_inventory(folder, **{"pseudonyms": NAMES, **options})  # type: ignore[arg-type]


def test_series_become_volumes_and_say_what_their_headers_say(folder: Path) -> None:
    found = taken(folder)
    assert found.kind == "volumes"
    assert list(found.table) == list(COLUMNS)
    assert len(found.table) == 4
    row = found.table.iloc[0].to_dict()
    assert row["path"].startswith("benign/Zebrowski0/#")
    assert (row["age"], row["sex"], row["modality"], row["body_part"]) == (61.0, "O", "CT", "CHEST")
    assert (row["rows"], row["columns"], row["slices"], row["year"]) == (128, 128, 4, 2004)
    assert (row["kvp"], row["slice_thickness"], row["row_spacing"]) == (120, 5.0, 0.661468)
    assert row["machine"] == "GE MEDICAL SYSTEMS RHAPSODE"
    assert math.isnan(row["field_strength"])
    assert list(found.table["patient_id"]) == [NAMES.patient(f"id\0{each}\0") for each in ("Q1", "Q2", "Q3", "Q3")]
    sites = list(found.table["site"])
    assert set(sites) == {"site-1", "site-2", ""}
    assert sites[0] == sites[2] != sites[1]
    assert [len(files) for files in found.sources] == [4, 4, 4, 4]
    assert dict(found.skipped) == {"notes.txt": "not a DICOM file"}
    told = found.table.drop(columns="path").to_csv()
    assert not any(text in told for text in ("Zebra", "Q1", "1.9.8", "20040119"))


def test_names_stay_where_they_are_asked_for(folder: Path) -> None:
    found = taken(folder, pseudonyms=None)
    assert list(found.table["patient_id"]) == ["Q1", "Q2", "Q3", "Q3"]
    assert set(found.table["site"]) == {"St. Zebra", "St. Gnu", ""}


def test_each_file_is_a_picture_where_that_is_wanted(folder: Path) -> None:
    found = taken(folder, kind="pictures")
    assert len(found.table) == 16
    assert set(found.table["slices"]) == {1}
    assert found.table["series"].nunique() == 4
    assert found.table["path"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"label": "folder"}, ["benign", "benign", "tumour", "tumour"]),
        ({"label": "BodyPartExamined"}, ["CHEST"] * 4),
        ({"label": "(0018,0015)"}, ["CHEST"] * 4),
        ({"label": "AccessionNumber"}, [""] * 4),
    ],
)
def test_labels_come_from_folders_and_attributes(folder: Path, options: dict, wanted: list[str]) -> None:
    assert list(taken(folder, **options).table["label"]) == wanted


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ("patient_id,label\nQ1,a\nQ2,b\nQ3,c\n", ["a", "b", "c", "c"]),
        ("study,label\n1.9.8.0.1,a\n1.9.8.3.1,b\n", ["a", "", "", "b"]),
        ("series,label,patient_id\n1.9.8.2.2,a,Q3\n,b,Q1\n", ["b", "", "a", "a"]),
        ("file,label\nbenign/Zebrowski1/0.dcm,a\n", ["", "a", "", ""]),
    ],
)
def test_labels_come_from_a_table(folder: Path, tmp_path: Path, table: str, wanted: list[str]) -> None:
    (tmp_path / "labels.csv").write_text(table)
    assert list(taken(folder, labels=tmp_path / "labels.csv").table["label"]) == wanted


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("patient,label\nQ1,a\n", "labels: expected the columns label and one of file, series, study, patient_id"),
        ("patient_id,label\nQ1,a\nQ1,b\n", "labels: expected one label for each patient_id, got 1 with several"),
        ("patient_id,label\nQ9,a\n", "labels: expected labels of what is in the folder, got none that fits"),
    ],
)
def test_tables_of_labels_that_fit_nothing_are_refused(folder: Path, tmp_path: Path, table: str, told: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(InputError, match=told):
        taken(folder, labels=tmp_path / "labels.csv")


def test_what_can_not_be_taken_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label: expected 'folder', an attribute's keyword or its tag"):
        taken(folder, label="Colour")
    with pytest.raises(InputError, match="folder: expected a folder of DICOM files"):
        taken(tmp_path / "gone")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.dcm").touch()
    with pytest.raises(InputError, match="got none of 1 files"):
        taken(tmp_path / "none")
    with pytest.raises(InputError, match="output: expected .* got .* inside of it"):
        write_dataset(taken(folder), folder, folder / "benign")


@pytest.mark.parametrize("where", ["apart", "itself", "around"])
def test_the_manifest_is_loaded_from_wherever_it_was_written(folder: Path, tmp_path: Path, where: str) -> None:
    output = {"apart": tmp_path / "set", "itself": folder, "around": tmp_path}[where]
    write_dataset(taken(folder, label="folder"), folder, output)
    manifest = load_manifest(output / MANIFEST, volumes=True)
    assert manifest.classes == ("benign", "tumour")
    assert len(manifest.table) == 4
    assert not manifest.unreadable
    assert list(manifest.table["age"]) == [61.0] * 4
    assert pd.read_csv(output / SKIPPED)["reason"].tolist() == ["not a DICOM file"]


def test_the_manifest_is_split_by_patient(tmp_path: Path) -> None:
    for number in range(12):
        for place in range(2):
            patient = f"Q{number}"
            ct(tmp_path / "in" / "ab"[number % 2] / f"{patient}-{place}.dcm", patient, 2 * number + place, 0.0)
    write_dataset(taken(tmp_path / "in", kind="pictures", label="folder"), tmp_path / "in", tmp_path / "out")
    manifest = load_manifest(tmp_path / "out")
    splits = assign_splits(manifest, seed=0)
    assert set(splits["split"]) == {"train", "val", "test"}
    assert splits["patient_id"].nunique() == 12
    assert set(splits.groupby("patient_id")["split"].nunique()) == {1}


def test_files_apart_are_linked_by_names_that_name_nobody(folder: Path, tmp_path: Path) -> None:
    for kind in ("volumes", "pictures"):
        output = tmp_path / kind
        for _ in range(2):  # again over what is there
            table = write_dataset(taken(folder, kind=kind, label="folder"), folder, output)
        names = [path.relative_to(output).as_posix() for path in output.rglob("*")]
        assert not any("Zebrowski" in name or "Q1" in name for name in names)
        assert sum(name.endswith(".dcm") for name in names) == 16
        assert len(set(table["path"])) == len(table)
        assert len(load_manifest(output, volumes=kind == "volumes").table) == len(table)
    first = next(iter(sorted((tmp_path / "volumes").rglob("*.dcm"))))
    first.unlink()
    first.write_bytes(b"another")
    with pytest.raises(InputError, match="output: expected the same files as before"):
        write_dataset(taken(folder), folder, tmp_path / "volumes")


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"PatientAge": "061Y"}, 61.0),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "002W"}, 0.04),
        ({"PatientAge": "010D"}, 0.03),
        ({"PatientAge": "000Y"}, math.nan),
        ({"PatientAge": "old", "PatientBirthDate": "19500601", "StudyDate": "20000601"}, 50.0),
        ({"PatientBirthDate": "19500601", "StudyDate": "19490601"}, math.nan),
        ({"PatientBirthDate": "19500601", "StudyDate": "19500601"}, math.nan),
        ({}, math.nan),
    ],
)
def test_ages_in_years(values: dict[str, str], wanted: float) -> None:
    header = Dataset()
    for keyword, value in values.items():
        setattr(header, keyword, value)
    assert age_of(header) == pytest.approx(wanted, abs=0.01, nan_ok=True)


def test_patients_that_were_renamed_before_keep_their_name(tmp_path: Path) -> None:
    own = NAMES.patient("somebody")
    ct(tmp_path / "in" / "a.dcm", own, 0, 0.0, PatientIdentityRemoved="YES")
    ct(tmp_path / "in" / "b.dcm", "Q7", 1, 0.0, PatientIdentityRemoved="YES")
    ct(tmp_path / "in" / "c.dcm", "", 2, 0.0, PatientName="")
    found = taken(tmp_path / "in", kind="pictures")
    assert list(found.table["patient_id"]) == [own, NAMES.patient("id\0Q7\0"), ""]
    assert any("1 of 3 have no patient" in note for note in found.notes)


def test_pydicoms_folder_of_studies_is_taken(tmp_path: Path) -> None:
    source = Path(DATA_ROOT) / "test_files" / "dicomdirtests"
    found = taken(source)
    assert len(found.table) + len({path for path, _ in found.skipped}) >= 60
    assert found.table["patient_id"].nunique() >= 2
    table = write_dataset(found, source, tmp_path / "out")
    assert len(table) == len(found.table)


def test_shared_files_are_taken(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "dicom_nifti"
    pictures = taken(source, kind="pictures", label="Modality")
    assert len(pictures.table) >= 45
    assert {"CT", "MR", "US", "CR"} <= set(pictures.table["modality"])
    volumes = taken(source, kind="volumes")
    row = volumes.table[volumes.table["slices"] == 17].iloc[0]
    assert (row["modality"], row["rows"], row["columns"]) == ("CT", 128, 88)
    write_dataset(volumes, source, tmp_path / "v")
    shutil.rmtree(tmp_path / "v")
