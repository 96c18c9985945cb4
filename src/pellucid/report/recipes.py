"""How each network was trained, and which of its settings nobody chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.report.read import CellResult, DatasetResult
from pellucid.report.tables import Cell, Table

_OPTIMISERS = {"adamw": "AdamW", "sgd": "SGD, Nesterov"}
_DEFAULT = "family’s default"


def recipes_table(dataset: DatasetResult) -> Table | None:
    """A row per network with its settings, those taken by default marked; None where no card tells of any."""
    trained = {
        model: [cell for cell in dataset.of_model(model) if cell.card.get("training")] for model in dataset.models
    }
    rows = [_row(cells) for cells in trained.values() if cells]
    columns = ["Model", "Optimiser", "Learning rate", "Weight decay", "Epochs, at most", "Frozen first", "Besides"]
    if not rows:
        return None
    return Table(
        "How the networks were trained",
        columns,
        rows,
        note=(
            "Family’s default: nobody chose it, it was taken by default for this family of networks. Frozen first: "
            "epochs in which only the last layer was trained. A rate by layers falls from each group of layers to the "
            "one before it, towards the input, to that share."
        ),
        kind="words",
    )


def _row(cells: list[CellResult]) -> list[Cell]:
    card, settings = cells[0].card, cells[0].card["training"]
    defaults = set(card.get("by_default", ()))
    rates = sorted({float(cell.card["training"]["learning_rate"]) for cell in cells})
    rate = f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g} to {rates[-1]:g}"

    def entry(name: str, text: str, why: str = "") -> Cell:
        return Cell(text, why or (_DEFAULT if name in defaults else ""))

    return [
        Cell(cells[0].model),
        entry("optimiser", _OPTIMISERS[settings["optimiser"]]),
        entry("learning_rate", rate, str(card.get("rate_found", ""))),
        entry("weight_decay", f"{settings['weight_decay']:g}"),
        entry("epochs", str(settings["epochs"])),
        entry("freeze_epochs", str(settings["freeze_epochs"])),
        Cell(_besides(settings)),
    ]


def _besides(settings: Mapping[str, Any]) -> str:
    """What else was done, in words.

    >>> _besides({"schedule": "cosine", "layer_decay": 0.7, "mixup": 0.2, "ema": 0.0, "precision": "float32"})
    'cosine schedule; rate by layers × 0.7; mixup 0.2'
    """
    told = [f"{settings['schedule']} schedule" if settings["schedule"] == "cosine" else "constant rate"]
    if settings.get("layer_decay", 1.0) < 1:
        told.append(f"rate by layers × {settings['layer_decay']:g}")
    names = {
        "gradient_clip": "gradient at most",
        "label_smoothing": "label smoothing",
        "mixup": "mixup",
        "cutmix": "CutMix",
        "ema": "averaged weights",
    }
    told += [f"{words} {settings[name]:g}" for name, words in names.items() if settings.get(name)]
    told += {"weights": ["classes weighted"], "sampling": ["classes drawn alike"]}.get(settings.get("balance", ""), [])
    if settings.get("precision", "float32") != "float32":
        told.append(str(settings["precision"]))
    return "; ".join(told)
