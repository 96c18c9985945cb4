"""The log of a de-identified folder: a row per file, of which none tells whose it is."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.data.dicom.deidentify.burned_in import Box

LOG = "deidentified.csv"
COLUMNS = (
    *("file", "source", "patient", "sop_class", "modality", "removed", "emptied", "replaced", "uids", "shifted"),
    *("cleaned", "comments", "burned_in", "boxes", "warnings"),
)


@dataclass(frozen=True)
class Written:
    """A file that was written: a row of the log."""

    file: str
    source: str
    patient: str
    row: Mapping[str, object]
    boxes: tuple[Box, ...]
    burned_in: str


def read_log(output: Path) -> list[Written]:
    """What the log of a folder tells of its files; a row that was cut off is passed over."""
    place = output / LOG
    if not place.is_file():
        return []
    found: dict[str, Written] = {}
    with place.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if None in row or None in row.values() or not row["file"].endswith(".dcm"):
                continue
            try:
                boxes = tuple(Box(*each) for each in json.loads(row["boxes"] or "[]"))
            except (ValueError, TypeError):
                continue
            rest = {column: row[column] for column in COLUMNS if column in row}
            found[row["file"]] = Written(row["file"], row["source"], row["patient"], rest, boxes, row["burned_in"])
    return list(found.values())


class Log:
    """The log, a row written as soon as its file is."""

    def __init__(self, output: Path) -> None:
        self._place = output / LOG

    def __enter__(self) -> Log:
        self._place.parent.mkdir(parents=True, exist_ok=True)
        _mend(self._place)
        fresh = not self._place.exists()
        self._handle = self._place.open("a", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._handle, COLUMNS, lineterminator="\n")
        if fresh:
            self._writer.writeheader()
        return self

    def __call__(self, written: Written) -> None:
        boxes = [[box.top, box.left, box.bottom, box.right, box.letters] for box in written.boxes]
        self._writer.writerow(
            {**written.row, "file": written.file, "source": written.source, "patient": written.patient,
             "burned_in": written.burned_in, "boxes": json.dumps(boxes) if boxes else ""}
        )  # fmt: skip
        self._handle.flush()

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def _mend(log: Path) -> None:
    """Cut off a last line that a killed run left unfinished."""
    if log.exists():
        data = log.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            log.write_bytes(whole)


def write_map(path: Path, pairs: Sequence[tuple[Path, str]]) -> None:
    """Write which source became which, for its owner's eyes alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "file"))
        writer.writerows((path.as_posix(), name) for path, name in pairs)
