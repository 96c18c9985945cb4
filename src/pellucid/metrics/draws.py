"""Randomness that belongs to a sample: an image's seed alone decides its ties and its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_TIES, _NOISE, _SETS = range(3)  # streams of one seed


def sample_seeds(generator: torch.Generator | None, count: int) -> Tensor:
    """A seed (count,) per image, which depends on the image's place but not on how many come after it.

    `generator=None` means seed 0.

    >>> bool((sample_seeds(None, 5)[:3] == sample_seeds(torch.Generator().manual_seed(0), 3)).all())
    True
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    base = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.tensor([_stream(base, place).integers(2**62) for place in range(count)], dtype=torch.long)


def tie_order(seed: int, positions: int) -> Tensor:
    """The random order (positions,) in which positions of one image come where their values are equal.

    >>> sorted(tie_order(7, 4).tolist())
    [0, 1, 2, 3]
    """
    return torch.from_numpy(_stream(seed, _TIES).permutation(positions))


def noise_field(seed: int, shape: Sequence[int]) -> Tensor:
    """Standard normal values, float32, one per channel and pixel of one image."""
    return torch.from_numpy(_stream(seed, _NOISE).standard_normal(tuple(shape), dtype=np.float32))


def set_generator(seed: int, *kind: int) -> np.random.Generator:
    """Where an image's random sets and replacements come from; each kind of them, told by whole numbers, has its own.

    >>> int(set_generator(7, 1).integers(100)) == int(set_generator(7, 1).integers(100))
    True
    """
    return _stream(seed, _SETS, *kind)


def _stream(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, *stream])
