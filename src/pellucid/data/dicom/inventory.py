"""What a DICOM folder holds, as a data set: a row per picture or volume, and nobody's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pellucid.data.dicom.deidentify.actions import identity_of
from pellucid.data.dicom.deidentify.pseudonyms import PSEUDONYM, Pseudonyms
from pellucid.data.dicom.elements import value
from pellucid.data.dicom.headers import open_header
from pellucid.data.dicom.series import Scan, Series, series_name
from pellucid.data.dicom.series import scan as scan_series
from pellucid.data.images import quiet_decoders
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, expected
from pellucid.progress import Advance, heard

Kind = Literal["volumes", "pictures"]

COLUMNS = (
    *("path", "label", "split", "patient_id", "study", "series", "age", "sex", "site", "machine", "modality"),
    *("body_part", "view", "laterality", "kvp", "field_strength", "slice_thickness", "row_spacing", "column_spacing"),
    *("rows", "columns", "slices", "year", "notes"),
)
NUMBERS = (
    *("age", "kvp", "field_strength", "slice_thickness", "row_spacing", "column_spacing"),
    *("rows", "columns", "slices", "year"),
)
_READ = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName"),
    *("IssuerOfPatientID", "PatientBirthDate", "PatientAge", "PatientSex", "PatientIdentityRemoved", "StudyDate"),
    *("InstitutionName", "Manufacturer", "ManufacturerModelName", "Modality", "BodyPartExamined", "ViewPosition"),
    *("Laterality", "ImageLaterality", "KVP", "MagneticFieldStrength", "SliceThickness", "PixelSpacing"),
    *("ImagerPixelSpacing", "Rows", "Columns", "NumberOfFrames", "SharedFunctionalGroupsSequence"),
)
_TAGS = [int(Tag(keyword)) for keyword in _READ]
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_NOTHING = ("none", "n/a", "na", "unknown", "anonymous", "removed")
_KEYS = {"patient_id": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}


@dataclass(frozen=True, eq=False)
class Inventory:
    """A data set found in a DICOM folder.

    `table` has COLUMNS, a row per picture or volume in the order of their paths: path relative to the folder, posix,
    `FOLDER/#NAME` for a series; label "" where none is known; patient_id, study, series and site without names unless
    they were asked for; age in years, kvp in kV, field_strength in T, thickness and spacing in mm, slices 1 for
    pictures, year of the study. `sources` are the files of each row. `skipped` has path and reason of what is no row.
    """

    kind: Kind
    table: pd.DataFrame
    sources: tuple[tuple[Path, ...], ...]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def take_inventory(
    folder: Path,
    *,
    pseudonyms: Pseudonyms | None,
    kind: Kind | None = None,
    label: str = "",
    labels: Path | None = None,
    scan: Callable[..., Scan] = scan_series,
    show_progress: bool | Advance = False,
) -> Inventory:
    """Find the pictures or volumes of a folder and what their headers say of them.

    Arguments:
        folder: searched at any depth.
        pseudonyms: what patients and sites are called; None for their own names.
        kind: "volumes" or "pictures"; None for what most files belong to.
        label: "folder" for the outermost folder's name below `folder`, or an attribute by keyword, "(gggg,eeee)" or
            eight digits; "" for none.
        labels: a CSV file with the column label, and one of file, series, study and patient_id that tells whose it is.
        scan: finds the series, as `series.scan` does.
        show_progress: show a bar with the time left.

    Raises InputError where there is nothing to take, or labels can't be found.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"folder: expected a folder of DICOM files, got {str(folder)!r}, which isn't there.")
    tag = _label_tag(label)
    given = None if labels is None else _given_labels(labels)
    found = scan([folder], show_progress=show_progress is True)
    kind = kind or _kind(found.series)
    chosen, skipped = _chosen(found.series, kind)
    skipped = [*found.skipped, *skipped]
    rows, sources = [], []
    with quiet_decoders(), heard(show_progress, "reading headers", len(chosen)) as advance:
        for series, path, files in chosen:
            try:
                header = open_header(files[0], None if tag is not None and tag not in _TAGS else _TAGS)
                row = _row(header, path.relative_to(folder).as_posix(), series, len(files), pseudonyms)
                row["label"] = _label(header, folder, files[0], label, tag, given)
            except DecodeError as error:
                skipped.append((str(path), str(error)))
            else:
                rows.append(row)
                sources.append(tuple(files))
            advance(1)
    if not rows:
        raise InputError(f"folder: expected {kind} of DICOM files, got none of {len(skipped)} files in {folder}.")
    order = sorted(range(len(rows)), key=lambda index: str(rows[index]["path"]))
    table = pd.DataFrame([rows[index] for index in order], columns=list(COLUMNS))
    if pseudonyms is not None:
        table["site"] = _numbered(table["site"])
    if given is not None and not (table["label"] != "").any():
        raise expected("labels", "labels of what is in the folder", f"none that fits in {labels}")
    relative = sorted({(_relative(path, folder), reason) for path, reason in skipped})
    return Inventory(kind, table, tuple(sources[index] for index in order), tuple(relative), _notes(table))


def age_of(header: Dataset) -> float:
    """A patient's age in years, as stated or from the dates of birth and study; NaN where neither is known.

    Zero years, and a birth on the day of the study, are what renaming leaves, and count as unknown.

    >>> header = Dataset()
    >>> header.PatientAge = "018M"
    >>> age_of(header)
    1.5
    """
    stated = _text(header, "PatientAge").upper()
    if len(stated) >= 2 and stated[:-1].isdecimal() and stated[-1] in _YEARS and int(stated[:-1]):
        return round(int(stated[:-1]) * _YEARS[stated[-1]], 2)
    birth, study = (pd.to_datetime(_text(header, keyword), format="%Y%m%d", errors="coerce")
                    for keyword in ("PatientBirthDate", "StudyDate"))  # fmt: skip
    years = (study - birth).days / 365.25 if not (pd.isna(birth) or pd.isna(study)) else math.nan
    return math.floor(years * 100) / 100 if 0 < years <= 130 else math.nan


def _kind(found: Sequence[Series]) -> Kind:
    """What most files belong to."""
    of_volumes = sum(len(each.files) for each in found if each.volume)
    return "volumes" if 2 * of_volumes > sum(len(each.files) for each in found) else "pictures"


def _chosen(
    found: Sequence[Series], kind: Kind
) -> tuple[list[tuple[Series, Path, tuple[Path, ...]]], list[tuple[str, str]]]:
    """What becomes a row: its series, its path and its files; and what doesn't, with the reason."""
    chosen: list[tuple[Series, Path, tuple[Path, ...]]] = []
    skipped = []
    for each in found:
        if kind == "pictures":
            chosen += [(each, file, (file,)) for file in each.files]
        elif each.volume:
            chosen.append((each, each.path, each.files))
        else:
            reason = each.refusal or "a picture, where volumes are wanted"
            skipped += [(str(file), reason) for file in each.files]
    return chosen, skipped


def _row(header: Dataset, path: str, series: Series, count: int, pseudonyms: Pseudonyms | None) -> dict[str, object]:
    spacing = _spacing(header)
    frames = _number(header, "NumberOfFrames")
    study = _text(header, "StudyInstanceUID")
    date = _text(header, "StudyDate")
    return {
        "path": path,
        "label": "",
        "split": "",
        "patient_id": _patient(header, pseudonyms),
        "study": series_name(study) if study else "",
        "series": series.name,
        "age": age_of(header),
        "sex": _text(header, "PatientSex").upper() if _text(header, "PatientSex").upper() in ("M", "F", "O") else "",
        "site": _site(header, pseudonyms),
        "machine": _machine(header),
        "modality": _text(header, "Modality"),
        "body_part": _text(header, "BodyPartExamined").upper(),
        "view": _text(header, "ViewPosition").upper(),
        "laterality": (_text(header, "ImageLaterality") or _text(header, "Laterality")).upper(),
        "kvp": _positive(_number(header, "KVP")),
        "field_strength": _positive(_number(header, "MagneticFieldStrength")),
        "slice_thickness": _positive(_number(header, "SliceThickness")),
        "row_spacing": spacing[0],
        "column_spacing": spacing[1],
        "rows": _number(header, "Rows"),
        "columns": _number(header, "Columns"),
        "slices": float(count) if count > 1 or math.isnan(frames) else frames,
        "year": float(date[:4]) if date[:4].isdecimal() and date[:4] >= "1900" else math.nan,
        "notes": "; ".join(series.notes),
    }


def _patient(header: Dataset, pseudonyms: Pseudonyms | None) -> str:
    """A patient's number, or a name that stands for it; of files that were de-identified the one that they have."""
    own = _text(header, "PatientID")
    if pseudonyms is None or (_text(header, "PatientIdentityRemoved") == "YES" and PSEUDONYM.fullmatch(own)):
        return own
    known = own or _text(header, "PatientName").strip(" ^")
    return pseudonyms.patient(identity_of(header)) if known else ""


def _site(header: Dataset, pseudonyms: Pseudonyms | None) -> str:
    own = " ".join(_text(header, "InstitutionName").split())
    return own if pseudonyms is None or not own else pseudonyms.short("site", own.casefold())


def _machine(header: Dataset) -> str:
    """Maker and model, the maker's name once."""
    found = (" ".join(_text(header, each).split()) for each in ("Manufacturer", "ManufacturerModelName"))
    maker, model = ("" if name.lower() in _NOTHING else name for name in found)
    return model if maker and model.casefold().startswith(maker.casefold()) else f"{maker} {model}".strip()


def _spacing(header: Dataset) -> tuple[float, float]:
    """Between rows and between columns, mm."""
    places = [header]
    try:
        for group in value(header, "SharedFunctionalGroupsSequence") or ():
            places += list(value(group, "PixelMeasuresSequence") or ())
    except DecodeError:
        pass
    for place in places:
        for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
            found = _numbers(place, keyword)
            if len(found) == 2:
                return found[0], found[1]
    return math.nan, math.nan


def _label_tag(label: str) -> int | None:
    """The attribute that `label` names."""
    if label in ("", "folder"):
        return None
    digits = label.strip("()").replace(",", "").replace(" ", "")
    try:
        if len(digits) == 8:
            return int(digits, 16)
    except ValueError:
        pass
    try:
        return int(Tag(label))
    except ValueError as error:
        wanted = "'folder', an attribute's keyword or its tag such as (0018,0015)"
        raise expected("label", wanted, repr(label)) from error


def _label(
    header: Dataset,
    folder: Path,
    file: Path,
    label: str,
    tag: int | None,
    given: Mapping[str, Mapping[str, str]] | None,
) -> str:
    if given is not None:
        for column, known in given.items():
            own = file.relative_to(folder).as_posix() if column == "file" else _text(header, _KEYS[column])
            if own in known:
                return known[own]
        return ""
    if label == "folder":
        parts = file.relative_to(folder).parts
        return parts[0] if len(parts) > 1 else ""
    if tag is not None and tag in header:
        try:
            return " ".join(str(header[tag].value or "").split())
        except Exception:  # noqa: BLE001 — pydicom raises whatever a damaged value leads it to
            return ""
    return ""


def _given_labels(path: Path) -> dict[str, dict[str, str]]:
    """Labels by column and by what stands in it; the finest column first."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if not isinstance(error, OSError) else error.strerror
        raise InputError(f"labels: can't read {path} as CSV: {reason}.") from error
    columns = [column for column in ("file", "series", "study", "patient_id") if column in table]
    if "label" not in table or not columns:
        there = ", ".join(map(str, table.columns))
        raise expected("labels", "the columns label and one of file, series, study, patient_id", there)
    found: dict[str, dict[str, str]] = {}
    for column in columns:
        keys = table[column].str.strip()
        twice = table.assign(key=keys)[keys != ""].groupby("key")["label"].nunique()
        if len(twice) and int(twice.max()) > 1:
            raise expected("labels", f"one label for each {column}", f"{int((twice > 1).sum())} with several")
        found[column] = {key: text.strip() for key, text in zip(keys, table["label"], strict=True) if key}
    return found


def _numbered(sites: pd.Series) -> pd.Series:
    """Sites as site-1, site-2 and so on, in an order that tells nothing."""
    names = {site: f"site-{place}" for place, site in enumerate(sorted(set(sites) - {""}), start=1)}
    return sites.map(lambda site: names.get(site, ""))


def _notes(table: pd.DataFrame) -> tuple[str, ...]:
    notes = []
    without = int((table["patient_id"] == "").sum())
    if without:
        notes.append(f"{without} of {len(table)} have no patient, so that a split can't keep their patients together.")
    unlabelled = int((table["label"] == "").sum())
    if unlabelled:
        notes.append(f"{unlabelled} of {len(table)} have no label yet: fill in the column before training.")
    several = table[(table["patient_id"] != "") & (table["label"] != "")].groupby("patient_id")["label"].nunique()
    if int((several > 1).sum()):
        notes.append(f"{int((several > 1).sum())} patients have more than one label.")
    return tuple(notes)


def _relative(path: str, folder: Path) -> str:
    given = Path(path)
    return given.relative_to(folder).as_posix() if given.is_relative_to(folder) else given.as_posix()


def _text(header: Dataset, keyword: str) -> str:
    """The first value as text; "" where it is absent or damaged."""
    try:
        found = value(header, keyword)
    except DecodeError:
        return ""
    if found is None:
        return ""
    several = [str(each) for each in found] if isinstance(found, (list, tuple)) or hasattr(found, "insert") else [found]
    return str(several[0]).strip(" \0") if several else ""


def _numbers(header: Dataset, keyword: str) -> list[float]:
    try:
        found = value(header, keyword)
    except DecodeError:
        return []
    several = list(found) if hasattr(found, "__iter__") and not isinstance(found, str) else [found]
    try:
        return [float(each) for each in several if each is not None and np.isfinite(float(each))]
    except (TypeError, ValueError):
        return []


def _positive(number: float) -> float:
    """A number above zero; zero stands for what isn't known."""
    return number if number > 0 else math.nan


def _number(header: Dataset, keyword: str) -> float:
    found = _numbers(header, keyword)
    return found[0] if found else math.nan
