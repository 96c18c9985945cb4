"""Values that were computed before, kept in a folder, so that a stopped evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from pellucid.files import read_table, write_table

Value = tuple[float, str]  # and why it is missing, where it is
_SECONDS = 5.0  # between two shards


class Kept:
    """Values by key; new ones are written in shards, each whole or not at all. Without a folder nothing is kept.

    Inside `with`, so that what isn't written yet is written on every way out.
    """

    def __init__(self, folder: Path | str | None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._known: dict[str, Value] = {}
        self._fresh: dict[str, Value] = {}
        self._written = time.monotonic()
        if self._folder is not None and self._folder.is_dir():
            for shard in sorted(self._folder.glob("*.parquet")):
                table = read_table(shard)
                rows = zip(table["key"], table["value"], table["reason"], strict=True)
                self._known.update({key: (float(value), reason) for key, value, reason in rows})

    def __bool__(self) -> bool:
        return self._folder is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def get(self, key: str) -> Value | None:
        """The value under a key; None where there is none."""
        return self._known.get(key)

    def add(self, values: Mapping[str, Value]) -> None:
        """Keep values; they are written every few seconds."""
        if self._folder is None:
            return
        self._known.update(values)
        self._fresh.update(values)
        if time.monotonic() - self._written >= _SECONDS:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._folder is None or not self._fresh:
            return
        import pandas as pd

        rows = [(key, value, reason) for key, (value, reason) in self._fresh.items()]
        table = pd.DataFrame(rows, columns=["key", "value", "reason"]).astype({"value": "float64", "reason": "str"})
        write_table(self._folder / f"{uuid.uuid4().hex}.parquet", table)
        self._fresh = {}


def fingerprint(*parts: object) -> str:
    """A short name of tensors, texts and numbers, which another content doesn't bear."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            values = part.detach().cpu().contiguous()
            digest.update(f"{values.dtype} {tuple(values.shape)} ".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
        else:
            digest.update(f"{part!r} ".encode())
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """A short name of a network's weights and of what it is made of."""
    tensors: Iterable[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    return fingerprint(repr(model), *(part for named in tensors for part in named))
