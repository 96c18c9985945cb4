"""A PACS by DIMSE (PS3.4, PS3.7): C-ECHO, C-FIND, C-GET or C-MOVE, and C-STORE."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import _config, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove as Move,
)
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pellucid.data.pacs import statuses
from pellucid.data.pacs.address import Access, Address
from pellucid.data.pacs.association import MOST_CONTEXTS, Calls, NothingGrantedError, contexts_of
from pellucid.data.pacs.entries import (
    InstanceEntry,
    Outcome,
    Query,
    Sink,
    StoredFile,
    StudyEntry,
    by_series,
    is_uid,
)
from pellucid.data.pacs.errors import PacsError
from pellucid.data.pacs.receiver import Receiver
from pellucid.data.quiet import hushed

# every transfer syntax that an image may come in, each asked for by itself, so that none is decoded on the way
SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
    uid.RLELossless,
)
# of a PACS that doesn't list SOP classes
_COMMON = list(
    itertools.product(
        (
            "1.2.840.10008.5.1.4.1.1.1",  # CR
            "1.2.840.10008.5.1.4.1.1.1.1",  # DX
            "1.2.840.10008.5.1.4.1.1.1.2",  # MG
            "1.2.840.10008.5.1.4.1.1.2",  # CT
            "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
            "1.2.840.10008.5.1.4.1.1.3.1",  # US, several frames
            "1.2.840.10008.5.1.4.1.1.4",  # MR
            "1.2.840.10008.5.1.4.1.1.4.1",  # enhanced MR
            "1.2.840.10008.5.1.4.1.1.6.1",  # US
            "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
            "1.2.840.10008.5.1.4.1.1.12.1",  # XA
            "1.2.840.10008.5.1.4.1.1.20",  # NM
            "1.2.840.10008.5.1.4.1.1.128",  # PET
            "1.2.840.10008.5.1.4.1.1.13.1.3",  # breast tomosynthesis
        ),
        (
            *(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1),
            *(uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEG2000, uid.RLELossless),
        ),
    )
)
_CLASSES_AT_ONCE = (MOST_CONTEXTS - 1) // len(SYNTAXES)
_MOST_ENTRIES = 200_000
_UIDS_AT_ONCE = 40
_sending = threading.Lock()


class Dimse:
    """A PACS that speaks DIMSE; see `Pacs` for its methods."""

    def __init__(self, address: Address, access: Access) -> None:
        self.address, self.access = address, access
        self._calls = Calls(address, access)
        self._gets = True  # until it says that it doesn't know C-GET

    def close(self) -> None:
        """Nothing to do: an association lasts for one call."""

    @hushed()
    def check(self) -> None:
        with self._calls.associated([build_context(Verification)]) as association:
            code = self._calls.checked(association.send_c_echo(), "C-ECHO")
        if code != statuses.SUCCESS:
            raise self._calls.failed(code, "C-ECHO")

    @hushed()
    def studies(self, query: Query) -> list[StudyEntry]:
        asked = _level(
            "STUDY",
            StudyInstanceUID=query.study or "",
            PatientID=query.patient_id or "",
            StudyDate=query.date or "",
            ModalitiesInStudy=query.modality or "",
            PatientName="",
            StudyDescription="",
            NumberOfStudyRelatedSeries=None,
            NumberOfStudyRelatedInstances=None,
        )
        with self._finding() as find:
            found = [_study(each) for each in find(asked, query.limit)]
        # some PACS ignore the key of the modalities, which is optional (PS3.4, C.6.2.1.2)
        wanted = query.modality
        return [each for each in found if wanted is None or not each.modalities or wanted in each.modalities]

    @hushed()
    def instances(self, study: str, series: Sequence[str] = ()) -> list[InstanceEntry]:
        with self._finding() as find:
            if not series:
                listed = find(_level("SERIES", StudyInstanceUID=study, SeriesInstanceUID=""), _MOST_ENTRIES)
                series = [each for entry in listed if is_uid(each := _text(entry, "SeriesInstanceUID"))]
            entries: list[InstanceEntry] = []
            for each in series:
                asked = _level("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=each)
                asked.SOPInstanceUID = asked.SOPClassUID = ""
                entries += [_instance(found, study, each) for found in find(asked, _MOST_ENTRIES)]
        unique = {entry.uid: entry for entry in entries if is_uid(entry.uid)}
        return list(unique.values())

    @hushed()
    def holds(self, entries: Sequence[InstanceEntry]) -> set[str]:
        there: set[str] = set()
        with self._finding() as find:
            for series, group in by_series(entries).items():
                for start in range(0, len(group), _UIDS_AT_ONCE):
                    asked = _level("IMAGE", StudyInstanceUID=group[0].study, SeriesInstanceUID=series)
                    asked.SOPInstanceUID = [entry.uid for entry in group[start : start + _UIDS_AT_ONCE]]
                    there |= {_text(found, "SOPInstanceUID") for found in find(asked, _MOST_ENTRIES)}
        return there

    @hushed()
    def fetch(self, sink: Sink) -> None:
        """By C-GET, which needs nothing of the PACS; by C-MOVE where it knows no C-GET and we may be sent to."""
        if self._gets:
            try:
                self._get(sink)
            except _NoGetError:
                self._gets = False
            else:
                return
        self._move(sink)

    def store(self, files: Sequence[StoredFile]) -> Iterator[Outcome]:
        waiting = list(files)
        while waiting:
            pairs: dict[tuple[str, str], None] = {}
            batch = []
            for file in waiting:
                pair = (file.entry.sop_class, file.transfer_syntax)
                if pair in pairs or len(pairs) < MOST_CONTEXTS:
                    pairs[pair] = None
                    batch.append(file)
            yield from self._store(batch, list(pairs))
            done = {file.path for file in batch}
            waiting = [file for file in waiting if file.path not in done]

    def _store(self, batch: Sequence[StoredFile], pairs: Sequence[tuple[str, str]]) -> Iterator[Outcome]:
        try:
            with self._calls.associated(contexts_of(pairs)) as association:
                granted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}
                for number, file in enumerate(batch):
                    if (file.entry.sop_class, file.transfer_syntax) not in granted:
                        yield Outcome(file.path, "failed", "it doesn't take this kind of object (SOP class) encoded so")
                        continue
                    with _as_they_are(), _even(file.path) as path:
                        status = association.send_c_store(path, msg_id=number % 65535 + 1)
                    yield _outcome(file, self._calls.checked(status, "C-STORE"))
        except NothingGrantedError:
            for file in batch:
                yield Outcome(file.path, "failed", "it takes no object of this kind (SOP class) encoded so")

    def _get(self, sink: Sink) -> None:
        for entries in by_series(sink.missing()).values():
            classes = sorted({entry.sop_class for entry in entries})
            for start in range(0, len(classes), _CLASSES_AT_ONCE):
                some = classes[start : start + _CLASSES_AT_ONCE]
                self._get_some(sink, [entry for entry in entries if entry.sop_class in some], some)

    def _get_some(self, sink: Sink, entries: Sequence[InstanceEntry], classes: Sequence[str]) -> None:
        pairs = _COMMON if "" in classes else list(itertools.product(classes, SYNTAXES))
        receiver = Receiver(sink)
        roles = [build_role(each, scp_role=True) for each in dict(pairs)]
        try:
            with self._calls.associated([build_context(Get), *contexts_of(pairs)], roles, receiver.handlers()) as given:
                if not any(context.abstract_syntax == Get for context in given.accepted_contexts):
                    raise _NoGetError
                for asked in _retrievals(sink, entries):
                    self._follow(given.send_c_get(asked, Get), receiver, "C-GET")
        except NothingGrantedError:
            raise _NoGetError from None

    def _move(self, sink: Sink) -> None:
        listen, title = self.access.listen, self.access.calling
        if listen is None:
            raise PacsError(
                f"{self._calls.where}: it sends files by C-MOVE only. Give the port where they may be sent to with "
                f"--pacs-listen, and have our AE title {title!r} entered there with it."
            )
        receiver = Receiver(sink)
        classes = {entry.sop_class for entry in sink.missing()} - {""} or {each for each, _ in _COMMON}
        with receiver.listening(self._calls.application(), listen, sorted(classes), SYNTAXES):
            for series, entries in by_series(sink.missing()).items():
                with self._calls.associated([build_context(Move)]) as given:
                    for asked in _retrievals(sink, entries):
                        if self._follow(given.send_c_move(asked, title, Move), receiver, "C-MOVE") == statuses.SUCCESS:
                            receiver.wait(series)

    def _follow(self, answers: Iterable[tuple[Dataset, Any]], receiver: Receiver, doing: str) -> int:
        code = statuses.SUCCESS
        for status, _ in answers:
            receiver.check()
            code = self._calls.checked(status, doing)
            if code not in (*statuses.PENDING, statuses.SUCCESS) and not statuses.is_warning(code):
                raise self._calls.failed(code, doing)
        receiver.check()
        return code

    @contextlib.contextmanager
    def _finding(self) -> Iterator[Callable[[Dataset, int], list[Dataset]]]:
        """A function that gives the matches of an identifier, up to a number of them."""
        with self._calls.associated([build_context(Find)]) as association:
            yield lambda asked, most: self._find(association, asked, most)

    def _find(self, association: Association, asked: Dataset, most: int) -> list[Dataset]:
        found: list[Dataset] = []
        for status, identifier in association.send_c_find(asked, Find, msg_id=1):
            code = self._calls.checked(status, "C-FIND")
            if code in statuses.PENDING:
                if identifier is not None:
                    found.append(identifier)
                if len(found) == most:
                    association.send_c_cancel(1, query_model=Find)
            elif code not in (statuses.SUCCESS, statuses.CANCELLED) and not statuses.is_warning(code):
                raise self._calls.failed(code, "C-FIND")
        return found[:most]


class _NoGetError(Exception):
    """The PACS doesn't know C-GET."""


@contextlib.contextmanager
def _as_they_are() -> Iterator[None]:
    """Send files byte for byte and piece by piece, which pynetdicom has a switch for that holds for all."""
    with _sending:
        before = _config.STORE_SEND_CHUNKED_DATASET
        _config.STORE_SEND_CHUNKED_DATASET = True
        try:
            yield
        finally:
            _config.STORE_SEND_CHUNKED_DATASET = before


@contextlib.contextmanager
def _even(path: Path) -> Iterator[Path]:
    """A file whose data set has an even number of bytes, as PS3.8, 9.3.5.1 wants: some deflated ones lack a zero."""
    _, offset = split_dataset(path)
    if (path.stat().st_size - offset) % 2 == 0:
        yield path
        return
    with tempfile.NamedTemporaryFile() as padded, path.open("rb") as handle:
        shutil.copyfileobj(handle, padded)
        padded.write(b"\0")
        padded.flush()
        yield Path(padded.name)


def _level(level: str, **keys: Any) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(asked, name, value)
    return asked


def _retrievals(sink: Sink, entries: Sequence[InstanceEntry]) -> Iterator[Dataset]:
    """What is asked for, of one series: all of it at once where nothing is there yet, then what still lacks."""
    first = entries[0]
    if sink.whole(first.series):
        yield _level("SERIES", StudyInstanceUID=first.study, SeriesInstanceUID=first.series)
    for entry in [each for each in sink.missing() if each.series == first.series]:
        yield _level("IMAGE", StudyInstanceUID=entry.study, SeriesInstanceUID=entry.series, SOPInstanceUID=entry.uid)


def _outcome(file: StoredFile, code: int) -> Outcome:
    if code == statuses.SUCCESS:
        return Outcome(file.path, "stored")
    if statuses.is_warning(code):
        return Outcome(file.path, "stored", statuses.words(code))
    return Outcome(file.path, "failed", statuses.words(code))


def _text(found: Dataset, keyword: str) -> str:
    return str(found.get(keyword, None) or "").strip(" \0")


def _count(found: Dataset, keyword: str) -> int | None:
    text = _text(found, keyword)
    return int(text) if text.isdecimal() else None


def _instance(found: Dataset, study: str, series: str) -> InstanceEntry:
    return InstanceEntry(study, series, _text(found, "SOPInstanceUID"), _text(found, "SOPClassUID"))


def _study(found: Dataset) -> StudyEntry:
    modalities = found.get("ModalitiesInStudy", None) or ()
    listed = (modalities,) if isinstance(modalities, str) else tuple(str(each) for each in modalities)
    return StudyEntry(
        uid=_text(found, "StudyInstanceUID"),
        date=_text(found, "StudyDate"),
        modalities=listed,
        description=_text(found, "StudyDescription"),
        series=_count(found, "NumberOfStudyRelatedSeries"),
        instances=_count(found, "NumberOfStudyRelatedInstances"),
        patient_name=_text(found, "PatientName"),
        patient_id=_text(found, "PatientID"),
    )
