"""What is done to an attribute: the Basic Application Level Confidentiality Profile and its options (PS3.15, Annex E).

`profile.csv` holds Table E.1-1 as of 2026c, a row per attribute: the action of the basic profile, then the actions of
the options. `types.csv` says whether an attribute must be there in an object (type 1), may be empty (type 2) or may be
left out (type 3), which decides between the letters of an action such as X/Z/D; `tools/deidentification_types.py`
writes it. Where the table is silent, attributes stay, save for those that could tell who or when: see `action_of`.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

from pydicom.datadict import dictionary_has_tag, keyword_for_tag

from pellucid.errors import expected, unknown_name

Dates = Literal["remove", "shift", "keep"]
Action = Literal["remove", "empty", "dummy", "uid", "keep", "clean", "shift"]

KEEP = {
    "patient-characteristics": ("patient", "113108", "Retain Patient Characteristics Option"),
    "device": ("device", "113109", "Retain Device Identity Option"),
    "institution": ("institution", "113112", "Retain Institution Identity Option"),
    "uids": ("uids", "113110", "Retain UIDs Option"),
    "safe-private": ("", "113111", "Retain Safe Private Option"),
}
"""What can be kept: the column of the table, and code and meaning in PS3.16, CID 7050."""
CLEAN = {
    "descriptors": ("descriptors", "113105", "Clean Descriptors Option"),
    "structured-content": ("structured", "113104", "Clean Structured Content Option"),
    "graphics": ("graphics", "113103", "Clean Graphics Option"),
    "pixels": ("", "113101", "Clean Pixel Data Option"),
}
"""What can be cleaned instead of being removed; as `KEEP`."""
DATES = {
    "remove": ("", "", ""),
    "shift": (
        "modified_dates",
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    "keep": ("full_dates", "113106", "Retain Longitudinal Temporal Information Full Dates Option"),
}
BASIC = ("113100", "Basic Application Confidentiality Profile")

TIMES = ("DA", "DT", "TM")
REGISTERED = "1.2.840.10008."  # UIDs that DICOM itself gives: classes, syntaxes, well-known frames of reference
_SOP_CLASSES = "1.2.840.10008.5.1.4.1.1."
_CLASS_LIKE = ("SOPClass", "TransferSyntax")
_KEPT_UIDS = ("CodingSchemeUID", "MappingResourceUID", "ContextUID")


@dataclass(frozen=True)
class Choices:
    """The options of the profile.

    Arguments:
        dates: "remove", "shift" (by one number of days for each patient) or "keep".
        keep: names of `KEEP`.
        clean: names of `CLEAN`.

    Raises InputError for other names.
    """

    dates: Dates = "remove"
    keep: frozenset[str] = frozenset()
    clean: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.dates not in get_args(Dates):
            raise expected("dates", "'remove', 'shift' or 'keep'", repr(self.dates))
        for given, known, what in ((self.keep, KEEP, "keep"), (self.clean, CLEAN, "clean")):
            for name in sorted(given):
                if name not in known:
                    raise unknown_name(f"part to {what}", name, known)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that are asked for."""
        chosen = [KEEP[name][0] for name in KEEP if name in self.keep]
        chosen += [CLEAN[name][0] for name in CLEAN if name in self.clean]
        return tuple(column for column in (*chosen, DATES[self.dates][0]) if column)

    @property
    def codes(self) -> tuple[tuple[str, str], ...]:
        """Code and meaning of the profile and of each option (PS3.16, CID 7050), as objects state them."""
        chosen = [KEEP[name][1:] for name in KEEP if name in self.keep]
        chosen += [CLEAN[name][1:] for name in CLEAN if name in self.clean]
        return tuple((code, meaning) for code, meaning in (BASIC, *chosen, DATES[self.dates][1:]) if code)

    def text(self) -> str:
        """All options in one line, the same for the same options."""
        return " ".join((f"dates={self.dates}", *(f"keep={name}" for name in sorted(self.keep)),
                         *(f"clean={name}" for name in sorted(self.clean))))  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A row of Table E.1-1: letters of the basic profile, and of the options by the column's name."""

    tag: str  # eight hexadecimal digits, X for any
    keyword: str
    basic: str
    options: dict[str, str]


@functools.cache
def rules() -> dict[str, Rule]:
    """Table E.1-1 by tag."""
    text = (resources.files(__package__) / "profile.csv").read_text(encoding="utf-8")
    found = {}
    for row in csv.DictReader(text.splitlines()):
        tag, keyword, basic = row.pop("tag"), row.pop("keyword"), row.pop("basic")
        found[tag] = Rule(tag, keyword, basic, {column: letter for column, letter in row.items() if letter})
    return found


@functools.cache
def rule_for(tag: int) -> Rule | None:
    """The row of an attribute, those of repeating groups among them."""
    group, element = tag >> 16, tag & 0xFFFF
    if group & 0xFF00 == 0x5000 and not group & 1:
        return rules()["50XXXXXX"]
    if group & 0xFF00 == 0x6000 and not group & 1:
        return rules().get(f"60XX{element:04X}")
    return rules().get(f"{tag:08X}")


def is_descriptor(tag: int) -> bool:
    """Whether an attribute holds words on what was done, rather than on who or when."""
    rule = rule_for(tag)
    return rule is not None and "descriptors" in rule.options


@functools.cache
def _types() -> dict[tuple[str, str, str], int]:
    """Types by keyword, enclosing sequence and SOP class, the latter two "" for the outermost and for any."""
    text = (resources.files(__package__) / "types.csv").read_text(encoding="utf-8")
    found = {}
    for row in csv.DictReader(text.splitlines()):
        for name in row["classes"].split() or [""]:
            uid = name if not name or name.startswith(REGISTERED) else _SOP_CLASSES + name
            found[row["keyword"], row["parent"], uid] = int(row["type"])
    return found


def type_of(keyword: str, parent: str, sop_class: str) -> int:
    """1, 2 or 3: whether an attribute must hold a value, must be there, or may be left out.

    Of a sequence (`parent`) or an object that isn't known the strictest that any has, since that is never wrong.
    """
    table = _types()
    for key in ((keyword, parent, sop_class), (keyword, parent, "")):
        if key in table:
            return table[key]
    return min((kind for (name, _, _), kind in table.items() if name == keyword), default=1)


def resolved(letters: str, kind: int) -> Action:
    """The action that letters such as "X/Z/D" mean for an attribute of type `kind` (PS3.15, Table E.1-1a).

    Z allows a value that tells nothing in place of none; sequences of references (U*) of type 2 keep theirs by that,
    since their UIDs are replaced.

    >>> resolved("X/Z/D", 1), resolved("X/Z/D", 2), resolved("X/Z/D", 3), resolved("Z/D", 3), resolved("X/Z/U*", 1)
    ('dummy', 'empty', 'remove', 'empty', 'uid')
    """
    parts = letters.rstrip("*").split("/")
    needed = kind == 1
    if len(parts) == 1:
        if parts[0] == "Z" and needed:  # zero length or a dummy, as the table allows
            return "dummy"
        return _ACTIONS[parts[0]]
    if "U" in parts:
        return "remove" if kind == 3 else "uid"
    if needed and "D" in parts:
        return "dummy"
    if "X" in parts and (kind == 3 or not {"Z", "D"} & set(parts)):
        return "remove"
    if "Z" in parts:
        return "empty"
    return "dummy" if kind < 3 else "remove"


_ACTIONS: dict[str, Action] = {
    "X": "remove", "Z": "empty", "D": "dummy", "U": "uid", "K": "keep", "C": "clean",
}  # fmt: skip


def action_of(tag: int, vr: str, parent: str, sop_class: str, choices: Choices, *, referring: bool = False) -> Action:
    """What is done to an attribute.

    Arguments:
        tag: group and element.
        vr: its value representation as the file states it.
        parent: keyword of the sequence around it, "" for the outermost.
        sop_class: UID of the object's class, "" where it isn't known.
        choices: the options.
        referring: whether the object lists what it refers to in a ReferencedSeriesSequence, which the table keeps:
            the references themselves, of which it would tell wrongly without them, then stay too, their UIDs replaced.

    Beyond the table (PS3.15, E.1.1 leaves the rest to the one who de-identifies), always on the strict side: private
    attributes, group lengths, groups that belong into other files and public attributes that pydicom doesn't know are
    removed; names of persons are emptied; dates are treated as those of the table; UIDs are replaced, save for those
    of classes, syntaxes and coding schemes.
    """
    group, element = tag >> 16, tag & 0xFFFF
    rule = rule_for(tag)
    if group & 1:
        return "clean" if "safe-private" in choices.keep else "remove"
    if element == 0 or group < 0x0008:
        return "remove"
    if rule is None:
        return _beyond(tag, vr, choices)
    letters = {rule.options[column] for column in choices.columns if column in rule.options}
    timed = DATES["keep"][0] in rule.options
    if timed and letters:
        # a device's dates are dates: they go the way of all others
        return {"remove": resolved_basic(rule, parent, sop_class), "shift": "shift", "keep": "keep"}[choices.dates]
    if "K" in letters:
        return "keep"
    if "C" in letters:
        return "clean"
    if referring and not parent and "U" in rule.basic.split("/")[-1]:
        return "uid"
    return resolved_basic(rule, parent, sop_class)


def resolved_basic(rule: Rule, parent: str, sop_class: str) -> Action:
    """What the basic profile alone does to an attribute of the table."""
    if "/" not in rule.basic and rule.basic != "Z":
        return resolved(rule.basic, 3)
    return resolved(rule.basic, type_of(rule.keyword, parent, sop_class))


def _beyond(tag: int, vr: str, choices: Choices) -> Action:
    keyword = keyword_for_tag(tag)
    if not dictionary_has_tag(tag) and (tag >> 16) & 0xFF00 != 0x6000:
        return "remove"
    if vr == "UN":
        return "remove"
    if vr == "PN":
        return "empty"
    if vr in TIMES:
        return {"remove": "empty", "shift": "shift", "keep": "keep"}[choices.dates]  # type: ignore[return-value]
    if vr == "UI" and keyword not in _KEPT_UIDS and not any(word in keyword for word in _CLASS_LIKE):
        return "keep" if "uids" in choices.keep else "uid"
    return "keep"
