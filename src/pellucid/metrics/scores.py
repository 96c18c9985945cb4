"""What a network says of images and of changed ones: each distinct change is made and scored once, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.draws import sample_seeds
from pellucid.metrics.fills import FILLS, Fill
from pellucid.metrics.removals import Removals, position_numbers
from pellucid.registry import Choice

ScoreOf = Callable[[Tensor, Tensor], Tensor]
Reading = Literal["probability", "logit", "class"]
FillChoice = str | Choice[Fill]

READINGS: tuple[Reading, ...] = ("probability", "logit", "class")
_BLOCK_BYTES = 16 << 20  # changed images held at once; making them takes several times as much
_NOTHING = 0  # the print of an empty set
_ROUNDING = 1e-6  # a score that moves by less doesn't move


class Scores:
    """A network's scores of B images with parts removed, or changed in any other way.

    Metrics that ask for the same removals share them: a set of positions that was removed once, by whatever metric
    and for whatever method's map, is not made again while this object lives.

    Attributes:
        images: (B, C, *S), normalised.
        seeds: (B,) one per image, from which its ties, noise and random sets are drawn.
    """

    def __init__(
        self,
        score_of: ScoreOf,
        images: Tensor,
        seeds: Tensor | None = None,
        *,
        bank: Tensor | None = None,
        block_bytes: int = _BLOCK_BYTES,
        together: int = 1,
    ) -> None:
        """Ask `score_of` about `images`.

        Arguments:
            score_of: `(rows (M, C, *S), sample (M,)) -> (M,)` or `(M, 3)`; row j derives from image `sample[j]`. Three
                columns are the probability of the explained class, its logit, and the index of the class with the
                largest logit. One column stands for the first two.
            images: (B, C, *S), normalised.
            seeds: (B,) one per image; None draws them from seed 0.
            bank: images (K, C, *S) that aren't among those explained, for fills that need them.
            block_bytes: bytes of changed images that are held at once.
            together: rows that the network runs at once, so that as few as can be run without others.
        """
        if images.ndim < 3 or not images.is_floating_point() or not images.numel():
            raise expected("images", "a float tensor (B, C, *S)", f"shape {tuple(images.shape)}, {images.dtype}")
        if not bool(images.isfinite().all()):
            raise expected("images", "finite values", "NaN or infinity")
        self._score_of = score_of
        self.images = images.detach()
        self.seeds = sample_seeds(None, len(images)) if seeds is None else seeds
        self.bank = bank
        block = max(1, block_bytes // (images[0].numel() * images.element_size()))
        self._block = block // together * together or block
        self._numbers = position_numbers(images.shape[2:].numel())
        self._known: dict[tuple[str, int, int], list[float]] = {}  # fill, image, print -> readings
        self._plain: Tensor | None = None
        self._kept: dict[Hashable, Tensor] = {}
        self.rows = 0  # scored so far
        self.changed = torch.zeros(len(images), dtype=torch.bool)  # whether a change of the image moved its score

    def unperturbed(self, reading: Reading = "probability") -> Tensor:
        """Scores (B,) of the images themselves."""
        if self._plain is None:
            self._plain = self._asked(self.images, torch.arange(len(self.images), device=self.images.device))
        return self._read(self._plain, reading)

    def kept(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What was made under this key, by whatever metric, or is made now."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def of(self, rows: Tensor, sample: Tensor, reading: Reading = "probability") -> Tensor:
        """Scores (M,) of rows (M, C, *S) that derive from the images `sample` (M,)."""
        self.unperturbed()
        sample = sample.to(self.images.device)
        parts = zip(rows.split(self._block), sample.split(self._block), strict=True)
        scores = torch.cat([self._asked(part, of) for part, of in parts])
        self._note(scores, sample)
        return self._read(scores, reading)

    def without(self, removals: Removals, fill: FillChoice = "linear", reading: Reading = "probability") -> Tensor:
        """Scores (B, R) of the images without R sets of positions each, whose place `fill` takes."""
        self.unperturbed()
        choice = FILLS.resolve(fill)
        # with its defaults, so that to name one of them is no other fill
        choice = Choice(choice.entry, {**choice.entry.options, **choice.options})
        images, sets = removals.shape
        if images != len(self.images):
            raise expected("removals", f"sets of {len(self.images)} images", f"of {images}")
        assert self._plain is not None
        plain = self._plain
        prints = [removals.prints(image, self._numbers_on(self.images.device)).tolist() for image in range(images)]
        self._known.update({(choice.label, image, _NOTHING): row for image, row in enumerate(plain.tolist())})
        wanted: dict[tuple[str, int, int], int] = {}
        for image, row in enumerate(prints):
            for number, value in enumerate(row):
                key = (choice.label, image, value)
                if key not in self._known:
                    wanted.setdefault(key, number)
        self._remove(removals, choice, wanted)
        found = [self._known[choice.label, image, value] for image, row in enumerate(prints) for value in row]
        known = torch.tensor(found, dtype=plain.dtype, device=plain.device).view(-1, plain.shape[1])
        return self._read(known, reading).view(images, sets)

    def _remove(self, removals: Removals, choice: Choice[Fill], wanted: dict[tuple[str, int, int], int]) -> None:
        """Make and score the sets that aren't known, a block at a time, so that only a block is ever held."""
        device, shape = self.images.device, self.images.shape[2:]
        keys = list(wanted)
        for start in range(0, len(keys), self._block):
            block = keys[start : start + self._block]
            sample = torch.tensor([image for _, image, _ in block], device=device)
            removed = torch.stack([removals.mask(key[1], wanted[key], shape) for key in block]).to(device)
            scores = self._asked(self._filled(choice, sample, removed), sample)
            self._note(scores, sample)
            self._known.update(zip(block, scores.tolist(), strict=True))

    def _filled(self, choice: Choice[Fill], sample: Tensor, removed: Tensor) -> Tensor:
        given: list[Tensor] = []
        for need in choice.entry.needs:
            if need == "bank":
                if self.bank is None:
                    wanted = f"images that the fill {choice.entry.name!r} takes from"
                    raise expected("bank", wanted, "none", do="Pass bank= held-out images (K, C, *S).")
                given.append(self.bank.to(self.images))
            else:
                given.append(self.seeds[sample.cpu()])
        return choice.entry.function(self.images[sample], removed, *given, **choice.options)

    def _asked(self, rows: Tensor, sample: Tensor) -> Tensor:
        """Readings (M, 1) or (M, 3), on the images' device."""
        scores = self._score_of(rows, sample)
        if not isinstance(scores, Tensor) or scores.shape not in ((len(rows),), (len(rows), len(READINGS))):
            got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise expected("score_of", f"one score for each of {len(rows)} rows", got)
        self.rows += len(rows)
        return scores.detach().to(self.images.device).view(len(rows), -1)

    def _read(self, scores: Tensor, reading: Reading) -> Tensor:
        if reading not in READINGS:
            raise expected("reading", " or ".join(map(repr, READINGS)), repr(reading))
        if scores.shape[1] == 1:
            if reading == "class":
                raise expected("score_of", "three columns, the third being the class", "one score per row")
            return scores[:, 0]
        return scores[:, READINGS.index(reading)]

    def _note(self, scores: Tensor, sample: Tensor) -> None:
        assert self._plain is not None
        plain = self._plain[sample]
        moved = ((scores - plain).abs() > _ROUNDING * plain.abs().clamp(min=1)).any(dim=1)
        self.changed[sample[moved].cpu()] = True

    def _numbers_on(self, device: torch.device) -> Tensor:
        if self._numbers.device != device:
            self._numbers = self._numbers.to(device)
        return self._numbers
