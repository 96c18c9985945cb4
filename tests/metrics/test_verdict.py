"""Verdicts: what each kind of evidence does to them, thresholds from known cases, and maps of a trained network."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

import pellucid
from pellucid.errors import InputError
from pellucid.metrics.verdict import (
    CONTROLS,
    EVIDENCE,
    METRICS_ASKED,
    Calibration,
    Threshold,
    calibrate,
    default_calibration,
    evidence_of,
    read_calibration,
    verdicts,
)
from references.phantom_network import phantom_network

LIMITS = {
    "faithfulness": Threshold(passes=0.1, fails=0.0),
    "stability": Threshold(passes=0.2, fails=0.5) if not EVIDENCE[1].higher_is_better else Threshold(0.5, 0.2),
    "sanity": Threshold(passes=0.4, fails=0.2) if EVIDENCE[2].higher_is_better else Threshold(0.2, 0.4),
    "agreement": Threshold(passes=0.5, fails=0.1),
}
GIVEN = Calibration(LIMITS, 30, 30, {"right": {"trusted": 9, "not trusted": 1}}, "made up")
GOOD = {each.name: LIMITS[each.name].passes for each in EVIDENCE}
BAD = {each.name: LIMITS[each.name].fails - (1e-3 if each.higher_is_better else -1e-3) for each in EVIDENCE}


def table_of(*samples: Mapping[str, float]) -> pd.DataFrame:
    """A table of one method's evidence; the best control's ROAD is 0.05, another's 0.01."""
    rows = []
    for sample, evidence in enumerate(samples):
        for each in EVIDENCE:
            value = evidence[each.name] + (0.05 if each.above_controls else 0.0)
            rows.append((sample, "layer-cam", each.metric, value))
            rows += [(sample, "random", each.metric, 0.01), (sample, "sobel", each.metric, 0.05)]
    return pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])


def verdict_of(evidence: Mapping[str, float], probability: float = 0.9) -> str:
    table = verdicts(table_of(evidence), [probability], GIVEN)
    assert table["method"].tolist() == ["layer-cam"]  # controls get no verdict
    return str(table["verdict"].iloc[0])


def test_faithfulness_is_what_lies_above_the_best_control() -> None:
    found = evidence_of(table_of(GOOD))
    assert found["faithfulness"].iloc[0] == pytest.approx(0.1)
    assert set(METRICS_ASKED) == {each.metric for each in EVIDENCE}


def test_all_evidence_at_its_threshold_is_trusted() -> None:
    nudged = {name: value + (1e-9 if _higher(name) else -1e-9) for name, value in GOOD.items()}
    assert verdict_of(nudged) == "trusted"


def _higher(name: str) -> bool:
    return next(each.higher_is_better for each in EVIDENCE if each.name == name)


@pytest.mark.parametrize("name", ["stability", "sanity", "agreement"])
def test_one_other_kind_that_fails_makes_it_doubtful_and_two_not_trusted(name: str) -> None:
    sure = {each: value + (0.01 if _higher(each) else -0.01) for each, value in GOOD.items()}
    assert verdict_of(sure | {name: BAD[name]}) == "doubtful"
    second = "sanity" if name != "sanity" else "stability"
    assert verdict_of(sure | {name: BAD[name], second: BAD[second]}) == "not trusted"
    assert verdict_of(sure | {name: math.nan}) == "trusted"  # nothing is known against it


def test_without_faithfulness_nothing_is_trusted() -> None:
    sure = {each: value + (0.01 if _higher(each) else -0.01) for each, value in GOOD.items()}
    assert verdict_of(sure | {"faithfulness": BAD["faithfulness"]}) == "not trusted"
    assert verdict_of(sure | {"faithfulness": 0.05}) == "doubtful"
    assert verdict_of(sure | {"faithfulness": math.nan}) == "doubtful"


def test_a_model_that_is_not_sure_of_the_class_is_doubtful_at_best() -> None:
    sure = {each: value + (0.01 if _higher(each) else -0.01) for each, value in GOOD.items()}
    assert verdict_of(sure, probability=0.4) == "doubtful"
    row = verdicts(table_of(sure), [0.4], GIVEN).iloc[0]
    assert "the model gives this class only 0.40" in row["evidence"]


def test_the_evidence_is_one_line_with_a_mark_for_each_kind() -> None:
    mixed = GOOD | {"faithfulness": 0.2, "agreement": BAD["agreement"], "stability": math.nan}
    line = str(verdicts(table_of(mixed), None, GIVEN)["evidence"].iloc[0])
    assert "\n" not in line
    assert "confidence increase +0.20 against the best control ✓" in line
    assert line.endswith("✗")
    assert line.count(";") == 2  # of what is missing nothing is said


def test_each_image_has_its_own_verdict() -> None:
    table = verdicts(table_of(GOOD | {"faithfulness": 0.3}, BAD), None, GIVEN)
    assert table["sample"].tolist() == [0, 1]
    assert table["verdict"].tolist()[1] == "not trusted"


def test_without_a_control_there_is_no_floor() -> None:
    table = table_of(GOOD)
    with pytest.raises(InputError, match="table: expected a control among the methods, got layer-cam. Explain random"):
        verdicts(table[table["method"] == "layer-cam"], None, GIVEN)
    assert set(CONTROLS) == {"random", "center-gaussian", "sobel"}


def separated(overlap: float, count: int = 200) -> tuple[pd.DataFrame, list[bool]]:
    """Evidence of right and wrong maps, each drawn around a place of its own."""
    draw = np.random.default_rng(0)
    right = [place % 2 == 0 for place in range(count)]
    columns = {}
    for each in EVIDENCE:
        centre = np.where(right, 1.0, 0.0) * (1 if each.higher_is_better else -1)
        columns[each.name] = centre + overlap * draw.standard_normal(count)
    return pd.DataFrame(columns), right


def test_thresholds_part_right_maps_from_wrong_ones() -> None:
    values, right = separated(0.05)
    found = calibrate(values, right, "made up")
    for each in EVIDENCE:
        limit = found.thresholds[each.name]
        assert limit.passes == limit.fails  # they don't overlap, so that one limit parts them
        assert 0.3 < abs(limit.passes) < 0.7
    assert found.verdicts == {
        "right": {"trusted": 50, "doubtful": 0, "not trusted": 0},
        "wrong": {"trusted": 0, "doubtful": 0, "not trusted": 50},
    }
    assert (found.right, found.wrong) == (50, 50)


def test_where_they_overlap_at_most_the_share_passes_by_mistake() -> None:
    values, right = separated(1.0, count=4000)
    found = calibrate(values, right, "made up", share=0.1)
    wrong = values[~np.array(right)]
    for each in EVIDENCE:
        limit = found.thresholds[each.name]
        sign = 1 if each.higher_is_better else -1
        assert sign * limit.fails < sign * limit.passes
        passing = (sign * wrong[each.name] >= sign * limit.passes).mean()
        assert passing == pytest.approx(0.1, abs=0.03)
    counts = found.verdicts["wrong"]
    assert counts["trusted"] < 0.1 * sum(counts.values())


def test_too_few_cases_are_refused() -> None:
    values, right = separated(0.1, count=30)
    with pytest.raises(InputError, match="right: expected at least 20 right and 20 wrong maps, got 15 of 30 right"):
        calibrate(values, right, "made up")


def test_a_calibration_is_written_and_read_again_and_shown() -> None:
    values, right = separated(0.5)
    found = calibrate(values, right, "made up")
    assert read_calibration(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    text = found.text()
    for each in EVIDENCE:
        assert f"{each.name} passes" in text
    assert "made up" in text
    assert "of 50 other right maps" in text


def test_the_thresholds_that_come_along_were_taken_from_many_cases() -> None:
    found = default_calibration()
    assert min(found.right, found.wrong) >= 100
    right, wrong = found.verdicts["right"], found.verdicts["wrong"]
    assert wrong["trusted"] <= 0.1 * sum(wrong.values())
    assert right["not trusted"] < 0.35 * sum(right.values())
    assert right["trusted"] > wrong["trusted"]


def test_a_trained_network_s_maps_are_trusted_more_than_those_of_an_untrained_one() -> None:
    network = phantom_network()
    images, labels = network.images[:8], network.labels[:8]
    explanation = pellucid.explain(network.model, images, ["layer-cam", "xgrad-cam", "eigen-grad-cam"], target=labels)
    said = pellucid.trust(network.model, images, explanation)
    assert list(said.columns) == ["sample", "method", "verdict", "evidence", *(each.name for each in EVIDENCE)]
    assert len(said) == 8 * 3  # the controls get no verdict
    assert not said[[each.name for each in EVIDENCE]].isna().any().any()
    untrained = copy.deepcopy(network.model)
    for module in untrained.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    blind = pellucid.explain(untrained, images, list(explanation.maps), target=labels)
    told = pellucid.trust(untrained, images, blind)
    assert (told["verdict"] == "trusted").sum() == 0
    assert (said["verdict"] == "trusted").mean() > 0.3
