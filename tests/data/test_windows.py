"""Windows: greys by the formulas of PS3.3 C.11.2.1.2, and which window a choice names."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pellucid.data.windows import PRESETS, Window, check_intensity, is_window, pick_window
from pellucid.errors import InputError

VALUES = np.concatenate([np.arange(-3000, 3000), [-32768, 32767]]).astype("i2")


def slow(value: float, window: Window) -> float:
    """One value by the standard's words: from black, 0, to white, 1."""
    centre, width = window.centre, window.width
    if window.function == "linear":
        if value <= centre - 0.5 - (width - 1) / 2:
            return 0.0
        if value > centre - 0.5 + (width - 1) / 2:
            return 1.0
        return (value - (centre - 0.5)) / (width - 1) + 0.5
    if window.function == "linear-exact":
        if value <= centre - width / 2:
            return 0.0
        if value > centre + width / 2:
            return 1.0
        return (value - centre) / width + 0.5
    exponent = -4 * (value - centre) / width
    return 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0


@pytest.mark.parametrize("function", ["linear", "linear-exact", "sigmoid"])
@pytest.mark.parametrize(
    ("centre", "width"), [(40, 400), (-600, 1500), (0, 1), (0.25, 1.5), (2047.5, 4095), (100, 2), (-1000, 65535)]
)
@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
def test_greys_are_those_of_the_standard(function: str, centre: float, width: float, dtype: str) -> None:
    window = Window(centre, width, "a", function)  # type: ignore[arg-type]
    values = VALUES.astype(dtype)
    grey = window.apply(values)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey, [slow(float(each), window) for each in values], atol=1e-6)
    np.testing.assert_array_equal(values, VALUES)  # left as they were


def test_tables() -> None:
    table = np.array([0, 0.5, 1], np.float32)
    window = Window(6, 3, "a", table=table, first=5)
    np.testing.assert_array_equal(window.apply(np.array([-9, 4, 5, 6, 7, 8, 99])), [0, 0, 0, 0.5, 1, 1, 1])
    np.testing.assert_array_equal(window.apply(np.array([5.4, 5.6], "f4")), [0, 0.5])
    assert window.text() == "a window, a table of 3 greys"


def test_what_stands_beside_a_picture() -> None:
    assert pick_window("lung", VALUES, None).text() == "lung window, -600/1500"
    assert pick_window("40.5/400", VALUES, None).text() == "given window, 40.5/400"
    assert pick_window("percentile", VALUES, None).text().startswith("percentile window, ")


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    window = pick_window(name, VALUES, None)
    assert (window.centre, window.width, window.name, window.function) == (*PRESETS[name], name, "linear")


def test_the_files_own_windows() -> None:
    own = [Window(1, 2, "a"), Window(3, 4, "b")]
    assert pick_window("file", VALUES, own) is own[0]
    assert pick_window("file-1", VALUES, own) is own[0]
    assert pick_window("file-2", VALUES, own) is own[1]
    assert pick_window("file", VALUES, own[0]) is own[0]
    with pytest.raises(InputError, match=r"expected a file that states 3 windows, got one of 2\."):
        pick_window("file-3", VALUES, own)
    with pytest.raises(InputError, match=r"states 2 windows, got one that states one\."):
        pick_window("file-2", VALUES, own[0])
    for nothing in (None, []):
        with pytest.raises(InputError, match=r"a file that states its window, got one that states none\. Use 'percen"):
            pick_window("file", VALUES, nothing)


def test_percentiles_of_few_and_of_many_values() -> None:
    values = np.random.default_rng(0).normal(100, 20, (1, 30, 40)).astype("f4")
    low, high = np.percentile(values.astype("f8"), (0.5, 99.5))
    window = pick_window("percentile", values, None)
    assert (window.centre, window.width) == pytest.approx(((low + high) / 2, high - low))
    assert window.function == "linear-exact"
    columns = np.broadcast_to(np.arange(4096, dtype="i2"), (1, 1024, 4096))  # where every n-th must not be one column
    window = pick_window("percentile", columns, None)
    assert window.width == pytest.approx(4095 * 0.99, rel=0.01)


def test_percentiles_of_values_that_hardly_vary() -> None:
    values = np.full((1, 50, 50), 7, "i2")
    constant = pick_window("percentile", values, None)
    np.testing.assert_array_equal(constant.apply(values), 0.5)
    values[0, 3, 3] = 1000
    assert pick_window("percentile", values, None).width == 993


@pytest.mark.parametrize(
    "choice", ["dtype", "image", "file", "file-2", "percentile", *PRESETS, "40/400", "-600/1500.5"]
)
def test_choices_that_are_known(choice: str) -> None:
    assert check_intensity(choice) == choice
    assert is_window(choice) == (choice not in ("dtype", "image"))


@pytest.mark.parametrize("choice", ["", "Lung", "file-0", "40/0", "40/-3", "40", "1.2.3/4", "a/b", "40/400/3", "-/5"])
def test_choices_that_are_not(choice: str) -> None:
    told = r"expected 'dtype', 'image', 'file', 'percentile', 'lung', .* or CENTRE/WIDTH such as 40/400, got "
    with pytest.raises(InputError, match="intensity: " + told):
        check_intensity(choice)
    with pytest.raises(InputError, match="window: expected 'file', 'percentile', 'lung'"):
        pick_window(choice, VALUES, None)
