"""Training against timm's own plain loop, and reading images against what training asks for.

The first part trains one network from one state in both loops and sees that their losses agree, then times epochs of
the same batches in turns. The second writes real pictures as 512-pixel JPEGs into a temporary folder and compares the
images per second that loading gives (decoded, resized, augmented, normalised; without workers and with two) with those
that a ResNet18 trains on. Run it on a machine that does nothing else:

    python benchmarks/bench_training.py --pictures ../shared/data/skin
    python benchmarks/bench_training.py --quick   # one small network, a few pictures, to see that it works
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import arguments_parser, finish, in_turns, judged, medians, ratio, surroundings

import pellucid.torchvision_schemas  # isort: skip  # before timm, which imports torchvision
import timm
import torch
from PIL import Image
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.data.dataset import EpochSampler, ImageDataset
from pellucid.data.transforms import Augmentation, Normalisation
from pellucid.models.checkpoints import ModelCard
from pellucid.training.fit import fit
from pellucid.training.settings import TrainingSettings

RESULTS = Path(__file__).parent / "results" / "training.json"
CASES = (("resnet50", 224, 16, 8), ("resnet18", 96, 16, 60))
"""Network, size, images per step, and steps: about a thousand small images, fewer large ones; an epoch's end counts."""
RATE, CLASSES = 1e-4, 4
TARGETS = {
    **{f"throughput over timm's loop, {name} at {size}": ("at least", 0.95) for name, size, *_ in CASES},
    "loading over training, no workers": ("at least", 1.0),
    "loading over training, 2 workers": ("at least", 1.0),
    "loading over training, from memory": ("at least", 1.0),
}
assert pellucid.torchvision_schemas


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES)


def batches(size: int, batch: int, steps: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch * steps, 3, size, size, generator=generator)
    places = torch.arange(batch * steps)
    return DataLoader(TensorDataset(images, places % CLASSES, places), batch_size=batch)


def timm_loop(name: str, loader: DataLoader[Any], precision: str, device: torch.device) -> tuple[float, float]:
    """Seconds and mean loss of an epoch as timm trains: autocast, loss, backward, step, schedule, meter."""
    model = network(name).to(device, memory_format=torch.channels_last)
    optimiser = create_optimizer_v2(model, opt="adamw", lr=RATE, weight_decay=0.01)
    scheduler = CosineLRScheduler(optimiser, t_initial=len(loader), t_in_epochs=False)
    loss_fn = nn.CrossEntropyLoss().to(device)
    meter = AverageMeter()
    clock = Clock()
    model.register_forward_pre_hook(clock.first)
    model.train()
    for step, (images, labels, _) in enumerate(loader):
        images, labels = images.to(device).contiguous(memory_format=torch.channels_last), labels.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_fn(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step_update(step + 1)
        meter.update(loss.item(), len(images))
    clock.first(model.eval(), None)
    return clock.seconds, meter.avg


def our_loop(name: str, loader: DataLoader[Any], precision: str, device: torch.device) -> tuple[float, float]:
    """Seconds and mean loss of one epoch of `fit`; its validation, on one batch, is taken out."""
    with tempfile.TemporaryDirectory() as folder:
        card = ModelCard(name, 32, 3, tuple("abcd"), (0.0,) * 3, (1.0,) * 3, "none")
        settings = TrainingSettings(
            epochs=1, batch_size=loader.batch_size or 1, optimiser="adamw", learning_rate=RATE, weight_decay=0.01,
            warmup=0.0, layer_decay=1.0, gradient_clip=0.0, freeze_epochs=0, precision=precision,
        )  # fmt: skip
        model, held = network(name), next(iter(loader))
        validation = DataLoader(TensorDataset(*(part[:1] for part in held)), batch_size=1)
        clock = Clock()
        model.register_forward_pre_hook(clock.first)
        fitted = fit(model, loader, validation, folder=Path(folder), card=card, settings=settings, device=device)
        return clock.seconds, float(fitted.history["train_loss"][0])


class Clock:
    """From the first forward pass in training to the first one after it."""

    def __init__(self) -> None:
        self.started: float | None = None
        self.seconds = 0.0

    def first(self, module: nn.Module, given: Any) -> None:
        now = time.perf_counter()
        if module.training and self.started is None:
            self.started = now
        elif not module.training and self.started is not None and not self.seconds:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                now = time.perf_counter()
            self.seconds = now - self.started


def compare_loops(name: str, size: int, batch: int, steps: int, given: Any) -> dict[str, Any]:
    device = torch.device(given.device)
    loader = batches(size, batch, steps)
    times: dict[str, list[float]] = {"timm": [], "pellucid": []}
    losses: dict[str, float] = {}
    for turn in range(given.repeats + 1):
        for side, run in (("timm", timm_loop), ("pellucid", our_loop)):
            seconds, losses[side] = run(name, loader, given.precision, device)
            if turn:
                times[side].append(seconds)
    # both begin at the same weights and see the same batches; their schedules differ by one step
    agree = abs(losses["timm"] - losses["pellucid"]) < 0.05 * losses["timm"]
    per_second = {side: batch * steps / seconds for side, seconds in medians(times).items()}
    return {
        "batch": batch, "steps": steps, "size": size, "precision": given.precision, "losses": losses, "agree": agree,
        "images_per_second": per_second, "all_seconds": times, "ratio": ratio(times, "timm", "pellucid"),
    }  # fmt: skip


def write_pictures(folder: Path, source: Path | None, count: int) -> list[Path]:
    """So many 512-pixel JPEGs of what is in the source, or of smooth noise where there is none."""
    found = sorted(source.rglob("*.jpg"))[:count] if source is not None else []
    draws = np.random.default_rng(0)
    paths = []
    for place in range(count):
        if found:
            picture = Image.open(found[place % len(found)]).convert("RGB")
        else:
            picture = Image.fromarray(draws.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        paths.append(folder / f"{place}.jpg")
        picture.resize((512, 512), Image.Resampling.BICUBIC).save(paths[-1], quality=92)
    return paths


def loading_rates(paths: list[Path], size: int, batch: int, repeats: int) -> dict[str, float]:
    """Images per second of each way, the median of its turns."""
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3, "none")
    labels = [place % CLASSES for place in range(len(paths))]

    def passes(workers: int, cache: int) -> Callable[[], None]:
        dataset = ImageDataset(paths, labels, channels=3, size=size, cache_bytes=cache)
        seen = dataset.with_transform(normalisation, Augmentation(horizontal_flip=True), seed=0)
        loader = DataLoader(seen, batch_size=batch, sampler=EpochSampler(labels, seed=0), num_workers=workers)

        def run() -> None:
            for _ in loader:
                pass

        return run

    ways = {"no workers": passes(0, 0), "2 workers": passes(2, 0), "from memory": passes(0, 2**31)}
    times = in_turns(ways, repeats, torch.device("cpu"))
    return {way: len(paths) / seconds for way, seconds in medians(times).items()}


def main() -> int:
    parser = arguments_parser(__doc__, RESULTS, batch=16, repeats=3)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--pictures", type=Path, help="a folder with JPEGs; noise where none is given")
    given = parser.parse_args()
    cases, steps, count = CASES, 6, 256  # steps of the demand on loading
    if given.quick:
        cases, steps, count, given.repeats = (("resnet18", 64, 8, 3),), 3, 16, 1
    warnings.simplefilter("ignore")
    device = torch.device(given.device)
    report: dict[str, Any] = {"surroundings": surroundings(device, "lightning", "pillow"), "training": {}}
    print(json.dumps(report["surroundings"], indent=2))
    ratios: dict[str, float] = {}
    agree = True
    for name, size, batch, length in cases:
        found = compare_loops(name, size, batch, length, given)
        report["training"][f"{name} at {size}"] = found
        ratios[f"throughput over timm's loop, {name} at {size}"] = found["ratio"]
        agree &= found["agree"]
        rates = ", ".join(f"{side} {rate:.1f}" for side, rate in found["images_per_second"].items())
        losses = ", ".join(f"{side} {loss:.4f}" for side, loss in found["losses"].items())
        print(f"\n{name} at {size}, batch {batch}, {given.precision}: images per second {rates}; losses {losses}")
    size = 64 if given.quick else 224
    data = batches(size, given.batch, steps)
    fastest = min(our_loop("resnet18", data, given.precision, device)[0] for _ in range(given.repeats))
    demand = given.batch * steps / fastest
    with tempfile.TemporaryDirectory() as folder:
        rates = loading_rates(write_pictures(Path(folder), given.pictures, count), size, given.batch, given.repeats)
    report["loading"] = {"training_asks_for": demand, "gives": rates, "size": size, "pictures": count}
    print(f"\nloading at {size}: training a ResNet18 asks for {demand:.1f} images per second; loading gives")
    for way, rate in rates.items():
        print(f"    {way:<24}{rate:8.1f}")
        ratios[f"loading over training, {way}"] = rate / demand
    print()
    report["ratios"] = ratios
    return finish(report, given.output, judged(ratios, TARGETS, given.quick) and agree)


if __name__ == "__main__":
    sys.exit(main())
