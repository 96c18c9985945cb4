"""A small network trained on brain phantoms, whose lesions are known and are all that tells the classes apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from pellucid.data.phantoms import draw_phantom

SIZE, TRAIN, TEST, BATCH, EPOCHS = 64, 320, 80, 32, 25


@dataclass(frozen=True)
class PhantomNetwork:
    """A trained network and the images that it was tested on.

    Attributes:
        model: in evaluation mode, logits of four classes.
        images: (B, 1, 64, 64), normalised, not trained on, each with a lesion.
        masks: (B, 64, 64), the lesions.
        heads: (B, 64, 64), what isn't background.
        labels: (B,)
        accuracy: on all test images, those without a lesion among them.
    """

    model: nn.Module
    images: Tensor
    masks: Tensor
    heads: Tensor
    labels: Tensor
    accuracy: float


def _network(classes: int) -> nn.Module:
    def block(channels: int, filters: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]

    layers = [*block(1, 16), nn.MaxPool2d(2), *block(16, 32), nn.MaxPool2d(2), *block(32, 48), *block(48, 48)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, classes))


@cache
def phantom_network() -> PhantomNetwork:
    """Train it, once in a process; it takes about ten seconds."""
    drawn = [draw_phantom("brain", index, size=SIZE, seed=0) for index in range(TRAIN + TEST)]
    pixels = torch.stack([torch.from_numpy(each.image).float() for each in drawn]).unsqueeze(1)
    masks = torch.stack([torch.from_numpy(each.mask) for each in drawn])
    classes = sorted({each.label for each in drawn})
    labels = torch.tensor([classes.index(each.label) for each in drawn])
    images = (pixels - pixels[:TRAIN].mean()) / pixels[:TRAIN].std()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _network(len(classes))
        _fit(model, images[:TRAIN], labels[:TRAIN])
    model.eval()
    with torch.no_grad():
        accuracy = float((model(images[TRAIN:]).argmax(dim=1) == labels[TRAIN:]).float().mean())
    chosen = [place for place in range(TRAIN, TRAIN + TEST) if bool(masks[place].any())]
    heads = pixels[:, 0] > pixels[:, 0].flatten(1).amin(dim=1).view(-1, 1, 1) + 25
    return PhantomNetwork(model, images[chosen], masks[chosen], heads[chosen], labels[chosen], accuracy)


def _fit(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch = images[rows].flip(-1) if epoch % 2 else images[rows]
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(batch), labels[rows]).backward()
            optimiser.step()
            schedule.step()
