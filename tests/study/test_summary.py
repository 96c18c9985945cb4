"""The tables of a study, computed again from its predictions and scores with scikit-learn and SciPy alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from pellucid.errors import InputError
from pellucid.files import read_json
from pellucid.statistics import adjust
from pellucid.study.summary import summarise_stored

MODELS = ("test_resnet", "resnet10t")


def on_test(finished_study: Path, model: str) -> pd.DataFrame:
    table = pd.read_parquet(finished_study / "chest" / model / "fold-0" / "predictions.parquet")
    return table[table["split"] == "test"]


@pytest.mark.parametrize("model", MODELS)
def test_model_table_agrees_with_scikit_learn(finished_study: Path, model: str) -> None:
    test = on_test(finished_study, model)
    classes = ("covid19", "normal", "pneumonia")
    probabilities = test[[f"prob_{name}" for name in classes]].to_numpy()
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32's sums are 1 to seven digits
    truth = np.column_stack([test["label"] == name for name in classes])
    wanted = {
        "accuracy": accuracy_score(test["label"], test["predicted"]),
        "balanced_accuracy": balanced_accuracy_score(test["label"], test["predicted"]),
        "macro_f1": f1_score(test["label"], test["predicted"], average="macro", zero_division=0),
        "auroc": roc_auc_score(test["label"], probabilities, multi_class="ovr"),
        "auprc": average_precision_score(truth, probabilities, average="macro"),
        "kappa": cohen_kappa_score(test["label"], test["predicted"]),
        "brier": brier_score_loss(test["label"], shares, scale_by_half=False),
        "log_loss": log_loss(test["label"], shares),
    }
    table = pd.read_csv(finished_study / "statistics" / "models.csv")
    table = table[(table["model"] == model) & (table["images"] == "all")]
    rows = table[table["class"].isna()].set_index("metric")
    assert set(table["fold"]) == {"all"}
    for metric, value in wanted.items():
        assert rows.loc[metric, "value"] == pytest.approx(value, abs=1e-6 if metric in ("brier", "log_loss") else 1e-9)
        assert rows.loc[metric, "low"] <= value <= rows.loc[metric, "high"]
    assert rows.loc["accuracy", "clusters"] == test["patient_id"].nunique()
    assert rows.loc["accuracy", "unit"] == "patient"
    mcc = matthews_corrcoef(test["label"], test["predicted"])
    if test["predicted"].nunique() > 1:
        assert rows.loc["mcc", "value"] == pytest.approx(mcc)
    for place, name in enumerate(classes):
        of_class = table[table["class"] == name]
        areas = of_class[of_class["rule"].isna()].set_index("metric")
        assert areas.loc["auroc", "value"] == pytest.approx(roc_auc_score(truth[:, place], probabilities[:, place]))
        assert (areas["positives"] == truth[:, place].sum()).all()
        recall = of_class[(of_class["rule"] == "argmax") & (of_class["metric"] == "sensitivity")]["value"].item()
        assert recall == pytest.approx(recall_score(truth[:, place], test["predicted"] == name))


@pytest.mark.parametrize("model", MODELS)
def test_thresholds_are_those_of_the_validation_part(finished_study: Path, model: str) -> None:
    answers = pd.read_parquet(finished_study / "chest" / model / "fold-0" / "predictions.parquet")
    validation, test = answers[answers["split"] == "val"], answers[answers["split"] == "test"]
    table = pd.read_csv(finished_study / "statistics" / "models.csv")
    table = table[(table["model"] == model) & (table["images"] == "all") & (table["rule"] == "sensitivity-0.9")]
    for name in ("covid19", "normal", "pneumonia"):
        _, found, limits = roc_curve(validation["label"] == name, validation[f"prob_{name}"], drop_intermediate=False)
        threshold = limits[found >= 0.9].max()
        rows = table[table["class"] == name].set_index("metric")
        assert (rows["threshold_low"] == threshold).all()
        assert (rows["threshold_high"] == threshold).all()
        said = test[f"prob_{name}"] >= threshold
        assert rows.loc["specificity", "value"] == pytest.approx(recall_score(test["label"] != name, ~said))


def test_model_test_is_the_paired_t_over_patients(finished_study: Path) -> None:
    right = [on_test(finished_study, model).groupby("patient_id")["correct"].mean().sort_index() for model in MODELS]
    tests = pd.read_csv(finished_study / "statistics" / "model_tests.csv")
    (row,) = tests[tests["test"] == "paired-t"].to_dict("records")
    assert (row["a"], row["b"], row["test"], row["metric"]) == (*MODELS, "paired-t", "accuracy")
    assert row["mean_difference"] == pytest.approx(float((right[0] - right[1]).mean()))
    if (right[0] == right[1]).all():
        assert row["identical"]
    else:
        wanted = stats.ttest_rel(*right)
        assert row["p_value"] == pytest.approx(wanted.pvalue)
        assert row["p_adjusted"] == pytest.approx(wanted.pvalue)  # a family of one
    assert row["n"] == len(right[0])


@pytest.mark.parametrize("model", MODELS)
def test_score_table_agrees_with_plain_means(finished_study: Path, model: str) -> None:
    cell = finished_study / "chest" / model / "fold-0"
    scores = pd.read_parquet(cell / "scores.parquet").merge(
        pd.read_parquet(cell / "explained.parquet"), on="sample", suffixes=("", "_explained")
    )
    table = pd.read_csv(finished_study / "statistics" / "scores.csv")
    table = table[(table["model"] == model) & (table["images"] == "all")]
    for (method, metric), part in scores.groupby(["method", "metric"]):
        for label in ("all", "covid19"):
            for correct, keep in (("all", part["correct"] | True), ("wrong", ~part["correct"])):
                rows = part[keep & ((part["label"] == label) | (label == "all"))]
                found = table[
                    (table["method"] == method)
                    & (table["metric"] == metric)
                    & (table["label"] == label)
                    & (table["correct"] == correct)
                ]
                if rows.empty:
                    assert found.empty
                    continue
                assert found["mean"].item() == pytest.approx(rows["value"].mean(), nan_ok=True)
                assert found["n"].item() == rows["value"].notna().sum()
                assert found["missing"].item() == rows["value"].isna().sum()


def test_method_tests_are_corrected_over_the_whole_study(finished_study: Path) -> None:
    table = pd.read_csv(finished_study / "statistics" / "method_tests.csv")
    table = table[table["images"] == "all"]
    assert len(table) == len(MODELS) * 3  # pairs of three methods
    tested = table[table["p_value"].notna()]
    assert set(tested["family"]) == {len(tested)}
    order = np.sort(tested["p_value"].to_numpy())
    holm = np.minimum(1, np.maximum.accumulate(order * np.arange(len(order), 0, -1)))
    np.testing.assert_allclose(np.sort(tested["p_adjusted"]), holm)
    row = tested.iloc[0]
    cell = finished_study / "chest" / row["model"] / "fold-0"
    scores = pd.read_parquet(cell / "scores.parquet")
    road = scores[scores["metric"] == "road"].pivot(index="sample", columns="method", values="value")
    patients = pd.read_parquet(cell / "explained.parquet").set_index("sample")["patient_id"]
    mean = road.groupby(patients).mean()
    assert row["p_value"] == pytest.approx(stats.ttest_rel(mean[row["a"]], mean[row["b"]]).pvalue)


def test_tables_are_written_again_from_what_is_on_disk(finished_study: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_study, tmp_path / "copy")
    for path in (tmp_path / "copy" / "statistics").iterdir():
        path.unlink()
    summarise_stored(tmp_path / "copy")
    for path in (finished_study / "statistics").iterdir():
        assert (tmp_path / "copy" / "statistics" / path.name).read_bytes() == path.read_bytes()


def test_an_unfinished_study_gives_what_there_is(finished_study: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_study, tmp_path / "copy")
    (tmp_path / "copy" / "chest" / "resnet10t" / "fold-0" / "cell.json").unlink()
    summarise_stored(tmp_path / "copy")
    assert set(pd.read_csv(tmp_path / "copy" / "statistics" / "models.csv")["model"]) == {"test_resnet"}
    assert pd.read_csv(tmp_path / "copy" / "statistics" / "model_tests.csv").empty


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which has no study.toml"):
        summarise_stored(tmp_path)


@pytest.mark.parametrize("model", MODELS)
def test_method_ranks_are_the_mean_ranks_within_patients(finished_study: Path, model: str) -> None:
    cell = finished_study / "chest" / model / "fold-0"
    road = pd.read_parquet(cell / "scores.parquet").query("metric == 'road'")
    patients = pd.read_parquet(cell / "explained.parquet").set_index("sample")["patient_id"]
    road["patient"] = road["sample"].map(patients)
    wide = road.pivot_table(index="patient", columns="method", values="value", sort=False)
    for first, *others in read_json(cell / "cell.json")["coinciding"]:
        for other in others:
            wide[other] = wide[first]
    ranks = []
    for row in wide.to_numpy():
        apart = row[None] - row[:, None]  # (method, other)
        rounding = 1e-6 * np.abs(row).max()
        ranks.append(1 + (apart > rounding).sum(axis=1) + ((np.abs(apart) <= rounding).sum(axis=1) - 1) / 2)
    table = pd.read_csv(finished_study / "statistics" / "method_ranks.csv")
    rows = table[(table["model"] == model) & (table["images"] == "all") & (table["metric"] == "road")]
    rows = rows.set_index("method")
    wanted = dict(zip(wide.columns, np.mean(ranks, axis=0), strict=True))
    assert rows["mean_rank"].to_dict() == pytest.approx(wanted)
    assert set(rows["ranked"]) == {len(wide)}
    assert set(rows["unit"]) == {"patient"}
    assert set(rows.index[rows["control"]]) == set(rows.index) & {"random", "center-gaussian", "sobel", "image"}


def test_method_ranks_are_corrected_over_the_whole_study(finished_study: Path) -> None:
    table = pd.read_csv(finished_study / "statistics" / "method_ranks.csv")
    tested = table.dropna(subset="friedman_p").drop_duplicates(["model", "images", "metric"])
    families = [family for _, family in tested.groupby("images")]
    assert len(families[0]) > 1
    for family in families:
        wanted = adjust(family["friedman_p"].tolist()).p_values
        assert family["friedman_p_adjusted"].tolist() == pytest.approx(wanted)
