"""Keep patients and places out of the report: file names, notes and reasons may tell them."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

HIDDEN = "…"
_PLAIN_SPLITS = {"train", "val", "test"}
_NUMBERING = re.compile(r"(?=[A-Za-z]*\d)[A-Za-z0-9]{4,}")  # a part of an identifier that can tell patients apart
_ABSOLUTE = re.compile(r"""(?<![\w.])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'":,;]+[\\/])+""")


def hide_patient(text: str, patients: Collection[str]) -> str:
    """A text in which every whole-word patient identifier is an ellipsis.

    >>> hide_patient("glioma/P-07_slice12.png", ["P-07"])
    'glioma/…_slice12.png'
    >>> hide_patient("glioma/scan107.png", ["107"])
    'glioma/scan107.png'
    """
    for patient in sorted({patient for patient in patients if patient}, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(patient)}(?![A-Za-z0-9])", HIDDEN, text)
    return text


def hide_in_path(path: str, patients: Collection[str]) -> str:
    """A file's path without patient identifiers and without their parts that number a patient.

    >>> hide_in_path("normal/00002658_001.png", ["NIH-00002658"])
    'normal/…_001.png'
    """
    return hide_patient(path, {*patients, *(part for patient in patients for part in _NUMBERING.findall(patient))})


def hide_in_prose(text: str, patients: Collection[str]) -> str:
    """A sentence without patients and without the folders of absolute paths.

    Identifiers of one or two digits are hidden in file names, in quotes and after "patient" only, since elsewhere
    they are counts.

    >>> hide_in_prose("2 files, e.g. 2/scan.png, of patient 2 in /home/someone/data/x.csv", ["2"])
    '2 files, e.g. …/scan.png, of patient … in x.csv'
    """
    text = _ABSOLUTE.sub("", text)
    short = {patient for patient in patients if patient.isdigit() and len(patient) < 3}
    text = re.sub(r"[^\s'\"]*[/\\.][^\s'\"]*\w", lambda name: hide_in_path(name[0], patients), text)
    text = hide_patient(text, set(patients) - short)
    return re.sub(r"(?i)(patients? |['\"])(\w+)", lambda word: word[1] + hide_patient(word[2], short), text)


def hide_file(path: str, classes: Collection[str]) -> str:
    """A file's part and class folders and its ending; the rest may tell whose it is.

    >>> hide_file("test/glioma/P-07.png", ["glioma"]), hide_file("P-07/scan.png", ["glioma"])
    ('test/glioma/….png', '….png')
    """
    parts = PurePosixPath(path).parts
    kept = []
    for part in parts[:-1]:
        if part.lower() not in _PLAIN_SPLITS and part not in classes:
            break
        kept.append(part)
    return "/".join([*kept, HIDDEN + PurePosixPath(path).suffix])
