"""The near copies of a study's data set, found once and kept beside its facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pellucid.data.leakage import NEAR_COLUMNS, Thumbnails, find_near, read_thumbnails
from pellucid.data.manifest import Manifest
from pellucid.files import read_table, write_table
from pellucid.study.dataset_settings import LeakageSettings
from pellucid.study.store import fingerprint, table_fingerprint


@dataclass(frozen=True)
class NearCopies:
    """Pairs as `find_near` gives them, with `against`: "" within the data set, else the external set's name.

    `sought` is False where the study doesn't ask for near copies; `key` tells what they were found in.
    """

    pairs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*NEAR_COLUMNS, "against"]))
    sought: bool = False
    key: str = ""

    @property
    def within(self) -> pd.DataFrame:
        """Pairs within the data set."""
        return self.across("")

    def across(self, external: str) -> pd.DataFrame:
        """Pairs of an image of the data set and one of an external set."""
        return self.pairs[self.pairs["against"] == external].drop(columns="against").reset_index(drop=True)

    def store(self, folder: Path, name: str) -> None:
        """Keep them, so that a run that goes on needn't look again."""
        if self.sought:
            write_table(_path(folder, name), self.pairs.assign(key=self.key))


def near_copies(
    manifest: Manifest,
    external: Mapping[str, Manifest],
    settings: LeakageSettings,
    folder: Path,
    *,
    show_progress: bool = False,
) -> NearCopies:
    """Those within a data set and with its external sets; taken from `folder` where they were kept for the same."""
    if not settings.near:
        return NearCopies()
    sets = {"": manifest, **external}
    hashes = [table_fingerprint(each.table[["sample", "pixel_hash"]]) for each in sets.values()]
    key = fingerprint(list(sets), hashes, settings.threshold, settings.alike)
    path = _path(folder, manifest.name)
    if path.exists():
        kept = read_table(path)
        if len(kept) and set(kept["key"]) == {key}:
            return NearCopies(kept.drop(columns="key"), True, key)
    mine = _thumbnails(manifest, show_progress)
    found = []
    for name, other in sets.items():
        pairs = find_near(
            manifest,
            mine,
            near=settings.threshold,
            alike_from=settings.alike,
            against=(other, _thumbnails(other, show_progress)) if name else None,
            show_progress=show_progress,
        )
        found.append(pairs.assign(against=name))
    return NearCopies(pd.concat(found, ignore_index=True), True, key)


def _thumbnails(manifest: Manifest, show_progress: bool) -> Thumbnails:
    return read_thumbnails([manifest.root / sample for sample in manifest.table["sample"]], show_progress=show_progress)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}_near.parquet"
