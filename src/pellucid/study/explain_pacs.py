"""Explain a study of a PACS: fetch its images, explain them as any files, and store what was written back."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from pellucid.data.pacs import (
    Fetched,
    InstanceEntry,
    NotInPacsError,
    Outcome,
    Pacs,
    fetch_study,
    store_files,
    study_folder,
)
from pellucid.data.pacs.entries import hashed
from pellucid.data.pacs.headers import Header
from pellucid.errors import expected
from pellucid.files import read_json, write_json
from pellucid.models.checkpoints import ModelCard
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.explain_objects import OBJECTS

KEPT = ".pacs"  # the folder in the output with the fetched files, and the record of what was stored
STORED, TIMES = "stored.json", "times.json"
MAKER = "pellucid"  # the Manufacturer of our own objects, which aren't explained again

# what follows in the UIDs of storage classes that hold no picture to explain (PS3.4, B.5)
_NO_IMAGES = re.compile(
    r"1\.2\.840\.10008\.5\.1\.4\.1\.1\."
    r"(4\.2|9\..*|11\..*"  # spectroscopy, waveforms, presentation states
    r"|30|66|66\..*|67|68\..*"  # parametric maps, raw data, registrations, segmentations, surfaces
    r"|77\.1\.5\.3|77\.1\.6|78\..*|79\..*|80\..*|81\..*|82\..*"  # measurements of the eye, whole slides
    r"|34\..*|88\..*|90\..*|91\..*|104\..*|131|200\..*"  # instructions, reports, annotations, documents, protocols
    r"|481\.(?!(1|23|24)$).*)"  # of radiotherapy all but its images
)


@dataclass(frozen=True)
class StudyExplained:
    """What was fetched; the records written and the images skipped, as of `explain_files`; what became of objects."""

    fetched: Fetched
    records: list[Path]
    skipped: list[tuple[str, str]]
    outcomes: list[Outcome] = field(default_factory=list)


def explain_study(
    pacs: Pacs,
    study: str,
    model: tuple[nn.Module, ModelCard],
    out: Path,
    question: Question,
    *,
    series: Sequence[str] = (),
    store_back: bool = False,
    strict: bool = False,
    show_progress: bool = False,
) -> StudyExplained:
    """Explain the images of a study, or of some of its series.

    They are kept in `out/.pacs` under names that are hashes, and fetched but once; objects that pellucid made before
    are left out. With `store_back` the DICOM objects that were written go into the PACS, each once, even when the same
    command runs again.

    Arguments:
        pacs: as `pellucid.data.pacs.connect` gives it.
        study: the Study Instance UID.
        model, out, question, strict, show_progress: as for `explain_files`.
        series: Series Instance UIDs; none for all.
        store_back: store the objects that were written.

    Raises:
        InputError: objects are to be stored, but none is to be written; and as `explain_files` does.
        UnreadableFileError: as `explain_files` does.
        NotInPacsError: there is no such study or series, or no image in it.
        PacsError: the PACS fails or refuses. What was fetched and explained is kept.
    """
    if store_back and not question.write.objects:
        raise expected("store_back", f"DICOM objects among what is written: {', '.join(OBJECTS)}", "none of them")
    kept = out / KEPT
    fetched = fetch_study(
        pacs,
        study,
        kept / study_folder(study),
        series=series,
        wanted=is_image,
        apart=is_ours,
        show_progress=show_progress,
    )
    if not fetched.files:
        raise NotInPacsError(f"PACS at {pacs.address}: all images of that study were made by pellucid.")
    if store_back:
        question = _at_first_time(question, (study, *series), kept / TIMES)
    records, skipped = explain_files([fetched.folder], model, out, question, strict=strict, show_progress=show_progress)
    outcomes = []
    if store_back:
        outcomes = store_files(pacs, objects_of(records), record=kept / STORED, show_progress=show_progress)
    return StudyExplained(fetched, records, skipped, outcomes)


def _at_first_time(question: Question, uids: Sequence[str], path: Path) -> Question:
    """The question with the time of its first run, so that a second one writes the same objects and stores none.

    Whatever the UIDs of objects don't follow from (another method, class or threshold) has a time of its own.
    """
    if question.write.when is not None:
        return question
    plain = replace(question, methods=(), metrics=())  # whose texts would change from run to run
    methods = [each if isinstance(each, str) else each.label for each in question.methods]
    asked = hashed(repr((uids, plain, methods, [each.label for each in question.metrics])))
    times = read_json(path) if path.exists() else {}
    if asked not in times:
        when = datetime.datetime.now().replace(microsecond=0)
        while when.isoformat() in times.values():  # two questions within a second
            when += datetime.timedelta(seconds=1)
        times[asked] = when.isoformat()
        write_json(path, times)
    first = datetime.datetime.fromisoformat(times[asked])
    return replace(question, write=replace(question.write, when=first))


def is_image(entry: InstanceEntry) -> bool:
    """Whether an instance may be explained, by its SOP class; one whose class isn't told may."""
    return _NO_IMAGES.fullmatch(entry.sop_class) is None


def is_ours(header: Header) -> bool:
    """Whether pellucid made an object."""
    return header.manufacturer == MAKER


def objects_of(records: Sequence[Path]) -> list[Path]:
    """The DICOM files that records name as written beside them."""
    named = [(record.parent, read_json(record).get("written", {}).get("files", [])) for record in records]
    return [folder / name for folder, names in named for name in names if name.endswith(".dcm")]
