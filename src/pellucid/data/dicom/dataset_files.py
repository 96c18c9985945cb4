"""A data set's files and manifest, written from an inventory of a DICOM folder."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path, PurePosixPath

import pandas as pd

from pellucid.data.dicom.inventory import NUMBERS, Inventory
from pellucid.errors import InputError
from pellucid.files import cannot_write, write_table
from pellucid.progress import Advance, heard

MANIFEST, SKIPPED, IMAGES = "manifest.csv", "left_out.csv", "images"
_WHOLE = ("rows", "columns", "slices", "year")


def write_dataset(
    inventory: Inventory, folder: Path, output: Path, *, show_progress: bool | Advance = False
) -> pd.DataFrame:
    """Write `manifest.csv` and `left_out.csv` into the output; returns the manifest.

    An output that holds `folder`, or is it, refers to the files where they lie. Any other gets them as
    `images/PATIENT/SERIES/NUMBER.dcm`: linked where the disk allows it, which takes no room, and copied elsewhere.

    Raises InputError where the output holds another manifest's images, StorageError.
    """
    output, folder = output.expanduser(), folder.expanduser()
    if folder.resolve().is_relative_to(output.resolve()):
        prefix = folder.resolve().relative_to(output.resolve()).as_posix()
        paths = [path if prefix == "." else f"{prefix}/{path}" for path in inventory.table["path"]]
    else:
        paths = _bring(inventory, folder, output, show_progress)
    table = inventory.table.assign(path=paths)
    for column in NUMBERS:
        if column in _WHOLE:
            table[column] = table[column].round().astype("Int64")
    write_table(output / MANIFEST, table)
    write_table(output / SKIPPED, pd.DataFrame(inventory.skipped, columns=["path", "reason"]))
    return table


def _bring(inventory: Inventory, folder: Path, output: Path, show_progress: bool | Advance) -> list[str]:
    """Link or copy all files; returns the paths of the rows."""
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"output: expected {folder}, a folder around it or one apart from it, got {output} inside of it."
        )
    total = sum(len(files) for files in inventory.sources)
    paths: list[str] = []
    used: dict[PurePosixPath, int] = {}
    with heard(show_progress, "linking files", total) as advance:
        for row, files in zip(inventory.table.to_dict("records"), inventory.sources, strict=True):
            home = PurePosixPath(IMAGES) / (_plain(str(row["patient_id"])) or "unknown") / _plain(str(row["series"]))
            if inventory.kind == "volumes":
                named = (
                    f"{home}/#{str(row['series']).partition('-')[0]}"  # alone in its folder, a stack needs no number
                )
                targets = [f"{home}/{number:04}.dcm" for number in range(1, len(files) + 1)]
            else:
                used[home] = used.get(home, 0) + 1
                named = f"{home}/{used[home]:04}.dcm"
                targets = [named]
            for file, target in zip(files, targets, strict=True):
                _link(file, output / target)
                advance(1)
            paths.append(named)
    return paths


def _plain(name: str) -> str:
    """A name that may be a folder's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).strip(".")


def _link(source: Path, target: Path) -> None:
    if target.exists():
        if target.stat().st_size == source.stat().st_size and (
            source.samefile(target) or source.read_bytes() == target.read_bytes()
        ):
            return
        raise InputError(f"output: expected the same files as before, got another {target}. Choose another --output.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another disk, or one that knows no links
            os.link(source.resolve(), target)
            return
        aside = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, aside)
        aside.replace(target)
    except OSError as error:
        raise cannot_write(target, error.strerror or str(error)) from error
