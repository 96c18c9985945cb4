"""What a study leaves on disk, and how a cell knows what it was made from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from pellucid.files import folder_written_whole, read_json, read_table, write_json

SHARD = 16  # explained images per shard: what a kill costs at most


def fingerprint(*parts: Any) -> str:
    """A short hash of values that JSON can hold; equal values give equal hashes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def table_fingerprint(table: pd.DataFrame) -> str:
    """A hash of a table's columns and values, whatever the order of its rows."""
    lines = table.sort_values(list(table.columns)).to_csv(index=False)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


class CellStore:
    """The files of one cell. A stage is done when its last file is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder / "weights.safetensors"
        self.history = folder / "history.parquet"
        self.predictions = folder / "predictions.parquet"
        self.external = folder / "external.parquet"
        self.maps = folder / "maps.zarr"
        self.scores = folder / "scores.parquet"
        self.verdicts = folder / "verdicts.parquet"
        self.explained = folder / "explained.parquet"
        self.card = folder / "cell.json"
        self.times = folder / "times.json"
        self.combination = folder / "combination.json"
        self.failure = folder / "failure.json"
        self._inputs = folder / "inputs.json"
        self._shards = folder / "shards"

    @property
    def finished(self) -> bool:
        return self.card.exists()

    def stale(self, inputs: Mapping[str, str]) -> tuple[str, ...]:
        """Which finished stages `accept` would drop: "training", "explaining", "external"."""
        known = read_json(self._inputs) if self._inputs.exists() else {}
        left = {"training": self.history, "explaining": self.card, "external": self.external}
        return tuple(stage for stage, path in left.items() if path.exists() and known.get(stage) != inputs.get(stage))

    def accept(self, inputs: Mapping[str, str]) -> None:
        """Drop what was made from other inputs than these; what was made from the same ones stays.

        `inputs` has the fingerprints "training", "explaining" and "external"; the others depend on the first.
        """
        known = read_json(self._inputs) if self._inputs.exists() else {}
        if known == dict(inputs):
            return
        changed = {stage for stage in inputs if known.get(stage) != inputs[stage]}
        if "training" in changed:
            changed |= {"explaining", "external"}
        stale: list[Path] = [self.failure]
        if "training" in changed:
            stale += [self.folder / "resume.ckpt", self.history, self.weights, self.predictions, self.tuning]
            stale.append(self.combination)
        if "explaining" in changed:
            stale += [self.card, self.times, self.scores, self.verdicts, self.explained]
            for tree in (self.maps, self._shards):
                shutil.rmtree(tree, ignore_errors=True)
        if "external" in changed:
            stale.append(self.external)
        for path in stale:
            path.unlink(missing_ok=True)
        write_json(self._inputs, dict(inputs))

    @property
    def tuning(self) -> Path:
        """The inner folds of nested cross-validation: a row per combination of settings."""
        return self.folder / "tuning.parquet"

    def shard_done(self, shard: int) -> bool:
        return self._shard(shard).exists()

    def write_shard(self, shard: int, rows: Mapping[str, Any], maps: Mapping[str, np.ndarray], total: int) -> None:
        """Write the maps of one shard, then its rows, which mark it as done."""
        # a store without any finished shard may have been cut off while it was made
        group = zarr.open_group(self.maps, mode="a" if self._any_shard() else "w")
        start = shard * SHARD
        for method, values in maps.items():
            if method not in group:
                shape = (total, *values.shape[1:])
                group.create_array(
                    method,
                    shape=shape,
                    chunks=(min(SHARD, total), *values.shape[1:]),
                    dtype="float32",
                    attributes={"resize": "bilinear"},
                )
            array = group[method]
            assert isinstance(array, zarr.Array)
            array[start : start + len(values)] = values
        write_json(self._shard(shard), dict(rows))

    def read_shards(self) -> list[dict[str, Any]]:
        """The rows of all finished shards, in order."""
        return [read_json(path) for path in sorted(self._shards.glob("*.json"))]

    def drop_shards(self) -> None:
        shutil.rmtree(self._shards, ignore_errors=True)

    def _shard(self, shard: int) -> Path:
        return self._shards / f"{shard:05d}.json"

    def _any_shard(self) -> bool:
        return any(self._shards.glob("*.json"))


def read_cells(folders: Iterable[Path], name: str) -> pd.DataFrame:
    """One table, such as "predictions", of every finished cell among `folders`.

    Each row says whose it is: dataset, model (what is compared: the network, with its enhancement where there is
    one), network, enhancement, seed and fold.
    """
    tables = []
    for folder in folders:
        store = CellStore(folder)
        path = folder / f"{name}.parquet"
        if store.finished and path.exists():
            card = read_json(store.card)
            table = read_table(path)
            for position, key in enumerate(("dataset", "model", "network", "enhancement", "seed", "fold")):
                table.insert(position, key, card[key])
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def read_failures(folders: Iterable[Path]) -> pd.DataFrame:
    """A row per cell that could not be computed: dataset, model, seed, fold and the reason."""
    stores = [CellStore(folder) for folder in folders]
    rows = [read_json(store.failure) for store in stores if store.failure.exists() and not store.finished]
    return pd.DataFrame(rows, columns=["dataset", "model", "seed", "fold", "reason"])


def write_pictures(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Sequence[Any]]) -> None:
    """Write a small zarr group of pictures whole or not at all; of volumes, one is read at a time."""
    with folder_written_whole(path) as aside:
        group = zarr.open_group(aside, mode="w", attributes=dict(attributes))
        for name, values in arrays.items():
            together = 1 if "volumes" in arrays else max(1, min(SHARD, len(values)))
            group.create_array(name, data=values, chunks=(together, *values.shape[1:]))
