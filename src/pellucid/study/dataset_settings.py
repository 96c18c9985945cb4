"""A study's data sets: where they are, how they are parted, and what else is asked of them."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from pellucid.data.leakage import ALIKE, NEAR
from pellucid.data.phantoms import TASKS, VOLUME_TASKS
from pellucid.data.resample import Frame, check_orientation
from pellucid.data.windows import check_intensity
from pellucid.errors import unknown_name
from pellucid.study.section import NAME, Section, refuse_twice

PHANTOM = "phantom:"


class SplitSettings(Section):
    """How images are parted. `use`: the given split where there is one ("auto", "given"), or a random one.

    A data set with `use = "given"` has that one hold-out, whatever `folds` and `repeats` say for the others.

    `leave_out` names a column, such as site: each of its values is the test part of one fold, whatever `folds` says.
    """

    use: Literal["auto", "given", "random"] = "auto"
    test: float = Field(0.2, gt=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    leave_out: str | None = Field(None, min_length=1)


class LeakageSettings(Section):
    """What is done about copies: `action` as `assign_splits` takes it; a random split always keeps copies together.

    `near` looks for near copies too, from the similarity `threshold` on; from `alike` on pictures are told of.
    """

    near: bool = True
    action: Literal["keep", "drop", "group"] = "keep"
    threshold: float = Field(NEAR, ge=0.5, le=1)
    alike: float = Field(ALIKE, ge=0.5, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> LeakageSettings:
        if self.alike > self.threshold:
            raise ValueError(f"alike: expected at most the threshold, {self.threshold:g}, got {self.alike:g}.")
        return self


class ExternalSettings(Section):
    """Images of another origin that no training touches; every network of the data set predicts them.

    `labels` says what a class is called in the data set where the two differ: `{cancer = "malignant"}`.
    """

    name: str = Field(pattern=NAME)
    path: str
    labels: dict[str, str] = Field(default_factory=dict)


class DatasetSettings(Section):
    """One data set: an image folder, a manifest file, or `phantom:NAME` for a built-in one.

    With the task "multi-label" an image may have several labels, or none: a manifest's label column parts them by "|",
    or `labels` names its columns of 0 and 1.

    `orientation` and `spacing` say how volumes are laid before the networks, as `pellucid.data.resample.Frame` does.
    """

    name: str = Field(pattern=NAME)
    path: str
    image_size: int | tuple[int, int, int] = 224
    channels: Literal[1, 3] = 3
    orientation: str | None = None
    spacing: tuple[float, float, float] | None = None
    intensity: str = "dtype"
    images: int = Field(400, ge=40, description="how many images a phantom has; ignored for files")
    task: Literal["single-label", "multi-label"] = "single-label"
    labels: tuple[str, ...] = ()
    split: SplitSettings = SplitSettings()
    leakage: LeakageSettings = LeakageSettings()
    external: tuple[ExternalSettings, ...] = ()

    @field_validator("image_size")
    @classmethod
    def _large_enough(cls, size: int | tuple[int, int, int]) -> int | tuple[int, int, int]:
        """Pixels of a square picture's side; three lengths in voxels make the data set one of volumes."""
        least = 32 if isinstance(size, int) else 8
        if min(size if isinstance(size, tuple) else (size,)) < least:
            raise ValueError(f"input should be greater than or equal to {least}")
        return size

    @field_validator("orientation")
    @classmethod
    def _sides(cls, orientation: str | None) -> str | None:
        return None if orientation is None else check_orientation(orientation)

    @field_validator("spacing")
    @classmethod
    def _above_zero(cls, spacing: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        return Frame(spacing=spacing).spacing

    @property
    def frame(self) -> Frame:
        """How volumes are laid before the networks."""
        return Frame(self.orientation, self.spacing)

    @field_validator("intensity")
    @classmethod
    def _known_intensity(cls, intensity: str) -> str:
        """A range, or a window by name or by its centre and width."""
        return check_intensity(intensity)

    @property
    def volumes(self) -> bool:
        """Whether its images are volumes."""
        return isinstance(self.image_size, tuple)

    @field_validator("external")
    @classmethod
    def _distinct(cls, external: tuple[ExternalSettings, ...]) -> tuple[ExternalSettings, ...]:
        refuse_twice("external", [each.name for each in external])
        return external

    @model_validator(mode="after")
    def _known_phantom(self) -> DatasetSettings:
        known = VOLUME_TASKS if self.volumes else tuple(TASKS)
        task = self.path.removeprefix(PHANTOM)
        if self.path.startswith(PHANTOM) and task not in known:
            if task in (*TASKS, *VOLUME_TASKS):
                wanted, got = ("volumes", "pictures") if self.volumes else ("pictures", "volumes")
                raise ValueError(f"path: expected a folder or a phantom of {wanted}, got {self.path!r}, one of {got}.")
            raise ValueError(str(unknown_name("phantom", task, known)))
        if not self.volumes and not self.frame.plain:
            raise ValueError(
                "orientation, spacing: expected none for pictures, got some. Give volumes their size in voxels, such "
                "as image_size = [64, 64, 64]."
            )
        if self.multi_label and self.path.startswith(PHANTOM):
            raise ValueError("task: expected single-label, which phantoms are, got multi-label.")
        if self.labels and not self.multi_label:
            raise ValueError('labels: expected none for one class to an image, got some. Set task = "multi-label".')
        return self

    @property
    def multi_label(self) -> bool:
        return self.task == "multi-label"
