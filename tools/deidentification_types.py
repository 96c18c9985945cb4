"""Write the types of attributes that de-identification needs, from the tables of the standard that highdicom carries.

PS3.15's Table E.1-1 says "X/Z/D" and the like: which it is depends on whether an attribute must be there (type 1) or
may be empty (type 2) in the object at hand. `src/pellucid/data/dicom/deidentify/types.csv` has that for the attributes
concerned, the strictest of the conditional and unconditional ones; run this again for a newer highdicom.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src/pellucid/data/dicom/deidentify"
PREFIX = "1.2.840.10008.5.1.4.1.1."
TYPES = {"1": 1, "1C": 1, "2": 2, "2C": 2}


def tables() -> tuple[dict, dict, dict]:
    """Attributes of modules, modules of objects, and objects of SOP classes."""
    folder = resources.files("highdicom") / "_standard"
    names = ("module_attribute_map", "iod_module_map", "sop_class_iod_map")
    modules, objects, classes = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names)
    return modules, objects, classes


def main() -> None:
    with (PACKAGE / "profile.csv").open(encoding="utf-8", newline="") as handle:
        wanted = {row["keyword"] for row in csv.DictReader(handle) if "/" in row["basic"] or row["basic"] == "Z"}
    modules, objects, classes = tables()
    nested: dict[tuple[str, str], int] = {}
    outer: dict[str, dict[str, int]] = defaultdict(dict)  # keyword to SOP class to type
    for uid, name in classes.items():
        for module in objects[name]:
            for attribute in modules.get(module["key"], []):
                keyword, path = attribute["keyword"], attribute["path"]
                kind = TYPES.get(attribute["type"], 3)
                if keyword not in wanted:
                    continue
                if path:
                    nested[keyword, path[-1]] = min(kind, nested.get((keyword, path[-1]), 3))
                else:
                    outer[keyword][uid] = min(kind, outer[keyword].get(uid, 3))
    rows = []
    for keyword, kinds in outer.items():
        usual = Counter(kinds.values()).most_common(1)[0][0]
        rows.append((keyword, "", usual, ""))
        for kind in sorted(set(kinds.values()) - {usual}):
            uids = sorted(uid.removeprefix(PREFIX) for uid in kinds if kinds[uid] == kind)
            rows.append((keyword, "", kind, " ".join(uids)))
    rows += [(keyword, parent, kind, "") for (keyword, parent), kind in nested.items()]
    with (PACKAGE / "types.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("keyword", "parent", "type", "classes"))
        writer.writerows(sorted(rows, key=lambda row: (row[0], row[1], row[3] != "", row[2])))


if __name__ == "__main__":
    main()
