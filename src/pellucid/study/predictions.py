"""What a cell's network says of images, in a table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pellucid.data.labels import members
from pellucid.data.transforms import Normalisation
from pellucid.models.checkpoints import ModelCard
from pellucid.study.plan import Cell
from pellucid.study.prepare import Prepared
from pellucid.training.classifier import Item
from pellucid.training.predict import predict, predicted_label


def predict_cell(
    network: nn.Module, card: ModelCard, prepared: Prepared, cell: Cell, *, show_progress: bool = False
) -> pd.DataFrame:
    """A row per validation and test image: label, prediction and the probability of each class."""
    rows = pd.concat([prepared.rows(cell.fold, split) for split in ("val", "test")], ignore_index=True)
    return predicted(network, card, prepared, cell, rows, None, show_progress)


def predicted(
    network: nn.Module,
    card: ModelCard,
    prepared: Prepared,
    cell: Cell,
    rows: pd.DataFrame,
    external: str | None,
    show_progress: bool,
) -> pd.DataFrame:
    images = prepared.images(rows, enhancement=cell.enhancement, external=external)
    dataset = images.with_transform(card_normalisation(card))
    loader: DataLoader[Item] = DataLoader(dataset, batch_size=64)
    probabilities = predict(network, loader, multi_label=card.multi_label, show_progress=show_progress)
    return prediction_table(rows, probabilities, card.classes, multi_label=card.multi_label)


def prediction_table(
    rows: pd.DataFrame, probabilities: Tensor, classes: Sequence[str], *, multi_label: bool = False
) -> pd.DataFrame:
    """Predictions beside what is known of each image; ties go to the class that comes first.

    Where an image may have several labels, it is predicted those of a probability from 0.5 on, and is right when it has
    these and no others; label_CLASS says which it has.
    """
    table = rows[["sample", "patient_id", "split", "label"]].copy()
    table["predicted"] = [predicted_label(row, classes, multi_label) for row in probabilities]
    table["correct"] = table["label"] == table["predicted"]
    table["copy_in_train"] = rows["copy_in_train"].astype(bool)
    for index, name in enumerate(classes):
        table[f"prob_{name}"] = probabilities[:, index].double().numpy()
    if multi_label:
        truth = members(list(rows["label"]), classes, True)
        table = table.assign(**{f"label_{name}": truth[:, index] for index, name in enumerate(classes)})
    return table


def card_normalisation(card: ModelCard) -> Normalisation:
    """The normalisation that a weights file states."""
    return Normalisation(mean=card.mean, std=card.std, origin=card.normalisation)
