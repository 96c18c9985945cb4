"""What a DICOM file is, from its header alone; nothing that a hostile file says costs memory."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pellucid.data.pacs.entries import InstanceEntry, StoredFile, is_uid
from pellucid.data.whole import DecodeError

_UIDS: tuple[BaseTag, ...] = tuple(map(Tag, ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")))
_MAKER = Tag("Manufacturer")
_LAST = max(_UIDS)
_LONGEST = 2**24  # bytes of one value that are read
_DEFER = 2**16  # bytes of a value from which on it stays on disk
_INFLATED = 2**20  # bytes of a deflated data set within which its UIDs are looked for


@dataclass(frozen=True)
class Header:
    """What tells one DICOM file from another."""

    entry: InstanceEntry
    transfer_syntax: str
    manufacturer: str


class _Bounded(io.BufferedReader):
    """A file of which nobody reads much at once, whatever length it states."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST:
            raise DecodeError("its header is damaged")
        return super().read(size)


def read_header(path: Path) -> Header:
    """The UIDs of a DICOM file, its transfer syntax and its maker; raises DecodeError with the reason alone."""
    try:
        with _Bounded(path.open("rb", buffering=0)) as handle:
            if handle.read(132)[128:] != b"DICM":
                raise DecodeError("not a DICOM file")
            meta = read_dataset(handle, False, True, stop_when=_behind_meta)
            syntax = str(meta.TransferSyntaxUID)
            found = _data_set(handle, UID(syntax))
        sop_class, uid, study, series = (_text(found, tag) for tag in _UIDS)
        maker = _text(found, _MAKER)
    except DecodeError:
        raise
    except OSError as error:
        raise DecodeError(error.strerror or "can't be read") from None
    except Exception:  # noqa: BLE001 - pydicom raises many kinds, and quotes values in them
        raise DecodeError("its header is damaged") from None
    if not all(map(is_uid, (sop_class, uid, study, series, syntax))):
        raise DecodeError("its header lacks the UIDs of class, instance, series or study")
    return Header(InstanceEntry(study, series, uid, sop_class), syntax, maker)


def read_stored(path: Path) -> StoredFile:
    """A file as it is to be stored; raises DecodeError with the reason alone."""
    header = read_header(path)
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return StoredFile(path, header.entry, header.transfer_syntax, digest)


def _data_set(handle: _Bounded, syntax: UID) -> Dataset:
    """The elements up to the UIDs; of a deflated file no more is inflated than they should need."""
    source: Any = handle
    if syntax == DeflatedExplicitVRLittleEndian:
        source = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(handle.read(_INFLATED), _INFLATED))
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    wanted: list[BaseTag | int] = [*_UIDS, _MAKER]
    return read_dataset(source, implicit, little, stop_when=_behind, defer_size=_DEFER, specific_tags=wanted)


def _text(found: Dataset, tag: BaseTag) -> str:
    return str(found[tag].value or "").strip(" \0") if tag in found else ""


def _behind_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag.group != 2)


def _behind(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag > _LAST)
