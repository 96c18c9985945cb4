"""What can be chosen about training, with defaults that suit small medical data sets."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _rate(value: Any) -> Any:
    """One message, where a union would give one for each of its arms."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value in (None, "find") or (is_number and 0 < value < math.inf):
        return value
    raise ValueError('should be a number greater than 0, or "find"')


LearningRate = Annotated[float | Literal["find"] | None, BeforeValidator(_rate)]


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
    """How a network is trained; what is None takes the default of the network's family (`pellucid.training.defaults`).

    Training stops early when `monitor`, on the validation split, hasn't bettered for `patience` epochs; the weights
    kept are those of the best epoch.

    `epochs`: at most so many.
    `batch_size`: images per step, over all devices together.
    `optimiser`: AdamW, or SGD with Nesterov's momentum of 0.9.
    `learning_rate`: the highest, after the warm-up; "find" takes it from a range test on a copy of the network.
    `weight_decay`: of weights, not of biases and norms.
    `schedule`: after a linear warm-up over the share `warmup` of the steps a cosine to zero, or a constant rate.
    `freeze_epochs`: so many epochs at the beginning train the last layer alone, norm statistics kept as they were; then
    the warm-up begins anew.
    `layer_decay`: what the learning rate is multiplied by from each group of layers to the one before it, towards the
    input; a group is a stage, in a ViT a block and in a VGG a convolution. 1 trains all alike.
    `gradient_clip`: largest norm of a step's gradient; 0 doesn't clip.
    `mixup`, `cutmix`: the α of the Beta distribution that a pair's share is drawn from; 0 doesn't mix. Where both are
    above 0, each step takes one of them.
    `ema`: decay per step of a moving average of the weights, such as 0.999, which is then what is validated and kept;
    0 keeps none. It is less in the first steps.
    `balance`: how classes of unequal size are made to count alike: by weights in the loss, by drawing, or not at all.
    `devices`: how many devices of the kind that is trained on; each takes its share of every batch.
    `workers`: processes that read images while the network trains; 0 reads in between.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=2)
    optimiser: Literal["adamw", "sgd"] | None = None
    learning_rate: LearningRate = None
    weight_decay: float | None = Field(None, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0, le=1, description="share of all steps")
    freeze_epochs: int | None = Field(None, ge=0)
    layer_decay: float | None = Field(None, gt=0, le=1)
    gradient_clip: float | None = Field(None, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    balance: Literal["weights", "sampling", "none"] = "weights"
    monitor: Literal["loss", "accuracy"] = "loss"
    patience: int = Field(10, ge=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    devices: int = Field(1, ge=1)
    workers: int = Field(0, ge=0)
    augmentation: AugmentationSettings = AugmentationSettings()
