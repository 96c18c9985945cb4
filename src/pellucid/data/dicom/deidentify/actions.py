"""The profile carried out on a data set: each attribute, at any depth, by its action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from pellucid.data.dicom.deidentify.dummies import (
    PUBLISHED_SCHEMES,
    REMOVED,
    dummy_item,
    dummy_sequence,
    dummy_value,
)
from pellucid.data.dicom.deidentify.private import SAFE_PRIVATE
from pellucid.data.dicom.deidentify.profile import Action, Choices, action_of
from pellucid.data.dicom.deidentify.pseudonyms import Pseudonyms, moved_date, moved_datetime
from pellucid.data.dicom.deidentify.words import cleaned

_NAMES = ("PatientName", "PatientID")
_TEXT = ("LO", "SH", "ST", "LT", "UC", "UT")
_CODE_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_CODED = (*_CODE_VALUES, "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
_OVERLAY, _OVERLAY_DATA = 0x6000, 0x3000


@dataclass
class Cleaner:
    """What one file is de-identified with.

    Arguments:
        pseudonyms: by the user's key.
        choices: the profile's options.
        patient: what tells the patient from others, as `identity_of` gives it.
        identifiers: words in small letters that stay in no descriptor.
        shows_text: whether the bits of an overlay (H, W) show text; asked with "graphics" to clean.
    """

    pseudonyms: Pseudonyms
    choices: Choices
    patient: str
    identifiers: Collection[str] = ()
    shows_text: Callable[[Dataset, int], bool] = lambda dataset, group: True
    counts: Counter[str] = field(default_factory=Counter)
    _sop_class: str = ""
    _referring: bool = False
    _cleaning: int = 0  # how many sequences are cleaned around the present place

    def clean(self, dataset: Dataset) -> None:
        """Carry out the profile on a data set, in place; `counts` has how often each action was taken."""
        self._sop_class = str(dataset.get("SOPClassUID", "") or "")
        self._referring = "ReferencedSeriesSequence" in dataset
        self._walk(dataset, "")

    def _walk(self, dataset: Dataset, parent: str) -> None:
        if self._cleaning and self._is_foreign_code(dataset):
            dummy_item(dataset, self.pseudonyms.uid)
            return
        for tag in list(dataset.keys()):
            if tag not in dataset:  # part of an overlay that has gone
                continue
            vr = _vr_of(dataset, tag)
            action = "remove" if vr is None else self._action(tag, vr, parent)
            if vr is None or action == "remove":
                self.counts["remove"] += 1
                _remove(dataset, tag)
            elif action == "keep":
                self._keep(dataset, tag, vr)
            else:
                self.counts[action] += 1
                self._apply(dataset, tag, vr, action, parent)

    def _action(self, tag: BaseTag, vr: str, parent: str) -> Action:
        return action_of(tag, vr, parent, self._sop_class, self.choices, referring=self._referring)

    def _keep(self, dataset: Dataset, tag: BaseTag, vr: str) -> None:
        if vr == "SQ":
            self._descend(dataset[tag])
        elif self._cleaning and vr in _TEXT and keyword_for_tag(tag) not in _CODED:
            element = dataset[tag]
            if not element.is_empty:
                element.value = cleaned(str(element.value), self.identifiers) or REMOVED
        elif self._cleaning and keyword_for_tag(tag) == "CodeMeaning" and self._tells(str(dataset[tag].value)):
            dataset[tag].value = cleaned(str(dataset[tag].value), self.identifiers) or REMOVED

    def _descend(self, element: DataElement) -> None:
        for item in element.value or ():
            self._walk(item, element.keyword or "unknown")

    def _apply(self, dataset: Dataset, tag: BaseTag, vr: str, action: Action, parent: str) -> None:
        try:
            element = dataset[tag]
            value = element.value
        except Exception:  # noqa: BLE001 — a value that can't be read is replaced unread
            element, value = DataElement(tag, vr, None), None
            dataset[tag] = element
        if element.keyword in _NAMES and action in ("empty", "dummy"):
            element.value = self.pseudonyms.patient(self.patient)
        elif action == "empty":
            dataset[tag] = DataElement(tag, element.VR, [] if element.VR == "SQ" else None)
        elif action == "uid":
            self._replace_uids(dataset, element, value)
        elif action == "shift":
            self._shift(dataset, element, value, parent)
        elif action == "clean":
            self._clean(dataset, element, value, parent)
        elif element.VR == "SQ":
            self._descend(element)
            dummy_sequence(element, lambda uid: uid)  # UIDs are new by now
        else:
            element.value = dummy_value(element.VR, value, self.pseudonyms.uid)

    def _replace_uids(self, dataset: Dataset, element: DataElement, value: object) -> None:
        if element.VR == "SQ":
            self._descend(element)
        elif element.VR == "UI":
            new = [self.pseudonyms.uid(str(each)) for each in _listed(value)]
            element.value = new if len(new) > 1 else (new or [""])[0]
        else:  # where the standard knows a UID and the file has something else
            del dataset[element.tag]

    def _shift(self, dataset: Dataset, element: DataElement, value: object, parent: str) -> None:
        if element.VR == "TM":  # whole days are moved
            return
        if element.VR in ("DA", "DT"):
            days = self.pseudonyms.days(self.patient)
            move = moved_date if element.VR == "DA" else moved_datetime
            moved = [move(str(each), days) for each in _listed(value) if str(each).strip(" \0")]
            if all(each is not None for each in moved):
                element.value = moved if len(moved) > 1 else (moved or [""])[0]
                return
        self._basic(dataset, element, parent)

    def _basic(self, dataset: Dataset, element: DataElement, parent: str) -> None:
        """What the profile does without options, where an option can't be carried out."""
        action = action_of(element.tag, element.VR, parent, self._sop_class, Choices())
        if action == "remove":
            _remove(dataset, element.tag)
        elif action != "keep":
            self._apply(dataset, element.tag, element.VR, action, parent)

    def _clean(self, dataset: Dataset, element: DataElement, value: object, parent: str) -> None:
        tag = element.tag
        if tag.is_private:
            if not _is_safe(dataset, tag):
                del dataset[tag]
        elif element.keyword == "GraphicAnnotationSequence":
            self._clean_graphics(dataset, element)
        elif tag.group & 0xFF00 == _OVERLAY:
            if tag.element != _OVERLAY_DATA or self.shows_text(dataset, tag.group):
                _remove(dataset, tag)
        elif element.VR == "SQ":
            self._cleaning += 1
            self._descend(element)
            self._cleaning -= 1
        elif element.VR == "AE":
            element.value = "AE-" + self.pseudonyms.short("ae", str(value)).upper()
        elif element.VR in _TEXT:
            words = [cleaned(str(each), self.identifiers) for each in _listed(value)]
            if any(words):
                element.value = words if len(words) > 1 else words[0]
            else:
                self._basic(dataset, element, parent)
        else:
            self._basic(dataset, element, parent)

    def _clean_graphics(self, dataset: Dataset, element: DataElement) -> None:
        """Keep lines and points, and no text."""
        kept = []
        for item in element.value:
            if "TextObjectSequence" in item:
                del item.TextObjectSequence
            if item.get("GraphicObjectSequence"):
                self._walk(item, element.keyword)
                kept.append(item)
        element.value = kept
        if not kept:
            del dataset[element.tag]

    def _is_foreign_code(self, item: Dataset) -> bool:
        coded = any(keyword in item for keyword in _CODE_VALUES)
        return coded and str(item.get("CodingSchemeDesignator", "")) not in PUBLISHED_SCHEMES

    def _tells(self, text: str) -> bool:
        return any(word in self.identifiers for word in text.lower().split())


def identity_of(dataset: Dataset) -> str:
    """What tells a patient from others: issuer and number, or name and birth date, or at least the study."""
    number = str(dataset.get("PatientID", "") or "").strip()
    if number:
        return f"id\0{number}\0{str(dataset.get('IssuerOfPatientID', '') or '').strip()}"
    name = str(dataset.get("PatientName", "") or "").strip(" ^")
    if name:
        return f"name\0{name}\0{dataset.get('PatientBirthDate', '') or ''}"
    return f"study\0{dataset.get('StudyInstanceUID', '') or dataset.get('SOPInstanceUID', '')}"


def _remove(dataset: Dataset, tag: BaseTag) -> None:
    """Remove an attribute; with the bits of an overlay all that describes it, which would be wrong alone."""
    if tag.group & 0xFF00 == _OVERLAY and tag.element == _OVERLAY_DATA:
        for other in [each for each in dataset.keys() if each.group == tag.group]:  # noqa: SIM118
            del dataset[other]
    else:
        del dataset[tag]


def _vr_of(dataset: Dataset, tag: BaseTag) -> str | None:
    """The VR of an element, which is read for it only where that must be; None where it can't be."""
    try:
        element: object = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            if element.VR not in (None, "UN"):
                return str(element.VR)
            known = "" if tag.is_private or not keyword_for_tag(tag) else dictionary_VR(tag)
            if element.VR is None and known and known != "SQ" and " or " not in known:
                return known
        return str(dataset[tag].VR)
    except Exception:  # noqa: BLE001 — damaged beyond reading, so that it goes
        return None


def _listed(value: object) -> list[object]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]


def _is_safe(dataset: Dataset, tag: BaseTag) -> bool:
    """Whether a private attribute is a listed one, or names the block of one."""
    if 0x10 <= tag.element <= 0xFF:
        others = [each for each in dataset.keys() if each.group == tag.group and each.element >> 8 == tag.element]  # noqa: SIM118
        return any(_is_safe(dataset, other) for other in others)
    creator = dataset.get(BaseTag((tag.group << 16) | (tag.element >> 8)))
    if creator is None or tag.element < 0x1000:
        return False
    listed = (str(creator.value).strip(), tag.group, tag.element & 0xFF) in SAFE_PRIVATE
    return listed and _vr_of(dataset, tag) not in ("SQ", "UN", None)
