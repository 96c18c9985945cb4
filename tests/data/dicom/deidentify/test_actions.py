"""The profile on data sets that hold everything: what goes, what is replaced, and what stays as it was."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pellucid.data.dicom.deidentify.actions import Cleaner, identity_of
from pellucid.data.dicom.deidentify.identifiers import texts_of, walk
from pellucid.data.dicom.deidentify.profile import Choices
from pellucid.data.dicom.deidentify.pseudonyms import Pseudonyms, moved_date
from references.deidentified import CT, SECRET, VALUES, everything, expected_action, table, tags_of, types_of, vr_of

NAMES = Pseudonyms(bytes(range(32)))
CHOICES = [
    Choices(),
    Choices("shift", frozenset({"patient-characteristics", "device", "institution"})),
    Choices("keep", frozenset({"uids"}), frozenset({"descriptors", "structured-content", "graphics"})),
]


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cleaned(dataset: Dataset, choices: Choices = CHOICES[0], **options: object) -> Dataset:
    result = copy.deepcopy(dataset)
    Cleaner(NAMES, choices, identity_of(dataset), **options).clean(result)  # type: ignore[arg-type]
    return result


def raw(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


@pytest.mark.parametrize("sop_class", [CT, "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.4.1"])
@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: choices.text())
def test_every_attribute_obeys_the_table(sop_class: str, choices: Choices) -> None:
    source = everything(sop_class)
    result = cleaned(source, choices)
    types = types_of(sop_class)
    seen = set()
    for row in table():
        for tag in tags_of(row):
            if tag >> 16 < 8:
                continue
            letter = expected_action(row, types.get(row["keyword"], 0) or _type(row), choices.columns, choices.dates)
            seen.add(letter)
            _obeys(letter, row["keyword"], source[Tag(tag)], result.get(Tag(tag)))
    assert seen >= {"X", "Z", "D"}
    assert [result.Modality, result.Rows, list(result.ImageType)] == ["CT", 512, ["ORIGINAL", "PRIMARY"]]


def _type(row: dict[str, str]) -> int:
    from pellucid.data.dicom.deidentify.profile import type_of

    return type_of(row["keyword"], "", "")


def _obeys(letter: str, keyword: str, old: DataElement, new: DataElement | None) -> None:
    said = (letter, keyword, new)
    if letter == "X":
        assert new is None, said
    elif letter == "Z":
        assert new is not None, said
        assert new.is_empty or keyword in ("PatientName", "PatientID"), said
    elif letter == "K":
        assert new is not None, said
        assert old.VR == "SQ" or new.value == old.value, said
    elif letter == "U":
        assert new is not None or old.VR not in ("UI", "SQ"), said
        if old.VR == "UI" and new is not None:
            assert new.value == NAMES.uid(old.value), said
    elif letter == "shift" and old.VR == "DA":
        assert new is not None, said
        assert new.value == moved_date(old.value, NAMES.days("id\0" + f"{SECRET} text\0{SECRET} text")), said
    elif letter == "D":
        assert new is not None, said
        assert not new.is_empty, said
    if letter not in ("K", "shift") and new is not None and new.VR != "SQ":
        assert not set(texts_of(new)) & set(texts_of(old)), said
    if letter in ("X", "Z", "D", "U", "C") and new is not None:
        assert SECRET not in str(new.value), said


def test_nothing_of_the_secret_is_left_anywhere() -> None:
    source = everything()
    inner = everything()
    holder = Dataset()
    holder.ReferencedFrameNumber = 1
    holder.DerivationCodeSequence = [inner]  # which the table says nothing of
    source.SharedFunctionalGroupsSequence = [holder]
    source.add_new(0x00110010, "LO", "ZEBRA PRIVATE")
    source.add_new(0x00111001, "LO", SECRET)
    source.add_new(0x00111002, "SQ", [copy.deepcopy(inner)])
    source.add_new(0x00189999, "LO", SECRET)  # public, and in no dictionary
    source.EvaluatorName = f"{SECRET}^Anna"  # a person of whom the table says nothing
    result = cleaned(source)
    data = raw(result)
    for text in (SECRET, "ZEBRA", "Zygmunt", "20240229", "123456", "4711", "061Y"):
        assert text.encode() not in data, text
        assert text.lower().encode() not in data.lower(), text
    assert "DerivationCodeSequence" in result.SharedFunctionalGroupsSequence[0]
    assert not [place for place in walk(result) if place.element.tag.is_private]
    assert result["EvaluatorName"].is_empty


def test_twice_is_as_once() -> None:
    once = cleaned(everything())
    again = copy.deepcopy(once)
    Cleaner(NAMES, Choices(), "someone").clean(again)
    for place in walk(again):
        if place.element.VR not in ("UI", "PN", "SQ") and place.element.keyword != "PatientID":
            assert texts_of(place.element) == texts_of(_at(once, place.element, place.parent))


def _at(dataset: Dataset, element: DataElement, parent: str) -> DataElement:
    return next(each.element for each in walk(dataset) if (each.element.tag, each.parent) == (element.tag, parent))


def test_persons_are_the_same_person_everywhere_and_others_are_not() -> None:
    source = Dataset()
    source.SOPClassUID, source.PatientName, source.PatientID = CT, "Doe^Jane", "P7"
    first, second = cleaned(source), cleaned(source)
    source.PatientID = "P8"
    assert first.PatientName == first.PatientID == second.PatientID == NAMES.patient("id\0P7\0")
    assert cleaned(source).PatientID != first.PatientID


def test_overlays_and_curves_go_whole() -> None:
    source = Dataset()
    source.SOPClassUID = CT
    for group in (0x6000, 0x601E):
        source.add_new((group, 0x0010), "US", 8)
        source.add_new((group, 0x0022), "LO", SECRET)
        source.add_new((group, 0x3000), "OW", bytes(8))
    source.add_new(0x50000005, "US", 2)
    source.add_new(0x50003000, "OW", bytes(8))
    assert list(cleaned(source).keys()) == [Tag("SOPClassUID")]
    kept = cleaned(source, Choices(clean=frozenset({"graphics"})), shows_text=lambda dataset, group: group == 0x601E)
    assert {tag.group for tag in kept.keys()} == {0x0008, 0x6000}  # noqa: SIM118


def test_graphics_lose_their_text() -> None:
    source = Dataset()
    source.SOPClassUID = "1.2.840.10008.5.1.4.1.1.11.1"
    line, words = Dataset(), Dataset()
    line.GraphicObjectSequence = [Dataset()]
    line.GraphicObjectSequence[0].GraphicData = [1.0, 2.0]
    line.TextObjectSequence = [Dataset()]
    line.TextObjectSequence[0].UnformattedTextValue = SECRET
    words.TextObjectSequence = copy.deepcopy(line.TextObjectSequence)
    source.GraphicAnnotationSequence = [line, words]
    kept = cleaned(source, Choices(clean=frozenset({"graphics"}))).GraphicAnnotationSequence
    assert len(kept) == 1
    assert "TextObjectSequence" not in kept[0]
    assert list(kept[0].GraphicObjectSequence[0].GraphicData) == [1.0, 2.0]
    plain = cleaned(source).GraphicAnnotationSequence
    assert SECRET not in str(plain)
    assert list(plain[0].GraphicObjectSequence[0].GraphicData) == [0.0, 0.0]


def report() -> Dataset:
    """A report with a finding in codes, a size, a text, a person and a date."""

    def code(value: str, scheme: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return item

    def content(kind: str, **values: object) -> Dataset:
        item = Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", kind
        item.ConceptNameCodeSequence = [code("121071", "DCM", "Finding")]
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return item

    measured = Dataset()
    measured.NumericValue = "12.5"
    measured.MeasurementUnitsCodeSequence = [code("mm", "UCUM", "mm")]
    source = Dataset()
    source.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    source.PatientName = f"{SECRET}^Zygmunt"
    source.ContentSequence = [
        content("CODE", ConceptCodeSequence=[code("4147007", "SCT", "Mass")]),
        content("CODE", ConceptCodeSequence=[code("Z1", "99ZEBRA", f"Seen by {SECRET}")]),
        content("NUM", MeasuredValueSequence=[measured]),
        content("TEXT", TextValue=f"Mass of {SECRET} in the left lung, 12 mm, seen 2024-02-29"),
        content("PNAME", PersonName=f"{SECRET}^Anna"),
        content("DATE", Date="20240229"),
        content("CONTAINER", ContentSequence=[content("TEXT", TextValue=SECRET)]),
    ]
    return source


def test_reports_keep_their_form_and_with_the_option_their_codes() -> None:
    source = report()
    plain = cleaned(source).ContentSequence
    assert [item.ValueType for item in plain] == [item.ValueType for item in source.ContentSequence]
    assert [item.ConceptNameCodeSequence[0].CodeValue for item in plain] == ["121071"] * 7
    assert plain[0].ConceptCodeSequence[0].CodeMeaning == "REMOVED"
    assert plain[2].MeasuredValueSequence[0].NumericValue == 0
    assert SECRET not in str(plain)

    kept = cleaned(source, Choices("shift", clean=frozenset({"structured-content"})), identifiers={SECRET.lower()})
    items = kept.ContentSequence
    assert items[0].ConceptCodeSequence[0].CodeMeaning == "Mass"
    assert items[1].ConceptCodeSequence[0].CodingSchemeDesignator == "99REMOVED"
    assert items[2].MeasuredValueSequence[0].NumericValue == 12.5
    assert items[3].TextValue == "in left lung 12 mm"
    assert items[4].PersonName == "REMOVED"
    assert items[5].Date == moved_date("20240229", NAMES.days(identity_of(source)))
    assert SECRET not in str(kept)


def test_descriptions_keep_what_is_known_to_tell_no_one() -> None:
    source = Dataset()
    source.SOPClassUID, source.PatientName = CT, "Brain^Anna"
    source.StudyDescription = "CT THORAX w/ contrast, Dr. Zebrowski, Anna Brain 29.02.2024"
    source.SeriesDescription = "Zebrowski"
    kept = cleaned(source, Choices(clean=frozenset({"descriptors"})), identifiers={"anna", "brain"})
    assert kept.StudyDescription == "CT THORAX contrast"
    assert "SeriesDescription" not in kept
    assert "StudyDescription" not in cleaned(source)


def test_private_attributes_stay_only_where_they_are_listed() -> None:
    source = Dataset()
    source.SOPClassUID = CT
    block = source.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x08, "CS", SECRET)
    other = source.private_block(0x0019, "ZEBRA", create=True)
    other.add_new(0x0C, "IS", "1000")
    assert not [tag for tag in cleaned(source).keys() if tag.is_private]  # noqa: SIM118
    kept = cleaned(source, Choices(keep=frozenset({"safe-private"})))
    assert [int(tag) for tag in kept.keys() if tag.is_private] == [0x00190010, 0x0019100C]  # noqa: SIM118


@pytest.mark.parametrize("text", ["", "2024", "soon", "20241399", "2024022", "2024.02.29"])
def test_dates_that_are_none_do_not_stay(text: str) -> None:
    source = Dataset()
    source.SOPClassUID, source.PatientID = CT, "P7"
    source.StudyDate = text
    result = cleaned(source, Choices("shift"))
    assert result.StudyDate in ("", moved_date(text, NAMES.days("id\0P7\0")))


def test_values_that_can_not_be_read_are_replaced_unread() -> None:
    data = raw(everything())
    assert VALUES["DS"].encode() in data
    from pydicom import dcmread

    broken = dcmread(io.BytesIO(data.replace(b"DS\x04\x0012.5", b"DS\x04\x00ZEBR")), force=True)
    assert b"ZEBR" not in raw(cleaned(broken)).replace(b"ZEBRA", b"")
    assert vr_of(0x00101030) == "DS"
