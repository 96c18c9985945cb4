"""The whole leakage check of a data set, alone or against a second one, as one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pellucid.data.leakage import between, bound, confounded, copies
from pellucid.data.leakage.finding import LeakageFinding, joined
from pellucid.data.leakage.near import ALIKE, NEAR, NEAR_COLUMNS, find_near
from pellucid.data.leakage.thumbnails import Thumbnails, read_thumbnails
from pellucid.data.manifest import Manifest

SEVERITIES = ("alarm", "warning", "note")


@dataclass(frozen=True)
class LeakageReport:
    """What the leakage check of a data set found.

    `findings` stand with the gravest first; `pairs` are the near copies and pictures that are alike, as `find_near`
    gives them; `images` and `parts` are counts, of the given split.
    """

    name: str
    images: int
    parts: dict[str, int]
    findings: tuple[LeakageFinding, ...]
    pairs: pd.DataFrame
    against: str = ""

    def finding(self, kind: str) -> LeakageFinding | None:
        """The finding of a kind, or None where there is nothing of it."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def count(self, kind: str) -> int:
        """What was counted of a kind, 0 where nothing of it was found."""
        found = self.finding(kind)
        return found.count if found else 0

    def table(self) -> pd.DataFrame:
        """A row per finding: kind, severity, count, sentence."""
        rows = [(each.kind, each.severity, each.count, each.sentence) for each in self.findings]
        return pd.DataFrame(rows, columns=["kind", "severity", "count", "sentence"])


def check_leakage(
    manifest: Manifest,
    *,
    near: float | None = NEAR,
    alike: float = ALIKE,
    against: Manifest | None = None,
    show_progress: bool = False,
) -> LeakageReport:
    """Look for all that lets a test score look better than it is.

    Pixel-identical and near copies, within parts and across them; labels that conflict between copies or within a
    lesion; a patient or lesion in two parts; a class that a column or a property of the files tells almost by itself.

    Arguments:
        manifest: the data set, with the split to be checked; without one nothing can cross.
        near, alike: similarities as `find_near` takes them; None for `near` leaves near copies out.
        against: a second data set, as the training data of an external test set, to look for copies in.
        show_progress: show bars with the time left.

    An image that can no longer be read is told of, and the rest is checked.
    """
    if near is None:
        others = [] if against is None else [(against, pd.DataFrame(columns=list(NEAR_COLUMNS)))]
        return report_leakage(manifest, pd.DataFrame(columns=list(NEAR_COLUMNS)), others)
    alike = min(alike, near)
    thumbnails = _thumbnails(manifest, show_progress)
    pairs = find_near(manifest, thumbnails, near=near, alike_from=alike, show_progress=show_progress)
    others = []
    if against is not None:
        theirs = (against, _thumbnails(against, show_progress))
        across = find_near(
            manifest, thumbnails, near=near, alike_from=alike, against=theirs, show_progress=show_progress
        )
        others = [(against, across)]
    problems = zip(manifest.table["sample"], thumbnails.problems, strict=True)
    lost = tuple((str(sample), problem) for sample, problem in problems if problem)
    return report_leakage(replace(manifest, unreadable=(*manifest.unreadable, *lost)), pairs, others)


def report_leakage(
    manifest: Manifest, pairs: pd.DataFrame, others: Sequence[tuple[Manifest, pd.DataFrame]] = ()
) -> LeakageReport:
    """The same from near copies found before: `pairs` within the data set, and with each other set those across."""
    found = [finding for other, across in others for finding in between.findings(manifest, other, across)]
    found += [
        *copies.findings(manifest.table, pairs),
        *bound.findings(manifest.table, manifest.multi_label),
        *confounded.findings(manifest),
        *_unread(manifest),
    ]
    return LeakageReport(
        name=manifest.name,
        images=len(manifest.table),
        parts={str(part): int(count) for part, count in manifest.table["split"].value_counts().sort_index().items()},
        findings=tuple(sorted(found, key=lambda each: SEVERITIES.index(each.severity))),
        pairs=pairs,
        against=joined([other.name for other, _ in others]),
    )


def _thumbnails(manifest: Manifest, show_progress: bool) -> Thumbnails:
    return read_thumbnails([manifest.root / sample for sample in manifest.table["sample"]], show_progress=show_progress)


def _unread(manifest: Manifest) -> list[LeakageFinding]:
    if not manifest.unreadable:
        return []
    count = len(manifest.unreadable)
    are = "image couldn't be read and wasn't" if count == 1 else "images couldn't be read and weren't"
    rows = pd.DataFrame(list(manifest.unreadable), columns=["sample", "reason"])
    return [LeakageFinding("unreadable", "note", count, f"{count} {are} checked.", rows)]
