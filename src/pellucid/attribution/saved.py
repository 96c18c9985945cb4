"""Explanations on disk: a zarr group that appears whole or not at all and comes back to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor

from pellucid.attribution.explanation import Explanation
from pellucid.attribution.resize import resize_maps
from pellucid.errors import InputError, UnreadableFileError, expected
from pellucid.files import folder_written_whole

_FORM = "pellucid-explanation"
_VERSION = 1
_IMAGES_PER_CHUNK = 16
_ASIDE = ("target", "score", "probability")


def save_explanation(explanation: Explanation, path: Path | str) -> None:
    """Write an explanation as a zarr group, in place of an explanation that `path` held before.

    A CAM is kept at its layer's grid, a thousand times smaller, and enlarged when it is read; where that would not
    give its maps to the last bit, as for those enlarged on another device or a user's own, the maps are kept too.

    Raises:
        InputError: `path` holds something else, or a map's dtype has no form on disk.
        PellucidError: it can't be written; what was there before is kept.
    """
    path = Path(path).expanduser().resolve()
    if path.exists() and not _is_explanation(path):
        raise expected("path", "a new name or a saved explanation", f"{str(path)!r}, which holds something else")
    arrays = {name: _array(getattr(explanation, name), name) for name in _ASIDE}
    layer_labels = list(explanation.layer_maps)
    for place, label in enumerate(layer_labels):
        arrays[f"layer_maps/{place}"] = _array(explanation.layer_maps[label], label)
    maps: list[dict[str, Any]] = []
    for place, (label, values) in enumerate(explanation.maps.items()):
        size = _enlarged_size(explanation, label)
        maps.append({"label": label, "size": size, "resize": None if size is None else "linear, half-pixel centres"})
        if size is None:
            arrays[f"maps/{place}"] = _array(values, label)
    attributes: dict[str, Any] = {
        _FORM: _VERSION,
        "maps": maps,
        "layer_maps": layer_labels,
        "layer": explanation.layer,
        "grid": list(explanation.grid),
        "seconds": dict(explanation.seconds),
        "coinciding": [list(group) for group in explanation.coinciding],
        "seed": explanation.seed,
        "seeds": None if explanation.seeds is None else explanation.seeds.tolist(),
        "digest": _digest(arrays),
    }
    with folder_written_whole(path) as aside:
        group = zarr.open_group(aside, mode="w", attributes=attributes)
        for name, stored in arrays.items():
            chunks = (max(1, min(_IMAGES_PER_CHUNK, len(stored))), *stored.shape[1:])
            group.create_array(name, data=stored, chunks=chunks)


def load_explanation(path: Path | str) -> Explanation:
    """The explanation that `Explanation.save` wrote, its maps as they were.

    Raises:
        InputError: nothing is there, or something else.
        UnreadableFileError: the explanation is damaged, or of a later form than this version reads.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"path: expected a saved explanation, got {str(path)!r}, which isn't there.")
    if not _is_explanation(path):
        raise InputError(f"path: expected a saved explanation, got {str(path)!r}, which is something else.")
    try:
        return _read(zarr.open_group(path, mode="r"))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise UnreadableFileError(f"can't read {path}: the explanation is damaged ({error}).") from error


def _read(group: zarr.Group) -> Explanation:
    about: Mapping[str, Any] = dict(group.attrs)
    if about[_FORM] != _VERSION:
        raise ValueError(f"its form is {about[_FORM]}, and this version of pellucid reads {_VERSION}")
    kept = [f"layer_maps/{place}" for place in range(len(about["layer_maps"]))]
    kept += [f"maps/{place}" for place, entry in enumerate(about["maps"]) if entry["size"] is None]
    arrays = {name: _stored(group, name) for name in (*_ASIDE, *kept)}
    if _digest(arrays) != about["digest"]:
        raise ValueError("values are missing or were changed")
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    layer_maps = {label: tensors[f"layer_maps/{place}"] for place, label in enumerate(about["layer_maps"])}
    maps = {}
    for place, entry in enumerate(about["maps"]):
        label, size = entry["label"], entry["size"]
        maps[label] = tensors[f"maps/{place}"] if size is None else resize_maps(layer_maps[label], size)
    return Explanation(
        maps=maps,
        target=tensors["target"],
        score=tensors["score"],
        probability=tensors["probability"],
        layer=about["layer"],
        grid=tuple(about["grid"]),
        seconds=about["seconds"],
        layer_maps=layer_maps,
        coinciding=tuple(tuple(names) for names in about["coinciding"]),
        seed=about["seed"],
        seeds=None if about.get("seeds") is None else torch.tensor(about["seeds"], dtype=torch.long),
    )


def _is_explanation(path: Path) -> bool:
    try:
        return _FORM in zarr.open_group(path, mode="r").attrs
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _stored(group: zarr.Group, name: str) -> np.ndarray:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name} isn't an array")
    return np.asarray(array[...])


def _array(values: Tensor, name: str) -> np.ndarray:
    try:
        return values.detach().cpu().contiguous().numpy()
    except TypeError as error:
        do = "Convert it with .float()."
        raise expected(f"maps[{name!r}]", "a dtype that NumPy has, such as float32", values.dtype, do) from error


def _enlarged_size(explanation: Explanation, label: str) -> Sequence[int] | None:
    """The size to which a method's layer maps are enlarged; None where that wouldn't give its maps to the last bit."""
    maps, small = explanation.maps[label], explanation.layer_maps.get(label)
    if small is None or small.ndim != maps.ndim:
        return None
    size = list(maps.shape[explanation.target.ndim :])
    same = small.device.type == "cpu" and torch.equal(resize_maps(small, size), maps)
    return size if same else None


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        total.update(f"{name} {values.shape} {values.dtype.str}".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()
