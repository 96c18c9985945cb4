"""What a network's family is trained with where the user doesn't say: so that a study needs no settings at all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

import timm

from pellucid.training.settings import TrainingSettings


@dataclass(frozen=True)
class Defaults:
    """The settings that depend on the family, as `TrainingSettings` describes them."""

    learning_rate: float
    weight_decay: float
    epochs: int
    freeze_epochs: int = 0
    layer_decay: float = 1.0
    gradient_clip: float = 0.0
    optimiser: Literal["adamw", "sgd"] = "adamw"


# For some hundred to some thousand images: norms allow high rates from random weights, transformers and networks
# without norms ask for low ones and a bound on the gradient. Pretrained weights are moved less, the early ones least.
FROM_SCRATCH = {
    "resnet": Defaults(1e-3, 0.01, 40),
    "densenet": Defaults(1e-3, 0.01, 40),
    "vgg": Defaults(1e-4, 0.01, 40, gradient_clip=1.0),
    "vgg-bn": Defaults(5e-4, 0.01, 40),
    "efficientnet": Defaults(1e-3, 0.01, 50),
    "mobilenet": Defaults(1e-3, 0.01, 50),
    "convnext": Defaults(5e-4, 0.05, 60, gradient_clip=1.0),
    "swin": Defaults(5e-4, 0.05, 60, gradient_clip=1.0),
    "vit": Defaults(5e-4, 0.05, 60, gradient_clip=1.0),
    "other": Defaults(1e-3, 0.01, 40),
}
PRETRAINED = {
    "resnet": Defaults(3e-4, 0.01, 30, freeze_epochs=1, layer_decay=0.7),
    "densenet": Defaults(3e-4, 0.01, 30, freeze_epochs=1, layer_decay=0.7),
    "vgg": Defaults(5e-5, 0.01, 30, freeze_epochs=1, layer_decay=0.9, gradient_clip=1.0),
    "vgg-bn": Defaults(1e-4, 0.01, 30, freeze_epochs=1, layer_decay=0.9),
    "efficientnet": Defaults(5e-4, 0.01, 30, freeze_epochs=1, layer_decay=0.8),
    "mobilenet": Defaults(5e-4, 0.01, 30, freeze_epochs=1, layer_decay=0.8),
    "convnext": Defaults(1e-4, 0.05, 30, freeze_epochs=1, layer_decay=0.7, gradient_clip=1.0),
    "swin": Defaults(1e-4, 0.05, 30, freeze_epochs=1, layer_decay=0.7, gradient_clip=1.0),
    "vit": Defaults(1e-4, 0.05, 30, freeze_epochs=1, layer_decay=0.75, gradient_clip=1.0),
    "other": Defaults(3e-4, 0.01, 30, freeze_epochs=1, layer_decay=0.8),
}
_FAMILIES = {  # by the beginning of a network's name, or else of that of timm's file
    "resnet": "resnet", "seresnet": "resnet", "resnetv2": "resnet", "regnet": "resnet", "byobnet": "resnet",
    "densenet": "densenet", "vgg": "vgg", "efficientnet": "efficientnet", "mobilenet": "mobilenet",
    "convnext": "convnext", "swin_transformer": "swin", "vision_transformer": "vit", "vit": "vit", "deit": "vit",
    "beit": "vit", "eva": "vit",
}  # fmt: skip


def family_of(architecture: str) -> str:
    """The family whose defaults a network by this name takes; "other" where it has none of its own.

    >>> family_of("resnet50"), family_of("vgg16_bn"), family_of("vit-3d"), family_of("hrnet_w18")
    ('resnet', 'vgg-bn', 'vit', 'other')
    """
    names = [architecture]
    if timm.is_model(name := architecture.split(".", 1)[0]):
        names.append(timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1])
    found = next((_FAMILIES[start] for name in names for start in _FAMILIES if name.startswith(start)), "other")
    return "vgg-bn" if found == "vgg" and "_bn" in architecture else found


def defaults_of(architecture: str, *, pretrained: bool, optimiser: str | None = None) -> Defaults:
    """The family's defaults, for the optimiser that was chosen: the tables are AdamW's.

    SGD takes ten times the rate, and a weight decay that is a part of its gradient and so much smaller.

    >>> defaults_of("resnet50", pretrained=False, optimiser="sgd").learning_rate
    0.01
    """
    defaults = (PRETRAINED if pretrained else FROM_SCRATCH)[family_of(architecture)]
    if optimiser == "sgd" and defaults.optimiser == "adamw":
        return replace(defaults, learning_rate=10 * defaults.learning_rate, weight_decay=5e-4, optimiser="sgd")
    return defaults


def resolved(settings: TrainingSettings, architecture: str, *, pretrained: bool) -> TrainingSettings:
    """The settings with nothing left open: what is None takes the default of the network's family.

    >>> resolved(TrainingSettings(epochs=5), "vgg16", pretrained=False).learning_rate
    0.0001
    """
    defaults = defaults_of(architecture, pretrained=pretrained, optimiser=settings.optimiser)
    chosen = {name: value for name, value in asdict(defaults).items() if getattr(settings, name) is None}
    if "freeze_epochs" in chosen:  # a short training must not stop before the network is let go
        epochs = chosen.get("epochs", settings.epochs)
        chosen["freeze_epochs"] = min(defaults.freeze_epochs, (epochs or 1) - 1)
    return settings.model_copy(update=chosen)


def taken_by_default(settings: TrainingSettings) -> tuple[str, ...]:
    """Names of the settings that `resolved` fills in, since the user left them open.

    >>> taken_by_default(TrainingSettings(learning_rate=1e-3, epochs=5))
    ('weight_decay', 'freeze_epochs', 'layer_decay', 'gradient_clip', 'optimiser')
    """
    return tuple(name for name in Defaults.__dataclass_fields__ if getattr(settings, name) is None)
