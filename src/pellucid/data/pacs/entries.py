"""What is asked of a PACS and what it answers: studies, instances, and what became of stored files."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pellucid.data.pacs.address import Access, Address
from pellucid.errors import expected

_UID = re.compile(r"[0-9.]{1,64}")


def is_uid(text: str) -> bool:
    """Whether a text can be a UID; those with leading zeros, which PS3.5 forbids, are met with and let pass."""
    return _UID.fullmatch(text) is not None and bool(text.strip("."))


def check_uid(argument: str, uid: str) -> str:
    """A UID without the spaces around it, or InputError, which doesn't repeat it."""
    uid = uid.strip()
    if not is_uid(uid):
        raise expected(argument, "a UID: digits and dots, up to 64", f"something else, of {len(uid)} characters")
    return uid


def hashed(uid: str) -> str:
    """Sixteen letters that tell one UID from another and say neither."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Query:
    """Which studies are looked for; `None` leaves a point open.

    `date` is "YYYYMMDD", or a range "YYYYMMDD-YYYYMMDD" with one end open or neither; `modality` is one that occurs in
    the study, such as "CT"; `limit` is how many studies are wanted at most.
    """

    patient_id: str | None = field(default=None, repr=False)
    modality: str | None = None
    date: str | None = None
    study: str | None = field(default=None, repr=False)
    limit: int = 100

    def __post_init__(self) -> None:
        if self.study is not None:
            check_uid("study", self.study)
        if self.date is not None and not _is_range(self.date):
            raise expected("date", "YYYYMMDD, or YYYYMMDD-YYYYMMDD with an end that may lack", repr(self.date))
        if self.modality is not None and not re.fullmatch(r"[A-Z0-9_ ]{1,16}", self.modality):
            raise expected("modality", "a modality such as CT", repr(self.modality))
        if self.limit < 1:
            raise expected("limit", "a number above 0", self.limit)


def _is_range(text: str) -> bool:
    start, dash, end = text.partition("-")
    days = [day for day in (start, end) if day]
    try:
        for day in days:
            datetime.datetime.strptime(day, "%Y%m%d")
    except ValueError:
        return False
    return all(len(day) == 8 for day in days) and bool(days) and (bool(dash) or bool(start))


@dataclass(frozen=True)
class StudyEntry:
    """A study as a PACS lists it; what it doesn't say is "" or None."""

    uid: str = field(repr=False)
    date: str = ""
    modalities: tuple[str, ...] = ()
    description: str = ""
    series: int | None = None
    instances: int | None = None
    patient_name: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)


@dataclass(frozen=True)
class InstanceEntry:
    """An instance as a PACS lists it, by its UIDs; `sop_class` is "" where the PACS doesn't say it."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    uid: str = field(repr=False)
    sop_class: str = ""


def by_series(entries: Iterable[InstanceEntry]) -> dict[str, list[InstanceEntry]]:
    """Instances by the UID of their series, in their order."""
    groups: dict[str, list[InstanceEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.series, []).append(entry)
    return groups


@dataclass(frozen=True)
class StoredFile:
    """A DICOM file that is to be stored, by what its header says."""

    path: Path
    entry: InstanceEntry
    transfer_syntax: str
    digest: str  # SHA-256 of the file


@dataclass(frozen=True)
class Outcome:
    """What became of a file: stored now, there already, or failed; `reason` also says what a PACS changed."""

    path: Path
    state: Literal["stored", "there", "failed"]
    reason: str = ""


class Sink(Protocol):
    """Where fetched instances go."""

    def take(self, chunks: Iterator[bytes]) -> None:
        """Keep one DICOM file, whole or not at all."""

    def missing(self) -> list[InstanceEntry]:
        """The instances that are wanted and not there yet."""

    def whole(self, series: str) -> bool:
        """Whether none of a series is there yet, so that it may come in one piece."""


class Pacs(Protocol):
    """A PACS, by whichever protocol it is spoken to. Every call raises PacsError."""

    address: Address
    access: Access

    def check(self) -> None:
        """Do nothing but find that it answers and lets us in."""

    def studies(self, query: Query) -> list[StudyEntry]:
        """The studies that match, up to the query's limit."""

    def instances(self, study: str, series: Sequence[str] = ()) -> list[InstanceEntry]:
        """The instances of a study, or of some of its series; none where it isn't there."""

    def holds(self, entries: Sequence[InstanceEntry]) -> set[str]:
        """The UIDs of those instances, all of one study, that are there."""

    def fetch(self, sink: Sink) -> None:
        """Send what the sink misses of one study to it; whatever arrived before an error is kept."""

    def store(self, files: Sequence[StoredFile]) -> Iterator[Outcome]:
        """Store files, and tell of each as soon as it is known."""

    def close(self) -> None:
        """Let go of connections."""
