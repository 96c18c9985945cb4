"""One DICOM file de-identified: its header, its pixels, and its new name."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from pellucid.data.dicom.deidentify.actions import Cleaner, identity_of
from pellucid.data.dicom.deidentify.burned_in import Box, find_text
from pellucid.data.dicom.deidentify.identifiers import words_of
from pellucid.data.dicom.deidentify.log import Written
from pellucid.data.dicom.deidentify.method import fresh_meta, state_method, syntax_of
from pellucid.data.dicom.deidentify.pixels import black_out, clear_unused_bits, frames_of, seen, strip_comments
from pellucid.data.dicom.deidentify.profile import REGISTERED, Choices
from pellucid.data.dicom.deidentify.pseudonyms import Pseudonyms
from pellucid.data.dicom.deidentify.review import picture_of
from pellucid.data.dicom.elements import text
from pellucid.data.dicom.headers import open_file
from pellucid.data.whole import DecodeError

_COUNTED = {
    "remove": "removed",
    "empty": "emptied",
    "dummy": "replaced",
    "uid": "uids",
    "shift": "shifted",
    "clean": "cleaned",
}
_DIRECTORY = "1.2.840.10008.1.3.10"
_OFTEN_LABELLED = ("US", "IVUS", "SC", "OT", "XC", "ES", "GM", "DOC")
_STARTS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # of a data set without preamble


@dataclass(frozen=True, eq=False)
class Made:
    """A de-identified object, its row of the log, and a picture of its burned-in text where it seems to have any."""

    dataset: Dataset
    written: Written
    picture: np.ndarray | None


def make(
    data: bytes,
    pseudonyms: Pseudonyms,
    choices: Choices,
    *,
    taken: frozenset[str] | set[str] = frozenset(),
    regions: Mapping[str, Sequence[Box]] | None = None,
) -> Made:
    """De-identify the bytes of one file.

    Arguments:
        data: the file.
        pseudonyms: by the user's key.
        choices: the options of the profile.
        taken: names that other files have.
        regions: boxes by name, which someone looked at: these are blackened, and no others.

    Raises DecodeError.
    """
    dataset = load(data)
    source, patient = pseudonyms.fingerprint(data), identity_of(dataset)
    kind, stated = _kind(dataset), str(dataset.get("BurnedInAnnotation", "")).upper() == "YES"
    folders = _folders(dataset, pseudonyms, patient)
    notes: list[str] = []
    frames = _frames(dataset, notes)
    boxes = [] if frames is None else find_text(frames)
    cleaner = Cleaner(pseudonyms, choices, patient, words_of(dataset), _overlay_shows_text)
    cleaner.clean(dataset)
    dataset.file_meta = fresh_meta(dataset)
    dataset.preamble = bytes(128)
    name = _free(f"{folders}/{dataset.SOPInstanceUID}", source, taken)
    comments = _strip(dataset, notes)
    clear_unused_bits(dataset)
    black = list((regions or {}).get(name, boxes if "pixels" in choices.clean and regions is None else ()))
    if black:
        _blacken(dataset, black)
        if regions is not None:
            dataset.BurnedInAnnotation = "NO"
    elif stated:
        notes.append("it says itself that text is burned in")
    if "EncapsulatedDocument" in dataset:
        notes.append("its document was replaced by an empty one")
    state_method(dataset, choices)
    burned_in = "blackened" if black else "text" if boxes else "stated" if stated else kind
    row: dict[str, object] = {column: cleaner.counts[action] for action, column in _COUNTED.items()}
    row |= {"sop_class": dataset.SOPClassUID.name, "modality": str(dataset.get("Modality", ""))}
    row |= {"comments": int(comments), "warnings": "; ".join(notes)}
    shown = black or boxes
    written = Written(name, source, pseudonyms.patient(patient), row, tuple(shown), burned_in)
    picture = picture_of(frames, shown) if frames is not None and (shown or stated) else None
    return Made(dataset, written, picture)


def load(data: bytes) -> Dataset:
    """The data set of a DICOM file's bytes, with or without preamble and file meta information.

    Raises DecodeError for what is none, what is damaged, and what has no class or UID.
    """
    if not data:
        raise DecodeError("the file is empty")
    if data[128:132] != b"DICM" and data[:2] not in _STARTS:
        raise DecodeError("not a DICOM file")
    open_file(data)  # which bounds what may be inflated, and sees whether it can be parsed at all
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    except Exception as error:
        raise DecodeError("its header is damaged") from error
    if _DIRECTORY in (text(dataset.file_meta, "MediaStorageSOPClassUID"), text(dataset, "SOPClassUID")):
        raise DecodeError("a DICOMDIR, an index of other files; make a new one for the result")
    syntax = syntax_of(dataset)
    if not syntax.is_transfer_syntax:
        name = f" ({syntax})" if syntax.startswith(REGISTERED) else ""
        raise DecodeError(f"its transfer syntax{name} isn't one that pydicom {pydicom.__version__} knows")
    if not text(dataset, "SOPClassUID") or not text(dataset, "SOPInstanceUID"):
        raise DecodeError("it has no SOP Class UID (0008,0016) or no SOP Instance UID (0008,0018)")
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    """Write an object; raises DecodeError where that can't be done, OSError for a full disk."""
    try:
        dataset.save_as(path, enforce_file_format=True)
    except OSError:
        raise
    except Exception as error:
        raise DecodeError("it can't be written again, since its header is damaged") from error


def _blacken(dataset: Dataset, boxes: Sequence[Box]) -> None:
    try:
        black_out(dataset, boxes)
    except DecodeError as error:
        raise DecodeError(f"text in its pixels can't be blackened: {error}") from error


def _frames(dataset: Dataset, notes: list[str]) -> np.ndarray | None:
    try:
        frames = frames_of(dataset)
        return None if frames is None else seen(dataset, frames)
    except DecodeError:
        notes.append("its pixels can't be decoded, so that no burned-in text was looked for")
        return None


def _strip(dataset: Dataset, notes: list[str]) -> bool:
    try:
        return strip_comments(dataset)
    except Exception:  # noqa: BLE001 — fragments that can't be parted; the check looks into their bytes
        notes.append("its compressed pixels can't be parted, so that comments in them weren't looked for")
        return False


def _overlay_shows_text(dataset: Dataset, group: int) -> bool:
    try:
        bits = dataset.overlay_array(group)
    except Exception:  # noqa: BLE001 — an overlay that can't be read can't be called clear
        return True
    return bool(find_text(np.asarray(bits).reshape(-1, 1, *bits.shape[-2:])))


def _kind(dataset: Dataset) -> str:
    kinds = {str(each).upper() for each in (dataset.get("ImageType") or [])}
    often = str(dataset.get("Modality", "")) in _OFTEN_LABELLED or bool(kinds & {"SECONDARY", "SCREEN SAVE"})
    return "often" if often and "PixelData" in dataset else ""


def _folders(dataset: Dataset, pseudonyms: Pseudonyms, patient: str) -> str:
    study, series = (str(dataset.get(f"{kind}InstanceUID", "") or "") for kind in ("Study", "Series"))
    names = ("study-" + pseudonyms.short("study", study), "series-" + pseudonyms.short("series", series))
    return "/".join((pseudonyms.patient(patient), *names))


def _free(name: str, source: str, taken: frozenset[str] | set[str]) -> str:
    """A file's name, with letters of its own where another file bears the same UID and holds something else."""
    first = f"{name}.dcm"
    return first if first not in taken else f"{name}-{source[:8]}.dcm"
