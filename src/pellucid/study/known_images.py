"""What is known of image files besides their pixels: label, patient, mask, boxes and anatomy, and where it lies."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pellucid.data.dicom.headers import DICOM_ENDINGS
from pellucid.data.dicom.segments import referenced_series
from pellucid.data.dicom.series import MARK, series_name
from pellucid.data.found import VOLUME_ENDINGS, looks_dicom
from pellucid.data.images import IMAGE_ENDINGS, MedicalImage
from pellucid.data.layout import Listing, list_table
from pellucid.data.masks import on_voxels_of, read_mask
from pellucid.data.resample import Frame, Geometry
from pellucid.data.transforms import AS_STORED, mask_of
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, UnreadableFileError, expected
from pellucid.study.explain_files import is_own
from pellucid.training.predict import image_files

ENDINGS = (*IMAGE_ENDINGS, *VOLUME_ENDINGS)
_FILES = (*ENDINGS, *DICOM_ENDINGS)
MANIFESTS = ("manifest.csv", "manifest.parquet")

NO_FILE = "the image has no {}"
UNUSABLE = "the image's {} can't be used"
UNSEEN = "the image's mask lies outside of what the network sees, or is empty"

_OPTIONS = {"mask": "masks", "anatomy": "anatomy"}
_BOX = ("x", "y", "w", "h")
Size = int | tuple[int, int, int]


@dataclass(frozen=True)
class Sources:
    """Where the truth of images is looked for; None where it isn't.

    `masks` and `anatomy` are folders of mask files that bear the images' names, with any image ending, `boxes` a CSV
    with a row per box (path, x, y, w, h in pixels of the stored picture), `manifest` a table with label, mask and
    patient_id by path; a folder of images that holds one is read by it. `labels` are the values of a mask that are the
    finding, by default all but zero.
    """

    manifest: Path | None = None
    masks: Path | None = None
    anatomy: Path | None = None
    boxes: Path | None = None
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ListedImage:
    """An image file: its name (posix, relative to what was given), and what is said of it; "" where nothing is.

    `mask` and `anatomy` are files, or None; `doubt` says by "mask" or "anatomy" why it can't be told which file;
    `boxes` are (x, y, w, h). Where an image may have several labels, one that is `listed` in a manifest without any has
    none.
    """

    path: Path
    name: str
    label: str = ""
    patient: str = ""
    mask: Path | None = None
    anatomy: Path | None = None
    boxes: tuple[tuple[float, ...], ...] = ()
    doubt: dict[str, str] = field(default_factory=dict)
    listed: bool = False


@dataclass(frozen=True)
class KnownImage:
    """The truth of an image at the network's size.

    `mask` and `anatomy` are bool (*S), empty where there is none; `boxes` (n, 2, axes); `spacing` mm per axis or None.
    `missing` says by "mask", "anatomy" or "boxes" in a few words why there is none; `problems` in whole sentences.
    """

    mask: Tensor
    anatomy: Tensor
    boxes: Tensor
    spacing: tuple[float, ...] | None
    missing: dict[str, str]
    problems: tuple[str, ...]


def list_images(
    paths: Sequence[Path],
    sources: Sources,
    classes: Sequence[str],
    *,
    multi_label: bool = False,
    volumes: bool = False,
) -> list[ListedImage]:
    """Each image once, with where its truth lies.

    Arguments:
        paths: image files, folders that are searched at any depth, and manifests (.csv, .parquet) or folders that
            hold one.
        sources: where labels, masks, boxes and anatomy are.
        classes: of the network; an image in a folder of that name has it as its label.
        multi_label: whether an image may have several of them, or none.
        volumes: whether a folder's DICOM series are its images, rather than their files.

    Raises:
        InputError: a path that isn't there, no image among them, or a source that fits none of the images.
    """
    found: dict[Path, ListedImage] = {}
    apart = [each.resolve() for each in (sources.masks, sources.anatomy) if each is not None]
    for path in paths:
        for image in _listed(path, sources, classes, multi_label, volumes):
            real = image.path.resolve()
            if not path.is_dir() or not any(real.is_relative_to(folder) for folder in apart):
                found.setdefault(real, image)
    if not found:
        raise InputError(f"images: no image file in {', '.join(map(str, paths))}.")
    images = _told_apart(found)
    if sources.manifest is not None:
        images = _by_manifest(images, list_table(sources.manifest, multi_label=multi_label), sources.manifest)
    for kind, folder in (("mask", sources.masks), ("anatomy", sources.anatomy)):
        if folder is not None:
            images = _with_files(images, kind, folder)
    return images if sources.boxes is None else _with_boxes(images, sources.boxes, paths)


def _listed(
    path: Path, sources: Sources, classes: Sequence[str], multi_label: bool, volumes: bool
) -> Iterable[ListedImage]:
    manifest = next((path / name for name in MANIFESTS if (path / name).is_file()), None) if path.is_dir() else path
    if manifest is not None and sources.manifest is None and manifest.suffix.lower() in (".csv", ".parquet"):
        listing = list_table(manifest, multi_label=multi_label)
        for row in _rows(listing):
            yield _of_row(ListedImage(listing.root / row["sample"], row["sample"]), row, listing.root)
        return
    for file in image_files([path], ENDINGS, volumes=volumes):
        if path.is_dir() and is_own(file):
            continue
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        folders = [part for part in name.split("/")[:-1] if part in classes]
        yield ListedImage(file, name, label=folders[-1] if folders else "")


def _rows(listing: Listing) -> list[dict[str, str]]:
    columns = ["sample", "label", "patient_id", "mask"]
    return [dict(zip(columns, row, strict=True)) for row in listing.table[columns].astype(str).to_numpy().tolist()]


def _of_row(image: ListedImage, row: Mapping[str, str], root: Path) -> ListedImage:
    mask = root / row["mask"] if row["mask"] else None
    return replace(image, label=row["label"], patient=row["patient_id"], mask=mask, listed=True)


def _told_apart(found: dict[Path, ListedImage]) -> list[ListedImage]:
    """The images, named from their common folder where names would coincide."""
    if max(Counter(image.name for image in found.values()).values()) == 1:
        return list(found.values())
    root = Path(os.path.commonpath(list(found)))
    return [replace(each, name=real.relative_to(root).as_posix()) for real, each in found.items()]


def _by_manifest(images: Sequence[ListedImage], listing: Listing, manifest: Path) -> list[ListedImage]:
    rows = {(listing.root / row["sample"]).resolve(): row for row in _rows(listing)}
    alone = Counter(image.path.resolve().parent for image in images if image.path.name.startswith(MARK))
    told, matched = [], 0
    for image in images:
        real = image.path.resolve()
        row = rows.get(real)
        if row is None and alone[real.parent] == 1 and real.name.startswith(MARK):
            row = rows.get(real.parent)  # a folder that holds one series
        told.append(image if row is None else _of_row(image, row, listing.root))
        matched += row is not None
    if not matched:
        raise expected("manifest", f"a table with the images' paths, such as {images[0].name}", f"{manifest.name}")
    return told


def _with_files(images: Sequence[ListedImage], kind: str, folder: Path) -> list[ListedImage]:
    """The images with their file in a folder: that of the same path beneath it, or else of the same name.

    A DICOM series is called as its folder or by its own name; a segmentation of it is found whatever it is called.
    """
    option = _OPTIONS[kind]
    if not folder.is_dir():
        raise InputError(f"{option}: expected a folder, got {str(folder)!r}, which isn't there.")
    files = [file for file in sorted(folder.rglob("*")) if file.name.lower().endswith(_FILES) and file.is_file()]
    by_path = {_bare(file.relative_to(folder).as_posix()): file for file in files}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_name[_bare(file.name)].append(file)
    by_series = _marking(files) if any(image.path.name.startswith(MARK) for image in images) else {}
    shared = Counter(name for image in images for name in _called(image.path))
    told, matched = [], 0
    for image in images:
        name = next((each for each in _called(image.path) if each in by_name), "")
        same = by_name.get(name, []) or by_series.get(image.path.name[: len(MARK) + 8], [])
        exact = next((by_path[each] for each in _called(Path(image.name), whole=True) if each in by_path), None)
        doubt = dict(image.doubt)
        if exact is None and same and (len(same) > 1 or shared[name] > 1):
            doubt[kind] = (
                f"several files or images are called {name or image.path.name!r}, and none has the image's path"
            )
        chosen = exact or (same[0] if same and kind not in doubt else None)
        matched += chosen is not None
        if kind == "mask":
            told.append(replace(image, mask=chosen or image.mask, doubt=doubt))
        else:
            told.append(replace(image, anatomy=chosen, doubt=doubt))
    if not matched:
        got = f"{len(files)} files of other names in {folder}"
        raise expected(option, f"files with the images' names, such as {_called(images[0].path)[-1]!r}", got)
    return told


def _called(path: Path, whole: bool = False) -> list[str]:
    """The names, or whole paths, that a file which belongs to an image may have, without its ending."""
    if path.name.startswith(MARK):
        ways = [path, path.with_name(path.name.removeprefix(MARK)), *([path.parent] if path.parent.name else [])]
        return [each.as_posix() if whole else each.name for each in ways]
    return [_bare(path.as_posix() if whole else path.name)]


def _marking(files: Iterable[Path]) -> dict[str, list[Path]]:
    """DICOM segmentations by the names of the series that they mark."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in filter(looks_dicom, files):
        uid = referenced_series(file)
        if uid is not None:
            found[MARK + series_name(uid)].append(file)
    return found


def _bare(name: str) -> str:
    """A path without the ending of an image."""
    low = name.lower()
    ending = next((each for each in sorted(_FILES, key=len, reverse=True) if low.endswith(each)), "")
    return name[: len(name) - len(ending)]


def _with_boxes(images: Sequence[ListedImage], path: Path, roots: Sequence[Path]) -> list[ListedImage]:
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", dtype={"path": str})
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"boxes: can't read {path} as a table: {str(error).splitlines()[0]}.") from error
    lacking = [column for column in ("path", *_BOX) if column not in table]
    if lacking:
        raise expected("boxes", f"columns path, {', '.join(_BOX)} in {path.name}", f"none called {lacking[0]!r}")
    boxes: dict[Path, list[tuple[float, ...]]] = defaultdict(list)
    values = table[list(_BOX)].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    for name, box in zip(table["path"].astype(str), values.tolist(), strict=True):
        for root in {path.parent, *(each for each in roots if each.is_dir())}:
            boxes[(root / name).resolve()].append(tuple(box))
    told = [replace(each, boxes=tuple(boxes.get(each.path.resolve(), ()))) for each in images]
    if not any(each.boxes for each in told):
        raise expected("boxes", f"rows with the images' paths, such as {images[0].name}", f"none in {path.name}")
    return told


def known_of(
    listed: ListedImage,
    image: MedicalImage,
    size: Size,
    labels: tuple[int, ...] | None,
    frame: Frame = AS_STORED,
) -> KnownImage:
    """The truth of an image that was read, at the network's size and in its frame; what can't be used is said."""
    lengths = size if isinstance(size, tuple) else (size, size)
    missing: dict[str, str] = {}
    problems: list[str] = []
    masks = {}
    for kind, file in (("mask", listed.mask), ("anatomy", listed.anatomy)):
        masks[kind] = torch.zeros(lengths, dtype=torch.bool)
        said = listed.doubt.get(kind, "")
        if file is not None:
            try:
                masks[kind] = _mask(file, image, size, labels if kind == "mask" else None, frame)
            except (UnreadableFileError, InputError) as error:
                said = str(error)
        if said:
            missing[kind] = UNUSABLE.format(kind)
            problems.append(f"{kind} of {listed.name}: {said}")
        elif file is None:
            missing[kind] = NO_FILE.format(kind)
    boxes = torch.zeros(0, 2, len(lengths))
    try:
        boxes = _scaled(listed.boxes, image, lengths)
    except InputError as error:
        missing["boxes"] = UNUSABLE.format("boxes")
        problems.append(f"boxes of {listed.name}: {error}")
    if "mask" not in missing and not masks["mask"].any() and frame.spacing is not None:
        missing["mask"] = UNSEEN
    spacing = Geometry.of(image).steps(lengths, frame)
    return KnownImage(masks["mask"], masks["anatomy"], boxes, spacing, missing, tuple(problems))


def _mask(file: Path, image: MedicalImage, size: Size, labels: tuple[int, ...] | None, frame: Frame) -> Tensor:
    """The mask of a file, that must fit its image voxel by voxel. Raises InputError, UnreadableFileError."""
    try:
        mask = on_voxels_of(read_mask(file, image.affine), image.pixels.shape[1:], image.affine)
    except DecodeError as error:
        raise InputError(f"{error}.") from error
    if labels is None and mask.affine is not None:
        there = np.unique(mask.pixels[mask.pixels != 0])
        if len(there) > 1:
            listed = ", ".join(f"{each:g}" for each in there[:5])
            raise InputError(f"it holds the labels {listed}; say which are the finding (--labels).")
    return mask_of(mask, size=size, labels=labels, frame=frame)


def _lengths(shape: Sequence[int]) -> str:
    """Width before height in pictures, as people say it; volumes by their axes."""
    return " × ".join(map(str, shape[::-1] if len(shape) == 2 else shape))


def _scaled(boxes: Sequence[Sequence[float]], image: MedicalImage, lengths: Sequence[int]) -> Tensor:
    """Boxes (n, 2, 2), first corner and one past the last, at the network's size, each of a pixel at least."""
    if boxes and len(lengths) != 2:
        raise expected("boxes", "pictures", "a volume")
    shape = image.pixels.shape[1:]
    found = []
    for x, y, width, height in boxes:
        sides = (x, y, x + width, y + height)
        inside = 0 <= x < sides[2] <= shape[1] + 1 and 0 <= y < sides[3] <= shape[0] + 1  # rounded outward by some
        if not all(map(math.isfinite, sides)) or not inside:
            raise InputError(f"({x:g}, {y:g}, {width:g}, {height:g}) isn't within its {_lengths(shape)} pixels.")
        corners = []
        for low, high, own, wanted in ((y, sides[3], shape[0], lengths[0]), (x, sides[2], shape[1], lengths[1])):
            first = min(round(low * wanted / own), wanted - 1)
            corners.append((first, min(max(round(high * wanted / own), first + 1), wanted)))
        found.append([[low for low, _ in corners], [high for _, high in corners]])
    return torch.tensor(found, dtype=torch.float32).view(-1, 2, len(lengths))
