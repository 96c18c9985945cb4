"""A folder of DICOM files de-identified: file by file, whole or not at all, and again where it stopped."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pellucid.data.dicom.deidentify.actions import Cleaner, identity_of
from pellucid.data.dicom.deidentify.burned_in import Box, find_text
from pellucid.data.dicom.deidentify.check import Checked, Problem, Ties, check_file, form_errors, has_form_checker
from pellucid.data.dicom.deidentify.identifiers import Identifiers, identifiers_of, words_of
from pellucid.data.dicom.deidentify.method import fresh_meta, state_method, syntax_of
from pellucid.data.dicom.deidentify.pixels import black_out, clear_unused_bits, frames_of, strip_comments
from pellucid.data.dicom.deidentify.profile import REGISTERED, Choices
from pellucid.data.dicom.deidentify.pseudonyms import Pseudonyms, load_key
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, expected
from pellucid.files import read_json, write_json, written_whole
from pellucid.progress import Advance, heard

LOG, ABOUT = "deidentified.csv", "deidentified.json"
COLUMNS = (
    *("file", "source", "patient", "sop_class", "modality", "removed", "emptied", "replaced", "uids", "shifted"),
    *("cleaned", "comments", "burned_in", "boxes", "warnings"),
)
_COUNTED = {"remove": "removed", "empty": "emptied", "dummy": "replaced", "uid": "uids", "shift": "shifted"}
_DIRECTORY = "1.2.840.10008.1.3.10"
_OFTEN_LABELLED = ("US", "IVUS", "SC", "OT", "XC", "ES", "GM", "DOC")
_STARTS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # of a data set without preamble


@dataclass(frozen=True)
class Written:
    """A file that was written: a row of the log."""

    file: str
    source: str
    patient: str
    row: Mapping[str, object]
    boxes: tuple[Box, ...]
    burned_in: str


@dataclass
class Outcome:
    """What a run did.

    `written` and `present` (from a former run) files, `skipped` sources with the reason, `suspects` those that seem to
    bear burned-in text, `checked` what reading them back showed.
    """

    output: Path
    written: list[Written] = field(default_factory=list)
    present: list[Written] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    checked: Checked = field(default_factory=Checked)

    @property
    def files(self) -> list[Written]:
        return [*self.present, *self.written]

    @property
    def suspects(self) -> list[Written]:
        return [each for each in self.files if each.burned_in in ("text", "stated")]


@dataclass(frozen=True)
class Job:
    """What is de-identified, where to, and how.

    Arguments:
        folder: a DICOM folder, searched at any depth, or one file.
        output: a new folder, or that of a former run with the same options and key, which then goes on.
        key: the file of the secret key; made where it isn't there. By default beside the output, never in it.
        choices: the options of the profile.
        regions: boxes to blacken by the new name of a file, which someone looked at.
        keep_map: a file for which source became which, made only where it is asked for.
    """

    folder: Path
    output: Path
    key: Path | None = None
    choices: Choices = field(default_factory=Choices)
    regions: Mapping[str, Sequence[Box]] | None = None
    keep_map: Path | None = None

    def __post_init__(self) -> None:
        source, target = self.folder.expanduser().resolve(), self.output.expanduser().resolve()
        if not source.exists():
            raise InputError(f"folder: expected a folder of DICOM files, got {str(self.folder)!r}, which isn't there.")
        root = source if source.is_dir() else source.parent
        if target == root or target.is_relative_to(root) or root.is_relative_to(target):
            raise expected("output", "a folder apart from the source", str(self.output), do="Choose another --output.")
        for name, path in (("key", self.key), ("keep-map", self.keep_map)):
            if path is not None and path.expanduser().resolve().is_relative_to(target):
                raise expected(name, "a file outside of the output, which may be passed on", str(path))

    @property
    def key_file(self) -> Path:
        """Where the key is."""
        return self.key or self.output.with_name(self.output.name + ".key")

    @property
    def root(self) -> Path:
        """The folder that paths of sources are relative to."""
        return self.folder if self.folder.is_dir() else self.folder.parent


def deidentify(job: Job, *, show_progress: bool | Advance = False, check: bool = True) -> Outcome:
    """De-identify a folder and read the result back.

    Files are written whole, into folders of patient, study and series that bear pseudonyms; the log,
    `deidentified.csv`, tells of each without telling whose it is. What was written by a former run is left alone.

    Raises InputError where the output was made with other options or another key, StorageError.
    """
    pseudonyms = load_key(job.key_file)
    _agree(job, pseudonyms)
    outcome = Outcome(job.output)
    sources = files_below(job.folder)
    known = {row.source: row for row in read_log(job.output) if (job.output / row.file).is_file()}
    taken = {row.file for row in known.values()}
    pairs: list[tuple[Path, Written]] = []
    seen: set[str] = set()
    with _quiet(), _log(job.output) as log, heard(show_progress, "de-identifying", len(sources)) as advance:
        for path in sources:
            name = path.relative_to(job.root).as_posix()
            try:
                data = path.read_bytes()
                source = pseudonyms.fingerprint(data)
                if source in seen:
                    raise DecodeError("a copy of another file, byte for byte")
                if source in known:
                    outcome.present.append(known[source])
                    written = known[source]
                else:
                    written = _one(job, pseudonyms, data, source, taken)
                    log(written)
                    taken.add(written.file)
                    outcome.written.append(written)
                seen.add(source)
                pairs.append((path, written))
            except OSError as error:
                outcome.skipped.append((name, error.strerror or str(error)))
            except DecodeError as error:
                outcome.skipped.append((name, str(error)))
            advance(1)
    if job.keep_map is not None:
        _write_map(job.keep_map.expanduser(), [(path.relative_to(job.root), each.file) for path, each in pairs])
    if check:
        outcome.checked = check_pairs(job, pairs, show_progress=show_progress)
    return outcome


def check_pairs(
    job: Job, pairs: Sequence[tuple[Path, Written]], *, show_progress: bool | Advance = False, form: bool = True
) -> Checked:
    """Read written files back beside their sources; see `check`. One file of each series goes through dciodvfy."""
    checked, ties, others = Checked(), Ties(), Identifiers()
    formed: set[Path] = set()
    form = form and has_form_checker()
    with _quiet(), heard(show_progress, "reading back", 2 * len(pairs)) as advance:
        for path, _ in pairs:  # first all names, since one patient's may stand in another's file
            own = identifiers_of(load(path.read_bytes(), pixels=False), job.choices)
            others.words |= own.words
            others.whole |= {value: keyword for value, keyword in own.whole.items() if keyword in _PATIENTS}
            advance(1)
        for path, written in pairs:
            place = job.output / written.file
            checked.files += 1
            try:
                data = place.read_bytes()
                result = pydicom.dcmread(io.BytesIO(data))
                problems = check_file(
                    written.file, load(path.read_bytes()), result, data,
                    choices=job.choices, boxes=written.boxes, others=others, ties=ties,
                )  # fmt: skip
            except (OSError, InvalidDicomError, DecodeError) as error:
                problems = [Problem(written.file, "unreadable", type(error).__name__)]
            if form and place.parent not in formed:
                formed.add(place.parent)
                checked.formed += 1
                if form_errors(place) - form_errors(path):
                    problems.append(Problem(written.file, "form", "dciodvfy finds errors that the source doesn't have"))
            checked.problems += problems
            advance(1)
    checked.problems += ties.problems()
    return checked


_PATIENTS = ("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName")


def load(data: bytes, *, pixels: bool = True) -> Dataset:
    """The data set of a DICOM file's bytes, with or without preamble and file meta information.

    Raises DecodeError for what is none, what is damaged, and what has no class or UID.
    """
    if not data:
        raise DecodeError("the file is empty")
    if data[128:132] != b"DICM" and data[:2] not in _STARTS:
        raise DecodeError("not a DICOM file")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=not pixels)
        sop_class, uid = str(dataset.get("SOPClassUID") or ""), str(dataset.get("SOPInstanceUID") or "")
        if dataset.get("file_meta") is not None or hasattr(dataset, "file_meta"):
            stated = str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
            sop_class = sop_class or stated
    except Exception as error:
        raise DecodeError("its header is damaged") from error
    if sop_class == _DIRECTORY:
        raise DecodeError("a DICOMDIR, an index of other files; make a new one for the result")
    if not syntax_of(dataset).is_transfer_syntax:
        syntax = syntax_of(dataset)
        name = f" ({syntax})" if syntax.startswith(REGISTERED) else ""
        raise DecodeError(f"its transfer syntax{name} isn't one that pydicom {pydicom.__version__} knows")
    if not sop_class or not uid or "SOPClassUID" not in dataset:
        raise DecodeError("it has no SOP Class UID (0008,0016) or no SOP Instance UID (0008,0018)")
    return dataset


def files_below(folder: Path) -> list[Path]:
    """All files at any depth, in the order of their names, but for hidden ones and linked folders."""
    if folder.is_file():
        return [folder]
    found = []
    for root, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(root) / name for name in sorted(files) if not name.startswith(".")]
    return sorted(found, key=lambda path: path.as_posix())


def _one(job: Job, pseudonyms: Pseudonyms, data: bytes, source: str, taken: set[str]) -> Written:
    """One file, de-identified and written."""
    dataset = load(data)
    notes: list[str] = []
    choices = job.choices
    patient = identity_of(dataset)
    folders = _folders(dataset, pseudonyms, patient)
    seen_kind = _kind(dataset)
    stated = str(dataset.get("BurnedInAnnotation", "")).upper() == "YES"
    boxes, looked = _look(dataset)
    if not looked and "PixelData" in dataset:
        notes.append("its pixels can't be decoded, so that no burned-in text was looked for")
    cleaner = Cleaner(pseudonyms, choices, patient, words_of(dataset), _overlay_shows_text)
    cleaner.clean(dataset)
    if "file_meta" not in dataset.__dict__ or dataset.file_meta is None:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta = fresh_meta(dataset)
    dataset.preamble = bytes(128)
    name = _free(f"{folders}/{dataset.SOPInstanceUID}", source, taken)
    comments = _strip(dataset, notes)
    clear_unused_bits(dataset)
    black: tuple[Box, ...] = tuple((job.regions or {}).get(name, ()))
    confirmed = bool(black)
    if "pixels" in choices.clean and job.regions is None:
        black = tuple(boxes)
    if black:
        try:
            black_out(dataset, black)
        except Exception as error:
            raise DecodeError("text in its pixels can't be blackened, since they can't be decoded") from error
        if confirmed:
            dataset.BurnedInAnnotation = "NO"
    elif stated and "EncapsulatedDocument" not in dataset:
        notes.append("it says itself that text is burned in")
    if "EncapsulatedDocument" in dataset:
        notes.append("its document was replaced by an empty one")
    state_method(dataset, choices)
    burned_in = "blackened" if black else "text" if boxes else "stated" if stated else seen_kind
    with written_whole(job.output / name) as aside:
        _save(dataset, aside)
    row = {
        "sop_class": dataset.SOPClassUID.name,
        "modality": str(dataset.get("Modality", "")),
        **{column: cleaner.counts[action] for action, column in _COUNTED.items()},
        "cleaned": cleaner.counts["clean"],
        "comments": int(comments),
        "warnings": "; ".join(notes),
    }
    return Written(name, source, pseudonyms.patient(patient), row, black or tuple(boxes), burned_in)


def _save(dataset: Dataset, path: Path) -> None:
    try:
        dataset.save_as(path, enforce_file_format=True)
    except OSError:
        raise
    except Exception as error:
        raise DecodeError("it can't be written again; its header is damaged") from error


def _strip(dataset: Dataset, notes: list[str]) -> bool:
    try:
        return strip_comments(dataset)
    except Exception:  # noqa: BLE001 — fragments that can't be parted; the check looks into their bytes
        notes.append("its compressed pixels can't be parted, so that comments in them weren't looked for")
        return False


def _look(dataset: Dataset) -> tuple[list[Box], bool]:
    """Boxes around burned-in text, and whether it could be looked for."""
    try:
        frames = frames_of(dataset)
        return ([], True) if frames is None else (find_text(frames), True)
    except Exception:  # noqa: BLE001 — whatever a decoder raises, the file's header can be de-identified
        return [], False


def _overlay_shows_text(dataset: Dataset, group: int) -> bool:
    try:
        bits = dataset.overlay_array(group)
    except Exception:  # noqa: BLE001 — an overlay that can't be read can't be called clear
        return True
    frames = np.asarray(bits).reshape(-1, 1, *np.asarray(bits).shape[-2:])
    return bool(find_text(frames))


def _kind(dataset: Dataset) -> str:
    kinds = {str(each).upper() for each in (dataset.get("ImageType") or [])}
    often = str(dataset.get("Modality", "")) in _OFTEN_LABELLED or bool(kinds & {"SECONDARY", "SCREEN SAVE"})
    return "often" if often and "PixelData" in dataset else ""


def _folders(dataset: Dataset, pseudonyms: Pseudonyms, patient: str) -> str:
    study, series = (str(dataset.get(f"{kind}InstanceUID", "") or "") for kind in ("Study", "Series"))
    names = ("study-" + pseudonyms.short("study", study), "series-" + pseudonyms.short("series", series))
    return "/".join((pseudonyms.patient(patient), *names))


def _free(name: str, source: str, taken: set[str]) -> str:
    """A file's name, with letters of its own where another file bears the same UID and holds something else."""
    first = f"{name}.dcm"
    return first if first not in taken else f"{name}-{source[:8]}.dcm"


def _agree(job: Job, pseudonyms: Pseudonyms) -> None:
    """See that the output was made with the same options and key, or is new."""
    about = {"options": job.choices.text(), "key": pseudonyms.short("about", "key")}
    place = job.output / ABOUT
    if place.is_file():
        former = read_json(place)
        if former.get("key") != about["key"]:
            raise expected("key", f"that of the files in {job.output}", f"another, {job.key_file}")
        if former.get("options") != about["options"]:
            raise expected("output", f"a folder made with {about['options']}", f"one made with {former['options']}",
                           do="Choose another --output.")  # fmt: skip
        return
    if job.output.exists() and (not job.output.is_dir() or any(job.output.iterdir())):
        raise expected("output", "a new folder, or one of a former run", str(job.output), do="Choose another --output.")
    write_json(place, about)


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


class _log:
    def __init__(self, output: Path) -> None:
        self._place = output / LOG

    def __enter__(self) -> _log:
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


def _write_map(path: Path, pairs: Sequence[tuple[Path, str]]) -> None:
    """Write which source became which, for its owner's eyes alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "file"))
        writer.writerows((path.as_posix(), name) for path, name in pairs)


def _quiet() -> warnings.catch_warnings:  # type: ignore[type-arg]
    """Hold back what pydicom says of odd values: it quotes them."""
    return _Quiet()


class _Quiet(warnings.catch_warnings):  # type: ignore[type-arg]
    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


def iterate_suspects(outcome: Outcome) -> Iterator[Written]:
    """The files that seem to bear burned-in text, in the order of their names."""
    yield from sorted(outcome.suspects, key=lambda each: each.file)
