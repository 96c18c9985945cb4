"""A DICOMweb server that answers wrongly, slowly or in halves: one clear error, or patience, and nothing lost."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from pellucid.data.pacs import (
    Access,
    NotInPacsError,
    PacsBrokenError,
    PacsError,
    PacsRefusedError,
    PacsUnreachableError,
    Query,
    connect,
    failures,
    fetch_study,
    find_studies,
    store_files,
)
from pellucid.errors import InputError
from servers.scripted import Answer, Request, scripted
from servers.studies import slice_of, uid, write

QUICK = Access(timeout=2, attempts=3, pause=0.01)
STUDY = uid("s")


def listed(*slices: pydicom.Dataset) -> bytes:
    keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    entries = []
    for each in slices:
        entry = pydicom.Dataset()
        for key in keys:
            setattr(entry, key, each.get(key))
        entries.append(entry.to_json_dict())
    return json.dumps(entries).encode()


def file_of(data: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def related(*files: bytes, headers: str = "Content-Type: application/dicom\r\n", end: bool = True) -> Answer:
    parts = b"".join(b"--edge\r\n" + headers.encode() + b"\r\n" + each + b"\r\n" for each in files)
    kind = 'multipart/related; type="application/dicom"; boundary=edge'
    return Answer(body=parts + (b"--edge--\r\n" if end else b""), kind=kind)


def archive(slices: list[pydicom.FileDataset], retrieve: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    """Lists slices, page by page, and answers otherwise as `retrieve` does."""

    def answer(request: Request) -> Answer:
        place = re.search(r"/instances\?.*offset=(\d+)", request.path)
        if place is None:
            return retrieve(request)
        return Answer(body=listed(*slices)) if place[1] == "0" else Answer(204)

    return answer


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (Answer(401), PacsRefusedError, r"it wants to know who asks \(401\)"),
        (Answer(403), PacsRefusedError, r"it doesn't allow that to us \(403\)"),
        (Answer(404, b"<html>", "text/html"), NotInPacsError, r"nothing is there \(404\). Is it the address"),
        (Answer(200, b"<html>Nobody</html>", "text/html"), PacsError, "a web page where DICOM JSON was asked for"),
        (Answer(200, b"<x/>", "application/dicom+xml"), PacsError, "XML where DICOM JSON was asked for"),
        (Answer(200, b"x", "text/plain"), PacsError, "an answer of the type 'text/plain' where DICOM JSON"),
        (Answer(200, b"{'Nobody'"), PacsError, "an answer that isn't JSON"),
        (Answer(200, b"[" * 100_000), PacsError, "an answer that isn't JSON"),
        (Answer(200, b"\xff\xfe"), PacsError, "an answer that isn't JSON"),
        (
            Answer(302, headers={"Location": "https://u:p@else.where/login?back=Nobody"}),
            PacsError,
            "to https://else.where",
        ),
        (Answer(500, b"Nobody"), PacsError, "it answers 500 Internal Server Error"),
        (Answer(799), PacsError, "it answers 799"),
        (Answer(503), PacsUnreachableError, r"it is busy or out of order \(503 Service Unavailable\)"),
        (Answer(200, b"[", length=5000, cut=True), PacsBrokenError, "the connection broke off"),
    ],
)
def test_a_wrong_answer_is_told(answer: Answer, kind: type[PacsError], told: str) -> None:
    with scripted(answer) as server, connect(server.url, QUICK) as pacs, pytest.raises(kind, match=told) as caught:
        find_studies(pacs, Query(patient_id="P-17"))
        message = str(caught.value)
        assert message.startswith(f"PACS at {server.url}: ")
        assert "\n" not in message
        assert not any(word in message for word in ("Nobody", "P-17", "u:p"))


def test_a_server_that_is_silent_is_told() -> None:
    with (
        scripted(Answer(200, b"[]", length=100)) as server,
        connect(server.url, Access(timeout=0.2, attempts=2, pause=0.01)) as pacs,
        pytest.raises(PacsBrokenError, match=r"no answer within 0.2 s"),
    ):
        find_studies(pacs, Query())


def test_nobody_there_is_told_after_some_attempts() -> None:
    with scripted(Answer()) as server:
        url = server.url
    with connect(url, QUICK) as pacs, pytest.raises(PacsUnreachableError, match="nothing listens there"):
        find_studies(pacs, Query())
    with (
        connect("http://nowhere.invalid/dicom-web", QUICK) as pacs,
        pytest.raises(PacsUnreachableError, match="no such host"),
    ):
        find_studies(pacs, Query())


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    busy = Answer(status, headers={"Retry-After": "0"})
    with scripted([busy, busy, Answer(200, b"[]")]) as server, connect(server.url, QUICK) as pacs:
        assert find_studies(pacs, Query()) == []
        assert len(server.asked) == 3


def test_what_is_sent_to_the_server() -> None:
    with scripted(Answer(204)) as server:
        for access, header in [
            (QUICK, None),
            (Access(user="mé", password="p:w"), "Basic bcOpOnA6dw=="),
            (Access(token="abc"), "Bearer abc"),
        ]:
            with connect(server.url, access) as pacs:
                find_studies(pacs, Query(patient_id="A&B=C", modality="CT", date="20260101-"))
            (request,) = server.asked
            server.asked.clear()
            assert request.headers.get("Authorization") == header
            assert request.headers["Accept"] == "application/dicom+json"
            assert "PatientID=A%26B%3DC&ModalitiesInStudy=CT&StudyDate=20260101-&" in request.path


def test_credentials_on_an_open_line_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    for url, access, noted in [
        ("http://pacs.example/dicom-web", Access(token="hunter2"), True),
        ("http://pacs.example/dicom-web", QUICK, False),
        ("https://pacs.example/dicom-web", Access(token="hunter2"), False),
        ("http://127.0.0.1/dicom-web", Access(token="hunter2"), False),
    ]:
        caplog.clear()
        with connect(url, access):
            assert ("isn't encrypted, so that others on the way can read the credentials" in caplog.text) == noted
        assert "hunter2" not in caplog.text


def test_a_netrc_file_gives_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with scripted(Answer(204)) as server, connect(server.url, QUICK) as pacs:
        find_studies(pacs, Query())
        assert "Authorization" not in server.asked[0].headers


def test_an_answer_without_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.data.pacs.transport.MOST_JSON", 2**20)
    bomb = Answer(200, gzip.compress(b"[" + b" " * 2**24 + b"]"), headers={"Content-Encoding": "gzip"})
    with (
        scripted(bomb) as server,
        connect(server.url, QUICK) as pacs,
        pytest.raises(PacsError, match="an answer of more than 1 MiB"),
    ):
        find_studies(pacs, Query())


def test_pages_are_followed_however_long_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = [slice_of("s", number) for number in range(7)]

    def short(request: Request) -> Answer:  # gives two at once, whatever was asked
        start = int(re.search(r"offset=(\d+)", request.path)[1])  # type: ignore[index]
        return Answer(body=listed(*slices[start : start + 2]))

    def same(request: Request) -> Answer:  # knows no offset
        return Answer(body=listed(*slices))

    for answer in (short, same):
        with scripted(answer) as server, connect(server.url, QUICK) as pacs:
            assert [each.uid for each in pacs.instances(STUDY)] == [each.SOPInstanceUID for each in slices]


def test_entries_that_could_lead_elsewhere_are_left_out(tmp_path: Path) -> None:
    odd = json.loads(listed(slice_of("s", 0), slice_of("s", 1), slice_of("s", 2), slice_of("s", 3)))
    odd[0]["00080018"]["Value"] = ["../../../etc/passwd"]
    odd[1]["00080018"]["Value"] = ["1.2/../../3"]
    odd[2]["0020000E"]["Value"] = [{"Alphabetic": "Nobody"}]
    odd += ["text", None, 5, {"00080018": "text"}, {"00080018": {"Value": {}}}, {"00080018": {"Value": [[]]}}]
    with scripted([Answer(body=json.dumps(odd).encode()), Answer(204)]) as server, connect(server.url, QUICK) as pacs:
        assert [each.uid for each in pacs.instances(STUDY)] == [odd[3]["00080018"]["Value"][0]]


def test_files_that_nobody_asked_for_are_not_kept(tmp_path: Path) -> None:
    wanted, other_study, unlisted = slice_of("s", 0), slice_of("x", 0), slice_of("s", 5)
    sent = [file_of(each) for each in (wanted, other_study, unlisted)]
    with scripted(archive([wanted], lambda request: related(*sent))) as server, connect(server.url, QUICK) as pacs:
        fetched = fetch_study(pacs, STUDY, tmp_path / "out")
    assert [path.read_bytes() for path in fetched.files] == sent[:1]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == list(fetched.files)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (related(b"no DICOM"), r"it lists instances that it doesn't give \(what it sent can't be used: not a DICOM"),
        (related(), "it lists instances that it doesn't give"),
        (Answer(200, b"<html>", "text/html"), "it answers with 'text/html' where DICOM was asked for"),
        (Answer(200, b"x", "multipart/related"), "it answers with 'multipart/related' where DICOM was asked for"),
        (related(b"x", headers="Content-Length: 99\r\n"), "a damaged answer: a file of 1 bytes that should have 99"),
        (Answer(404), r"nothing is there \(404\)"),
        (Answer(403), r"it doesn't allow that to us \(403\)"),
        (Answer(400), "it answers 400 Bad Request"),
        (related(*[b"x"] * 20), "it sends more files than the 1 that it lists"),
        (related(b"x", end=False), "an answer broke off: it ends before its last part does"),
    ],
)
def test_a_wrong_retrieval_is_told(answer: Answer, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.data.pacs.dicomweb._MORE_PARTS", 10)
    with (
        scripted(archive([slice_of("s", 0)], lambda request: answer)) as server,
        connect(server.url, QUICK) as pacs,
        pytest.raises(PacsError, match=told) as caught,
    ):
        fetch_study(pacs, STUDY, tmp_path / "out")
    assert "0 of 1 instances are kept in" in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pellucid.data.pacs.kept.Kept.__init__.__kwdefaults__", {"apart": lambda header: False, "largest": 1000}
    )
    with (
        scripted(archive([slice_of("s", 0)], lambda request: related(bytes(5000)))) as server,
        connect(server.url, QUICK) as pacs,
        pytest.raises(PacsError, match="an instance of more than 1,000 bytes"),
    ):
        fetch_study(pacs, STUDY, tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_series_that_breaks_off_goes_on_by_instance(tmp_path: Path) -> None:
    slices = [slice_of("s", number, side=200) for number in range(5)]
    files = {each.SOPInstanceUID: file_of(each) for each in slices}

    def retrieve(request: Request) -> Answer:
        for each, data in files.items():
            if request.path.endswith(f"/instances/{each}"):
                return related(data)
        whole = related(*files.values())
        return Answer(200, whole.body[:250_000], whole.kind, length=len(whole.body), cut=True)

    with scripted(archive(slices, retrieve)) as server, connect(server.url, QUICK) as pacs:
        fetched = fetch_study(pacs, STUDY, tmp_path / "out")
        asked = [request.path for request in server.asked]
    assert sorted(path.read_bytes() for path in fetched.files) == sorted(files.values())
    assert len([path for path in asked if "/instances/" in path]) < 5
    assert len(asked) == len(set(asked))


def test_a_server_that_knows_no_star_is_asked_otherwise(tmp_path: Path) -> None:
    slices = [slice_of("s", 0), slice_of("s", 0, series="b")]

    def retrieve(request: Request) -> Answer:
        if "transfer-syntax=*" in request.headers["Accept"]:
            return Answer(406)
        found = slices[0] if uid("s", "a") in request.path else slices[1]
        return Answer(200, file_of(found), "application/dicom")  # bare, as some send it

    with scripted(archive(slices, retrieve)) as server, connect(server.url, QUICK) as pacs:
        assert len(fetch_study(pacs, STUDY, tmp_path / "out").files) == 2
        assert sum("*" in request.headers.get("Accept", "") for request in server.asked) == 1


def outcome_of(stored: list[str], failed: dict[str, int | None], warned: dict[str, int] | None = None) -> bytes:
    """The body of a store's answer (PS3.18, table 10.5.3-4)."""
    body: dict[str, object] = {}
    if stored:
        items = [{"00081155": {"vr": "UI", "Value": [each]}} for each in stored]
        for item, each in zip(items, stored, strict=True):
            if warned and each in warned:
                item["00081196"] = {"vr": "US", "Value": [warned[each]]}  # type: ignore[dict-item]
        body["00081199"] = {"vr": "SQ", "Value": items}
    if failed:
        body["00081198"] = {
            "vr": "SQ",
            "Value": [
                {"00081155": {"Value": [each]}, **({} if code is None else {"00081197": {"Value": [code]}})}
                for each, code in failed.items()
            ],
        }
    return json.dumps(body).encode()


def storing(answer: Callable[[Request], Answer], there: set[str]) -> Callable[[Request], Answer]:
    """Lists what is there, and answers a store as `answer` does."""

    def both(request: Request) -> Answer:
        if request.method == "POST":
            return answer(request)
        found = [{"00080018": {"vr": "UI", "Value": [each]}} for each in there if each in request.path]
        return Answer(200, json.dumps(found).encode()) if "offset=0" in request.path else Answer(204)

    return both


def test_each_instance_of_a_store_has_its_own_outcome(tmp_path: Path) -> None:
    paths = write(tmp_path / "in", *(slice_of("s", number) for number in range(6)))
    uids = [uid("s", "a", number) for number in range(6)]
    body = outcome_of(
        [uids[0], uids[1]], {uids[2]: 0xA700, uids[3]: 290, uids[4]: None, uids[5]: 0xC123}, {uids[1]: 0xB000}
    )
    there: set[str] = set()

    def answer(request: Request) -> Answer:
        there.update(uids[:2])
        return Answer(202, body)

    with scripted(storing(answer, there)) as server, connect(server.url, QUICK) as pacs:
        outcomes = store_files(pacs, paths)
        posts = [request for request in server.asked if request.method == "POST"]
    assert [(each.state, each.reason) for each in outcomes] == [
        ("stored", ""),
        ("stored", "some values were changed by the PACS (0xB000)"),
        ("failed", "it is out of resources, such as room (0xA700)"),
        ("failed", "it doesn't take objects of this kind (SOP class) (0x0122)"),
        ("failed", "it gives no reason"),
        ("failed", "it doesn't take the study that the object belongs to (0xC123)"),
    ]
    (post,) = posts
    assert int(post.headers["Content-Length"]) == len(post.body)
    assert all(path.read_bytes() in post.body for path in paths)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(409), "it refuses it and gives no reason (409)"),
        (Answer(409, b"<x/>", "application/dicom+xml"), "it refuses it and gives no reason (409)"),
        (Answer(409, b"<html>", "text/html"), "it refuses it and gives no reason (409)"),
        (Answer(202, b"junk"), "it took it, but not all of it, and gives no reason (202)"),
        (Answer(400), "it finds it damaged or can't understand it (400)"),
        (Answer(413, b"too much", "text/plain"), "it is larger than the server takes (413)"),
        (Answer(200, b"<x/>", "application/dicom+xml"), "it said that it was stored, but doesn't list it"),
        (Answer(200), "it said that it was stored, but doesn't list it"),
    ],
)
def test_a_store_whose_answer_says_little_is_asked_one_by_one(answer: Answer, reason: str, tmp_path: Path) -> None:
    paths = write(tmp_path / "in", slice_of("s", 0), slice_of("s", 1))
    record = tmp_path / "stored.json"
    with scripted(storing(lambda request: answer, set())) as server, connect(server.url, QUICK) as pacs:
        outcomes = store_files(pacs, paths, record=record)
        posts = sum(request.method == "POST" for request in server.asked)
    assert [each.reason for each in failures(outcomes)] == [reason, reason]
    assert posts == (1 if answer.status == 200 else 3)
    assert not record.exists()


def test_a_store_is_refused_to_us(tmp_path: Path) -> None:
    paths = write(tmp_path / "in", slice_of("s", 0), slice_of("s", 1))
    for status in (401, 403):
        with (
            scripted(storing(lambda request, status=status: Answer(status), set())) as server,
            connect(server.url, QUICK) as pacs,
            pytest.raises(PacsRefusedError, match=r"0 of 2 are stored: run the same command to go on"),
        ):
            store_files(pacs, paths)


def test_a_server_that_may_not_be_searched_is_trusted(tmp_path: Path) -> None:
    paths = write(tmp_path / "in", slice_of("s", 0), slice_of("s", 1))
    record = tmp_path / "stored.json"
    uids = [uid("s", "a", 0), uid("s", "a", 1)]

    def answer(request: Request) -> Answer:
        return Answer(200, outcome_of(uids, {})) if request.method == "POST" else Answer(403)

    with scripted(answer) as server, connect(server.url, QUICK) as pacs:
        assert [each.state for each in store_files(pacs, paths, record=record)] == ["stored", "stored"]
        assert [each.state for each in store_files(pacs, paths, record=record)] == ["there", "there"]
        assert sum(request.method == "POST" for request in server.asked) == 1


def test_a_store_goes_in_batches_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.data.pacs.dicomweb.BATCH_FILES", 2)
    paths = write(tmp_path / "in", *(slice_of("s", number) for number in range(5)))
    record = tmp_path / "stored.json"
    there: set[str] = set()
    left = [2]  # so many posts work

    def answer(request: Request) -> Answer:
        if not left[0]:
            return Answer(503)
        left[0] -= 1
        sent = [uid("s", "a", number) for number in range(5) if uid("s", "a", number).encode() in request.body]
        there.update(sent)
        return Answer(200, outcome_of(sent, {}))

    with (
        scripted(storing(answer, there)) as server,
        connect(server.url, QUICK) as pacs,
        pytest.raises(PacsUnreachableError, match=r"busy .* 4 of 5 are stored: run the same command to go on"),
    ):
        store_files(pacs, paths, record=record)
        left[0] = 5
        server.asked.clear()
        assert [each.state for each in store_files(pacs, paths, record=record)] == ["there"] * 4 + ["stored"]
        assert sum(request.method == "POST" for request in server.asked) == 1
        assert [each.state for each in store_files(pacs, paths, record=record)] == ["there"] * 5


def test_a_damaged_record_of_what_was_stored_is_told(tmp_path: Path) -> None:
    for text in ("{", "[]", '"x"', "null"):
        (tmp_path / "stored.json").write_text(text)
        with connect("http://127.0.0.1:1", QUICK) as pacs, pytest.raises(InputError, match="a damaged .*stored.json"):
            store_files(pacs, write(tmp_path / "in", slice_of("s", 0)), record=tmp_path / "stored.json")
