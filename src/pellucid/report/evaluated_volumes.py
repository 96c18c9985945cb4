"""The volumes that the page of an evaluation shows, as the gallery of a study does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.drawing import is_signed
from pellucid.report.figures import Drawn
from pellucid.report.gallery import Strip, scales
from pellucid.report.names import method_title
from pellucid.report.ranked import VERDICTS
from pellucid.report.scroll import PAGE_BYTES
from pellucid.report.volumes import PLANES_NOTE, Seen, SeenMap, draw
from pellucid.study.shown_volumes import ShownVolume, read_shown


@dataclass(frozen=True)
class ShownPart:
    """Volumes with their titles, the colour scales of their maps, and what is said of their planes."""

    strips: Sequence[tuple[str, Strip]]
    scales: Sequence[Drawn]
    note: str


def shown_part(
    shown: Sequence[tuple[int, Path]], facts: pd.DataFrame, verdicts: pd.DataFrame | None
) -> ShownPart | None:
    """What the page shows of volumes; None without any.

    Arguments:
        shown: the place of each among the samples, and its file.
        facts: a row per sample, in order: number, sample, label, predicted and, if known, target.
        verdicts: sample, method and verdict, where maps were judged.
    """
    if not shown:
        return None
    strips, signed = [], set()
    for place, path in shown:
        found, known = read_shown(path, place), facts.iloc[place]
        maps = _maps(found, _said(known["sample"], verdicts))
        signed |= {each.signed for each in maps}
        seen = Seen(found.grey, found.affine, maps, found.mask)
        number = known["number"]
        pictures, scroll = draw(seen, f"image {number}", f"image-{number}", PAGE_BYTES // len(shown))
        label, predicted = str(known["label"]), str(known["predicted"])
        strip = Strip(
            label=label,
            predicted=predicted,
            probability="",
            target=str(known.get("target", "")),
            right=label == predicted,
            pictures=pictures,
            scroll=scroll,
            window=found.window,
        )
        strips.append((f"Image {number}", strip))
    return ShownPart(strips, scales(signed), PLANES_NOTE.strip())


def _maps(found: ShownVolume, said: Mapping[str, str]) -> list[SeenMap]:
    maps = []
    for label, values in found.maps.items():
        title = method_title(label)
        caption = title + ("\u00a0†" if is_control(label) else "") + ("" if values.any() else " (no evidence)")
        maps.append(SeenMap(title, values, caption + said.get(label, ""), is_signed(values)))
    return maps


def _said(sample: object, verdicts: pd.DataFrame | None) -> dict[str, str]:
    if verdicts is None:
        return {}
    rows = verdicts[verdicts["sample"] == sample]
    return {
        str(method): f": {VERDICTS[verdict][0]}\u00a0{verdict}"
        for method, verdict in zip(rows["method"], rows["verdict"], strict=True)
    }
