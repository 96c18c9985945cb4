"""One network on one data set: what `pellucid train` does, with the files of a cell in the output folder."""

from __future__ import annotations

from pathlib import Path

from pellucid.devices import pick_devices
from pellucid.files import write_table, write_text
from pellucid.models.checkpoints import load_weights
from pellucid.models.zoo import fetch_weights
from pellucid.study.cell import cell_inputs
from pellucid.study.config import StudyConfig, on_devices, published, write_config
from pellucid.study.network import obtain_network
from pellucid.study.plan import plan
from pellucid.study.predictions import predict_cell
from pellucid.study.prepare import prepare_dataset
from pellucid.study.store import CellStore


def train_single(
    config: StudyConfig, output: Path, *, device: str = "auto", strict: bool = False, show_progress: bool = False
) -> str:
    """Train the config's only model on its only data set; returns one line that says how well it went."""
    where, *others = pick_devices(device)
    config = on_devices(config, 1 + len(others))
    (cell,) = plan(config)
    for name in published(config):
        fetch_weights(name)
    prepared = prepare_dataset(cell.dataset, config, output, strict=strict, show_progress=show_progress)
    store = CellStore(output)
    store.accept(cell_inputs(cell, prepared, config))
    write_text(output / "study.toml", write_config(config))
    fitted = obtain_network(cell, prepared, config, store, device=where, show_progress=show_progress)
    network, card = load_weights(store.weights, where)
    predictions = predict_cell(network, card, prepared, cell, show_progress=show_progress)
    write_table(store.predictions, predictions)
    accuracy = predictions.groupby("split")["correct"].mean()
    test = predictions[predictions["split"] == "test"]
    clean = test[~test["copy_in_train"]]
    shares = [f"validation {accuracy['val']:.3f}", f"test {accuracy['test']:.3f}"]
    if len(clean) < len(test):
        without = f"{clean['correct'].mean():.3f}" if len(clean) else "no image left"
        shares.append(f"test without the {len(test) - len(clean)} copies of training images {without}")
    return f"{store.weights}: epoch {fitted.best_epoch} of {len(fitted.history)}, accuracy: " + ", ".join(shares)
