"""Values of a few images at a time, kept as they come: what is there isn't computed again, whatever stopped a run."""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pellucid.attribution import Explanation, GridWarning, aims, explain, load_explanation
from pellucid.attribution.engine import MethodChoice, Precision
from pellucid.errors import expected
from pellucid.files import read_json, read_table, write_json, write_table
from pellucid.metrics import Truth
from pellucid.metrics.block import NOT_FINITE, WHOLE_SET
from pellucid.metrics.evaluate import (
    MissingValuesWarning,
    evaluate,
    with_controls,
)
from pellucid.metrics.families import Metric
from pellucid.metrics.kept import Value, fingerprint
from pellucid.metrics.lesions import Detections, detections
from pellucid.progress import Advance, in_parts
from pellucid.registry import Choice
from pellucid.study.known_images import KnownImage
from pellucid.study.notes import noted
from pellucid.study.saved_maps import SavedMap

_COLUMNS = ["row", "method", "metric", "value", "reason"]
_MADE, _MAPS, _DETECTIONS = "made.json", "maps.zarr", "detections.json"
_log = logging.getLogger(__name__)

Values = dict[tuple[int, str, str], Value]  # by the image's row, the method and the metric


@dataclass(frozen=True)
class Scoring:
    """What every shard is scored by.

    `methods` are made, or else `saved` are the labels of those whose maps were saved; `controls` are made beside.
    `given` says which of "masks", "boxes" and "anatomy" are known of any image.
    """

    network: nn.Module
    weights: str
    methods: Sequence[MethodChoice]
    saved: Sequence[str]
    controls: Sequence[str]
    metrics: Sequence[Choice[Metric]]
    layers: Sequence[str]
    given: frozenset[str]
    batch_size: int
    max_memory: int | None
    seed: int
    bank: Tensor | None
    multi_label: bool = False
    precision: Precision = "float32"
    compile: bool = False

    @property
    def labels(self) -> list[str]:
        """The methods, in the order of the table."""
        made = [each if isinstance(each, str) else each.label for each in self.methods]
        return [*self.saved, *made, *(name for name in self.controls if name not in (*self.saved, *made))]

    @property
    def localised(self) -> bool:
        """Whether maps are asked where the findings are."""
        return "masks" in self.given and any(choice.entry.family == "localisation" for choice in self.metrics)

    @property
    def whole_set(self) -> list[Choice[Metric]]:
        """The metrics that compare each image with all others."""
        return [choice for choice in self.metrics if WHOLE_SET & set(choice.entry.needs)]


@dataclass(frozen=True)
class Shard:
    """A few images (B, C, *S), their truth, the class that is explained, and the saved maps where there are any."""

    number: int
    images: Tensor
    logits: Tensor
    target: Tensor
    probability: Tensor
    known: Sequence[KnownImage]
    saved: Sequence[SavedMap]

    def truth(self, given: frozenset[str]) -> Truth:
        """What localisation is measured by."""
        known = self.known
        spacing = [each.spacing for each in known]
        return Truth(
            masks=torch.stack([each.mask for each in known]) if "masks" in given else None,
            boxes=[each.boxes for each in known] if "boxes" in given else None,
            anatomy=torch.stack([each.anatomy for each in known]) if "anatomy" in given else None,
            spacing=None if None in spacing else torch.tensor(spacing, dtype=torch.float64),
        )


class ShardValues:
    """The values of one shard, kept in a folder whose name tells them from those of other images, maps or weights."""

    def __init__(self, shard: Shard, scoring: Scoring, folder: Path) -> None:
        self._shard, self._scoring = shard, scoring
        truth = shard.truth(scoring.given)
        told = [truth.masks, *(truth.boxes or ()), truth.anatomy, truth.spacing, scoring.bank]
        saved = [part for each in shard.saved for part in (each.seed, *each.maps.values())]
        self.key = fingerprint(
            version("pellucid"), scoring.weights, scoring.labels, list(scoring.layers), scoring.seed, scoring.precision,
            shard.number, shard.images, shard.target, *told, *saved,
        )  # fmt: skip
        self.folder = folder / self.key
        self._truth = truth
        self._explanation: Explanation | None = None

    def values(self, advance: Advance, *, maps: bool = False) -> Values:
        """Each image's value by method and metric, but for the metrics that compare all images.

        Where there are such metrics the maps that are made are kept for them; `maps` makes them in any case.
        """
        found = _read(self.folder)
        wanted = [choice for choice in self._scoring.metrics if choice not in self._scoring.whole_set]
        known = {metric for _, _, metric in found}
        for group in _together([choice for choice in wanted if choice.label not in known]):
            found |= self._evaluated(group, advance)
        if (maps and not (self.folder / _MAPS).exists()) or not (self.folder / _MADE).exists():
            self.explanation(advance)
        done = sum(choice.label in known for choice in wanted)
        advance(done * len(self._shard.images) * len(self._scoring.labels))
        names = {choice.label for choice in wanted}
        return {key: value for key, value in found.items() if key[2] in names}

    def detections(self, advance: Advance) -> dict[str, list[Detections]]:
        """By method, what each map finds of the lesions of its image, where the image has a mask."""
        path = self.folder / _DETECTIONS
        if not path.exists():
            known, maps = self._shard.known, self.explanation(advance).maps
            masked = [row for row, each in enumerate(known) if "mask" not in each.missing]
            content = {}
            for label in self._scoring.labels:
                usable = [row for row in masked if bool(maps[label][row].isfinite().all())]
                pairs = ((maps[label][row : row + 1], known[row].mask[None], known[row].spacing) for row in usable)
                found = [detections(each, mask, spacing=spacing)[0] for each, mask, spacing in pairs]
                content[label] = [[_with_null(each.lesions), each.wrong.tolist()] for each in found]
            write_json(path, content)
        return {
            label: [Detections(_from_null(lesions), np.array(wrong, dtype=float)) for lesions, wrong in found]
            for label, found in read_json(path).items()
        }

    def _evaluated(self, group: Sequence[Choice[Metric]], advance: Advance) -> Values:
        shard, scoring = self._shard, self._scoring
        is_made = self._explanation is None and not shard.saved and not (self.folder / _MAPS).exists()
        half = len(scoring.labels) * len(group) / 2  # of an image's steps
        with noted(_log, MissingValuesWarning, GridWarning):  # which are counted in the end
            table = evaluate(
                scoring.network,
                shard.images,
                self.explanation(advance, half),
                metrics=group,
                masks=self._truth,
                generator=self._generator(),
                batch_size=scoring.batch_size,
                progress=in_parts(advance, 2) if is_made else advance,
                bank=scoring.bank,
                max_memory=scoring.max_memory,
                multi_label=scoring.multi_label,
                precision=scoring.precision,
                compile=scoring.compile,
            )
        table = table.rename(columns={"sample": "row"})
        name = fingerprint(*(choice.label for choice in group))
        write_table(self.folder / f"{name}.parquet", table[_COLUMNS])
        return _values(table)

    def explanation(self, advance: Advance, steps: float = 0) -> Explanation:
        """The maps of all methods, saved ones and those that are made here, at so many steps for an image."""
        if self._explanation is not None:
            return self._explanation
        if (self.folder / _MAPS).exists():
            self._explanation = load_explanation(self.folder / _MAPS)
            return self._explanation
        shard, scoring = self._shard, self._scoring
        if shard.saved:
            explanation = self._joined()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GridWarning)  # told once, in the end
                explanation = explain(
                    scoring.network,
                    shard.images,
                    methods=list(scoring.methods),
                    target=aims.multi_label(shard.target) if scoring.multi_label else shard.target,
                    layer=scoring.layers[0] if len(scoring.layers) == 1 else list(scoring.layers),
                    batch_size=scoring.batch_size,
                    generator=self._generator(),
                    progress=lambda images=1, note="": advance(images * steps, note or "explaining"),
                    max_memory=scoring.max_memory,
                    precision=scoring.precision,  # not compiled, as they are made again by metrics
                )
        explanation = with_controls(scoring.network, shard.images, explanation, scoring.controls)
        about = {name: getattr(explanation, name) for name in ("layer", "grid", "coinciding")}
        write_json(self.folder / _MADE, about)
        if scoring.whole_set:
            explanation.save(self.folder / _MAPS)
        self._explanation = explanation
        return explanation

    def _joined(self) -> Explanation:
        """The maps that were saved, image by image."""
        shard = self._shard
        layers = sorted({each.layer for each in shard.saved})
        if len(layers) > 1:
            raise expected("maps", "maps made at one layer", " and ".join(map(repr, layers)))
        seeds = [each.seed for each in shard.saved if each.seed is not None]
        return Explanation(
            maps={label: torch.stack([each.maps[label] for each in shard.saved]) for label in self._scoring.saved},
            target=shard.target,
            score=shard.logits.gather(1, shard.target[:, None])[:, 0],
            probability=shard.probability,
            layer=layers[0],
            grid=(),
            seconds={},
            seeds=torch.tensor(seeds, dtype=torch.long) if len(seeds) == len(shard.saved) else None,
        )

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed((self._scoring.seed << 32) + self._shard.number)


def _with_null(values: NDArray[np.float64]) -> list[float | None]:
    """For JSON, which has no infinity: the value of a lesion that no peak finds is null."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _from_null(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([-math.inf if value is None else value for value in values], dtype=float)


def made_in(folder: Path) -> dict[str, Any]:
    """The layer of a shard's maps, its grid, and the methods that coincide, as they were when the maps were made."""
    made: dict[str, Any] = read_json(folder / _MADE)
    return made


def whole_set_values(folders: Sequence[Path], classes: Tensor, scoring: Scoring) -> Values | None:
    """Values of the metrics that compare each image with all others; one method's maps are held at a time.

    Arguments:
        folders: of the shards of all images, in which their maps were kept.
        classes: (N,) the class that the network predicts of each.
        scoring: metrics and methods.

    Returns:
        The values by the image's place, or None where there are none from before and the maps aren't there either.
    """
    if not scoring.whole_set:
        return {}
    home = folders[0].parent / fingerprint("all images", *(folder.name for folder in folders))
    values = _read(home)
    known = {metric for _, _, metric in values}
    wanted = [choice for choice in scoring.whole_set if choice.label not in known]
    if wanted and not all((folder / _MAPS).exists() for folder in folders):
        return None
    for choice in wanted:
        rows: list[tuple[object, ...]] = []
        for method in scoring.labels:
            maps = torch.cat([load_explanation(folder / _MAPS).maps[method] for folder in folders])
            found = _whole_set(choice, maps, classes)
            rows += [(row, method, choice.label, *value) for row, value in enumerate(found)]
        table = pd.DataFrame(rows, columns=_COLUMNS).astype({"value": "float64"})
        write_table(home / f"{fingerprint(choice.label)}.parquet", table)
        values |= _values(table)
    for folder in folders:
        shutil.rmtree(folder / _MAPS, ignore_errors=True)
    names = {choice.label for choice in scoring.whole_set}
    return {key: value for key, value in values.items() if key[2] in names}


def _whole_set(choice: Choice[Metric], maps: Tensor, classes: Tensor) -> list[Value]:
    finite = maps.flatten(1).isfinite().all(dim=1)
    given = {"all maps": maps[finite], "all classes": classes[finite]}
    found = torch.full((len(maps),), math.nan, dtype=torch.float64)
    if bool(finite.any()):
        found[finite] = choice.entry.function(*(given[need] for need in choice.entry.needs), **choice.options).double()
    return [
        (value, "" if not math.isnan(value) else choice.entry.missing if usable else NOT_FINITE)
        for value, usable in zip(found.tolist(), finite.tolist(), strict=True)
    ]


def _together(choices: Sequence[Choice[Metric]]) -> list[list[Choice[Metric]]]:
    """Metrics in groups that share nothing with each other: a group is evaluated, and kept, as a whole.

    So what a stop costs is small, and yet rows meet in the same batches as if there had been none: the same bytes.
    """
    groups: dict[str, list[Choice[Metric]]] = {}
    joined = any({"scores", "again"} <= set(choice.entry.needs) for choice in choices)
    for choice in choices:
        needs = choice.entry.needs
        shared = "scores" if "scores" in needs else "again" if "again" in needs else "maps"
        groups.setdefault("scores" if joined and shared == "again" else shared, []).append(choice)
    return list(groups.values())


def _read(folder: Path) -> Values:
    values: Values = {}
    for path in sorted(folder.glob("*.parquet")):
        values |= _values(read_table(path))
    return values


def _values(table: pd.DataFrame) -> Values:
    rows = zip(table["row"], table["method"], table["metric"], table["value"], table["reason"], strict=True)
    return {(int(row), method, metric): (float(value), reason) for row, method, metric, value, reason in rows}
