"""ROAD's linear systems in any number of dimensions and on any device, batched in PyTorch.

The same method as the compiled one: conjugate gradients, preconditioned by a V-cycle of Galerkin-coarsened levels with
linear interpolation at every second pixel, so that each level keeps a stencil of 3 pixels per axis. A level's stencil
is a tensor `(3, …, 3, M, 1, *S)`: the coupling of each pixel to its neighbour at each offset.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

# Jacobi smoothing converges when the divisor exceeds half a row's absolute sum
_SAFE = 0.53
# stencils held at once, so that a volume's systems are solved a few at a time
_STENCIL_BYTES = 1 << 30


def neighbour_weights(axes: int) -> tuple[int, ...]:
    """Weights by the number of axes along which a neighbour lies off: inverse squared distance, as whole numbers.

    A row is divided by its own sum, so only the ratios count; whole numbers make that sum exact.

    >>> neighbour_weights(2), neighbour_weights(3)  # of 12 and of 88
    ((2, 1), (6, 3, 2))
    """
    common = math.lcm(*range(1, axes + 1))
    return tuple(common // squared for squared in range(1, axes + 1))


def fill_batched(images: Tensor, removed: Tensor, *, tolerance: float, most: int) -> tuple[Tensor, float]:
    """Fill the removed pixels (M, *S) of images (M, C, *S); at least one pixel of each is known.

    Returns the filled images and the largest estimated error relative to a channel's range.
    """
    axes = images.ndim - 2
    per_system = 3 * 3**axes * removed[0].numel() * images.element_size()  # two halves more while coarsening
    rows = max(1, _STENCIL_BYTES // per_system)
    parts = [
        _fill(images[start : start + rows], removed[start : start + rows], tolerance, most)
        for start in range(0, len(images), rows)
    ]
    return torch.cat([filled for filled, _ in parts]), float(torch.tensor([error for _, error in parts]).max())


def _fill(images: Tensor, removed: Tensor, tolerance: float, most: int) -> tuple[Tensor, float]:
    axes = images.ndim - 2
    spatial = tuple(range(2, images.ndim))
    unknown = removed.unsqueeze(1).to(images.dtype)
    kept = 1 - unknown
    mean = ((images * kept).sum(spatial, keepdim=True, dtype=torch.float64) / kept.sum(spatial, keepdim=True)).to(
        images
    )
    known = (images - mean) * kept
    span = known.abs().amax(spatial, keepdim=True)
    full = _couplings(torch.ones_like(unknown[:1]), axes)
    solver = _Multigrid(full, unknown, axes)
    right = -_times(full, known, axes) * unknown
    solution, error = _conjugate_gradients(solver, right, unknown, tolerance * span, most)
    filled = images * kept + (solution + mean) * unknown
    relative = torch.where(span == 0, 0, error / span)
    return filled, float(relative.max())


def _conjugate_gradients(
    solver: _Multigrid, residual: Tensor, unknown: Tensor, tolerance: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Solve from zero; the preconditioned residual is the error to within a factor of about two."""
    spatial = tuple(range(2, residual.ndim))
    solution, direction = torch.zeros_like(residual), torch.zeros_like(residual)
    previous = torch.ones_like(tolerance)
    for iteration in range(most + 1):
        correction = solver.cycle(residual) * unknown
        error = correction.abs().amax(spatial, keepdim=True)
        running = error > tolerance
        if iteration == most or not bool(running.any()):
            break
        slope = (residual * correction).sum(spatial, keepdim=True)
        # a channel that is done stands still, so that no 0 / 0 arises while others go on
        turn = torch.where(running, slope / previous, 0)
        previous = torch.where(slope == 0, 1, slope)
        direction = correction + turn * direction if iteration else correction
        change = solver.apply(direction)
        curvature = (direction * change).sum(spatial, keepdim=True)
        step = torch.where(running & (curvature > 0), slope / curvature, 0)
        solution = solution + step * direction
        residual = residual - step * change
    return solution + correction, error


class _Multigrid:
    """The levels of a batch of systems whose unknowns are the pixels marked 1 in `unknown` (M, 1, *S)."""

    def __init__(self, full: Tensor, unknown: Tensor, axes: int) -> None:
        self.axes, self.unknown = axes, unknown
        stencil = _couplings(unknown, axes)
        centre = (1,) * axes
        stencil[centre] = full[centre] * unknown
        self.stencils = [stencil]
        while max(stencil.shape[-axes:]) > 1:
            for axis in range(axes):
                stencil = _coarsen(stencil, axis, axes)
            self.stencils.append(stencil)
        self.inverses = [_smoother(stencil, axes) for stencil in self.stencils]

    def apply(self, x: Tensor) -> Tensor:
        """A x on the finest level."""
        return _times(self.stencils[0], x, self.axes)

    def cycle(self, residual: Tensor) -> Tensor:
        """One V-cycle with a Jacobi sweep before and after: about A⁻¹ times the residual."""
        return self._cycle(0, residual)

    def _cycle(self, level: int, residual: Tensor) -> Tensor:
        stencil, inverse = self.stencils[level], self.inverses[level]
        x = inverse * residual
        if level == len(self.stencils) - 1:
            return x
        rest = residual - _times(stencil, x, self.axes)
        for axis in range(-self.axes, 0):
            rest = _restrict(rest, axis)
        coarse = self._cycle(level + 1, rest)
        for axis in range(-self.axes, 0):
            coarse = _prolong(coarse, axis, x.shape[axis])
        x = x + coarse
        return x + inverse * (residual - _times(stencil, x, self.axes))


def _offsets(axes: int) -> Iterator[tuple[int, ...]]:
    return itertools.product((0, 1, 2), repeat=axes)


def _shifted(padded: Tensor, offset: tuple[int, ...]) -> Tensor:
    """The neighbour at an offset (0, 1 or 2 per axis, 1 is none) of each pixel inside a border of one."""
    for axis, start in zip(range(-len(offset), 0), offset, strict=True):
        padded = padded.narrow(axis, start, padded.shape[axis] - 2)
    return padded


def _bordered(x: Tensor, axes: int) -> Tensor:
    return pad(x, (1, 1) * axes)


def _couplings(unknown: Tensor, axes: int) -> Tensor:
    """Minus the weight between neighbours that are both unknown, and at the centre the sum of the weights."""
    weights = neighbour_weights(axes)
    bordered = _bordered(unknown, axes)
    stencil = unknown.new_zeros(*(3,) * axes, *unknown.shape)
    for offset in _offsets(axes):
        squared = sum(step != 1 for step in offset)
        if squared:
            torch.mul(unknown, _shifted(bordered, offset), out=stencil[offset]).mul_(-weights[squared - 1])
    stencil[(1,) * axes] = -stencil.flatten(0, axes - 1).sum(0)
    return stencil


def _times(stencil: Tensor, x: Tensor, axes: int) -> Tensor:
    """A x: the sum over offsets of coupling times neighbour."""
    bordered = _bordered(x, axes)
    result = stencil[(1,) * axes] * x
    for offset in _offsets(axes):
        if offset != (1,) * axes:
            result.addcmul_(stencil[offset], _shifted(bordered, offset))
    return result


def _smoother(stencil: Tensor, axes: int) -> Tensor:
    """Inverse of the smoothing divisor, 0 where a pixel is no unknown."""
    here = stencil[(1,) * axes]
    row = torch.zeros_like(here)
    for offset in _offsets(axes):
        row += stencil[offset].abs()
    return torch.where(here > 0, 1 / torch.maximum(here, _SAFE * row), 0)


def _interpolation(length: int, like: Tensor, behind: int) -> dict[int, Tensor]:
    """Weights of a coarse pixel on the fine one before, at and after it, shaped for an axis with `behind` axes after.

    A half on either side, but all of an even axis's last fine pixel, which has one coarse neighbour only.
    """
    coarse = (length + 1) // 2
    before, after = like.new_full((2, coarse), 0.5)
    before[0] = 0
    after[-1] = 1 - length % 2
    shape = (coarse,) + (1,) * behind
    return {-1: before.view(shape), 0: like.new_ones(shape), 1: after.view(shape)}


def _every_second(x: Tensor, axis: int, start: int, count: int) -> Tensor:
    return x.narrow(axis, start, 2 * count - 1)[(..., slice(None, None, 2)) + (slice(None),) * (-1 - axis)]


def _coarsen(stencil: Tensor, axis: int, axes: int) -> Tensor:
    """Galerkin product Pᵀ A P along one axis."""
    place = axis - axes  # of the spatial axis, counted from the end
    length = stencil.shape[place]
    weights = _interpolation(length, stencil, -1 - place)
    coarse = (length + 1) // 2
    bordered = pad(stencil, (0, 0) * (-1 - place) + (1, 2 * coarse + 1 - length))
    shape = list(stencil.shape)
    shape[place] = coarse
    result = stencil.new_zeros(shape)
    for to in (-1, 0, 1):
        for mine, theirs in itertools.product((-1, 0, 1), repeat=2):
            offset = 2 * to + theirs - mine
            if abs(offset) > 1:
                continue
            reach = pad(weights[theirs], (0, 0) * (-1 - place) + (1, 1)).narrow(0, 1 + to, coarse)
            source = _every_second(bordered.select(axis, offset + 1), place, 1 + mine, coarse)
            result.select(axis, to + 1).addcmul_(source, weights[mine] * reach)
    return result


def _restrict(x: Tensor, axis: int) -> Tensor:
    """Pᵀ x along one axis."""
    length = x.shape[axis]
    coarse = (length + 1) // 2
    weights = _interpolation(length, x, -1 - axis)
    bordered = pad(x, (0, 0) * (-1 - axis) + (1, 2 * coarse + 1 - length))
    result = _every_second(bordered, axis, 1, coarse).clone()
    for side in (-1, 1):
        result.addcmul_(_every_second(bordered, axis, 1 + side, coarse), weights[side])
    return result


def _prolong(x: Tensor, axis: int, length: int) -> Tensor:
    """P x along one axis."""
    coarse = x.shape[axis]
    weights = _interpolation(length, x, -1 - axis)
    following = pad(x, (0, 0) * (-1 - axis) + (0, 1)).narrow(axis, 1, coarse)
    between = weights[1] * x + 0.5 * following
    place = x.ndim + axis
    return torch.stack([x, between], dim=place + 1).flatten(place, place + 1).narrow(place, 0, length)
