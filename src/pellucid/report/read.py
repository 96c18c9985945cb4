"""Read what a study left on disk, finished or not; files that aren't there are empty tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from pellucid.errors import InputError
from pellucid.files import read_json
from pellucid.study.config import read_config
from pellucid.study.plan import Cell, stored_plan
from pellucid.study.store import CellStore

CELL_COLUMNS = {
    "history": ["epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate", "best"],
    "predictions": ["sample", "patient_id", "split", "label", "predicted", "correct", "copy_in_train"],
    "explained": [
        "sample", "patient_id", "label", "predicted", "target", "score", "probability", "correct", "copy_in_train",
        "has_mask", "lesion_share",
    ],
    "verdicts": ["sample", "method", "verdict", "evidence"],
}  # fmt: skip
STATISTICS_COLUMNS = {
    "models": [
        "dataset", "model", "fold", "images", "metric", "class", "rule", "threshold_low", "threshold_high", "value",
        "low", "high", "n", "positives", "clusters", "unit", "note",
    ],
    "model_tests": [
        "dataset", "model", "images", "test", "metric", "a", "b", "mean_difference", "low", "high", "statistic", "df",
        "p_value", "p_adjusted", "effect_size", "effect_low", "effect_high", "n", "unit", "identical", "sentence",
        "of", "measure", "effect", "margin", "note",
    ],
    "power": [
        "dataset", "images", "metric", "a", "b", "n", "unit", "mean_difference", "detectable", "needed", "note",
        "sentence",
    ],
    "scores": [
        "dataset", "model", "images", "method", "metric", "label", "correct", "mean", "low", "high", "n", "missing",
    ],
}  # fmt: skip
STATISTICS_COLUMNS["method_tests"] = STATISTICS_COLUMNS["enhancement_tests"] = STATISTICS_COLUMNS["model_tests"]
STATISTICS_COLUMNS["method_ranks"] = [
    "dataset", "model", "images", "metric", "method", "control", "mean_rank", "best_control", "p_adjusted",
    "beats_controls", "ranked", "missing", "unit", "friedman", "friedman_p", "friedman_p_adjusted",
    "critical_difference",
]  # fmt: skip
_WORDS = (
    "dataset",
    "model",
    "fold",
    "images",
    "metric",
    "class",
    "rule",
    "unit",
    "note",
    "of",
    "measure",
    "effect",
    "test",
    "a",
    "b",
    "method",
    "label",
    "best_control",
)


@dataclass(frozen=True)
class CellResult:
    """One finished cell."""

    dataset: str
    model: str
    """What is compared: the network, with its enhancement where there is one."""
    fold: int
    place: str
    """The fold in words, with the seed where there are several."""
    store: CellStore
    card: Mapping[str, Any]
    times: Mapping[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    explained: pd.DataFrame
    verdicts: pd.DataFrame
    """Whether each map can be trusted; without rows where the study didn't ask."""

    @property
    def test(self) -> pd.DataFrame:
        return self.predictions[self.predictions["split"] == "test"]


@dataclass(frozen=True)
class DatasetResult:
    """One data set with its finished cells, and the titles of those that aren't."""

    name: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    patient_ids: Mapping[str, str]
    parts: Mapping[str, str]
    cells: tuple[CellResult, ...]
    planned: tuple[Cell, ...]
    failures: Mapping[str, str]
    """Why a cell that isn't there isn't, by its title, where that is known."""
    folder: Path

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several of the classes."""
        return bool(self.facts.get("multi_label", False))

    @property
    def classes(self) -> tuple[str, ...]:
        if "classes" in self.facts:
            return tuple(self.facts["classes"])
        return tuple(self.cells[0].card["classes"]) if self.cells else ()

    @property
    def missing(self) -> tuple[str, ...]:
        """What isn't finished: the network, and its fold and seed where there are several."""
        several = len({cell.place for cell in self.planned}) > 1
        done = {(cell.model, cell.place) for cell in self.cells}
        left = [cell for cell in self.planned if (cell.arm, cell.place) not in done]
        return tuple(f"{cell.arm}, {cell.place}" if several else cell.arm for cell in left)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.model for cell in self.cells))

    def of_model(self, model: str) -> tuple[CellResult, ...]:
        return tuple(cell for cell in self.cells if cell.model == model)

    def picture_file(self, kind: str) -> Path:
        """The zarr group of small pictures: "examples", "leakage" or "explained_fold-K"."""
        return self.folder / f"{self.name}_{kind}.zarr"


@dataclass(frozen=True)
class StudyResult:
    """All that the report is made from."""

    output: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    datasets: tuple[DatasetResult, ...]
    statistics: Mapping[str, pd.DataFrame]

    @property
    def name(self) -> str:
        return str(self.config.get("name", "study"))

    @property
    def folds(self) -> int:
        """The most folds that a data set has."""
        return max((cell.fold + 1 for dataset in self.datasets for cell in dataset.planned), default=1)

    @property
    def confidence(self) -> float:
        return float(self.config.get("statistics", {}).get("confidence", 0.95))

    def table(self, name: str, dataset: str, model: str | None = None, images: str | None = None) -> pd.DataFrame:
        """The rows of a table of statistics that belong to a data set, and to a model and set of images if given."""
        table = self.statistics[name]
        rows = table["dataset"] == dataset
        if model is not None:
            rows &= table["model"] == model
        if images is not None:
            rows &= table["images"] == images
        return table[rows]


def read_study(output: Path) -> StudyResult:
    """Read a study's folder.

    Raises InputError when the folder has no `study.toml`.
    """
    path = output / "study.toml"
    if not path.is_file():
        raise InputError(f"output: expected the folder of a study, got {str(output)!r}, which has no study.toml.")
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    cells = stored_plan(read_config(path), output)
    patients, parts = _images(output / "splits.parquet")
    return StudyResult(
        output=output,
        config=config,
        environment=_json(output / "environment.json"),
        datasets=tuple(
            _read_dataset(
                output,
                settings,
                tuple(cell for cell in cells if cell.dataset.name == settings["name"]),
                patients.get(settings["name"], {}),
                parts.get(settings["name"], {}),
            )
            for settings in config.get("datasets", ())
        ),
        statistics={
            name: _csv(output / "statistics" / f"{name}.csv", columns) for name, columns in STATISTICS_COLUMNS.items()
        },
    )


def open_pictures(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Arrays and attributes of a small zarr group, or None where there is none.

    Those of volumes are left on disk until one of them is asked for.
    """
    if not path.is_dir():
        return None
    group = zarr.open_group(path, mode="r")
    arrays: dict[str, Any] = dict(group.arrays())
    if "volumes" not in arrays:
        arrays = {name: np.asarray(array[:]) for name, array in arrays.items()}
    return arrays, dict(group.attrs)


def _read_dataset(
    output: Path,
    settings: Mapping[str, Any],
    planned: tuple[Cell, ...],
    patient_ids: Mapping[str, str],
    parts: Mapping[str, str],
) -> DatasetResult:
    name, folder = str(settings["name"]), output / "data"
    stores = [(cell, CellStore(cell.folder(output))) for cell in planned]
    cells = tuple(_read_cell(cell, store) for cell, store in stores if store.finished)
    failed = [(cell, _json(store.failure)) for cell, store in stores if not store.finished]
    return DatasetResult(
        name=name,
        settings=settings,
        facts=_json(folder / f"{name}.json"),
        patient_ids=patient_ids,
        parts=parts,
        cells=cells,
        planned=planned,
        failures={f"{cell.arm}, {cell.place}": str(found["reason"]) for cell, found in failed if found},
        folder=folder,
    )


def _read_cell(cell: Cell, store: CellStore) -> CellResult:
    tables = {
        "history": _parquet(store.history, CELL_COLUMNS["history"]),
        "predictions": _parquet(store.predictions, CELL_COLUMNS["predictions"]),
        "explained": _parquet(store.explained, CELL_COLUMNS["explained"]),
        "verdicts": _parquet(store.verdicts, CELL_COLUMNS["verdicts"]),
    }
    card, times = _json(store.card), _json(store.times)
    return CellResult(cell.dataset.name, cell.arm, cell.fold, cell.place, store, card, times, **tables)


def _images(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Per data set: each sample's patient, only to keep it out of the report, and its part in the first fold."""
    if not path.exists():
        return {}, {}
    table = pd.read_parquet(path, columns=["dataset", "sample", "patient_id", "fold", "split"])
    patients, parts = {}, {}
    for name, rows in table.groupby("dataset"):
        patients[str(name)] = dict(zip(rows["sample"], rows["patient_id"].astype(str), strict=True))
        first = rows[rows["fold"] == rows["fold"].min()]
        parts[str(name)] = dict(zip(first["sample"], first["split"].astype(str), strict=True))
    return patients, parts


def _json(path: Path) -> Any:
    return read_json(path) if path.exists() else {}


def _csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV with at least `columns`; names stay text, also where they look like numbers or missing values."""
    if not path.exists() or path.stat().st_size == 0:
        return pd.DataFrame(columns=list(columns))
    words = dict.fromkeys((*_WORDS, "sample", "split", "kind", "sentence"), str)
    blanks = {name: [""] for name in columns if name not in words}
    table = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=blanks)
    return table.reindex(columns=list(dict.fromkeys((*columns, *table.columns))))


def _parquet(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=list(columns))
