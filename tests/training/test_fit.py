"""Training keeps the best weights and goes on after a kill with the same numbers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.errors import PellucidError
from pellucid.models.checkpoints import ModelCard, load_weights
from pellucid.models.zoo import create_model
from pellucid.training import fit as module
from pellucid.training.classifier import Classifier
from pellucid.training.defaults import resolved
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


FEATURES = {
    "mixed, averaged": {"mixup": 0.2, "cutmix": 1.0, "ema": 0.9, "label_smoothing": 0.1},
    "sgd, frozen, by layer": {
        "optimiser": "sgd", "freeze_epochs": 2, "layer_decay": 0.5, "schedule": "constant", "learning_rate": 0.02,
    },
    "bfloat16, clipped": {"precision": "bfloat16", "gradient_clip": 0.5, "freeze_epochs": 1, "ema": 0.9},
    "float16": {"precision": "float16", "mixup": 0.2},
    "found rate": {"learning_rate": "find", "ema": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("name", FEATURES)
def test_a_training_cut_at_any_step_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plain = module._Keeper.on_train_batch_end
    whole = train(tmp_path / "whole", **FEATURES[name])
    cuts = sorted(random.Random(name).sample(range(1, 12), 3))  # of 12 steps, 3 to an epoch

    def dying(self, trainer, pl_module, *rest: object) -> None:
        if cuts and trainer.global_step == cuts[0]:
            cuts.pop(0)
            raise InterruptedError
        plain(self, trainer, pl_module, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module._Keeper, "on_train_batch_end", dying)
        while cuts:
            with pytest.raises(InterruptedError):
                train(tmp_path / "cut", **FEATURES[name])
    again = train(tmp_path / "cut", **FEATURES[name])
    for file in ("weights.safetensors", "history.parquet"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert again.settings == whole.settings
    assert again.found == whole.found


def test_the_scaler_of_float16_is_a_part_of_the_kept_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_after(1, monkeypatch, before_checkpoint=False)
    with pytest.raises(InterruptedError):
        train(tmp_path, precision="float16")
    kept = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert kept["MixedPrecision"]["scale"] > 1
    assert kept["MixedPrecision"]["_growth_tracker"] == 3  # steps since it last changed


def test_the_moving_average_is_what_is_kept(tmp_path: Path) -> None:
    train(tmp_path / "plain", epochs=1)
    train(tmp_path / "averaged", epochs=1, ema=0.9)
    plain, averaged = (load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("plain", "averaged"))
    start = network()
    name = "layer4.0.conv1.weight"
    moved = {each: (net.state_dict()[name] - start.state_dict()[name]).norm() for each, net in
             (("plain", plain), ("averaged", averaged))}  # fmt: skip
    assert 0 < moved["averaged"] < moved["plain"]


def test_the_average_is_the_recursion_by_hand() -> None:
    net = nn.Linear(2, 2)
    settings = TrainingSettings(ema=0.6)
    classifier = Classifier(net, settings, 0.1, 2, None, 0, 1)
    wanted = net.weight.detach().clone()
    for step in range(1, 7):
        with torch.no_grad():
            net.weight.add_(step)
        assert classifier.average is not None
        classifier.average.update(net, step=step)
        decay = min(0.6, 1 - (1.0 + max(0, step - 1)) ** (-2 / 3))
        wanted = wanted * decay + net.weight.detach() * (1 - decay)
        torch.testing.assert_close(classifier.kept.weight, wanted)
    assert not any(parameter.requires_grad for parameter in classifier.kept.parameters())


def test_a_frozen_epoch_leaves_all_but_the_head_as_it_was(tmp_path: Path) -> None:
    train(tmp_path, epochs=2, freeze_epochs=2)
    kept, start = load_weights(tmp_path / "weights.safetensors")[0].state_dict(), network().state_dict()
    changed = {name for name in start if not torch.equal(start[name], kept[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_the_family_fills_in_what_is_left_open(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=1)
    fitted = fit(network(), loader(0), loader(1), folder=tmp_path, card=CARD, settings=settings)
    assert fitted.settings == resolved(settings, CARD.architecture, pretrained=False)


def test_a_found_rate_is_kept_with_its_curve(tmp_path: Path) -> None:
    fitted = train(tmp_path, learning_rate="find", epochs=1)
    found = json.loads((tmp_path / "learning_rate.json").read_text())
    assert fitted.settings.learning_rate == found["rate"]
    assert fitted.found == found["reason"] == "steepest fall of the loss in a range test"
    assert len(found["rates"]) == len(found["losses"]) >= 10
    assert 1e-5 < found["rate"] < 0.1


class Overflowing(nn.Module):
    """Gives NaN in its middle layer once it has run so many times in training."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.first, self.middle, self.fc = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 2)
        self.after = after
        self.middle.register_forward_hook(self._overflow)

    def _overflow(self, layer: nn.Module, given: object, output: torch.Tensor) -> torch.Tensor:
        self.after -= self.training
        return output * float("inf") if self.after < 0 else output

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.middle(self.first(images)).mean(dim=(2, 3)))


def test_a_loss_that_is_not_finite_says_where_it_began(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=3, learning_rate=0.01)
    told = (
        r"training diverged in epoch 2, batch 2: the loss is nan. It began in layer middle, the first whose output "
        r"wasn't finite; the images were. Lower learning_rate \(it is 0.01\)"
    )
    with pytest.raises(PellucidError, match=told):
        fit(Overflowing(4), loader(), loader(1), folder=tmp_path, card=CARD, settings=settings)
    assert (tmp_path / "weights.safetensors").exists()  # of the epoch before


def test_an_input_that_is_not_finite_is_named(tmp_path: Path) -> None:
    bad = loader()
    bad.dataset.tensors[0][20, 0, 3, 3] = float("nan")
    with pytest.raises(PellucidError, match=r"epoch 1, batch 2: .* began in the input: image 20 held values that aren"):
        fit(network(), bad, loader(1), folder=tmp_path, card=CARD, settings=TrainingSettings(epochs=1))
    bad.dataset.paths = [Path(f"/data/dark/{place}.png") for place in range(48)]
    with pytest.raises(PellucidError, match=r"epoch 1, batch 2: .* began in the input: dark/20.png held values"):
        fit(network(), bad, loader(1), folder=tmp_path, card=CARD, settings=TrainingSettings(epochs=1))


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net.layer2[0].conv1.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(PellucidError, match=r"began in the weights: those of layer2.0.conv1.weight weren't finite"):
        fit(net, loader(), loader(1), folder=tmp_path, card=CARD, settings=TrainingSettings(epochs=1))


def test_progress_tells_epoch_and_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = TrainingSettings(epochs=8, batch_size=16)
    fit(network(), loader(), loader(1), folder=tmp_path, card=CARD, settings=settings, show_progress=True)
    told = capsys.readouterr().err
    assert told == "" or "training test_resnet: 24/24" in told
