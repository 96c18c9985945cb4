"""What a phantom is made of, and the random streams that keep its parts apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.data.phantoms.texture import Mask


@dataclass(frozen=True)
class Streams:
    """Where a drawing takes its randomness from.

    `anatomy` and `lesion` are the patient's, the same for each image; `view` (pose and bystanders) and `grain`
    (noise of the pixels) are the image's. The lesion has a stream of its own, so that nothing else in the picture
    depends on the class.
    """

    anatomy: np.random.Generator
    lesion: np.random.Generator
    view: np.random.Generator
    grain: np.random.Generator
    age: int
    sex: str
    site: int


@dataclass(frozen=True)
class Drawing:
    """One picture, (H, W) or (H, W, 3), and the pixels of its lesion (H, W)."""

    image: NDArray[np.uint8]
    mask: Mask


class Task(Protocol):
    """What tells whom an index stands for."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Phantom:
    """A generated classification task.

    `draw(label, size, streams)` draws one image of class `classes[label]`; images of the classes named in
    `healthy` have no lesion.
    """

    name: str
    classes: tuple[str, ...]
    healthy: tuple[str, ...]
    channels: int
    draw: Callable[[int, int, Streams], Drawing] = field(repr=False)
    summary: str


@dataclass(frozen=True)
class PhantomSample:
    """One drawn image and what is known about it.

    `image` is uint8, (H, W) or (H, W, 3); `mask` is bool (H, W), empty where there is no lesion. Images with the
    same `patient_id` show the same anatomy and lesion. `age` in years, `sex` and `site` tell nothing of the label.
    """

    image: NDArray[np.uint8]
    mask: Mask
    label: str
    patient_id: str
    age: int
    sex: str
    site: str
