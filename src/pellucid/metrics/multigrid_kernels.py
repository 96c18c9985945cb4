"""Compiled loops of the multigrid-preconditioned conjugate gradients for 2-D images.

A level's stencil is 3 × 3 and symmetric, so half of it is stored, as five planes: the pixel itself and its couplings
to the right, down-left, down and down-right neighbours. Every plane carries a border of zeros, so that no loop looks
out for edges. `across` and `down` hold interpolation weights per axis: row 0 a coarse pixel's weight on the fine pixel
after it, row 1 the next coarse pixel's weight on that same pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Kernel = TypeVar("Kernel", bound=Callable[..., object])

_ZERO, _QUARTER, _HALF, _ONE, _TWO = (np.float32(value) for value in (0.0, 0.25, 0.5, 1.0, 2.0))
# Jacobi smoothing converges when the divisor exceeds half a row's absolute sum
_SAFE = np.float32(0.53)
HERE, RIGHT, DOWN_LEFT, DOWN, DOWN_RIGHT = range(5)


def _compiled(function: Kernel) -> Kernel:
    """Compile on first use without the interpreter's lock, and keep the machine code where a folder allows it."""
    try:
        return _jit(function, cache=True)
    except RuntimeError:  # neither the package's nor the user's cache folder can be written
        return _jit(function, cache=False)


def _jit(function: Kernel, *, cache: bool) -> Kernel:
    fast = {"contract", "reassoc", "nsz", "arcp"}
    return cast(Kernel, njit(function, cache=cache, nogil=True, error_model="numpy", fastmath=fast))


@_compiled
def coarsen(fine: Floats, between: Floats, coarse: Floats, across: Floats, down: Floats) -> None:
    """Galerkin product Pᵀ A P, one axis after the other; `between` is coarse across and fine down."""
    for i in range(1, fine.shape[1] - 1):
        for k in range(coarse.shape[2] - 2):
            j = 2 * k
            r, n = across[0, k], across[1, k]
            between[HERE, i, k + 1] = (
                fine[HERE, i, j + 1]
                + _QUARTER * fine[HERE, i, j]
                + r * r * fine[HERE, i, j + 2]
                + fine[RIGHT, i, j]
                + _TWO * r * fine[RIGHT, i, j + 1]
            )
            between[RIGHT, i, k + 1] = n * (
                fine[RIGHT, i, j + 1] + r * fine[HERE, i, j + 2] + _TWO * r * fine[RIGHT, i, j + 2]
            )
            between[DOWN, i, k + 1] = (
                fine[DOWN, i, j + 1]
                + _QUARTER * fine[DOWN, i, j]
                + r * r * fine[DOWN, i, j + 2]
                + _HALF * (fine[DOWN_RIGHT, i, j] + fine[DOWN_LEFT, i, j + 1])
                + r * (fine[DOWN_RIGHT, i, j + 1] + fine[DOWN_LEFT, i, j + 2])
            )
            between[DOWN_RIGHT, i, k + 1] = (
                n * (fine[DOWN_RIGHT, i, j + 1] + r * fine[DOWN, i, j + 2]) + r * fine[DOWN_RIGHT, i, j + 2]
            )
            between[DOWN_LEFT, i, k + 1] = _HALF * (
                fine[DOWN_LEFT, i, j] + fine[DOWN_LEFT, i, j + 1] + _HALF * fine[DOWN, i, j]
            )
    for k in range(coarse.shape[1] - 2):
        i = 2 * k
        r, n = down[0, k], down[1, k]
        for j in range(1, coarse.shape[2] - 1):
            coarse[HERE, k + 1, j] = (
                between[HERE, i + 1, j]
                + _QUARTER * between[HERE, i, j]
                + r * r * between[HERE, i + 2, j]
                + between[DOWN, i, j]
                + _TWO * r * between[DOWN, i + 1, j]
            )
            coarse[DOWN, k + 1, j] = n * (
                between[DOWN, i + 1, j] + r * between[HERE, i + 2, j] + _TWO * r * between[DOWN, i + 2, j]
            )
            coarse[RIGHT, k + 1, j] = (
                between[RIGHT, i + 1, j]
                + _QUARTER * between[RIGHT, i, j]
                + r * r * between[RIGHT, i + 2, j]
                + _HALF * (between[DOWN_RIGHT, i, j] + between[DOWN_LEFT, i, j + 1])
                + r * (between[DOWN_RIGHT, i + 1, j] + between[DOWN_LEFT, i + 1, j + 1])
            )
            coarse[DOWN_RIGHT, k + 1, j] = (
                n * (between[DOWN_RIGHT, i + 1, j] + r * between[RIGHT, i + 2, j]) + r * between[DOWN_RIGHT, i + 2, j]
            )
            coarse[DOWN_LEFT, k + 1, j] = (
                n * (between[DOWN_LEFT, i + 1, j] + r * between[RIGHT, i + 2, j - 1]) + r * between[DOWN_LEFT, i + 2, j]
            )


@_compiled
def smoother(stencil: Floats, inverse: Floats) -> None:
    """Inverse of the smoothing divisor, 0 where a pixel is no unknown."""
    for i in range(1, inverse.shape[0] - 1):
        for j in range(1, inverse.shape[1] - 1):
            here = stencil[HERE, i, j]
            row = (
                here
                + abs(stencil[RIGHT, i, j])
                + abs(stencil[RIGHT, i, j - 1])
                + abs(stencil[DOWN, i, j])
                + abs(stencil[DOWN, i - 1, j])
                + abs(stencil[DOWN_RIGHT, i, j])
                + abs(stencil[DOWN_RIGHT, i - 1, j - 1])
                + abs(stencil[DOWN_LEFT, i, j])
                + abs(stencil[DOWN_LEFT, i - 1, j + 1])
            )
            inverse[i, j] = _ONE / max(here, _SAFE * row) if here > _ZERO else _ZERO


@_compiled
def residual(stencil: Floats, x: Floats, target: Floats, result: Floats) -> None:
    """result = target - A x."""
    for i in range(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            result[i, j] = target[i, j] - (
                stencil[HERE, i, j] * x[i, j]
                + stencil[RIGHT, i, j] * x[i, j + 1]
                + stencil[RIGHT, i, j - 1] * x[i, j - 1]
                + stencil[DOWN, i, j] * x[i + 1, j]
                + stencil[DOWN, i - 1, j] * x[i - 1, j]
                + stencil[DOWN_RIGHT, i, j] * x[i + 1, j + 1]
                + stencil[DOWN_RIGHT, i - 1, j - 1] * x[i - 1, j - 1]
                + stencil[DOWN_LEFT, i, j] * x[i + 1, j - 1]
                + stencil[DOWN_LEFT, i - 1, j + 1] * x[i - 1, j + 1]
            )


@_compiled
def _restrict(fine: Floats, coarse: Floats, across: Floats, down: Floats, row: Floats) -> None:
    """coarse = Pᵀ fine."""
    for i in range(coarse.shape[0] - 2):
        for j in range(fine.shape[1]):
            row[j] = _HALF * fine[2 * i, j] + fine[2 * i + 1, j] + down[0, i] * fine[2 * i + 2, j]
        for j in range(coarse.shape[1] - 2):
            coarse[i + 1, j + 1] = _HALF * row[2 * j] + row[2 * j + 1] + across[0, j] * row[2 * j + 2]


@_compiled
def _prolong(coarse: Floats, fine: Floats, across: Floats, down: Floats, row: Floats) -> None:
    """fine += P coarse; what falls on the border is 0."""
    for i in range(coarse.shape[0] - 2):
        for j in range(coarse.shape[1] - 2):
            fine[2 * i + 1, 2 * j + 1] += coarse[i + 1, j + 1]
            fine[2 * i + 1, 2 * j + 2] += across[0, j] * coarse[i + 1, j + 1] + _HALF * coarse[i + 1, j + 2]
        for j in range(coarse.shape[1]):
            row[j] = down[0, i] * coarse[i + 1, j] + _HALF * coarse[i + 2, j]
        for j in range(coarse.shape[1] - 2):
            fine[2 * i + 2, 2 * j + 1] += row[j + 1]
            fine[2 * i + 2, 2 * j + 2] += across[0, j] * row[j + 1] + _HALF * row[j + 2]


@_compiled
def _scale(factor: Floats, values: Floats, result: Floats, keep: np.float32) -> None:
    """result = keep · result + factor · values; from 0 on, since only then no index is tested for being negative."""
    for k in range(len(result)):
        result[k] = keep * result[k] + factor[k] * values[k]


@_compiled
def _cycle(
    levels: NDArray[np.int64],
    stencils: Floats,
    inverse: Floats,
    x: Floats,
    r: Floats,
    work: Floats,
    across: Floats,
    down: Floats,
    row: Floats,
) -> None:
    """One V-cycle with a Jacobi sweep before and after: x becomes about A⁻¹ r on the finest level."""
    last = levels.shape[0] - 1
    for level in range(last + 1):
        h, w, start = levels[level, 0], levels[level, 1], levels[level, 2]
        end = start + h * w
        _scale(inverse[start:end], r[start:end], x[start:end], _ZERO)
        if level < last:
            residual(
                stencils[5 * start : 5 * end].reshape(5, h, w),
                x[start:end].reshape(h, w),
                r[start:end].reshape(h, w),
                work[start:end].reshape(h, w),
            )
            h2, w2 = levels[level + 1, 0], levels[level + 1, 1]
            below = r[end : end + h2 * w2].reshape(h2, w2)
            _restrict(work[start:end].reshape(h, w), below, across[level], down[level], row)
    for level in range(last - 1, -1, -1):
        h, w, start = levels[level, 0], levels[level, 1], levels[level, 2]
        end = start + h * w
        h2, w2 = levels[level + 1, 0], levels[level + 1, 1]
        below = x[end : end + h2 * w2].reshape(h2, w2)
        _prolong(below, x[start:end].reshape(h, w), across[level], down[level], row)
        residual(
            stencils[5 * start : 5 * end].reshape(5, h, w),
            x[start:end].reshape(h, w),
            r[start:end].reshape(h, w),
            work[start:end].reshape(h, w),
        )
        _scale(inverse[start:end], work[start:end], x[start:end], _ONE)


@_compiled
def _product(a: Floats, b: Floats) -> float:
    """Inner product, summed in float64."""
    total = 0.0
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@_compiled
def _largest(values: Floats, unknown: Floats, row: Floats) -> np.float32:
    """Largest absolute value among the unknowns; a maximum per column first, since that runs in parallel lanes."""
    for j in range(values.shape[1]):
        row[j] = _ZERO
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            row[j] = max(row[j], abs(values[i, j]) * unknown[i, j])
    largest = _ZERO
    for j in range(values.shape[1]):
        largest = max(largest, row[j])
    return largest


@_compiled
def conjugate_gradients(
    levels: NDArray[np.int64],
    stencils: Floats,
    inverse: Floats,
    z: Floats,
    r: Floats,
    work: Floats,
    across: Floats,
    down: Floats,
    row: Floats,
    unknown: Floats,
    solution: Floats,
    direction: Floats,
    tolerance: float,
    most: int,
) -> float:
    """Solve for the right-hand side r from zero; returns the estimate of the largest error that is left.

    z, what the preconditioner makes of the residual, is the error to within a factor of about two, so its largest
    value says when to stop.
    """
    h, w = levels[0, 0], levels[0, 1]
    n = h * w
    finest = stencils[: 5 * n].reshape(5, h, w)
    for k in range(n):
        solution[k] = _ZERO
        direction[k] = _ZERO
    previous = 0.0
    error = _ZERO
    for iteration in range(most + 1):
        _cycle(levels, stencils, inverse, z, r, work, across, down, row)
        error = _largest(z[:n].reshape(h, w), unknown, row)
        if error <= tolerance or iteration == most:
            break
        slope = _product(r[:n], z[:n])
        turn = _ZERO if iteration == 0 else np.float32(slope / previous)
        previous = slope
        for k in range(n):
            direction[k] = z[k] + turn * direction[k]
            work[k] = _ZERO
        change = work[:n].reshape(h, w)
        residual(finest, direction.reshape(h, w), change, change)  # minus A times the direction
        step = np.float32(-slope / _product(direction, work[:n]))
        for k in range(n):
            solution[k] += step * direction[k]
            r[k] += step * work[k]
    for k in range(n):
        solution[k] += z[k]
    return float(error)
