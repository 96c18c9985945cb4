"""Rows of results and the units (patients, folds) they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pellucid.errors import expected

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """Which unit each of N rows belongs to; units are independent of each other, rows of one unit aren't."""

    codes: NDArray[np.intp] = field(repr=False)
    """(N,) position of each row's unit in `ids`."""
    ids: tuple[str, ...] = field(repr=False)
    """Id of each unit, "" where unknown; the unknown come first, in the order of their rows, then the rest sorted."""
    unit: str
    """What a unit is, in a word: "patient", "image", "fold"."""
    unknown: int
    """Rows without an id, each counted as a unit of its own, in a table where others have one."""

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.ids)

    @property
    def row_ids(self) -> NDArray[np.str_]:
        """(N,) id of each row's unit, "" where unknown."""
        return np.array(self.ids, dtype=str)[self.codes]

    def take(self, rows: NDArray[np.intp]) -> Units:
        """The units of some rows, in that order."""
        ids = self.row_ids[rows]
        if (ids == "").all():
            return units_of("image" if self.unit == "patient" else self.unit, len(rows))
        return replace(units_of(ids.tolist(), len(rows)), unit=self.unit)

    def order(self, *columns: ArrayLike) -> NDArray[np.intp]:
        """(N,) an order of the rows by id, then content, so that a result can't depend on the order they came in."""
        return np.lexsort((*(np.asarray(column) for column in columns), self.row_ids))

    @property
    def note(self) -> str:
        """What a reader must know about the units, or ""."""
        if not self.unknown:
            return ""
        return f"{self.unknown} of {len(self.codes)} rows have no {self.unit} id and count as a {self.unit} each."


UnitIds: TypeAlias = Sequence[str] | Sequence[int] | NDArray[np.generic] | Units
"""An id per row, or units that were found before."""


def units_of(units: UnitIds | str, n: int) -> Units:
    """Find the units of `n` rows.

    Args:
        units: an id per row (text or whole numbers; "" means unknown, and such a row is a unit of its own),
            a word for what each row is by itself ("image", "fold"), or units that were found before.
        n: number of rows.

    Returns:
        The units. Ids make the unit "patient"; where every id is unknown it is "image".

    Raises:
        InputError: when there isn't one id per row, or an id is neither text nor a whole number.

    >>> units_of(["b", "a", "b", ""], 4).codes.tolist(), units_of("fold", 5).count
    ([2, 1, 2, 0], 5)
    """
    if isinstance(units, str):
        return Units(np.arange(n), ("",) * n, units, 0)
    if isinstance(units, Units):
        if len(units.codes) != n:
            raise expected("units", f"one for each of {n} rows", f"units of {len(units.codes)} rows")
        return units
    ids = np.array([_id(value) for value in units], dtype=str)
    if ids.shape != (n,):
        raise expected("units", f"one id for each of {n} rows", f"{len(ids)} ids")
    known = ids != ""
    if not known.any():
        return Units(np.arange(n), ("",) * n, "image", 0)
    names, codes_of_known = np.unique(ids[known], return_inverse=True)
    unknown = int(n - known.sum())
    codes = np.empty(n, dtype=np.intp)
    codes[~known] = np.arange(unknown)
    codes[known] = unknown + codes_of_known
    return Units(codes, ("",) * unknown + tuple(names.tolist()), "patient", unknown)


def by_unit(values: ArrayLike, units: UnitIds | str) -> tuple[FloatArray, Units]:
    """Average values within each unit.

    Args:
        values: (N,) or (N, M) numbers; NaN means missing and is left out of its unit's mean.
        units: an id per row, or a word for what each row is (then nothing is averaged).

    Returns:
        The means, (U,) or (U, M), NaN where a unit has no value, and the units in the same order.

    Raises:
        InputError: for infinite values or ids that don't fit.

    >>> means, units = by_unit([1.0, 3.0, 5.0], ["b", "b", "a"])
    >>> means.tolist(), units.ids
    ([5.0, 2.0], ('a', 'b'))
    """
    table = numbers("values", values)
    found = units_of(units, len(table))
    flat = table if table.ndim == 2 else table.reshape(len(table), -1 if table.size else 1)
    present = np.isfinite(flat)
    shape = (found.count, flat.shape[1])
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, found.codes, np.where(present, flat, 0.0))
    np.add.at(counts, found.codes, present)
    means = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    return means.reshape((found.count, *table.shape[1:])), found


def numbers(argument: str, values: ArrayLike) -> FloatArray:
    """Values as float64 rows; NaN is allowed (missing), infinity is not.

    Raises:
        InputError: for a scalar, infinite values, or what isn't numbers.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise expected(argument, "numbers, NaN where missing", str(error)) from error
    if array.ndim == 0:
        raise expected(argument, "a number per row", "a single number")
    if np.isinf(array).any():
        raise expected(argument, "finite numbers, NaN where missing", "infinity")
    return array


def _id(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)):
        return str(value)
    raise expected("units", 'ids that are text or whole numbers, "" where unknown', repr(value))
