"""What is done to each attribute, beside the table read slowly and the standard's types."""

from __future__ import annotations

import pytest
from pydicom._dicom_dict import DicomDictionary

from pellucid.data.dicom.deidentify.profile import KEEP, Choices, action_of, resolved, rule_for, rules, type_of
from pellucid.errors import InputError
from references.deidentified import CT, expected_action, standard, table, tags_of, types_of, vr_of

WORDS = {"X": "remove", "Z": "empty", "D": "dummy", "U": "uid", "K": "keep", "C": "clean", "shift": "shift"}
CLASSES = (
    CT,
    "1.2.840.10008.5.1.4.1.1.1",  # computed radiography
    "1.2.840.10008.5.1.4.1.1.1.2",  # mammography
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.4.1",  # enhanced MR
    "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
    "1.2.840.10008.5.1.4.1.1.88.33",  # comprehensive report
    "1.2.840.10008.5.1.4.1.1.104.1",  # PDF
    "1.2.840.10008.5.1.4.1.1.481.5",  # radiotherapy plan
    "1.2.840.10008.5.1.4.1.1.128",  # PET
)


def test_the_table_is_whole() -> None:
    assert len(rules()) == 655
    assert {rule.basic for rule in rules().values()} == {
        *("X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"),
    }
    assert {letter for rule in rules().values() for letter in rule.options.values()} == {"K", "C"}
    columns = {column for rule in rules().values() for column in rule.options}
    assert columns == set(next(iter(table()))) - {"tag", "keyword", "basic"}
    assert [rule_for(tag).basic for tag in (0x00100010, 0x00100020, 0x50103000, 0x60023000)] == ["Z", "Z/D", "X", "X"]
    assert rule_for(0x60020010) is None
    assert rule_for(0x00280010) is None


@pytest.mark.parametrize("sop_class", CLASSES)
@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        Choices("shift"),
        Choices("keep", frozenset({"uids"})),
        Choices("shift", frozenset({"device", "institution", "patient-characteristics"})),
        Choices("remove", frozenset({"device"}), frozenset({"descriptors", "structured-content", "graphics"})),
    ],
    ids=lambda choices: choices.text(),
)
def test_every_row_is_resolved_as_the_standard_says(sop_class: str, choices: Choices) -> None:
    types = types_of(sop_class)
    anywhere = strictest()
    for row in table():
        kind = types.get(row["keyword"], anywhere.get(row["keyword"], 1))
        wanted = WORDS[expected_action(row, kind, choices.columns, choices.dates)]
        for tag in tags_of(row):
            if tag >> 16 >= 8:
                assert action_of(tag, vr_of(tag), "", sop_class, choices) == wanted, (row, kind)


def strictest() -> dict[str, int]:
    """What an attribute is in the object that asks most of it; for objects that don't have it."""
    modules, _, classes = standard()
    found: dict[str, int] = {}
    usual: dict[str, dict[str, int]] = {}
    for uid in classes:
        for keyword, kind in types_of(uid).items():
            usual.setdefault(keyword, {})[uid] = kind
    for keyword, kinds in usual.items():
        counts = [list(kinds.values()).count(kind) for kind in (1, 2, 3)]
        first = list(kinds.values())
        found[keyword] = max(dict.fromkeys(first), key=lambda kind: counts[kind - 1])
    for attributes in modules.values():
        for attribute in attributes:
            if attribute["path"] and attribute["keyword"] not in usual:
                kind = {"1": 1, "1C": 1, "2": 2, "2C": 2}.get(attribute["type"], 3)
                found[attribute["keyword"]] = min(kind, found.get(attribute["keyword"], 3))
    return found


def test_types_within_sequences_are_the_strictest_of_the_standard() -> None:
    modules, objects, classes = standard()
    used = {module["key"] for name in classes.values() for module in objects[name]}
    wanted = {row["keyword"] for row in table() if "/" in row["basic"] or row["basic"] == "Z"}
    nested: dict[tuple[str, str], int] = {}
    for key in used:
        for attribute in modules.get(key, []):
            if attribute["path"] and attribute["keyword"] in wanted:
                place = attribute["keyword"], attribute["path"][-1]
                kind = {"1": 1, "1C": 1, "2": 2, "2C": 2}.get(attribute["type"], 3)
                nested[place] = min(kind, nested.get(place, 3))
    assert len(nested) > 200
    for (keyword, parent), kind in nested.items():
        assert type_of(keyword, parent, CT) == kind


def test_dates_and_persons_of_which_the_table_says_nothing_go_as_well() -> None:
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if tag >> 16 < 8 or rule_for(tag) is not None:
            continue
        action = action_of(tag, vr, "", CT, Choices())
        if vr in ("DA", "DT", "TM", "PN"):
            assert action == "empty", keyword
            assert action_of(tag, vr, "", CT, Choices("shift")) == ("empty" if vr == "PN" else "shift")
        if vr == "UI" and "SOPClass" not in keyword and "TransferSyntax" not in keyword:
            assert action == ("keep" if keyword in ("CodingSchemeUID", "MappingResourceUID", "ContextUID") else "uid")


def test_what_nobody_knows_goes() -> None:
    for tag, vr in ((0x00091001, "LO"), (0x00090010, "LO"), (0x00080000, "UL"), (0x0008FFFE, "LO"), (0x00280010, "UN")):
        assert action_of(tag, vr, "", CT, Choices()) == "remove"
    assert action_of(0x00091001, "LO", "", CT, Choices(keep=frozenset({"safe-private"}))) == "clean"
    assert action_of(0x00280010, "US", "", CT, Choices()) == "keep"


def test_references_stay_where_the_object_lists_them() -> None:
    assert action_of(0x00082112, "SQ", "", CT, Choices()) == "remove"
    assert action_of(0x00082112, "SQ", "", CT, Choices(), referring=True) == "uid"


def test_an_object_that_is_not_known_keeps_to_the_strictest_type() -> None:
    assert resolved("X/Z/D", type_of("DeviceSerialNumber", "", "")) in ("remove", "dummy")
    assert type_of("NotAnAttribute", "", CT) == 1
    assert resolved("Z", 1) == "dummy"


def test_options_are_stated_by_their_codes() -> None:
    choices = Choices("shift", frozenset(KEEP), frozenset({"descriptors", "structured-content", "graphics", "pixels"}))
    codes = [code for code, _ in choices.codes]
    assert sorted(codes) == ["113100", "113101", "113103", "113104", "113105", *map(str, range(113107, 113113))]
    assert all(len(meaning) <= 64 for _, meaning in choices.codes)
    assert Choices("keep").codes[-1][0] == "113106"
    with pytest.raises(InputError, match="unknown part to keep 'uid'. Did you mean 'uids'"):
        Choices(keep=frozenset({"uid"}))
    with pytest.raises(InputError, match="dates: expected 'remove', 'shift' or 'keep', got 'move'"):
        Choices("move")  # type: ignore[arg-type]
