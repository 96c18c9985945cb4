"""Read a de-identified object back, beside its source: does anything tell whose it is, and is the rest unharmed?"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from pellucid.data.dicom.deidentify.burned_in import Box
from pellucid.data.dicom.deidentify.dummies import DATE, REMOVED
from pellucid.data.dicom.deidentify.identifiers import MAKER, TEXTS, Identifiers, identifiers_of, texts_of, walk
from pellucid.data.dicom.deidentify.pixels import frames_of, without_comments
from pellucid.data.dicom.deidentify.profile import REGISTERED, TIMES, Choices, action_of
from pellucid.data.whole import DecodeError

_HARMLESS = ("", REMOVED, DATE, "000000", DATE + "000000", "000D", "0", "0.0", "urn:removed", "\0\0")
_REFERENCES = ("ReferencedSOPInstanceUID", "ReferencedSeriesInstanceUID")
_BY_CHANCE = 6  # letters that may stand among pixels by chance
_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789"
_ERROR = re.compile(r"^Error - (.*)$", re.MULTILINE)
_VALUES = re.compile(r"<[^>]*>|\b\d+(\.\d+)*\b")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file: its new name, where, and what; never the value itself.

    `kind` is "leak", "reference" (UIDs that don't lead to each other any more), "pixels", "unreadable" or "form".
    """

    file: str
    kind: str
    place: str


@dataclass
class Checked:
    """How many files were read back, and what was found; `formed` is how many dciodvfy looked at."""

    files: int = 0
    problems: list[Problem] = field(default_factory=list)
    formed: int = 0

    @property
    def clean(self) -> bool:
        return not self.problems


@dataclass
class Ties:
    """Which UIDs became which, over all files, and what each file refers to: its source's UIDs, and its own."""

    new: dict[str, str] = field(default_factory=dict)
    old: dict[str, str] = field(default_factory=dict)
    references: list[tuple[str, frozenset[str], frozenset[str]]] = field(default_factory=list)

    def tie(self, old: str, new: str) -> bool:
        """Note that one UID became another; whether that is true of it everywhere."""
        return self.new.setdefault(old, new) == new and self.old.setdefault(new, old) == old

    def problems(self) -> list[Problem]:
        """References that no longer lead where they led; call it when all files were checked."""
        found = []
        for name, olds, news in self.references:
            right = {self.new[old] for old in olds if old in self.new}
            outside = any(old not in self.new for old in olds)
            if any(new not in right and (new in self.old or not outside) for new in news):
                found.append(Problem(name, "reference", "it refers to another object than its source did"))
        return found


def check_file(
    name: str,
    source: Dataset,
    result: Dataset,
    written: bytes,
    *,
    choices: Choices,
    boxes: Sequence[Box] = (),
    others: Identifiers | None = None,
    ties: Ties | None = None,
) -> list[Problem]:
    """What is wrong with one file.

    Arguments:
        name: how it is called in what is said.
        source: the data set as it was.
        result: the data set as it was written, read back.
        written: all bytes of the file.
        choices: the options it was made with.
        boxes: what was blackened.
        others: names and numbers of all patients, not only this one.
        ties: where UIDs are noted; its `problems` are asked for at the end.
    """
    wanted = identifiers_of(source, choices)
    problems = [Problem(name, "leak", place) for place in _left(result, wanted, choices)]
    problems += [Problem(name, "leak", place) for place in _spoken(result, wanted, others)]
    problems += [Problem(name, "leak", place) for place in _in_bytes(written, wanted)]
    if not _same_pixels(source, result, boxes):
        problems.append(Problem(name, "pixels", "the pixels differ from the source's"))
    problems += [Problem(name, "reference", place) for place in _tied(name, source, result, ties or Ties())]
    return list(dict.fromkeys(problems))


def _left(result: Dataset, wanted: Identifiers, choices: Choices) -> Iterable[str]:
    """Attributes that should have gone, or still have what they had."""
    sop_class, referring = str(result.get("SOPClassUID", "") or ""), "ReferencedSeriesSequence" in result
    for place in walk(result):
        element = place.element
        action = action_of(element.tag, element.VR, place.parent, sop_class, choices, referring=referring)
        if action == "remove":
            yield f"{_named(element)} is still there"
        elif action in ("empty", "dummy", "uid", "shift") and element.VR not in ("SQ", "TM"):
            former = wanted.by_tag.get(int(element.tag), set())
            for text in texts_of(element):
                if text not in _HARMLESS and text in former and not text.startswith(REGISTERED):
                    yield f"{_named(element)} has its value still"


def _spoken(result: Dataset, wanted: Identifiers, others: Identifiers | None) -> Iterable[str]:
    """Names, numbers and dates in the text of any attribute, private ones and those of unknown kind too."""
    whole = dict(wanted.whole) | (others.whole if others else {})
    words = dict(wanted.words) | (others.words if others else {})
    for place in walk(result):
        element = place.element
        if element.VR not in (*TEXTS, "CS", "UN", "OB", "DT") or element.keyword == "PixelData":
            continue
        for text in texts_of(element):
            small = text.lower()
            if not small or text in _HARMLESS:
                continue
            if element.VR == "CS":  # one of few words, which may be part of a name by chance
                keyword = whole.get(small)
            else:
                keyword = _within(small, whole)
            if keyword is None and element.VR != "CS" and element.keyword not in MAKER:
                keyword = next((words[word] for word in _words(small) if word in words), None)
            if keyword is None and element.VR not in TIMES:
                keyword = next((wanted.dates[day] for day in _days(small) if day in wanted.dates), None)
            if keyword is not None:
                yield f"{_named(element)} holds what {keyword} held"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]{3,}", text)


def _within(text: str, whole: dict[str, str]) -> str | None:
    """The keyword of a value that stands in a text as words of its own."""
    if text in whole:
        return whole[text]
    for value, keyword in whole.items():
        place = text.find(value)
        while place >= 0:
            before, after = text[place - 1 : place], text[place + len(value) : place + len(value) + 1]
            if not (before.isalnum() and value[0].isalnum()) and not (after.isalnum() and value[-1].isalnum()):
                return keyword
            place = text.find(value, place + 1)
    return None


def _days(text: str) -> Iterable[str]:
    """Days as YYYYMMDD that a text names, in one of the usual ways."""
    for found in re.finditer(r"(?<!\d)(\d{4})[-./]?(\d{2})[-./]?(\d{2})(?!\d)", text):
        yield "".join(found.groups())
    for found in re.finditer(r"(?<!\d)(\d{2})[-./](\d{2})[-./](\d{4})(?!\d)", text):
        yield found[3] + found[2] + found[1]
        yield found[3] + found[1] + found[2]


def _in_bytes(written: bytes, wanted: Identifiers) -> Iterable[str]:
    """UIDs, names and numbers among all bytes: comments of compressed pictures, padding, and what isn't parsed."""
    small = written.lower()
    for uid, keyword in wanted.uids.items():
        if _stands(small, uid.encode("ascii", "replace"), b"0123456789."):
            yield f"its bytes hold what {keyword} held"
    for value, keyword in (*wanted.whole.items(), *wanted.words.items()):
        if value in wanted.numbers:  # a series may bear the number of a patient by chance
            continue
        letters = b"0123456789.-" if value.isdecimal() else _LETTERS  # 1.123456 is a length
        for code in ("utf-8", "latin-1", "utf-16-le"):
            needle = value.encode(code, "replace")
            if len(value) >= _BY_CHANCE and _stands(small, needle, letters):
                yield f"its bytes hold what {keyword} held"
                break


def _stands(data: bytes, needle: bytes, letters: bytes) -> bool:
    """Whether bytes stand in others as a word of their own."""
    place = data.find(needle)
    while place >= 0:
        before, after = data[place - 1 : place] if place else b"", data[place + len(needle) : place + len(needle) + 1]
        if (not before or before not in letters) and (not after or after not in letters):
            return True
        place = data.find(needle, place + 1)
    return False


def _same_pixels(source: Dataset, result: Dataset, boxes: Sequence[Box]) -> bool:
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if (keyword in source) != (keyword in result):
            return False
        if keyword not in source or (not boxes and source[keyword].value == result[keyword].value):
            continue
        try:
            one, other = frames_of(source), frames_of(result)
        except DecodeError:  # damaged in the source
            if boxes or not _same_streams(source, result):
                return False
            continue
        if one is None or other is None or one.shape != other.shape:
            return False
        outside = np.ones(one.shape[2:], bool)
        for box in boxes:
            outside[box.top : box.bottom, box.left : box.right] = False
        if not np.array_equal(one[..., outside], other[..., outside]):
            return False
    return True


def _same_streams(source: Dataset, result: Dataset) -> bool:
    """Whether compressed pixels that can't be decoded are the same but for comments."""
    try:
        count = int(source.get("NumberOfFrames") or 1)
        one, other = (list(generate_frames(each.PixelData, number_of_frames=count)) for each in (source, result))
    except Exception:  # noqa: BLE001 — fragments that can't be parted
        return False
    return [without_comments(each).rstrip(b"\0") for each in one] == [each.rstrip(b"\0") for each in other]


def _tied(name: str, source: Dataset, result: Dataset, ties: Ties) -> Iterable[str]:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        old, new = str(source.get(keyword, "") or ""), str(result.get(keyword, "") or "")
        if old and keyword in result and not ties.tie(old, new):
            yield f"{keyword} became another than elsewhere"
    meta = getattr(result, "file_meta", Dataset())
    if str(meta.get("MediaStorageSOPInstanceUID", "")) != str(result.get("SOPInstanceUID", "")):
        yield "the file's header names another SOP Instance UID than the object"
    olds, news = _references(source), _references(result)
    if news:
        ties.references.append((name, olds, news))


def _references(dataset: Dataset) -> frozenset[str]:
    elements = (place.element for place in walk(dataset) if place.element.keyword in _REFERENCES)
    return frozenset(text for element in elements for text in texts_of(element))


def has_form_checker() -> bool:
    """Whether dciodvfy (of dicom3tools) is there."""
    return shutil.which("dciodvfy") is not None


def form_errors(path: Path) -> set[str]:
    """The errors that dciodvfy finds in a file, without values."""
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, timeout=120, check=False)
    text = (run.stderr + run.stdout).decode("latin-1")
    return {_VALUES.sub("", each).strip() for each in _ERROR.findall(text)}


def _named(element: object) -> str:
    from pydicom.dataelem import DataElement

    assert isinstance(element, DataElement)
    return f"{element.tag} {element.keyword}".strip()
