"""Write phantoms as a folder that reads like any user's data: images, masks and a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pellucid.data.phantoms.draw import SITES, Patient, check_size, draw_phantom, patient_of, task_named
from pellucid.data.phantoms.sample import Phantom
from pellucid.errors import expected
from pellucid.files import cannot_write, inside, read_json, write_json, write_table, written_whole
from pellucid.progress import progress as shown

VERSION = 1  # to be raised when the same arguments give other pictures


def write_phantoms(
    task: str, folder: Path, *, images: int = 400, size: int = 128, seed: int = 0, progress: bool = False
) -> Path:
    """Write the first `images` images of a built-in task to `folder`; returns the path of its manifest.csv.

    Images lie in images/CLASS/ID.png and lesion masks (0 and 255) in masks/CLASS/ID.png; the manifest has the
    columns path, label, split (empty), patient_id, age, sex, site, mask (empty where there is no lesion), paths
    relative to `folder`. What already stands there from the same arguments isn't drawn again; what stands there
    from other ones is replaced.

    Arguments:
        task: "brain", "skin" or "chest".
        folder: to write to; new, or written by this function before.
        images: how many, at least one per class.
        size: height and width in pixels, 64 to 512.
        seed: 0 or more.
        progress: show a bar with the time left.

    Raises:
        UnknownNameError: no such task.
        InputError: another argument outside of its range, or a folder with other files.
        PellucidError: a file that can't be written.
    """
    phantom = task_named(task)
    if images < len(phantom.classes):
        raise expected("images", f"at least {len(phantom.classes)}, one per class", images)
    check_size(size)
    rows = [_row(phantom, index, patient_of(phantom, index, seed)) for index in range(images)]
    take_over(folder, {"version": VERSION, "task": task, "images": images, "size": size, "seed": seed})
    missing = [index for index, row in enumerate(rows) if not _stands(folder, row)]
    with shown(f"drawing {task} phantoms", len(missing), show=progress) as advance:
        for index in missing:
            sample = draw_phantom(task, index, size=size, seed=seed)
            if rows[index]["mask"]:
                _write_png(inside(folder, str(rows[index]["mask"])), sample.mask.astype(np.uint8) * np.uint8(255))
            _write_png(inside(folder, str(rows[index]["path"])), sample.image)
            advance(1)
    manifest = inside(folder, "manifest.csv")
    if not manifest.exists():
        write_table(manifest, pd.DataFrame(rows))
    return manifest


def _row(phantom: Phantom, index: int, who: Patient) -> dict[str, str | int]:
    label = phantom.classes[who.label]
    file = f"{label}/{phantom.name}-{index:05d}.png"
    return {
        "path": f"images/{file}",
        "label": label,
        "split": "",
        "patient_id": who.patient_id,
        "age": who.age,
        "sex": who.sex,
        "site": SITES[who.site],
        "mask": "" if label in phantom.healthy else f"masks/{file}",
    }


def take_over(folder: Path, parameters: Mapping[str, object]) -> None:
    """Make the folder one of these parameters: remove what was drawn with others, refuse what isn't ours."""
    mark = inside(folder, "phantom.json")
    if mark.exists():
        if read_json(mark) == dict(parameters):
            return
        inside(folder, "manifest.csv").unlink(missing_ok=True)
        for name in ("images", "masks"):
            _remove(inside(folder, name))
    elif any(inside(folder, name).exists() for name in ("images", "masks", "manifest.csv")):
        raise expected("folder", "a new folder, or one of phantoms", f"{str(folder)!r}, which has other images in it")
    write_json(mark, dict(parameters))


def _remove(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:  # a picture left over would be taken for one of the new ones
        raise cannot_write(folder, error.strerror or str(error)) from error


def _stands(folder: Path, row: dict[str, str | int]) -> bool:
    return all(inside(folder, str(row[kind])).exists() for kind in ("path", "mask") if row[kind])


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    with written_whole(path) as aside:
        Image.fromarray(pixels).save(aside, format="PNG")
