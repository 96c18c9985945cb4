"""`pellucid.metrics` is a package and a function, whichever is used first; importing it stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pellucid.errors import UnknownNameError
from pellucid.metrics import METRICS, metric

CALLED_FIRST = """
import pellucid
table = pellucid.metrics()
import pellucid.metrics.evaluate
from pellucid.metrics import metrics
from pellucid.metrics.road import road_curves
assert pellucid.metrics.road.road_curves is road_curves
assert pellucid.metrics().equals(table) and metrics().equals(table)
"""
IMPORTED_FIRST = """
import pellucid.metrics.road
import pellucid
from pellucid import metrics
assert pellucid.metrics is metrics
assert list(metrics()["name"]) == list(pellucid.metrics.METRICS.names())
assert pellucid.metrics.road.road_curves
import pellucid.metrics.evaluate as module
assert pellucid.evaluate is module.evaluate
"""
LIGHT = """
import sys
import pellucid
assert "torch" not in sys.modules and "numba" not in sys.modules
pellucid.metrics()
assert "numba" not in sys.modules
"""


@pytest.mark.parametrize("code", [CALLED_FIRST, IMPORTED_FIRST, LIGHT], ids=["called", "imported", "light"])
def test_in_a_fresh_interpreter(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_table_says_what_each_metric_needs_and_which_way_is_better() -> None:
    table = METRICS.table().set_index("name")
    assert set(table.index) >= {"road", "road-morf", "road-lerf", "pointing-game", "energy-pointing"}
    assert (table["source"] != "").all()
    assert (table["summary"] != "").all()
    assert table["better"].isin(["higher", "lower"]).all()


def test_a_metric_takes_its_options_and_refuses_others() -> None:
    assert metric("road", noise=0.0).label == "road[noise=0.0]"
    with pytest.raises(UnknownNameError, match="Did you mean 'noise'"):
        metric("road", nose=0.0)
    with pytest.raises(UnknownNameError, match="Did you mean 'pointing-game'"):
        metric("pointing-games")
