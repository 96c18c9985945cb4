"""The grid of cells: data sets × models × folds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pellucid.study.config import DatasetSettings, ModelSettings, StudyConfig


@dataclass(frozen=True)
class Cell:
    """One network trained on one fold of one data set, explained and scored."""

    dataset: DatasetSettings
    model: ModelSettings
    fold: int

    @property
    def title(self) -> str:
        return f"{self.dataset.name} / {self.model.name} / fold {self.fold}"

    def folder(self, output: Path) -> Path:
        """Where the cell's results stand."""
        return output / self.dataset.name / self.model.name / f"fold-{self.fold}"


def plan(config: StudyConfig) -> tuple[Cell, ...]:
    """All cells in the order in which they are computed."""
    return tuple(
        Cell(dataset, model, fold)
        for dataset in config.datasets
        for model in config.models
        for fold in range(config.folds)
    )


def cell_folders(config: StudyConfig, output: Path) -> tuple[Path, ...]:
    """The folders of all cells, in the same order."""
    return tuple(cell.folder(output) for cell in plan(config))
