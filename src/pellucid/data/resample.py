"""Volumes in one frame: axes that run the same way, steps of the same length, and maps brought back from there.

A network's grid lies along the stored axes, in another order and other directions if need be, and never across them: an
oblique volume stays oblique. So each axis is read off by itself, and what was done is undone exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import sparse

from pellucid.data.images import MedicalImage
from pellucid.errors import expected

Lengths = tuple[int, int, int]
Steps = tuple[float, float, float]

_SIDES = ("RL", "AP", "SI")
_EDGE = 1e-6  # of a voxel: what rounding moves a place that lies on the border
_DRIFT = 0.05  # of a voxel over the whole field, below which two steps are the same
_DECIMALS = 5  # of mm in a step, since files keep affines in float32

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Frame:
    """How volumes are laid before a network.

    `orientation` says which way its three axes run, by the letters of the patient's sides: "RAS" runs to the right, to
    the front (anterior) and to the head (superior), "SPL" to the head, the back and the left, as DICOM slices are
    stored. The stored axes nearest to them are taken. None leaves the axes as they are stored.

    `spacing` is the step along each of these axes in mm; the grid is then laid around the middle of the volume, and
    what isn't covered is cut off, what isn't there is filled up. None fits the whole volume into the grid.

    Raises InputError for letters that don't name each pair of sides once, or steps that aren't above 0.

    >>> Frame("RAS", (1.0, 1.0, 2.0)).plain, Frame().plain
    (False, True)
    """

    orientation: str | None = None
    spacing: Steps | None = None

    def __post_init__(self) -> None:
        if self.orientation is not None:
            check_orientation(self.orientation)
        if self.spacing is not None and not all(step > 0 and math.isfinite(step) for step in self.spacing):
            raise expected("spacing", "three steps above 0, in mm", self.spacing)

    @property
    def plain(self) -> bool:
        """Whether axes stay as they are stored and the grid takes the whole volume."""
        return self.orientation is None and self.spacing is None

    def text(self) -> str:
        """What was done, such as "steps of 1 × 1 × 2 mm, axes RAS"."""
        parts = []
        if self.spacing is not None:
            parts.append(f"steps of {' × '.join(f'{step:g}' for step in self.spacing)} mm")
        if self.orientation is not None:
            parts.append(f"axes {self.orientation}")
        return ", ".join(parts)


def check_orientation(letters: str) -> str:
    """The letters themselves; raises InputError where they don't name one side of each pair.

    >>> check_orientation("LPS")
    'LPS'
    """
    if len(letters) != 3 or any(len(set(pair) & set(letters)) != 1 for pair in _SIDES):
        wanted = "three letters, one each of R and L, A and P, S and I, such as 'RAS' or 'SPL'"
        raise expected("orientation", wanted, repr(letters))
    return letters


def codes_of(affine: npt.NDArray[np.floating]) -> str:
    """The sides to which stored axes run nearest, such as "LPS".

    >>> codes_of(np.diag([-1.0, -1.0, 2.0, 1.0]))
    'LPS'
    """
    return "".join(nibabel.aff2axcodes(affine))


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels that a network sees lie in a volume.

    Along each of the network's axes: `axes` the stored axis, `flips` whether it runs the other way, `scale` how many
    stored voxels one step is, `offset` where the first voxel lies, in stored voxels from the end where the axis begins.

    `shape` is the volume's, `size` the network's. `affine` (4, 4) takes the network's (d, h, w) to mm to the right, the
    front and the head, and `spacing` are its steps; both None where the volume doesn't say where it lies.
    """

    shape: Lengths
    size: Lengths
    axes: Lengths
    flips: tuple[bool, bool, bool]
    scale: Steps
    offset: Steps
    affine: npt.NDArray[np.float64] | None
    spacing: Steps | None

    @property
    def whole(self) -> bool:
        """Whether the grid is the whole volume along the stored axes."""
        covers = (
            math.isclose(size * scale, self.shape[axis], rel_tol=1e-9)
            for size, scale, axis in zip(self.size, self.scale, self.axes, strict=True)
        )
        return self.axes == (0, 1, 2) and not any(self.flips) and all(covers)

    def turn(self, values: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Values (…, *shape) with their axes in the network's order and directions, every voxel kept."""
        leading = values.ndim - 3
        turned = values.transpose(*range(leading), *(leading + axis for axis in self.axes))
        found: npt.NDArray[_T] = turned[self._ways()]
        return found

    def turned(self, voxel: Sequence[int]) -> Lengths:
        """Where `turn` brings a stored voxel."""
        places = (
            self.shape[axis] - 1 - voxel[axis] if flip else voxel[axis]
            for axis, flip in zip(self.axes, self.flips, strict=True)
        )
        return _three(tuple(places))

    def bring(self, values: npt.NDArray[np.floating], fill: float = 0.0) -> npt.NDArray[np.float32]:
        """Values (…, *shape) of the volume at the network's voxels (…, *size).

        Linear between voxels, with a wider triangle where steps are longer, so that nothing is skipped; voxels outside
        of the volume are `fill`.
        """
        leading, turned = values.ndim - 3, self.turn(values)
        own = [self.shape[axis] for axis in self.axes]
        kernels = [_kernel(*each) for each in zip(self.size, own, self.scale, self.offset, strict=True)]
        brought = _separable(turned, kernels)
        if fill:
            for axis, kernel in enumerate(kernels):
                outside = np.diff(kernel.indptr) == 0
                np.moveaxis(brought, leading + axis, 0)[outside] = fill
        return brought

    def back(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Values (…, *grid) that cover what the network sees, at the volume's voxels (…, *shape).

        `grid` may be the network's own or a coarser one, as that of a layer; linear between its cells. What the network
        doesn't see is 0: nothing there moves its answer.
        """
        leading = values.ndim - 3
        laid = _separable(values, self._kernels_back(values.shape[leading:]))
        laid = laid[self._ways()]
        order = [self.axes.index(axis) for axis in range(3)]
        return np.ascontiguousarray(laid.transpose(*range(leading), *(leading + axis for axis in order)))

    def undo(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Values (…, *size) on the network's grid that `back` lays as these (…, *shape), as nearly as may be.

        Exact where the volume's voxels are at least as fine as the network's; by least squares along each axis. Along
        one where they are coarser, values are read off between the nearest voxels.
        """
        kernels = []
        turned = self.turn(values)
        for along, kernel in enumerate(self._kernels_back(self.size)):
            laid = kernel.toarray().astype(np.float64)
            met = np.abs(laid).sum(axis=0) > 0
            if np.linalg.matrix_rank(laid) == met.sum():
                kernels.append(sparse.csr_array(np.linalg.pinv(laid).astype(np.float32)))
            else:
                own = self.shape[self.axes[along]]
                kernels.append(_kernel(self.size[along], own, self.scale[along], self.offset[along]))
        return _separable(turned, kernels)

    def _kernels_back(self, grid: Sequence[int]) -> list[sparse.csr_array]:
        """By which values on a grid that covers what the network sees are laid along each of its axes."""
        kernels = []
        for along, cells in enumerate(grid):
            ratio = cells / self.size[along]
            first = (0.5 - self.offset[along] / self.scale[along]) * ratio - 0.5
            kernels.append(_kernel(self.shape[self.axes[along]], cells, ratio / self.scale[along], first))
        return kernels

    def _ways(self) -> Any:
        """An index that turns the last three axes round where they run the other way."""
        return (..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))

    def seen(self) -> list[list[int]]:
        """The first stored voxel along each stored axis that the network sees, and one past the last."""
        found = [[0, 0]] * 3
        for along, axis in enumerate(self.axes):
            low = self.offset[along] - self.scale[along] / 2
            high = low + self.size[along] * self.scale[along]
            first, past = max(0, math.ceil(low - _EDGE)), min(self.shape[axis], math.floor(high + _EDGE) + 1)
            found[axis] = [self.shape[axis] - past, self.shape[axis] - first] if self.flips[along] else [first, past]
        return found


def grid_of(
    shape: Sequence[int], affine: npt.NDArray[np.floating] | None, size: Sequence[int], frame: Frame = Frame()
) -> Grid:
    """Where a network's grid lies in a volume.

    Arguments:
        shape: the volume's lengths, in voxels.
        affine: (4, 4) from its voxels to mm to the right, the front and the head; None where that isn't known.
        size: the network's lengths.
        frame: how volumes are laid before it.

    Raises InputError where a frame is asked for and the volume doesn't say where it lies.

    >>> grid = grid_of((8, 8, 8), np.diag([1.0, 1.0, 2.0, 1.0]), (4, 4, 4), Frame("SAR"))
    >>> grid.axes, grid.spacing
    ((2, 1, 0), (4.0, 2.0, 2.0))
    """
    own, wanted = _three(shape), _three(size)
    if affine is None:
        if not frame.plain:
            raise expected("image", "a volume that says where it lies, for its orientation and spacing", "one without")
        axes, flips, steps = (0, 1, 2), (False, False, False), None
    else:
        axes, flips = _turn(affine, frame.orientation)
        lengths = np.sqrt((np.asarray(affine, np.float64)[:3, :3] ** 2).sum(axis=0)).round(_DECIMALS)
        steps = [float(lengths[axis]) for axis in axes]
    scale, offset = [], []
    for along, axis in enumerate(axes):
        if frame.spacing is None or steps is None:
            each = own[axis] / wanted[along]
        else:
            each = frame.spacing[along] / max(steps[along], 10**-_DECIMALS)
            each = 1.0 if abs(each - 1) * wanted[along] < _DRIFT else each
        first = (own[axis] - 1) / 2 - (wanted[along] - 1) / 2 * each
        scale.append(each)
        offset.append(float(math.floor(first)) if each == 1 else first)  # whole voxels stay as they are
    moved = None if affine is None else _moved(affine, own, axes, flips, scale, offset)
    spacing = None if steps is None else _steps([step * each for step, each in zip(steps, scale, strict=True)])
    return Grid(own, wanted, axes, flips, _steps(scale), _steps(offset), moved, spacing)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the stored pixels of an image lie: its lengths, spacing and affine, as `MedicalImage` has them.

    `scaling` says by which window or range its values became grey, "" where that isn't known.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    affine: npt.NDArray[np.floating] | None
    scaling: str = ""

    @classmethod
    def of(cls, image: MedicalImage, scaling: str = "") -> Geometry:
        """That of an image that was read."""
        return cls(image.pixels.shape[1:], image.spacing, image.affine, scaling)

    def steps(self, size: Sequence[int], frame: Frame = Frame()) -> tuple[float, ...] | None:
        """The mm between pixels at a network's size and in its frame; None where the image doesn't say."""
        if len(self.shape) == 3 and self.affine is not None:
            return grid_of(self.shape, self.affine, size, frame).spacing
        if self.spacing is None:
            return None
        return tuple(step * own / wanted for step, own, wanted in zip(self.spacing, self.shape, size, strict=True))


def _turn(affine: npt.NDArray[np.floating], letters: str | None) -> tuple[Lengths, tuple[bool, bool, bool]]:
    """The stored axis nearest to each of the sides, and whether it runs the other way."""
    if letters is None:
        return (0, 1, 2), (False, False, False)
    stored = nibabel.io_orientation(affine)
    if np.isnan(stored).any():
        raise expected("image", "a volume whose three axes run different ways", "one whose axes don't")
    wanted = nibabel.orientations.axcodes2ornt(letters)
    places = [stored[:, 0].tolist().index(side) for side in wanted[:, 0]]
    flips = [bool(stored[place, 1] != way) for place, way in zip(places, wanted[:, 1], strict=True)]
    return _three(places), (flips[0], flips[1], flips[2])


def _moved(
    affine: npt.NDArray[np.floating],
    shape: Lengths,
    axes: Lengths,
    flips: Sequence[bool],
    scale: Sequence[float],
    offset: Sequence[float],
) -> npt.NDArray[np.float64]:
    """The affine of the network's grid."""
    into = np.zeros((4, 4))  # from the network's voxels to the stored ones
    into[3, 3] = 1
    for along, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        into[axis, along] = -scale[along] if flip else scale[along]
        into[axis, 3] = shape[axis] - 1 - offset[along] if flip else offset[along]
    return np.asarray(affine, np.float64) @ into


def _kernel(count: int, cells: int, step: float, first: float) -> sparse.csr_array:
    """Weights (count, cells) by which places at `first`, `first + step`, … are read off between cells.

    A triangle of half-width 1, or of `step` where that is longer, normalised over the cells that there are; a place
    outside of all cells has none.
    """
    places = first + step * np.arange(count)
    reach = max(1.0, step)
    taps = np.ceil(places - reach)[:, None] + np.arange(2 * math.ceil(reach) + 1)
    weights = np.maximum(1 - np.abs(taps - places[:, None]) / reach, 0)
    weights[(taps < 0) | (taps >= cells)] = 0
    weights[(places < -0.5 - _EDGE) | (places > cells - 0.5 + _EDGE)] = 0
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    rows, columns = np.nonzero(weights)
    entries = (weights[rows, columns].astype(np.float32), (rows, taps[rows, columns].astype(np.int64)))
    return sparse.csr_array(entries, shape=(count, cells))


def _separable(values: npt.NDArray[np.floating], kernels: Sequence[sparse.csr_array]) -> npt.NDArray[np.float32]:
    """Values (…, *cells) read off along each of their last axes in turn, that which loses most first."""
    found = np.asarray(values, np.float32)
    leading = found.ndim - len(kernels)
    for along in sorted(range(len(kernels)), key=lambda each: kernels[each].shape[0] / kernels[each].shape[1]):
        kernel = kernels[along]
        first = np.moveaxis(found, leading + along, 0)
        rows = kernel @ np.ascontiguousarray(first).reshape(len(first), -1)  # one thread, one order of sums
        found = np.moveaxis(rows.reshape(kernel.shape[0], *first.shape[1:]), 0, leading + along)
    return np.ascontiguousarray(found)


def _three(values: Sequence[int]) -> Lengths:
    first, second, third = values
    return int(first), int(second), int(third)


def _steps(values: Sequence[float]) -> Steps:
    first, second, third = values
    return float(first), float(second), float(third)
