"""Which files of a folder are images: by their endings, DICOM by its content as well, and DICOM volumes as series."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.data.dicom.headers import DICOM_ENDINGS
from pellucid.data.dicom.scan import headers_of
from pellucid.data.dicom.series import series_of
from pellucid.data.dicom.stacks import MADE
from pellucid.data.images import IMAGE_ENDINGS, OTHER_IMAGE_ENDINGS, quiet_decoders
from pellucid.data.itk import ITK_ENDINGS
from pellucid.data.nifti import VOLUME_ENDINGS as NIFTI_ENDINGS

VOLUME_ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS)
_NOTED = 5  # of a folder's series
KNOWN_ENDINGS = (*IMAGE_ENDINGS, *OTHER_IMAGE_ENDINGS, *VOLUME_ENDINGS)


@dataclass(frozen=True)
class DicomImages:
    """DICOM images by path: files, or series as `FOLDER/#NAME`.

    `patients` has for each path what tells its patient from others, for grouping alone: it is no name to be shown.
    """

    patients: dict[Path, str]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        return list(self.patients)


def looks_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its ending, or, where that is no other image's, by the mark behind its preamble."""
    name = path.name.lower()
    if name.endswith(DICOM_ENDINGS):
        return True
    if name.endswith(KNOWN_ENDINGS):
        return False
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_images(files: Sequence[Path], *, volumes: bool) -> DicomImages:
    """The images among DICOM files: each file that is a picture, or the volumes that they make.

    Reports, segmentations and whatever else is made from images is left out. Files that can't be read stay, so that
    they are told when they are, and so do series that should be a volume and can't be. Where no volume is wanted to be
    found, pictures are given instead.
    """
    with quiet_decoders():
        headers, skipped = headers_of(files)
        images = [each for each in headers if each.sop_class not in MADE]
        series = series_of(images, skipped) if volumes else ()
    wanted = [each for each in series if each.volume or each.refusal]
    patients: dict[Path, str] = {}
    notes: list[str] = []
    if wanted:
        for each in wanted:
            path = each.files[0] if len(each.files) == 1 else each.path
            patients[path] = each.patient
            notes += [f"The series {each.name}: {note}." for note in each.notes]
        if len(notes) > _NOTED:
            notes = [*notes[:_NOTED], f"There is more to be said of other series ({len(notes) - _NOTED} notes)."]
        left = sum(len(each.files) for each in series) - sum(len(each.files) for each in wanted)
        if left:
            notes.append(f"{left} DICOM files are no part of a volume (localisers, pictures) and were left out.")
    else:
        patients = {each.path: each.patient_id or each.patient_name for each in images}
    patients |= {each.path: "" for each in skipped if each.kind == "damaged"}
    others = len(headers) - len(images) + sum(each.kind == "other" for each in skipped)
    if others:
        notes.append(f"{others} DICOM files hold no image of their own (reports, masks, maps) and were left out.")
    return DicomImages(patients, tuple(notes))


def images_in(folder: Path, endings: Sequence[str], *, volumes: bool) -> list[Path]:
    """Image files at any depth of a folder, sorted, by their endings; DICOM as `dicom_images` says."""
    found: list[Path] = []
    dicom: list[Path] = []
    for file in _below(folder):
        if looks_dicom(file):
            dicom.append(file)
        elif file.name.lower().endswith(tuple(endings)):
            found.append(file)
    return sorted([*found, *dicom_images(dicom, volumes=volumes).paths])


def _below(folder: Path) -> Iterable[Path]:
    for here, _, names in os.walk(folder):
        yield from (file for name in names if (file := Path(here) / name).is_file())
