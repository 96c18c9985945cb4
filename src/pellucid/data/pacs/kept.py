"""Fetched instances in a folder: each whole, once, and under a name that says nothing of whose it is."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pellucid.data.pacs.entries import InstanceEntry, by_series, hashed
from pellucid.data.pacs.errors import PacsError
from pellucid.data.pacs.headers import Header, read_header
from pellucid.data.whole import DecodeError
from pellucid.files import cannot_write
from pellucid.progress import Advance

LARGEST = 2**32  # bytes of one instance, as many as a DICOM value of defined length may have

_PRIVATE = 0o700  # these are a patient's files


class Kept:
    """The wanted instances of one study in `folder`, as `SERIES/INSTANCE.dcm` by the hashes of their UIDs.

    What an earlier run left there counts, once its header was seen to bear the right UID. Files for which `apart` holds
    go into the folder `FOLDER-apart` beside it. `take` may be called from several threads.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Sequence[InstanceEntry],
        advance: Advance,
        *,
        apart: Callable[[Header], bool] = lambda header: False,
        largest: int = LARGEST,
    ) -> None:
        self.folder, self._apart, self._advance, self._largest = folder, apart, advance, largest
        self._wanted = {entry.uid: entry for entry in wanted}
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(_PRIVATE)
            for leftover in folder.glob(".*.part"):
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(folder, error.strerror or str(error)) from error
        self._there = {entry.uid for entry in wanted if self._is_there(entry)}
        self.before = len(self._there)
        self.damaged: list[str] = []  # the reasons, in words

    def path_of(self, entry: InstanceEntry, *, apart: bool = False) -> Path:
        """Where an instance is kept, or would be."""
        folder = self.folder.with_name(f"{self.folder.name}-apart") if apart else self.folder
        return folder / hashed(entry.series)[:8] / f"{hashed(entry.uid)}.dcm"

    def files(self) -> list[Path]:
        """The files in the folder, in the order in which they were wanted; not those that are apart."""
        paths = [self.path_of(entry) for uid, entry in self._wanted.items() if uid in self._there]
        return [path for path in paths if path.exists()]

    def missing(self) -> list[InstanceEntry]:
        """The instances that are wanted and not there yet."""
        return [entry for uid, entry in self._wanted.items() if uid not in self._there]

    def whole(self, series: str) -> bool:
        """Whether none of a series is there yet, so that it may come in one piece."""
        return not any(entry.uid in self._there for entry in by_series(self._wanted.values()).get(series, []))

    def __len__(self) -> int:
        return len(self._there)

    def take(self, chunks: Iterable[bytes]) -> None:
        """Keep one DICOM file where it is wanted; it appears whole or not at all.

        What is no such file, or not wanted, is only counted, so that the others come. Raises PacsError for one that is
        too large, StorageError where it can't be written, and whatever `chunks` raises.
        """
        aside = self.folder / f".{os.getpid()}-{threading.get_ident()}.part"
        try:
            self._write(aside, chunks)
            try:
                found = read_header(aside)
            except DecodeError as error:
                self.damaged.append(str(error))
            else:
                self._place(aside, found)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)

    def _write(self, aside: Path, chunks: Iterable[bytes]) -> None:
        size = 0
        with _told(aside), aside.open("wb") as handle:
            for chunk in chunks:
                size += len(chunk)
                if size > self._largest:
                    raise PacsError(f"the PACS sent an instance of more than {self._largest:,} bytes.")
                handle.write(chunk)
            handle.flush()
            os.fsync(handle.fileno())

    def _place(self, aside: Path, found: Header) -> None:
        wanted = self._wanted.get(found.entry.uid)
        with self._lock:
            if wanted is None or wanted.study != found.entry.study:
                return
            path = self.path_of(wanted, apart=self._apart(found))
            with _told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.parent.parent.chmod(_PRIVATE)
                aside.replace(path)
            if wanted.uid not in self._there:
                self._there.add(wanted.uid)
                self._advance(1)

    def _is_there(self, entry: InstanceEntry) -> bool:
        for apart in (False, True):
            try:
                found = read_header(self.path_of(entry, apart=apart)).entry
            except DecodeError:
                continue
            if (found.uid, found.study) == (entry.uid, entry.study):
                return True
        return False


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
