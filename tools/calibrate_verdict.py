"""Take the thresholds of verdicts from phantoms, whose lesions are known; they go to `pellucid/metrics/`.

A map is right when most of its evidence lies on the lesion or within a few pixels of it, and wrong when hardly more
does than by chance; maps in between are left out. The networks are trained ones, which look at the lesion since nothing
else tells the classes apart, and untrained ones. Run it where the metrics have changed:

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
from pellucid.metrics.evaluate import evaluate
from pellucid.metrics.verdict import CONTROLS, EVIDENCE, METRICS_ASKED, calibrate, evidence_of

SIZE, TRAIN, TEST, BATCH, EPOCHS = 96, 400, 120, 32, 16
NETWORKS = ("resnet18", "densenet121")
METHODS = (
    "layer-cam",
    "grad-cam-plus-plus",
    "xgrad-cam",
    "eigen-grad-cam",
    "ablation-cam",
    "saliency",
    "smooth-grad",
    "integrated-gradients",
    "guided-backprop",
    "deconvolution",
    "occlusion",
)
IMAGES = 24  # of each network
SURE = 0.5  # least probability of the class explained
NEAR = 4  # pixels from the lesion that count as on it
RIGHT, CHANCE = 0.5, 1.5  # a share of the evidence; times the share of the image
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


def trained(name: str, images: Tensor, labels: Tensor) -> nn.Module:
    """A network trained on the first images."""
    torch.manual_seed(0)
    model = timm.create_model(name, in_chans=images.shape[1], num_classes=int(labels.max()) + 1)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = TRAIN // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=EPOCHS * steps)
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


def judged(explanation: Explanation, masks: Tensor) -> Mapping[tuple[int, str], bool]:
    """Whether a map is right, by sample and method; those in between are left out."""
    near = max_pool2d(masks.unsqueeze(1).float(), 2 * NEAR + 1, stride=1, padding=NEAR).squeeze(1)
    found = {}
    for method, maps in explanation.maps.items():
        evidence = maps.clamp(min=0)
        share = (evidence * near).sum((1, 2)) / evidence.sum((1, 2))
        for sample, (value, size) in enumerate(zip(share.tolist(), near.mean((1, 2)).tolist(), strict=True)):
            if value >= RIGHT or value <= CHANCE * size:
                found[sample, method] = value >= RIGHT
    return found


def evaluated(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> tuple[pd.DataFrame, list[bool]]:
    """The evidence of the maps of some images that the network gets right, and whether each is right."""
    with torch.no_grad():
        probability = torch.cat([model(part) for part in images.split(BATCH)]).softmax(dim=1)
    usable = masks.flatten(1).any(dim=1)
    if model.trained:
        usable &= (probability.argmax(dim=1) == labels) & (probability.amax(dim=1) >= SURE)
    rows = usable.nonzero().flatten()[:IMAGES]
    explanation = pellucid.explain(model, images[rows], [*METHODS, *CONTROLS], target=labels[rows])
    found = evidence_of(evaluate(model, images[rows], explanation, list(map(METRICS.from_label, METRICS_ASKED))))
    known = judged(explanation, masks[rows])
    pairs = list(zip(found["sample"], found["method"], strict=True))
    return found[[pair in known for pair in pairs]], [known[pair] for pair in pairs if pair in known]


def cases() -> Iterator[tuple[pd.DataFrame, list[bool]]]:
    """For each network the evidence of its maps, and whether each is right."""
    for task in TASKS:
        images, masks, labels = drawn(task)
        for name in NETWORKS:
            for make in (trained, untrained):
                started = time.monotonic()
                model = make(name, images, labels)
                model.trained = make is trained
                found, known = evaluated(model, images[TRAIN:], masks[TRAIN:], labels[TRAIN:])
                text = f"{make.__name__} {name} on {task} phantoms"
                seconds = time.monotonic() - started
                print(
                    f"{text}: {sum(known)} right and {len(known) - sum(known)} wrong maps, {seconds:.0f} s", flush=True
                )
                yield found, known


def untrained(name: str, images: Tensor, labels: Tensor) -> nn.Module:
    """A network as it is before training, its norms' statistics those of the images."""
    torch.manual_seed(1)
    model = timm.create_model(name, in_chans=images.shape[1], num_classes=int(labels.max()) + 1)
    with torch.no_grad():
        for part in images[:TRAIN].split(BATCH):
            model(part)
    return model.eval()


def main() -> int:
    warnings.simplefilter("ignore")
    tables, known = [], []
    for table, right in cases():
        tables.append(table)
        known += right
    together = pd.concat(tables, ignore_index=True)
    text = f"maps of {' and '.join(NETWORKS)}, trained and untrained, on pellucid's phantoms"
    calibration = calibrate(together, known, text)
    print(calibration.text())
    for each in EVIDENCE:
        print(together.assign(right=known).groupby("right")[each.name].describe().round(3).to_string())
    write_json(OUTPUT, dataclasses.asdict(calibration))
    return 0


if __name__ == "__main__":
    sys.exit(main())
