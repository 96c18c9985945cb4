"""DICOM files into series, and series into volumes: by position, never by name or number."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.data.images import MedicalImage


@dataclass(frozen=True, eq=False)
class Series:
    """Files of one series in one stack: one orientation, one grid, along the normal.

    `files` in the order of their positions; `notes` what was left out or mended. `name` tells it from others of its
    folder without saying whose it is: eight letters of the hash of its UID, with "-2" and so on where a series falls
    into several stacks. `path` is what `read_image` takes: `FOLDER/#NAME`.
    """

    folder: Path
    name: str
    uid: str
    study: str
    patient: str
    modality: str
    description: str
    files: tuple[Path, ...]
    volume: bool
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.folder / f"#{self.name}"


@dataclass(frozen=True, eq=False)
class Scan:
    """What a folder holds: its series, and the path and reason of each file that is none of them."""

    series: tuple[Series, ...]
    skipped: tuple[tuple[str, str], ...]


def series_name(uid: str) -> str:
    """A short name of a series that doesn't tell its UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def scan(paths: Sequence[Path], *, show_progress: bool = False) -> Scan:
    """The series among files and folders, which are searched at any depth; headers alone are read."""
    raise NotImplementedError


def read_series(series: Series) -> MedicalImage:
    """The volume (1, D, H, W) of a series, or the picture of its only file."""
    raise NotImplementedError
