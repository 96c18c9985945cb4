"""Values that say nothing, by value representation (PS3.5, 6.2), and sequences of them."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

REMOVED = "REMOVED"
DATE, TIME = "19000101", "000000"

_TEXT = ("LO", "SH", "ST", "LT", "UC", "UT", "PN", "CS")
_VALUES: dict[str, object] = {
    **dict.fromkeys(_TEXT, REMOVED),
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV", "AT"), 0),
    **dict.fromkeys(("FL", "FD"), 0.0),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("OB", "UN"), b"\0\0"),
    "OW": b"\0\0",
    "OF": bytes(4),
    "OL": bytes(4),
    "OD": bytes(8),
    "OV": bytes(8),
    "AE": REMOVED,
    "AS": "000D",
    "DA": DATE,
    "TM": TIME,
    "DT": DATE + TIME,
    "UR": "urn:removed",
}
_NUMBERS = ("US", "SS", "UL", "SL", "UV", "SV", "AT", "FL", "FD", "DS", "IS")

# what an item of a structured report says of its own form (PS3.3, C.17.3), and no value of it
_STRUCTURE = (
    *("ValueType", "RelationshipType", "ContinuityOfContent", "ConceptNameCodeSequence", "ReferencedContentItem"),
    *("ReferencedContentItemIdentifier", "MappingResource", "TemplateIdentifier", "ContentTemplateSequence"),
    *("ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "ReferencedSOPSequence", "ReferencedFrameNumber"),
    *("GraphicType", "PixelOriginInterpretation", "TemporalRangeType", "MeasurementUnitsCodeSequence"),
    *("GraphicAnnotationUnits", "GraphicDimensions", "NumberOfGraphicPoints", "GraphicLayer", "GraphicFilled"),
    *("BoundingBoxAnnotationUnits", "AnchorPointAnnotationUnits", "AnchorPointVisibility", "ReferencedImageSequence"),
    *("BoundingBoxTextHorizontalJustification",),
)
_CODED = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning", "LongCodeValue", "URNCodeValue")
_DUMMY_CODE = {"CodeValue": REMOVED, "CodingSchemeDesignator": "99REMOVED", "CodeMeaning": REMOVED}


def dummy_value(vr: str, old: object, uid: Callable[[str], str]) -> object:
    """A value of a VR that tells nothing of the old one but, for numbers, how many there are."""
    if vr == "UI":
        return [uid(str(each)) for each in old] if isinstance(old, (list, MultiValue)) else uid(str(old or REMOVED))
    value = _VALUES.get(vr, REMOVED)
    if vr in _NUMBERS and isinstance(old, (list, MultiValue)) and len(old) > 1:
        return [value] * len(old)
    return value


def dummy_sequence(element: DataElement, uid: Callable[[str], str]) -> None:
    """Replace all values in a sequence by dummies; the form of structured reports and graphics stays."""
    for item in element.value:
        dummy_item(item, uid)


def dummy_item(item: Dataset, uid: Callable[[str], str]) -> None:
    """Replace all values in an item by dummies."""
    if "CodeMeaning" in item or "CodeValue" in item:
        for keyword in [each for each in item.dir() if each not in _CODED]:
            delattr(item, keyword)
        for keyword in _CODED:
            if keyword in item:
                delattr(item, keyword)
        for keyword, value in _DUMMY_CODE.items():
            setattr(item, keyword, value)
        _drop_unknown(item)
        return
    _drop_unknown(item)
    for element in list(item):
        if element.VR == "SQ":
            if element.keyword in (
                "ConceptNameCodeSequence",
                "MeasurementUnitsCodeSequence",
                "ContentTemplateSequence",
            ):
                for code in element.value:
                    _standard_code(code, uid)
            else:
                dummy_sequence(element, uid)
        elif element.VR == "UI":
            old = element.value
            element.value = [uid(str(e)) for e in old] if isinstance(old, MultiValue) else uid(str(old or ""))
        elif element.keyword not in _STRUCTURE and not element.is_empty:
            element.value = dummy_value(element.VR, element.value, uid)


def _standard_code(code: Dataset, uid: Callable[[str], str]) -> None:
    """Keep a code of a published scheme, which names a kind of thing and never a person."""
    if str(code.get("CodingSchemeDesignator", "")) not in PUBLISHED_SCHEMES:
        dummy_item(code, uid)
        return
    _drop_unknown(code)
    for element in list(code):
        if element.keyword not in (*_CODED, "CodingSchemeVersion", "MappingResource", "TemplateIdentifier"):
            del code[element.tag]


def _drop_unknown(item: Dataset) -> None:
    for tag in list(item.keys()):
        if tag.is_private or tag.element == 0:
            del item[tag]


PUBLISHED_SCHEMES = (
    "DCM",
    "SCT",
    "SRT",
    "SNM3",
    "99SDM",
    "UCUM",
    "LN",
    "RADLEX",
    "FMA",
    "UMLS",
    "NCIt",
    "MDC",
    "I10",
    "ICD10",
)
"""Coding schemes (PS3.16, 8) that are published, so that a code of theirs names a kind and no person or place."""
