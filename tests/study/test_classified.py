"""The rows of a study's classifier table: scikit-learn on the same predictions, thresholds from validation alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from pellucid.statistics import units_of
from pellucid.study.classified import MEASURE_COLUMNS, measured_rows
from references.classified import made_up


def answers(n: int, k: int, seed: int, split: str, fold: int = 0) -> pd.DataFrame:
    made = made_up(n, k, seed)
    table = pd.DataFrame(
        {
            "seed": 0,
            "fold": fold,
            "split": split,
            "patient_id": [f"p{fold}{split}{row // 2}" for row in range(n)],
            "label": [made.classes[c] for c in made.labels],
            "predicted": [made.classes[c] for c in made.predicted],
        }
    )
    for c, name in enumerate(made.classes):
        table[f"prob_{name}"] = made.probabilities[:, c]
    return table


def rows_of(test: pd.DataFrame, validation: pd.DataFrame) -> list[dict]:
    units = units_of(list(test["patient_id"]), len(test))
    return measured_rows(test, validation, units, resamples=20, confidence=0.95)


def of(rows: list[dict], metric: str, label: str = "", rule: str | None = None) -> dict:
    (found,) = [row for row in rows if (row["metric"], row["class"]) == (metric, label) and rule in (None, row["rule"])]
    return found


def test_thresholds_come_from_validation_and_values_from_test():
    test, validation = answers(60, 3, 1, "test"), answers(40, 3, 2, "val")
    rows = rows_of(test, validation)
    assert set(rows[0]) == set(MEASURE_COLUMNS)
    for name in ("class 0", "class 1", "class 2"):
        positive, scores = validation["label"] == name, validation[f"prob_{name}"]
        fpr, tpr, limits = metrics.roc_curve(positive, scores, drop_intermediate=False)
        best = limits[np.isclose(tpr - fpr, (tpr - fpr).max())].min()
        row = of(rows, "sensitivity", name, "youden")
        assert row["threshold_low"] == row["threshold_high"] == best
        said = test[f"prob_{name}"] >= best
        assert row["value"] == pytest.approx(metrics.recall_score(test["label"] == name, said))
        assert of(rows, "ppv", name, "youden")["value"] == pytest.approx(
            metrics.precision_score(test["label"] == name, said)
        )
        assert of(rows, "specificity", name, "argmax")["value"] == pytest.approx(
            metrics.recall_score(test["label"] != name, test["predicted"] != name)
        )
        assert of(rows, "auprc", name)["value"] == pytest.approx(
            metrics.average_precision_score(test["label"] == name, test[f"prob_{name}"])
        )
    assert of(rows, "mcc")["value"] == pytest.approx(metrics.matthews_corrcoef(test["label"], test["predicted"]))
    assert of(rows, "mcc")["clusters"] == 30
    assert of(rows, "auroc", "class 1")["positives"] == (test["label"] == "class 1").sum()
    assert of(rows, "auroc")["positives"] is None
    changed = validation.assign(label="class 0", predicted="class 0")  # what validation says changes thresholds alone
    others = rows_of(test, changed)
    assert of(others, "mcc") == of(rows, "mcc")
    assert of(others, "sensitivity", "class 1", "youden")["value"] is None
    assert "validation part has no sample" in of(others, "sensitivity", "class 1", "youden")["note"]


def test_each_fold_has_its_own_thresholds():
    test = pd.concat([answers(30, 2, 1, "test", 0), answers(30, 2, 2, "test", 1)])
    validation = pd.concat([answers(25, 2, 3, "val", 0), answers(25, 2, 4, "val", 1)])
    pooled = of(rows_of(test, validation), "sensitivity", "class 1", "youden")
    alone = []
    for fold in (0, 1):
        parts = [table[table["fold"] == fold] for table in (test, validation)]
        alone.append(of(rows_of(*parts), "sensitivity", "class 1", "youden"))
    limits = [row["threshold_low"] for row in alone]
    assert limits[0] != limits[1]
    assert (pooled["threshold_low"], pooled["threshold_high"]) == (min(limits), max(limits))
    positives = [(test["fold"] == fold) & (test["label"] == "class 1") for fold in (0, 1)]
    hits = sum(row["value"] * int(rows.sum()) for row, rows in zip(alone, positives, strict=True))
    assert pooled["value"] == pytest.approx(hits / sum(int(rows.sum()) for rows in positives))


def test_two_classes_have_a_stated_threshold_too():
    rows = rows_of(answers(40, 2, 1, "test"), answers(30, 2, 2, "val"))
    assert {row["rule"] for row in rows} == {"argmax", "fixed", "youden", "sensitivity-0.9", ""}
    assert of(rows, "npv", "class 1", "fixed")["threshold_high"] == 0.5


def test_several_labels_are_measured_as_such():
    generator = np.random.default_rng(0)
    tables = []
    for split, n in (("test", 50), ("val", 40)):
        table = pd.DataFrame(
            {"seed": 0, "fold": 0, "split": split, "patient_id": [f"{split}{row}" for row in range(n)]}
        )
        truth = generator.random((n, 2)) < 0.4
        for c, name in enumerate(("edema", "nodule")):
            table[f"prob_{name}"] = np.clip(generator.normal(0.4 + 0.2 * truth[:, c], 0.2), 0, 1)
            table[f"label_{name}"] = truth[:, c]
        tables.append(table)
    rows = rows_of(*tables)
    test = tables[0]
    truth = test[["label_edema", "label_nodule"]].to_numpy()
    scores = test[["prob_edema", "prob_nodule"]].to_numpy()
    assert of(rows, "macro_auroc")["value"] == pytest.approx(metrics.roc_auc_score(truth, scores, average="macro"))
    assert of(rows, "subset_accuracy", rule="fixed")["value"] == pytest.approx(
        metrics.accuracy_score(truth, scores >= 0.5)
    )
    assert {row["rule"] for row in rows} == {"fixed", "youden", "sensitivity-0.9", ""}


def test_without_validation_no_threshold_is_chosen():
    test = answers(40, 3, 1, "test")
    rows = rows_of(test, test.iloc[:0])
    assert of(rows, "f1", "class 0", "youden")["value"] is None
    assert of(rows, "f1", "class 0", "argmax")["value"] is not None


def test_another_data_sets_classes_are_passed_over():
    test = answers(40, 2, 1, "test").assign(prob_other=np.nan)
    rows = rows_of(test, answers(30, 2, 2, "val").assign(prob_other=np.nan))
    assert {row["class"] for row in rows} == {"", "class 0", "class 1"}
