"""Where the images of a data set are and what they are called: folders of classes, or a manifest file."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pellucid.data.found import KNOWN_ENDINGS, dicom_images, looks_dicom
from pellucid.data.labels import SEPARATOR, joined, labels_of
from pellucid.errors import InputError, expected, nearest, unknown_name
from pellucid.files import inside

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_ALIASES = {"mask_path": "mask"}
_REQUIRED = ("path", "label")
_TEXT = ("path", "label", "split", "patient_id", "sex", "site", "mask", "lesion_id")
_MISSING = ("", "NA", "N/A", "NaN", "nan")
_JUNK = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class Listing:
    """Images to read: `table` with sample, label, split, patient_id, age, sex, site, mask and further columns."""

    root: Path
    table: pd.DataFrame
    notes: tuple[str, ...] = ()


def list_folder(root: Path, *, volumes: bool = False) -> Listing:
    """The images in folders of classes, or in split folders that hold folders of classes.

    DICOM files are pictures, or, where `volumes` are wanted, the series of each class folder are its images, named
    `FOLDER/#NAME`. Their patients are numbered as they come, so that nobody is named.
    """
    files, dicom, notes = _walk(root)
    tops, depth = _tops([*files, *dicom])
    patients: dict[str, str] = {}
    for part in _by_class(dicom, depth):
        found = dicom_images([root / file for file in part], volumes=volumes)
        patients |= {path.relative_to(root).as_posix(): who for path, who in found.patients.items()}
        notes += found.notes
    files = sorted([*files, *patients])
    splits = [top for top in tops if top.casefold() in SPLITS]
    if splits and len(splits) < len(tops):
        other = [top for top in tops if top not in splits]
        raise expected(
            "path", "folders of classes or of splits", f"both: {', '.join(splits)} beside {', '.join(other[:5])}",
            do="Move the class folders into the split folders, or write a manifest.csv.",
        )  # fmt: skip
    kept = [file for file in files if file.count("/") >= depth]
    if len(kept) < len(files):
        loose = [file for file in files if file.count("/") < depth]
        notes.append(f"{len(loose)} images lie outside of the class folders and were left out, e.g. {loose[0]}.")
    if not kept:
        got = "no image in class folders" if files else "no image"
        raise expected(
            "path", f"class folders of images in {root}", got,
            do="Put the images of each class into a folder that bears its name, or write a manifest.csv.",
        )  # fmt: skip
    parts = [file.split("/") for file in kept]
    if not splits and any(len(part) > 2 and part[1].casefold() in SPLITS for part in parts):
        notes.append("Folders named as splits inside of class folders aren't read as splits; put splits outermost.")
    table = pd.DataFrame(
        {
            "sample": kept,
            "label": [part[depth - 1] for part in parts],
            "split": [SPLITS[part[0].casefold()] if splits else "" for part in parts],
        }
    )
    told = [patients.get(file, "") for file in kept]
    if any(told):
        numbers = {
            who: f"patient-{number:04d}" for number, who in enumerate(dict.fromkeys(filter(None, told)), start=1)
        }
        table["patient_id"] = [numbers.get(who, "") for who in told]
        notes.append(f"{len(numbers)} patients are told apart by what DICOM files say, and numbered.")
    return Listing(root, _completed(table), tuple(notes))


def _tops(files: Sequence[str]) -> tuple[list[str], int]:
    """The outermost folders, and how deep the class folders lie: within those, where they are splits."""
    tops = sorted({file.split("/")[0] for file in files if "/" in file})
    return tops, 2 if any(top.casefold() in SPLITS for top in tops) else 1


def _by_class(files: Sequence[str], depth: int) -> list[list[str]]:
    """Files by the class folder that they are in, so that no series reaches over two of them."""
    parts: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in files:
        parts[tuple(file.split("/")[:-1][:depth])].append(file)
    return list(parts.values())


def list_table(path: Path, *, multi_label: bool = False, labels: Sequence[str] = ()) -> Listing:
    """The images of a manifest file; columns, `multi_label` and `labels` as `load_manifest` says."""
    root = path.parent
    found = _read(path)
    table = _columns(_joined(found, labels, path) if labels else found, path)
    if multi_label:
        table = table.assign(label=[joined(labels_of(text)) for text in table["label"]])
    if table.empty:
        raise expected("path", "a manifest with a row per image", f"{path} without rows")
    samples = [_sample(root, value, "path") for value in table["path"]]
    doubled = pd.Series(samples)[pd.Series(samples).duplicated()].unique()
    if len(doubled):
        raise expected("path", "each image once in the manifest", f"{len(doubled)} paths twice, e.g. {doubled[0]}")
    table = table.drop(columns="path").assign(sample=samples)
    unlabelled = table.loc[table["label"] == "", "sample"]
    if len(unlabelled) and not multi_label:
        raise expected(
            "label", "a label for each image", f"{len(unlabelled)} without, e.g. {unlabelled.iloc[0]}",
            do="Fill the label in or remove the row.",
        )  # fmt: skip
    table = _completed(table)
    table["split"] = [_split(value) for value in table["split"]]
    table["mask"] = [value and _sample(root, value, "mask") for value in table["mask"]]
    ages = pd.to_numeric(table["age"], errors="coerce").astype(float)
    notes = []
    strange = int((ages.isna() & ~_absent(table["age"])).sum())
    if strange:
        notes.append(f"{strange} ages aren't numbers and count as unknown.")
    return Listing(root, table.assign(age=ages), tuple(notes))


def _walk(root: Path) -> tuple[list[str], list[str], list[str]]:
    """Posix paths of image files under `root`, and of DICOM files, both sorted, and notes on what was passed over."""
    files: list[str] = []
    dicom: list[str] = []
    others: list[str] = []
    linked: list[str] = []
    for folder, names, entries in os.walk(root):
        names[:] = sorted(name for name in names if not _hidden(name))
        here = Path(folder)
        linked += [(here / name).relative_to(root).as_posix() for name in names if (here / name).is_symlink()]
        for entry in sorted(entries):
            if _hidden(entry):
                continue
            file = (here / entry).relative_to(root).as_posix()
            if looks_dicom(here / entry):
                dicom.append(file)
            else:
                (files if entry.lower().endswith(KNOWN_ENDINGS) else others).append(file)
    for file in (*files, *dicom):
        inside(root, file)  # a link that leads out is refused
    notes = []
    if others:
        notes.append(f"{len(others)} files that aren't images by their ending were left out, e.g. {min(others)}.")
    if linked:
        notes.append(f"{len(linked)} linked folders weren't followed, e.g. {sorted(linked)[0]}.")
    return sorted(files), sorted(dicom), notes


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK


def _read(path: Path) -> pd.DataFrame:
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise expected("path", "a folder, or a manifest ending in .csv or .parquet", repr(path.name))
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        header = [str(column) for column in pd.read_csv(path, nrows=0, encoding="utf-8-sig")]
        text = [column for column in header if _canonical(column) in (*_TEXT, "age")]
        return pd.read_csv(
            path,
            encoding="utf-8-sig",
            dtype=dict.fromkeys(text, str),
            keep_default_na=False,
            na_values={column: _MISSING for column in header if column not in text},
        )
    except UnicodeDecodeError as error:
        raise InputError(f"path: {path} isn't UTF-8 text. Save it as CSV in UTF-8.") from error
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise InputError(f"path: can't read {path} as a table: {str(error).splitlines()[0]}.") from error


def _canonical(column: object) -> str:
    name = str(column).strip().casefold()
    return _ALIASES.get(name, name)


def _columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with columns named as pellucid names them and text where text is meant."""
    known = {*_TEXT, "age"}
    names = {column: _canonical(column) for column in table if _canonical(column) in known}
    for name in set(names.values()):
        twice = [str(column) for column, new in names.items() if new == name]
        if len(twice) > 1:
            raise expected("path", f"one column {name!r} in {path.name}", ", ".join(twice), do="Remove all but one.")
    table = table.rename(columns=names)
    for column in _REQUIRED:
        if column not in table:
            raise _missing_column(column, [str(name) for name in table], path)
    return table.assign(**{column: _text(table[column]) for column in _TEXT if column in table})


def _joined(table: pd.DataFrame, labels: Sequence[str], path: Path) -> pd.DataFrame:
    """The table with the labels whose columns hold 1 in its label column."""
    for name in labels:
        if name not in table:
            raise _missing_column(name, [str(column) for column in table], path)
        if SEPARATOR in name:
            raise expected("labels", f"names without {SEPARATOR!r}", repr(name))
        said = pd.to_numeric(table[name], errors="coerce")
        if not said.isin((0, 1)).all():
            raise expected(
                "labels", f"0 or 1 in the column {name!r}", f"{int((~said.isin((0, 1))).sum())} rows with other values"
            )
    has = np.column_stack([pd.to_numeric(table[name]) == 1 for name in labels])
    texts = [joined(name for name, one in zip(labels, row, strict=True) if one) for row in has]
    used = [name for name in table if name in labels or _canonical(name) == "label"]
    return table.drop(columns=used).assign(label=texts)


def _missing_column(column: str, there: Sequence[str], path: Path) -> InputError:
    if len(there) == 1 and ";" in there[0]:
        return InputError(f"path: {path.name} parts its columns with semicolons. Save it with commas.")
    close = nearest(column, [name.casefold() for name in there], count=1)
    hint = f"Rename {close[0]!r}?" if close else f"There are: {', '.join(there)}."
    return InputError(f"path: expected a column {column!r} in {path.name}, got none. {hint}")


def _text(values: pd.Series) -> pd.Series:
    """Text without blanks around it; missing values become ""; whole numbers lose the ".0" that gaps gave them."""
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype(object).where(values.notna(), "").astype(str).str.strip()


def _absent(values: pd.Series) -> pd.Series:
    return values.isna() | values.astype(object).astype(str).str.strip().isin(_MISSING)


def _sample(root: Path, value: str, column: str) -> str:
    """The path of an image as its name: posix, relative to `root`, never leading out of it."""
    value = value.replace("\\", "/")
    if not value or "\0" in value:
        raise expected(column, "the path of an image", repr(value))
    full = inside(root, value)
    if value.startswith("/"):
        return full.relative_to(root.resolve()).as_posix()
    return posixpath.normpath(value)


def _split(value: str) -> str:
    if not value:
        return ""
    if value.casefold() not in SPLITS:
        raise unknown_name("split", value, SPLITS)
    return SPLITS[value.casefold()]


def _completed(table: pd.DataFrame) -> pd.DataFrame:
    for column in ("split", "patient_id", "sex", "site", "mask"):
        if column not in table:
            table = table.assign(**{column: ""})
    return table if "age" in table else table.assign(age=np.nan)
