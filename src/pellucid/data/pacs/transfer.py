"""Studies out of a PACS and files into it, whichever protocol it speaks; what is done is never done twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.data.pacs.entries import InstanceEntry, Outcome, Pacs, Query, StoredFile, StudyEntry, check_uid, hashed
from pellucid.data.pacs.errors import NotInPacsError, PacsBrokenError, PacsError, PacsRefusedError
from pellucid.data.pacs.headers import Header, read_stored
from pellucid.data.pacs.kept import Kept
from pellucid.data.quiet import hushed
from pellucid.data.whole import DecodeError
from pellucid.errors import expected
from pellucid.files import read_json, write_json
from pellucid.progress import progress

_NOT_LISTED = "it said that it was stored, but doesn't list it"
_BREAKS = "the connection broke off each time that it was sent"
_LOOKS = 4  # for what was just stored, since a PACS may list it a little later
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """The files of a study in a folder.

    `before` instances were there already, `left_out` were listed but not wanted, `apart` are in a folder beside.
    """

    folder: Path
    files: tuple[Path, ...]
    before: int = 0
    left_out: int = 0
    apart: int = 0


def find_studies(pacs: Pacs, query: Query) -> list[StudyEntry]:
    """The studies that match, the latest first. Raises PacsError."""
    with hushed():
        return sorted(pacs.studies(query), key=lambda study: (study.date, study.uid), reverse=True)


def study_folder(study: str) -> str:
    """The name of a study's folder, which doesn't tell its UID."""
    return f"study-{hashed(study)}"


def fetch_study(
    pacs: Pacs,
    study: str,
    folder: Path,
    *,
    series: Sequence[str] = (),
    wanted: Callable[[InstanceEntry], bool] = lambda entry: True,
    apart: Callable[[Header], bool] = lambda header: False,
    show_progress: bool = False,
) -> Fetched:
    """Fetch a study, or some of its series, into `folder`; instances that are there already aren't asked for again.

    Arguments:
        pacs: as `connect` gives it.
        study: the Study Instance UID.
        folder: is made; its files are named by hashes.
        series: Series Instance UIDs; none for all.
        wanted: whether an instance is, by what the PACS lists of it.
        apart: whether a file, once its header is known, goes into the folder `FOLDER-apart` beside.
        show_progress: show a bar with the time left.

    Raises:
        NotInPacsError: there is no such study or series, or none of its instances is wanted.
        PacsError: the PACS fails or refuses. What was fetched is kept, and the error says how much that is.
        StorageError: a file can't be written.
    """
    study, series = check_uid("study", study), [check_uid("series", each) for each in series]
    with hushed():
        listed = pacs.instances(study, series)
        entries = [entry for entry in listed if wanted(entry)]
        if not listed:
            what = "no such study" if not series else "no such series in that study"
            raise NotInPacsError(f"PACS at {pacs.address}: {what}, or it doesn't show it to us.")
        absent = set(series) - {entry.series for entry in listed}
        if absent:
            raise NotInPacsError(f"PACS at {pacs.address}: {len(absent)} of {len(series)} series aren't in that study.")
        if not entries:
            raise NotInPacsError(f"PACS at {pacs.address}: none of {len(listed)} instances of that study is wanted.")
        with progress("fetching", len(entries), show=show_progress) as advance:
            kept = Kept(folder, entries, advance, apart=apart)
            advance(kept.before)
            try:
                _persist(pacs, lambda: _fetch(pacs, kept), lambda: len(kept))
            except PacsError as error:
                told = f"{len(kept)} of {len(entries)} instances are kept in {folder}: run the same command to go on."
                error.args = (f"{error} {told}",)
                raise
    files = tuple(kept.files())
    return Fetched(folder, files, kept.before, len(listed) - len(entries), len(kept) - len(files))


def store_files(
    pacs: Pacs,
    files: Sequence[Path],
    *,
    record: Path | None = None,
    show_progress: bool = False,
) -> list[Outcome]:
    """Store DICOM files, each once: those that the record or the PACS itself has already aren't sent again.

    What the PACS says to have stored is looked up, since some say so of what they drop.

    Arguments:
        pacs: as `connect` gives it.
        files: DICOM files.
        record: a JSON file that remembers, by hashes, what was stored at which address; None for no memory.
        show_progress: show a bar with the time left.

    Returns:
        What became of each file, in their order: one that is refused doesn't stop the others.

    Raises:
        PacsError: the PACS can't be reached or lets nobody in. What was stored before is remembered.
    """
    memory = _Memory(record, pacs)
    outcomes: dict[Path, Outcome] = {}
    unsure: list[StoredFile] = []
    with hushed(), progress("storing", len(files), show=show_progress) as advance:
        for path in files:
            try:
                file = read_stored(path)
            except DecodeError as error:
                outcomes[path] = Outcome(path, "failed", str(error))
                continue
            if memory.has(file):
                outcomes[path] = Outcome(path, "there")
            else:
                unsure.append(file)
        listing, there = _holds(pacs, unsure)
        for file in unsure:
            if file.entry.uid in there:
                outcomes[file.path] = Outcome(file.path, "there")
                memory.add([file])
        advance(len(outcomes))
        waiting = {file.path: file for file in unsure if file.path not in outcomes}
        sent: list[StoredFile] = []

        def send() -> None:
            left = [file for path, file in waiting.items() if path not in outcomes]
            for outcome in pacs.store(left) if left else ():
                outcomes[outcome.path] = outcome
                advance(1)
                if outcome.state == "stored":
                    sent.append(waiting[outcome.path])
                    if not listing:
                        memory.add(sent[-1:])

        try:
            while True:
                try:
                    _persist(pacs, send, lambda: len(outcomes))
                    break
                except PacsBrokenError:
                    pacs.check()  # if it is there, then it is the file that it can't bear
                    path = next(path for path in waiting if path not in outcomes)
                    outcomes[path] = Outcome(path, "failed", _BREAKS)
        except PacsError as error:
            stored = sum(outcome.state != "failed" for outcome in outcomes.values())
            error.args = (f"{error} {stored} of {len(files)} are stored: run the same command to go on.",)
            raise
        if listing:
            there = _settled(pacs, sent)
            memory.add([file for file in sent if file.entry.uid in there])
            for file in sent:
                if file.entry.uid not in there:
                    outcomes[file.path] = Outcome(file.path, "failed", _NOT_LISTED)
    return [outcomes[path] for path in dict.fromkeys(files)]


def _fetch(pacs: Pacs, kept: Kept) -> None:
    before = -1
    while kept.missing() and len(kept) > before:  # a PACS may give a series with gaps, and the rest when asked for it
        before = len(kept)
        pacs.fetch(kept)
    if kept.missing():
        why = f" (what it sent can't be used: {kept.damaged[-1]})" if kept.damaged else ""
        raise PacsError(f"PACS at {pacs.address}: it lists instances that it doesn't give{why}.")


def _persist(pacs: Pacs, step: Callable[[], None], done: Callable[[], int]) -> None:
    """Go on with a step whose connection breaks, as long as it gets on."""
    access, fruitless = pacs.access, 0
    while True:
        before = done()
        try:
            step()
        except PacsBrokenError:
            fruitless = 0 if done() > before else fruitless + 1
            if fruitless >= access.attempts:
                raise
            time.sleep(access.pause * 2**fruitless)
        else:
            return


def _holds(pacs: Pacs, files: Sequence[StoredFile]) -> tuple[bool, set[str]]:
    """Whether the PACS can be asked what it has, and the UIDs of those files that it has."""
    there: set[str] = set()
    studies: dict[str, list[InstanceEntry]] = {}
    for file in files:
        studies.setdefault(file.entry.study, []).append(file.entry)
    try:
        for entries in studies.values():
            there |= pacs.holds(entries)
    except PacsBrokenError:
        raise
    except PacsRefusedError as error:
        _log.info("note: what is stored can't be looked up there: %s", error)
        return False, set()
    return True, there


def _settled(pacs: Pacs, files: Sequence[StoredFile]) -> set[str]:
    """The UIDs of those files that the PACS lists, asked several times before it counts that it doesn't."""
    there: set[str] = set()
    for look in range(_LOOKS):
        left = [file for file in files if file.entry.uid not in there]
        if not left:
            break
        if look:
            time.sleep(pacs.access.pause * 2 ** (look - 1))
        there |= _holds(pacs, left)[1]
    return there


class _Memory:
    """Which files were stored where: by address, the hash of an instance's UID, and that of its file."""

    def __init__(self, path: Path | None, pacs: Pacs) -> None:
        self._path, self._address = path, str(pacs.address)
        self._all: dict[str, Any] = {}
        if path is not None and path.exists():
            try:
                self._all = read_json(path)
                self._here: dict[str, str] = dict(self._all.get(self._address, {}))
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise expected("record", "the JSON file of what was stored", f"a damaged {path}") from error
        else:
            self._here = {}

    def has(self, file: StoredFile) -> bool:
        return self._here.get(hashed(file.entry.uid)) == file.digest

    def add(self, files: Sequence[StoredFile]) -> None:
        if self._path is None or not files:
            return
        self._here.update({hashed(file.entry.uid): file.digest for file in files})
        write_json(self._path, {**self._all, self._address: self._here})


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that weren't stored."""
    return [outcome for outcome in outcomes if outcome.state == "failed"]
