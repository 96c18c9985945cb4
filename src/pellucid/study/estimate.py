"""What a study would cost, from a short probe of each network, before anything is computed."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from pellucid.attribution.engine import explain
from pellucid.devices import clock, pick_devices
from pellucid.metrics.evaluate import evaluate
from pellucid.models.boosting import BoostedFeatures, TreeShape
from pellucid.models.ensemble import Ensemble, Member, Preparation
from pellucid.models.layout import channels_last
from pellucid.models.zoo import count_parameters, create_model
from pellucid.progress import progress
from pellucid.study.cell import made_methods, stale_stages
from pellucid.study.config import StudyConfig
from pellucid.study.model_settings import FeaturesSettings, ModelSettings, VoteSettings
from pellucid.study.network import training_epochs
from pellucid.study.plan import Cell, member_cell, plan
from pellucid.study.prepare import Prepared, read_dataset
from pellucid.study.store import CellStore

PROBED = 4  # images per batch of a probe
_BYTES = 4  # of a float32 number
_STAGES = ("training", "explaining")


@dataclass(frozen=True)
class Cost:
    """What one image costs, in seconds, and what a network takes on disk, in bytes."""

    reading: float
    training: float
    predicting: float
    explaining: float
    evaluating: float
    weights: int
    maps: int


@dataclass(frozen=True)
class Estimate:
    """A row per cell: dataset, model, seed, fold, state, seconds still to go, bytes on disk when finished.

    Seconds count all epochs, so that early stopping makes them fewer.
    """

    cells: pd.DataFrame

    @property
    def seconds(self) -> float:
        return float(self.cells["seconds"].sum())

    @property
    def bytes(self) -> int:
        return int(self.cells["bytes"].sum())


def estimate_study(
    config: StudyConfig, output: Path, *, device: str = "auto", strict: bool = False, show_progress: bool = False
) -> Estimate:
    """Look at the data, probe each network on each data set for a few images, and write nothing.

    Raises InputError when the study, the data or the device can't be used.
    """
    where = pick_devices(device)[0]
    with tempfile.TemporaryDirectory() as aside:  # phantoms must be drawn to be read
        prepared = {
            settings.name: read_dataset(settings, config, Path(aside), strict=strict, show_progress=show_progress)
            for settings in config.datasets
        }
        cells = plan(config, {name: dataset.folds for name, dataset in prepared.items()})
        kinds = {(cell.dataset.name, cell.arm): cell for cell in cells}
        costs = {}
        with progress("probing", len(kinds), show=show_progress) as advance:
            for kind, cell in kinds.items():
                costs[kind] = probe(cell, prepared[cell.dataset.name], config, where)
                advance(1)
    rows = [
        _row(cell, prepared[cell.dataset.name], costs[cell.dataset.name, cell.arm], config, output) for cell in cells
    ]
    return Estimate(pd.DataFrame(rows, columns=["dataset", "model", "seed", "fold", "state", "seconds", "bytes"]))


def probe(cell: Cell, prepared: Prepared, config: StudyConfig, device: torch.device) -> Cost:
    """Time each stage of a cell on a few of its images with an untrained network."""
    rows = prepared.rows(cell.fold, "train").head(PROBED)
    dataset = prepared.images(rows, enhancement=cell.enhancement)
    started = clock(device)
    images = torch.stack([dataset[position][0] for position in range(len(rows))])
    reading = (clock(device) - started) / len(rows)
    with torch.random.fork_rng(devices=[]):
        network = _untrained(cell, config, len(prepared.manifest.classes)).to(device)
    methods = made_methods(network, config)
    training = 0.0
    if isinstance(cell.model, ModelSettings):
        _step(network, images.to(device))  # the first one allocates
        training = _timed(lambda: _step(network, images.to(device)), device) / len(rows)
    network.eval()
    predicting = _timed(lambda: _ask(network, images.to(device)), device) / len(rows)
    explaining = evaluating = 0.0
    maps = 0
    if config.explain.images and methods:
        one, target = images[:1], torch.zeros(1, dtype=torch.long)
        with warnings.catch_warnings(action="ignore"):
            started = clock(device)
            found = explain(network, one, methods=methods, target=target, layer=config.explain.layer)
            explaining = clock(device) - started
            masks = torch.zeros(1, *one.shape[2:], dtype=torch.bool)
            started = clock(device)
            evaluate(network, one, found, metrics=config.evaluate.metrics, masks=masks)
            evaluating = clock(device) - started
        maps = sum(found.layer_maps.get(name, found.maps[name]).numel() for name in found.maps) * _BYTES
    if isinstance(cell.model, FeaturesSettings):
        training = predicting  # each image is asked for its features once
    weights = count_parameters(network) * _BYTES
    return Cost(reading, training, predicting, explaining, evaluating, weights, maps)


def _untrained(cell: Cell, config: StudyConfig, classes: int) -> nn.Module:
    """A network such as the cell's, with random weights."""

    def build(name: str, output_stride: int | None = None) -> nn.Module:
        size = cell.dataset.image_size
        return create_model(
            name, classes=classes, channels=cell.dataset.channels, size=size, output_stride=output_stride
        )

    if isinstance(cell.model, ModelSettings):
        return build(cell.model.name, cell.model.output_stride)
    if isinstance(cell.model, VoteSettings):
        networks = [_untrained(member_cell(cell, name, config), config, classes) for name in cell.model.members]
    else:
        networks = [build(network.name) for network in cell.model.features]
    channels = cell.dataset.channels
    plain = Preparation((0.0,) * channels, (1.0,) * channels, cell.dataset.image_size)
    members = [Member(network, plain, plain) for network in networks]
    if isinstance(cell.model, FeaturesSettings) and cell.model.classifier == "gradient-boosting":
        return BoostedFeatures(members, TreeShape(1, 1 if classes == 2 else classes, nodes=1, depth=0))
    return Ensemble(members) if len(members) > 1 else members[0].network


def cell_seconds(cost: Cost, images: Mapping[str, int], epochs: int, done: Iterable[str] = ()) -> float:
    """Seconds of a cell's stages that aren't done.

    Arguments:
        cost: of one image in each stage.
        images: how many images "train", "val", "test" and "explained" have.
        epochs: of the training.
        done: which of "training" and "explaining" are done.

    >>> cost = Cost(reading=1, training=2, predicting=1, explaining=5, evaluating=5, weights=0, maps=0)
    >>> cell_seconds(cost, {"train": 10, "val": 2, "test": 3, "explained": 1}, epochs=2)
    74.0
    """
    finished, total = set(done), 0.0
    if "training" not in finished:
        total += cost.reading * (images["train"] + images["val"])  # later epochs find them in memory
        total += epochs * (cost.training * images["train"] + cost.predicting * images["val"])
        total += cost.predicting * images["val"] + (cost.reading + cost.predicting) * images["test"]
    if "explaining" not in finished:
        total += (cost.explaining + cost.evaluating) * images["explained"]
    return float(total)


def _row(cell: Cell, prepared: Prepared, cost: Cost, config: StudyConfig, output: Path) -> tuple[object, ...]:
    store = CellStore(cell.folder(output))
    counts = prepared.splits[prepared.splits["fold"] == cell.fold]["split"].value_counts()
    images = {part: int(counts.get(part, 0)) for part in ("train", "val", "test")}
    images["explained"] = min(config.explain.images, images["test"])
    stale = stale_stages(cell, prepared, config, output)
    state, done = _state(store, stale)
    epochs = training_epochs(cell, config)
    seconds = cell_seconds(cost, images, epochs, done)
    if isinstance(cell.model, ModelSettings):  # nothing else is tuned
        inner = len(config.tuning.candidates) * config.tuning.folds
        seconds += inner * cell_seconds(cost, images, epochs, (*done, "explaining"))
    taken = cost.weights + cost.maps * images["explained"]
    return (cell.dataset.name, cell.arm, cell.seed, cell.fold, state, seconds, taken)


def _state(store: CellStore, stale: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """How far a cell has come, in words, and the stages that needn't be computed."""
    if "training" in stale:
        return "done from other settings, to do anew", ()
    if store.finished:
        return ("explained from other settings, to do anew", ("training",)) if stale else ("done", _STAGES)
    if store.failure.exists():
        return "failed, to be tried again", ()
    if store.history.exists():
        return "trained", ("training",)
    if (store.folder / "resume.ckpt").exists():
        return "in training", ()
    return "to do", ()


def _timed(run: Callable[[], None], device: torch.device) -> float:
    started = clock(device)
    run()
    return clock(device) - started


def _step(network: nn.Module, images: Tensor) -> None:
    network.train()
    network.zero_grad(set_to_none=True)
    network(channels_last(images)).logsumexp(dim=1).mean().backward()


def _ask(network: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        network(images)
