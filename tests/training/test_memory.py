"""What is said when a training step doesn't fit into memory, and how images lie in it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.errors import InputError
from pellucid.models.checkpoints import ModelCard
from pellucid.training.fit import fit
from pellucid.training.memory import too_large
from pellucid.training.settings import TrainingSettings

CARD = ModelCard("test_resnet", 16, 1, ("a", "b"), (0.0,), (1.0,), "data-set")


class Full(nn.Module):
    """Runs out of memory above so many images at once, as an accelerator would."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.fc = nn.Linear(256, 2)
        self.most = most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.fc(images.flatten(1))


def train(network: nn.Module, folder: Path, batch: int, **own: object) -> None:
    data = TensorDataset(torch.randn(16, 1, 16, 16), torch.arange(16) % 2, torch.arange(16))
    loader = DataLoader(data, batch_size=batch)
    settings = TrainingSettings.model_validate({"epochs": 1, "batch_size": batch, "learning_rate": 1e-3, **own})
    fit(network, loader, loader, folder=folder, card=CARD, settings=settings)


@pytest.mark.parametrize("rate", [1e-3, "find"])
def test_running_out_of_memory_names_a_batch_size(tmp_path: Path, rate: object) -> None:
    with pytest.raises(InputError, match=r"batch_size: expected at most about 7 images of this size, got 8") as caught:
        train(Full(4), tmp_path, 8, learning_rate=rate)
    assert "CUDA out of memory" in str(caught.value)
    assert str(caught.value).endswith("Set batch_size = 7.")


def test_a_network_of_which_no_step_fits_is_said_to_be_too_large(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model: expected a network whose training step fits into the memory of cpu"):
        train(Full(1), tmp_path, 8)


def test_other_errors_pass(tmp_path: Path) -> None:
    class Broken(Full):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        train(Broken(1), tmp_path, 8)


def test_the_network_comes_back_as_it_was() -> None:
    network = Full(8).eval()
    error = too_large(network, torch.randn(4, 1, 16, 16), 16, 2, torch.device("cpu"), "full")
    assert "Set batch_size = 15." in str(error)
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_a_real_shortage_of_memory_is_told_with_a_batch_size_that_then_fits(tmp_path: Path) -> None:
    program = """
        import re, resource, sys, torch
        from pathlib import Path
        from pellucid.training.fit import fit
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        from pellucid.errors import InputError
        from pellucid.models.checkpoints import ModelCard
        from pellucid.training.settings import TrainingSettings

        torch.set_num_threads(1)

        def network():
            torch.manual_seed(0)
            layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
            for _ in range(3):
                layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))

        card = ModelCard("none", 192, 1, ("a", "b"), (0.0,), (1.0,), "data-set")
        data = TensorDataset(torch.rand(64, 1, 192, 192), torch.arange(64) % 2, torch.arange(64))

        def train(batch, name):
            settings = TrainingSettings(epochs=1, batch_size=batch, freeze_epochs=0)
            loader = DataLoader(data, batch_size=batch)
            fit(network(), loader, loader, folder=Path(sys.argv[1]) / name, card=card, settings=settings)

        train(2, "small")
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 500 * 2**20, resource.RLIM_INFINITY))
        try:
            train(64, "large")
        except InputError as error:
            print(error)
            fits = int(re.search(r"Set batch_size = (\\d+)", str(error)).group(1))
        train(fits, "fitting")
        print(fits)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    told, fits = run.stdout.splitlines()
    assert told.startswith("batch_size: expected at most about ")
    assert "the memory of cpu" in told
    assert 2 <= int(fits) < 64
    assert (tmp_path / "fitting" / "weights.safetensors").exists()
