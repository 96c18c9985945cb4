"""Run a study: prepare each data set, compute each cell, then compare."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pellucid.devices import pick_devices
from pellucid.errors import InputError, MissingWeightsError, PellucidError, StorageError, expected
from pellucid.files import write_json, write_table, write_text
from pellucid.models.zoo import fetch_weights
from pellucid.statistics.wording import count
from pellucid.study.cell import run_cell, stale_stages
from pellucid.study.config import StudyConfig, on_devices, published, read_config, write_config
from pellucid.study.environment import environment
from pellucid.study.plan import Cell, cell_folders, plan
from pellucid.study.prepare import Prepared, describe_dataset, read_dataset
from pellucid.study.store import CellStore, read_cells, read_failures
from pellucid.study.summary import summarise_study

log = logging.getLogger(__name__)

_CHANGES = 4  # how many a message tells
_LISTED = ("datasets", "models")


@dataclass(frozen=True)
class Study:
    """A finished study: where it stands, what was asked, and its tables."""

    output: Path
    config: StudyConfig

    @property
    def predictions(self) -> pd.DataFrame:
        """A row per validation or test image and cell."""
        return read_cells(cell_folders(self.config, self.output), "predictions")

    @property
    def scores(self) -> pd.DataFrame:
        """A row per explained image, method, metric and cell."""
        return read_cells(cell_folders(self.config, self.output), "scores")

    @property
    def failures(self) -> pd.DataFrame:
        """A row per cell that couldn't be computed, with the reason."""
        return read_failures(cell_folders(self.config, self.output))


def run_study(
    study: str | Path | StudyConfig,
    output: str | Path,
    *,
    data: Mapping[str, str] | None = None,
    device: str = "auto",
    strict: bool = False,
    fresh: bool = False,
    progress: bool = False,
) -> Study:
    """Run a study, or go on with one that was stopped; what is done already isn't computed again.

    Arguments:
        study: a TOML file, or a config that was read before.
        output: the folder for all results; made if it isn't there.
        data: paths for data sets by name, in place of those in the TOML.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; networks are trained on several by "cuda:0,1".
        strict: stop at the first image that can't be read, instead of listing and skipping it.
        fresh: compute anew what was finished from another config or other data, instead of refusing to.
        progress: show progress with time left on standard error.

    A cell that can't be computed (its loss stops being finite, it doesn't fit into memory) is told, left out and
    listed in `Study.failures`; the others go on. Run again, it is tried again.

    Raises:
        InputError: the study, the data or the device can't be used, or the output holds finished cells of another
            study; the text says what differs and what to do.
        MissingWeightsError: pretrained weights can't be had; found out before anything is computed.
        PellucidError: the disk is full, or no cell could be computed; what was finished is kept.
    """
    config = study if isinstance(study, StudyConfig) else read_config(Path(study), data)
    output = Path(output)
    where, *others = pick_devices(device)
    config = on_devices(config, 1 + len(others))
    if output.exists() and not output.is_dir():
        raise InputError(f"output: expected a folder, got the file {str(output)!r}.")
    for name in published(config):
        fetch_weights(name)
    prepared = {
        settings.name: read_dataset(settings, config, output, strict=strict, show_progress=progress)
        for settings in config.datasets
    }
    cells = plan(config, {name: dataset.folds for name, dataset in prepared.items()})
    if not fresh:
        refuse_changes(config, cells, prepared, output)
    write_text(output / "study.toml", write_config(config))
    write_json(output / "environment.json", environment(where))
    splits = [dataset.splits.assign(dataset=name).sort_values(["fold", "sample"]) for name, dataset in prepared.items()]
    write_table(output / "splits.parquet", pd.concat(splits, ignore_index=True))
    for dataset in prepared.values():
        describe_dataset(dataset, config, output, show_progress=progress)
    failed: list[PellucidError] = []
    for number, cell in enumerate(cells, start=1):
        if progress:
            log.info("cell %d of %d: %s", number, len(cells), cell.title)
        store = CellStore(cell.folder(output))
        try:
            run_cell(cell, prepared[cell.dataset.name], config, output, device=where, show_progress=progress)
        except (StorageError, MissingWeightsError):
            raise
        except PellucidError as error:
            log.warning("%s failed and is left out: %s", cell.title, error)
            whose = {"dataset": cell.dataset.name, "model": cell.arm, "seed": cell.seed, "fold": cell.fold}
            write_json(store.failure, {**whose, "reason": str(error)})
            failed.append(error)
        else:
            store.failure.unlink(missing_ok=True)
    if len(failed) == len(cells):
        raise failed[0]
    summarise_study(config, output, show_progress=progress)
    return Study(output, config)


def refuse_changes(config: StudyConfig, cells: Sequence[Cell], prepared: Mapping[str, Prepared], output: Path) -> None:
    """Raise InputError when finished work would have to be dropped, since it was made from something else."""
    lost = [stale_stages(cell, prepared[cell.dataset.name], config, output) for cell in cells]
    counts = {
        "trained": sum("training" in stages for stages in lost),
        "explained": sum("explaining" in stages and "training" not in stages for stages in lost),
        "asked about external sets": sum(stages == ("external",) for stages in lost),
    }
    told = ", ".join(f"{count(number, 'cell')} would be {what} anew" for what, number in counts.items() if number)
    if not told:
        return
    path = output / "study.toml"
    changes = config_changes(tomllib.loads(path.read_text(encoding="utf-8")), config) if path.exists() else []
    shown = "; ".join(changes[:_CHANGES]) + (f"; and {len(changes) - _CHANGES} more" if len(changes) > _CHANGES else "")
    raise expected(
        "output",
        "results of this study or none",
        f"finished ones of another: {shown or 'the images, labels or versions differ'}. {told[0].upper()}{told[1:]}",
        do="Choose another --output, or add --fresh to drop what differs and compute it again.",
    )


def config_changes(before: Mapping[str, Any], config: StudyConfig) -> list[str]:
    """What differs between a config as it was written down and another, a phrase per key of what both have."""
    now = tomllib.loads(write_config(config))
    both = {kind: {item["name"] for item in before[kind]} & {item["name"] for item in now[kind]} for kind in _LISTED}
    old, new = (
        _flat({**fields, **{kind: [item for item in fields[kind] if item["name"] in both[kind]] for kind in _LISTED}})
        for fields in (before, now)
    )
    return [
        f"{key} was {old.get(key, 'not set')!r} and is {new.get(key, 'not set')!r}"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]


def _flat(fields: Any, key: str = "") -> dict[str, Any]:
    """Values by their dotted keys; data sets and models by their names, so that one more changes no other's key."""
    if isinstance(fields, Mapping):
        return {name: value for k, v in fields.items() for name, value in _flat(v, f"{key}.{k}".lstrip(".")).items()}
    if isinstance(fields, list) and fields and all(isinstance(item, Mapping) and "name" in item for item in fields):
        return {name: value for item in fields for name, value in _flat(item, f"{key}.{item['name']}").items()}
    return {key: fields}
