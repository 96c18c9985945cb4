"""The tables of all measures: what stands in them, at which threshold, and why something is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pellucid.report.about import glossary
from pellucid.report.classifier import measures
from pellucid.report.tables import models_table
from pellucid.statistics import units_of
from pellucid.study.classified import main_rows, measured_rows
from references.classified import made_up


def answers(n: int, k: int, seed: int) -> pd.DataFrame:
    made = made_up(n, k, seed)
    names = [made.classes[c] for c in made.labels], [made.classes[c] for c in made.predicted]
    table = pd.DataFrame({"seed": 0, "fold": 0, "label": names[0], "predicted": names[1]})
    return table.assign(**{f"prob_{name}": made.probabilities[:, c] for c, name in enumerate(made.classes)})


def models_of(test: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    rows = measured_rows(test, validation, units_of("image", len(test)), resamples=20, confidence=0.95)
    table = pd.DataFrame(rows).assign(dataset="brain", model="net", fold="all", images="all")
    return table.astype(dict.fromkeys(("value", "low", "high", "threshold_low", "threshold_high"), float))


def test_every_class_has_a_table_with_its_thresholds():
    models = models_of(answers(60, 3, 1), answers(50, 3, 2))
    shown = measures("net", models, 0.95)
    overall, ranked, *classes = shown.tables
    assert [row[0].text for row in overall.rows] == [
        "Accuracy", "Balanced accuracy", "Macro F1", "AUROC", "AUPRC", "Cohen’s κ", "MCC", "Brier score", "Log loss"
    ]  # fmt: skip
    assert [row[0].text for row in ranked.rows] == ["class 0", "class 1", "class 2"]
    assert len(classes) == 3
    for name, table in zip(("class 0", "class 1", "class 2"), classes, strict=True):
        assert table.caption.startswith(f"{name}, ")
        youden = models[(models["class"] == name) & (models["rule"] == "youden")].set_index("metric")
        limit = youden["threshold_low"].iloc[0]
        assert list(table.columns[:2]) == ["Measure", "Predicted class"]
        assert table.columns[2] == f"Youden: ≥\u00a0{limit:.2f}"
        assert [row[0].text for row in table.rows] == ["Sensitivity", "Specificity", "PPV", "NPV", "F1"]
        assert [row[2].text for row in table.rows] == [
            f"{youden['value'][metric]:.3f}" for metric in ("sensitivity", "specificity", "ppv", "npv", "f1")
        ]


def test_two_classes_show_the_stated_threshold_only_where_it_differs():
    test = answers(60, 2, 1)
    assert (test["prob_class 0"] == 0.5).any()  # of which "class 0" is predicted, and both are stated
    _, _, first, second = measures("net", models_of(test, answers(50, 2, 2)), 0.95).tables
    assert "Stated: ≥\u00a00.50" not in first.columns
    assert "Stated: ≥\u00a00.50" in second.columns


def test_a_missing_class_is_told_and_its_rules_left_out():
    test, validation = answers(60, 3, 1), answers(50, 3, 2)
    validation["label"] = validation["label"].replace("class 1", "class 2")
    shown = measures("net", models_of(test[test["label"] != "class 2"].reset_index(drop=True), validation), 0.95)
    overall, ranked, _, second, third = shown.tables
    assert "there is none of 'class 2'" in overall.note
    assert "Undefined for 'class 2'" in ranked.note
    assert list(second.columns) == ["Measure", "Predicted class"]
    assert "validation part has no sample of the class" in second.note
    assert third.rows[0][1].text == "–"
    assert third.rows[1][1].text != "–"


def test_several_labels_show_their_averages():
    generator = np.random.default_rng(0)
    parts = []
    for n in (50, 40):
        truth = generator.random((n, 2)) < 0.4
        table = pd.DataFrame({"seed": 0, "fold": 0}, index=range(n))
        for c, name in enumerate(("edema", "nodule")):
            table[f"prob_{name}"] = np.clip(generator.normal(0.4 + 0.2 * truth[:, c], 0.2), 0, 1)
            table[f"label_{name}"] = truth[:, c]
        parts.append(table)
    models = models_of(*parts)
    shown = measures("net", models, 0.95)
    names = [row[0].text for row in shown.tables[0].rows]
    assert {"Subset accuracy", "Hamming loss", "PPV, micro", "AUROC, macro", "Brier score"} <= set(names)
    assert shown.tables[0].columns[1] == "Stated: ≥\u00a00.50"
    assert list(shown.tables[1].columns) == ["Class", "AUROC", "AUPRC", "Brier score", "Log loss"]
    rows = main_rows(models)
    assert not rows["metric"].duplicated().any()
    assert {"subset_accuracy", "macro_f1", "micro_auroc", "brier"} <= set(rows["metric"])
    main = models_table(models, {}, 0.95)
    names = ["Subset accuracy", "Macro F1", "AUROC, macro", "AUPRC, macro", "Hamming loss"]
    assert list(main.columns[2:]) == [*names, "n"]
    assert {len(row) for row in main.rows} == {len(main.columns)}
    subset = models[(models["metric"] == "subset_accuracy") & (models["rule"] == "fixed")]["value"].item()
    assert main.rows[0][2].text == f"{subset:.3f}"
    titles = {term.title for term in glossary((), set(models["metric"]), set(models["rule"]))}
    assert {"Macro", "Micro", "Subset accuracy", "Youden’s threshold", "NPV"} <= titles
    assert not {"MCC", "Predicted class"} & titles


def test_the_main_table_takes_no_chosen_threshold():
    models = models_of(answers(60, 3, 1), answers(50, 3, 2))
    table = models_table(models, {}, 0.95)
    assert list(table.columns[2:7]) == ["Accuracy", "Balanced accuracy", "Macro F1", "AUROC", "MCC"]
    values = models[models["class"] == ""].set_index("metric")["value"]
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "mcc")
    assert [cell.text for cell in table.rows[0][2:7]] == [f"{values[name]:.3f}" for name in names]


def test_every_measure_is_explained():
    models = models_of(answers(60, 3, 1), answers(50, 3, 2))
    terms = {term.title: term for term in glossary((), set(models["metric"]), set(models["rule"]))}
    shown = measures("net", models, 0.95)
    for table in shown.tables:
        for row in table.rows:
            assert row[0].text in terms or row[0].text.startswith("class ")
    assert terms["Log loss"].direction == "↓"
