"""What in a data set could tell whose it is: values to keep out of words, and to look for in the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from pellucid.data.dicom.deidentify.profile import REGISTERED, TIMES, Choices, action_of, is_descriptor, rule_for
from pellucid.data.dicom.deidentify.words import cleaned, known_words

LEAST = 3  # letters of a value that is looked for
TEXTS = ("LO", "SH", "ST", "LT", "UC", "UT", "AE", "UR", "PN")

_WORDS = re.compile(r"[^\W_]{3,}")
_MEANINGLESS = (
    "anonymous",
    "anonymized",
    "anonymised",
    "none",
    "unknown",
    "removed",
    "null",
    "yes",
    "not",
    "mr",
    "mrs",
)


_UID = re.compile(r"\d+(\.\d+){3,}")
_PATIENT = re.compile(r"Patient|Accession|Admission")
_IDENTITY = re.compile(_PATIENT.pattern + "|Physician|Institution|Operator|Address|Telephone|Person|IssuerOf")
MAKER = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions")


@dataclass
class Identifiers:
    """What is looked for, in small letters, each with the keyword of an attribute that held it.

    `whole` are values of any length from LEAST on, `words` parts of persons' names, `dates` as YYYYMMDD, `uids` UIDs,
    `by_tag` what attributes held that the profile changes, `numbers` those of attributes that stay.
    """

    whole: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)
    by_tag: dict[int, set[str]] = field(default_factory=dict)
    numbers: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Found:
    """An element, with the keyword of the sequence around it and that of the outermost one."""

    element: DataElement
    parent: str


def walk(dataset: Dataset, parent: str = "") -> Iterator[Found]:
    """All elements at any depth; those that can't be read are passed over."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            value = element.value
        except Exception:  # noqa: BLE001 — what can't be read can't be compared
            continue
        yield Found(element, parent)
        if element.VR == "SQ":
            for item in value or ():
                yield from walk(item, element.keyword or "unknown")


def texts_of(element: DataElement) -> list[str]:
    """The values of an element as text, without blanks around them."""
    value = element.value
    if value is None or element.VR == "SQ":
        return []
    several = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return [
        each.decode("latin-1").strip(" \0") if isinstance(each, bytes) else str(each).strip(" \0") for each in several
    ]


def identifiers_of(dataset: Dataset, choices: Choices) -> Identifiers:
    """What the profile takes out of a data set; read it before that is done."""
    found = Identifiers()
    kept: set[str] = set()
    kept_on_purpose: list[str] = []
    sop_class, referring = str(dataset.get("SOPClassUID", "") or ""), "ReferencedSeriesSequence" in dataset
    for place in walk(dataset):
        element, tag = place.element, place.element.tag
        action = action_of(tag, element.VR, place.parent, sop_class, choices, referring=referring)
        texts = [text for text in texts_of(element) if text]
        if action == "keep" and element.VR in ("IS", "DS"):
            found.numbers |= set(texts)
        if action == "keep":
            kept |= {text.lower() for text in texts}
            if rule_for(tag) is not None:
                kept_on_purpose += texts
        elif element.VR != "SQ":
            found.by_tag.setdefault(int(tag), set()).update(texts)
        if action != "keep" or element.VR == "PN":
            for text in texts:
                _note(found, element, text, choices)
    # "SIEMENS" as the name of a site, or a physician named after the hospital that is kept
    known = " ".join((*(str(dataset.get(keyword, "") or "") for keyword in MAKER), *kept_on_purpose)).lower()
    for text, keyword in list(found.whole.items()):
        if not _of_patient(keyword) and (text in kept or text in known):
            del found.whole[text]
    found.words = {word: key for word, key in found.words.items() if _of_patient(key) or word not in known}
    found.uids = {uid: keyword for uid, keyword in found.uids.items() if uid not in kept}
    return found


def words_of(dataset: Dataset) -> frozenset[str]:
    """Words in small letters of names, places and numbers, which stay in no descriptor."""
    found: set[str] = set()
    for place in walk(dataset):
        element = place.element
        if element.VR == "PN" or (element.VR in TEXTS and _is_identity(element.tag)):
            for text in texts_of(element):
                found.update(word.lower() for word in re.findall(r"[^\W_]+", text))
    return frozenset(found)


def _is_identity(tag: BaseTag) -> bool:
    return bool(_IDENTITY.search(keyword_for_tag(tag))) and not is_descriptor(tag)


def _of_patient(keyword: str) -> bool:
    return bool(_PATIENT.search(keyword))


def _note(found: Identifiers, element: DataElement, text: str, choices: Choices) -> None:
    keyword = element.keyword or "a private attribute"
    small = text.lower()
    if element.tag.is_private_creator or ("uids" in choices.keep and _UID.fullmatch(text)):
        return
    if element.VR == "PN":
        for form in {each.strip(" ^") for each in (small, *small.split("="))}:  # letters, ideograms, sounds
            if len(form) >= LEAST or not form.isascii():
                found.whole.setdefault(form, keyword)
        for word in _WORDS.findall(small):
            if word not in known_words() and word not in _MEANINGLESS and not word.isdecimal():
                found.words.setdefault(word, keyword)
    elif element.VR == "UI":
        if not text.startswith(REGISTERED) and len(text) >= 8:
            found.uids.setdefault(text, keyword)
    elif element.VR in TIMES:
        if element.VR != "TM" and choices.dates != "keep" and len(text) >= 8:
            digits = text[:8] if text[:8].isdecimal() else text[:10].replace(".", "")
            if len(digits) == 8 and digits.isdecimal():
                found.dates.setdefault(digits, keyword)
    elif element.VR in TEXTS and len(small) >= LEAST and small not in _MEANINGLESS:
        plain = cleaned(small).lower().split() == re.findall(r"[^\W_]+(?:[.'][^\W_]+)*[+%]?", small)
        telling = not plain and (not (is_descriptor(element.tag) or element.tag.is_private) or len(small) >= 8)
        if telling or _of_patient(keyword):
            found.whole.setdefault(small, keyword)
