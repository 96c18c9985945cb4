"""The page of volumes that were explained: planes of each map, and all slices to scroll through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.attribution.families import is_control
from pellucid.data.images import MedicalImage, read_image
from pellucid.data.masks import on_voxels_of
from pellucid.data.shown import as_shown
from pellucid.data.whole import DecodeError
from pellucid.drawing import is_signed
from pellucid.errors import PellucidError, UnreadableFileError
from pellucid.files import inside, read_json, write_text
from pellucid.progress import progress
from pellucid.report.figures import Drawn
from pellucid.report.gallery import scales
from pellucid.report.names import method_title, percent
from pellucid.report.page import page
from pellucid.report.scroll import PAGE_BYTES, Scroll, script
from pellucid.report.volumes import PLANES_NOTE, Seen, SeenMap, planes, scrolled

MOST = 24  # volumes of a page


@dataclass(frozen=True)
class ExplainedVolume:
    """A volume of the page: its name, what was explained, by which window it is shown, and its pictures."""

    name: str
    target: str
    probability: str
    window: str
    scroll: Scroll
    pictures: Sequence[Drawn]
    overlay: str


def write_explained(records: Sequence[Path], folder: Path, *, show_progress: bool = False) -> Path | None:
    """Write `index.html`, which needs nothing else, into a folder that `explain_files` wrote; None without volumes.

    Volumes and maps are read again, one at a time; one that can't be is left out, and so are those after the first 24,
    whose overlays stand beside.

    Arguments:
        records: of the images, as `explain_files` gives them.
        folder: where they lie.
        show_progress: show a bar with the time left.

    Raises PellucidError where the page can't be written.
    """
    found = [(path.stem, read_json(path)) for path in records]
    volumes = [(name, record) for name, record in found if isinstance(record["maps"], dict)]
    if not volumes:
        return None
    share = PAGE_BYTES // min(len(volumes), MOST)
    parts, signed = [], set()
    with progress("drawing volumes", len(volumes[:MOST]), show=show_progress) as advance:
        for number, (name, record) in enumerate(volumes[:MOST]):
            try:
                part, scale = _part(name, record, folder, f"volume-{number}", share)
            except (PellucidError, OSError):  # moved or changed since; its files stand beside
                continue
            finally:
                advance(1)
            parts.append(part)
            signed |= scale
    others = [(name, str(record["overlay"])) for name, record in volumes if name not in {part.name for part in parts}]
    path = folder / "index.html"
    html = page(
        "explained.html.j2",
        intro=f"{len(volumes)} volumes explained." if len(volumes) > 1 else "One volume explained.",
        model=str(volumes[0][1]["model"]["architecture"]),
        volumes=parts,
        others=others,
        scales=scales(signed),
        note=PLANES_NOTE.strip(),
        scroll_script=script() if parts else "",
    )
    write_text(path, html)
    return path


def _part(
    name: str, record: Mapping[str, Any], folder: Path, anchor: str, share: int
) -> tuple[ExplainedVolume, set[bool]]:
    """A volume's part of the page, and which colour scales its maps take."""
    image = read_image(record["image"], record.get("index"))
    assert image.affine is not None, record["image"]
    grey, window = as_shown(image, str(record["model"]["intensity"]))
    place = 0
    target, probability = record["target"], record["probability"]
    if isinstance(target, list):  # all classes were explained: that of the highest score is drawn
        place = int(np.argmax(record["score"]))
        target, probability = target[place], probability[place]
    files = sorted(record["maps"].items(), key=lambda each: is_control(each[0]))
    maps = [_map(label, folder, file, image, place) for label, file in files]
    field = next((method["seen"] for method in record["methods"].values() if "seen" in method), None)
    seen = Seen(grey[0], image.affine, maps, field=field)
    part = ExplainedVolume(
        name=name,
        target=str(target),
        probability=percent(float(probability), 0),
        window=window,
        scroll=scrolled(seen, anchor, share),
        pictures=planes(seen, name),
        overlay=str(record["overlay"]),
    )
    return part, {each.signed for each in maps}


def _map(label: str, folder: Path, file: str, image: MedicalImage, place: int) -> SeenMap:
    stored = read_image(inside(folder, file), place)
    try:  # a file of its own, with axes of its own
        one = on_voxels_of(stored, image.pixels.shape[1:], image.affine)
    except DecodeError as error:
        raise UnreadableFileError(f"{file}: {error}") from error
    values = one.pixels[0].astype(np.float32, copy=False)
    title = method_title(label)
    caption = title + ("\u00a0†" if is_control(label) else "") + ("" if values.any() else " (no evidence)")
    return SeenMap(title, values, caption, is_signed(values))
