"""What `explain` writes for other programs: DICOM objects that refer to the image, NIfTI and NRRD maps."""

from __future__ import annotations

import datetime
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pellucid.attribution import Explanation, resize_maps
from pellucid.data.images import MedicalImage
from pellucid.data.maps_out import write_map
from pellucid.data.resample import Grid
from pellucid.errors import InputError, UnreadableFileError, unknown_name
from pellucid.metrics.families import METRICS
from pellucid.models.checkpoints import ModelCard
from pellucid.study.explain_volumes import volume_maps

OBJECTS = ("parametric-map", "segmentation", "secondary-capture", "structured-report")
MAP_FILES = {"nifti": ".map.nii.gz", "nrrd": ".map.nrrd"}
WRITTEN = (*OBJECTS, *MAP_FILES)
"""What may be asked for."""
OWN_ENDINGS = (*MAP_FILES.values(), *(f".{kind}.dcm" for kind in OBJECTS))

if TYPE_CHECKING:
    from pellucid.data.dicom.objects import Finding

_log = logging.getLogger(__name__)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Wishes:
    """What to write of each image besides the overlay, the raw maps and the record.

    `kinds` of WRITTEN. `threshold` cuts segmentations, as `parse_threshold` takes it. `when` is the local time that
    DICOM objects carry: with the same time the same objects come out, to the last byte and UID.

    Raises InputError for another kind or threshold.
    """

    kinds: Sequence[str] = ()
    threshold: str = "0.5"
    when: datetime.datetime | None = None

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in WRITTEN:
                raise unknown_name("kind of file to write", kind, WRITTEN)
        if self.objects:
            from pellucid.data.dicom.segmentation import parse_threshold

            parse_threshold(self.threshold)

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(kind for kind in OBJECTS if kind in self.kinds)


NOTHING = Wishes()


@dataclass(frozen=True, eq=False)
class Explained:
    """One image with its explanation, and how it was laid before the network; `grid` for volumes.

    `values` are those of metrics, by method and metric.
    """

    image: MedicalImage
    one: Explanation
    classes: Sequence[str]
    asked: str
    index: int | None = None
    grid: Grid | None = None
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def maps(self) -> Iterator[tuple[str, Array]]:
        """Each method's label and values (…, *S) at the image's own pixels."""
        if self.grid is not None:
            for found in volume_maps(self.image, self.one, self.grid):
                yield found.label, found.values
            return
        for label, values in self.one.maps.items():
            made = self.one.layer_maps.get(label, values)[0]
            yield label, resize_maps(made, self.image.pixels.shape[1:]).numpy()


def write_wanted(
    explained: Explained, card: ModelCard, weights: str, out: Path, name: str, wishes: Wishes
) -> Mapping[str, Any]:
    """Write what is wished for of one image; gives what its record says of that, {} where nothing was.

    What can't be written of this image, such as DICOM objects of a picture that isn't DICOM, is told in a note and in
    the record, and nothing else is lost. Raises StorageError.
    """
    if not wishes.kinds:
        return {}
    files: list[str] = []
    left_out: list[str] = []
    for kind, ending in MAP_FILES.items():
        if kind in wishes.kinds:
            files += _write_maps(explained, out, name, ending)
    when = wishes.when or datetime.datetime.now().replace(microsecond=0)
    if wishes.objects:
        try:
            made, missing = _write_objects(explained, card, weights, (out, name), wishes, when)
        except (InputError, UnreadableFileError) as error:
            left_out.append(f"{', '.join(wishes.objects)}: {error}")
        else:
            files += [path.name for path in made]
            left_out += missing
    for reason in left_out:
        _log.warning("note: %s: not written: %s", name, reason)
    said: dict[str, Any] = {"files": files, "left_out": left_out}
    if wishes.objects:
        said |= {"threshold": wishes.threshold, "when": when.isoformat()}
    return {"written": said}


def _write_maps(explained: Explained, out: Path, name: str, ending: str) -> list[str]:
    """A file for each method; those that a volume's maps have anyway are only named."""
    files: list[str] = []
    for label, values in explained.maps():
        path = out / f"{name}.{_plain(label)}{ending}"
        if path.name in files:  # labels that differ in signs alone
            path = out / f"{name}.{_plain(label)}-{len(files)}{ending}"
        if not (ending == MAP_FILES["nifti"] and explained.grid is not None):
            write_map(path, values, explained.image, label)
        files.append(path.name)
    return files


def _plain(label: str) -> str:
    return re.sub(r"[^\w.-]+", "-", label).strip(".-") or "map"


def _write_objects(
    explained: Explained,
    card: ModelCard,
    weights: str,
    where: tuple[Path, str],
    wishes: Wishes,
    when: datetime.datetime,
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    # highdicom takes half a second to load, which those who write no object shouldn't wait for
    from pellucid.data.dicom.objects import About, Map, Metric
    from pellucid.data.dicom.outputs import Wanted, write_objects
    from pellucid.data.dicom.segmentation import parse_threshold

    findings = _findings(explained, card)
    maps = []
    for label, values in explained.maps():
        classes = values if explained.one.target.ndim == 2 else values[None]
        metrics = tuple(
            Metric(name, value, source=METRICS.from_label(name).entry.source)
            for name, value in explained.values.get(label, {}).items()
        )
        maps += [Map(label, each, finding, metrics) for each, finding in zip(classes, findings, strict=True)]
    wanted = Wanted(wishes.objects, parse_threshold(wishes.threshold), card.intensity, explained.index)
    made = write_objects(explained.image, maps, About(card.architecture, weights, when), *where, wanted)
    return made.files, made.left_out


def _findings(explained: Explained, card: ModelCard) -> list[Finding]:
    """The explained classes, in the order of the maps."""
    from pellucid.data.dicom.objects import Finding

    one = explained.one
    indices, scores, probabilities = (
        values[0].reshape(-1).tolist() for values in (one.target, one.score, one.probability)
    )
    highest = max(scores)
    known = not card.multi_label and explained.asked in ("predicted", "all")  # labels don't exclude each other
    return [
        Finding(
            explained.classes[int(index)],
            score,
            probability if math.isfinite(probability) else None,
            score == highest if known else None,
        )
        for index, score, probability in zip(indices, scores, probabilities, strict=True)
    ]
