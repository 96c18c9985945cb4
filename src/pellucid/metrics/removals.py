"""Which positions of each image are removed, said in few words, so that equal sets are known before they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.ranking import removed_mask


class Removals(Protocol):
    """R sets of positions for each of B images."""

    @property
    def shape(self) -> tuple[int, int]:
        """B and R."""

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per set of an image, the sum of its positions' `numbers` (N,): equal where sets are equal."""

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A set as a mask (*S), True where removed."""


class First:
    """The first positions of an order, as many as each count says.

    >>> First(torch.tensor([[1, 2, 0]]), [0, 2]).mask(0, 1, (1, 3))
    tensor([[False,  True,  True]])
    """

    def __init__(self, orders: Tensor, counts: Tensor | Sequence[int]) -> None:
        """Arguments: flat positions (B, N) from the first removed to the last; counts (R,) or (B, R)."""
        counts = torch.as_tensor(counts, dtype=torch.long)
        self.orders = orders
        self.counts = counts.expand(len(orders), -1) if counts.ndim == 1 else counts
        if counts.numel() and not 0 <= int(counts.min()) <= int(counts.max()) <= orders.shape[1]:
            raise expected("counts", f"numbers of positions from 0 to {orders.shape[1]}", counts.tolist())

    @property
    def shape(self) -> tuple[int, int]:
        """B and R."""
        return self.counts.shape[0], self.counts.shape[1]

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per set of an image."""
        sums = torch.nn.functional.pad(numbers[self.orders[image].to(numbers.device)].cumsum(dim=0), (1, 0))
        return sums[self.counts[image].to(sums.device)]

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A set as a mask (*S), True where removed."""
        return removed_mask(self.orders[image], int(self.counts[image, number]), shape)


class Sets:
    """Any positions, given as masks (B, R, *S), True where removed; (1, R, *S) serves every image alike."""

    def __init__(self, masks: Tensor, images: int | None = None) -> None:
        if masks.dtype != torch.bool or masks.ndim < 3:
            raise expected("masks", "a bool tensor (B, R, *S)", f"shape {tuple(masks.shape)}, {masks.dtype}")
        self.masks = masks.expand(images or len(masks), *masks.shape[1:])

    @property
    def shape(self) -> tuple[int, int]:
        """B and R."""
        return self.masks.shape[0], self.masks.shape[1]

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per set of an image."""
        flat = self.masks[image].flatten(1).to(numbers.device)
        return torch.stack([numbers[each].sum() for each in flat]) if len(flat) else numbers[:0]

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A set as a mask (*S), True where removed."""
        return self.masks[image, number].view(*shape)


class Joined:
    """The sets of several removals of the same images, one after another, so that they are scored together."""

    def __init__(self, *parts: Removals) -> None:
        self.parts = parts
        if len({part.shape[0] for part in parts}) != 1:
            raise expected("parts", "removals of the same images", ", ".join(str(part.shape[0]) for part in parts))

    @property
    def shape(self) -> tuple[int, int]:
        """B and R."""
        return self.parts[0].shape[0], sum(part.shape[1] for part in self.parts)

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per set of an image."""
        return torch.cat([part.prints(image, numbers) for part in self.parts])

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A set as a mask (*S), True where removed."""
        for part in self.parts:
            if number < part.shape[1]:
                return part.mask(image, number, shape)
            number -= part.shape[1]
        raise IndexError(number)


def position_numbers(positions: int) -> Tensor:
    """A random 64-bit number per position, whose sum over a set is the set's print (Zobrist)."""
    return torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, positions))
