"""What methods ask of the whole network: scores and gradients of rows that derive from the images, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from pellucid.attribution.targets import Objective
from pellucid.errors import expected

_CACHED_BYTES = {4: 5 << 18, 5: 5 << 20}  # of one channel of pictures and volumes: 6 of 224 x 224, 13 in bfloat16


def gains_by_channels_last(images: Tensor) -> bool:
    """Whether convolutions of such images are faster where channels lie last in memory."""
    return images.device.type == "cpu" and images.ndim == 4


def cached_rows(images: Tensor, most: int) -> int:
    """How many of such images (B, C, *S) are best run at once, of at most `most`.

    On a CPU as many as its caches hold, which often takes half of the time of more; elsewhere `most`.
    """
    if images.device.type != "cpu" or images.ndim not in _CACHED_BYTES:
        return most
    size = 2 if torch.is_autocast_enabled("cpu") else images.element_size()
    return min(most, max(1, _CACHED_BYTES[images.ndim] // (images[0, 0].numel() * size)))


class Asking:
    """A borrowed network, what is explained of its output, and how many rows run at once.

    `told`, when given, hears how many rows have run so far, and how many there will be, once that is known.
    `channels_last` lets convolutions on the CPU run in the layout in which they are faster, which not every network
    takes.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        rows: int,
        told: Callable[[int, int | None], None] | None = None,
        channels_last: bool = True,
    ) -> None:
        self._model = model
        self._objective = objective
        self.rows = rows
        self._told = told
        self._channels_last = channels_last
        self._ran = 0
        self._expected: int | None = None

    def through(self, model: nn.Module, rows: int | None = None) -> Self:
        """The same question put to another network, as a rewritten one, at other rows at once where given."""
        return type(self)(model, self._objective, rows or self.rows, self._told, self._channels_last)

    def draws(self, counts: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw 0 to `counts[i]` - 1 of every image i, at most `rows` at a time: which image (M,), and which draw (M,).

        One row is asked for of each.

        >>> from pellucid.attribution.targets import objective
        >>> asking = Scores(nn.Identity(), objective(0, torch.zeros(2, 3), slice(0, 2)), rows=4)
        >>> [(sample.tolist(), draw.tolist()) for sample, draw in asking.draws([2, 3])]
        [([0, 0, 1, 1], [0, 1, 0, 1]), ([1], [2])]
        """
        each = torch.tensor(list(counts))
        sample = torch.repeat_interleave(torch.arange(len(each)), each)
        draw = torch.arange(len(sample)) - (each.cumsum(0) - each)[sample]
        self._expected = self._ran + len(sample)
        yield from zip(sample.split(self.rows), draw.split(self.rows), strict=True)

    def _parts(self, images: Tensor, sample: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        rows = cached_rows(images, self.rows)
        return zip(images.split(rows), sample.split(rows), strict=True)

    def scores(self, images: Tensor, sample: Tensor) -> Tensor:
        """Scores (M, T) of at most `rows` rows, which derive from the images `sample` (M,); they keep their graph."""
        fast = self._channels_last and gains_by_channels_last(images)
        laid = images.contiguous(memory_format=torch.channels_last) if fast else images
        own = images.clone() if laid.data_ptr() == images.data_ptr() else laid  # a copy, lest it is written to
        scores = self._objective.scores(self._model(own), sample)
        if self._told is not None:
            self._ran += len(images)
            self._told(self._ran, self._expected)
        return scores


class Scores(Asking):
    """`score_of(images (M, C, *S), sample (M,)) -> (M, T)`: the T scores of rows that derive from images `sample`."""

    def __call__(self, images: Tensor, sample: Tensor) -> Tensor:
        splits = getattr(self._model, "splits", False)  # so that it sees which images are near one another
        parts = [(images, sample)] if splits else self._parts(images, sample)
        with torch.no_grad():
            return torch.cat([self.scores(rows, of) for rows, of in parts])


class Gradients(Asking):
    """`gradient_of(images (M, C, *S), sample (M,)) -> (M, T, C, *S)`: gradients of those scores, each in its own row.

    Raises:
        InputError: the scores have no gradient, as in a quantised network.
    """

    def __call__(self, images: Tensor, sample: Tensor) -> Tensor:
        found = [self._of(rows, of) for rows, of in self._parts(images, sample)]
        return found[0] if len(found) == 1 else torch.cat(found)  # no copy of what is there already

    def _of(self, images: Tensor, sample: Tensor) -> Tensor:
        leaf = images.detach().requires_grad_()
        scores = self.scores(leaf, sample)
        if not scores.requires_grad:
            raise expected(
                "model",
                "scores that depend on the image by differentiable steps",
                "scores without a gradient",
                do="Methods of the perturbation family ask for scores alone.",
            )
        last = scores.shape[1] - 1
        each = [
            torch.autograd.grad(score.sum(), leaf, retain_graph=place < last)[0]
            for place, score in enumerate(scores.unbind(dim=1))
        ]
        return each[0].unsqueeze(1) if last == 0 else torch.stack(each, dim=1)


def generator_of(seed: int, draw: int) -> torch.Generator:
    """The generator of one draw for one image: it depends on the image's seed and the draw's number alone."""
    return torch.Generator().manual_seed((seed + draw * 0x9E3779B97F4A7C15) % 2**63)


def noisy(images: Tensor, deviation: float, draws: Iterable[torch.Generator]) -> Tensor:
    """Images (M, C, *S) with Gaussian noise of `deviation` times each image's range, from a generator for each."""
    flat = images.flatten(1)
    spread = deviation * (flat.amax(dim=1) - flat.amin(dim=1))
    fields = [torch.randn(images.shape[1:], generator=source) for source in draws]
    return images + spread.reshape(-1, *(1,) * (images.ndim - 1)) * torch.stack(fields).to(images)
