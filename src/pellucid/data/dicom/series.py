"""DICOM files into series, and series into volumes: by position, never by name or number.

A series is addressed by the path `FOLDER/#NAME`, where FOLDER is the deepest folder that holds all its files. With
`+filled` behind it, slices that are missing are filled in from their neighbours.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pellucid.data.dicom.scan import Header, Skipped, headers_of
from pellucid.data.dicom.stacks import Stack, stacks_of
from pellucid.data.images import decode_file, quiet_decoders
from pellucid.data.medical_image import MedicalImage
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, UnreadableFileError
from pellucid.progress import progress

MARK = "#"
FILLED = "+filled"
Gaps = Literal["refuse", "fill"]


@dataclass(frozen=True, eq=False)
class Series:
    """Files of one series in one stack: one orientation, one grid, along the normal.

    `files` in the order of their positions; `notes` what was left out or mended. `name` tells it from others of its
    folder without saying whose it is: eight letters of the hash of its UID, with "-2" and so on where a series falls
    into several stacks. `path` is what `read_image` takes: `FOLDER/#NAME`.

    `volume` says whether the files are a volume. Where slices should be one and aren't, `refusal` says why.
    """

    folder: Path
    name: str
    uid: str = field(repr=False)
    study: str = field(repr=False)
    patient: str = field(repr=False)
    modality: str
    description: str = field(repr=False)
    files: tuple[Path, ...]
    volume: bool
    notes: tuple[str, ...] = ()
    refusal: str = ""
    stack: Stack | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        return self.folder / f"{MARK}{self.name}"


@dataclass(frozen=True, eq=False)
class Scan:
    """What a folder holds: its series, and the path and reason of each file that is none of them."""

    series: tuple[Series, ...]
    skipped: tuple[tuple[str, str], ...]


def series_name(uid: str) -> str:
    """A short name of a series that doesn't tell its UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def scan(paths: Sequence[Path], *, show_progress: bool = False) -> Scan:
    """The series among files and folders, which are searched at any depth; headers alone are read.

    Hidden files and DICOMDIRs are passed over. Raises InputError for a path that isn't there.
    """
    with quiet_decoders():
        return _scan(paths, show_progress=show_progress)


def _scan(paths: Sequence[Path], *, show_progress: bool = False) -> Scan:
    """As `scan`, for use in threads."""
    files = _files(paths)
    with progress("reading headers", len(files), show=show_progress) as advance:
        headers, skipped = headers_of(files, advance)
    found = series_of(headers, skipped)
    return Scan(found, tuple((str(each.path), each.reason) for each in skipped))


def series_of(headers: Iterable[Header], skipped: Iterable[Skipped] = ()) -> tuple[Series, ...]:
    """The series of headers, in the order of their folders and files, for use in threads.

    Files that are `damaged` and lie beside those of a volume are noted, since they may be slices of it.
    """
    groups: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        groups[header.series].append(header)
    damaged = Counter(each.path.parent for each in skipped if each.kind == "damaged")
    found = [each for uid, members in groups.items() for each in _series(uid, members, damaged)]
    return tuple(sorted(found, key=lambda each: (str(each.folder), str(each.files[0]))))


def _files(paths: Sequence[Path]) -> list[Path]:
    """Each file once, those of folders sorted."""
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for folder, names, entries in os.walk(path):
                names[:] = sorted(name for name in names if not name.startswith("."))
                here = Path(folder)
                files.update(dict.fromkeys(here / entry for entry in sorted(entries) if not entry.startswith(".")))
        elif path.exists():
            files[path] = None
        else:
            raise InputError(f"paths: expected DICOM files or folders, got {str(path)!r}, which isn't there.")
    return list(files)


def _series(uid: str, headers: Sequence[Header], damaged: Mapping[Path, int]) -> list[Series]:
    folder = _common({each.path.parent for each in headers})
    found = []
    for number, stack in enumerate(stacks_of(headers, _digest), start=1):
        first = stack.headers[0]
        beside = sum(damaged.get(each, 0) for each in {each.path.parent for each in stack.headers})
        lost = f"{beside} damaged file{'s' if beside > 1 else ''} beside its slices, which may have been of it"
        one = len({each.patient_id or each.patient_name for each in stack.headers}) == 1
        found.append(
            Series(
                folder,
                series_name(uid) + (f"-{number}" if number > 1 else ""),
                uid,
                first.study,
                first.patient_id if one else "",
                first.modality,
                first.description if one else "",
                tuple(each.path for each in stack.headers),
                stack.volume,
                (*stack.notes, lost) if beside and len(stack.headers) > 1 else stack.notes,
                stack.refusal,
                stack,
            )
        )
    return found


def _common(folders: Iterable[Path]) -> Path:
    """The deepest folder that holds all of them."""
    listed = list(folders)
    if len({each.is_absolute() for each in listed}) > 1:
        listed = [each.absolute() for each in listed]
    return Path(os.path.commonpath(listed))


def _digest(header: Header) -> str:
    """The hash of a file's values; of one that can't be read, nothing that another has."""
    try:
        pixels = decode_file(header.path).pixels
    except DecodeError:
        return str(header.path)
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def is_series_path(path: Path) -> bool:
    """Whether a path is that of a folder, or names a series of one."""
    return path.is_dir() or (path.name.startswith(MARK) and not path.exists() and path.parent.is_dir())


def read_series(series: Series, *, gaps: Gaps = "refuse") -> MedicalImage:
    """The volume (1, D, H, W) of a series, or the picture of its only file.

    Slices are ordered along their normal, the cross product of the directions along rows and down columns, so that
    the affine's determinant is negative whatever the orientation. `gaps="fill"` interpolates missing slices linearly,
    at most one for every two that are there.

    Raises UnreadableFileError where the slices make no volume or one of them can't be read.
    """
    try:
        with quiet_decoders():
            return _decoded(series, gaps)
    except DecodeError as error:
        raise UnreadableFileError(f"can't read {series.path}: {error}.") from error


def decode_series(path: Path, index: int | None = None) -> MedicalImage:
    """The volume that a folder holds, or that `FOLDER/#NAME` names, for use in threads; raises DecodeError."""
    gaps: Gaps = "refuse"
    name = ""
    folder = path
    if not path.is_dir():
        folder, name = path.parent, path.name.removeprefix(MARK)
        if name.endswith(FILLED):
            name, gaps = name.removesuffix(FILLED), "fill"
    return replace(_decoded(_picked(_scan([folder]), folder, name), gaps, index), source=path)


def _picked(found: Scan, folder: Path, name: str) -> Series:
    if name:
        for each in found.series:
            if each.name == name:
                return each
        raise DecodeError(f"{folder} holds no series of that name{_listed(found.series)}")
    usable = [each for each in found.series if each.volume or each.refusal] or list(found.series)
    if len(usable) == 1:
        return usable[0]
    if not usable:
        skipped = f"; {len(found.skipped)} files are none, e.g. {found.skipped[0][1]}" if found.skipped else ""
        raise DecodeError(f"a folder without DICOM images{skipped}")
    raise DecodeError(f"a folder that holds {len(usable)} series; name one{_listed(usable)}")


def _listed(series: Iterable[Series]) -> str:
    told = [f"{each.path} ({_about(each)})" for each in series]
    more = f" and {len(told) - 5} more" if len(told) > 5 else ""
    return f": {', '.join(told[:5])}{more}" if told else ""


def _about(series: Series) -> str:
    what = "volume" if series.volume else "no volume" if series.refusal else "picture"
    count = len(series.files)
    return f"{series.modality or 'unknown modality'}, {count} file{'s' if count > 1 else ''}, {what}"


def _decoded(series: Series, gaps: Gaps, index: int | None = None) -> MedicalImage:
    # pixels need more of pellucid than headers do
    from pellucid.data.dicom.volume import assemble

    stack = series.stack
    if len(series.files) == 1:
        image = decode_file(series.files[0], index, volumes=True)
        return replace(image, notes=(*image.notes, *series.notes))
    if index not in (None, 0):
        raise DecodeError(f"a series of one volume, so that there is none with index {index}")
    if stack is not None and stack.fillable and gaps == "fill":
        filled = f"{sum(stack.missing)} missing slices filled in from their neighbours"
        return assemble(stack.headers, stack.missing, series.path, (*series.notes, filled))
    if series.refusal:
        way = f"; {series.path}{FILLED} has them filled in" if stack is not None and stack.fillable else ""
        raise DecodeError(f"no volume, since {series.refusal}{way}")
    if not series.volume or stack is None:
        raise DecodeError(f"{len(series.files)} pictures ({series.modality}), no volume; name one of the files")
    return assemble(stack.headers, (), series.path, series.notes)
