"""Explain image files: an overlay, the raw maps and a record of each, in one folder."""

from __future__ import annotations

import glob
import hashlib
import itertools
import logging
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution import Explanation, GridWarning, explain, multi_label, resize_maps
from pellucid.attribution.engine import COARSE_GRID, PAPER_METHODS, MethodChoice, Precision
from pellucid.attribution.merging import Fusion
from pellucid.data.found import VOLUME_ENDINGS
from pellucid.data.images import IMAGE_ENDINGS, MedicalImage, read_image
from pellucid.data.maps_out import write_map
from pellucid.data.resample import Grid, grid_of
from pellucid.data.shown import as_shown
from pellucid.drawing import Panel, Picture, Row, encode, enlarge, is_signed, overlay, sheet, strongest, to_picture
from pellucid.errors import InputError, UnreadableFileError, expected, unknown_name
from pellucid.files import read_json, write_json, written_whole
from pellucid.metrics.families import Metric
from pellucid.models.checkpoints import ModelCard, digest
from pellucid.progress import Advance, progress
from pellucid.registry import Choice
from pellucid.study.explain_metrics import Values, check_metrics, measured
from pellucid.study.explain_objects import NOTHING, OWN_ENDINGS, Explained, Wishes, write_wanted
from pellucid.study.explain_volumes import VOLUME_MAP, Shown, greatest, millimetres, planes, volume_maps
from pellucid.training.predict import as_wanted, frame_of, image_files

OVERLAY, MAPS, RECORD = ".overlay.png", ".maps.npz", ".json"
SIDE = 320  # pixels of a drawn image's longer side
CLASSES_DRAWN = 12  # of all classes, those of highest score
VOLUME_CLASSES_DRAWN = 3  # with three planes for each method

_FILES_AT_ONCE = 32  # whatever the batch size, since an image's draws follow from its place among these
_VOLUMES_AT_ONCE = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What is asked of each image, as in `pellucid.explain`.

    `target` is "predicted", "all", or a class by its name or index; `index` picks a volume or frame of files that hold
    several. `write` says what else is written of each image, and `metrics` measure each map.
    """

    methods: Sequence[MethodChoice] = PAPER_METHODS
    target: str = "predicted"
    layers: Sequence[str] = ("auto",)
    batch_size: int = 32
    fuse: Fusion | None = None
    max_memory: int | None = None
    precision: Precision = "float32"
    compile: bool = False
    index: int | None = None
    write: Wishes = NOTHING
    metrics: Sequence[Choice[Metric]] = ()


@dataclass(frozen=True)
class _Read:
    path: Path
    name: str
    image: Tensor  # (C, *S) as the card says, normalised
    source: MedicalImage


def explain_files(
    paths: Sequence[Path | str],
    model: tuple[nn.Module, ModelCard],
    out: Path,
    question: Question,
    *,
    strict: bool = False,
    show_progress: bool = False,
) -> tuple[list[Path], list[tuple[str, str]]]:
    """Explain image files by a network that says how to prepare them.

    Each image leaves three files in `out`: `NAME.overlay.png` to look at; `NAME.maps.npz` with the raw maps by their
    labels, a CAM at its layer's grid (`resize_maps` enlarges it); and, last, `NAME.json` with what was explained.
    A volume leaves its maps as `NAME.METHOD.map.nii.gz` instead, at its own voxels and where it lies, so that they open
    over it; its overlay shows three planes through the greatest value of each map. NAME is the image's own name
    without its ending, in plain letters; where two would share it, or it is taken by another image or an explained
    file, a hash of the image's path is added. `question.write` adds DICOM objects, NIfTI and NRRD maps (`WRITTEN`).

    Arguments:
        paths: image files, DICOM series (`FOLDER/#NAME`), and folders that are searched for either at any depth.
        model: the network and its card, as `load_weights` gives them. It is given back as it was. Pictures are skipped
            where it takes volumes, and volumes where it takes pictures.
        out: the folder; it is made.
        question: methods, target, layers and batch size.
        strict: stop at the first file that can't be read.
        show_progress: show a bar with the time left.

    Returns:
        The records written, in the order of the images, and the path and reason of each image that was skipped.

    Raises:
        InputError: a path that isn't there, no image among them, or a question that the network can't answer.
        UnreadableFileError: no image can be read; or, when `strict`, one can't.
    """
    network, card = model
    classes = class_names(card)
    target = _target(question.target, classes)
    check_metrics(question.metrics, question.target)
    given = [Path(path) for path in paths]
    files = image_files(given, (*IMAGE_ENDINGS, *VOLUME_ENDINGS), volumes=card.axes == 3)
    names = output_names([path for path in files if path in given or not is_own(path)], out)
    unreadable: list[tuple[str, str]] = []
    records: list[Path] = []
    about = _about(network, card, question)
    at_once = _VOLUMES_AT_ONCE if card.axes == 3 else _FILES_AT_ONCE
    at_once = max(1, at_once // len(classes)) if target == "all" else at_once
    layer = question.layers[0] if len(question.layers) == 1 else list(question.layers)
    with progress("explaining", len(names), show=show_progress) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", GridWarning)  # told once, below
        images = _readable(names, card, question.index, unreadable, strict=strict, skipped=advance)
        for number, part in enumerate(iter(lambda: list(itertools.islice(images, at_once)), [])):
            explanation = explain(
                network,
                torch.stack([each.image for each in part]),
                methods=list(question.methods),
                target=multi_label(target) if card.multi_label else target,
                layer=layer,
                batch_size=question.batch_size,
                generator=torch.Generator().manual_seed(number),
                progress=advance,
                fuse=question.fuse,
                max_memory=question.max_memory,
                precision=question.precision,
                compile=question.compile,
            )
            values = measured(
                network,
                torch.stack([each.image for each in part]),
                explanation,
                question.metrics,
                seed=number,
                batch_size=question.batch_size,
                max_memory=question.max_memory,
                precision=question.precision,
                compile=question.compile,
                multi_label=card.multi_label,
            )
            if not records:
                tell_coarse(explanation.layer, explanation.grid)
            for read, one, found in zip(part, explanation, values, strict=True):
                records.append(_write(read, one, card, about, out, question.write, found))
    if not records:
        reasons = "; ".join(reason for _, reason in unreadable[:3])
        raise UnreadableFileError(f"images: none of {len(names)} can be read. {reasons}")
    return records, unreadable


def class_names(card: ModelCard) -> tuple[str, ...]:
    """The card's classes; those of a network with a single logit are two."""
    return (f"not {card.classes[0]}", card.classes[0]) if len(card.classes) == 1 else card.classes


def output_names(files: Sequence[Path], out: Path) -> list[tuple[Path, str]]:
    """Each file once, with a name in `out` that no other has, on file systems that ignore case as well.

    A name never leads out of the folder: all but letters, digits, "_", "." and "-" become "-".
    """
    paths = {path.resolve(): path for path in files}
    plain = {real: _plain(_stem(real)) for real in paths}
    shared = Counter(_folded(name) for name in plain.values())
    used: set[str] = set()
    names = []
    for real, path in paths.items():
        name, salt = plain[real], 0
        while shared[_folded(name)] > 1 or _folded(name) in used or _taken(out, name, real, paths):
            digest = hashlib.sha256(f"{salt}{real}".encode(errors="surrogateescape")).hexdigest()[:12]
            name, salt = f"{plain[real]}-{digest}", salt + 1
        used.add(_folded(name))
        names.append((path, name))
    return names


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".nii") if path.suffix.lower() == ".gz" else path.stem


def _plain(stem: str) -> str:
    name = re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "image"
    return name.encode()[:120].decode(errors="ignore")  # file systems allow 255 bytes


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _taken(out: Path, name: str, image: Path, inputs: Container[Path]) -> bool:
    """Whether writing `name` would replace an image that is explained, or a file that isn't this image's record."""
    if any((out / f"{name}{ending}").resolve() in inputs for ending in (OVERLAY, MAPS, RECORD)):
        return True
    if any(path.resolve() in inputs for ending in OWN_ENDINGS for path in out.glob(f"{glob.escape(name)}.*{ending}")):
        return True
    record = out / f"{name}{RECORD}"
    if not record.exists():
        return False
    try:
        return Path(read_json(record)["image"]).resolve() != image
    except (OSError, ValueError, LookupError, TypeError):
        return True


def is_own(path: Path) -> bool:
    """Whether an image is an overlay, a map or an object that an earlier run left in a folder that is searched."""
    parts = path.name.split(".")
    if path.name.endswith(OWN_ENDINGS):
        starts = (".".join(parts[:count]) for count in range(1, len(parts) - 1))
        return any(path.with_name(f"{start}{RECORD}").exists() for start in starts)
    stem = path.name.removesuffix(OVERLAY)
    if stem == path.name:
        return False
    return path.with_name(f"{stem}{MAPS}").exists() or any(path.parent.glob(f"{glob.escape(stem)}.*{VOLUME_MAP}"))


def _target(asked: str, classes: Sequence[str]) -> str | int:
    if asked in ("predicted", "all"):
        return asked
    if asked in classes:
        return classes.index(asked)
    if asked.isdecimal() and int(asked) < len(classes):
        return int(asked)
    if asked.removeprefix("-").isdecimal():
        raise expected("target", f"'predicted', 'all', a class's name or 0 to {len(classes) - 1}", asked)
    raise unknown_name("target", asked, ["predicted", "all", *classes])


def _readable(
    names: Sequence[tuple[Path, str]],
    card: ModelCard,
    index: int | None,
    unreadable: list[tuple[str, str]],
    *,
    strict: bool,
    skipped: Advance,
) -> Iterator[_Read]:
    """Each image that can be read, as it is wanted; the others are listed in `unreadable`."""
    for path, name in names:
        try:
            image = read_image(path, index)
            prepared = as_wanted(image, card)
        except (UnreadableFileError, InputError) as error:  # such as float pixels outside [0, 1], or another kind
            if strict:
                raise
            unreadable.append((str(path), str(error)))
            skipped(1)
        else:
            yield _Read(path, name, prepared, image)


def _picture(image: MedicalImage, intensity: str) -> tuple[Picture, str]:
    """The image as it is shown, in its own shape, and by which window."""
    grey, window = as_shown(image, intensity)
    picture = to_picture(np.moveaxis(grey, 0, -1))
    height, width = picture.shape[:2]
    return enlarge(picture, max(1, round(width * SIDE / max(height, width)))), window


def tell_coarse(layer: str, grid: Sequence[int]) -> None:
    """Note a layer whose maps can't tell small structures apart."""
    if grid and min(grid) < COARSE_GRID:
        _log.warning("note: %s has a grid of %s, so that maps are coarse", layer, " × ".join(map(str, grid)))


def _about(network: nn.Module, card: ModelCard, question: Question) -> dict[str, Any]:
    """What every record says of where it came from."""
    return {
        "pellucid": pellucid.__version__,
        "device": str(next(network.parameters()).device),
        "asked": question.target,
        "fused": question.fuse,
        "index": question.index,
        "precision": question.precision,
        "model": model_record(network, card),
    }


def model_record(network: nn.Module, card: ModelCard) -> dict[str, Any]:
    """What a record says of the network and of how images are prepared for it."""
    return {
        "architecture": card.architecture,
        "weights": digest(network),
        "image_size": card.image_size,
        "channels": card.channels,
        "orientation": card.orientation,
        "spacing": card.spacing,
        "intensity": card.intensity,
        "enhancement": card.enhancement,
        "normalisation": {"mean": list(card.mean), "std": list(card.std), "origin": card.normalisation},
        **({"members": [member.architecture for member in card.members], "vote": card.vote} if card.members else {}),
    }


def _write(
    read: _Read,
    one: Explanation,
    card: ModelCard,
    about: Mapping[str, Any],
    out: Path,
    wishes: Wishes,
    values: Values,
) -> Path:
    """The files of one image; the record comes last."""
    classes = class_names(card)
    overlay_path, record_path = (out / f"{read.name}{ending}" for ending in (OVERLAY, RECORD))
    write = _write_maps if read.source.affine is None else _write_volumes
    methods, drawn = write(read, one, classes, out, card)
    with written_whole(overlay_path) as aside:
        aside.write_bytes(encode(drawn))
    grid = None if read.source.affine is None else _grid(read, card)
    explained = Explained(read.source, one, classes, about["asked"], about["index"], grid, values)
    written = write_wanted(explained, card, about["model"]["weights"], out, read.name, wishes)
    index = one.target[0].tolist()  # a list where all classes were explained
    files = {label: entry.pop("file") for label, entry in methods.items()}
    record = {
        **about,
        "image": str(read.path),
        "overlay": overlay_path.name,
        "maps": f"{read.name}{MAPS}" if read.source.affine is None else files,
        "target": [classes[each] for each in index] if isinstance(index, list) else classes[index],
        "target_index": index,
        "score": one.score[0].tolist(),
        "probability": one.probability[0].tolist(),
        "layer": one.layer or None,
        "grid": list(one.grid) or None,
        "methods": methods,
        **({"metrics": values} if any(values.values()) else {}),
        "coinciding": [list(group) for group in one.coinciding],
        "seconds": dict(one.seconds),
        "seed": one.seed,
        "image_seed": None if one.seeds is None else int(one.seeds),
        **written,
    }
    write_json(record_path, record)
    return record_path


def _write_maps(
    read: _Read, one: Explanation, classes: Sequence[str], out: Path, card: ModelCard
) -> tuple[dict[str, dict[str, Any]], Picture]:
    """The maps of a picture in one file: what the record says of each method, and the sheet."""
    path = out / f"{read.name}{MAPS}"
    arrays = {label: one.layer_maps.get(label, values)[0].numpy() for label, values in one.maps.items()}
    with written_whole(path) as aside, aside.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    methods = {
        label: {**_facts(values, "bilinear" if label in one.layer_maps else None), "file": path.name}
        for label, values in arrays.items()
    }
    return methods, _sheet(read, one, classes, card.intensity)


def _write_volumes(
    read: _Read, one: Explanation, classes: Sequence[str], out: Path, card: ModelCard
) -> tuple[dict[str, dict[str, Any]], Picture]:
    """The maps of a volume, a file each: what the record says of each method, and the sheet."""
    methods: dict[str, dict[str, Any]] = {}
    titles = _titles(one, classes)[:VOLUME_CLASSES_DRAWN]
    rows: dict[int, list[Row]] = {place: [] for place, _ in titles}
    grid = _grid(read, card)
    shown = Shown.of(read.source, card.intensity, grid)
    for number, found in enumerate(volume_maps(read.source, one, grid)):
        path = out / f"{read.name}.{_plain(found.label)}{VOLUME_MAP}"
        if path.name in {entry["file"] for entry in methods.values()}:  # labels that differ in signs alone
            path = out / f"{read.name}.{_plain(found.label)}-{number}{VOLUME_MAP}"
        write_map(path, found.values, read.source, found.label)
        largest = greatest(strongest(found.values, axes=3))
        methods[found.label] = {
            **_facts(found.values, "trilinear" if found.resized else None),
            "file": path.name,
            "greatest": {"voxel": list(largest), "mm": millimetres(read.source, largest)},
            "seen": grid.seen(),
            "window": shown.window,
        }
        for place, title in titles:
            values = found.values[place] if one.target.ndim == 2 else found.values
            row = planes(read.source, values, found.label, shown)
            rows[place].append(Row(f"{title}: {row.title}", row.panels))
    return methods, sheet([row for place, _ in titles for row in rows[place]])


def _grid(read: _Read, card: ModelCard) -> Grid:
    """Where the voxels that the network sees lie in a volume."""
    return grid_of(read.source.pixels.shape[1:], read.source.affine, read.image.shape[1:], frame_of(card))


def _facts(values: npt.NDArray[np.float32], resize: str | None) -> dict[str, Any]:
    return {
        "shape": list(values.shape),
        "resize": resize,
        "largest": float(np.abs(values).max()),
        "signed": is_signed(values),
    }


def _titles(one: Explanation, classes: Sequence[str]) -> list[tuple[int, str]]:
    """The place of each explained class and what is said of it, the highest score first."""
    indices, scores, probabilities = (values[0].reshape(-1) for values in (one.target, one.score, one.probability))
    places = scores.argsort(descending=True).tolist()
    return [(each, f"{classes[int(indices[each])]}, probability {float(probabilities[each]):.3f}") for each in places]


def _sheet(read: _Read, one: Explanation, classes: Sequence[str], intensity: str) -> Picture:
    """The image and every method's overlay, a row per class."""
    (picture, window), rows = _picture(read.source, intensity), []
    for place, title in _titles(one, classes)[:CLASSES_DRAWN]:
        panels = [Panel(picture, "image")]
        for label, values in one.maps.items():
            panels.append(_panel(picture, label, values[0, place] if one.target.ndim == 2 else values[0]))
        rows.append(Row(f"{title}; {window}" if window else title, panels))
    return sheet(rows)


def _panel(picture: Picture, label: str, values: Tensor) -> Panel:
    saliency = resize_maps(torch.from_numpy(strongest(values.numpy())), picture.shape[:2]).numpy()
    signed = is_signed(saliency)
    caption = label if saliency.any() else f"{label} (no evidence)"
    return Panel(overlay(picture, saliency, signed=signed), caption, signed)
