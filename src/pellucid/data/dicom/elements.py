"""Single elements of a data set, checked: what is damaged is named by tag and keyword, never by what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items

from pellucid.data.whole import DecodeError


def named(keyword: str) -> str:
    """An element's tag and keyword.

    >>> named("Rows")
    '(0028,0010) Rows'
    """
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword}"


def value(dataset: Dataset, keyword: str) -> Any:
    """An element's value; None where it is absent or empty. Raises DecodeError where it is damaged."""
    tag = tag_for_keyword(keyword) or 0
    if tag not in dataset:
        return None
    try:
        found = dataset[tag].value
    except Exception as error:  # pydicom converts late, and raises whatever a damaged value leads it to
        raise DecodeError(f"{named(keyword)} is damaged") from error
    return None if found is None or (not isinstance(found, (int, float)) and len(found) == 0) else found


def text(dataset: Dataset, keyword: str) -> str:
    """A code word or UID, the first where there are several; "" where absent. For no element that may hold a name."""
    found = value(dataset, keyword)
    if isinstance(found, (MultiValue, list, tuple)):
        found = found[0]
    return "" if found is None else str(found).strip().strip("\0")


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """All code words of an element."""
    found = value(dataset, keyword)
    if found is None:
        return ()
    many = found if isinstance(found, (MultiValue, list, tuple)) else [found]
    return tuple(str(each).strip() for each in many)


def numbers(dataset: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """The finite numbers of an element, None where absent. Raises DecodeError for others, and for another count."""
    found = value(dataset, keyword)
    if found is None:
        return None
    many = found if isinstance(found, (MultiValue, list, tuple)) else [found]
    try:
        real = tuple(float(each) for each in many)
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"{named(keyword)} isn't a number") from error
    if not all(math.isfinite(each) for each in real) or (count is not None and len(real) != count):
        expected = "finite numbers" if count is None else f"{count} finite number{'s'[: count != 1]}"
        raise DecodeError(f"{named(keyword)} should hold {expected}, and doesn't")
    return real


def number(dataset: Dataset, keyword: str, default: float | None = None) -> float | None:
    """The first number of an element."""
    found = numbers(dataset, keyword)
    return default if found is None else found[0]


def whole(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number; `default` where it is absent. Raises DecodeError where there is none."""
    found = number(dataset, keyword)
    if found is None:
        if default is None:
            raise DecodeError(f"{named(keyword)} is missing")
        return default
    if found != int(found):
        raise DecodeError(f"{named(keyword)} should be a whole number, and is {found:g}")
    return int(found)


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence, none where it is absent."""
    found = value(dataset, keyword)
    if found is None:
        return ()
    if not isinstance(found, Items):
        raise DecodeError(f"{named(keyword)} is damaged")
    return found


def item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, None where there is none."""
    found = items(dataset, keyword)
    return found[0] if len(found) else None


def entries_of(data: object, bits: int, little: bool, keyword: str) -> np.ndarray:
    """Entries of a table of 8 or 16 bits, which pydicom gives as bytes or as numbers."""
    if isinstance(data, bytes):
        kind = np.dtype("u1" if bits == 8 else f"{'<' if little else '>'}u2")
        if bits == 8 and not little:  # in words of 16 bits
            data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
        return np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind).astype(np.int64)
    try:
        words = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"{named(keyword)} is damaged") from error
    return words if bits == 16 else words.astype("<u2").view(np.uint8).astype(np.int64)
