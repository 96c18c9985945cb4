"""All objects of one explained image, as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from pellucid.data.dicom.capture import capture, overlay_picture
from pellucid.data.dicom.objects import About, Map, write
from pellucid.data.dicom.parametric_map import parametric_map
from pellucid.data.dicom.segmentation import HALF, Threshold, segmentation
from pellucid.data.dicom.source import source_of
from pellucid.data.dicom.structured_report import Shown, structured_report
from pellucid.data.images import MedicalImage
from pellucid.data.quiet import quiet_loggers
from pellucid.data.views import Shown as Look
from pellucid.errors import expected, unknown_name

KINDS = ("parametric-map", "segmentation", "secondary-capture", "structured-report")
ENDING = ".dcm"


@dataclass(frozen=True)
class Written:
    """The files written, in the order of the maps, the report last; and what wasn't written, and why."""

    files: tuple[Path, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """Which objects to write, by which threshold regions are cut, and as what overlays are drawn.

    `index` is the frame, from 0, where the image is one of several of its file; `intensity` is that by
    which the network sees images, and says by which window they are shown (`as_shown`).
    """

    kinds: Sequence[str] = KINDS
    threshold: Threshold = HALF
    intensity: str = "dtype"
    index: int | None = None


EVERYTHING = Wanted()


@quiet_loggers()
def write_objects(
    image: MedicalImage, maps: Sequence[Map], about: About, out: Path, name: str, wanted: Wanted = EVERYTHING
) -> Written:
    """Write the maps of one image as DICOM objects.

    `NAME.METHOD.parametric-map.dcm`, `NAME.METHOD.segmentation.dcm` and `NAME.METHOD.secondary-capture.dcm` for each
    map, with the class after the method where several are explained, and `NAME.structured-report.dcm` for all of them.
    Objects of a kind are one series. No file name holds anything but `name` and the labels of the maps.

    Arguments:
        image: as read from DICOM files.
        maps: at least one, at the image's own pixels.
        about: network, version and time.
        out: the folder; it is made.
        name: how files' names begin.
        wanted: kinds and how they are made.

    Raises:
        InputError: an unknown kind, no map, an image that isn't of DICOM files, or maps that don't fit it.
        UnreadableFileError: a file of the image can't be read any more.
        StorageError: a file can't be written.
    """
    for kind in wanted.kinds:
        if kind not in KINDS:
            raise unknown_name("kind of object", kind, KINDS)
    if not maps:
        raise expected("maps", "at least one", "none")
    source = source_of(image, wanted.index)
    several = len({each.finding.name for each in maps}) > 1
    files: list[Path] = []
    left_out: list[str] = []
    look = Look.of(image, wanted.intensity) if "secondary-capture" in wanted.kinds else None
    shown: list[Shown] = []
    taken: set[str] = set()
    for number, one in enumerate(maps, 1):
        stem = _stem(one, name, several, taken)
        made: dict[str, Dataset | None] = {}
        if "parametric-map" in wanted.kinds:
            made["parametric_map"] = parametric_map(source, one, about, number)
        if "segmentation" in wanted.kinds:
            made["segmentation"] = segmentation(source, one, about, wanted.threshold, number)
            if made["segmentation"] is None:
                what = (
                    "the map is zero everywhere"
                    if not one.values.any()
                    else f"no pixel reaches {wanted.threshold.text}"
                )
                left_out.append(f"segmentation of {one.label} for {one.finding.name}: {what}")
        if "secondary-capture" in wanted.kinds:
            picture = overlay_picture(image, source, one, look)
            made["capture"] = capture(source, picture, one, about, number)
        for kind, key in zip(KINDS, ("parametric_map", "segmentation", "capture"), strict=False):
            dataset = made.get(key)
            if dataset is not None:
                files.append(write(out / f"{stem}.{kind}{ENDING}", dataset))
                made[key] = _bare(dataset)
        shown.append(Shown(one, **made))
    if "structured-report" in wanted.kinds:
        report = structured_report(source, shown, about, wanted.threshold)
        files.append(write(out / f"{name}.structured-report{ENDING}", report))
    return Written(tuple(files), tuple(left_out))


def _bare(dataset: Dataset) -> Dataset:
    """What a report needs of an object, without its pixels, so that not all of them are held at once."""
    bare = Dataset()
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        setattr(bare, name, dataset.get(name))
    if "SegmentSequence" in dataset:
        bare.SegmentSequence = dataset.SegmentSequence
    return bare


def _stem(one: Map, name: str, several: bool, taken: set[str]) -> str:
    """NAME.METHOD, of letters that every file system takes, and that no other map of the image has."""
    parts = [name, _plain(one.label), *([_plain(one.finding.name)] if several else [])]
    stem, again = ".".join(parts), 1
    while stem.casefold() in taken:
        again += 1
        stem = f"{'.'.join(parts)}-{again}"
    taken.add(stem.casefold())
    return stem


def _plain(text: str) -> str:
    return re.sub(r"[^\w+-]+", "-", text).strip("-")[:80] or "map"
