"""Run a study: prepare each data set, compute each cell, then compare."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pellucid.devices import pick_device
from pellucid.errors import InputError
from pellucid.files import write_json, write_table, write_text
from pellucid.models.zoo import fetch_weights
from pellucid.study.cell import run_cell
from pellucid.study.config import StudyConfig, read_config, write_config
from pellucid.study.environment import environment
from pellucid.study.plan import cell_folders, plan
from pellucid.study.prepare import prepare_dataset
from pellucid.study.store import read_cells
from pellucid.study.summary import summarise_study

log = logging.getLogger(__name__)


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


def run_study(
    study: str | Path | StudyConfig,
    output: str | Path,
    *,
    data: Mapping[str, str] | None = None,
    device: str = "auto",
    strict: bool = False,
    progress: bool = False,
) -> Study:
    """Run a study, or go on with one that was stopped; what is done already isn't computed again.

    Arguments:
        study: a TOML file, or a config that was read before.
        output: the folder for all results; made if it isn't there.
        data: paths for data sets by name, in place of those in the TOML.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        strict: stop at the first image that can't be read, instead of listing and skipping it.
        progress: show progress with time left on standard error.

    Raises:
        InputError: the study, the data or the device can't be used; the text says what to do.
        MissingWeightsError: pretrained weights can't be had; found out before anything is computed.
        PellucidError: the disk is full or training diverged; what was finished is kept.
    """
    config = study if isinstance(study, StudyConfig) else read_config(Path(study), data)
    output = Path(output)
    where = pick_device(device)
    if output.exists() and not output.is_dir():
        raise InputError(f"output: expected a folder, got the file {str(output)!r}.")
    for model in config.models:
        if model.pretrained is True:
            fetch_weights(model.name)
    write_text(output / "study.toml", write_config(config))
    write_json(output / "environment.json", environment(where))
    prepared = {
        settings.name: prepare_dataset(settings, config, output, strict=strict, show_progress=progress)
        for settings in config.datasets
    }
    splits = [dataset.splits.assign(dataset=name).sort_values(["fold", "sample"]) for name, dataset in prepared.items()]
    write_table(output / "splits.parquet", pd.concat(splits, ignore_index=True))
    cells = plan(config)
    for number, cell in enumerate(cells, start=1):
        if progress:
            log.info("cell %d of %d: %s", number, len(cells), cell.title)
        run_cell(cell, prepared[cell.dataset.name], config, output, device=where, show_progress=progress)
    summarise_study(config, output, show_progress=progress)
    return Study(output, config)
