from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats.contingency import association
from sklearn.metrics import balanced_accuracy_score

from pellucid.data.leakage.confounded import findings
from pellucid.data.leakage.confounding import ASSOCIATION_COLUMNS, associations, cramers_v
from pellucid.data.manifest import Manifest

Build = Callable[..., Manifest]


def test_cramers_v_is_scipys_but_for_the_bias() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 4, 20_000)
    second = np.where(generator.random(20_000) < 0.5, first % 3, generator.integers(0, 3, 20_000))
    plain = association(pd.crosstab(first, second).to_numpy(), method="cramer")
    assert cramers_v(first, second) == pytest.approx(plain, abs=1e-3)
    # without association the plain value grows with the number of categories; the corrected one stays near 0
    many, labels = generator.integers(0, 50, 200), generator.integers(0, 2, 200)
    assert association(pd.crosstab(many, labels).to_numpy(), method="cramer") > 0.4
    drawn = [cramers_v(generator.integers(0, 50, 200), generator.integers(0, 2, 200)) for _ in range(30)]
    assert np.mean(drawn) < 0.1


def test_the_rule_judges_each_patient_without_their_own_images(manifest_of: Build) -> None:
    generator = np.random.default_rng(4)
    labels = [str(label) for label in generator.choice(["a", "b", "c"], 60, p=[0.5, 0.3, 0.2])]
    patients = [f"p{index // 2}" for index in range(60)]
    scanner = [f"s{(ord(label) + generator.integers(0, 3)) % 4}" for label in labels]
    found = associations(manifest_of(labels, patient_id=patients, scanner=scanner))
    assert tuple(found.columns) == ASSOCIATION_COLUMNS
    table = pd.DataFrame({"label": labels, "unit": patients, "value": scanner})
    for label in "abc":
        here = table["label"] == label
        said = []
        for row in table.itertuples():
            others = table["unit"] != row.unit
            with_value = table["value"] == row.value
            yes = (with_value & here & others).sum() / (here & others).sum()
            no = (with_value & ~here & others).sum() / (~here & others).sum()
            said.append(0.5 if np.isclose(yes, no) else float(yes > no))
        right = np.where(here, said, 1 - np.array(said))
        wanted = (right[here].mean() + right[~here].mean()) / 2
        got = found[(found["label"] == label) & (found["column"] == "scanner")].iloc[0]
        assert got["balanced_accuracy"] == pytest.approx(wanted)
        if 0.5 not in said:
            assert wanted == pytest.approx(balanced_accuracy_score(here, np.array(said) > 0.5))
        assert got["low"] < got["balanced_accuracy"]
        assert got["units"] == table.loc[here, "unit"].nunique()


def test_a_source_that_tells_the_class_alarms_and_chance_does_not(manifest_of: Build) -> None:
    generator = np.random.default_rng(1)
    labels = ["covid"] * 40 + ["normal"] * 60 + ["pneumonia"] * 60
    told = manifest_of(
        labels,
        site=["reports"] * 40 + ["hospital"] * 120,
        scanner=generator.choice(["x", "y", "z"], 160),
        kvp=generator.normal(100, 10, 160),
        study_uid=[f"u{index}" for index in range(160)],
        comment=[f"text {index}" for index in range(160)],
    )
    found = findings(told)
    assert [finding.kind for finding in found] == ["confounded"]
    assert found[0].severity == "alarm"
    assert found[0].rows[["column", "label", "value"]].to_numpy().tolist() == [["site", "covid", "reports"]]
    assert found[0].rows["balanced_accuracy"].iloc[0] == 1
    assert found[0].rows["cramers_v"].iloc[0] == pytest.approx(1, abs=0.01)
    assert "covid can be told by site" in found[0].sentence
    mixed = replace(told, table=told.table.assign(site=generator.permutation(told.table["site"])))
    assert findings(mixed) == []


def test_numbers_and_missing_values_can_tell_a_class(manifest_of: Build) -> None:
    generator = np.random.default_rng(2)
    dose = np.concatenate([generator.normal(5, 1, 50), generator.normal(20, 1, 50)])
    found = findings(manifest_of(["a"] * 50 + ["b"] * 50, dose=dose, view=[""] * 50 + ["PA", "AP"] * 25))
    assert [finding.kind for finding in found] == ["confounded"]
    rows = found[0].rows.set_index(["column", "label"])
    assert rows.loc[("dose", "b"), "balanced_accuracy"] > 0.95
    assert rows.loc[("view", "a"), "value"] == "none given"


def test_the_label_by_another_name_and_what_names_images_are_no_sources(manifest_of: Build) -> None:
    labels = ["glioma"] * 30 + ["healthy"] * 30
    manifest = manifest_of(
        labels,
        finding=["Glioma tumour"] * 30 + ["healthy"] * 30,
        source_label=labels,
        lesion_id=[f"l{index // 10}" for index in range(60)],
        patient_id=[f"p{index // 5}" for index in range(60)],
        mask=["m.png"] * 30 + [""] * 30,
        split=["train"] * 30 + ["test"] * 30,
    )
    assert associations(manifest).empty


def test_a_site_that_holds_a_short_class_name_is_still_a_source(manifest_of: Build) -> None:
    (found,) = findings(manifest_of(["0"] * 30 + ["1"] * 30, site=["site0"] * 30 + ["site1"] * 30))
    assert found.kind == "confounded"
    assert set(found.rows["column"]) == {"site"}


def test_one_patient_with_many_images_proves_nothing(manifest_of: Build) -> None:
    # all of class b that site y holds is of one patient
    labels = ["a"] * 40 + ["b"] * 40
    patients = [f"a{index}" for index in range(40)] + ["b0"] * 30 + [f"b{index}" for index in range(1, 11)]
    site = ["x"] * 40 + ["y"] * 30 + ["x"] * 10
    assert findings(manifest_of(labels, patient_id=patients, site=site)) == []


def test_age_and_sex_are_facts(manifest_of: Build) -> None:
    generator = np.random.default_rng(3)
    age = np.concatenate([generator.normal(30, 4, 40), generator.normal(70, 4, 40)])
    found = findings(manifest_of(["a"] * 40 + ["b"] * 40, age=age, sex=["F", "M"] * 40))
    assert [(finding.kind, finding.severity) for finding in found] == [("age-and-sex", "note")]
    assert f"from {age[:40].mean():.0f} years (a) to {age[40:].mean():.0f} (b)" in found[0].sentence
    assert "Age tells a (balanced accuracy 0.9" in found[0].sentence or "(balanced accuracy 1.00)" in found[0].sentence
    assert "the share of sex F from 50 % (a) to 50 % (b)" in found[0].sentence


def test_of_several_labels_each_is_told_by_itself(manifest_of: Build) -> None:
    labels = ["edema|nodule"] * 20 + ["nodule"] * 20 + ["edema"] * 20 + [""] * 20
    manifest = manifest_of(labels, scanner=["x"] * 40 + ["y"] * 40)
    (found,) = findings(replace(manifest, classes=("edema", "nodule"), multi_label=True))
    assert found.rows[["column", "label"]].to_numpy().tolist() == [["scanner", "nodule"]]
    assert found.rows["balanced_accuracy"].iloc[0] == 1


def test_few_images_say_nothing(manifest_of: Build) -> None:
    assert findings(manifest_of(["a"] * 4 + ["b"] * 4, site=["x"] * 4 + ["y"] * 4)) == []
