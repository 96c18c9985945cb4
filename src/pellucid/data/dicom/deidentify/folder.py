"""A folder of DICOM files de-identified: file by file, whole or not at all, and again where it stopped."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from pellucid.data.dicom.deidentify.burned_in import Box
from pellucid.data.dicom.deidentify.check import Checked, Problem, Ties, check_file, form_errors, has_form_checker
from pellucid.data.dicom.deidentify.file import load, make, save
from pellucid.data.dicom.deidentify.identifiers import Identifiers, identifiers_of
from pellucid.data.dicom.deidentify.log import Log, Written, read_log, write_map
from pellucid.data.dicom.deidentify.profile import Choices
from pellucid.data.dicom.deidentify.pseudonyms import Pseudonyms, load_key
from pellucid.data.dicom.deidentify.review import write_boxes, write_picture
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, expected
from pellucid.files import read_json, write_json, written_whole
from pellucid.progress import Advance, heard

ABOUT = "deidentified.json"
_PATIENTS = ("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName")


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
    def review(self) -> Path:
        """Where pictures with burned-in text are shown: apart from the output, since they show that text."""
        return self.output.with_name(self.output.name + ".review")

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
    with _Quiet(), Log(job.output) as log, heard(show_progress, "de-identifying", len(sources)) as advance:
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
                    written = _write(job, pseudonyms, data, taken)
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
        write_map(job.keep_map.expanduser(), [(path.relative_to(job.root), each.file) for path, each in pairs])
    if outcome.suspects or job.review.exists():
        write_boxes(job.review, outcome.files)
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
    with _Quiet(), heard(show_progress, "reading back", 2 * len(pairs)) as advance:
        for path, _ in pairs:  # first all names, since one patient's may stand in another's file
            own = identifiers_of(load(path.read_bytes()), job.choices)
            others.words |= {word: keyword for word, keyword in own.words.items() if keyword in _PATIENTS}
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


def _write(job: Job, pseudonyms: Pseudonyms, data: bytes, taken: set[str]) -> Written:
    made = make(data, pseudonyms, job.choices, taken=taken, regions=job.regions)
    with written_whole(job.output / made.written.file) as aside:
        save(made.dataset, aside)
    if made.picture is not None:
        write_picture(job.review, made.written.file, made.picture)
    return made.written


def files_below(folder: Path) -> list[Path]:
    """All files at any depth, in the order of their names, but for hidden ones and linked folders."""
    if folder.is_file():
        return [folder]
    found = []
    for root, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(root) / name for name in sorted(files) if not name.startswith(".")]
    return sorted(found, key=lambda path: path.as_posix())


def _agree(job: Job, pseudonyms: Pseudonyms) -> None:
    """See that the output was made with the same options and key, or is new."""
    options = job.choices.text()
    if job.regions is not None:
        boxes = repr(sorted((name, [(*vars(box).values(),) for box in each]) for name, each in job.regions.items()))
        options += f" boxes={hashlib.sha256(boxes.encode()).hexdigest()[:8]}"
    about = {"options": options, "key": pseudonyms.short("about", "key")}
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


class _Quiet(warnings.catch_warnings):
    """Hold back what pydicom says of odd values, since it quotes them."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
