"""A training killed with `kill -9` at random moments ends with the same bytes, with all features on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

KILLS = 4
PROGRAM = """
    import sys, torch
    from pathlib import Path
    from pellucid.training.fit import fit
    from torch.utils.data import DataLoader, TensorDataset
    from pellucid.data.dataset import EpochSampler
    from pellucid.models.checkpoints import ModelCard
    from pellucid.models.zoo import create_model
    from pellucid.training.settings import TrainingSettings

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 2
    images = torch.randn(96, 1, 32, 32, generator=generator) + 2 * labels.view(-1, 1, 1, 1)

    class Indexed(TensorDataset):
        def __getitem__(self, index):
            return super().__getitem__(index[0])

    data = Indexed(images, labels, torch.arange(96))
    loader = DataLoader(data, batch_size=16, sampler=EpochSampler(labels, seed=1))
    check = DataLoader(TensorDataset(*data.tensors), batch_size=16)
    torch.manual_seed(0)
    network = create_model("test_resnet", classes=2, channels=1, size=32)
    settings = TrainingSettings(
        epochs=8, batch_size=16, learning_rate="find", freeze_epochs=2, layer_decay=0.7, mixup=0.2, cutmix=1.0,
        ema=0.9, label_smoothing=0.1, gradient_clip=1.0, precision="bfloat16", patience=8,
    )
    card = ModelCard("test_resnet", 32, 1, ("a", "b"), (0.0,), (1.0,), "none")
    print("ready", flush=True)
    fit(network, loader, check, folder=Path(sys.argv[1]), card=card, settings=settings, seed=3)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """The program, once it has loaded what it needs."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    undisturbed = start(tmp_path / "whole")
    started = time.monotonic()
    _, told = undisturbed.communicate()
    length = time.monotonic() - started
    assert (tmp_path / "whole" / "history.parquet").exists(), told
    draws, killed = random.Random(0), 0
    while killed < KILLS:
        process = start(tmp_path / "cut")
        try:
            process.wait(draws.uniform(0.0, length / 2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        if (tmp_path / "cut" / "history.parquet").exists():
            break
    assert killed
    start(tmp_path / "cut").communicate()
    for name in ("weights.safetensors", "history.parquet", "learning_rate.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    left = {path.name for path in (tmp_path / "cut").iterdir() if not path.name.endswith(".part")}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}
