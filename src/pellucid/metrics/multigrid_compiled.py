"""ROAD's linear systems for 2-D images on the CPU: multigrid-preconditioned conjugate gradients, compiled.

The unknowns of one image are the removed pixels; a system is symmetric, and the same for every channel. Levels are
made by Galerkin coarsening with linear interpolation at every second pixel, so that each keeps a stencil of 3 × 3.
"""

from __future__ import annotations

import itertools
import math
import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pellucid.metrics.multigrid_kernels import (
    DOWN,
    DOWN_LEFT,
    DOWN_RIGHT,
    HERE,
    RIGHT,
    Floats,
    coarsen,
    conjugate_gradients,
    residual,
    smoother,
)


class _Workspace:
    """What one thread needs to solve systems of one image size, allocated once."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = (height + 2, width + 2)
        shapes = [(height, width)]
        while max(shapes[-1]) > 1:
            shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
        sizes = [(h + 2) * (w + 2) for h, w in shapes]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        total = int(starts[-1])
        self.levels = np.array([(h + 2, w + 2, start) for (h, w), start in zip(shapes, starts, strict=False)], np.int64)
        self.down = np.stack([_interpolation(h, height + 2) for h, _ in shapes])
        self.across = np.stack([_interpolation(w, width + 2) for _, w in shapes])
        self.stencils, self.between = np.zeros(5 * total, np.float32), np.zeros(5 * sizes[0], np.float32)
        self.inverse, self.z, self.r, self.work = (np.zeros(total, np.float32) for _ in range(4))
        self.unknown, self.known, self.solution, self.direction = (np.zeros(sizes[0], np.float32) for _ in range(4))
        self.row = np.zeros(width + 4, np.float32)
        self.full = np.zeros((5, *self.shape), np.float32)
        inside = np.zeros(self.shape, np.float32)
        inside[1:-1, 1:-1] = 1
        self._couple(self.full, inside)

    def _couple(self, stencil: Floats, unknown: Floats) -> None:
        """Couplings between pixels marked 1: whole numbers, so that a row's sum is exact; 2 beside, 1 diagonally."""
        inner = unknown[1:-1, 1:-1]
        stencil[RIGHT, 1:-1, 1:-1] = -2 * inner * unknown[1:-1, 2:]
        stencil[DOWN_LEFT, 1:-1, 1:-1] = -inner * unknown[2:, :-2]
        stencil[DOWN, 1:-1, 1:-1] = -2 * inner * unknown[2:, 1:-1]
        stencil[DOWN_RIGHT, 1:-1, 1:-1] = -inner * unknown[2:, 2:]
        if stencil is self.full:
            ones, zeros, sums = unknown, np.zeros_like(unknown), np.zeros_like(unknown)
            residual(stencil, ones, zeros, sums)
            stencil[HERE] = sums
        else:
            stencil[HERE] = self.full[HERE] * unknown

    def prepare(self, removed: NDArray[np.bool_]) -> None:
        """Build the levels of the system whose unknowns are the removed pixels."""
        unknown = self.unknown.reshape(self.shape)
        unknown[1:-1, 1:-1] = removed
        stencils = [
            self.stencils[5 * start : 5 * (start + h * w)].reshape(5, h, w) for h, w, start in self.levels.tolist()
        ]
        self._couple(stencils[0], unknown)
        for level, (fine, coarse) in enumerate(itertools.pairwise(stencils)):
            shape = (5, fine.shape[1], coarse.shape[2])
            between = self.between[: math.prod(shape)].reshape(shape)
            between[:, 0] = between[:, -1] = 0
            between[:, :, 0] = between[:, :, -1] = 0
            coarsen(fine, between, coarse, self.across[level], self.down[level])
        for stencil, (h, w, start) in zip(stencils, self.levels.tolist(), strict=True):
            smoother(stencil, self.inverse[start : start + h * w].reshape(h, w))

    def fill(self, image: Floats, removed: NDArray[np.bool_], filled: Floats, tolerance: float, most: int) -> float:
        """Solve for one channel (H, W) into `filled`; returns the estimated error relative to the channel's range."""
        # arithmetic with 0 and 1 in place of indexing, which is ten times slower where the mask is scattered
        unknown = self.unknown.reshape(self.shape)[1:-1, 1:-1]
        kept = 1 - unknown
        mean = np.float32((image * kept).sum(dtype=np.float64) / kept.sum(dtype=np.float64))
        known = self.known.reshape(self.shape)
        known[1:-1, 1:-1] = (image - mean) * kept
        span = float(np.abs(known).max())
        size = known.size
        right = self.r[:size].reshape(self.shape)
        self.work[:size] = 0
        residual(self.full, known, self.work[:size].reshape(self.shape), right)
        right *= self.unknown.reshape(self.shape)
        error = conjugate_gradients(
            self.levels,
            self.stencils,
            self.inverse,
            self.z,
            self.r,
            self.work,
            self.across,
            self.down,
            self.row,
            self.unknown.reshape(self.shape),
            self.solution,
            self.direction,
            tolerance * span,
            most,
        )
        solution = self.solution.reshape(self.shape)[1:-1, 1:-1]
        filled[...] = image * kept + (solution + mean) * unknown
        return error / span if span else 0.0


def _interpolation(length: int, size: int) -> Floats:
    """Weights along an axis: a coarse pixel's on its right neighbour, and the next coarse pixel's on that one.

    Both are a half, but at an even axis's end, where one coarse pixel alone stands for the last fine one.
    """
    weights = np.zeros((2, size), np.float32)
    coarse = (length + 1) // 2
    weights[:, : coarse - 1] = 0.5
    weights[0, coarse - 1] = 1 - length % 2
    return weights


def fill_compiled(
    images: Floats, removed: NDArray[np.bool_], *, tolerance: float, most: int, threads: int
) -> tuple[Floats, float]:
    """Fill the removed pixels (M, H, W) of images (M, C, H, W); at least one pixel of each is known.

    Returns the filled images and the largest estimated error relative to a channel's range. Each system is solved by
    one thread, so that the number of threads doesn't change a bit of the result.
    """
    filled = np.empty_like(images)
    spaces: queue.SimpleQueue[_Workspace] = queue.SimpleQueue()
    count = min(threads, len(images))
    for _ in range(count):
        spaces.put(_Workspace(*removed.shape[1:]))

    def solve(row: int) -> list[float]:
        space = spaces.get()
        try:
            space.prepare(removed[row])
            channels = zip(images[row], filled[row], strict=True)
            return [space.fill(image, removed[row], target, tolerance, most) for image, target in channels]
        finally:
            spaces.put(space)

    if count == 1:
        return filled, float(np.max([solve(row) for row in range(len(images))]))  # np.max lets NaN through
    with ThreadPoolExecutor(count) as pool:
        return filled, float(np.max(list(pool.map(solve, range(len(images))))))
