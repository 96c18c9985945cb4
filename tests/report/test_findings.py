"""Each finding on both sides of its threshold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pellucid.report.findings import (
    Accuracy,
    accuracy_of,
    clearly_better,
    coinciding_findings,
    copies_finding,
    data_findings,
    faithfulness_findings,
    grid_finding,
    lesion_findings,
    model_findings,
    sample_findings,
    training_finding,
)

GOOD = Accuracy(0.8, 0.7, 0.9, 100, 0.5)
CHANCE = Accuracy(0.5, 0.4, 0.6, 40, 0.5)


def scores(metric: str = "road", **means: float) -> pd.DataFrame:
    rows = [(name.replace("_", "-"), metric, mean, mean - 0.02, mean + 0.02, 50) for name, mean in means.items()]
    return pd.DataFrame(rows, columns=["method", "metric", "mean", "low", "high", "n"])


def family_of(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["a", "b", "p_adjusted"])


NO_TESTS = family_of()


@pytest.mark.parametrize(("low", "near"), [(0.49, True), (0.5, True), (0.51, False)])
def test_near_chance_is_when_the_interval_reaches_the_commonest_class(low: float, near: bool) -> None:
    accuracy = Accuracy(0.6, low, 0.7, 100, 0.5)
    assert accuracy.near_chance is near
    tones = [finding.tone for finding in model_findings("net", accuracy, None, [])]
    assert ("alarm" in tones) is near


def test_near_chance_without_the_copies_is_said_where_the_whole_looks_well() -> None:
    found = model_findings("net", GOOD, CHANCE, [])
    assert "Without the copies net is near chance" in found[1].text
    assert len(model_findings("net", GOOD, GOOD, [])) == 1


def test_classes_never_predicted_are_named() -> None:
    assert "never predicts glioma and other" in model_findings("net", GOOD, None, ["glioma", "other"])[-1].text


@pytest.mark.parametrize(("copies", "tone"), [(0, None), (4, "against"), (5, "alarm"), (60, "alarm")])
def test_copies_are_an_alarm_from_one_in_twenty(copies: int, tone: str | None) -> None:
    found = copies_finding(100, copies, {"net": (GOOD, CHANCE)})
    assert (found.tone if found else None) == tone
    if found:
        assert "no better than chance" in found.text
        assert "50.0\u00a0% (40.0\u00a0% to 60.0\u00a0%) without the copies" in found.text


@pytest.mark.parametrize(("grid", "said"), [((4, 4), True), ((6, 7), True), ((7, 7), False), (None, False)])
def test_a_grid_below_seven_is_coarse(grid: tuple[int, int] | None, said: bool) -> None:
    found = grid_finding("net", "layer4", grid, 128)
    assert (found is not None) is said
    if grid == (4, 4):
        assert found is not None
        assert "grid of 4 × 4" in found.text
        assert "32 × 32 pixels" in found.text


def test_training_that_ended_at_its_best_epoch_was_perhaps_too_short() -> None:
    assert training_finding("net", [4, 6], [8, 8]) is None
    found = training_finding("net", [8, 6], [8, 8])
    assert found is not None
    assert "in 1 of 2 folds" in found.text


def test_coinciding_methods_are_named_by_group() -> None:
    found = coinciding_findings("net", [["grad-cam", "xgrad-cam"]])
    assert found[0].text.startswith("Grad-CAM and XGrad-CAM give the same map")
    assert coinciding_findings("net", []) == []


@pytest.mark.parametrize(
    ("p_adjusted", "road", "better"),
    [
        (0.01, (0.1, 0.05), True),
        (0.2, (0.1, 0.05), False),
        (0.01, (0.05, 0.1), False),
        (float("nan"), (0.1, 0.05), False),
    ],
)
def test_a_method_is_clearly_better_only_by_the_test_and_in_its_favour(
    p_adjusted: float, road: tuple[float, float], better: bool
) -> None:
    table = scores(layer_cam=road[0], sobel=road[1]).set_index("method")
    for pair in (("layer-cam", "sobel"), ("sobel", "layer-cam")):
        assert clearly_better("layer-cam", "sobel", table, family_of((*pair, p_adjusted))) is better


@pytest.mark.parametrize(("control", "better"), [(0.079, True), (0.081, False)])
def test_without_a_test_the_interval_decides(control: float, better: bool) -> None:
    table = scores(layer_cam=0.1, sobel=control).set_index("method")
    assert clearly_better("layer-cam", "sobel", table, NO_TESTS) is better


def test_a_control_that_does_as_well_is_named_with_the_methods_it_equals() -> None:
    table = scores(layer_cam=0.1, xgrad_cam=0.2, sobel=0.11, random=-0.01)
    found = faithfulness_findings("net", table, NO_TESTS, [])
    assert "XGrad-CAM has the largest confidence increase, 0.200 (0.180 to 0.220)" in found[0].text
    assert "LayerCAM has the smallest" in found[0].text
    assert "Sobel edges (0.110) does as well as LayerCAM" in found[1].text
    assert "Random" not in found[1].text
    assert found[1].tone == "against"


def test_controls_that_equal_the_same_methods_share_a_sentence() -> None:
    found = faithfulness_findings("net", scores(layer_cam=0.1, sobel=0.3, random=0.2), NO_TESTS, [])
    assert "Sobel edges (0.300) and Random map (0.200) do as well as every method" in found[1].text


def test_a_control_below_a_method_without_a_clear_test_is_only_not_shown_to_be_below() -> None:
    found = faithfulness_findings("net", scores(layer_cam=0.1, sobel=0.09), NO_TESTS, [])
    assert "Sobel edges (0.090) is not shown to be below every method" in found[1].text
    assert "as well" not in found[1].text


def test_controls_that_all_lose_are_a_result() -> None:
    found = faithfulness_findings("net", scores(layer_cam=0.1, random=0.0), NO_TESTS, [])
    assert found[1].tone == "result"
    assert "clearly above every control" in found[1].text


def test_a_control_above_every_method_takes_the_evidence_away() -> None:
    found = faithfulness_findings("net", scores(layer_cam=0.1, sobel=0.3), NO_TESTS, [])
    assert "as well as every method" in found[1].text
    assert "no evidence for the methods" in found[1].text


def test_no_confidence_increase_above_zero_is_said() -> None:
    assert "No method’s" in faithfulness_findings("net", scores(layer_cam=-0.01), NO_TESTS, [])[-1].text
    assert len(faithfulness_findings("net", scores(layer_cam=0.01), NO_TESTS, [])) == 1


def test_without_scores_nothing_is_said() -> None:
    assert faithfulness_findings("net", scores(), NO_TESTS, []) == []
    assert faithfulness_findings("net", scores(layer_cam=np.nan), NO_TESTS, []) == []


@pytest.mark.parametrize(
    ("mass", "against"),
    [(0.09, "No map of net puts more"), (0.1, "No map of net puts more"), (0.19, "less than twice"), (0.21, "")],
)
def test_relevance_mass_is_read_beside_the_lesions_share(mass: float, against: str) -> None:
    found = lesion_findings("net", scores("energy-pointing", layer_cam=mass, random=0.01), 0.1, 30)
    assert f"{mass / 0.1:.1f} times the lesion’s share" in found[0].text
    assert len(found) == (2 if against else 1)
    assert against in found[-1].text


def test_a_control_inside_the_lesion_speaks_against_the_maps() -> None:
    found = lesion_findings("net", scores("energy-pointing", layer_cam=0.3, center_gaussian=0.31), 0.1, 30)
    assert found[-1].text.startswith("Centre Gaussian (31.0\u00a0%) puts as much")
    assert lesion_findings("net", scores("energy-pointing", layer_cam=0.3), 0.0, 0) == []


def test_data_findings_name_only_what_is_there() -> None:
    assert data_findings({"patients": 7, "unreadable": [], "duplicates": {"conflicting_groups": 0}}) == []
    facts = {"patients": 0, "unreadable": [["a", "b"]], "duplicates": {"conflicting_groups": 2}}
    told = " ".join(finding.text for finding in data_findings(facts))
    assert "No patients are known" in told
    assert "1 file couldn’t be read and was skipped" in told
    assert "2 groups" in told


@pytest.mark.parametrize(
    ("explained", "wrong", "said"), [(0, 0, "No image"), (50, 9, "Only 9"), (50, 10, ""), (50, 0, "")]
)
def test_small_samples_are_said(explained: int, wrong: int, said: str) -> None:
    found = sample_findings("net", explained, wrong)
    assert (said in found[0].text) if said else found == []


def test_accuracy_is_read_with_the_chance_of_its_own_images() -> None:
    rows = [("all", images, "accuracy", 0.6, 0.5, 0.7, n) for images, n in (("all", 4), ("without copies", 2))]
    models = pd.DataFrame(rows, columns=["fold", "images", "metric", "value", "low", "high", "n"])
    test = pd.DataFrame({"label": ["a", "a", "a", "b"], "copy_in_train": [True, True, False, False]})
    everything, clean = (accuracy_of(models, test, images) for images in ("all", "without copies"))
    assert everything is not None
    assert clean is not None
    assert (everything.chance, clean.chance) == (0.75, 0.5)
    assert accuracy_of(models.iloc[:0], test, "all") is None
