"""Train one network, so that a kill costs at most the epoch in hand."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import pandas as pd
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.utils.data import DataLoader

from pellucid.attribution.memory import is_out_of_memory
from pellucid.errors import PellucidError
from pellucid.files import read_json, read_table, write_json, write_table, written_whole
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.models.layout import lay_out
from pellucid.progress import Advance, progress
from pellucid.training.classifier import Classifier, Item
from pellucid.training.defaults import defaults_of, resolved
from pellucid.training.devices import Loaders, Processes, check_devices, quiet, share
from pellucid.training.finder import FoundRate, find_learning_rate
from pellucid.training.memory import too_large
from pellucid.training.settings import TrainingSettings

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


@dataclass(frozen=True)
class Fitted:
    """What training left: a row per epoch, the epoch whose weights were kept, and the seconds it took.

    `settings` are those that it ran with, nothing left open, None where nothing was trained; `found` says how a
    learning rate was found, "" where none was looked for.
    """

    history: pd.DataFrame
    best_epoch: int
    stopped_early: bool
    seconds: float
    settings: TrainingSettings | None = None
    found: str = ""


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

    Loaders yield (images (B, C, *S), labels (B,), positions (B,)). After each epoch the whole state is kept in
    `folder/resume.ckpt`; called again after a kill, training goes on from there and ends with the same numbers.
    When the folder holds a finished training, nothing is computed. Settings that are None take the defaults of the
    card's architecture, trained from random weights; `resolved` gives those of pretrained ones. With several devices
    each is a process of its own, so that a script must keep what it runs behind `if __name__ == "__main__"`.

    Raises:
        PellucidError: the loss stops being finite; says in which epoch and batch, and in which image or layer it began.
        InputError: a batch doesn't fit into memory, with one that does; or more devices than there are.
    """
    settings = resolved(settings, card.architecture, pretrained=False)
    device = device or torch.device("cpu")
    check_devices(device, settings.devices)
    history_path, resume = folder / "history.parquet", folder / "resume.ckpt"
    try:
        rate = _learning_rate(network, train, folder, card, settings, class_weights, seed, device, show_progress)
        if not history_path.exists():
            keeper = _Keeper(folder, card, settings)
            if not keeper.load(resume):
                lay_out(network)
                module = Classifier(
                    network, settings, rate.rate, len(card.classes), class_weights, seed,
                    epoch_steps=len(share(train, 0, settings.devices)),
                )  # fmt: skip
                module.names, module.multi_label = _names(train), card.multi_label
                _run(module, Loaders(train, validation), keeper, device, show_progress)
                keeper.load(resume)  # several devices train in processes of their own
            write_json(folder / "training_times.json", {"seconds": [row["seconds"] for row in keeper.rows]})
            write_table(history_path, keeper.history())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        error.__traceback__ = error.__context__ = error.__cause__ = None  # whose frames hold tensors
    else:
        resume.unlink(missing_ok=True)
        history = read_table(history_path)
        return Fitted(
            history=history,
            best_epoch=int(history["epoch"][history["best"]].iloc[0]),
            stopped_early=len(history) < (settings.epochs or 1),
            seconds=float(sum(read_json(folder / "training_times.json")["seconds"])),
            settings=settings.model_copy(update={"learning_rate": rate.rate}),
            found=rate.reason,
        )
    few = torch.stack([train.dataset[place][0] for place in range(min(4, len(train.sampler)))])  # type: ignore[arg-type]
    states = (1 if settings.optimiser == "sgd" else 2) + bool(settings.ema)
    raise too_large(network, few, settings.batch_size, states, device, reason)


def _learning_rate(
    network: nn.Module,
    train: DataLoader[Item],
    folder: Path,
    card: ModelCard,
    settings: TrainingSettings,
    class_weights: Tensor | None,
    seed: int,
    device: torch.device,
    show_progress: bool,
) -> FoundRate:
    """The settings' rate, or what a range test finds, which is kept in the folder."""
    if not isinstance(settings.learning_rate, str):
        assert settings.learning_rate is not None
        return FoundRate(settings.learning_rate, "", (), ())
    path = folder / "learning_rate.json"
    begun = (folder / "resume.ckpt").exists() or (folder / "history.parquet").exists()
    if not (begun and path.exists()):  # one without the other is from a training with other settings
        # that of pretrained weights is low enough for random ones too
        fallback = defaults_of(card.architecture, pretrained=True, optimiser=settings.optimiser).learning_rate
        with _random_state_kept():
            found = find_learning_rate(
                network,
                train,
                settings,
                class_weights=class_weights,
                fallback=fallback,
                seed=seed,
                device=device,
                show_progress=show_progress,
            )
        write_json(path, asdict(found))
    return FoundRate(**read_json(path))


def _names(train: DataLoader[Item]) -> tuple[str, ...] | None:
    """The training images by their file and its folder, where they are files."""
    paths = getattr(train.dataset, "paths", None)
    return None if paths is None else tuple("/".join(path.parts[-2:]) for path in paths)


def _run(module: Classifier, loaders: Loaders, keeper: _Keeper, device: torch.device, show_progress: bool) -> None:
    settings, network = module.settings, module.network
    alone = settings.devices == 1
    resume = keeper.resume if keeper.resume.exists() else None
    keeper.steps, keeper.show = module.epoch_steps, show_progress and not alone
    title, total = keeper.title, (settings.epochs or 1) * module.epoch_steps
    with progress(title, total, show=show_progress and alone) as advance, quiet(), _random_state_kept():
        if alone:  # other processes open a bar of their own
            advance(len(keeper.rows) * module.epoch_steps)
            keeper.advance = advance
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer = _trainer(settings, keeper, device)
            trainer.fit(module, datamodule=loaders, ckpt_path=resume, weights_only=True)
        except SystemExit as leaving:  # what Lightning makes of Ctrl-C
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from leaving
        except ProcessRaisedException as error:
            raise _told_by_process(str(error)) from error
        finally:
            keeper.advance = None
            for parameter in network.parameters():
                parameter.grad = None
            network.cpu()


def _trainer(settings: TrainingSettings, keeper: _Keeper, device: torch.device) -> lightning.Trainer:
    first = device.index or 0
    half = settings.precision == "float16" and device.type == "cpu"  # where Lightning would take bfloat16 unasked
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=list(range(first, first + settings.devices)) if device.type == "cuda" else settings.devices,
        strategy="auto" if settings.devices == 1 else Processes(unused=bool(settings.freeze_epochs)),
        use_distributed_sampler=False,
        precision=None if half else _PRECISIONS[settings.precision],
        plugins=[MixedPrecision("16-mixed", "cpu")] if half else None,
        gradient_clip_val=settings.gradient_clip or None,
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


def _told_by_process(text: str) -> Exception:
    """The error that stopped another process, from the text of its traceback."""
    last = text.strip().splitlines()[-1]
    name, _, message = last.partition(": ")
    if name.startswith("pellucid.errors."):
        return PellucidError(message)
    if name.endswith(("OutOfMemoryError", "MemoryError")):
        return MemoryError(message)
    return RuntimeError(last)


class _Keeper(lightning.Callback):
    """Keeps the history, the best weights and the state to resume from; ends training early."""

    def __init__(self, folder: Path, card: ModelCard, settings: TrainingSettings) -> None:
        self.folder, self.card, self.settings = folder, card, settings
        self.resume = folder / "resume.ckpt"
        self.rows: list[dict[str, float]] = []
        self.title = f"training {card.architecture}"
        self.show, self.steps = False, 0  # whether to open a bar, and steps of an epoch
        self.advance: Advance | None = None
        self._bar: contextlib.ExitStack | None = None
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

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.show and trainer.is_global_zero:
            self._bar = contextlib.ExitStack()
            total = (self.settings.epochs or 1) * self.steps
            self.advance = self._bar.enter_context(progress(self.title, total))
            self.advance(len(self.rows) * self.steps)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._bar is not None:
            self._bar.close()

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
                "learning_rate": max(float(group["lr"]) for group in trainer.optimizers[0].param_groups),
                "seconds": time.perf_counter() - self.started,
            }
        )
        if self._best() == len(self.rows) and trainer.is_global_zero:
            save_weights(self.folder / "weights.safetensors", pl_module.kept, self.card)
        if self.advance is not None:
            self.advance(0, note=f"epoch {len(self.rows)}, validation accuracy {accuracy:.3f}")
        if trainer.is_global_zero:
            with written_whole(self.resume) as aside:
                trainer.save_checkpoint(aside)
        else:  # what there is to gather is gathered; nothing is written
            trainer.save_checkpoint(self.resume)
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
        return epochs >= (self.settings.epochs or 1) or (epochs > 0 and epochs - self._best() >= self.settings.patience)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Training seeds the global generators at each step; give them back as they were."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        yield
