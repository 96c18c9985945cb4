"""What a data set holds: a row per readable image, and a word on what couldn't be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pellucid.data.images import MedicalImage, decode_file, quiet_decoders
from pellucid.data.labels import classes_in
from pellucid.data.layout import Listing, list_folder, list_table
from pellucid.data.masks import decode_mask, on_voxels_of
from pellucid.data.resample import Frame, grid_of
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, UnreadableFileError, expected
from pellucid.progress import progress

COLUMNS = ("sample", "label", "split", "patient_id", "age", "sex", "site", "mask", "pixel_hash")
MEASURED = ("width", "height", "channels", "bits")
_NAMED = 3  # how many files a message names


@dataclass(frozen=True)
class Manifest:
    """A data set as found on disk.

    `table` has a row per readable image, in the order of `sample`: sample (posix path relative to `root`), label,
    split ("train", "val", "test" or "" where none is given), patient_id ("" unknown), age (years, NaN unknown), sex,
    site, mask (posix path or ""), pixel_hash, width, height, channels, bits, then the further columns of a manifest
    file. `unreadable` has path and reason of each image left out, `mask_problems` the same of masks that can't be
    used (their images stay, without a mask), `notes` facts in plain words.
    """

    name: str
    root: Path
    table: pd.DataFrame
    classes: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    mask_problems: tuple[tuple[str, str], ...] = ()
    multi_label: bool = False
    """Whether an image may have several of the classes, or none; its label is then their names, parted by "|"."""


@dataclass(frozen=True)
class _Measured:
    pixel_hash: str
    size: tuple[int, int]
    channels: int
    bits: int
    mask_problem: str


def load_manifest(
    path: str | Path,
    *,
    name: str | None = None,
    multi_label: bool = False,
    labels: Sequence[str] = (),
    volumes: bool = False,
    strict: bool = False,
    show_progress: bool = False,
) -> Manifest:
    """Read every image of a data set once and list what is there.

    `path` is a folder of class folders (`class/…`), of split folders (`train|val|test/class/…`, also training,
    valid, validation, testing, in any case), a manifest file (`.csv` or `.parquet`), or a folder that holds
    `manifest.csv` or `manifest.parquet`. A manifest needs the columns path and label; split, patient_id, age, sex,
    site and mask (or mask_path) are used where they are there. Paths are relative to the manifest's folder and may
    not lead out of it. Hidden files are passed over. DICOM files are found by their content as well as by their ending;
    a path may also be a folder that holds one DICOM series, or name one of several as `FOLDER/#NAME`.

    Arguments:
        path: the folder or file.
        name: what the data set is called; by default the folder's name.
        multi_label: whether an image may have several labels, or none: the manifest's label column parts them by "|".
        labels: columns of the manifest that say so instead, 1 where an image has the label and 0 where not.
        volumes: whether the images are volumes (NIfTI, NRRD, MetaImage, DICOM series); pictures are then left out, and
            volumes otherwise.
        strict: stop at the first image or mask that can't be used, instead of listing it.
        show_progress: show a bar with the time left.

    Raises InputError when there is nothing to read, a column or label is missing, a path is given twice or leads
    out of the folder, or fewer than two classes are left; UnreadableFileError when `strict`.
    """
    path = Path(path).expanduser()
    listing = _list(path, multi_label, tuple(labels), volumes)
    measured = _measure(listing, volumes, strict, show_progress)
    return _assemble(name or listing.root.resolve().name, listing, measured, multi_label)


def pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 (hex) of shape, type and bytes of pixels (C, *S); a colour image without colour hashes as its grey.

    >>> grey = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    >>> pixel_hash(grey) == pixel_hash(np.repeat(grey, 3, axis=0)), pixel_hash(grey) == pixel_hash(grey + 1)
    (True, False)
    """
    if len(pixels) == 3 and np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2]):
        pixels = pixels[:1]
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.name} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def image_hash(image: MedicalImage) -> str:
    """`pixel_hash` of an image; of a volume that of its values along common axes, however its file stores them."""
    if image.pixels.ndim == 4 and image.affine is not None:
        shape = image.pixels.shape[1:]
        turned = grid_of(shape, image.affine, shape, Frame("RAS")).turn(image.pixels)
        return pixel_hash(np.ascontiguousarray(turned, np.float32))
    return pixel_hash(image.pixels)


def _list(path: Path, multi_label: bool, labels: tuple[str, ...], volumes: bool) -> Listing:
    if path.is_file():
        return list_table(path, multi_label=multi_label, labels=labels)
    if not path.is_dir():
        raise InputError(f"path: expected a folder of images or a manifest file, got {str(path)!r}, which isn't there.")
    found = [path / f"manifest{ending}" for ending in (".csv", ".parquet") if (path / f"manifest{ending}").is_file()]
    if len(found) > 1:
        raise expected("path", "one manifest", "manifest.csv and manifest.parquet", do=f"Name one: {found[0]}.")
    if found:
        return list_table(found[0], multi_label=multi_label, labels=labels)
    if multi_label:
        raise expected("path", "a manifest, which several labels to an image need", f"the folder {str(path)!r}")
    return list_folder(path, volumes=volumes)


def _measure(listing: Listing, volumes: bool, strict: bool, show_progress: bool) -> list[_Measured | str]:
    """What each image holds, or why it can't be read; in the order of the listing."""
    samples, masks = listing.table["sample"], listing.table["mask"]
    results: list[_Measured | str] = []
    workers = min(8, os.cpu_count() or 1)
    with (
        quiet_decoders(),
        ThreadPoolExecutor(workers) as pool,
        progress("reading images", len(samples), show=show_progress) as advance,
    ):
        futures = [
            pool.submit(_measure_one, listing.root, sample, mask, volumes)
            for sample, mask in zip(samples, masks, strict=True)
        ]
        try:
            for sample, mask, future in zip(samples, masks, futures, strict=True):
                result = future.result()
                if strict:
                    _refuse(listing.root, sample, mask, result)
                results.append(result)
                advance(1)
        finally:  # an error or Ctrl-C doesn't wait for the rest
            pool.shutdown(wait=False, cancel_futures=True)
    return results


def _refuse(root: Path, sample: str, mask: str, result: _Measured | str) -> None:
    if isinstance(result, str):
        raise UnreadableFileError(f"can't read {root / sample}: {result}.")
    if result.mask_problem:
        raise UnreadableFileError(f"can't use {root / mask}, the mask of {sample}: {result.mask_problem}.")


def _measure_one(root: Path, sample: str, mask: str, volumes: bool) -> _Measured | str:
    try:
        image = decode_file(root / sample, volumes=volumes)
    except DecodeError as error:
        return str(error)
    pixels = image.pixels
    if volumes != (pixels.ndim == 4):
        return "a picture, where volumes are wanted"
    channels, *lengths = pixels.shape
    problem = _mask_problem(root / mask, image) if mask else ""
    return _Measured(image_hash(image), (lengths[-1], lengths[-2]), channels, pixels.dtype.itemsize * 8, problem)


def _mask_problem(path: Path, image: MedicalImage) -> str:
    shape = image.pixels.shape[1:]
    try:
        on_voxels_of(decode_mask(path, volumes=len(shape) == 3, affine=image.affine), shape, image.affine)
    except DecodeError as error:
        return str(error)
    return ""


def _assemble(name: str, listing: Listing, measured: Sequence[_Measured | str], multi_label: bool) -> Manifest:
    rows = listing.table
    unreadable = tuple(
        (sample, result) for sample, result in zip(rows["sample"], measured, strict=True) if isinstance(result, str)
    )
    read = [result for result in measured if not isinstance(result, str)]
    if not read:
        first, reason = unreadable[0]
        raise InputError(f"path: none of the {len(rows)} images of {listing.root} can be read, e.g. {first}: {reason}.")
    table = rows[np.array([not isinstance(result, str) for result in measured])].reset_index(drop=True)
    problems = tuple(
        (mask, f"mask of {sample}: {result.mask_problem}")
        for sample, mask, result in zip(table["sample"], table["mask"], read, strict=True)
        if result.mask_problem
    )
    table.loc[np.array([bool(result.mask_problem) for result in read]), "mask"] = ""
    facts = pd.DataFrame(
        [(result.pixel_hash, *result.size, result.channels, result.bits) for result in read],
        columns=["pixel_hash", *MEASURED],
    )
    replaced = [name for name in MEASURED if name in table and not _equal(table[name], facts[name])]
    table = pd.concat([table.drop(columns=list(facts), errors="ignore"), facts], axis=1)
    further = [column for column in table if column not in (*COLUMNS, *MEASURED)]
    table = table[[*COLUMNS, *MEASURED, *further]].sort_values("sample", ignore_index=True)
    classes = classes_in(table["label"], multi_label)
    if len(classes) < 2:
        got = f"one, {classes[0]!r}" if classes else "none"
        raise expected("path", "images of at least two classes", got, do=_inner(listing.root))
    notes = (*listing.notes, *_notes(table, rows, problems, replaced, multi_label))
    return Manifest(name, listing.root, table, classes, unreadable, notes, problems, multi_label)


def _inner(root: Path) -> str:
    """A hint for data sets that were unpacked one folder too deep."""
    folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    if len(folders) == 1 and sum(entry.is_dir() for entry in folders[0].iterdir()) > 1:
        return f"If the classes are the folders in {folders[0]}, name that folder."
    return ""


def _equal(stated: pd.Series, found: pd.Series) -> bool:
    return bool((pd.to_numeric(stated, errors="coerce").to_numpy(float) == found.to_numpy(float)).all())


def _notes(
    table: pd.DataFrame,
    listed: pd.DataFrame,
    problems: tuple[tuple[str, str], ...],
    replaced: list[str],
    multi_label: bool,
) -> list[str]:
    notes = []
    unknown = int((table["patient_id"] == "").sum())
    if unknown == len(table):
        notes.append("No patient ids are known, so that leakage between images of one patient can't be excluded.")
    elif unknown:
        notes.append(f"{unknown} of {len(table)} images have no patient id; each counts as a patient of its own.")
    several = int((table[table["patient_id"] != ""].groupby("patient_id")["label"].nunique() > 1).sum())
    if several and not multi_label:
        notes.append(f"{several} patients have images of more than one class.")
    lost = sorted(set(classes_in(listed["label"], multi_label)) - set(classes_in(table["label"], multi_label)))
    if lost:
        notes.append(f"No image of {_named(lost)} could be read; the data set goes on without.")
    if problems:
        notes.append(
            f"{len(problems)} masks can't be used, and their images count as having none: "
            f"{_named([f'{mask} ({reason})' for mask, reason in problems])}."
        )
    if replaced:
        notes.append(f"The manifest's {_named(replaced)} differ from what the files hold; the files' are kept.")
    depths = table["bits"].value_counts().sort_index()
    if len(depths) > 1:
        counts = ", ".join(f"{count} of {bits}" for bits, count in depths.items())
        notes.append(f"Images differ in bits per sample ({counts}); the depth may give the source away.")
    return notes


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
