"""A real Orthanc, by DICOMweb and by DIMSE: what goes in is found, comes back equal, and is never sent twice."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from pellucid.data.pacs import (
    Access,
    NotInPacsError,
    PacsError,
    PacsRefusedError,
    Query,
    connect,
    failures,
    fetch_study,
    find_studies,
    store_files,
)
from pellucid.data.pacs.dimse import Dimse
from pellucid.data.pacs.kept import Kept
from servers.orthanc import DICOM, REFUSED, WEB, Orthanc
from servers.studies import slice_of, uid, write

Way = tuple[str, Access]
SLOWLY = pytest.mark.parametrize("way", ["dicomweb", pytest.param("dimse", marks=pytest.mark.slow)], indirect=True)
IDENTIFYING = ("Nobody", "P-17", "ACC-4711", "19600102")


@pytest.fixture(params=["dicomweb", "dimse"])
def way(request: pytest.FixtureRequest, orthanc: Orthanc) -> Way:
    """The server's address and how it is entered, by one protocol and by the other."""
    return (orthanc.web, WEB) if request.param == "dicomweb" else (orthanc.dicom, DICOM)


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    """Six slices of CT as they are, and three of MR in RLE, all of the study named "s"."""
    plain = [slice_of("s", number) for number in range(6)]
    packed = [slice_of("s", number, series="b", modality="MR") for number in range(3)]
    return write(tmp_path / "in", *plain) + write(tmp_path / "in", *packed, compressed=True)


def by_uid(paths: Iterator[Path] | list[Path] | tuple[Path, ...]) -> dict[str, Path]:
    return {str(read_file_meta_info(path).MediaStorageSOPInstanceUID): path for path in paths}


def data_set(path: Path) -> bytes:
    """The bytes behind the file's meta information, and its transfer syntax."""
    meta, offset = split_dataset(path)
    return str(meta.TransferSyntaxUID).encode() + path.read_bytes()[offset:]


def values(path: Path) -> dict[int, object]:
    """All values but lengths of groups and padding, which Orthanc's C-STORE drops as it writes a file anew."""
    return {each.tag: each.value for each in pydicom.dcmread(path) if each.tag.element and each.tag != 0xFFFCFFFC}


def test_a_study_goes_in_and_comes_back_equal(
    way: Way, orthanc: Orthanc, study: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with connect(*way) as pacs:
        pacs.check()
        outcomes = store_files(pacs, study)
        assert [(each.path, each.state, each.reason) for each in outcomes] == [(path, "stored", "") for path in study]
        assert orthanc.count() == len(study)
        (found,) = find_studies(pacs, Query())
        assert (found.uid, found.date, found.description) == (uid("s"), "20260203", "Chest")
        assert (set(found.modalities), found.series, found.instances) == ({"CT", "MR"}, 2, 9)
        assert (found.patient_name, found.patient_id) == ("Nobody^Made^Up", "P-17")
        fetched = fetch_study(pacs, found.uid, tmp_path / "out")
    assert (fetched.before, fetched.left_out, fetched.apart) == (0, 0, 0)
    there, back = by_uid(study), by_uid(fetched.files)
    assert there.keys() == back.keys()
    for each, path in there.items():
        assert data_set(back[each]) == data_set(path)
        np.testing.assert_array_equal(pydicom.dcmread(back[each]).pixel_array, pydicom.dcmread(path).pixel_array)
        if way[0].startswith("http"):  # DICOMweb keeps the file's own header too
            assert back[each].read_bytes() == path.read_bytes()
    said = caplog.text + " ".join(map(str, fetched.files)) + repr(found) + repr(fetched)
    assert not any(word in said for word in (*IDENTIFYING, *there, uid("s"), uid("s", "a")))
    assert stat.S_IMODE(fetched.folder.stat().st_mode) == 0o700


def test_what_is_there_is_not_fetched_again(
    way: Way, orthanc: Orthanc, study: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.upload(*study)
    with connect(*way) as pacs:
        first = fetch_study(pacs, uid("s"), tmp_path / "out")
        whole = {path: path.read_bytes() for path in first.files}
        first.files[0].unlink()
        first.files[3].write_bytes(b"damaged")
        first.files[-1].write_bytes(whole[first.files[-2]])  # another instance under this one's name
        taken: list[int] = []
        take = Kept.take
        monkeypatch.setattr(Kept, "take", lambda self, chunks: (taken.append(1), take(self, chunks))[1])
        again = fetch_study(pacs, uid("s"), tmp_path / "out")
        assert (again.before, len(taken)) == (6, 3)
        assert {path: path.read_bytes() for path in again.files} == whole
        fetch_study(pacs, uid("s"), tmp_path / "out")
        assert len(taken) == 3


@SLOWLY
def test_one_series_or_what_is_wanted_of_it(way: Way, orthanc: Orthanc, study: list[Path], tmp_path: Path) -> None:
    orthanc.upload(*study)
    with connect(*way) as pacs:
        some = fetch_study(pacs, uid("s"), tmp_path / "a", series=[uid("s", "b")])
        assert len(some.files) == 3
        mine = fetch_study(pacs, uid("s"), tmp_path / "b", wanted=lambda entry: entry.uid.endswith(("0", "1", "2")))
        assert len(mine.files) + mine.left_out == 9
        assert all(each.endswith(("0", "1", "2")) for each in by_uid(mine.files))
        aside = fetch_study(pacs, uid("s"), tmp_path / "c", apart=lambda header: header.transfer_syntax.endswith("5"))
        assert (len(aside.files), aside.apart) == (6, 3)
        assert len(list((tmp_path / "c-apart").rglob("*.dcm"))) == 3
        assert fetch_study(pacs, uid("s"), tmp_path / "c", apart=lambda header: True).before == 9
        with pytest.raises(NotInPacsError, match="no such series in that study"):
            fetch_study(pacs, uid("s"), tmp_path / "d", series=[uid("other")])
        with pytest.raises(NotInPacsError, match="1 of 2 series aren't in that study"):
            fetch_study(pacs, uid("s"), tmp_path / "d", series=[uid("s", "a"), uid("other")])
        with pytest.raises(NotInPacsError, match="none of 9 instances of that study is wanted"):
            fetch_study(pacs, uid("s"), tmp_path / "d", wanted=lambda entry: False)
        with pytest.raises(NotInPacsError, match="no such study, or it doesn't show it to us") as caught:
            fetch_study(pacs, uid("nothing"), tmp_path / "d")
        assert uid("nothing") not in str(caught.value)
    assert not (tmp_path / "d").exists()


def test_studies_are_found_by_what_is_asked(way: Way, orthanc: Orthanc, tmp_path: Path) -> None:
    for number, (modality, day, patient) in enumerate(
        [("CT", "20251231", "A"), ("CT", "20260101", "B"), ("MR", "20260615", "B"), ("MR", "20270101", "C")]
    ):
        each = slice_of(f"q{number}", 0, modality=modality, patient=patient)
        each.StudyDate = day
        orthanc.upload(*write(tmp_path / str(number), each))
    with connect(*way) as pacs:

        def days(**asked: str) -> list[str]:
            return [each.date for each in find_studies(pacs, Query(**asked))]  # type: ignore[arg-type]

        assert days() == ["20270101", "20260615", "20260101", "20251231"]
        assert days(date="20260101-20261231") == ["20260615", "20260101"]
        assert days(date="20260101-") == ["20270101", "20260615", "20260101"]
        assert days(date="-20251231") == ["20251231"]
        assert days(date="20260615") == ["20260615"]
        assert days(modality="CT") == ["20260101", "20251231"]
        assert days(patient_id="B") == ["20260615", "20260101"]
        assert days(patient_id="B", modality="MR", date="20260101-") == ["20260615"]
        assert days(study=uid("q3")) == ["20270101"]
        assert days(patient_id="nobody") == []
        assert len(find_studies(pacs, Query(limit=3))) == 3


def test_answers_come_in_pages(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.data.pacs.dicomweb.PAGE", 4)
    orthanc.upload(*write(tmp_path / "in", *(slice_of("p", number) for number in range(10))))
    with connect(orthanc.web, WEB) as pacs:
        assert len({each.uid for each in pacs.instances(uid("p"))}) == 10
        assert len(pacs.instances(uid("p"), [uid("p", "a")])) == 10
    with connect(orthanc.dicom, DICOM) as pacs:
        assert len({each.uid for each in pacs.instances(uid("p"))}) == 10


def test_stored_files_are_remembered(
    way: Way, orthanc: Orthanc, study: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "stored.json"
    with connect(*way) as pacs:
        store_files(pacs, study[:4], record=record)
        states = [each.state for each in store_files(pacs, study, record=record)]
        assert states == ["there"] * 4 + ["stored"] * 5
        said = record.read_text()
        assert list(json.loads(said)) == [str(pacs.address)]
        assert not any(word in said for word in (*IDENTIFYING, "2.25", "made-up-secret"))
        monkeypatch.setattr(type(pacs), "store", None)  # nothing is sent any more
        assert {each.state for each in store_files(pacs, study, record=record)} == {"there"}
        assert {each.state for each in store_files(pacs, study)} == {"there"}  # as the server itself says
        record.write_text("{}")
        assert {each.state for each in store_files(pacs, study, record=record)} == {"there"}
        assert json.loads(record.read_text())[str(pacs.address)] == json.loads(said)[str(pacs.address)]
    assert orthanc.count() == 9


def test_a_file_that_the_server_drops_in_silence_is_told(way: Way, orthanc: Orthanc, tmp_path: Path) -> None:
    files = write(
        tmp_path / "in", slice_of("d", 0, patient=REFUSED), slice_of("d", 1), slice_of("d", 2, patient=REFUSED)
    )
    record = tmp_path / "stored.json"
    with connect(*way) as pacs:
        outcomes = store_files(pacs, files, record=record)
    assert [each.state for each in outcomes] == ["failed", "stored", "failed"]
    assert {each.reason for each in failures(outcomes)} == {"it said that it was stored, but doesn't list it"}
    assert orthanc.count() == 1
    assert len(json.loads(record.read_text())[str(pacs.address)]) == 1


def test_what_is_no_dicom_file_does_not_stop_the_others(way: Way, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Nobody^Made^Up")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM\x02\x00")
    lacking = slice_of("n", 1)
    del lacking.SeriesInstanceUID
    good, lame = write(tmp_path / "in", slice_of("n", 0)) + write_plain(tmp_path / "lame.dcm", lacking)
    names = [tmp_path / "notes.txt", good, tmp_path / "empty.dcm", tmp_path / "cut.dcm", lame, tmp_path / "gone.dcm"]
    with connect(*way) as pacs:
        outcomes = store_files(pacs, names)
    assert [each.path for each in outcomes] == names
    assert [each.state for each in outcomes] == ["failed", "stored", *["failed"] * 4]
    assert [each.reason for each in failures(outcomes)] == [
        "not a DICOM file",
        "not a DICOM file",
        "its header is damaged",
        "its header lacks the UIDs of class, instance, series or study",
        "No such file or directory",
    ]


def write_plain(path: Path, data: pydicom.Dataset) -> list[Path]:
    data.save_as(path, enforce_file_format=True)
    return [path]


def test_a_store_that_the_server_refuses_is_told(orthanc: Orthanc, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "in", slice_of("r", 0), slice_of("r", 1))
    bad.write_bytes(bad.read_bytes()[:-300])  # so that its pixels end too early
    with connect(orthanc.web, WEB) as pacs:
        outcomes = store_files(pacs, [bad, good])
    assert [each.state for each in outcomes] == ["failed", "stored"]
    assert outcomes[0].reason == "it finds it damaged or can't understand it (400)"


def test_every_transfer_syntax_travels_as_it_is(way: Way, orthanc: Orthanc, tmp_path: Path) -> None:
    implicit, deflated = slice_of("t", 0), slice_of("t", 1)
    paths = []
    for each, syntax in ((implicit, ImplicitVRLittleEndian), (deflated, DeflatedExplicitVRLittleEndian)):
        each.file_meta.TransferSyntaxUID = syntax
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, each, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
        paths.append(tmp_path / f"{syntax}.dcm")
        paths[-1].write_bytes(buffer.getvalue())
    with connect(*way) as pacs:
        assert [each.state for each in store_files(pacs, paths)] == ["stored", "stored"]
        fetched = fetch_study(pacs, uid("t"), tmp_path / "out")
    back = by_uid(fetched.files)
    for each, path in by_uid(paths).items():
        assert data_set(back[each]) == data_set(path)


@SLOWLY
def test_real_files_travel_as_they_are(way: Way, orthanc: Orthanc, shared_data: Path, tmp_path: Path) -> None:
    names = (
        "CT_small",
        "JPEG-LL",
        "693_J2KI",
        "MR_small_jpeg_ls_lossless",
        "color-px",
        "image_dfl",
        "SC_rgb_rle_16bit",
    )
    paths = [shared_data / "dicom_nifti" / "dicom" / f"{name}.dcm" for name in names]
    kinds = {str(read_file_meta_info(path).TransferSyntaxUID) for path in paths}
    with connect(*way) as pacs:
        outcomes = store_files(pacs, paths)
        assert [(each.path.stem, each.reason) for each in failures(outcomes)] == []
        studies = find_studies(pacs, Query())
        back = by_uid(
            [file for each in studies for file in fetch_study(pacs, each.uid, tmp_path / each.uid[-5:]).files]
        )
    assert {str(read_file_meta_info(path).TransferSyntaxUID) for path in back.values()} == kinds
    for each, path in by_uid(paths).items():
        assert values(back[each]) == values(path)
        if way[0].startswith("http"):
            assert back[each].read_bytes() == path.read_bytes()


def test_a_pacs_without_c_get_sends_to_our_port(orthanc: Orthanc, study: list[Path], tmp_path: Path) -> None:
    orthanc.upload(*study)
    access = dataclasses.replace(DICOM, listen=("127.0.0.1", orthanc.move_port))
    with connect(orthanc.dicom, access) as pacs:
        assert isinstance(pacs, Dimse)
        pacs._gets = False
        fetched = fetch_study(pacs, uid("s"), tmp_path / "out")
        back = by_uid(fetched.files)
        assert {each: data_set(back[each]) for each in back} == {
            each: data_set(path) for each, path in by_uid(study).items()
        }
        fetched.files[4].unlink()
        assert fetch_study(pacs, uid("s"), tmp_path / "out").before == 8
    with connect(orthanc.dicom, DICOM) as pacs:
        pacs._gets = False  # type: ignore[attr-defined]
        with pytest.raises(PacsError, match=r"C-MOVE only. Give the port .* --pacs-listen.* AE title 'PELLUCID'"):
            fetch_study(pacs, uid("s"), tmp_path / "none")
    with connect(orthanc.dicom, dataclasses.replace(access, calling="STRANGER")) as pacs:
        pacs._gets = False  # type: ignore[attr-defined]
        with pytest.raises(PacsError, match="does it know our AE title 'STRANGER'|AE title 'STRANGER'"):
            fetch_study(pacs, uid("s"), tmp_path / "none")


def test_who_is_not_known_is_refused(orthanc: Orthanc) -> None:
    refusals = [
        (orthanc.web, Access(), "it wants to know who asks .401.. Set PELLUCID_PACS_USER and PELLUCID_PACS_PASSWORD"),
        (orthanc.web, Access(user="me", password="hunter2"), "it doesn't let in this user and password .401.\\."),
        (orthanc.web, Access(token="hunter2"), "it doesn't let in the token|it wants to know who asks"),
        (orthanc.dicom.replace("ARCHIVE", "OTHER"), DICOM, "its AE title isn't 'OTHER', it says"),
    ]
    for url, access, told in refusals:
        with connect(url, access) as pacs, pytest.raises(PacsRefusedError, match=told) as caught:
            find_studies(pacs, Query())
        assert "hunter2" not in str(caught.value)
        with connect(url, access) as pacs, pytest.raises(PacsRefusedError, match=told):
            pacs.check()


def test_another_service_at_the_address_is_told(orthanc: Orthanc) -> None:
    root = orthanc.web.removesuffix("/dicom-web")
    for url, access, told in [
        (f"{root}/nowhere", WEB, "nothing is there .404.. Is it the address of its DICOMweb services"),
        (root, WEB, "it answers 400 Bad Request"),
        (root.replace("http", "https"), WEB, "it doesn't speak TLS there"),
        (f"http://127.0.0.1:{orthanc.dicom_port}/dicom-web", WEB, "it broke off without an answer .does it speak HTTP"),
        (f"dicom://A@127.0.0.1:{orthanc.http_port}", DICOM, "does it speak DICOM there"),
        (f"dicom-tls://A@127.0.0.1:{orthanc.dicom_port}", DICOM, "does it speak TLS there|it doesn't speak TLS there"),
    ]:
        with connect(url, access) as pacs, pytest.raises(PacsError, match=told):
            find_studies(pacs, Query())
