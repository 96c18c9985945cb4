"""A study's models: networks, networks that vote, and classifiers of what networks pool."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    field_serializer,
    field_validator,
    model_validator,
)

from pellucid.errors import InputError
from pellucid.models.ensemble import Vote
from pellucid.models.volumes import NETWORKS as VOLUME_NETWORKS
from pellucid.models.zoo import check_architecture
from pellucid.study.section import NAME, Section, refuse_twice
from pellucid.training.settings import LearningRate, TrainingSettings


class ModelSettings(Section):
    """One network by its timm name, or one of volumes such as "resnet18-3d".

    `pretrained` is true, false, or a local weights file; networks of volumes have none.

    `learning_rate`, `epochs` and whatever `training` holds replace those of the training section for this network:
    `training = {optimiser = "sgd", mixup = 0.2}`. A smaller `output_stride` gives finer maps, at more cost, from
    networks that can dilate their last stages.
    """

    name: str
    pretrained: bool | str = False
    learning_rate: LearningRate = None
    epochs: int | None = Field(None, ge=1)
    training: TrainingSettings = TrainingSettings()
    output_stride: Literal[8, 16, 32] | None = None
    normalisation: Literal["auto", "imagenet", "data-set"] = "auto"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        check_architecture(name)
        return name

    @field_serializer("training")
    def _given(self, training: TrainingSettings) -> dict[str, Any]:
        """What was given, so that it still replaces nothing else when it is read again."""
        return training.model_dump(mode="json", exclude_unset=True, exclude_none=True)

    def trained_by(self, shared: TrainingSettings) -> TrainingSettings:
        """The training section with this network's own settings in place of its."""
        own = self.model_dump(include={"learning_rate", "epochs"}, exclude_none=True) | self._given(self.training)
        fields = shared.model_dump() | own
        fields["augmentation"] = shared.augmentation.model_dump() | own.get("augmentation", {})
        return TrainingSettings.model_validate(fields)


class VoteSettings(Section):
    """Networks of the study that vote, trained no more than once: of the same data, enhancement, seed and fold.

    `vote`: "soft", the mean of probabilities; "weighted", with weights of the least log loss on the validation part;
    "accuracy", with weights in proportion to the accuracy there.
    """

    name: str = Field(pattern=NAME)
    members: tuple[str, ...] = Field(min_length=2)
    vote: Vote = "soft"

    @field_validator("members")
    @classmethod
    def _distinct(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        refuse_twice("members", members)
        return members


class FeatureNetwork(Section):
    """A network that isn't trained, by its timm name; `pretrained` is true, false, or a local weights file."""

    name: str
    pretrained: bool | str = True
    normalisation: Literal["auto", "imagenet", "data-set"] = "auto"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return _picture_network(name)


class FeaturesSettings(Section):
    """A classifier of what one or several networks pool, which aren't trained.

    Their features are joined. `pretrained` is what networks given by their name alone are loaded with.
    """

    name: str = Field(pattern=NAME)
    features: tuple[FeatureNetwork, ...] = Field(min_length=1)
    classifier: Literal["logistic-regression", "gradient-boosting"] = "logistic-regression"

    @model_validator(mode="before")
    @classmethod
    def _bare_names(cls, fields: Any) -> Any:
        """A network may be given by its name alone, and what they are loaded with once for all."""
        if not isinstance(fields, dict) or not isinstance(fields.get("features"), list | tuple):
            return fields
        shared = {"pretrained": fields["pretrained"]} if "pretrained" in fields else {}
        networks = [
            {**shared, **({"name": each} if isinstance(each, str) else each)} if isinstance(each, str | dict) else each
            for each in fields["features"]
        ]
        return {key: value for key, value in fields.items() if key != "pretrained"} | {"features": networks}

    @field_validator("features")
    @classmethod
    def _distinct(cls, features: tuple[FeatureNetwork, ...]) -> tuple[FeatureNetwork, ...]:
        refuse_twice("features", [network.name for network in features])
        return features


def kind_of_model(fields: Any) -> str:
    """Which settings a model's table is for, by the keys that it has."""
    if isinstance(fields, BaseModel):
        return type(fields).__name__
    keys = fields if isinstance(fields, dict) else {}
    if "members" in keys or "vote" in keys:
        return VoteSettings.__name__
    return FeaturesSettings.__name__ if "features" in keys or "classifier" in keys else ModelSettings.__name__


AnyModel = Annotated[
    Annotated[ModelSettings, Tag(ModelSettings.__name__)]
    | Annotated[VoteSettings, Tag(VoteSettings.__name__)]
    | Annotated[FeaturesSettings, Tag(FeaturesSettings.__name__)],
    Discriminator(kind_of_model),
]
MODEL_KINDS = {kind.__name__: kind for kind in (ModelSettings, VoteSettings, FeaturesSettings)}


def _picture_network(name: str) -> str:
    check_architecture(name)
    if name in VOLUME_NETWORKS:
        raise InputError(f"expected a network of pictures, which studies are made on, got {name!r}, one of volumes.")
    return name
