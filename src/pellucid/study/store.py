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
        self.maps = folder / "maps.zarr"
        self.scores = folder / "scores.parquet"
        self.explained = folder / "explained.parquet"
        self.card = folder / "cell.json"
        self.times = folder / "times.json"
        self._inputs = folder / "inputs.json"
        self._shards = folder / "shards"

    @property
    def finished(self) -> bool:
        return self.card.exists()

    def accept(self, inputs: Mapping[str, str]) -> None:
        """Drop what was made from other inputs than these; what was made from the same ones stays.

        `inputs` has the fingerprints "training" and "explaining"; the second depends on the first.
        """
        known = read_json(self._inputs) if self._inputs.exists() else None
        if known == dict(inputs):
            return
        stale = [self.card, self.times, self.scores, self.explained]
        if known is None or known["training"] != inputs["training"]:
            stale += [self.folder / "resume.ckpt", self.history, self.weights, self.predictions]
        for path in stale:
            path.unlink(missing_ok=True)
        for tree in (self.maps, self._shards):
            shutil.rmtree(tree, ignore_errors=True)
        write_json(self._inputs, dict(inputs))

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
    """One table, such as "predictions", of every finished cell among `folders`, with dataset, model and fold."""
    tables = []
    for folder in folders:
        store = CellStore(folder)
        path = folder / f"{name}.parquet"
        if store.finished and path.exists():
            card = read_json(store.card)
            table = read_table(path)
            for position, key in enumerate(("dataset", "model", "fold")):
                table.insert(position, key, card[key])
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def write_pictures(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Sequence[Any]]) -> None:
    """Write a small zarr group of pictures whole or not at all."""
    with folder_written_whole(path) as aside:
        group = zarr.open_group(aside, mode="w", attributes=dict(attributes))
        for name, values in arrays.items():
            group.create_array(name, data=values, chunks=(max(1, min(SHARD, len(values))), *values.shape[1:]))
