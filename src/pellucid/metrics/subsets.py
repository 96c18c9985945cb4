"""Sets of positions that many metrics ask about: random ones, blocks, and the parts of an order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.attribution.superpixels import regions_of
from pellucid.errors import expected
from pellucid.metrics.draws import set_generator
from pellucid.metrics.removals import Removals

_RANDOM, _SQUARES = range(2)  # kinds of draws


def blocks_of(images: Tensor, along: int) -> Tensor:
    """Numbers (*S) of the block, `along` of them on each axis, that each position of images (B, C, *S) lies in."""
    return regions_of(images[:1], along)[0]


def about(cells: int, images: Tensor) -> Tensor:
    """Numbers (*S) of blocks of images (B, C, *S), about `cells` in all, as many along each axis.

    >>> about(64, torch.zeros(1, 1, 16, 16)).max().item(), about(64, torch.zeros(1, 1, 8, 8, 8)).max().item()
    (63, 63)
    """
    if cells < 2:
        raise expected("cells", "at least 2 blocks", cells)
    return blocks_of(images, max(2, round(cells ** (1 / (images.ndim - 2)))))


def set_size(size: float, cells: int) -> int:
    """How many of so many cells a set has: `size` itself where it is a whole number, else that share of them.

    >>> set_size(0.2, 100), set_size(5, 100), set_size(0.001, 100)
    (20, 5, 1)
    """
    if isinstance(size, int) and 1 <= size < cells:
        return size
    if isinstance(size, int) or not 0 < size < 1:
        raise expected("size", f"a share between 0 and 1, or a number of cells from 1 to {cells - 1}", size)
    return min(max(round(size * cells), 1), cells - 1)


class RandomSets:
    """Random sets of so many cells each; an image's depend on its seed alone, so that all methods share them.

    Of more sets of the same size, the first ones are the same.
    """

    def __init__(self, seeds: Tensor, cells: Tensor, size: int, count: int) -> None:
        """Arguments: a seed (B,) per image; a cell's number at each position (*S); cells in a set; sets per image."""
        if count < 2:
            raise expected("subsets", "at least 2 sets", count)
        self.seeds, self.size, self.count = seeds.tolist(), size, count
        self.labels = cells.flatten().cpu()
        self.cells = int(self.labels.max()) + 1
        self._whole = self.cells == len(self.labels)  # each position is a cell of its own
        self._drawn: tuple[int, NDArray[np.int32]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """B and R."""
        return len(self.seeds), self.count

    def members(self, image: int) -> NDArray[np.int32]:
        """The cells (R, size) of an image's sets; those of the last image asked for are kept."""
        seed = self.seeds[image]
        if self._drawn is None or self._drawn[0] != seed:
            draw = set_generator(seed, _RANDOM, self.cells, self.size)
            sets = [draw.choice(self.cells, self.size, replace=False, shuffle=False) for _ in range(self.count)]
            self._drawn = seed, np.stack(sets).astype(np.int32)
        return self._drawn[1]

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per set of an image."""
        each = cell_sums(numbers, self.labels, self.cells)
        return torch.stack([each[torch.from_numpy(row).to(each.device).long()].sum() for row in self.members(image)])

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A set as a mask (*S), True where removed."""
        chosen = torch.zeros(self.cells, dtype=torch.bool)
        chosen[torch.from_numpy(self.members(image)[number]).long()] = True
        return (chosen if self._whole else chosen[self.labels]).view(*shape)


class Blocks:
    """Each block on its own, the same for every image."""

    def __init__(self, cells: Tensor, images: int) -> None:
        """Arguments: a block's number at each position (*S); the number of images."""
        self.labels = cells
        self.shape = images, int(cells.max()) + 1

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per block."""
        return cell_sums(numbers, self.labels.flatten(), self.shape[1])

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A block as a mask (*S), True where removed."""
        return (self.labels == number).view(*shape)


class Parts:
    """An order's parts, of equal size to a position: each removed alone."""

    def __init__(self, orders: Tensor, count: int) -> None:
        """Arguments: flat positions (B, N), from first to last; how many parts."""
        self.orders, self.bounds = orders, part_bounds(orders.shape[1], count)

    @property
    def shape(self) -> tuple[int, int]:
        """B and R."""
        return len(self.orders), len(self.bounds) - 1

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per part of an image's order."""
        sums = torch.nn.functional.pad(numbers[self.orders[image].to(numbers.device)].cumsum(dim=0), (1, 0))
        return sums[torch.tensor(self.bounds, device=sums.device)].diff()

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A part as a mask (*S), True where removed."""
        order = self.orders[image]
        mask = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        mask[order[self.bounds[number] : self.bounds[number + 1]]] = True
        return mask.view(*shape)


class Squares:
    """Random squares, or cubes: any side up to a share of each axis, anywhere in the image, by the image's seed."""

    def __init__(self, seeds: Tensor, shape: Sequence[int], count: int, largest: float) -> None:
        """Arguments: a seed (B,) per image; *S; squares per image; the largest side as a share of an axis."""
        self.shape, self._spatial = (len(seeds), count), tuple(shape)
        self.corners = np.stack([_corners(seed, shape, count, largest) for seed in seeds.tolist()])  # (B, R, 2, axes)

    def prints(self, image: int, numbers: Tensor) -> Tensor:
        """A number (R,) per square of an image."""
        around = numbers.view(*self._spatial)
        return torch.stack([around[_slices(*corners)].sum() for corners in self.corners[image]])

    def mask(self, image: int, number: int, shape: Sequence[int]) -> Tensor:
        """A square as a mask (*S), True where removed."""
        mask = torch.zeros(*shape, dtype=torch.bool)
        mask[_slices(*self.corners[image, number])] = True
        return mask


def _corners(seed: int, shape: Sequence[int], count: int, largest: float) -> NDArray[np.int64]:
    """First corners and those past the last (R, 2, axes)."""
    draw = set_generator(seed, _SQUARES, *shape)
    found = []
    for _ in range(count):
        share = 1 - draw.random()  # never 0
        sides = [max(1, round(share * largest * length)) for length in shape]
        first = [int(draw.integers(length - side + 1)) for length, side in zip(shape, sides, strict=True)]
        found.append([first, [at + side for at, side in zip(first, sides, strict=True)]])
    return np.array(found)


def _slices(first: NDArray[np.int64], past: NDArray[np.int64]) -> tuple[slice, ...]:
    return tuple(slice(int(low), int(high)) for low, high in zip(first, past, strict=True))


def part_bounds(positions: int, count: int) -> list[int]:
    """Where the parts of an order begin, and its end; as many parts as positions at most.

    >>> part_bounds(10, 4)
    [0, 2, 5, 8, 10]
    """
    if count < 2:
        raise expected("steps", "at least 2", count)
    count = min(count, positions)
    return [round(part * positions / count) for part in range(count + 1)]


def cell_sums(values: Tensor, labels: Tensor, cells: int) -> Tensor:
    """The sum (cells,) of values (N,) over each cell, whose number at each position is `labels` (N,)."""
    return torch.zeros(cells, dtype=values.dtype, device=values.device).index_add_(0, labels.to(values.device), values)


def set_sums(removals: Removals, maps: Tensor) -> Tensor:
    """What maps (B, *S) say of each set, the sum (B, R) of their values in it, in float64.

    >>> set_sums(Blocks(torch.tensor([0, 0, 1]), 1), torch.tensor([[1.0, 2.0, 4.0]]))
    tensor([[3., 4.]], dtype=torch.float64)
    """
    images, count = removals.shape
    exact, shape = maps.double(), maps.shape[1:]
    sums = [
        torch.where(removals.mask(image, number, shape).to(maps.device), exact[image], 0).sum()
        for image in range(images)
        for number in range(count)
    ]
    return torch.stack(sums).view(images, count)
