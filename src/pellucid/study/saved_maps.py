"""Maps that were saved before, and whether they are of these images, this network and this class."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pellucid.attribution import Explanation, load_explanation, resize_maps
from pellucid.attribution.engine import seeds_of
from pellucid.data.dicom.series import MARK
from pellucid.data.images import read_image
from pellucid.data.masks import on_voxels_of
from pellucid.data.resample import Frame, Geometry, grid_of
from pellucid.data.transforms import AS_STORED
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, UnreadableFileError, expected, unknown_name
from pellucid.files import inside, read_json
from pellucid.study.known_images import ListedImage

_ROUNDING = {"float32": 5e-3, "bfloat16": 5e-2}  # of a score on another device, relative to it or to 1
_DAMAGED = (OSError, ValueError, LookupError, TypeError, EOFError)


@dataclass(frozen=True)
class SavedMap:
    """Maps (*S) of one image by label, at the network's size, what they explain, and the seed of the image's draws."""

    maps: Mapping[str, Tensor]
    target: int
    score: float
    layer: str
    seed: int | None
    rounding: float

    def check(self, logits: Tensor) -> None:
        """Raise InputError where the network doesn't give the image the score that was explained."""
        if not 0 <= self.target < len(logits):
            raise expected("maps", f"a class from 0 to {len(logits) - 1}", self.target)
        score = float(logits[self.target])
        if not abs(score - self.score) <= self.rounding * max(1.0, abs(score)):
            raise InputError(
                f"its maps are of another image or another network: the score of class {self.target} was "
                f"{self.score:.4g} when it was explained and is {score:.4g} now"
            )


class SavedMaps(Protocol):
    """Maps of image files."""

    labels: tuple[str, ...]

    def of(self, image: ListedImage, lies: Geometry, lengths: Sequence[int]) -> SavedMap:
        """The maps of an image whose pixels lie so; raises InputError or UnreadableFileError where none fit it."""


def open_maps(
    path: Path, images: Sequence[ListedImage], weights: str, methods: Sequence[str], frame: Frame = AS_STORED
) -> SavedMaps:
    """The maps in a folder that `pellucid explain` wrote, or in an explanation that was saved.

    Arguments:
        path: the folder.
        images: those to be evaluated; a saved explanation must be of them all, in this order.
        weights: the digest of the network's weights.
        methods: labels to take; empty for all.
        frame: how volumes are laid before the network.

    Raises:
        InputError: neither of the two, or of other images, weights or methods.
    """
    if not path.exists():
        raise InputError(f"maps: expected a folder that pellucid explain wrote, got {str(path)!r}, which isn't there.")
    if (path / "zarr.json").is_file():
        return _Whole(load_explanation(path), images, methods)
    return _Records(path, images, weights, methods, frame)


def _chosen(there: Sequence[str], methods: Sequence[str]) -> tuple[str, ...]:
    for label in methods:
        if label not in there:
            raise unknown_name("method among the saved maps", label, there)
    return tuple(methods or there)


class _Whole:
    """An `Explanation` that was saved."""

    def __init__(self, explanation: Explanation, images: Sequence[ListedImage], methods: Sequence[str]) -> None:
        if len(explanation) != len(images):
            wanted = f"an explanation of {len(images)} images, in the order of their names"
            raise expected("maps", wanted, f"one of {len(explanation)}")
        if explanation.target.ndim != 1 or bool((explanation.target < 0).any()):
            raise expected("maps", "an explanation of one class per image", "one of several or of none")
        self._explanation = explanation
        self._places = {image.path: place for place, image in enumerate(images)}
        self.labels = _chosen(list(explanation.maps), methods)

    def of(self, image: ListedImage, lies: Geometry, lengths: Sequence[int]) -> SavedMap:
        whole, place = self._explanation, self._places[image.path]
        maps = {label: _fitting(whole.maps[label][place], label, lengths, None) for label in self.labels}
        score = float(whole.score[place])
        seed = int(seeds_of(whole)[place])
        return SavedMap(maps, int(whole.target[place]), score, whole.layer, seed, _ROUNDING["float32"])


class _Records:
    """What `pellucid explain` wrote: a record of each image, that names the files of its maps."""

    def __init__(
        self, folder: Path, images: Sequence[ListedImage], weights: str, methods: Sequence[str], frame: Frame
    ) -> None:
        self._folder, self._frame = folder, frame
        self._by_path: dict[Path, Path] = {}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in sorted(folder.glob("*.json")):
            record = _record(path)
            if record is not None:
                real = Path(record["image"]).resolve()
                self._by_path[real] = path
                self._by_name[real.name].append(path)
                if real.name.startswith(MARK):
                    self._by_folder[real.parent].append(path)
        if not self._by_path:
            raise expected("maps", "a folder that pellucid explain wrote, or a saved explanation", repr(str(folder)))
        first = next((path for path in map(self._path, images) if path is not None), None)
        if first is None:
            got = f"those of {len(self._by_path)} others in {folder}"
            raise expected("maps", f"maps of the images, such as {images[0].name}", got)
        self._weights = weights
        self.labels = _chosen(list(self._checked(first)["methods"]), methods)

    def _path(self, image: ListedImage) -> Path | None:
        """The record of an image: by its path, or by its name where only one bears it, since folders move.

        A DICOM series may be named by its folder, where that holds no other.
        """
        real = image.path.resolve()
        found = self._by_path.get(real) or (self._by_path.get(real.parent) if real.name.startswith(MARK) else None)
        if found is not None:
            return found
        for others in (self._by_folder.get(real, []), self._by_name.get(real.name, [])):
            if len(others) == 1:
                return others[0]
        return None

    def _checked(self, path: Path) -> dict[str, Any]:
        record = _record(path)
        assert record is not None
        own = record["model"]["weights"]
        if own != self._weights:
            do = "Pass the weights that were explained."
            raise expected("maps", f"maps of these weights ({self._weights})", f"of others ({own}) in {path.name}", do)
        return record

    def of(self, image: ListedImage, lies: Geometry, lengths: Sequence[int]) -> SavedMap:
        path = self._path(image)
        if path is None:
            raise InputError("it has no map")
        record = self._checked(path)
        if not isinstance(record["target_index"], int):
            raise InputError("its maps explain several classes; explain one")
        lacking = [label for label in self.labels if label not in record["methods"]]
        if lacking:
            raise InputError(f"it has no map by {lacking[0]}")
        try:
            raw = self._raw(record, lies, lengths)
            told = record["methods"]
            maps = {label: _fitting(raw[label], label, lengths, told[label]["resize"]) for label in self.labels}
            rounding = _ROUNDING.get(record.get("precision", "float32"), math.inf)
            layer = record["layer"] or ""
            return SavedMap(maps, record["target_index"], record["score"], layer, record.get("image_seed"), rounding)
        except InputError:
            raise
        except DecodeError as error:
            raise InputError(f"its maps don't fit it: {error}") from error
        except _DAMAGED as error:
            raise UnreadableFileError(f"its maps can't be read ({error})") from error

    def _raw(self, record: Mapping[str, Any], lies: Geometry, lengths: Sequence[int]) -> dict[str, Tensor]:
        files = record["maps"]
        if isinstance(files, str):
            with np.load(inside(self._folder, files), allow_pickle=False) as stored:
                return {label: torch.from_numpy(stored[label].astype(np.float32)) for label in self.labels}
        found = {}
        for label in self.labels:
            stored_map = read_image(inside(self._folder, files[label]))
            # at the volume's own voxels, but in a file of their own with axes of its own
            laid = on_voxels_of(stored_map, lies.shape, lies.affine).pixels[0].astype(np.float32)
            grid = grid_of(lies.shape, lies.affine, lengths, self._frame)
            found[label] = torch.from_numpy(grid.undo(laid))
        return found


def _record(path: Path) -> dict[str, Any] | None:
    """A record that `pellucid explain` wrote; None for any other file."""
    try:
        record: dict[str, Any] = read_json(path)
        wanted = {"image", "maps", "methods", "target_index", "score", "layer", "seed"}
        known = isinstance(record, dict) and wanted <= record.keys() and "weights" in record["model"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return record if known else None


def _fitting(raw: Tensor, label: str, lengths: Sequence[int], resize: str | None) -> Tensor:
    """A map at the network's size, to which one that says that it was made elsewhere is brought as `explain` does."""
    if raw.ndim != len(lengths) or (resize is None and tuple(raw.shape) != tuple(lengths)):
        wanted = " × ".join(map(str, lengths))
        raise InputError(f"its map by {label} has the shape {tuple(raw.shape)}, the network's images {wanted}")
    return resize_maps(raw.float(), lengths)
