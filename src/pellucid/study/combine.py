"""Models of a study that aren't trained by themselves: networks that vote, and classifiers of frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from pellucid.data.groups import independent_groups
from pellucid.data.transforms import Normalisation
from pellucid.devices import clock
from pellucid.errors import PellucidError
from pellucid.files import read_json, read_table, write_json, write_table
from pellucid.models.boosting import BoostedFeatures
from pellucid.models.checkpoints import ModelCard, combined, load_weights, save_weights
from pellucid.models.ensemble import Ensemble, Member, vote_weights
from pellucid.models.features import linear_network
from pellucid.models.fitting import fit_boosted, fit_linear
from pellucid.study.config import StudyConfig
from pellucid.study.model_settings import FeaturesSettings, VoteSettings
from pellucid.study.network import built, described, obtain_network
from pellucid.study.plan import Cell, cell_seed, member_cell
from pellucid.study.prepare import Prepared
from pellucid.study.store import CellStore
from pellucid.training.features import features_of
from pellucid.training.fit import Fitted

HISTORY = {
    "epoch": "int64",
    "train_loss": "float64",
    "val_loss": "float64",
    "val_accuracy": "float64",
    "learning_rate": "float64",
    "best": "bool",
}


def obtain_model(
    cell: Cell,
    prepared: Prepared,
    config: StudyConfig,
    output: Path,
    *,
    device: torch.device,
    show_progress: bool = False,
) -> Fitted:
    """Train the cell's network, or make it of others; leaves its weights and history in the cell's folder.

    Raises PellucidError when that can't be done.
    """
    store = CellStore(cell.folder(output))
    if isinstance(cell.model, VoteSettings):
        return obtain_vote(cell, cell.model, prepared, config, output)
    if isinstance(cell.model, FeaturesSettings):
        return obtain_features(cell, cell.model, prepared, config, store, device=device, show_progress=show_progress)
    return obtain_network(cell, prepared, config, store, device=device, show_progress=show_progress)


def obtain_vote(cell: Cell, settings: VoteSettings, prepared: Prepared, config: StudyConfig, output: Path) -> Fitted:
    """Let the networks of other cells vote: of the same data, enhancement, seed and fold, which were computed before.

    Leaves the cell's weights, which hold all members', and `combination.json`.

    Raises:
        PellucidError: a member couldn't be computed.
    """
    store = CellStore(cell.folder(output))
    if store.history.exists():
        return _fitted(store)
    started = clock(torch.device("cpu"))
    members = {name: CellStore(member_cell(cell, name, config).folder(output)) for name in settings.members}
    for name, member in members.items():
        if not member.finished:
            raise PellucidError(
                f"its member {name!r} wasn't computed on {cell.place}, so that there is nothing to vote."
            )
    tables = [_validated(read_table(member.predictions)) for member in members.values()]
    classes = prepared.manifest.classes
    labels = tables[0]["label"].map(classes.index).to_numpy()
    columns = [f"prob_{name}" for name in classes]
    weights = vote_weights(settings.vote, np.stack([table[columns].to_numpy() for table in tables]), labels)
    loaded = [load_weights(member.weights) for member in members.values()]
    card = combined([each for _, each in loaded], settings.vote)
    network = Ensemble([Member(each, card.preparation, own.preparation) for each, own in loaded], weights)
    about = {"kind": "vote", "how": settings.vote, "members": list(settings.members), "weights": weights}
    return _keep(store, network, card, about, started)


def obtain_features(
    cell: Cell,
    settings: FeaturesSettings,
    prepared: Prepared,
    config: StudyConfig,
    store: CellStore,
    *,
    device: torch.device,
    show_progress: bool = False,
) -> Fitted:
    """Fit a classifier to what the cell's networks pool of the training part.

    Leaves the cell's weights and `combination.json`.
    """
    if store.history.exists():
        return _fitted(store)
    started = clock(device)
    seed = cell_seed(cell.seed, cell)
    images = {
        split: prepared.images(prepared.rows(cell.fold, split), enhancement=cell.enhancement)
        for split in ("train", "val")
    }
    cards = [described(network, cell, prepared, images["train"]) for network in settings.features]
    first = cards[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        members = [
            Member(built(network, card), first.preparation, card.preparation).eval().to(device)
            for network, card in zip(settings.features, cards, strict=True)
        ]
    parts = {}
    for split in ("train", "val"):
        rows = prepared.rows(cell.fold, split)
        dataset = images[split].with_transform(Normalisation(first.mean, first.std, first.normalisation))
        loader = DataLoader(dataset, batch_size=config.training.batch_size, num_workers=config.training.workers)
        features = features_of(members, loader, device=device, show_progress=show_progress)
        parts[split] = _Part(rows, features, rows["label"].map(first.classes.index).to_numpy())
    network, card, about = _fit(settings, members, cards, parts, config.training.balance != "none", seed)
    about |= {"kind": "features", "how": settings.classifier, "members": [each.name for each in settings.features]}
    return _keep(store, network.cpu(), card, about, started)


@dataclass(frozen=True, eq=False)
class _Part:
    """Features (N, F) and labels (N,) of the images of some rows."""

    rows: pd.DataFrame
    features: np.ndarray
    labels: np.ndarray


def _fit(
    settings: FeaturesSettings,
    members: Sequence[Member],
    cards: Sequence[ModelCard],
    parts: Mapping[str, _Part],
    balanced: bool,
    seed: int,
) -> tuple[nn.Module, ModelCard, dict[str, Any]]:
    """The network, its card and what is told of how it was fitted."""
    train, validation = parts["train"], parts["val"]
    if settings.classifier == "gradient-boosting":
        boosted = fit_boosted(
            (train.features, train.labels), (validation.features, validation.labels), balanced=balanced, seed=seed
        )
        trees = BoostedFeatures(members, boosted.trees.shape)
        trees.trees.load_state_dict(boosted.trees.state_dict())
        return trees, combined(cards, "boosting", boosted.trees.shape), {"rounds": boosted.trees.shape.rounds}
    head = fit_linear(train.features, train.labels, independent_groups(train.rows), balanced=balanced, seed=seed)
    network = linear_network(members, head, train.features)
    if not isinstance(network, Ensemble):
        return network, cards[0], {"strength": head.strength}
    return network, combined(cards, "sum"), {"strength": head.strength, "weights": network.weights.tolist()}


def _keep(store: CellStore, network: nn.Module, card: ModelCard, about: dict[str, Any], started: float) -> Fitted:
    """Write the weights, what they are made of and, last, the history, which marks them as done; it has no epoch."""
    save_weights(store.weights, network, card)
    write_json(store.combination, about)
    write_json(store.folder / "training_times.json", {"seconds": [clock(torch.device("cpu")) - started]})
    write_table(store.history, pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in HISTORY.items()}))
    return _fitted(store)


def _fitted(store: CellStore) -> Fitted:
    seconds = float(sum(read_json(store.folder / "training_times.json")["seconds"]))
    return Fitted(read_table(store.history), best_epoch=0, stopped_early=False, seconds=seconds)


def _validated(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of the validation part, in one order for every member."""
    return predictions[predictions["split"] == "val"].sort_values("sample", ignore_index=True)
