"""What can be chosen about training, with defaults that suit small medical data sets."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AugmentationSettings(BaseModel):
    """Random changes to training images, drawn anew for each image and epoch.

    `rotation` in degrees either way; `translation` a share of the image's side; `scale`, `brightness` and
    `contrast` shares around 1. A flip is made with probability one half.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    horizontal_flip: bool = False
    vertical_flip: bool = False
    rotation: float = Field(10.0, ge=0, le=180)
    translation: float = Field(0.05, ge=0, le=0.5)
    scale: float = Field(0.1, ge=0, lt=1)
    brightness: float = Field(0.1, ge=0, lt=1)
    contrast: float = Field(0.1, ge=0, lt=1)


class TrainingSettings(BaseModel):
    """How a network is trained: AdamW, a linear warm-up, then a cosine to zero.

    Training stops early when `monitor`, on the validation split, hasn't bettered for `patience` epochs; the
    weights kept are those of the best epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, le=1, description="share of all steps")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    balance: Literal["weights", "sampling", "none"] = "weights"
    monitor: Literal["loss", "accuracy"] = "loss"
    patience: int = Field(10, ge=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    workers: int = Field(0, ge=0)
    augmentation: AugmentationSettings = AugmentationSettings()
