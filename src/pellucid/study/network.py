"""The network of a cell: trained on its fold, or taken up where a stop left it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from pellucid.data.dataset import EpochSampler, ImageDataset, class_weights, positive_weights
from pellucid.data.splits import inner_folds
from pellucid.data.transforms import Augmentation, Normalisation, dataset_normalisation
from pellucid.errors import expected
from pellucid.files import read_table, write_table
from pellucid.models.checkpoints import ModelCard
from pellucid.models.zoo import create_model, pretrained_normalisation
from pellucid.study.config import StudyConfig
from pellucid.study.model_settings import FeatureNetwork, ModelSettings
from pellucid.study.plan import Cell, cell_seed
from pellucid.study.predictions import card_normalisation
from pellucid.study.prepare import Prepared
from pellucid.study.store import CellStore
from pellucid.training.defaults import resolved
from pellucid.training.fit import Fitted, fit
from pellucid.training.settings import TrainingSettings


def obtain_network(
    cell: Cell,
    prepared: Prepared,
    config: StudyConfig,
    store: CellStore,
    *,
    device: torch.device,
    show_progress: bool = False,
) -> Fitted:
    """Train the cell's network, its settings tuned within the fold where the study asks for it.

    Leaves the cell's weights, history and, when settings were tuned, `tuning.parquet`. What is there isn't made again.
    """
    task = _Task(cell, prepared, cell_seed(cell.seed, cell), device, show_progress)
    settings = task.model.trained_by(config.training)
    train, validation = prepared.rows(cell.fold, "train"), prepared.rows(cell.fold, "val")
    if config.tuning.candidates:
        pool = pd.concat([train, validation], ignore_index=True).sort_values("sample", ignore_index=True)
        settings = settings.model_copy(update=_tuned(task, pool, settings, config, store))
    return _train(task, train, validation, settings, store.folder)


def training_settings(model: ModelSettings, training: TrainingSettings) -> TrainingSettings:
    """The study's settings with the network's own in their place, and what both leave open by the network's family."""
    return resolved(model.trained_by(training), model.name, pretrained=model.pretrained is not False)


def training_epochs(cell: Cell, config: StudyConfig) -> int:
    """How many epochs a cell trains at most; what is fitted to features or votes passes its images once."""
    if not isinstance(cell.model, ModelSettings):
        return 1
    epochs = training_settings(cell.model, config.training).epochs
    assert epochs is not None, cell.model
    return epochs


@dataclass(frozen=True)
class _Task:
    """What is the same for every training of a cell."""

    cell: Cell
    prepared: Prepared
    seed: int
    device: torch.device
    show_progress: bool

    @property
    def model(self) -> ModelSettings:
        assert isinstance(self.cell.model, ModelSettings), self.cell.model
        return self.cell.model


def _tuned(
    task: _Task, pool: pd.DataFrame, settings: TrainingSettings, config: StudyConfig, store: CellStore
) -> dict[str, Any]:
    """The settings of the lowest mean validation loss over the inner folds; the first of equals."""
    candidates = config.tuning.candidates
    if not store.tuning.exists():
        aside = store.folder / "tuning"
        rows: list[dict[str, Any]] = []
        for fold, validates in enumerate(
            inner_folds(pool, config.tuning.folds, config.seed, multi_label=task.prepared.manifest.multi_label)
        ):
            parts = pool[~validates].reset_index(drop=True), pool[validates].reset_index(drop=True)
            for number, candidate in enumerate(candidates):
                folder = aside / f"{fold}-{number}"
                fitted = _train(task, *parts, settings.model_copy(update=candidate), folder)
                (folder / "weights.safetensors").unlink(missing_ok=True)
                best = fitted.history[fitted.history["best"]].iloc[0]
                scores = {"val_loss": float(best["val_loss"]), "val_accuracy": float(best["val_accuracy"])}
                rows.append({"candidate": number, "inner_fold": fold, **candidate, **scores})
        write_table(store.tuning, pd.DataFrame(rows))
        shutil.rmtree(aside)
    return candidates[chosen_candidate(store)]


def chosen_candidate(store: CellStore) -> int:
    """The number of the combination of settings that the inner folds speak for."""
    losses = read_table(store.tuning).groupby("candidate")["val_loss"].mean()
    return int(losses.to_numpy().argmin())


def described(
    network: ModelSettings | FeatureNetwork, cell: Cell, prepared: Prepared, train: ImageDataset
) -> ModelCard:
    """What a network of the cell is given and answers, which its weights carry."""
    normalisation = chosen_normalisation(network, train)
    return ModelCard(
        architecture=network.name,
        image_size=cell.dataset.image_size,
        channels=cell.dataset.channels,
        classes=prepared.manifest.classes,
        mean=normalisation.mean,
        std=normalisation.std,
        normalisation=normalisation.origin,
        intensity=cell.dataset.intensity,
        output_stride=network.output_stride if isinstance(network, ModelSettings) else None,
        enhancement=cell.enhancement,
        multi_label=prepared.manifest.multi_label,
        orientation=cell.dataset.orientation,
        spacing=cell.dataset.spacing,
    )


def built(network: ModelSettings | FeatureNetwork, card: ModelCard) -> nn.Module:
    """The network that a card describes, with random, published or local weights as the study says."""
    pretrained = network.pretrained
    return create_model(
        card.architecture,
        classes=len(card.classes),
        channels=card.channels,
        size=card.image_size,
        pretrained=Path(pretrained) if isinstance(pretrained, str) else pretrained,
        output_stride=card.output_stride,
    )


def _train(
    task: _Task, train_rows: pd.DataFrame, val_rows: pd.DataFrame, settings: TrainingSettings, folder: Path
) -> Fitted:
    cell, model, prepared, seed = task.cell, task.model, task.prepared, task.seed
    settings = resolved(settings, model.name, pretrained=model.pretrained is not False)
    train = prepared.images(train_rows, enhancement=cell.enhancement)
    validation = prepared.images(val_rows, enhancement=cell.enhancement)
    card = described(model, cell, prepared, train)
    normalisation = card_normalisation(card)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = built(model, card)
    labels, balance = torch.as_tensor(train.labels), settings.balance
    if card.multi_label and balance == "sampling":
        raise expected("balance", "'weights' or 'none' where an image may have several labels", "'sampling'")
    weights = None
    if balance == "weights":
        weights = positive_weights(labels) if card.multi_label else class_weights(labels, len(card.classes))
    train = train.with_transform(normalisation, Augmentation(**settings.augmentation.model_dump()), seed=seed)
    if settings.workers:
        train.keep(settings.workers, show_progress=task.show_progress)
    sampler = EpochSampler(
        torch.zeros(len(train)) if card.multi_label else labels, seed=seed, balanced=balance == "sampling"
    )
    return fit(
        network,
        DataLoader(
            train,
            batch_size=settings.batch_size,
            sampler=sampler,
            num_workers=settings.workers,
            # a batch of one has no variance, and batch normalisation refuses it
            drop_last=len(train) % settings.batch_size == 1 and len(train) > settings.batch_size,
        ),
        DataLoader(validation.with_transform(normalisation), batch_size=settings.batch_size, num_workers=0),
        folder=folder,
        card=card,
        settings=settings,
        class_weights=weights,
        seed=seed,
        device=task.device,
        show_progress=task.show_progress,
    )


def chosen_normalisation(model: ModelSettings | FeatureNetwork, train: ImageDataset) -> Normalisation:
    """That of the published weights where they are used, and else that of the training images."""
    if model.normalisation == "imagenet" or (model.normalisation == "auto" and model.pretrained is not False):
        mean, std = pretrained_normalisation(model.name)
        if train.channels == 1:
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        return Normalisation(mean=mean, std=std, origin="imagenet")
    return dataset_normalisation(train)
