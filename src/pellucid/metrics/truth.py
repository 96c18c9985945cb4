"""What is known of the images besides their pixels: masks, boxes, anatomy and spacing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import expected


@dataclass(frozen=True)
class Truth:
    """Where the finding is in each of B images, and what else localisation is measured by.

    Attributes:
        masks: (B, *S) bool, True on the finding; or integers, of which `labels` are the finding. An empty mask says
            that nothing is known of that image.
        boxes: for each image a tensor (n, 2, axes): the first corner and the one past the last of each of n boxes, in
            pixels along the axes of `images`, so in 2-D ((top, left), (bottom, right)). None for an empty (0, 2, axes).
        anatomy: (B, *S) bool, True inside the organ in which evidence can lie.
        spacing: mm from one pixel to the next along each axis, for all images or (B, axes).
        labels: which values of integer masks are the finding.
    """

    masks: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    anatomy: Tensor | None = None
    spacing: Sequence[float] | Tensor | None = None
    labels: Sequence[int] = (1,)

    def checked(self, shape: tuple[int, ...]) -> Truth:
        """The same with bool masks and a spacing (B, axes), for images (B, *S) of this shape.

        Raises:
            InputError: a part of another shape or type; labels in a mask that weren't asked for.
        """
        return Truth(
            masks=_mask("masks", self.masks, shape, self.labels),
            boxes=_boxes(self.boxes, shape),
            anatomy=_mask("anatomy", self.anatomy, shape, (1,)),
            spacing=_spacing(self.spacing, shape),
        )


def _mask(name: str, mask: Tensor | None, shape: tuple[int, ...], labels: Sequence[int]) -> Tensor | None:
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise expected(name, f"a bool tensor {shape}", type(mask).__name__, do="Use torch.as_tensor.")
    hints = [f"Resize {name} to the images by nearest neighbours."] if tuple(mask.shape) != shape else []
    hints += [f"Pass {name} > 0."] if mask.is_floating_point() else []
    if hints:
        got = f"shape {tuple(mask.shape)}, {mask.dtype}"
        raise expected(name, f"a bool tensor {shape}, a value per pixel", got, do=" ".join(hints))
    if mask.dtype == torch.bool:
        return mask.cpu()
    found = sorted(set(mask.unique().tolist()) - {0})
    if not set(found) <= set(labels):
        wanted = f"labels {', '.join(map(str, sorted({0, *labels})))}"
        do = "Pass Truth(masks, labels=...), the labels that are the finding, and set the others to 0."
        raise expected(name, wanted, ", ".join(map(str, [0, *found])), do=do)
    return torch.isin(mask.cpu(), torch.tensor(list(labels)))


def _boxes(boxes: Sequence[Tensor] | None, shape: tuple[int, ...]) -> Sequence[Tensor] | None:
    if boxes is None:
        return None
    axes = len(shape) - 1
    if len(boxes) != shape[0]:
        raise expected("boxes", f"boxes of each of {shape[0]} images", f"of {len(boxes)}")
    size = torch.tensor(shape[1:])
    for place, each in enumerate(boxes):
        if each.ndim != 3 or tuple(each.shape[1:]) != (2, axes):
            raise expected("boxes", f"a tensor (n, 2, {axes}) per image", f"shape {tuple(each.shape)} at image {place}")
        low, high = each[:, 0], each[:, 1]
        if bool((low < 0).any() or (high > size).any() or (low >= high).any()):
            wanted = f"corners in order within {tuple(shape[1:])}"
            raise expected("boxes", wanted, f"{each.tolist()} at image {place}")
    return [each.cpu() for each in boxes]


def _spacing(spacing: Sequence[float] | Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    if spacing is None:
        return None
    values = torch.as_tensor(spacing, dtype=torch.float64).cpu()
    axes = len(shape) - 1
    if tuple(values.shape) not in ((axes,), (shape[0], axes)) or not bool((values > 0).all()):
        wanted = f"mm above 0, {axes} of them or ({shape[0]}, {axes})"
        raise expected("spacing", wanted, f"shape {tuple(values.shape)}, {values.flatten()[:3].tolist()}")
    return values.expand(shape[0], axes)
