"""Train one network, so that a kill costs at most the epoch in hand."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pellucid.files import read_json, read_table, write_json, write_table, written_whole
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.progress import Advance, progress
from pellucid.training.classifier import Classifier, Item
from pellucid.training.settings import TrainingSettings

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


@dataclass(frozen=True)
class Fitted:
    """What training left: a row per epoch, the epoch whose weights were kept, and the seconds it took."""

    history: pd.DataFrame
    best_epoch: int
    stopped_early: bool
    seconds: float


def fit(
    network: nn.Module,
    train: DataLoader[Item],
    validation: DataLoader[Item],
    *,
    folder: Path,
    card: ModelCard,
    settings: TrainingSettings,
    class_weights: Tensor | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    show_progress: bool = False,
) -> Fitted:
    """Train `network` and leave `weights.safetensors` (best epoch) and `history.parquet` in `folder`.

    Loaders yield (images (B, C, H, W), labels (B,), positions (B,)). After each epoch the whole state is kept in
    `folder/resume.ckpt`; called again after a kill, training goes on from there and ends with the same numbers.
    When the folder holds a finished training, nothing is computed.

    Raises PellucidError when the loss stops being finite.
    """
    history_path, resume = folder / "history.parquet", folder / "resume.ckpt"
    if not history_path.exists():
        keeper = _Keeper(folder, card, settings)
        if not keeper.load(resume):
            _run(network, train, validation, keeper, class_weights, seed, device or torch.device("cpu"), show_progress)
        write_json(folder / "training_times.json", {"seconds": [row["seconds"] for row in keeper.rows]})
        write_table(history_path, keeper.history())
    resume.unlink(missing_ok=True)
    history = read_table(history_path)
    return Fitted(
        history=history,
        best_epoch=int(history["epoch"][history["best"]].iloc[0]),
        stopped_early=len(history) < settings.epochs,
        seconds=float(sum(read_json(folder / "training_times.json")["seconds"])),
    )


def _run(
    network: nn.Module,
    train: DataLoader[Item],
    validation: DataLoader[Item],
    keeper: _Keeper,
    class_weights: Tensor | None,
    seed: int,
    device: torch.device,
    show_progress: bool,
) -> None:
    settings = keeper.settings
    title = f"training {keeper.card.architecture}"
    for parameter in network.parameters():
        if parameter.ndim == 4:  # convolutions run faster on channels-last weights
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    module = Classifier(network, settings, class_weights, seed, steps=settings.epochs * len(train))
    with progress(title, settings.epochs * len(train), show=show_progress) as advance, _quiet(), _random_state_kept():
        advance(len(keeper.rows) * len(train))
        keeper.advance = advance
        trainer = lightning.Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision=_PRECISIONS[settings.precision],
            max_epochs=settings.epochs,
            callbacks=[keeper],
            default_root_dir=keeper.folder,
            deterministic="warn" if device.type == "cuda" else None,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        resume = keeper.resume if keeper.resume.exists() else None
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, train, validation, ckpt_path=resume, weights_only=True)
        except SystemExit as leaving:  # what Lightning makes of Ctrl-C
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from leaving
        finally:
            network.zero_grad(set_to_none=True)
            network.cpu()


class _Keeper(lightning.Callback):
    """Keeps the history, the best weights and the state to resume from; ends training early."""

    def __init__(self, folder: Path, card: ModelCard, settings: TrainingSettings) -> None:
        self.folder, self.card, self.settings = folder, card, settings
        self.resume = folder / "resume.ckpt"
        self.rows: list[dict[str, float]] = []
        self.advance: Advance | None = None
        self.started = time.perf_counter()

    def load(self, path: Path) -> bool:
        """Take up the rows kept in `path`, if it is there; True when no epoch is left to train."""
        if path.exists():
            kept = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict(kept["callbacks"][self.state_key])
        return self._done()

    def history(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows).drop(columns="seconds").astype({"epoch": "int64"})
        table["best"] = table["epoch"] == self._best()
        return table

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object, **__: object
    ) -> None:
        if self.advance is not None:
            self.advance(1)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        loss, accuracy = pl_module.validation_scores()
        self.rows.append(
            {
                "epoch": float(trainer.current_epoch + 1),
                "train_loss": pl_module.train_loss(),
                "val_loss": loss,
                "val_accuracy": accuracy,
                "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
                "seconds": time.perf_counter() - self.started,
            }
        )
        if self._best() == len(self.rows):
            save_weights(self.folder / "weights.safetensors", pl_module.network, self.card)
        if self.advance is not None:
            self.advance(0, note=f"epoch {len(self.rows)}, validation accuracy {accuracy:.3f}")
        with written_whole(self.resume) as aside:
            trainer.save_checkpoint(aside)
        if self._done():
            trainer.should_stop = True

    def _best(self) -> int:
        """Number, from 1, of the best epoch so far; the first of equals."""
        if self.settings.monitor == "accuracy":
            badness = [(-row["val_accuracy"], row["val_loss"]) for row in self.rows]
        else:
            badness = [(row["val_loss"], 0.0) for row in self.rows]
        return badness.index(min(badness)) + 1

    def _done(self) -> bool:
        epochs = len(self.rows)
        return epochs >= self.settings.epochs or (epochs > 0 and epochs - self._best() >= self.settings.patience)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Lightning's notices; pellucid says what matters itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Training seeds the global generators at each step; give them back as they were."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        yield
