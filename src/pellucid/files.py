"""Files that appear whole or not at all, in forms that repeat byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import InputError, StorageError

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path aside to write to, and rename it to `path` when the block ends well.

    A full disk or a missing right raises PellucidError that names the file; whatever goes wrong, the
    unfinished file is removed and a former version of `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        with aside.open("rb") as handle:
            os.fsync(handle.fileno())
        aside.replace(path)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
    except Exception as error:  # writers of weights have error classes of their own for a full disk
        if shutil.disk_usage(path.parent).free < 2**20:
            raise cannot_write(path, "no space left on device") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Give an empty folder aside to fill, and rename it to `path` when the block ends well.

    As `written_whole`; a former folder `path` is moved away for that moment and removed only afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, former = (path.with_name(f".{path.name}.{os.getpid()}.{ending}") for ending in ("part", "former"))
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            path.rename(former)
        aside.rename(path)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
    finally:
        if former.exists() and not path.exists():
            former.rename(path)
        for leftover in (aside, former):
            shutil.rmtree(leftover, ignore_errors=True)


def cannot_write(path: Path, reason: str) -> StorageError:
    """The error of a file that can't be written, with the way on."""
    return StorageError(
        f"can't write {path}: {reason}. What was finished before is kept: "
        "make room or choose another --output, then run the same command to go on."
    )


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet or CSV, by the file's ending."""
    with written_whole(path) as aside:
        if path.suffix == ".parquet":
            table.to_parquet(aside, index=False)
        elif path.suffix == ".csv":
            table.to_csv(aside, index=False, lineterminator="\n")
        else:
            raise InputError(f"path: expected a name ending in .parquet or .csv, got {path.name!r}.")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote."""
    import pandas as pd

    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def inside(folder: Path, path: str | Path) -> Path:
    """`folder / path`, refused when it leads out of the folder.

    >>> inside(Path("/data"), "../etc/passwd")
    Traceback (most recent call last):
    ...
    pellucid.errors.InputError: path: expected a file inside /data, got '../etc/passwd'.
    """
    root = folder.resolve()
    full = (root / path).resolve()
    if not full.is_relative_to(root):
        raise InputError(f"path: expected a file inside {folder}, got {str(path)!r}.")
    return full
