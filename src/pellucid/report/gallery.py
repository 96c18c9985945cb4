"""The pictures: examples of each class, and maps laid over their images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import zarr

from pellucid.attribution import resize_maps
from pellucid.attribution.families import is_control
from pellucid.data.enhancements import NONE, enhance
from pellucid.drawing import Picture, enlarge, is_signed, legend, outline, overlay, to_picture
from pellucid.report.figures import Drawn, drawn
from pellucid.report.names import method_title, percent
from pellucid.report.ranked import VERDICTS
from pellucid.report.read import CellResult, DatasetResult, open_pictures
from pellucid.report.scroll import PAGE_BYTES, Scroll
from pellucid.report.volumes import PLANES_NOTE, Seen, SeenMap, draw, example

WIDTH = 160
SMALL = 112
EIGHT_BITS = "the whole range of the stored type, 0 to 255"


@dataclass(frozen=True)
class Strip:
    """One image of the gallery with its overlays; `right` says whether the prediction was.

    `window` says how it is shown where that must be said; a volume is scrolled through.
    """

    label: str
    predicted: str
    probability: str
    target: str
    right: bool
    pictures: Sequence[Drawn]
    scroll: Scroll | None = None
    window: str = ""


@dataclass(frozen=True)
class Gallery:
    """The strips of one model, and the colour scales that they use."""

    model: str
    strips: Sequence[Strip]
    scales: Sequence[Drawn]
    note: str


@dataclass(frozen=True)
class Group:
    """A titled row of small pictures, wider ones of volumes."""

    title: str
    pictures: Sequence[Drawn]
    wide: bool = False


def examples(dataset: DatasetResult) -> list[Group]:
    """Examples of each class, in the order of the classes."""
    opened = open_pictures(dataset.picture_file("examples"))
    if opened is None:
        return []
    arrays, attributes = opened
    labels = list(attributes["labels"])
    groups = []
    for label in dataset.classes:
        chosen = [index for index, name in enumerate(labels) if name == label]
        pictures = [
            drawn(
                small_example(arrays, attributes, index),
                f"Example {number} of the class {label}",
                window_words(attributes, index),
            )
            for number, index in enumerate(chosen, start=1)
        ]
        if pictures:
            groups.append(Group(label, pictures, wide="volumes" in arrays))
    return groups


def window_words(attributes: Mapping[str, Any], index: int) -> str:
    """By which window a picture that was kept is shown; "" where it has 8 bits, which are shown as they are."""
    words = str(attributes["scaling"][index]) if "scaling" in attributes else ""
    return "" if words == EIGHT_BITS else words


def small_example(
    arrays: Mapping[str, Any], attributes: Mapping[str, Any], index: int, enhancement: str = NONE
) -> Picture:
    """One of the pictures that were kept, small; of a volume its three middle planes."""
    if "volumes" in arrays:
        volume = as_seen(np.asarray(arrays["volumes"][index]), enhancement)
        return example(volume[0], np.array(attributes["affines"][index]))
    return enlarge(to_picture(as_seen(arrays["images"][index], enhancement)), SMALL)


def gallery(dataset: DatasetResult, model: str, per_kind: int = 1, page_bytes: int = PAGE_BYTES) -> Gallery | None:
    """Right and wrong predictions of each class with every method's overlay, from the model's first fold.

    The images are the first of their kind by file name: nothing picks the pretty ones. None when no image was
    explained or the pictures aren't there. Volumes take about `page_bytes` at most.
    """
    for cell in dataset.of_model(model):
        opened = open_pictures(dataset.picture_file(f"explained_fold-{cell.fold}"))
        if opened is None or cell.explained.empty or not cell.store.maps.is_dir():
            continue
        arrays, attributes = opened
        place = {sample: index for index, sample in enumerate(attributes["samples"])}
        maps = _read_maps(cell)
        chosen = _choose(cell.explained, dataset.classes, per_kind)
        signed = {method: any(is_signed(values[row]) for row in chosen) for method, values in maps.items()}
        enhancement = str(cell.card.get("enhancement", NONE))
        volumes = "volumes" in arrays
        strips = []
        for row in chosen:
            known = cell.explained.iloc[row]
            if known["sample"] in place:
                index = place[known["sample"]]
                mask = np.asarray(arrays["masks"][index]) if "masks" in arrays and bool(known["has_mask"]) else None
                image = as_seen(np.asarray(arrays["volumes" if volumes else "images"][index]), enhancement)
                found = _maps(maps, row, signed, _said(cell, known["sample"]))
                strip, words = _strip(known), window_words(attributes, index)
                of = f"{strip.label} predicted as {strip.predicted}"
                if volumes:
                    seen = Seen(image[0], np.array(attributes["affines"][index]), found, mask)
                    name = f"{dataset.name}-{model}-{row}"
                    pictures, scroll = draw(seen, of, name, page_bytes // len(chosen))
                    strips.append(replace(strip, pictures=pictures, scroll=scroll, window=words))
                else:
                    strips.append(replace(strip, pictures=_pictures(image, mask, found, of), window=words))
        if strips:
            several = len(dataset.of_model(model)) > 1
            note = (f" Fold {cell.fold}." if several else "") + (
                "" if enhancement == NONE else f" Images are shown as {enhancement} leaves them."
            )
            note += PLANES_NOTE if volumes else ""
            return Gallery(model, strips, scales(signed.values()), note)
    return None


def as_seen(image: np.ndarray, enhancement: str) -> np.ndarray:
    """An 8-bit picture (C, H, W) that was kept as it is, enhanced as the networks saw it."""
    if enhancement == NONE:
        return image
    return (enhance(torch.from_numpy(image).double() / 255, enhancement) * 255).round().to(torch.uint8).numpy()


def _choose(explained: pd.DataFrame, classes: Sequence[str], per_kind: int) -> list[int]:
    """Row numbers: per class the first right, then the first wrong predictions."""
    rows = []
    correct = explained["correct"].astype(bool).to_numpy()
    labels = explained["label"].to_numpy(str)
    for label in classes:
        for wanted in (True, False):
            rows += np.flatnonzero((labels == label) & (correct == wanted))[:per_kind].tolist()
    return rows


def _read_maps(cell: CellResult) -> dict[str, zarr.Array[Any]]:
    group = zarr.open_group(cell.store.maps, mode="r")
    arrays = dict(group.arrays())
    asked = [name for name in cell.card.get("methods", ()) if name in arrays]
    names = asked + [name for name in sorted(arrays) if name not in asked]
    ordered = [name for name in names if not is_control(name)] + [name for name in names if is_control(name)]
    return {name: arrays[name] for name in ordered}


def _maps(
    maps: Mapping[str, zarr.Array[Any]], row: int, signed: Mapping[str, bool], said: Mapping[str, str]
) -> list[SeenMap]:
    """The maps of an explained image as they were made, with their titles."""
    found = []
    for method, values in maps.items():
        title = method_title(method)
        caption = title + ("\u00a0†" if is_control(method) else "")
        raw = np.nan_to_num(np.asarray(values[row], dtype=np.float32))
        caption += ("" if raw.any() else " (no evidence)") + said.get(method, "")
        found.append(SeenMap(title, raw, caption, signed[method]))
    return found


def _strip(row: pd.Series) -> Strip:
    label, predicted, target = (str(row[name]) for name in ("label", "predicted", "target"))
    return Strip(label, predicted, percent(float(row["probability"]), 0), target, bool(row["correct"]), ())


def _pictures(image: np.ndarray, lesion: np.ndarray | None, maps: Sequence[SeenMap], of: str) -> list[Drawn]:
    """An image, the outline of its lesion, and every map laid over."""
    shown = enlarge(to_picture(image), WIDTH)
    mask = None if lesion is None else _enlarged_mask(lesion, shown)
    pictures = [drawn(shown, f"Test image, {of}", "Image")]
    if mask is not None and mask.any():
        pictures.append(drawn(outline(shown, mask), f"Outline of the lesion, {of}", "Lesion outline"))
    for found in maps:
        saliency = resize_maps(torch.from_numpy(found.values), shown.shape[:2]).numpy()
        laid = overlay(shown, saliency, mask=mask, signed=found.signed)
        pictures.append(drawn(laid, f"{found.title} map over the image, {of}", found.caption))
    return pictures


def _said(cell: CellResult, sample: str) -> dict[str, str]:
    """What is said of trusting the map of each method, as it follows its name; nothing where nothing was asked."""
    rows = cell.verdicts[cell.verdicts["sample"] == sample]
    return {
        str(method): f": {VERDICTS[verdict][0]}\u00a0{verdict}"
        for method, verdict in zip(rows["method"], rows["verdict"], strict=True)
    }


def scales(signed: Iterable[bool]) -> list[Drawn]:
    """The colour scales of maps, of which some are signed."""
    kinds = set(signed)
    found = []
    if False in kinds:
        found.append(
            drawn(legend(), "Colour scale from no evidence to the map’s maximum", "0 | the map’s maximum", exact=True)
        )
    if True in kinds:
        alt = "Colour scale of signed maps, from evidence against to evidence for the class"
        found.append(drawn(legend(signed=True), alt, "against | for the class", exact=True))
    return found


def _enlarged_mask(mask: np.ndarray, shown: Picture) -> np.ndarray:
    """A mask at the shown size, by its nearest pixel."""
    rows = (np.arange(shown.shape[0]) * mask.shape[0] // shown.shape[0]).clip(0, mask.shape[0] - 1)
    columns = (np.arange(shown.shape[1]) * mask.shape[1] // shown.shape[1]).clip(0, mask.shape[1] - 1)
    return np.asarray(mask[np.ix_(rows, columns)], dtype=bool)
