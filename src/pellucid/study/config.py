"""The study's TOML file, read and checked once."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pellucid.attribution import METHODS
from pellucid.attribution.families import is_control
from pellucid.data.enhancements import ENHANCEMENTS, enhancement_label
from pellucid.errors import InputError, unknown_name
from pellucid.metrics import METRICS
from pellucid.models.volumes import NETWORKS as VOLUME_NETWORKS
from pellucid.models.volumes import check_volume_size
from pellucid.statistics import TESTS
from pellucid.study.dataset_settings import PHANTOM, DatasetSettings
from pellucid.study.model_settings import (
    MODEL_KINDS,
    AnyModel,
    FeatureNetwork,
    FeaturesSettings,
    ModelSettings,
    VoteSettings,
)
from pellucid.study.section import Section, refuse_twice
from pellucid.training.settings import TrainingSettings


class TuningSettings(Section):
    """Settings chosen anew in each fold by cross-validation within what isn't tested: nested cross-validation.

    Every combination of the values listed is trained on `folds` inner folds; that of the lowest mean validation loss
    trains the fold's network.
    """

    folds: int = Field(3, ge=2)
    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = ()
    weight_decay: tuple[Annotated[float, Field(ge=0)], ...] = ()
    epochs: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @property
    def candidates(self) -> tuple[dict[str, Any], ...]:
        """Every combination, the first listed value of each setting first."""
        listed = {name: getattr(self, name) for name in ("learning_rate", "weight_decay", "epochs")}
        listed = {name: values for name, values in listed.items() if values}
        if not listed:
            return ()
        return tuple(dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values()))


class ExplainSettings(Section):
    """Which maps are made, of how many test images, of which class."""

    methods: tuple[str, ...] = (
        "grad-cam-plus-plus",
        "xgrad-cam",
        "layer-cam",
        "eigen-grad-cam",
        "ablation-cam",
        "grad-cam",
        "random",
        "center-gaussian",
        "sobel",
    )
    images: int = Field(120, ge=0)
    target: Literal["predicted", "true"] = "predicted"
    layer: str = "auto"
    batch_size: int = Field(16, ge=1)

    @field_validator("methods")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(METHODS[name].name for name in dict.fromkeys(names))


class EvaluateSettings(Section):
    """Which metrics score the maps; those that need a mask are missing where an image has none.

    With `verdicts` each map is judged as well: whether it can be trusted, from its faithfulness, stability, sanity and
    agreement. It asks for a control among the methods, and explains each image some dozen times more. `compile` has
    the network in a form that scores faster.
    """

    metrics: tuple[str, ...] = ("road", "road-morf", "road-lerf", "pointing-game", "energy-pointing")
    batch_size: int = Field(64, ge=1)
    verdicts: bool = False
    compile: bool = False

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(METRICS[name].name for name in dict.fromkeys(names))


class StatisticsSettings(Section):
    """Which tests compare the models, how they are corrected over their family, and how intervals are made.

    `tests` are those that suit the design unless named: over folds corrected-resampled-t and paired-t, else paired-t,
    permutation, McNemar's and DeLong's by patient. `margin` is the difference in accuracy that is still accepted,
    stated beforehand; with it, non-inferiority and equivalence are tested too. `family` is what is corrected together:
    all comparisons by one test ("test"), those of one data set ("data-set"), or all of the study ("study").
    """

    tests: tuple[str, ...] = ()
    margin: float | None = Field(None, gt=0, lt=1)
    family: Literal["test", "data-set", "study"] = "test"
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    resamples: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @field_validator("tests")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(TESTS.resolve(name).label for name in dict.fromkeys(names))


class StudyConfig(Section):
    """A whole study: data sets × models × enhancements × seeds × folds.

    `seed` parts the images, chooses those that are explained and, unless `seeds` lists several, starts the training.
    With `repeats`, the parting is drawn so many times: repeated cross-validation, or repeated hold-out.
    """

    name: str = "study"
    seed: int = Field(0, ge=0)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    folds: int = Field(1, ge=1)
    repeats: int = Field(1, ge=1)
    enhancements: tuple[str, ...] = Field(("none",), min_length=1)
    datasets: tuple[DatasetSettings, ...] = Field(min_length=1)
    models: tuple[AnyModel, ...] = Field(min_length=1)
    training: TrainingSettings = TrainingSettings()
    explain: ExplainSettings = ExplainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    statistics: StatisticsSettings = StatisticsSettings()
    tuning: TuningSettings = TuningSettings()

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """The seeds from which each network is trained."""
        return self.seeds or (self.seed,)

    @field_validator("enhancements", mode="before")
    @classmethod
    def _one_spelling(cls, enhancements: Any) -> Any:
        """An enhancement may be given by its name, with options in brackets, or as a table of name and options."""
        if isinstance(enhancements, (list, tuple)):
            return [enhancement_label(each) if isinstance(each, (str, dict)) else each for each in enhancements]
        return enhancements

    @field_validator("models", mode="before")
    @classmethod
    def _bare_names(cls, models: Any) -> Any:
        """A model may be given by its name alone."""
        if isinstance(models, (list, tuple)):
            return [{"name": model} if isinstance(model, str) else model for model in models]
        return models

    @model_validator(mode="after")
    def _distinct(self) -> StudyConfig:
        refuse_twice("datasets", [dataset.name for dataset in self.datasets])
        refuse_twice("models", [model.name for model in self.models])
        refuse_twice("enhancements", self.enhancements)
        refuse_twice("seeds", self.seeds)
        several = [dataset.name for dataset in self.datasets if dataset.multi_label]
        combined = [model.name for model in self.models if not isinstance(model, ModelSettings)]
        if several and combined:
            raise ValueError(
                f"models: expected networks that are trained, which data sets of several labels to an image "
                f"({several[0]!r}) need, got {combined[0]!r}, which votes or takes features."
            )
        return self

    @model_validator(mode="after")
    def _pictures_or_volumes(self) -> StudyConfig:
        """Every model is trained on every data set."""
        kinds = {dataset.volumes for dataset in self.datasets}
        if len(kinds) > 1:
            raise ValueError("datasets: expected pictures alone or volumes alone, got both. Make two studies.")
        for model in self.models:
            name = model.name
            if isinstance(model, ModelSettings) and (name in VOLUME_NETWORKS) not in kinds:
                if True in kinds:
                    raise ValueError(f"models: {unknown_name('network of volumes', name, VOLUME_NETWORKS)}")
                raise ValueError(
                    f"models: expected a network of pictures, got {name!r}, one of volumes. "
                    "Give a data set of volumes its size in voxels, such as image_size = [64, 64, 64]."
                )
            if True in kinds and isinstance(model, FeaturesSettings):
                raise ValueError(
                    f"models: expected networks of volumes, got {name!r}, which takes features of pictures."
                )
            published = isinstance(model, ModelSettings) and (
                model.pretrained is not False or model.normalisation == "imagenet"
            )
            if True in kinds and published:
                raise ValueError(f"models: {name!r} has no published weights. Set pretrained = false.")
            for dataset in self.datasets:
                if isinstance(dataset.image_size, tuple) and name in VOLUME_NETWORKS:
                    check_volume_size(name, dataset.image_size)
        flat = [each for each in self.enhancements if "2d" in ENHANCEMENTS.resolve(each).entry.needs]
        if True in kinds and flat:
            raise ValueError(f"enhancements: expected those of volumes, got {flat[0]!r}, which takes pictures only.")
        return self

    @model_validator(mode="after")
    def _verdicts_have_a_floor(self) -> StudyConfig:
        if self.evaluate.verdicts and self.explain.images and not any(map(is_control, self.explain.methods)):
            raise ValueError(
                "explain.methods: expected a control such as 'random' among them, above which a map must come for "
                f"evaluate.verdicts, got {', '.join(self.explain.methods)}."
            )
        return self

    @model_validator(mode="after")
    def _known_members(self) -> StudyConfig:
        """Those that vote are networks of the study that give gradients, so that the vote does."""
        can = [
            model.name
            for model in self.models
            if not isinstance(model, VoteSettings) and getattr(model, "classifier", "") != "gradient-boosting"
        ]
        for model in self.models:
            for member in model.members if isinstance(model, VoteSettings) else ():
                if member in can:
                    continue
                if member in {each.name for each in self.models}:
                    raise ValueError(
                        f"models: {model.name!r} takes as members trained networks and linear classifiers of features, "
                        f"not {member!r}, a vote or a boosted one."
                    )
                raise ValueError(f"models: {unknown_name(f'member of {model.name!r}', member, can)}")
        return self


def published(config: StudyConfig) -> tuple[str, ...]:
    """The networks whose published weights a study needs."""
    networks: list[ModelSettings | FeatureNetwork] = []
    for model in config.models:
        networks += [model] if isinstance(model, ModelSettings) else getattr(model, "features", ())
    return tuple(dict.fromkeys(network.name for network in networks if network.pretrained is True))


def read_config(path: Path, data: Mapping[str, str] | None = None) -> StudyConfig:
    """Read a study's TOML file; relative paths in it are relative to its folder.

    Arguments:
        path: the TOML file.
        data: paths that replace those of the named data sets; the name "" stands for the only one.

    Raises InputError that names the key, what was expected and the nearest valid name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"study: can't read {path}: {error.strerror}.") from error
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"study: {path} isn't valid TOML: {error}.") from error
    return parse_config(fields, base=path.parent, data=data, where=str(path))


def on_devices(config: StudyConfig, count: int) -> StudyConfig:
    """The config whose networks are trained on so many devices; 1 leaves what it says itself."""
    if count == 1:
        return config
    return config.model_copy(update={"training": config.training.model_copy(update={"devices": count})})


def parse_config(
    fields: dict[str, Any], *, base: Path, data: Mapping[str, str] | None = None, where: str = "study"
) -> StudyConfig:
    """Check the fields of a study and make its paths absolute."""
    config = _validated(fields, where)
    return config.model_copy(update={"datasets": _located(config.datasets, base, dict(data or {}))})


def write_config(config: StudyConfig) -> str:
    """The whole config, defaults included, as TOML."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _located(datasets: tuple[DatasetSettings, ...], base: Path, data: dict[str, str]) -> tuple[DatasetSettings, ...]:
    names = [dataset.name for dataset in datasets]
    if "" in data:
        if len(datasets) > 1:
            raise InputError(f"--data: the study has several data sets ({', '.join(names)}); write --data NAME=PATH.")
        data[names[0]] = data.pop("")
    for name in data:
        if name not in names:
            raise unknown_name("data set", name, names)
    located = []
    for dataset in datasets:
        if dataset.name in data:
            path = str(Path(data[dataset.name]).expanduser().resolve())
        elif dataset.path.startswith(PHANTOM):
            path = dataset.path
        else:
            path = _absolute(dataset.path, base)
        external = tuple(each.model_copy(update={"path": _absolute(each.path, base)}) for each in dataset.external)
        located.append(dataset.model_copy(update={"path": path, "external": external}))
    return tuple(located)


def _absolute(path: str, base: Path) -> str:
    return str((base / Path(path).expanduser()).resolve())


def _validated(fields: dict[str, Any], where: str) -> StudyConfig:
    try:
        return StudyConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where}: {_told(fields, first['loc'], first['type'], first['msg'])}") from error


def _told(fields: dict[str, Any], loc: tuple[int | str, ...], kind: str, message: str) -> str:
    """One sentence for pydantic's first error: the key as it stands in the TOML, what was expected, what came."""
    where = tuple(part for part in loc if part not in ("bool", "str", "int") and not str(part).startswith("tuple["))
    loc = tuple(part for part in where if part not in MODEL_KINDS)  # which arm of a union isn't the user's concern
    key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if kind == "extra_forbidden":
        last = str(loc[-1])
        return str(unknown_name("key", last, _siblings(where))).replace(repr(last), repr(key), 1)
    if kind == "missing":
        return f"{key}: expected a value, got none. Add it."
    message = message.removeprefix("Value error, ")
    said = f"{key}: {message[0].lower()}{message[1:]}" if key else message
    return said + ("" if message.endswith((".", "?")) else f", got {_at(fields, loc)!r}.")


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    """The valid keys beside the unknown one."""
    model: Any = StudyConfig
    for part in loc[:-1]:
        if part in MODEL_KINDS:
            model = MODEL_KINDS[str(part)]
        elif isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next(
                (arm for arm in getattr(annotation, "__args__", ()) if hasattr(arm, "model_fields")), annotation
            )
    return list(model.model_fields)


def _at(fields: Any, loc: tuple[int | str, ...]) -> object:
    for part in loc:
        if isinstance(fields, dict):
            fields = fields.get(part)
        elif isinstance(fields, list) and isinstance(part, int) and part < len(fields):
            fields = fields[part]
    return fields
