"""`pellucid data query`, `fetch` and `store` as a user meets them, against a real Orthanc."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.cli.main import main
from servers.orthanc import PASSWORD, REFUSED, USER, Orthanc, impatient
from servers.studies import slice_of, uid, write

IDENTIFYING = ("Nobody", "P-17", "ACC-4711", "19600102", PASSWORD)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


@pytest.fixture
def entered(orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Orthanc:
    monkeypatch.setenv("PELLUCID_PACS_USER", USER)
    monkeypatch.setenv("PELLUCID_PACS_PASSWORD", PASSWORD)
    return orthanc


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_studies_are_listed_without_names_unless_asked(
    entered: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = slice_of("t", 0, modality="MR")
    other.StudyDate, other.StudyDescription = "20260501", "made-up knee"
    last = slice_of("u", 0)
    last.StudyDate, last.StudyDescription = "20240101", "odd\x1b[2J"
    entered.upload(*write(tmp_path / "in", slice_of("s", 0), slice_of("s", 1), other, last))
    for url in (entered.web, entered.dicom):
        status, out, err = run(capsys, "data", "query", "--pacs", url)
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].split() == ["date", "modalities", "series", "instances", "description", "study"]
        assert lines[1].split() == ["20260501", "MR", "1", "1", "(names", "the", "patient)", uid("t")]
        assert lines[2].split() == ["20260203", "CT", "1", "2", "Chest", uid("s")]
        assert "\x1b" not in out
        assert not any(word in out for word in IDENTIFYING)
        _, out, _ = run(capsys, "data", "query", "--pacs", url, "--names", "--modality", "mr")
        assert "made-up knee" in out
        assert out.splitlines()[1].split()[-3:] == ["Nobody^Made^Up", "P-17", uid("t")]
        _, out, err = run(capsys, "data", "query", "--pacs", url, "--limit", "1")
        assert len(out.splitlines()) == 2
        assert err == "There are more than 1: narrow the search, or raise --limit.\n"
        assert run(capsys, "data", "query", "--pacs", url, "--date", "19990101")[1] == "No study matches.\n"


def test_a_study_is_stored_and_fetched(entered: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", *(slice_of("s", number) for number in range(3)))
    write(tmp_path / "in" / "deeper", slice_of("s", 0, series="b"))
    for url in (entered.web, entered.dicom):
        entered.empty()
        assert run(capsys, "data", "store", tmp_path / "in", "--pacs", url)[:2] == (0, "4 stored\n")
        assert run(capsys, "data", "store", tmp_path / "in", "--pacs", url)[1] == "0 stored, 4 were there before\n"
        into = tmp_path / url[:4]
        status, out, err = run(capsys, "data", "fetch", "--pacs", url, "--study", uid("s"), "-o", into)
        (folder,) = into.iterdir()
        assert (status, out, err) == (0, f"4 instances: {folder}\n", "")
        assert uid("s") not in str(folder)
        _, out, _ = run(
            capsys, "data", "fetch", "--pacs", url, "--study", uid("s"), "-o", into, "--series", uid("s", "b")
        )
        assert out == f"1 instances (1 were there before): {folder}\n"
        assert len(list(folder.rglob("*.dcm"))) == 4


def test_what_was_not_stored_is_listed(entered: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, dropped = write(tmp_path / "in", slice_of("s", 0), slice_of("s", 1, patient=REFUSED))
    (tmp_path / "notes.txt").write_text("no DICOM")
    status, out, err = run(
        capsys,
        "data",
        "store",
        good,
        dropped,
        tmp_path / "notes.txt",
        "--pacs",
        entered.web,
        "--record",
        tmp_path / "r",
    )
    assert (status, out) == (1, "1 stored\n")
    assert err.splitlines() == [
        f"not stored: {dropped}: it said that it was stored, but doesn't list it",
        f"not stored: {tmp_path / 'notes.txt'}: not a DICOM file",
        "error: 2 of 3 files were not stored; run the same command to try again.",
    ]
    assert (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["query", "--pacs", "https://me:hunter2@pacs/"], 2, "pacs: expected a URL without a user"),
        (["query", "--pacs", "http://127.0.0.1:1/"], 1, "nothing listens there (connection refused)"),
        (["query", "--pacs", "http://127.0.0.1:1/", "--date", "yesterday"], 2, "date: expected YYYYMMDD"),
        (["fetch", "--pacs", "http://127.0.0.1:1/", "--study", "hunter2", "-o", "x"], 2, "study: expected a UID"),
        (["fetch", "--pacs", "http://127.0.0.1:1/", "--study", "1.2", "-o", "x"], 1, "nothing listens there"),
        (["store", "/nowhere.dcm", "--pacs", "http://127.0.0.1:1/"], 2, "'/nowhere.dcm', which isn't there"),
        (["query", "--pacs", "http://127.0.0.1:1/", "--pacs-ca", "/nowhere.pem"], 2, "pacs-ca: expected a file"),
        (["query", "--pacs", "dicom://A@127.0.0.1:1/", "--pacs-listen", "x"], 2, "pacs-listen: expected PORT"),
    ],
)
def test_an_error_is_one_line(
    words: list[str],
    status: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "data", *words)
    assert (code, out) == (status, "")
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
    assert "hunter2" not in err
    assert not list(tmp_path.iterdir())


def test_wrong_credentials_are_told(
    entered: Orthanc, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_PACS_PASSWORD", "hunter2")
    status, _, err = run(capsys, "data", "query", "--pacs", entered.web)
    assert (status, err) == (1, f"error: PACS at {entered.web}: it doesn't let in this user and password (401).\n")
    monkeypatch.delenv("PELLUCID_PACS_USER")
    status, _, err = run(capsys, "data", "query", "--pacs", entered.web)
    assert status == 2
    assert "expected both PELLUCID_PACS_USER and PELLUCID_PACS_PASSWORD, got one of them" in err
