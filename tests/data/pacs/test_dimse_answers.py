"""A DIMSE server that refuses, fails or breaks off: the status in words, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pellucid.data.pacs import (
    Access,
    InstanceEntry,
    NotInPacsError,
    PacsBrokenError,
    PacsError,
    PacsRefusedError,
    PacsUnreachableError,
    Query,
    connect,
    fetch_study,
    find_studies,
    store_files,
)
from pellucid.data.pacs.headers import read_stored
from pellucid.data.pacs.kept import Kept
from pellucid.data.pacs.receiver import Receiver
from pellucid.errors import InputError, StorageError
from servers.archive import FIND, archive
from servers.orthanc import free_port
from servers.studies import slice_of, uid, write

QUICK = Access(timeout=5, attempts=2, pause=0.01)


def three(tmp_path: Path) -> list[Path]:
    return write(tmp_path / "in", *(slice_of("s", number) for number in range(3)))


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (0x0000, "stored", ""),
        (0xB000, "stored", "some values were changed by the PACS (0xB000)"),
        (0xB006, "stored", "some attributes were dropped by the PACS (0xB006)"),
        (0xB007, "stored", "the data doesn't fit the kind of object (SOP class), but was taken (0xB007)"),
        (0xA700, "failed", "it is out of resources, such as room (0xA700)"),
        (0xA712, "failed", "it is out of resources, such as room (0xA712)"),
        (0xA900, "failed", "the data doesn't fit the kind of object (SOP class) (0xA900)"),
        (0xC000, "failed", "it can't understand the data (0xC000)"),
        (0xC911, "failed", "it can't understand the data (0xC911)"),
        (0x0122, "failed", "it doesn't take objects of this kind (SOP class) (0x0122)"),
        (0x0124, "failed", "it doesn't allow that to us (0x0124)"),
        (0x0111, "failed", "it has an instance of that UID already (0x0111)"),
        (0x5555, "failed", "it gave a code that says nothing more (0x5555)"),
    ],
)
def test_a_status_is_told_in_words(status: int, state: str, reason: str, tmp_path: Path) -> None:
    (path,) = write(tmp_path, slice_of("s", 0))
    with archive(stores=lambda event: status, services=[Verification]) as server, connect(server.url, QUICK) as pacs:
        (outcome,) = store_files(pacs, [path])
    assert (outcome.state, outcome.reason) == (state, reason)


def test_a_refused_file_does_not_stop_the_others(tmp_path: Path) -> None:
    paths = three(tmp_path)
    stored: list[str] = []

    def some(event: Event) -> int:
        stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0xA900 if len(stored) == 2 else 0

    with archive(stores=some, services=[Verification]) as server, connect(server.url, QUICK) as pacs:
        outcomes = store_files(pacs, paths, record=tmp_path / "stored.json")
        assert [each.state for each in outcomes] == ["stored", "failed", "stored"]
        again = store_files(pacs, paths, record=tmp_path / "stored.json")
        assert [each.state for each in again] == ["there", "stored", "there"]
    assert len(stored) == 4


def test_a_kind_that_is_not_taken_is_told(tmp_path: Path) -> None:
    mr = slice_of("s", 0, series="b", modality="MR")
    paths = write(tmp_path, slice_of("s", 0), mr)
    with archive(services=[Verification]) as server, connect(server.url, QUICK) as pacs:
        outcomes = store_files(pacs, paths)
        assert [each.state for each in outcomes] == ["stored", "failed"]
        assert outcomes[1].reason == "it doesn't take this kind of object (SOP class) encoded so"
        (outcome,) = store_files(pacs, paths[1:])
        assert outcome.reason == "it takes no object of this kind (SOP class) encoded so"


def test_a_file_that_breaks_the_connection_does_not_stop_the_others(tmp_path: Path) -> None:
    paths = three(tmp_path)
    bad = uid("s", "a", 1)

    def some(event: Event) -> int:
        if event.request.AffectedSOPInstanceUID == bad:
            event.assoc.abort()
        return 0

    with archive(stores=some, services=[Verification]) as server, connect(server.url, QUICK) as pacs:
        outcomes = store_files(pacs, paths)
    assert [each.state for each in outcomes] == ["stored", "failed", "stored"]
    assert outcomes[1].reason == "the connection broke off each time that it was sent"


def test_a_title_that_is_not_known_is_told() -> None:
    with archive(accepts="SOMEBODY") as server:
        with connect(server.url, QUICK) as pacs, pytest.raises(PacsRefusedError) as caught:
            pacs.check()
        assert "it doesn't know our AE title 'PELLUCID'. Have it entered there, or give" in str(caught.value)
        with connect(server.url, Access(calling="SOMEBODY", timeout=5)) as pacs:
            pacs.check()
        other = server.url.replace("ARCHIVE", "OTHER")
        with (
            connect(other, QUICK) as pacs,
            pytest.raises(PacsRefusedError, match="its AE title isn.t .OTHER., it says"),
        ):
            pacs.check()


def test_nobody_there_is_told_after_some_attempts() -> None:
    with archive() as server:
        url = server.url
    with connect(url, QUICK) as pacs, pytest.raises(PacsUnreachableError, match="nothing listens there"):
        pacs.check()
    with connect("dicom://A@nowhere.invalid", QUICK) as pacs, pytest.raises(PacsUnreachableError, match="no such host"):
        pacs.check()


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (0xA700, PacsError, r"C-FIND failed: it is out of resources, such as room \(0xA700\)"),
        (0xC001, PacsError, r"C-FIND failed: it can't understand the data \(0xC001\)"),
        (0x0124, PacsRefusedError, r"C-FIND failed: it doesn't allow that to us \(0x0124\)"),
        (0x0122, PacsError, r"C-FIND failed: it doesn't take objects of this kind"),
    ],
)
def test_a_search_that_fails_is_told(status: int, kind: type[PacsError], told: str) -> None:
    with archive(find_status=status) as server, connect(server.url, QUICK) as pacs, pytest.raises(kind, match=told):
        find_studies(pacs, Query())


def test_a_service_that_is_not_offered_is_told(tmp_path: Path) -> None:
    with archive(services=[Verification]) as server, connect(server.url, QUICK) as pacs:
        with pytest.raises(PacsRefusedError, match="it grants none of the services that were asked for"):
            find_studies(pacs, Query())
        with pytest.raises(PacsRefusedError, match="it grants none of the services that were asked for"):
            fetch_study(pacs, uid("s"), tmp_path / "out")


def test_a_server_that_lists_no_classes_gives_all_the_same(tmp_path: Path) -> None:
    slices = [slice_of("s", number) for number in range(3)]
    with archive(slices=slices, knows_classes=False) as server, connect(server.url, QUICK) as pacs:
        assert [each.sop_class for each in pacs.instances(uid("s"))] == [""] * 3
        assert len(fetch_study(pacs, uid("s"), tmp_path / "out").files) == 3
        assert pacs.holds(pacs.instances(uid("s"))) == {each.SOPInstanceUID for each in slices}
        with pytest.raises(NotInPacsError, match="no such study"):
            fetch_study(pacs, uid("other"), tmp_path / "out")


def test_a_retrieval_that_breaks_off_goes_on_by_instance(tmp_path: Path) -> None:
    broken: list[int] = []

    def once(event: Event, number: int) -> None:
        if number == 2 and not broken:
            broken.append(number)
            event.assoc.abort()

    slices = [slice_of("s", number) for number in range(5)]
    with archive(slices=slices, before_get=once) as server, connect(server.url, QUICK) as pacs:
        assert len(fetch_study(pacs, uid("s"), tmp_path / "out").files) == 5
        assert server.gets[0] == "SERIES"
        assert set(server.gets[1:]) == {"IMAGE"}
        assert len(server.gets) <= 6


def test_a_retrieval_that_always_breaks_off_keeps_what_came(tmp_path: Path) -> None:
    def third(event: Event, number: int) -> None:
        if number == 2 or event.identifier.QueryRetrieveLevel == "IMAGE":
            event.assoc.abort()

    slices = [slice_of("s", number) for number in range(5)]
    with archive(slices=slices, before_get=third) as server, connect(server.url, QUICK) as pacs:
        with pytest.raises(PacsBrokenError, match=r"it broke off C-GET.* of 5 instances are kept in .*run the same"):
            fetch_study(pacs, uid("s"), tmp_path / "out")
        kept = len(list((tmp_path / "out").rglob("*.dcm")))
        assert kept >= 1
        server.before_get = lambda event, number: None
        assert fetch_study(pacs, uid("s"), tmp_path / "out").before == kept


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, chunks: object) -> None:
        raise StorageError("can't write x: no space left on device")

    monkeypatch.setattr("pellucid.data.pacs.kept.Kept.take", full)
    with (
        archive(slices=[slice_of("s", 0)]) as server,
        connect(server.url, QUICK) as pacs,
        pytest.raises(StorageError, match="no space left on device"),
    ):
        fetch_study(pacs, uid("s"), tmp_path / "out")


def test_a_data_set_without_end_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receiver.__init__, "__defaults__", (100_000,))
    large = slice_of("s", 0)
    large.PixelData = bytes(4_000_000)
    with (
        archive(slices=[large]) as server,
        connect(server.url, QUICK) as pacs,
        pytest.raises(PacsError, match="an instance of more than 100,000 bytes"),
    ):
        fetch_study(pacs, uid("s"), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with archive(slices=[slice_of("s", 0)], services=[FIND]) as server:
        taken = Access(timeout=5, attempts=1, listen=("127.0.0.1", server.port))
        with (
            connect(server.url, taken) as pacs,
            pytest.raises(PacsError, match="pacs-listen: can't listen at 127.0.0.1"),
        ):
            fetch_study(pacs, uid("s"), tmp_path / "out")
        with connect(server.url, QUICK) as pacs, pytest.raises(PacsError, match="it sends files by C-MOVE only"):
            fetch_study(pacs, uid("s"), tmp_path / "out")


def test_nobody_else_can_send_to_our_port(tmp_path: Path) -> None:
    wanted = slice_of("s", 0)
    entry = InstanceEntry(uid("s"), wanted.SeriesInstanceUID, wanted.SOPInstanceUID, wanted.SOPClassUID)
    kept = Kept(tmp_path / "out", [entry], lambda steps=1, note="": None)
    port = free_port()
    own = AE("PELLUCID")
    with Receiver(kept).listening(own, ("127.0.0.1", port), [wanted.SOPClassUID], [ExplicitVRLittleEndian]):
        unasked = write(tmp_path / "in", slice_of("s", 1), slice_of("other", 0))
        with (
            connect(f"dicom://ANOTHER@127.0.0.1:{port}", QUICK) as pacs,
            pytest.raises(PacsRefusedError, match="AE title"),
        ):
            list(pacs.store([read_stored(path) for path in unasked]))
        with connect(f"dicom://PELLUCID@127.0.0.1:{port}", QUICK) as pacs:
            list(pacs.store([read_stored(path) for path in (*unasked, *write(tmp_path / "in", wanted))]))
    assert [path.name for path in kept.files()] == [kept.path_of(entry).name]
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 1


def test_what_is_asked_wrongly_is_told(tmp_path: Path) -> None:
    with connect("dicom://A@127.0.0.1:1", QUICK) as pacs:
        for study in ("", "Nobody", "1.2/..", "1" * 65, "..."):
            with pytest.raises(InputError, match="study: expected a UID: digits and dots, up to 64") as caught:
                fetch_study(pacs, study, tmp_path)
            assert "Nobody" not in str(caught.value)
        with pytest.raises(InputError, match="series: expected a UID"):
            fetch_study(pacs, "1.2", tmp_path, series=["Nobody"])
    for wrong, told in [
        ({"date": "2026-01-01"}, "date: expected YYYYMMDD"),
        ({"date": "20260230"}, "date: expected YYYYMMDD"),
        ({"date": "-"}, "date: expected YYYYMMDD"),
        ({"date": "2026*"}, "date: expected YYYYMMDD"),
        ({"modality": "C\\T"}, "modality: expected a modality such as CT"),
        ({"limit": 0}, "limit: expected a number above 0"),
        ({"study": "x"}, "study: expected a UID"),
    ]:
        with pytest.raises(InputError, match=told):
            Query(**wrong)  # type: ignore[arg-type]
