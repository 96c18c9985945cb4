"""An Orthanc that dies in the middle: what arrived is kept, and the next run asks only for what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from pellucid.data.pacs import Access, PacsUnreachableError, connect, fetch_study, store_files
from pellucid.data.pacs.kept import Kept
from servers.orthanc import DICOM, WEB, Orthanc, running
from servers.studies import slice_of, uid, write

COUNT = 12


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("mortal")) as server:
        yield server


@pytest.fixture(params=["dicomweb", "dimse"])
def enter(request: pytest.FixtureRequest, mortal: Orthanc) -> tuple[str, Access]:
    """Impatient, since the server is gone for good."""
    url, access = (mortal.web, WEB) if request.param == "dicomweb" else (mortal.dicom, DICOM)
    return url, dataclasses.replace(access, attempts=2, timeout=5)


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    """Two megabytes each, so that they don't all wait in the buffers of a connection."""
    return write(tmp_path / "in", *(slice_of("m", number, side=1024) for number in range(COUNT)))


def pixels(path: Path) -> bytes:
    return path.read_bytes()[-2 * 1024**2 :]


def dies_after(count: int, server: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Kill the server once so many files have arrived; gives the number of files that were received."""
    take, taken = Kept.take, list[int]()

    def taking(self: Kept, chunks: Iterable[bytes]) -> None:
        take(self, chunks)
        taken.append(1)
        if len(taken) == count:
            server.kill()

    monkeypatch.setattr(Kept, "take", taking)
    return lambda: len(taken)


def test_a_fetch_goes_on(
    enter: tuple[str, Access], mortal: Orthanc, slices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal.upload(*slices)
    received = dies_after(3, mortal, monkeypatch)
    with connect(*enter) as pacs:
        with pytest.raises(
            PacsUnreachableError, match=rf"of {COUNT} instances are kept in .*run the same command to go on"
        ):
            fetch_study(pacs, uid("m"), tmp_path / "out")
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
        assert 3 <= len(kept) < COUNT
        assert received() == len(kept)
        with pytest.raises(PacsUnreachableError, match="nothing listens there"):
            fetch_study(pacs, uid("m"), tmp_path / "out")
        mortal.start()
        fetched = fetch_study(pacs, uid("m"), tmp_path / "out")
    assert fetched.before == len(kept)
    assert received() == COUNT
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert sorted(map(pixels, fetched.files)) == sorted(map(pixels, slices))
    assert {path.suffix for path in tmp_path.joinpath("out").rglob("*") if path.is_file()} == {".dcm"}


def test_a_store_goes_on(
    enter: tuple[str, Access], mortal: Orthanc, slices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid.data.pacs.dicomweb.BATCH_FILES", 3)
    record = tmp_path / "stored.json"
    with connect(*enter) as pacs:
        store, told = pacs.store, list[object]()

        def storing(files: object) -> Iterator[object]:
            for outcome in store(files):  # type: ignore[arg-type]
                told.append(outcome)
                if len(told) == 5:
                    mortal.kill()
                yield outcome

        monkeypatch.setattr(pacs, "store", storing)
        with pytest.raises(PacsUnreachableError, match=rf"of {COUNT} are stored: run the same command to go on"):
            store_files(pacs, slices, record=record)
        mortal.start()
        there = mortal.count()
        assert 5 <= there < COUNT
        states = [each.state for each in store_files(pacs, slices, record=record)]
        assert (states.count("there"), states.count("stored")) == (there, COUNT - there)
        assert mortal.count() == COUNT
        assert {each.state for each in store_files(pacs, slices, record=record)} == {"there"}
