"""From values to grey: the window of a file, one by name, or one by percentiles (PS3.3, C.11.2)."""

from __future__ import annotations

import re
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

_CUSTOM = re.compile(r"(-?[0-9.]+)/([0-9.]+)")


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
        return f"{self.name} window, {self.centre:g}/{self.width:g}"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values as grey in [0, 1], float32."""
        if self.table is not None:
            places = np.clip(np.rint(values - self.first), 0, len(self.table) - 1).astype(np.int64)
            return self.table[places].astype(np.float32)
        shifted = values.astype(np.float32) - np.float32(self.centre)
        if self.function == "sigmoid":
            grey: np.ndarray = 1 / (1 + np.exp(-4 * shifted / self.width))
        elif self.function == "linear-exact" or self.width <= 1:
            grey = shifted / max(self.width, 1e-12) + 0.5
        else:
            grey = (shifted + 0.5) / (self.width - 1) + 0.5
        return grey.clip(0, 1).astype(np.float32)


def is_window(choice: str) -> bool:
    """Whether a choice of `intensity` names a window rather than a range.

    >>> [is_window(each) for each in ("lung", "percentile", "40/400", "dtype")]
    [True, True, True, False]
    """
    return choice in PRESETS or choice in ("file", "percentile") or _CUSTOM.fullmatch(choice) is not None


def pick_window(choice: str, values: np.ndarray, own: Window | None) -> Window:
    """The window that `choice` names: "file" (`own`), a preset, "percentile" of the values, or "CENTRE/WIDTH".

    Raises InputError for anything else, or where the file states none.
    """
    if choice == "file":
        if own is None:
            raise expected("window", "a file that states its window", "one that doesn't", do="Use 'percentile'.")
        return own
    if choice in PRESETS:
        return Window(*PRESETS[choice], choice)
    if choice == "percentile":
        some = values.reshape(-1)[:: max(1, values.size // 2**20)].astype(np.float64)
        low, high = np.percentile(some, PERCENTILES)
        if not high > low:
            low, high = float(values.min()), float(values.max())
        return Window((low + high) / 2, max(high - low, 1e-12), "percentile", "linear-exact")
    custom = _CUSTOM.fullmatch(choice)
    if custom is None or float(custom[2]) <= 0:
        known = ", ".join(repr(name) for name in ("file", "percentile", *PRESETS))
        raise expected("window", f"{known} or CENTRE/WIDTH such as 40/400", repr(choice))
    return Window(float(custom[1]), float(custom[2]), "given")
