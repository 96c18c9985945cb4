"""Training keeps the best weights and goes on after a kill with the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.errors import PellucidError
from pellucid.models.checkpoints import ModelCard, load_weights
from pellucid.models.zoo import create_model
from pellucid.training import fit as module
from pellucid.training.fit import Fitted, fit
from pellucid.training.settings import TrainingSettings

CARD = ModelCard("test_resnet", 32, 1, ("dark", "bright"), (0.0,), (1.0,), "data-set")


def loader(seed: int = 0, count: int = 48) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 32, 32, generator=generator)
    labels = torch.arange(count) % 2
    images[labels == 1, :, 8:24, 8:24] += 2.0
    return DataLoader(TensorDataset(images, labels, torch.arange(count)), batch_size=16)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model(CARD.architecture, classes=2, channels=1, size=32)


def train(folder: Path, **settings: object) -> Fitted:
    chosen = TrainingSettings.model_validate({"epochs": 4, "batch_size": 16, "learning_rate": 3e-3, **settings})
    return fit(network(), loader(0), loader(1), folder=folder, card=CARD, settings=chosen)


def die_after(epoch: int, monkeypatch: pytest.MonkeyPatch, *, before_checkpoint: bool) -> None:
    """Make training die in `epoch`, before or after its state was kept."""
    plain = module._Keeper.on_train_epoch_end

    def dying(self, trainer, pl_module) -> None:
        if before_checkpoint and len(self.rows) == epoch - 1:
            raise InterruptedError
        plain(self, trainer, pl_module)
        if len(self.rows) == epoch:
            raise InterruptedError

    monkeypatch.setattr(module._Keeper, "on_train_epoch_end", dying)


@pytest.mark.parametrize("before_checkpoint", [True, False])
@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_killed_training_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, before_checkpoint: bool
) -> None:
    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        die_after(epoch, patch, before_checkpoint=before_checkpoint)
        with pytest.raises(InterruptedError):
            train(tmp_path / "cut")
    again = train(tmp_path / "cut")
    for name in ("weights.safetensors", "history.parquet"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert again.best_epoch == whole.best_epoch
    assert not (tmp_path / "cut" / "resume.ckpt").exists()


def test_a_finished_training_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tmp_path)
    monkeypatch.setattr(module, "_run", lambda *_: pytest.fail("trained again"))
    again = train(tmp_path)
    assert again.history.equals(first.history)
    assert again.seconds == first.seconds


def test_the_task_is_learnt_and_the_best_epoch_kept(tmp_path: Path) -> None:
    fitted = train(tmp_path, epochs=8)
    history = fitted.history
    assert list(history.columns) == ["epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate", "best"]
    assert history["val_accuracy"].max() > 0.9
    assert fitted.best_epoch == history["epoch"][history["val_loss"].idxmin()]
    assert history["best"].sum() == 1
    kept, _ = load_weights(tmp_path / "weights.safetensors")
    images, labels, _ = next(iter(loader(1, count=48)))
    with torch.no_grad():
        assert (kept(images).argmax(1) == labels).float().mean() > 0.85


def test_patience_ends_training_early(tmp_path: Path) -> None:
    fitted = train(tmp_path, epochs=30, patience=1, learning_rate=0.05)
    assert fitted.stopped_early
    assert len(fitted.history) == fitted.best_epoch + 1


def test_training_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(tmp_path, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_says_what_to_do(tmp_path: Path) -> None:
    class Diverging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.scale * images.flatten(1)[:, :2] * float("nan")

    with pytest.raises(PellucidError, match="training diverged in epoch 1.*Lower learning_rate"):
        fit(Diverging(), loader(), loader(1), folder=tmp_path, card=CARD, settings=TrainingSettings(epochs=1))


def test_progress_tells_epoch_and_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = TrainingSettings(epochs=8, batch_size=16)
    fit(network(), loader(), loader(1), folder=tmp_path, card=CARD, settings=settings, show_progress=True)
    told = capsys.readouterr().err
    assert told == "" or "training test_resnet: 24/24" in told
