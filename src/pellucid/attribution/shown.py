"""Explanations in a notebook: images with their maps laid over them, as HTML that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from torch import Tensor

from pellucid.attribution.explanation import Explanation
from pellucid.attribution.resize import resize_maps
from pellucid.drawing import (
    Picture,
    contours,
    data_uri,
    encode,
    enlarge,
    is_signed,
    legend,
    overlay,
    strongest,
    to_picture,
)
from pellucid.errors import expected

WIDTH = 168  # pixels of a picture
IMAGES_SHOWN = 8
CLASSES_SHOWN = 4  # of all classes, those of highest score


@dataclass(frozen=True)
class Shown:
    """An explanation beside its images, which a notebook shows by itself; `str()` is the HTML.

    Attributes:
        explanation: what is shown; at most 8 images of it, and 4 classes of each where all were explained.
        images: (B, C, *S), of any range: stretched from the least to the greatest value for display. One or three
            channels are shown as they are, of others the first. None shows the maps alone.
        classes: names in the order of the network's outputs; None shows indices.
        lines: draw contours instead of colours.

    Of volumes one slice is shown, that where the maps together are strongest.

    Raises:
        InputError: images or classes that aren't those of the explanation.
    """

    explanation: Explanation
    images: Tensor | None = None
    classes: Sequence[str] | None = None
    lines: bool = False

    def __post_init__(self) -> None:
        if self.images is not None:
            wanted = f"the {len(self.explanation)} images that were explained, (B, C, *S)"
            size = self.images.shape[2:]
            fits = self.images.ndim in (4, 5) and len(self.images) == len(self.explanation)
            if not fits or any(values.shape[-len(size) :] != size for values in self.explanation.maps.values()):
                raise expected("images", wanted, f"shape {tuple(self.images.shape)}")
        most = int(self.explanation.target.max())
        if self.classes is not None and len(self.classes) <= most:
            raise expected("classes", f"a name for each class, at least {most + 1}", len(self.classes))

    def __str__(self) -> str:
        return self._repr_html_()

    def _repr_html_(self) -> str:
        shown = min(len(self.explanation), IMAGES_SHOWN)
        part = self.explanation[:shown]
        axes = self._axes()
        signed = {
            label: any(is_signed(strongest(one.numpy(), axes)) for one in values) for label, values in part.maps.items()
        }
        rows = [row for place in range(shown) for row in self._rows(place, axes, signed)]
        head = "".join(
            f'<th style="{_CELL}">{escape(label)}</th>' for label in ["", *(["image"] * self._has_images), *signed]
        )
        scales = "".join(_scale(kind) for kind in (False, True) if kind in signed.values())
        return (
            f'<div style="overflow-x:auto"><p style="margin:4px 0">{self._summary(shown)}</p>'
            f'<table style="border-collapse:collapse"><tr>{head}</tr>{"".join(rows)}</table>{scales}</div>'
        )

    @property
    def _has_images(self) -> bool:
        return self.images is not None

    def _axes(self) -> int:
        """How many axes are spatial."""
        if self.images is not None:
            return self.images.ndim - 2
        least = min(values.ndim for values in self.explanation.maps.values()) - self.explanation.target.ndim
        return len(self.explanation.grid) or min(least, 3)

    def _summary(self, shown: int) -> str:
        count = len(self.explanation)
        parts = [f"{count} image{'s' if count > 1 else ''}" + (f", the first {shown} shown" if shown < count else "")]
        if self.explanation.target.ndim == 2 and self.explanation.target.shape[1] > CLASSES_SHOWN:
            total = self.explanation.target.shape[1]
            parts.append(f"of {total} classes the {CLASSES_SHOWN} of highest score shown")
        if self.explanation.layer:
            parts.append(f"layer {self.explanation.layer}, grid {' × '.join(map(str, self.explanation.grid))}")
        parts += ["the same up to scale: " + ", ".join(group) for group in self.explanation.coinciding]
        return escape(" · ".join(parts))

    def _rows(self, place: int, axes: int, signed: dict[str, bool]) -> list[str]:
        """A table row for each class explained of one image."""
        one = self.explanation[place]
        targets, scores, probabilities = (values[0].reshape(-1) for values in (one.target, one.score, one.probability))
        rows = []
        for row in scores.argsort(descending=True)[:CLASSES_SHOWN].tolist():
            maps = {}
            for label, values in one.maps.items():
                own = values[0, row] if one.target.ndim == 2 else values[0]
                maps[label] = strongest(np.nan_to_num(own.detach().cpu().numpy()), axes)
            name = self._class_name(int(targets[row]))
            words = [f"<b>{escape(name)}</b>", f"image {place}"]
            if not math.isnan(float(probabilities[row])):
                words.append(f"probability {float(probabilities[row]):.3f}")
            words.append(f"score {float(scores[row]):.3g}")
            image = None if self.images is None else self.images[place].detach().cpu().float()
            if axes == 3:
                cut = _strongest_slice(maps)
                words.append(f"slice {cut + 1} of {len(next(iter(maps.values())))}")
                maps = {label: values[cut] for label, values in maps.items()}
                image = None if image is None else image[:, cut]
            cells = self._cells(image, maps, signed, f"image {place}, {name}")
            rows.append(f'<tr><td style="{_CELL}">{"<br>".join(words)}</td>{"".join(cells)}</tr>')
        return rows

    def _class_name(self, index: int) -> str:
        if index < 0:
            return "a function’s value"
        return f"class {index}" if self.classes is None else str(self.classes[index])

    def _cells(
        self, image: Tensor | None, maps: dict[str, np.ndarray], signed: dict[str, bool], what: str
    ) -> list[str]:
        """A cell for the image (C, H, W) and one for each map (H, W)."""
        if image is None:
            plain = np.full(next(iter(maps.values())).shape, 110, np.uint8)
        else:
            channels = image if len(image) in (1, 3) else image[:1]
            plain = np.moveaxis(channels.numpy(), 0, -1)
        ground = enlarge(to_picture(plain), WIDTH)  # first, so that lines are of one width
        cells = [] if image is None else [_cell(ground, f"{what}: the image")]
        draw = contours if self.lines else overlay
        for label, values in maps.items():
            empty = "" if values.any() else "<br>no evidence"
            saliency = resize_maps(torch.from_numpy(values), ground.shape[:2]).numpy()
            cells.append(_cell(draw(ground, saliency, signed=signed[label]), f"{what}: {label}", empty))
        return cells


_CELL = f"padding:4px;text-align:left;vertical-align:top;max-width:{WIDTH}px;overflow-wrap:anywhere"


def _strongest_slice(maps: dict[str, np.ndarray]) -> int:
    """Where along their first axis maps (D, H, W), each of the same weight, are strongest together."""
    total = np.zeros(len(next(iter(maps.values()))))
    for values in maps.values():
        strength = np.abs(values).sum(axis=(1, 2))
        total += strength / (strength.sum() or 1.0)
    return int(total.argmax())


def _cell(picture: Picture, alt: str, below: str = "") -> str:
    return f'<td style="{_CELL}">{_img(picture, alt)}{below}</td>'


def _img(picture: Picture, alt: str) -> str:
    uri = data_uri(encode(picture), "image/png")
    height, width = picture.shape[:2]
    return f'<img src="{uri}" alt="{escape(alt)}" width="{width}" height="{height}">'


def _scale(signed: bool) -> str:
    low, high = ("against", "for the class") if signed else ("0", "the map’s maximum")
    return (
        f'<p style="margin:4px 0">{low} {_img(legend(signed=signed, width=160, height=12), "colour scale")} {high}</p>'
    )
