"""Pictures of burned-in text for someone to look at, and the boxes that they then confirm.

They show what is to be hidden, and so lie beside the de-identified files and never among them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from pellucid.data.dicom.deidentify.burned_in import Box
from pellucid.data.dicom.deidentify.log import Written
from pellucid.drawing import encode
from pellucid.errors import InputError, expected
from pellucid.files import write_text, written_whole

BOXES = "boxes.csv"
COLUMNS = ("file", "top", "left", "bottom", "right")
_COLOUR = (255, 96, 0)
_LONGEST = 1024


def picture_of(frames: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """The middle frame (H, W, 3) uint8 of a film (F, C, H, W), with boxes drawn around what seems to be text."""
    frame = frames[len(frames) // 2].astype(np.float32)
    low, high = np.percentile(frame, (1, 99.8))
    low, high = (low, high) if high > low else (float(frame.min()), float(frame.max()) + 1)
    grey = (np.clip((frame - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    picture = np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1).copy()
    line = max(1, max(picture.shape) // 512)
    for box in boxes:
        part = picture[box.top : box.bottom, box.left : box.right]
        inner = part[line:-line, line:-line].copy()
        part[:] = _COLOUR
        part[line:-line, line:-line] = inner
    step = -(-max(picture.shape[:2]) // _LONGEST)
    return picture[::step, ::step]


def picture_name(file: str) -> str:
    """The picture's name of a file."""
    return f"{PurePosixPath(file).stem}.png"


def write_picture(review: Path, file: str, picture: np.ndarray) -> None:
    """Write the picture of a file."""
    with written_whole(review / picture_name(file)) as aside:
        aside.write_bytes(encode(picture))


def write_boxes(review: Path, files: Sequence[Written]) -> None:
    """Write all boxes that were found as a table, to be looked through, changed and given back."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in sorted(files, key=lambda written: written.file):
        writer.writerows((each.file, box.top, box.left, box.bottom, box.right) for box in each.boxes)
    write_text(review / BOXES, buffer.getvalue())


def read_boxes(path: Path) -> Mapping[str, Sequence[Box]]:
    """Boxes that someone looked at, by the new name of a file.

    Raises InputError for a table that isn't one of boxes.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"boxes: can't read {path}: {error}.") from error
    found: dict[str, list[Box]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            top, left, bottom, right = (int(row[column]) for column in COLUMNS[1:])
            file = str(row["file"])
        except (KeyError, TypeError, ValueError) as error:
            wanted = f"columns {', '.join(COLUMNS)} with whole numbers"
            raise expected("boxes", wanted, f"line {number} of {path.name}") from error
        if not 0 <= top < bottom or not 0 <= left < right:
            raise expected("boxes", "top above bottom and left before right", f"line {number} of {path.name}")
        found.setdefault(file, []).append(Box(top, left, bottom, right, 0))
    return found
