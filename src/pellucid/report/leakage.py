"""The leakage of a data set as the report shows it: findings in words, and copies side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pellucid.data.images import read_image
from pellucid.data.leakage import LeakageFinding, LeakageReport, shown_groups
from pellucid.data.manifest import Manifest
from pellucid.data.transforms import prepare
from pellucid.drawing import enlarge, to_picture
from pellucid.errors import PellucidError
from pellucid.files import write_table, write_text
from pellucid.report.figures import Drawn, drawn
from pellucid.report.findings import Accuracy
from pellucid.report.gallery import SMALL, Group
from pellucid.report.names import counted, number
from pellucid.report.page import page
from pellucid.report.privacy import hide_in_path, hide_in_prose
from pellucid.report.read import DatasetResult, open_pictures
from pellucid.report.tables import Cell, Table

TITLES = {
    "exact-in-other-set": "Pixel-identical in two data sets",
    "near-in-other-set": "Near copies in two data sets",
    "exact-conflicts": "Pixel-identical images with different labels",
    "near-conflicts": "Near copies with different labels",
    "exact-in-training": "Pixel-identical images across parts",
    "near-in-training": "Near copies across parts",
    "lesions-across-splits": "One lesion in several parts",
    "patients-across-splits": "One patient in several parts",
    "near-copies": "Other near copies",
    "alike": "Alike as neighbouring slices",
    "exact-copies": "Other pixel-identical images",
}
KINDS = (
    *TITLES,
    "lesions-in-classes",
    "patients-in-classes",
    "confounded",
    "hinted",
    "age-and-sex",
    "unreadable",
    "no-patients",
)
WORDS = {"alarm": "Alarm", "warning": "Warning", "note": "Note"}
PART_WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Said:
    """A finding as it is printed."""

    severity: str
    word: str
    text: str


@dataclass(frozen=True)
class Section:
    """Groups of pictures of one kind."""

    title: str
    groups: Sequence[Group]


@dataclass(frozen=True)
class LeakagePart:
    """What is shown of the leakage of one data set."""

    said: Sequence[Said]
    sections: Sequence[Section]
    scores: Table | None = None


def study_leakage(dataset: DatasetResult, accuracies: Mapping[str, Mapping[str, Accuracy]]) -> LeakagePart | None:
    """The leakage that a study found in one data set; None where it wasn't looked for.

    `accuracies`: per model, on "all" test images and "without copies".
    """
    if "leakage" not in dataset.facts:
        return None
    patients = set(dataset.patient_ids.values()) - {""}
    opened = open_pictures(dataset.picture_file("leakage"))
    shown, pictures = pd.DataFrame(), np.zeros(0)
    if opened is not None:
        shown, pictures = pd.DataFrame(opened[1]), opened[0]["images"]
    return LeakagePart(
        said([LeakageFinding(**each, rows=pd.DataFrame()) for each in dataset.facts["leakage"]], patients),
        sections(shown, pictures, patients, dataset.name),
        scores_table(accuracies),
    )


def said(findings: Iterable[LeakageFinding], patients: Collection[str]) -> list[Said]:
    """Findings as they are printed, without patients' ids."""
    return [
        Said(each.severity, WORDS[each.severity], hide_in_prose(each.sentence, patients).replace(" %", "\u00a0%"))
        for each in findings
    ]


def sections(
    shown: pd.DataFrame, pictures: Sequence[np.ndarray] | np.ndarray, patients: Collection[str], name: str
) -> list[Section]:
    """Pictures of copies by kind and group, as `shown_groups` lists them, each with part, label, change and file."""
    found = []
    if shown.empty:
        return []
    for kind, of_kind in shown.groupby("kind", sort=False):
        groups = []
        for group, rows in of_kind.groupby("group", sort=False):
            size = int(rows["size"].iloc[0])
            more = f", {len(rows)} of {size} shown" if size > len(rows) else ""
            drawn_rows = [_drawn(row, pictures[int(str(place))], patients, name) for place, row in rows.iterrows()]
            groups.append(Group(f"Group {group}{more}", drawn_rows))
        found.append(Section(TITLES[str(kind)], groups))
    return found


def scores_table(accuracies: Mapping[str, Mapping[str, Accuracy]]) -> Table | None:
    """Accuracy of each model on all test images and without those that have a copy in training."""
    rows = []
    for model, known in accuracies.items():
        if "all" in known and "without copies" in known:
            cells = [Cell(each.told(), counted(each.n, "image")) for each in (known["all"], known["without copies"])]
            lost = known["all"].value - known["without copies"].value
            rows.append([Cell(model), *cells, Cell(f"{number(100 * lost, 1)} points")])
    if not rows:
        return None
    note = "Copies are test images with a pixel-identical or near copy in training."
    columns = ["Model", "All test images", "Without copies", "Difference"]
    return Table("Accuracy with and without the copies", columns, rows, note, kind="small")


def write_leakage(report: LeakageReport, manifest: Manifest, output: Path, *, against: Manifest | None = None) -> Path:
    """Write the page of a leakage check, `index.html`, and its tables as CSV into a folder; returns the HTML file.

    Patients' ids reach none of the files, also where they are part of a file's name; `number` is the image's place
    among the data set's sorted names, from 1.
    """
    sets = {each.name: each for each in (manifest, against) if each is not None}
    patients = {str(patient) for each in sets.values() for patient in each.table["patient_id"]} - {""}
    findings = report.table()
    findings["sentence"] = [hide_in_prose(text, patients) for text in findings["sentence"]]
    write_table(output / "findings.csv", findings)
    for kind in KINDS:  # what a former check left
        (output / f"{kind}.csv").unlink(missing_ok=True)
    for finding in report.findings:
        if len(finding.rows):
            write_table(output / f"{finding.kind}.csv", _anonymous(finding.rows, manifest, against, patients))
    shown = shown_groups(report)
    pictures = [
        _picture(sets[str(owner)].root / str(sample))
        for owner, sample in zip(shown["data_set"], shown["sample"], strict=True)
    ]
    part = LeakagePart(said(report.findings, patients), sections(shown, pictures, patients, report.name))
    path = output / "index.html"
    parts = ", ".join(
        f"{counted(count, PART_WORDS.get(name, name), PART_WORDS.get(name, name))}"
        for name, count in report.parts.items()
        if name
    )
    intro = f"{counted(report.images, 'image')}{f' ({parts})' if parts else ', no split given'}"
    if report.against:
        intro += f", compared with {report.against}"
    write_text(path, page("leakage.html.j2", title=report.name, intro=intro, part=part))
    return path


def _drawn(row: pd.Series, picture: np.ndarray, patients: Collection[str], name: str) -> Drawn:
    similarity = row["similarity"]
    change = str(row["transform"] or "")
    if similarity is not None and np.isfinite(float(similarity)) and change != "pixel-identical":
        change = f"{change} ({float(similarity):.2f})" if change else f"similarity {float(similarity):.2f}"
    words = [
        str(row["data_set"]) if row["data_set"] != name else "",
        PART_WORDS.get(str(row["split"]), str(row["split"])),
        str(row["label"]),
        change,
        PurePosixPath(hide_in_path(str(row["sample"]), patients)).name,
    ]
    caption = " · ".join(word for word in words if word)
    return drawn(enlarge(to_picture(picture), SMALL), f"Image of group {row['group']}: {caption}", caption)


def _picture(path: Path) -> np.ndarray:
    """A picture (3, H, W) uint8 of a file; grey where it can't be read any more."""
    try:
        tensor = prepare(read_image(path), channels=3, size=2 * SMALL, intensity="dtype")
    except PellucidError:
        return np.full((3, 2 * SMALL, 2 * SMALL), 128, np.uint8)
    return np.asarray((tensor * 255).round().numpy().astype(np.uint8))


def _anonymous(
    rows: pd.DataFrame, manifest: Manifest, against: Manifest | None, patients: Collection[str]
) -> pd.DataFrame:
    if "sample" not in rows:
        return rows
    places = {
        (each.name, sample): place
        for each in (manifest, against)
        if each is not None
        for place, sample in enumerate(sorted(each.table["sample"]), start=1)
    }
    owners = rows["data_set"] if "data_set" in rows else pd.Series(manifest.name, rows.index)
    numbers = [places.get((owner, sample)) for owner, sample in zip(owners, rows["sample"], strict=True)]
    hidden = rows.assign(sample=[hide_in_path(str(sample), patients) for sample in rows["sample"]])
    if "reason" in hidden:
        hidden["reason"] = [hide_in_prose(str(reason), patients) for reason in hidden["reason"]]
    return pd.concat([pd.Series(numbers, hidden.index, dtype="Int64", name="number"), hidden], axis=1)
