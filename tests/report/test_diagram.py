"""Critical-difference diagrams: what is drawn where, read from the picture's own text and lines."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from pellucid.attribution import METHODS
from pellucid.report.diagram import rank_diagram
from pellucid.report.figures import Drawn
from pellucid.report.names import method_title
from pellucid.statistics import critical_difference, groups_within

LONG = "integrated-gradients[baseline=blur,steps=64,smooth=noise,samples=25]"


def svg_of(drawn: Drawn) -> str:
    return base64.b64decode(drawn.uri.partition(",")[2]).decode()


def texts_of(svg: str) -> list[tuple[str, float, float, str]]:
    """Each text with its place in points and where it is anchored."""
    found = re.findall(
        r'<text style="([^"]*)" x="([\d.-]+)" y="([\d.-]+)"[^>]*>([^<]*)</text>', svg
    )  # one line of text each
    return [
        (text, float(x), float(y), "end" if "end" in style else "middle" if "middle" in style else "start")
        for style, x, y, text in found
    ]


def made(k: int, seed: int = 0) -> dict[str, float]:
    names = [*[entry.name for entry in METHODS if entry.name != "random"][: k - 2], LONG, "random"]
    ranks = np.sort(np.random.default_rng(seed).uniform(1, k, k))
    return dict(zip(names, ranks.tolist(), strict=True))


@pytest.mark.parametrize("k", [2, 3, 7, 12, 20])
def test_every_method_stands_inside_the_picture_and_on_none_of_the_others(k: int) -> None:
    ranks = made(k)
    difference = critical_difference(k, 40)
    drawn = rank_diagram(ranks, groups_within(ranks, difference), difference, "ROAD")
    svg = svg_of(drawn)
    width, height = (float(size) for size in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    assert (drawn.width, drawn.height) == (round(width / 0.72), round(height / 0.72))
    texts = texts_of(svg)
    for method, rank in ranks.items():
        if method != LONG:
            name = method_title(method) + (" †" if method == "random" else "")
            assert any(name in text and f"{rank:.2f}" in text for text, *_ in texts), name
    sides: dict[str, list[float]] = {"end": [], "start": []}
    for text, x, y, anchor in texts:
        assert 0 <= x <= width
        assert 8 <= y <= height
        if re.search(r"[A-Za-z]", text) and not text.startswith(("mean", "critical")):
            sides[anchor].append(y)
    for heights in sides.values():
        assert all(np.diff(sorted(heights)) > 9)  # a line of 9 pt


def test_lines_meet_the_axis_at_their_ranks_and_controls_are_dashed() -> None:
    ranks = {"grad-cam": 1.5, "layer-cam": 2.0, "random": 2.5}
    svg = svg_of(rank_diagram(ranks, (), None, "ROAD"))
    ticks = {text: x for text, x, _, _ in texts_of(svg) if text in "123"}
    step = ticks["2"] - ticks["1"]
    elbows = re.findall(
        r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \nL [\d.]+ [\d.]+ \n" [^>]*style="([^"]*)"', svg
    )
    assert len(elbows) == 3
    for (x, below, style), (method, rank) in zip(elbows, ranks.items(), strict=True):
        assert float(x) == float(below) == pytest.approx(ticks["1"] + (rank - 1) * step, abs=0.01)
        assert ("dasharray" in style) == (method == "random")
    assert "critical difference" not in svg


def test_a_bar_spans_each_group_and_the_ruler_the_difference() -> None:
    ranks = {"grad-cam": 1.0, "layer-cam": 2.0, "lime": 3.5, "rise": 3.6}
    svg = svg_of(rank_diagram(ranks, (("grad-cam", "layer-cam"), ("lime", "rise")), 1.2, "ROAD"))
    assert svg.count("stroke-width: 3.6") == 2
    ticks = {text: x for text, x, _, _ in texts_of(svg) if text in "1234"}
    ruler = re.search(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n" [^>]*stroke-width: 1.4', svg)
    start, end = map(float, ruler.groups())
    assert start == pytest.approx(ticks["1"], abs=0.01)
    assert end - start == pytest.approx(1.2 * (ticks["2"] - ticks["1"]), abs=0.01)
    wide = svg_of(rank_diagram(ranks, (tuple(ranks),), 5.0, "ROAD"))
    assert "critical difference 5.00, more than the ranks can span" in wide


def test_bars_that_share_a_stretch_lie_in_rows_of_their_own() -> None:
    ranks = {"grad-cam": 1.0, "layer-cam": 2.0, "lime": 3.0, "rise": 4.0}
    groups = (("grad-cam", "layer-cam"), ("layer-cam", "lime"), ("lime", "rise"))
    svg = svg_of(rank_diagram(ranks, groups, 1.1, "ROAD"))
    bars = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) [\d.]+ \n" [^>]*stroke-width: 3.6', svg)
    spans = [(float(low), float(high), float(y)) for low, y, high in bars]
    assert len(spans) == 3
    for i, (low, high, y) in enumerate(spans):
        for other_low, other_high, other_y in spans[:i]:
            assert y != other_y or high < other_low or other_high < low


def test_the_picture_can_be_read_without_seeing_it_and_repeats() -> None:
    ranks = {"layer-cam": 2.0, "grad-cam": 1.0, "random": 3.0}
    drawn = rank_diagram(ranks, (("grad-cam", "layer-cam"),), 1.5, "ROAD on brain")
    assert drawn.alt == (
        "Critical-difference diagram of ROAD on brain, mean ranks from the best: Grad-CAM 1.00; LayerCAM 2.00; "
        "Random map 3.00. Critical difference 1.50. Not told apart: Grad-CAM and LayerCAM."
    )
    assert rank_diagram(ranks, (("grad-cam", "layer-cam"),), 1.5, "ROAD on brain") == drawn
