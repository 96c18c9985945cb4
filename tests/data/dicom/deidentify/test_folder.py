"""Whole folders: every file that pydicom ships and the shared ones, resumed, refused, and twice the same."""

from __future__ import annotations

import csv
import shutil
import stat
import warnings
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.data.data_manager import DATA_ROOT

from pellucid.data.dicom.deidentify import Choices, Job, Outcome, deidentify, load_key
from pellucid.data.dicom.deidentify import folder as folder_module
from pellucid.data.dicom.deidentify.burned_in import Box
from pellucid.data.dicom.deidentify.folder import files_below
from pellucid.data.dicom.deidentify.log import LOG, read_log
from pellucid.data.dicom.deidentify.review import BOXES, read_boxes
from pellucid.errors import InputError

VISITS = (("Q1", "20200101"), ("Q1", "20200301"), ("Q1", "20210101"), ("Q2", "20200101"))
ALL = Choices(
    "shift",
    frozenset({"patient-characteristics", "device", "institution", "safe-private"}),
    frozenset({"descriptors", "structured-content", "graphics", "pixels"}),
)


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def study(folder: Path) -> Path:
    """Three visits of one patient and one of another, with a text, an empty file and a copy beside."""
    for number, (patient, day) in enumerate(VISITS):
        dataset = pydicom.dcmread(Path(str(get_testdata_file("CT_small.dcm"))))
        dataset.PatientID, dataset.PatientName, dataset.StudyDate = patient, f"Zebrowski^{patient}", day
        dataset.AcquisitionDate = day
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.9.8.{number}.55.1", f"1.9.8.{number}.55.2"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.9.8.{number}.55.3"
        path = folder / f"Zebrowski {patient}" / f"{day}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path)
    (folder / "notes.txt").write_text("Zebrowski")
    (folder / "empty.dcm").touch()
    shutil.copyfile(folder / "Zebrowski Q2" / "20200101.dcm", folder / "copy.dcm")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.dcm")}


def test_a_folder_is_written_checked_and_told_without_names(tmp_path: Path) -> None:
    source = study(tmp_path / "in")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    outcome = deidentify(Job(source, tmp_path / "out"))
    assert outcome.checked.clean, outcome.checked.problems
    assert len(outcome.written) == outcome.checked.files == 4
    assert dict(outcome.skipped) == {
        "copy.dcm": "a copy of another file, byte for byte",
        "empty.dcm": "the file is empty",
        "notes.txt": "not a DICOM file",
    }
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    names = " ".join(path.as_posix() for path in (tmp_path / "out").rglob("*"))
    for text in ("ebrowski", "1.9.8.", "20200301", "Q1"):
        assert text.encode() not in everything
        assert text not in names.removeprefix(str(tmp_path))
    key = tmp_path / "out.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    patients = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert len(patients) == 2
    for path in (tmp_path / "out").rglob("*.dcm"):
        read = pydicom.dcmread(path)
        assert path.stem == read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID
        assert read.PatientID == path.relative_to(tmp_path / "out").parts[0]
        assert (read.PatientIdentityRemoved, read.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
        assert read.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert read.StudyDate == ""
        assert read.preamble == bytes(128)


def test_intervals_stay_when_dates_are_moved(tmp_path: Path) -> None:
    outcome = deidentify(Job(study(tmp_path / "in"), tmp_path / "out", choices=Choices("shift")))
    days: dict[str, list[int]] = {}
    for each in outcome.written:
        read = pydicom.dcmread(tmp_path / "out" / each.file)
        assert read.StudyDate == read.AcquisitionDate
        assert read.LongitudinalTemporalInformationModified == "MODIFIED"
        days.setdefault(each.patient, []).append(datetime.strptime(read.StudyDate, "%Y%m%d").toordinal())
    by_count = {len(each): sorted(each) for each in days.values()}
    one, two, three = by_count[3]
    assert (two - one, three - one) == (60, 366)
    assert by_count[1][0] != one


def test_the_same_key_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    source = study(tmp_path / "in")
    for name, key in (("a", "k1"), ("b", "k1"), ("c", "k2")):
        deidentify(Job(source, tmp_path / name, tmp_path / key), check=False)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert not set(tree(tmp_path / "a")) & set(tree(tmp_path / "c"))


def test_a_stopped_run_goes_on_with_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = study(tmp_path / "in")
    deidentify(Job(source, tmp_path / "whole", tmp_path / "key"), check=False)
    real, done = folder_module.make, []

    def stopped(*arguments: object, **options: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_module, "make", stopped)
    job = Job(source, tmp_path / "out", tmp_path / "key")
    with pytest.raises(KeyboardInterrupt):
        deidentify(job)
    monkeypatch.undo()
    assert len(read_log(tmp_path / "out")) == len(tree(tmp_path / "out")) == 2
    assert not list((tmp_path / "out").rglob("*.part"))
    with (tmp_path / "out" / LOG).open("a") as handle:
        handle.write("P-CUT,off")  # as a kill within a line leaves it
    outcome = deidentify(job)
    assert (len(outcome.present), len(outcome.written)) == (2, 2)
    assert outcome.checked.clean
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    again = deidentify(job)
    assert (len(again.present), len(again.written)) == (4, 0)
    assert again.checked.clean
    next((tmp_path / "out").rglob("*.dcm")).unlink()
    assert len(deidentify(job, check=False).written) == 1
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_objects_of_one_uid_do_not_replace_each_other(tmp_path: Path) -> None:
    for number in range(3):
        dataset = pydicom.dcmread(Path(str(get_testdata_file("CT_small.dcm"))))
        dataset.InstanceNumber = number
        (tmp_path / "in").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "in" / f"{number}.dcm")
    outcome = deidentify(Job(tmp_path / "in", tmp_path / "out"))
    assert len(tree(tmp_path / "out")) == len(outcome.written) == 3
    assert outcome.checked.clean


def test_the_map_is_written_only_where_it_is_asked_for(tmp_path: Path) -> None:
    source = study(tmp_path / "in")
    deidentify(Job(source, tmp_path / "out"), check=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "out.key"]
    outcome = deidentify(Job(source, tmp_path / "out", keep_map=tmp_path / "map.csv"), check=False)
    assert stat.S_IMODE((tmp_path / "map.csv").stat().st_mode) == 0o600
    with (tmp_path / "map.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["file"] for row in rows} == {each.file for each in outcome.files}
    assert "Zebrowski Q1/20200301.dcm" in {row["source"] for row in rows}


def test_what_must_not_be_is_refused(tmp_path: Path) -> None:
    source = study(tmp_path / "in")
    for output in (source, source / "out", tmp_path):
        with pytest.raises(InputError, match="output: expected a folder apart from the source"):
            Job(source, output)
    with pytest.raises(InputError, match="folder: expected a folder of DICOM files, got .*gone"):
        Job(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(InputError, match="key: expected a file outside of the output"):
        Job(source, tmp_path / "out", tmp_path / "out" / "key")
    with pytest.raises(InputError, match="keep-map: expected a file outside of the output"):
        Job(source, tmp_path / "out", keep_map=tmp_path / "out" / "map.csv")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(InputError, match="output: expected a new folder, or one of a former run"):
        deidentify(Job(source, tmp_path / "full"))
    deidentify(Job(source, tmp_path / "out"), check=False)
    with pytest.raises(InputError, match="output: expected a folder made with dates=shift, got one made with dat"):
        deidentify(Job(source, tmp_path / "out", choices=Choices("shift")))
    with pytest.raises(InputError, match="key: expected that of the files in"):
        deidentify(Job(source, tmp_path / "out", tmp_path / "other"))
    (tmp_path / "bad").write_text("no key")
    with pytest.raises(InputError, match="key: expected a file of 64 hexadecimal digits"):
        load_key(tmp_path / "bad")


def check_all(outcome: Outcome) -> None:
    assert outcome.checked.clean, outcome.checked.problems
    assert outcome.checked.files == len(outcome.files)


@pytest.mark.parametrize("choices", [Choices(), pytest.param(ALL, marks=pytest.mark.slow)], ids=["basic", "options"])
def test_all_files_of_pydicom_leave_no_trace(tmp_path: Path, choices: Choices) -> None:
    outcome = deidentify(Job(Path(DATA_ROOT) / "test_files", tmp_path / "out", choices=choices))
    check_all(outcome)
    assert len(outcome.files) >= 150
    reasons = {reason for name, reason in outcome.skipped if name.endswith(".dcm") and "DICOMDIR" not in name}
    assert reasons <= {
        "a copy of another file, byte for byte",
        "it has no SOP Class UID (0008,0016) or no SOP Instance UID (0008,0018)",
        "not a DICOM file",
    }


@pytest.mark.parametrize("choices", [Choices(), pytest.param(ALL, marks=pytest.mark.slow)], ids=["basic", "options"])
def test_all_shared_files_leave_no_trace(tmp_path: Path, shared_data: Path, choices: Choices) -> None:
    outcome = deidentify(Job(shared_data / "dicom_nifti" / "dicom", tmp_path / "out", choices=choices))
    check_all(outcome)
    assert len(outcome.files) >= 54


def test_burned_in_text_is_shown_apart_and_confirmed_boxes_are_blackened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copyfile(str(get_testdata_file("examples_palette.dcm")), tmp_path / "in" / "a")
    outcome = deidentify(Job(tmp_path / "in", tmp_path / "out"))
    (suspect,) = outcome.suspects
    assert suspect.burned_in == "text"
    assert len(suspect.boxes) >= 12
    assert not list((tmp_path / "out").rglob("*.png"))
    assert (tmp_path / "out.review" / f"{Path(suspect.file).stem}.png").is_file()
    boxes = read_boxes(tmp_path / "out.review" / BOXES)
    assert len(boxes[suspect.file]) == len(suspect.boxes)

    chosen = {suspect.file: [Box(0, 0, 60, 800, 0)]}
    job = Job(tmp_path / "in", tmp_path / "two", tmp_path / "out.key", Choices(clean=frozenset({"pixels"})), chosen)
    cleaned = deidentify(job)
    assert cleaned.checked.clean
    assert not cleaned.suspects
    read = pydicom.dcmread(tmp_path / "two" / suspect.file)
    assert read.BurnedInAnnotation == "NO"
    assert len(set(read.pixel_array[:60].ravel().tolist())) == 1
    assert [item.CodeValue for item in read.DeidentificationMethodCodeSequence] == ["113100", "113101"]

    blackened = deidentify(Job(tmp_path / "in", tmp_path / "three", None, Choices(clean=frozenset({"pixels"}))))
    assert blackened.checked.clean
    assert pydicom.dcmread(tmp_path / "three" / blackened.files[0].file).get("BurnedInAnnotation") != "NO"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("file,top\na,1\n", "columns file, top, left, bottom, right with whole numbers, got line 2"),
        ("file,top,left,bottom,right\na,5,1,5,9\n", "top above bottom and left before right, got line 2"),
    ],
)
def test_tables_of_boxes_that_are_none_are_refused(tmp_path: Path, table: str, told: str) -> None:
    (tmp_path / "boxes.csv").write_text(table)
    with pytest.raises(InputError, match=told):
        read_boxes(tmp_path / "boxes.csv")
    with pytest.raises(InputError, match="can't read"):
        read_boxes(tmp_path / "gone.csv")


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("b", "a/z", ".hidden/c", "a/.d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)] == ["a/z", "b"]
    assert files_below(tmp_path / "b") == [tmp_path / "b"]
