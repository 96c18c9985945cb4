"""A small network trained on brain phantoms, whose lesions are known and are all that tells the classes apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from pellucid.data.phantoms import draw_phantom

SIZE, TRAIN, TEST, BATCH, EPOCHS = 64, 320, 80, 32, 30


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
def phantom_network(seed: int = 0) -> PhantomNetwork:
    """Train it, once in a process, on one thread, since more of them add up to other weights; about 20 seconds."""
    drawn = [draw_phantom("brain", index, size=SIZE, seed=0) for index in range(TRAIN + TEST)]
    pixels = torch.stack([torch.from_numpy(each.image).float() for each in drawn]).unsqueeze(1)
    masks = torch.stack([torch.from_numpy(each.mask) for each in drawn])
    classes = sorted({each.label for each in drawn})
    labels = torch.tensor([classes.index(each.label) for each in drawn])
    images = (pixels - pixels[:TRAIN].mean()) / pixels[:TRAIN].std()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _network(len(classes))
        _fit(model, images[:TRAIN], masks[:TRAIN], labels[:TRAIN])
    torch.set_num_threads(threads)
    model.eval()
    with torch.no_grad():
        accuracy = float((model(images[TRAIN:]).argmax(dim=1) == labels[TRAIN:]).float().mean())
    chosen = [place for place in range(TRAIN, TRAIN + TEST) if bool(masks[place].any())]
    heads = pixels[:, 0] > pixels[:, 0].flatten(1).amin(dim=1).view(-1, 1, 1) + 25
    return PhantomNetwork(model, images[chosen], masks[chosen], heads[chosen], labels[chosen], accuracy)


def _fit(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> None:
    lesions = nn.functional.max_pool2d(masks.unsqueeze(1).float(), 3, stride=1, padding=1) > 0  # and their rims
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch = _partly_hidden(images[rows], lesions[rows])
            batch = batch.flip(-1) if epoch % 2 else batch
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(batch), labels[rows]).backward()
            optimiser.step()
            schedule.step()


def _partly_hidden(images: Tensor, lesions: Tensor) -> Tensor:
    """Hide some of what isn't lesion, so that it can't tell classes and the network has seen images with parts taken.

    Pixels or squares of eight go, from none (in a third of the images) to all, and become one level of grey.
    """
    side = (1, 8)[int(torch.randint(2, ()))]
    share, level = torch.rand(2, len(images), 1, 1, 1)
    gone = torch.rand(len(images), 1, SIZE // side, SIZE // side) < 1.5 * share - 0.5
    gone = gone.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    return torch.where(gone & ~lesions, level * images.amin(), images)
