"""Other programs on the other side: dicomweb-client sees what we see, and dcmtk takes and gives what we do."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pynetdicom.dsutils import split_dataset

from pellucid.data.pacs import Pacs, Query, connect, fetch_study, find_studies, store_files
from servers.orthanc import DICOM, PASSWORD, TITLE, USER, WEB, Orthanc, free_port, listens
from servers.studies import slice_of, uid, write


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    plain = [slice_of("s", number) for number in range(3)]
    packed = slice_of("s", 0, series="b", modality="MR")
    return write(tmp_path / "in", *plain) + write(tmp_path / "in", packed, compressed=True)


def dcmtk(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"dcmtk's {name} isn't there")
    return found


def data_sets(paths: list[Path] | tuple[Path, ...]) -> dict[str, bytes]:
    """The bytes of each instance behind its meta information."""
    found = {}
    for path in paths:
        meta, offset = split_dataset(path)
        found[str(meta.MediaStorageSOPInstanceUID)] = path.read_bytes()[offset:]
    return found


def test_dicomweb_client_finds_and_fetches_the_same(orthanc: Orthanc, study: list[Path], tmp_path: Path) -> None:
    with requests.Session() as session:
        session.auth = (USER, PASSWORD)
        peer = DICOMwebClient(orthanc.web, session=session)
        peer.store_instances([pydicom.dcmread(path) for path in study])
        with connect(orthanc.web, WEB) as pacs:
            (found,) = find_studies(pacs, Query(modality="MR"))
            (entry,) = peer.search_for_studies(search_filters={"ModalitiesInStudy": "MR"})
            assert found.uid == entry["0020000D"]["Value"][0]
            listed = {(each.series, each.uid, each.sop_class) for each in pacs.instances(found.uid)}
            assert listed == {
                tuple(each[tag]["Value"][0] for tag in ("0020000E", "00080018", "00080016"))
                for each in peer.search_for_instances(found.uid)
            }
            ours = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, fetch(pacs, tmp_path))}
        for each in peer.retrieve_study(uid("s"), media_types=(("application/dicom", "*"),)):
            assert each == ours.pop(each.SOPInstanceUID)
        assert not ours


def fetch(pacs: Pacs, folder: Path) -> tuple[Path, ...]:
    return fetch_study(pacs, uid("s"), folder / "out").files


def test_dcmtk_finds_and_gets_the_same(orthanc: Orthanc, study: list[Path], tmp_path: Path) -> None:
    place = ["-aet", "PELLUCID", "-aec", TITLE, "127.0.0.1", str(orthanc.dicom_port)]
    subprocess.run([dcmtk("dcmsend"), *place, *study], check=True, capture_output=True)
    with connect(orthanc.dicom, DICOM) as pacs:
        found = find_studies(pacs, Query())
        ours = data_sets(fetch(pacs, tmp_path))
    asked = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "StudyDate"]
    said = subprocess.run([dcmtk("findscu"), *asked, *place], check=True, capture_output=True, text=True)
    assert all(each.uid in said.stdout + said.stderr for each in found)
    (tmp_path / "theirs").mkdir()
    asked = ["-S", "+B", "-od", str(tmp_path / "theirs"), "-k", "QueryRetrieveLevel=SERIES"]
    asked += ["-k", f"StudyInstanceUID={uid('s')}", "-k", f"SeriesInstanceUID={uid('s', 'a')}"]
    subprocess.run([dcmtk("getscu"), *asked, *place], check=True, capture_output=True)
    theirs = data_sets(list((tmp_path / "theirs").iterdir()))
    assert len(theirs) == 3
    assert {each: ours[each] for each in theirs} == theirs


@contextlib.contextmanager
def receiving(folder: Path) -> Iterator[int]:
    """dcmtk's receiver, which writes what comes bit by bit."""
    port = free_port()
    folder.mkdir()
    process = subprocess.Popen([dcmtk("storescp"), "+xa", "+B", "-od", folder, str(port)])
    try:
        deadline = time.monotonic() + 10
        while not listens(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_dcmtk_receives_every_bit(study: list[Path], tmp_path: Path) -> None:
    with receiving(tmp_path / "theirs") as port, connect(f"dicom://ANY@127.0.0.1:{port}", DICOM) as pacs:
        pacs.check()
        assert [each.state for each in store_files(pacs, study)] == ["stored"] * 4
    assert data_sets(list((tmp_path / "theirs").iterdir())) == data_sets(study)
