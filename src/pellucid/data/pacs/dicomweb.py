"""A PACS by DICOMweb: search (QIDO-RS), retrieve (WADO-RS) and store (STOW-RS), PS3.18 chapter 10."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import requests

from pellucid.data.pacs import statuses
from pellucid.data.pacs.address import Access, Address
from pellucid.data.pacs.entries import InstanceEntry, Outcome, Query, Sink, StoredFile, StudyEntry, by_series, is_uid
from pellucid.data.pacs.errors import NotInPacsError, PacsBrokenError, PacsError
from pellucid.data.pacs.multipart import FilesAsParts, MultipartError, Parts, TruncatedError, content_type
from pellucid.data.pacs.transport import JSON_TYPES, StatusError, Transport
from pellucid.data.quiet import hushed

PAGE = 500  # entries asked for at once; a server may give fewer
BATCH_FILES, BATCH_BYTES = 20, 2**26  # of one store

_MOST_ENTRIES = 200_000
_UIDS_AT_ONCE = 40  # some 2,600 characters, which every server takes
# the files as the PACS keeps them, whatever their transfer syntax (PS3.18, 8.7.3.5.2)
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_AS_GIVEN = 'multipart/related; type="application/dicom"'

_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_DATE, _MODALITIES, _DESCRIPTION = "00080020", "00080061", "00081030"
_SERIES_COUNT, _INSTANCE_COUNT = "00201206", "00201208"
_NAME, _PATIENT = "00100010", "00100020"
_FAILED, _REFERENCED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_REFERENCED_INSTANCE, _FAILURE, _WARNING = "00081155", "00081197", "00081196"


class DicomWeb:
    """A PACS that speaks DICOMweb; see `Pacs` for its methods."""

    def __init__(self, address: Address, access: Access) -> None:
        self.address, self.access = address, access
        self._http = Transport(address, access)
        self._accept = _AS_STORED

    def close(self) -> None:
        self._http.close()

    @hushed()
    def check(self) -> None:
        self._http.get_json("/studies", {"limit": 1})

    @hushed()
    def studies(self, query: Query) -> list[StudyEntry]:
        asked = {
            "PatientID": query.patient_id,
            "ModalitiesInStudy": query.modality,
            "StudyDate": query.date,
            "StudyInstanceUID": query.study,
            "includefield": [_MODALITIES, _DESCRIPTION, _SERIES_COUNT, _INSTANCE_COUNT],  # each by itself (8.3.4.3)
        }
        found = self._search("/studies", {key: value for key, value in asked.items() if value}, _STUDY, query.limit)
        return [_study(each) for each in found]

    @hushed()
    def instances(self, study: str, series: Sequence[str] = ()) -> list[InstanceEntry]:
        entries = []
        for each in series or ("",):
            place = f"/studies/{study}/series/{each}/instances" if each else f"/studies/{study}/instances"
            entries += [_instance(one, study, each) for one in self._search(place, {}, _INSTANCE, _MOST_ENTRIES)]
        return [entry for entry in entries if entry is not None]

    @hushed()
    def holds(self, entries: Sequence[InstanceEntry]) -> set[str]:
        there: set[str] = set()
        for series, group in by_series(entries).items():
            uids = [each.uid for each in group]
            place = f"/studies/{group[0].study}/series/{series}/instances"
            for start in range(0, len(uids), _UIDS_AT_ONCE):
                listed = {"SOPInstanceUID": ",".join(uids[start : start + _UIDS_AT_ONCE])}
                there |= {_text(each, _INSTANCE) for each in self._search(place, listed, _INSTANCE, _MOST_ENTRIES)}
        return there

    @hushed()
    def fetch(self, sink: Sink) -> None:
        """A series of which nothing is there yet comes in one answer, else each instance in its own."""
        for series, entries in by_series(sink.missing()).items():
            place = f"/studies/{entries[0].study}/series/{series}"
            if sink.whole(series):
                self._retrieve(place, sink, len(entries))
            left = {each.uid for each in sink.missing()}
            for entry in entries:
                if entry.uid in left:
                    self._retrieve(f"{place}/instances/{entry.uid}", sink, 1)

    def store(self, files: Sequence[StoredFile]) -> Iterator[Outcome]:
        for batch in _batches(files):
            yield from self._store(batch)

    def _search(self, path: str, asked: Mapping[str, Any], key: str, most: int) -> list[dict[str, Any]]:
        """All entries page by page, each once by its UID; none where the server says that there are none."""
        found: dict[str, dict[str, Any]] = {}
        while len(found) < most:
            page = {**asked, "limit": min(PAGE, most - len(found)), "offset": len(found)}
            try:
                entries = self._http.get_json(path, page)
            except NotInPacsError:
                if path == "/studies" or found:
                    raise
                return []  # as some answer for a study that they don't have
            before = len(found)
            for each in entries:
                found.setdefault(_text(each, key), each)
            found.pop("", None)
            if len(found) == before:  # the end, or a server that knows no offset
                break
        return list(found.values())[:most]

    def _retrieve(self, path: str, sink: Sink, count: int) -> None:
        try:
            self._receive(path, sink, count)
        except StatusError as error:
            if error.status not in (400, 406, 415) or self._accept != _AS_STORED:
                raise
            self._accept = _AS_GIVEN  # of a server that doesn't know the star
            self._receive(path, sink, count)

    def _receive(self, path: str, sink: Sink, count: int) -> None:
        try:
            with self._http.get(path, self._accept) as response:
                kind, boundary = content_type(response.headers.get("Content-Type", ""))
                pieces = self._http.pieces(response)
                if kind == "application/dicom" and count == 1:  # one file as it is, which some servers send
                    sink.take(pieces)
                elif kind == "multipart/related" and boundary is not None:
                    self._take_parts(Parts(pieces, boundary), sink, count)
                else:
                    raise PacsError(f"{self._http.where}: it answers with {kind[:60]!r} where DICOM was asked for.")
        except TruncatedError as error:
            raise PacsBrokenError(f"{self._http.where}: an answer broke off: {error}.") from None
        except MultipartError as error:
            raise PacsError(f"{self._http.where}: a damaged answer: {error}.") from None

    def _take_parts(self, parts: Parts, sink: Sink, count: int) -> None:
        for number, (headers, body) in enumerate(parts, 1):
            if number > count + _MORE_PARTS:
                raise PacsError(f"{self._http.where}: it sends more files than the {count} that it lists.")
            sink.take(_of_length(body, headers.get("content-length", "")))

    def _store(self, batch: Sequence[StoredFile]) -> list[Outcome]:
        """Store files in one request; where the answer doesn't tell them apart, one by one."""
        with self._http.post("/studies", FilesAsParts([file.path for file in batch])) as response:
            status = response.status_code
            told = self._told(response)
        outcomes = {file.path: _outcome(file, told) for file in batch}
        unclear = [file for file in batch if outcomes[file.path] is None]
        for file in unclear:
            if len(batch) == 1 or status == 200:
                outcomes[file.path] = _by_status(file, status)
            else:
                (outcomes[file.path],) = self._store([file])
        return [outcome for outcome in outcomes.values() if outcome is not None]

    def _told(self, response: requests.Response) -> dict[str, tuple[bool, int | None]]:
        """Of each instance that an answer names: whether it was stored, and the code of failure or warning."""
        kind, _ = content_type(response.headers.get("Content-Type", ""))
        if kind not in (*JSON_TYPES, "") or response.status_code == 413:
            return {}
        try:
            answers = self._http.json_of(response)
        except PacsBrokenError:
            raise
        except PacsError:  # no JSON, so that the status alone speaks
            return {}
        told: dict[str, tuple[bool, int | None]] = {}
        for answer in answers:
            for item in _items(answer, _REFERENCED):
                told[_text(item, _REFERENCED_INSTANCE)] = (True, _number(item, _WARNING))
            for item in (*_items(answer, _FAILED), *_items(answer, _OTHER_FAILURES)):
                told[_text(item, _REFERENCED_INSTANCE)] = (False, _number(item, _FAILURE))
        return told


_MORE_PARTS = 1000  # that came since the list was made


def _batches(files: Sequence[StoredFile]) -> Iterator[list[StoredFile]]:
    batch: list[StoredFile] = []
    size = 0
    for file in files:
        bytes_here = file.path.stat().st_size
        if batch and (len(batch) == BATCH_FILES or size + bytes_here > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += bytes_here
    if batch:
        yield batch


def _outcome(file: StoredFile, told: dict[str, tuple[bool, int | None]]) -> Outcome | None:
    if file.entry.uid not in told:
        return None
    stored, code = told[file.entry.uid]
    reason = "" if code is None else statuses.words(code)
    return Outcome(file.path, "stored" if stored else "failed", reason or ("" if stored else "it gives no reason"))


def _by_status(file: StoredFile, status: int) -> Outcome:
    if status == 200:
        return Outcome(file.path, "stored")
    known = {
        202: "it took it, but not all of it, and gives no reason (202)",
        400: "it finds it damaged or can't understand it (400)",
        409: "it refuses it and gives no reason (409)",
        413: "it is larger than the server takes (413)",
    }
    return Outcome(file.path, "failed", known[status])


def _of_length(body: Iterable[bytes], declared: str) -> Iterator[bytes]:
    """A part's body, which must be as long as the part says, where it does."""
    length = 0
    for piece in body:
        length += len(piece)
        yield piece
    if declared.isdecimal() and int(declared) != length:
        raise MultipartError(f"a file of {length} bytes that should have {declared}")


def _values(entry: Any, tag: str) -> list[Any]:
    """The values of an element in DICOM JSON; none where there is no such element, or it is of another form."""
    element = entry.get(tag) if isinstance(entry, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _text(entry: Any, tag: str) -> str:
    values = _values(entry, tag)
    value = values[0] if values else ""
    if isinstance(value, dict):  # a person's name
        value = value.get("Alphabetic", "")
    return str(value).strip(" \0") if isinstance(value, str | int | float) else ""


def _number(entry: Any, tag: str) -> int | None:
    text = _text(entry, tag)
    return int(text) if text.isdecimal() else None


def _items(entry: Any, tag: str) -> list[Any]:
    return [item for item in _values(entry, tag) if isinstance(item, dict)]


def _study(entry: dict[str, Any]) -> StudyEntry:
    return StudyEntry(
        uid=_text(entry, _STUDY),
        date=_text(entry, _DATE),
        modalities=tuple(str(each) for each in _values(entry, _MODALITIES)),
        description=_text(entry, _DESCRIPTION),
        series=_number(entry, _SERIES_COUNT),
        instances=_number(entry, _INSTANCE_COUNT),
        patient_name=_text(entry, _NAME),
        patient_id=_text(entry, _PATIENT),
    )


def _instance(entry: dict[str, Any], study: str, series: str) -> InstanceEntry | None:
    """An entry whose UIDs can be asked for again; what else a server might write there is no instance."""
    series, uid = series or _text(entry, _SERIES), _text(entry, _INSTANCE)
    if not is_uid(series) or not is_uid(uid):
        return None
    return InstanceEntry(study, series, uid, _text(entry, _CLASS))
