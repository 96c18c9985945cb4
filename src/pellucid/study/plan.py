"""The grid of cells: data sets × models × enhancements × seeds × folds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pellucid.study.config import StudyConfig
from pellucid.study.dataset_settings import DatasetSettings
from pellucid.study.model_settings import AnyModel, VoteSettings
from pellucid.study.store import fingerprint


@dataclass(frozen=True)
class Cell:
    """One network trained from one seed on one fold of one data set under one enhancement, explained and scored."""

    dataset: DatasetSettings
    model: AnyModel
    fold: int
    enhancement: str = "none"
    seed: int = 0
    alone: bool = True
    """Whether the study has no other seed, so that nothing needs to name it."""

    @property
    def arm(self) -> str:
        """What is compared: the network, with its enhancement where there is one."""
        return self.model.name if self.enhancement == "none" else f"{self.model.name} + {self.enhancement}"

    @property
    def place(self) -> str:
        """The fold, and the seed where there are several."""
        return f"fold {self.fold}" + ("" if self.alone else f", seed {self.seed}")

    @property
    def title(self) -> str:
        return f"{self.dataset.name} / {self.arm} / {self.place}"

    def folder(self, output: Path) -> Path:
        """Where the cell's results stand."""
        fold = f"fold-{self.fold}" + ("" if self.alone else f"-seed-{self.seed}")
        return arm_folder(output, self.dataset.name, self.arm) / fold


def plan(config: StudyConfig, folds: Mapping[str, int] | None = None) -> tuple[Cell, ...]:
    """All cells in the order in which they are computed: networks that vote after those that they are made of.

    Arguments:
        config: the study.
        folds: how many folds each data set is parted into; by default what the config says by itself, which can't
            know how many sites a data set has.
    """
    counts = folds or {}
    return tuple(
        Cell(dataset, model, fold, enhancement, seed, alone=len(config.training_seeds) == 1)
        for dataset in config.datasets
        for model in sorted(config.models, key=lambda model: isinstance(model, VoteSettings))
        for enhancement in config.enhancements
        for fold in range(counts.get(dataset.name, config.folds * config.repeats))
        for seed in config.training_seeds
    )


def member_cell(cell: Cell, name: str, config: StudyConfig) -> Cell:
    """The cell of another model of the study on the same data, enhancement, fold and seed."""
    return replace(cell, model=next(model for model in config.models if model.name == name))


def stored_plan(config: StudyConfig, output: Path) -> tuple[Cell, ...]:
    """The same with the folds that the study's output was parted into, as far as it has come."""
    path = output / "splits.parquet"
    if not path.exists():
        return plan(config)
    splits = pd.read_parquet(path, columns=["dataset", "fold"])
    return plan(config, {str(name): int(fold) + 1 for name, fold in splits.groupby("dataset")["fold"].max().items()})


def cell_folders(config: StudyConfig, output: Path) -> tuple[Path, ...]:
    """The folders of all cells, in the same order."""
    return tuple(cell.folder(output) for cell in stored_plan(config, output))


def arm_folder(output: Path, dataset: str, arm: str) -> Path:
    """Where the cells of one arm stand; what a file name can't hold becomes an underscore."""
    return output / dataset / re.sub(r"[^A-Za-z0-9.+=_-]+", "_", arm.replace(" + ", "+"))


def cell_seed(seed: int, cell: Cell, *parts: int, with_model: bool = True) -> int:
    """A seed that belongs to the cell, so that no cell's draws depend on which others were run.

    Enhancements of one network share it, so that they start from the same weights.
    """
    name = cell.model.name if with_model else ""
    return int(fingerprint(seed, cell.dataset.name, name, cell.fold, *parts), 16) % 2**31
