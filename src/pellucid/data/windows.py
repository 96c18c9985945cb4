"""From values to grey: the window of a file, one by name, or one by percentiles (PS3.3, C.11.2)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pellucid.errors import expected

PRESETS = {
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "mediastinum": (50.0, 350.0),
    "liver": (60.0, 150.0),
}
"""Centre and width in HU."""
PERCENTILES = (0.5, 99.5)

RANGES = ("dtype", "image")
"""Choices of `intensity` that are none of a window: the range of the stored type, and of the image's own values."""

_NUMBER = r"[0-9]+(?:\.[0-9]*)?"
_CUSTOM = re.compile(rf"(-?{_NUMBER})/({_NUMBER})")
_OWN = re.compile(r"file(?:-([1-9][0-9]?))?")
_ENOUGH = 2**20


@dataclass(frozen=True, eq=False)
class Window:
    """Which values become black and white, and how it is called.

    `centre` and `width` in the units of the pixels. `function` is that of PS3.3, C.11.2.1.2 and C.11.2.1.3; with a
    `table` (N,) of grey values in [0, 1], the value `first` takes its first entry, and so on (C.11.2.1.1).
    """

    centre: float
    width: float
    name: str
    function: Literal["linear", "linear-exact", "sigmoid"] = "linear"
    table: np.ndarray | None = None
    first: float = 0.0

    def text(self) -> str:
        """What stands beside a picture, such as "lung window, -600/1500"."""
        if self.table is not None:
            return f"{self.name} window, a table of {len(self.table)} greys"
        # finer than a thousandth of the width nothing is seen
        digits = 3 - math.floor(math.log10(self.width)) if self.width > 0 else 3
        centre, width = (round(each, digits) + 0.0 for each in (self.centre, self.width))
        return f"{self.name} window, {centre:g}/{width:g}"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values as grey in [0, 1], float32."""
        if self.table is not None:
            places = np.clip(np.rint(values - self.first), 0, len(self.table) - 1).astype(np.int64)
            return self.table[places].astype(np.float32)
        wide = values.dtype.itemsize > (4 if values.dtype.kind == "f" else 2)
        grey: np.ndarray = values.astype(np.float64 if wide else np.float32)
        if self.function == "linear":  # from centre - 0.5 - (width - 1) / 2 to centre - 0.5 + (width - 1) / 2
            if self.width <= 1:
                return (grey > self.centre - 0.5).astype(np.float32)
            grey -= self.centre - 0.5
            grey /= self.width - 1
        else:
            grey -= self.centre
            grey /= self.width
        if self.function == "sigmoid":
            grey *= 2
            np.tanh(grey, out=grey)  # 1 / (1 + exp(-4 x)) = (1 + tanh(2 x)) / 2, which can't overflow
            grey /= 2
        grey += 0.5
        return grey.clip(0, 1, out=grey).astype(np.float32, copy=False)


def is_window(choice: str) -> bool:
    """Whether a choice of `intensity` names a window rather than a range.

    >>> [is_window(each) for each in ("lung", "percentile", "file-2", "40/400", "dtype")]
    [True, True, True, True, False]
    """
    return choice in PRESETS or choice == "percentile" or any(form.fullmatch(choice) for form in (_OWN, _CUSTOM))


def check_intensity(choice: str) -> str:
    """A choice of `intensity` as it is: "dtype", "image" or a window. Raises InputError for anything else."""
    custom = _CUSTOM.fullmatch(choice)
    if choice in RANGES or (is_window(choice) and (custom is None or float(custom[2]) > 0)):
        return choice
    known = ", ".join(repr(name) for name in (*RANGES, "file", "percentile", *PRESETS))
    raise expected("intensity", f"{known} or CENTRE/WIDTH such as 40/400", repr(choice))


def pick_window(choice: str, values: np.ndarray, own: Window | Sequence[Window] | None) -> Window:
    """The window that `choice` names.

    "file" is the first of the file's `own`, "file-2" its second and so on; "percentile" spans PERCENTILES of the
    values; a preset and CENTRE/WIDTH speak for themselves. Raises InputError for anything else, or where the file
    doesn't state that window.
    """
    if stated := _OWN.fullmatch(choice):
        windows = [own] if isinstance(own, Window) else list(own or ())
        number = int(stated[1] or 1)
        if number > len(windows):
            there = {0: "one that states none", 1: "one that states one"}.get(len(windows), f"one of {len(windows)}")
            wanted = "a file that states its window" if number == 1 else f"a file that states {number} windows"
            raise expected("window", wanted, there, do="Use 'percentile'." if not windows else "")
        return windows[number - 1]
    if choice in PRESETS:
        return Window(*PRESETS[choice], choice)
    if choice == "percentile":
        low, high = _percentiles(values)
        return Window((low + high) / 2, max(high - low, 1e-12), "percentile", "linear-exact")
    custom = _CUSTOM.fullmatch(choice)
    if custom is None or float(custom[2]) <= 0:
        known = ", ".join(repr(name) for name in ("file", "percentile", *PRESETS))
        raise expected("window", f"{known} or CENTRE/WIDTH such as 40/400", repr(choice))
    return Window(float(custom[1]), float(custom[2]), "given")


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """The PERCENTILES of values, of every n-th where there are many; the whole range where those are one."""
    step = max(1, values.size // _ENOUGH)
    while step > 1 and math.gcd(step, values.size) > 1:  # else every n-th may always lie in the same columns
        step += 1
    low, high = np.percentile(values.reshape(-1)[::step].astype(np.float64), PERCENTILES)
    if high > low:
        return float(low), float(high)
    return float(values.min()), float(values.max())
