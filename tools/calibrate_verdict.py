"""Take the thresholds of verdicts from phantoms, whose lesions are known; they go to `pellucid/metrics/`.

A map is right when its evidence lies on the lesion, or within a few pixels of it, far more than by chance, and wrong
when hardly more does; maps in between are left out. The networks are trained ones, which look at the lesion since
nothing else tells the classes apart, and untrained ones. Beside each map of a trained network stands the same map
moved by half the image, which is as smooth and hangs as much on the weights, but points elsewhere. Run it where the
metrics have changed:

    python tools/calibrate_verdict.py
"""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pellucid.torchvision_schemas  # isort: skip  # before timm, which imports torchvision
import pandas as pd
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

import pellucid
from pellucid.attribution import Explanation
from pellucid.data.phantoms import TASKS, draw_phantom
from pellucid.files import write_json
from pellucid.metrics import METRICS
from pellucid.metrics.agreement import rank_correlation
from pellucid.metrics.evaluate import evaluate
from pellucid.metrics.explainer import explainer_of
from pellucid.metrics.verdict import CONTROLS, EVIDENCE, METRICS_ASKED, calibrate, evidence_of

SIZE, TRAIN, TEST, BATCH, EPOCHS = 64, 400, 120, 32, 20
NETWORKS = ("plain", "resnet10t")
METHODS = (
    "layer-cam",
    "grad-cam-plus-plus",
    "xgrad-cam",
    "eigen-cam",
    "eigen-grad-cam",
    "ablation-cam",
    "saliency",
    "input-x-gradient",
    "guided-backprop",
    "deconvolution",
)
IMAGES = 16  # of each network
SURE = 0.5  # least probability of the class explained
NEAR = 4  # pixels from the lesion that count as on it
RIGHT, WRONG = 0.25, 0.05  # how much of the way from chance to all evidence on the lesion
OUTPUT = Path(pellucid.__file__).parent / "metrics" / "verdict_thresholds.json"


def drawn(task: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images, masks and labels of a task, normalised."""
    samples = [draw_phantom(task, index, size=SIZE, seed=1) for index in range(TRAIN + TEST)]
    pixels = torch.stack([torch.from_numpy(sample.image).float() for sample in samples])
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.movedim(-1, 1)
    masks = torch.stack([torch.from_numpy(sample.mask) for sample in samples])
    classes = sorted({sample.label for sample in samples})
    labels = torch.tensor([classes.index(sample.label) for sample in samples])
    return (pixels - pixels[:TRAIN].mean()) / pixels[:TRAIN].std(), masks, labels


def build(name: str, channels: int, classes: int) -> nn.Module:
    """A network with weights as they are before training."""
    if name != "plain":
        return timm.create_model(name, in_chans=channels, num_classes=classes, output_stride=8)

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    layers = [*block(channels, 16), nn.MaxPool2d(2), *block(16, 32), nn.MaxPool2d(2), *block(32, 48), *block(48, 48)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, classes))


def trained(name: str, images: Tensor, labels: Tensor) -> nn.Module:
    """A network trained on the first images."""
    torch.manual_seed(0)
    model = build(name, images.shape[1], int(labels.max()) + 1)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    steps = TRAIN // BATCH
    rate = 1e-2 if name == "plain" else 5e-3
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(TRAIN)
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch = images[rows].flip(-1) if epoch % 2 else images[rows]
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(batch), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def untrained(name: str, images: Tensor, labels: Tensor) -> nn.Module:
    """A network as it is before training, its norms' statistics those of the images."""
    torch.manual_seed(1)
    model = build(name, images.shape[1], int(labels.max()) + 1)
    with torch.no_grad():
        for part in images[:TRAIN].split(BATCH):
            model(part)
    return model.eval()


def judged(explanation: Explanation, masks: Tensor) -> dict[tuple[int, str], bool]:
    """Whether a map is right, by sample and method; those in between are left out."""
    near = max_pool2d(masks.unsqueeze(1).float(), 2 * NEAR + 1, stride=1, padding=NEAR).squeeze(1)
    chance = near.mean((1, 2))
    found = {}
    for method, maps in explanation.maps.items():
        evidence = maps.clamp(min=0)
        share = (evidence * near).sum((1, 2)) / evidence.sum((1, 2))
        for sample, lead in enumerate(((share - chance) / (1 - chance)).tolist()):
            if lead >= RIGHT or lead <= WRONG:
                found[sample, method] = lead >= RIGHT
    return found


def moved(maps: Tensor) -> Tensor:
    """Maps (B, H, W) moved by half the image."""
    return maps.roll((maps.shape[1] // 2, maps.shape[2] // 2), dims=(1, 2))


def evidence(
    model: nn.Module, images: Tensor, explanation: Explanation, masks: Tensor, others: Explanation | None = None
) -> tuple[pd.DataFrame, list[bool]]:
    """The evidence for an explanation's maps, and whether each is right.

    Where it is one of moved maps, those that `others` has where they belong are what they agree with.
    """
    again = explainer_of(explanation, BATCH)

    def moved_again(network: nn.Module, rows: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        found = again(network, rows, target, seeds)
        return {name: maps if name in CONTROLS else moved(maps) for name, maps in found.items()}

    table = evaluate(
        model,
        images,
        explanation,
        list(map(METRICS.from_label, METRICS_ASKED)),
        explainer=None if others is None else moved_again,
    )
    found = evidence_of(table)
    if others is not None:
        for method in METHODS:
            beside = [others.maps[other] for other in METHODS if other != method]
            alike = torch.stack([rank_correlation(explanation.maps[method], other) for other in beside])
            found.loc[found["method"] == method, "agreement"] = alike.nanmean(dim=0).tolist()
    known = judged(explanation, masks)
    pairs = list(zip(found["sample"], found["method"], strict=True))
    return found[[pair in known for pair in pairs]], [known[pair] for pair in pairs if pair in known]


def cases() -> Iterator[tuple[pd.DataFrame, list[bool]]]:
    """For each network the evidence for its maps, and whether each is right."""
    for task in TASKS:
        images, masks, labels = drawn(task)
        for name in NETWORKS:
            for make in (trained, untrained):
                started = time.monotonic()
                model = make(name, images, labels)
                with torch.no_grad():
                    probability = torch.cat([model(part) for part in images[TRAIN:].split(BATCH)]).softmax(dim=1)
                accuracy = float((probability.argmax(dim=1) == labels[TRAIN:]).float().mean())
                usable = masks[TRAIN:].flatten(1).any(dim=1)
                if make is trained:
                    usable &= (probability.argmax(dim=1) == labels[TRAIN:]) & (probability.amax(dim=1) >= SURE)
                rows = usable.nonzero().flatten()[:IMAGES] + TRAIN
                explanation = pellucid.explain(model, images[rows], [*METHODS, *CONTROLS], target=labels[rows])
                parts = [evidence(model, images[rows], explanation, masks[rows])]
                if make is trained:
                    maps = {
                        label: each if label in CONTROLS else moved(each) for label, each in explanation.maps.items()
                    }
                    elsewhere = dataclasses.replace(explanation, maps=maps)
                    parts.append(evidence(model, images[rows], elsewhere, masks[rows], explanation))
                counts = " then ".join(f"{sum(known)} right and {len(known) - sum(known)} wrong" for _, known in parts)
                text = f"{make.__name__} {name} on {task} phantoms, accuracy {accuracy:.2f}"
                print(f"{text}: {counts} maps, {time.monotonic() - started:.0f} s", flush=True)
                yield from parts


def main() -> int:
    warnings.simplefilter("ignore")
    tables, known = [], []
    for table, right in cases():
        tables.append(table)
        known += right
    together = pd.concat(tables, ignore_index=True)
    text = "maps of small trained and untrained networks on pellucid's phantoms, some of them moved"
    calibration = calibrate(together, known, text)
    print(calibration.text())
    for each in EVIDENCE:
        print(together.assign(right=known).groupby("right")[each.name].describe().round(3).to_string())
    write_json(OUTPUT, dataclasses.asdict(calibration))
    return 0


if __name__ == "__main__":
    sys.exit(main())
