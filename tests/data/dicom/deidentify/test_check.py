"""The check finds what was planted, wherever it was, and nothing in what is clean."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from pellucid.data.dicom.deidentify.burned_in import Box
from pellucid.data.dicom.deidentify.check import Problem, Ties, check_file, form_errors, has_form_checker
from pellucid.data.dicom.deidentify.file import load, make, save
from pellucid.data.dicom.deidentify.identifiers import Identifiers
from pellucid.data.dicom.deidentify.pixels import black_out
from pellucid.data.dicom.deidentify.profile import Choices
from pellucid.data.dicom.deidentify.pseudonyms import Pseudonyms

NAMES = Pseudonyms(bytes(32))
NAME, NUMBER, DAY, UID = "Zebrowski^Anna", "MRN-4711815", "20240229", "1.3.6.1.4.1.99999.4711.20240229"


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def source(name: str = "CT_small.dcm") -> bytes:
    dataset = pydicom.dcmread(Path(str(get_testdata_file(name))))
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, NUMBER, "19610309"
    dataset.StudyDate = dataset.AcquisitionDate = DAY
    dataset.AccessionNumber, dataset.InstitutionName = "ACC-77123", "St. Zebra Hospital"
    dataset.StudyInstanceUID, dataset.Manufacturer = UID, "Maker"
    dataset.StudyDescription = "Follow-up of Mrs Zebrowski"
    dataset.ReferencedImageSequence = [Dataset()]
    dataset.ReferencedImageSequence[0].ReferencedSOPClassUID = dataset.SOPClassUID
    dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID = UID + ".9"
    return written(dataset)


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def problems(
    plant: Callable[[Dataset], object], name: str = "CT_small.dcm", choices: Choices | None = None, tail: bytes = b""
) -> list[Problem]:
    """What the check says of a file into which something was planted after it was made."""
    data = source(name)
    made = make(data, NAMES, choices or Choices("shift"))
    plant(made.dataset)
    buffer = io.BytesIO()
    save(made.dataset, buffer)  # type: ignore[arg-type]
    result = buffer.getvalue() + tail
    read = pydicom.dcmread(io.BytesIO(result))
    return check_file("x.dcm", load(data), read, result, choices=choices or Choices("shift"))


def put(keyword: str, value: object) -> Callable[[Dataset], object]:
    return lambda dataset: setattr(dataset, keyword, value)


def nested(dataset: Dataset) -> None:
    dataset.ProcedureCodeSequence = [Dataset()]
    dataset.ProcedureCodeSequence[0].CodeMeaning = "Seen by zebrowski"


def private(dataset: Dataset) -> None:
    dataset.add_new(0x00110010, "LO", "BLOCK")
    dataset.add_new(0x00111001, "UN", NUMBER.encode())


def in_pixels(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[1000 : 1000 + len(UID)] = UID.encode()
    dataset.PixelData = bytes(pixels)


LEAKS = {
    "name": put("PatientName", NAME),
    "name in other letters": put("ImageComments", "zebrowski"),
    "name in a kept attribute": put("SequenceName", "t2 Zebrowski"),
    "name in a code word": put("BodyPartExamined", NAME.upper()),
    "number": put("StationName", NUMBER),
    "number within words": put("SequenceName", f"x {NUMBER}/2"),
    "birth date": put("PatientBirthDate", "19610309"),
    "birth date in words": put("SequenceName", "09.03.1961"),
    "birth date in other words": put("SequenceName", "b1961-03-09"),
    "study date": put("StudyDate", DAY),
    "a date elsewhere": put("SequenceName", DAY),
    "accession number": put("AccessionNumber", "ACC-77123"),
    "institution": put("InstitutionName", "elsewhere"),
    "institution in a kept attribute": put("SequenceName", "St. Zebra Hospital"),
    "UID": put("StudyInstanceUID", UID),
    "UID in words": put("SequenceName", UID[:16]),
    "nested": nested,
    "private": private,
    "among pixels": in_pixels,
    "description": put("StudyDescription", "Follow-up of Mrs Zebrowski"),
}


def test_what_is_clean_is_called_clean() -> None:
    for choices in (Choices(), Choices("shift"), Choices("keep", frozenset({"uids"}))):
        assert problems(lambda dataset: None, choices=choices) == []


@pytest.mark.parametrize("kind", [kind for kind in LEAKS if kind != "UID in words"])
def test_each_planted_leak_is_found(kind: str) -> None:
    found = problems(LEAKS[kind])
    assert "leak" in {problem.kind for problem in found}, found
    told = " ".join(problem.place for problem in found).lower()
    assert not any(value in told for value in ("zebrowski", "4711815", "20240229", "77123"))


def test_a_part_of_an_identifier_is_not_called_one() -> None:
    assert problems(LEAKS["UID in words"]) == []
    assert problems(put("SequenceName", "anna1961")) == []


def test_what_stands_behind_the_data_set_is_seen() -> None:
    assert [each.place for each in problems(lambda dataset: None, tail=b"  Zebrowski^Anna  ")] != []


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_a_comment_in_a_compressed_picture_is_seen(name: str) -> None:
    def plant(dataset: Dataset) -> None:
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        comment = b"\xff\xfe" + (len(NAME) + 2).to_bytes(2, "big") + NAME.encode()
        dataset.PixelData = encapsulate([frame[:2] + comment + frame[2:]])

    assert {problem.kind for problem in problems(plant, name)} == {"leak"}
    assert problems(lambda dataset: None, name) == []


def test_names_of_other_patients_are_seen_where_they_are_known() -> None:
    data = source()
    made = make(data, NAMES, Choices())
    made.dataset.SequenceName = "compared with Kowalski"
    buffer = io.BytesIO()
    save(made.dataset, buffer)  # type: ignore[arg-type]
    read = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
    for others, kinds in ((None, []), (Identifiers(words={"kowalski": "PatientName"}), ["leak"])):
        found = check_file("x", load(data), read, buffer.getvalue(), choices=Choices(), others=others)
        assert [problem.kind for problem in found] == kinds


def test_pixels_that_changed_are_seen_and_blackened_boxes_are_not() -> None:
    def change(dataset: Dataset) -> None:
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]

    assert {problem.kind for problem in problems(change)} == {"pixels"}
    assert {problem.kind for problem in problems(lambda dataset: dataset.pop("PixelData"))} == {"pixels"}
    data, box = source(), Box(5, 6, 20, 30, 3)
    made = make(data, NAMES, Choices())
    black_out(made.dataset, [box])
    for boxes, wanted in (((box,), []), ((), ["pixels"]), ((Box(5, 6, 20, 29, 3),), ["pixels"])):
        result = copy.deepcopy(made.dataset)
        buffer = io.BytesIO()
        save(result, buffer)  # type: ignore[arg-type]
        read = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
        found = check_file("x", load(data), read, buffer.getvalue(), choices=Choices(), boxes=boxes)
        assert [problem.kind for problem in found] == wanted
    assert np.array_equal(load(data).pixel_array[:5], made.dataset.pixel_array[:5])


def test_uids_that_became_two_and_references_that_lead_elsewhere_are_seen() -> None:
    ties = Ties()
    assert ties.tie("1.2", "2.25.1")
    assert ties.tie("1.2", "2.25.1")
    assert not ties.tie("1.2", "2.25.2")
    assert not ties.tie("1.3", "2.25.1")
    ties = Ties({"1.2": "2.25.1", "1.3": "2.25.3"}, {"2.25.1": "1.2", "2.25.3": "1.3"})
    ties.references = [("right", frozenset({"1.2"}), frozenset({"2.25.1"}))]
    ties.references += [("outside", frozenset({"1.9"}), frozenset({"2.25.9"}))]
    assert ties.problems() == []
    ties.references += [("other", frozenset({"1.2"}), frozenset({"2.25.3"}))]
    ties.references += [("none", frozenset({"1.2"}), frozenset({"2.25.8"}))]
    assert [problem.file for problem in ties.problems()] == ["other", "none"]


def test_a_header_that_names_another_object_is_seen() -> None:
    data = source()
    made = make(data, NAMES, Choices())
    buffer = io.BytesIO()
    save(made.dataset, buffer)  # type: ignore[arg-type]
    read = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
    read.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found = check_file("x", load(data), read, buffer.getvalue(), choices=Choices())
    assert [problem.kind for problem in found] == ["reference"]


def test_new_errors_of_form_are_seen(tmp_path: Path) -> None:
    if not has_form_checker():
        pytest.skip("dciodvfy isn't installed")
    made = make(source(), NAMES, Choices())
    save(made.dataset, tmp_path / "a.dcm")
    (tmp_path / "source.dcm").write_bytes(source())
    assert form_errors(tmp_path / "a.dcm") <= form_errors(tmp_path / "source.dcm")
    del made.dataset.StudyInstanceUID
    save(made.dataset, tmp_path / "b.dcm")
    assert form_errors(tmp_path / "b.dcm") - form_errors(tmp_path / "source.dcm")
