"""Rankings computed again from their definitions on small tables, and the tables that can't be ranked."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pellucid.errors import InputError
from pellucid.study.ranking import INFINITE, UNTOLD, Rankings, rank_methods
from references.statistics import bootstrap_draws, friedman_by_definition, holm

METHODS = ("grad-cam", "layer-cam", "eigen-cam", "random", "sobel")
STRENGTH = {"grad-cam": 0.30, "layer-cam": 0.22, "eigen-cam": 0.02, "random": 0.0, "sobel": 0.05}
METRICS = ("road", "road-morf", "pointing-game")
IMAGES = 24


def made_table(seed: int = 0) -> pd.DataFrame:
    """Scores whose order of methods is known; `road-morf` is better when lower."""
    draws = np.random.default_rng(seed)
    rows = []
    for image in range(IMAGES):
        for method in METHODS:
            score = STRENGTH[method] + 0.05 * draws.normal()
            for metric, value in zip(METRICS, (score, 0.5 - score, float(score > 0.1)), strict=True):
                rows.append((f"scan{image:02d}", method, metric, value, ""))
    return pd.DataFrame(rows, columns=["sample", "method", "metric", "value", "reason"])


def made_samples(images_each: int = 2) -> pd.DataFrame:
    places = np.arange(IMAGES)
    labels = np.array(["ill", "well"])[places % 2]
    return pd.DataFrame(
        {
            "sample": [f"scan{place:02d}" for place in places],
            "patient_id": [f"P{place // images_each:02d}" for place in places],
            "label": labels,
            "predicted": np.where(places % 5 == 0, "ill", labels),
        }
    )


@pytest.fixture(scope="module")
def rankings() -> Rankings:
    return rank_methods(made_table(), made_samples(), resamples=400)


def by_patient(metric: str) -> pd.DataFrame:
    table = made_table().merge(made_samples(), on="sample")
    table = table[table["metric"] == metric]
    return table.pivot_table(index="patient_id", columns="method", values="value")[list(METHODS)]


@pytest.mark.parametrize("metric", METRICS)
def test_ranks_are_those_of_patients_averaged(rankings: Rankings, metric: str) -> None:
    (ranking,) = [each for each in rankings.overall if each.metric == metric]
    means, statistic, p = friedman_by_definition(by_patient(metric).to_numpy(), metric != "road-morf")
    found = {score.method: score.mean_rank for score in ranking.methods}
    assert [found[method] for method in METHODS] == pytest.approx(means)
    assert (ranking.ranks.statistic, ranking.ranks.p_value) == pytest.approx((statistic, p))
    assert (ranking.ranks.n, ranking.ranks.unit) == (IMAGES // 2, "patient")
    order = [score.mean_rank for score in ranking.methods]
    assert order == sorted(order)


def test_the_planted_order_is_found_in_both_directions(rankings: Rankings) -> None:
    for ranking in rankings.overall[:2]:
        assert [score.method for score in ranking.methods][:2] == ["grad-cam", "layer-cam"]
        assert ranking.differ
    up, down = rankings.overall[:2]
    assert (up.higher_is_better, down.higher_is_better) == (True, False)
    assert [score.mean_rank for score in up.methods] == [score.mean_rank for score in down.methods]


def test_friedman_is_corrected_over_the_metrics(rankings: Rankings) -> None:
    wanted = holm([ranking.ranks.p_value for ranking in rankings.overall])
    assert [ranking.adjusted_p for ranking in rankings.overall] == pytest.approx(wanted)
    assert {ranking.family for ranking in rankings.overall} == {3}


def test_means_and_intervals_are_those_of_patients_drawn_again(rankings: Rankings) -> None:
    wide = by_patient("road")
    patients = sorted(wide.index)
    drawn = bootstrap_draws(
        lambda rows: {method: float(wide.loc[patients, method].to_numpy()[rows].mean()) for method in METHODS},
        patients, 400, seed=0,
    )  # fmt: skip
    for score in rankings.overall[0].methods:
        assert score.mean.value == pytest.approx(wide[score.method].mean())
        assert (score.mean.low, score.mean.high) == pytest.approx(
            tuple(np.quantile(drawn[score.method], [0.025, 0.975]))
        )
        assert (score.mean.unit, score.mean.n, score.mean.units) == ("patient", IMAGES // 2, IMAGES // 2)


def test_each_method_is_held_against_the_best_control_over_one_family(rankings: Rankings) -> None:
    p_values, told = [], []
    for ranking in rankings.overall:
        wide = by_patient(ranking.metric)
        sign = 1 if ranking.higher_is_better else -1
        best = max(("random", "sobel"), key=lambda name: sign * wide[name].mean())
        assert ranking.best_control == best
        for score in ranking.methods:
            assert score.control == (score.method in ("random", "sobel"))
            if score.control:
                assert score.floor is None
                assert score.beats_controls is None
            else:
                wanted = stats.ttest_rel(wide[score.method], wide[best])
                if score.floor.result.p_value is not None and not score.floor.identical:
                    assert score.floor.result.p_value == pytest.approx(wanted.pvalue)
                p_values.append(score.floor.result.p_value)
                told.append(score.floor.adjusted_p)
    tested = [place for place, p in enumerate(p_values) if p is not None]
    assert [told[place] for place in tested] == pytest.approx(holm([p_values[place] for place in tested]))
    beats = {score.method: score.beats_controls for score in rankings.overall[0].methods}
    assert beats == {"grad-cam": True, "layer-cam": True, "eigen-cam": False, "random": None, "sobel": None}
    lower = {score.method: score.beats_controls for score in rankings.overall[1].methods}
    assert lower["grad-cam"] is True  # its difference is negative, and lower is better there
    assert lower["eigen-cam"] is False


def test_a_method_shown_to_be_worse_than_the_controls_does_not_beat_them() -> None:
    table = made_table()
    table.loc[(table["method"] == "eigen-cam") & (table["metric"] == "road"), "value"] -= 1
    (road, *_) = rank_methods(table, resamples=20).overall
    (score,) = [score for score in road.methods if score.method == "eigen-cam"]
    assert score.floor.significant
    assert score.beats_controls is False


def test_classes_and_right_and_wrong_predictions_stand_apart(rankings: Rankings) -> None:
    parts = {(part.label, part.correct) for part in rankings.parts}
    assert parts == {
        ("ill", "all"), ("ill", "right"), ("well", "all"), ("well", "right"), ("well", "wrong"), ("all", "right"),
        ("all", "wrong"),
    }  # fmt: skip
    samples = made_samples()
    wrong = samples[samples["label"] != samples["predicted"]]
    table = made_table()
    chosen = table[table["sample"].isin(wrong["sample"]) & (table["metric"] == "road")].merge(samples, on="sample")
    (part,) = [each for each in rankings.parts if (each.label, each.correct, each.metric) == ("well", "wrong", "road")]
    for score in part.methods:
        of_method = chosen[chosen["method"] == score.method].groupby("patient_id")["value"].mean()
        assert score.mean.value == pytest.approx(of_method.mean())
        assert score.mean.n == len(of_method)
        assert score.floor is None
    assert part.adjusted_p is None
    assert part.groups == ()


def test_without_patients_the_unit_is_the_image_and_that_is_said() -> None:
    alone = rank_methods(made_table(), resamples=20)
    assert (alone.unit, alone.units, alone.images) == ("image", IMAGES, IMAGES)
    assert alone.parts == ()
    assert "no patients are known" in alone.pairing()
    assert alone.overall[0].ranks.n == IMAGES
    grouped = rank_methods(made_table(), made_samples(), resamples=20)
    assert grouped.pairing() == (
        "Methods are paired by patient (12 patients, 24 images); a patient’s images are averaged first."
    )


def test_samples_may_be_places_in_the_rows_and_come_in_any_order(rankings: Rankings) -> None:
    numbered = made_table()
    numbered["sample"] = numbered["sample"].str.removeprefix("scan").astype(int)
    again = rank_methods(numbered, made_samples(), resamples=400)
    shuffled = made_table().sample(frac=1, random_state=0)
    other = rank_methods(shuffled, made_samples(), resamples=400)
    keys = ["metric", "label", "correct", "method"]
    wanted = rankings.table().sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(again.table().sort_values(keys, ignore_index=True), wanted)
    pd.testing.assert_frame_equal(other.table().sort_values(keys, ignore_index=True), wanted)


def test_missing_values_are_counted_with_their_reasons() -> None:
    table = made_table()
    pointing = (table["metric"] == "pointing-game") & (table["sample"] == "scan03")
    table.loc[pointing, ["value", "reason"]] = [np.nan, "the mask is empty"]
    table.loc[0, "value"] = np.nan
    table.loc[3, "value"] = math.inf
    found = rank_methods(table, resamples=20)
    counts = {(row.metric, row.method, row.reason): row.images for row in found.missing.itertuples()}
    assert counts == {
        ("road", "grad-cam", UNTOLD): 1,
        ("road", "layer-cam", INFINITE): 1,
        **{("pointing-game", method, "the mask is empty"): 1 for method in METHODS},
    }
    road, _, pointing_game = found.overall
    assert (road.ranks.n, road.ranks.n_missing) == (IMAGES - 1, 1)  # both in the first image
    assert (pointing_game.ranks.n, pointing_game.methods[0].missing) == (IMAGES - 1, 1)


def test_a_method_without_any_value_stands_last_and_takes_no_one_along() -> None:
    table = made_table()
    table.loc[table["method"] == "layer-cam", "value"] = np.nan
    (road, *_) = rank_methods(table, resamples=20).overall
    assert road.methods[-1].method == "layer-cam"
    assert road.methods[-1].mean_rank is None
    assert (road.methods[-1].mean.value, road.methods[-1].missing) == (None, IMAGES)
    assert road.ranks.n == IMAGES
    assert len(road.ranks.methods) == len(METHODS) - 1


def test_a_metric_without_values_or_direction_is_told_and_not_ranked() -> None:
    table = made_table()
    table.loc[table["metric"] == "road-morf", "value"] = np.nan
    table["metric"] = table["metric"].replace("pointing-game", "my-own")
    found = rank_methods(table, resamples=20)
    assert [ranking.metric for ranking in found.overall] == ["road"]
    assert "road-morf: no image has a value." in found.notes
    assert "my-own: which way is better isn’t known, so methods aren’t ranked by it." in found.notes
    nothing = rank_methods(table[table["metric"] != "road"], resamples=20)
    assert nothing.overall == ()
    assert nothing.table().empty
    assert nothing.tests().empty


def test_methods_known_to_coincide_share_their_rank() -> None:
    (road, *_) = rank_methods(made_table(), coinciding=[["grad-cam", "layer-cam"], ["other"]], resamples=20).overall
    ranks = {score.method: score.mean_rank for score in road.methods}
    assert ranks["grad-cam"] == ranks["layer-cam"] == 1.5


def test_methods_that_do_not_differ_are_one_group() -> None:
    draws = np.random.default_rng(3)
    table = made_table()
    table["value"] = draws.normal(size=len(table))
    (road, *_) = rank_methods(table, resamples=20).overall
    assert not road.differ
    assert [set(group) for group in road.groups] == [set(METHODS)]


def test_without_controls_nothing_is_held_against_them() -> None:
    table = made_table()
    table = table[~table["method"].isin(["random", "sobel"])]
    (road, *_) = rank_methods(table, resamples=20).overall
    assert road.best_control is None
    assert all(score.beats_controls is None for score in road.methods)


@pytest.mark.parametrize("images", [1, 2])
def test_one_or_two_images_have_means_and_ranks_and_no_test(images: int) -> None:
    table = made_table()
    table = table[table["sample"].isin([f"scan{place:02d}" for place in range(images)])]
    (road, *_) = rank_methods(table, made_samples(1), resamples=20).overall
    assert road.adjusted_p is None
    assert road.groups == ()
    assert "only" in road.ranks.note
    assert road.methods[0].mean.value is not None
    assert road.methods[0].mean_rank is not None


def test_sheets_hold_every_ranking(rankings: Rankings) -> None:
    table, tests = rankings.table(), rankings.tests()
    assert len(table) == len(METHODS) * (len(rankings.overall) + len(rankings.parts))
    assert list(tests["metric"]) == list(METRICS)
    assert tests["groups"].iloc[0].startswith("grad-cam")
    assert "P0" not in table.to_csv() + tests.to_csv()


@pytest.mark.parametrize(
    ("table", "samples", "said"),
    [
        (made_table().drop(columns="method"), None, "table: expected columns sample, method, metric, value"),
        (pd.concat([made_table(), made_table()]), None, "one value per sample, method and metric"),
        (made_table(), made_samples().iloc[:5], "samples: expected a row for each sample of the table"),
        (made_table(), pd.concat([made_samples(), made_samples()]), "samples: expected each sample once"),
        (made_table(), made_samples().drop(columns="sample"), "samples: expected a column sample"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table: pd.DataFrame, samples: pd.DataFrame | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        rank_methods(table, samples)
