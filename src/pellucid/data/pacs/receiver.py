"""Files that a PACS sends to us by C-STORE: over the association of a C-GET, or to a port of ours by C-MOVE."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.events import Event

from pellucid.data.pacs import statuses
from pellucid.data.pacs.entries import Sink
from pellucid.data.pacs.errors import PacsError
from pellucid.errors import PellucidError

LARGEST = 2**31  # bytes of one instance, which is held in memory until it is whole

_LATE_SECONDS = 3.0  # some PACS answer a C-MOVE before they have sent all


class Receiver:
    """Takes what arrives into a sink, and remembers the first error, which is raised where the caller waits."""

    def __init__(self, sink: Sink, largest: int = LARGEST) -> None:
        self._sink, self._largest = sink, largest
        self._error: PellucidError | None = None
        self._received: dict[int, int] = {}  # bytes since the last file, by association

    def handlers(self) -> list[Any]:
        """What pynetdicom is to call."""
        return [(evt.EVT_C_STORE, self._store), (evt.EVT_DATA_RECV, self._count)]

    def check(self) -> None:
        """Raise what went wrong while files arrived."""
        if self._error is not None:
            raise self._error

    @contextlib.contextmanager
    def listening(
        self, own: AE, place: tuple[str, int], classes: Sequence[str], syntaxes: Sequence[str]
    ) -> Iterator[None]:
        """Listen for files of those kinds, under our AE title alone, as long as the block runs."""
        own.require_called_aet = True
        for each in classes:
            own.add_supported_context(each, list(syntaxes))
        try:
            server: Any = own.start_server(place, block=False, evt_handlers=self.handlers())
        except OSError as error:
            reason = error.strerror or str(error)
            raise PacsError(f"pacs-listen: can't listen at {place[0]}:{place[1]}: {reason}.") from None
        try:
            yield
        finally:
            server.shutdown()

    def wait(self, series: str) -> None:
        """Wait for the files of a series that are still on their way, as long as some come."""
        before, since = -1, time.monotonic()
        while left := sum(entry.series == series for entry in self._sink.missing()):
            if left != before:
                before, since = left, time.monotonic()
            if self._error is not None or time.monotonic() - since > _LATE_SECONDS:
                return
            time.sleep(0.05)

    def _store(self, event: Event) -> int:
        self._received.pop(id(event.assoc), None)
        try:
            self._sink.take(_file(event))
        except PellucidError as error:  # such as a full disk
            self._error = self._error or error
            return statuses.OUT_OF_RESOURCES
        return statuses.SUCCESS

    def _count(self, event: Event) -> None:
        """Break off before a data set without end fills the memory."""
        key = id(event.assoc)
        self._received[key] = self._received.get(key, 0) + len(event.data)
        if self._received[key] > self._largest:
            self._error = self._error or PacsError(f"the PACS sent an instance of more than {self._largest:,} bytes.")
            event.assoc.abort()
            event.assoc.dimse.msg_queue.put((None, None))  # so that who waits for an answer stops waiting


def _file(event: Event) -> Iterator[bytes]:
    """The parts of a DICOM file (PS3.10, 7.1) with the data set just as it came."""
    yield bytes(128) + b"DICM" + encode_file_meta(event.file_meta)
    yield event.request.DataSet.getvalue()  # type: ignore[union-attr]
