"""Table E.1-1 read again, row by row and slowly, and data sets that hold everything it names."""

from __future__ import annotations

import csv
import json
from functools import cache
from importlib import resources

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

CT = "1.2.840.10008.5.1.4.1.1.2"
SECRET = "Zebrowski"

VALUES = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UC", "UT"), f"{SECRET} text"),
    "PN": f"{SECRET}^Zygmunt",
    "AE": "ZEBRA_AE",
    "AS": "061Y",
    "CS": "ZEBRA CODE",
    "DA": "20240229",
    "DT": "20240229123456.5",
    "TM": "123456.5",
    "DS": "12.5",
    "IS": "12",
    "UI": "1.3.6.1.4.1.99999.7.4711",
    "UR": f"https://{SECRET}.example/7",
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV", "AT"), 4711),
    **dict.fromkeys(("FL", "FD"), 47.5),
    **dict.fromkeys(("OB", "UN", "OW"), SECRET.encode() + b" "),
    **dict.fromkeys(("OF", "OD", "OL", "OV"), b"Zebrowski Zebrow"),
}


@cache
def table() -> list[dict[str, str]]:
    """The rows of the table, as they are written."""
    text = (resources.files("pellucid.data.dicom.deidentify") / "profile.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def standard() -> tuple[dict, dict, dict]:
    """Attributes of modules, modules of objects and objects of classes, from highdicom's copy of the standard."""
    folder = resources.files("highdicom") / "_standard"
    names = ("module_attribute_map", "iod_module_map", "sop_class_iod_map")
    modules, objects, classes = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names)
    return modules, objects, classes


@cache
def types_of(sop_class: str) -> dict[str, int]:
    """1, 2 or 3 of each attribute outside of sequences, conditional ones as if their condition were met."""
    modules, objects, classes = standard()
    found: dict[str, int] = {}
    for module in objects[classes[sop_class]]:
        for attribute in modules.get(module["key"], []):
            if not attribute["path"]:
                kind = {"1": 1, "1C": 1, "2": 2, "2C": 2}.get(attribute["type"], 3)
                found[attribute["keyword"]] = min(kind, found.get(attribute["keyword"], 3))
    return found


def expected_action(row: dict[str, str], kind: int, columns: tuple[str, ...] = (), dates: str = "remove") -> str:
    """What becomes of an attribute, spelt out from PS3.15, Table E.1-1a."""
    asked = {row[column] for column in columns if row[column]}
    if row["full_dates"] and (asked or dates != "remove"):  # dates go by one rule
        if dates == "keep":
            return "K"
        if dates == "shift":
            return "shift"
    elif "K" in asked:
        return "K"
    elif "C" in asked:
        return "C"
    letters = row["basic"]
    if letters in ("X", "D", "U"):
        return letters
    if letters == "Z":
        return "D" if kind == 1 else "Z"
    if letters == "X/Z":
        return "Z" if kind in (1, 2) else "X"
    if letters == "X/D":
        return "D" if kind in (1, 2) else "X"
    if letters == "Z/D":
        return "D" if kind == 1 else "Z"
    if letters == "X/Z/D":
        return {1: "D", 2: "Z", 3: "X"}[kind]
    if letters == "X/Z/U*":
        return "X" if kind == 3 else "U"
    raise AssertionError(letters)


def tags_of(row: dict[str, str]) -> list[int]:
    """The attributes of a row; some of a repeating group."""
    pattern = row["tag"]
    if pattern.startswith("50"):
        return [0x50000010, 0x50003000, 0x501E2500]
    if pattern.startswith("60"):
        return [int(pattern.replace("XX", digits), 16) for digits in ("00", "1E")]
    return [int(pattern, 16)]


def vr_of(tag: int) -> str:
    """The dictionary's VR of an attribute; of one that it doesn't know a text's."""
    try:
        return dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return "LO"


def element(tag: int) -> DataElement:
    """An attribute that tells something."""
    vr = vr_of(tag)
    if vr == "SQ":
        item = Dataset()
        item.PatientComments = SECRET
        item.SeriesNumber = 7
        return DataElement(tag, "SQ", [item])
    return DataElement(tag, vr, VALUES[vr])


def everything(sop_class: str = CT) -> Dataset:
    """A data set with every attribute of the table."""
    dataset = Dataset()
    for row in table():
        for tag in tags_of(row):
            if tag >> 16 >= 8:
                dataset[Tag(tag)] = element(tag)
    dataset.SOPClassUID = sop_class
    dataset.Modality = "CT"
    dataset.Rows = 512
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    return dataset


def keyword(tag: int) -> str:
    """The dictionary's keyword."""
    return keyword_for_tag(tag)
