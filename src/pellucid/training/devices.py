"""Several devices: each takes its share of every batch."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from torch.utils.data import DataLoader, Sampler

from pellucid.errors import expected
from pellucid.training.classifier import Item


class Part(Sampler[Any]):
    """Every `count`-th of what another sampler gives, from `rank` on.

    All parts are equally long, since devices wait for each other: where the number can't be divided, the first ones
    come again at the end.

    >>> [list(Part(range(5), rank, 2)) for rank in (0, 1)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(self, whole: Any, rank: int, count: int) -> None:
        self.whole, self.rank, self.count = whole, rank, count

    def set_epoch(self, epoch: int) -> None:
        """As Lightning calls it before each epoch."""
        if hasattr(self.whole, "set_epoch"):
            self.whole.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.whole) // self.count)

    def __iter__(self) -> Iterator[Any]:
        order = list(self.whole)
        order += order[: -len(order) % self.count]
        return iter(order[self.rank :: self.count])


class Loaders(lightning.LightningDataModule):
    """The training and validation images, of which each device takes its share; a batch is that of all devices."""

    def __init__(self, train: DataLoader[Item], validation: DataLoader[Item]) -> None:
        super().__init__()
        self.train, self.validation = train, validation

    def train_dataloader(self) -> DataLoader[Item]:
        return self._share(self.train)

    def val_dataloader(self) -> DataLoader[Item]:
        return self._share(self.validation)

    def _share(self, loader: DataLoader[Item]) -> DataLoader[Item]:
        assert self.trainer is not None
        return share(loader, self.trainer.global_rank, self.trainer.world_size)


def share(loader: DataLoader[Item], rank: int, count: int) -> DataLoader[Item]:
    """A loader of one device's share of each batch; all shares have as many batches.

    Raises InputError for batches of which a device would get one image, in which norms have no variance.
    """
    if count == 1:
        return loader
    if (loader.batch_size or 1) < 2 * count:
        raise expected("batch_size", f"at least {2 * count} for {count} devices", loader.batch_size)
    size, part = -(-(loader.batch_size or 1) // count), Part(loader.sampler, rank, count)
    return DataLoader(
        loader.dataset,
        batch_size=size,
        sampler=part,
        num_workers=loader.num_workers,
        drop_last=loader.drop_last or (len(part) % size == 1 and len(part) > size),
        collate_fn=loader.collate_fn,
    )


class Processes(DDPStrategy):
    """A new process for each device, which takes the gradient's mean over all of them."""

    def __init__(self, *, unused: bool) -> None:
        """`unused`: whether some parameters have no gradient, as those of a frozen network."""
        super().__init__(start_method="spawn", find_unused_parameters=unused)

    def _configure_launcher(self) -> None:
        self._launcher = _Launcher(self, start_method="spawn")


class _Launcher(_MultiProcessingLauncher):
    """Lightning's; the first class that a new process loads, so that pellucid is imported before torchvision is."""

    def _wrapping_function(self, *args: Any, **kwargs: Any) -> None:
        with quiet():
            super()._wrapping_function(*args, **kwargs)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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


def check_devices(device: torch.device, count: int) -> None:
    """Raise InputError when there are fewer devices of this kind; on the CPU there are as many as are asked for."""
    there = max(0, torch.cuda.device_count() - (device.index or 0)) if device.type == "cuda" else 1
    if count > there and device.type != "cpu":
        raise expected("devices", f"at most {there}, from {device} on", count)
