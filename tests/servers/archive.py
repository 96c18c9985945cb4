"""A DIMSE server of pynetdicom on loopback that does as a test tells it."""

from __future__ import annotations

import contextlib
import socketserver
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from servers.orthanc import free_port

KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
FIND, GET = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless]


@dataclass
class Archive:
    """What it holds, and how it answers."""

    slices: list[pydicom.FileDataset] = field(default_factory=list)
    stores: Callable[[Event], int] = lambda event: 0
    services: Sequence[str] = (Verification, FIND, GET)
    knows_classes: bool = True
    find_status: int | None = None
    before_get: Callable[[Event, int], None] = lambda event, number: None
    title: str = "ARCHIVE"
    accepts: str | None = None  # the only AE title that may call
    port: int = 0
    gets: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"dicom://{self.title}@127.0.0.1:{self.port}"

    def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.find_status is not None:
            yield self.find_status, None
            return
        asked = event.identifier
        key = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[
            asked.QueryRetrieveLevel
        ]
        found = [each for each in self.slices if all(fits(each, asked, name) for name in KEYS)]
        for each in {each.get(key): each for each in found}.values():
            answer = Dataset()
            for element in asked:
                if element.keyword in each and (self.knows_classes or element.keyword != "SOPClassUID"):
                    setattr(answer, element.keyword, each.get(element.keyword))
            yield 0xFF00, answer

    def get(self, event: Event) -> Iterator[Any]:
        asked = event.identifier
        self.gets.append(asked.QueryRetrieveLevel)
        found = [each for each in self.slices if all(fits(each, asked, name) for name in KEYS)]
        yield len(found)
        for number, each in enumerate(found):
            self.before_get(event, number)
            yield 0xFF00, each


def fits(each: Dataset, asked: Dataset, name: str) -> bool:
    """Whether a key is open, or matches one UID or one of a list (PS3.4, C.2.2.2)."""
    wanted = asked.get(name)
    return not wanted or each.get(name) in ([wanted] if isinstance(wanted, str) else wanted)


@contextlib.contextmanager
def archive(**settings: Any) -> Iterator[Archive]:
    """A server that is up within the block."""
    it = Archive(port=free_port(), **settings)
    own = AE(it.title)
    own.require_called_aet = True
    own.require_calling_aet = [] if it.accepts is None else [it.accepts]
    own.maximum_pdu_size = 16384
    for each in it.services:
        own.add_supported_context(each)
    own.add_supported_context(CTImageStorage, SYNTAXES, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_STORE, it.stores), (evt.EVT_C_FIND, it.find), (evt.EVT_C_GET, it.get)]
    socketserver.BaseServer.serve_forever.__defaults__ = (0.02,)  # how soon it sees that it is to stop
    server: Any = own.start_server(("127.0.0.1", it.port), block=False, evt_handlers=handlers)
    try:
        yield it
    finally:
        server.shutdown()
