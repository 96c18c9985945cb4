"""Several devices, here two processes on the CPU: each takes its share of every batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.data.dataset import EpochSampler
from pellucid.errors import InputError, PellucidError
from pellucid.models.checkpoints import ModelCard
from pellucid.models.zoo import create_model
from pellucid.training.devices import Part, check_devices, share
from pellucid.training.fit import Fitted, fit
from pellucid.training.settings import TrainingSettings

CARD = ModelCard("test_resnet", 32, 1, ("dark", "bright"), (0.0,), (1.0,), "data-set")
COUNT, BATCH = 44, 8


class Counting(TensorDataset):
    """Writes down which image was asked for, in a file of the process's own, since processes share no memory."""

    def __init__(self, folder: Path, *tensors: torch.Tensor) -> None:
        super().__init__(*tensors)
        self.folder = folder

    def __getitem__(self, index: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        position, epoch = index
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        with (self.folder / f"{rank}.txt").open("a") as file:
            file.write(f"{epoch},{position},{rank}\n")
        return super().__getitem__(position)


def images(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels, labels = torch.randn(COUNT, 1, 32, 32, generator=generator), torch.arange(COUNT) % 2
    pixels[labels == 1, :, 8:24, 8:24] += 2.0
    return pixels, labels, torch.arange(COUNT)


def train(folder: Path, **settings: object) -> tuple[Fitted, pd.DataFrame]:
    folder.mkdir(exist_ok=True)
    seen = Counting(folder, *images(0))
    loader = DataLoader(seen, batch_size=BATCH, sampler=EpochSampler(seen.tensors[1], seed=5))
    validation = DataLoader(TensorDataset(*images(1)), batch_size=BATCH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create_model(CARD.architecture, classes=2, channels=1, size=32)
    chosen = TrainingSettings.model_validate(
        {"epochs": 2, "batch_size": BATCH, "learning_rate": 3e-3, "freeze_epochs": 1, "ema": 0.5, **settings}
    )
    fitted = fit(network, loader, validation, folder=folder, card=CARD, settings=chosen)
    rows = [line.split(",") for path in sorted(folder.glob("*.txt")) for line in path.read_text().split()]
    return fitted, pd.DataFrame(rows, columns=["epoch", "position", "rank"]).astype(int)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, *train(folder)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("together")
    return folder, *train(folder, devices=2)


@pytest.mark.slow
def test_two_devices_see_each_image_once_an_epoch_in_batches_of_the_same_images(
    alone: tuple[Path, Fitted, pd.DataFrame], together: tuple[Path, Fitted, pd.DataFrame]
) -> None:
    one, two = alone[2], together[2]
    assert set(two["rank"]) == {0, 1}
    for epoch in range(2):
        whole = one[one["epoch"] == epoch]["position"].tolist()
        first, second = (two[(two["epoch"] == epoch) & (two["rank"] == rank)]["position"].tolist() for rank in (0, 1))
        assert sorted(first + second) == sorted(whole) == list(range(COUNT))
        step = BATCH // 2
        for batch in range(-(-COUNT // BATCH)):
            shares = first[batch * step : (batch + 1) * step] + second[batch * step : (batch + 1) * step]
            assert set(shares) == set(whole[batch * BATCH : (batch + 1) * BATCH])


@pytest.mark.slow
def test_two_devices_leave_what_one_leaves(
    alone: tuple[Path, Fitted, pd.DataFrame], together: tuple[Path, Fitted, pd.DataFrame]
) -> None:
    kept = [{path.name for path in each[0].iterdir() if path.suffix != ".txt"} for each in (alone, together)]
    assert kept[0] == kept[1] == {"weights.safetensors", "history.parquet", "training_times.json"}
    (_, one, _), (_, two, _) = alone, together
    pd.testing.assert_index_equal(one.history.columns, two.history.columns)
    np.testing.assert_allclose(one.history["learning_rate"], two.history["learning_rate"], rtol=1e-12)  # the same steps
    # frozen norms, no dropout: the first epoch's gradient is the mean of the shares', and so the same to rounding
    for column in ("train_loss", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(one.history[column][0], two.history[column][0], rtol=1e-3)
    times = json.loads((together[0] / "training_times.json").read_text())
    assert len(times["seconds"]) == 2


@pytest.mark.slow
def test_two_devices_repeat_themselves_and_tell_what_went_wrong(
    together: tuple[Path, Fitted, pd.DataFrame], tmp_path: Path
) -> None:
    train(tmp_path / "again", devices=2)
    for name in ("weights.safetensors", "history.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (together[0] / name).read_bytes()
    with pytest.raises(PellucidError, match="training diverged in epoch 1, batch 1.*image 3 held values that aren"):
        fit(
            nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2)),
            DataLoader(TensorDataset(*_broken()), batch_size=BATCH),
            DataLoader(TensorDataset(*images(1)), batch_size=BATCH),
            folder=tmp_path / "broken",
            card=CARD,
            settings=TrainingSettings(epochs=1, batch_size=BATCH, devices=2),
        )


def _broken() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pixels, labels, positions = images(0)
    pixels[3] = float("nan")
    return pixels, labels, positions


@pytest.mark.parametrize(("images", "parts"), [(12, 2), (13, 2), (13, 4), (5, 3)])
def test_parts_are_equally_long_and_hold_everything(images: int, parts: int) -> None:
    drawn = [list(Part(range(images), rank, parts)) for rank in range(parts)]
    assert {len(part) for part in drawn} == {len(Part(range(images), 0, parts))} == {-(-images // parts)}
    everything = sorted(place for part in drawn for place in part)
    assert set(everything) == set(range(images))
    assert len(everything) - images < parts


def test_an_epochs_order_reaches_the_parts() -> None:
    whole = EpochSampler([0] * 10, seed=1)
    parts = [Part(whole, rank, 2) for rank in (0, 1)]
    for epoch in (0, 3):
        for part in parts:
            part.set_epoch(epoch)
        order = list(whole)
        assert [list(part) for part in parts] == [order[::2], order[1::2]]


def test_what_several_devices_cannot_do_is_refused() -> None:
    loader = DataLoader(TensorDataset(*images(0)), batch_size=3)
    assert share(loader, 0, 1) is loader
    with pytest.raises(InputError, match="batch_size: expected at least 4 for 2 devices, got 3"):
        share(loader, 0, 2)
    with pytest.raises(InputError, match=r"devices: expected at most 0, from cuda:7 on, got 2"):
        check_devices(torch.device("cuda", 7), 2 + max(0, torch.cuda.device_count() - 7))
    check_devices(torch.device("cpu"), 4)
