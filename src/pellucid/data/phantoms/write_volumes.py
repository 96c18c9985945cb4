"""Write CT phantoms as a folder that reads like any user's data: volumes, masks and a manifest."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
import pandas as pd
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from pellucid.data.phantoms.ct import CLASSES, HEALTHY, NAME, SHAPE, SPACING, TASK, draw_volume
from pellucid.data.phantoms.draw import SITES, patient_of
from pellucid.data.phantoms.series import Scanned, write_series
from pellucid.data.phantoms.write import take_over
from pellucid.errors import expected
from pellucid.files import inside, write_table, written_whole
from pellucid.progress import progress as shown

VERSION = 1  # to be raised when the same arguments give other volumes
STORED = "LAS"  # as converters of DICOM write NIfTI


def write_volumes(
    folder: Path,
    *,
    volumes: int = 80,
    form: Literal["nifti", "dicom"] = "nifti",
    tilt: float = 0.0,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write the first volumes of "ct-lesion" to `folder`; returns the path of its manifest.csv.

    Volumes lie in images/CLASS/ID.nii.gz, or as a series of files in the folder images/CLASS/ID; masks of lesions
    (0 and 1) in masks/CLASS/ID.nii.gz. The manifest has the columns path, label, split (empty), patient_id, age, sex,
    site, mask, paths relative to `folder`. What already stands there from the same arguments isn't drawn again; what
    stands there from other ones is replaced.

    Arguments:
        folder: to write to; new, or written by this function before.
        volumes: how many, at least one per class.
        form: "nifti", stored to the left, the front and the head; or "dicom", a CT image for each slice.
        tilt: degrees by which slices are turned, as `draw_volume` takes it.
        seed: 0 or more.
        progress: show a bar with the time left.

    Raises:
        InputError: an argument out of its range, or a folder with other files.
        PellucidError: a file that can't be written.
    """
    if volumes < len(CLASSES):
        raise expected("volumes", f"at least {len(CLASSES)}, one per class", volumes)
    if form not in ("nifti", "dicom"):
        raise expected("form", "'nifti' or 'dicom'", repr(form))
    rows = [_row(index, seed, form) for index in range(volumes)]
    made_by = {"version": VERSION, "task": NAME, "images": volumes, "form": form, "tilt": tilt, "seed": seed}
    take_over(folder, {**made_by, "shape": list(SHAPE), "spacing": list(SPACING)})
    missing = [index for index, row in enumerate(rows) if not _stands(folder, row)]
    with shown(f"drawing {NAME} phantoms", len(missing), show=progress) as advance:
        for index in missing:
            row, sample = rows[index], draw_volume(index, seed=seed, tilt=tilt)
            if row["mask"]:
                mask = sample.mask.astype(np.uint8)
                write_nifti(inside(folder, str(row["mask"])), mask, sample.affine)
            if form == "nifti":
                write_nifti(inside(folder, str(row["path"])), sample.values, sample.affine)
            else:
                who = Scanned(f"{seed} {index} {tilt}", sample.patient_id, sample.sex, sample.age, sample.site)
                write_series(inside(folder, str(row["path"])), sample.values, sample.affine, who)
            advance(1)
    manifest = inside(folder, "manifest.csv")
    if not manifest.exists():
        write_table(manifest, pd.DataFrame(rows))
    return manifest


def write_nifti(
    path: Path, values: NDArray[np.generic], affine: NDArray[np.floating], orientation: str = STORED
) -> None:
    """Write a volume (D, H, W) as NIfTI, its axes in the order and directions that the letters say; equal bytes."""
    change = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    stored = np.ascontiguousarray(apply_orientation(values, change))
    image = nibabel.Nifti1Image(stored, affine @ inv_ornt_aff(change, values.shape))
    image.header.set_xyzt_units("mm")
    packed = gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)
    with written_whole(path) as aside:
        aside.write_bytes(packed)


def _row(index: int, seed: int, form: str) -> dict[str, str | int]:
    who = patient_of(TASK, index, seed)
    label = CLASSES[who.label]
    file = f"{label}/{NAME}-{index:05d}"
    return {
        "path": f"images/{file}" + (".nii.gz" if form == "nifti" else ""),
        "label": label,
        "split": "",
        "patient_id": who.patient_id,
        "age": who.age,
        "sex": who.sex,
        "site": SITES[who.site],
        "mask": "" if label in HEALTHY else f"masks/{file}.nii.gz",
    }


def _stands(folder: Path, row: dict[str, str | int]) -> bool:
    image = inside(folder, str(row["path"]))
    whole = image.is_file() or len(list(image.glob("IM*.dcm"))) == SHAPE[0]
    return whole and (not row["mask"] or inside(folder, str(row["mask"])).exists())
