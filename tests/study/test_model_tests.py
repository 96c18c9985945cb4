"""The models' tests of a study: which are made of which design, corrected over which family, recomputed by SciPy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pellucid.errors import InputError
from pellucid.statistics import adjust, corrected_resampled_t, delong_clustered, detectable_difference
from pellucid.study.config import StatisticsSettings, parse_config
from pellucid.study.families import TEST_COLUMNS
from pellucid.study.model_tests import POWER_COLUMNS, compared_models

CLASSES = ("glioma", "none", "other")
STRENGTHS = {"resnet18": 1.5, "vgg16": 0.7, "densenet121": 1.4}


def predictions(
    dataset: str = "brain", folds: int = 1, per_patient: int = 1, seeds: int = 1, images: int = 60, copies: int = 0
) -> pd.DataFrame:
    """Made-up test predictions of three nets; each image in one fold."""
    generator = np.random.default_rng(len(dataset) + folds)
    labels = generator.integers(0, 3, size=images)
    tables = []
    for model, strength in STRENGTHS.items():
        for seed in range(seeds):
            raw = generator.normal(size=(images, 3))
            raw[np.arange(images), labels] += strength
            chances = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
            table = pd.DataFrame({f"prob_{name}": chances[:, k] for k, name in enumerate(CLASSES)})
            tables.append(
                table.assign(
                    dataset=dataset,
                    model=model,
                    seed=seed,
                    fold=np.arange(images) % folds,
                    split="test",
                    sample=[f"{dataset}-{i}" for i in range(images)],
                    patient_id=[f"p{i // (folds * per_patient)}" for i in range(images)] if per_patient else "",
                    label=[CLASSES[k] for k in labels],
                    predicted=[CLASSES[k] for k in chances.argmax(axis=1)],
                    correct=chances.argmax(axis=1) == labels,
                    copy_in_train=np.arange(images) < copies,
                )
            )
    return pd.concat(tables, ignore_index=True)


SIZES = {"brain": (48.0, 12.0), "skin": (48.0, 12.0)}


def test_folds_are_compared_by_the_corrected_and_the_papers_t():
    answers = predictions(folds=5)
    found = compared_models(answers, SIZES, StatisticsSettings())
    assert list(found.tests.columns) == TEST_COLUMNS
    assert list(dict.fromkeys(found.tests["test"])) == ["corrected-resampled-t", "paired-t"]
    accuracy = answers.groupby(["fold", "model"])["correct"].mean().unstack()
    for _, row in found.tests.iterrows():
        a, b = accuracy[row["a"]], accuracy[row["b"]]
        wanted = stats.ttest_rel(a, b)
        ratio = np.sqrt(1 + 5 * 12 / 48) if row["test"] == "corrected-resampled-t" else 1.0
        assert row["statistic"] == pytest.approx(wanted.statistic / ratio)
        assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(wanted.statistic / ratio), 4))
        assert (row["n"], row["unit"], row["family"], row["metric"]) == (5, "fold", 3, "accuracy")
    assert list(found.power.columns) == POWER_COLUMNS
    first = found.power.iloc[0]
    alone = detectable_difference(accuracy["resnet18"], accuracy["vgg16"], "fold", 12 / 48)
    assert first["detectable"] == pytest.approx(alone.detectable)
    assert first["sentence"].startswith("With 5 folds a difference of ")


def test_one_hold_out_is_compared_by_patient_and_by_answers():
    found = compared_models(predictions(), SIZES, StatisticsSettings()).tests
    assert list(dict.fromkeys(found["test"])) == ["paired-t", "permutation", "mcnemar", "delong"]
    assert set(found.loc[found["test"] == "delong", "of"]) == {"", *CLASSES}
    assert set(found.loc[found["test"] == "delong", "metric"]) == {"auroc"}
    assert (found["n"] == 60).all()
    answers = predictions()
    right = answers.pivot(index="sample", columns="model", values="correct")
    row = found[found["test"] == "mcnemar"].iloc[0]
    a, b = right[row["a"]], right[row["b"]]
    assert row["p_value"] == pytest.approx(stats.binomtest(int((a & ~b).sum()), int((a ^ b).sum())).pvalue)


def test_images_of_one_patient_are_compared_by_the_clustered_forms():
    answers = predictions(per_patient=3)
    found = compared_models(answers, SIZES, StatisticsSettings()).tests
    assert list(dict.fromkeys(found["test"])) == ["paired-t", "permutation", "mcnemar-clustered", "delong-clustered"]
    assert (found["n"] == 20).all()
    row = found[(found["test"] == "delong-clustered") & (found["of"] == "")].iloc[0]
    sides = {}
    for name in (row["a"], row["b"]):
        sides[name] = answers[answers["model"] == name].sort_values("sample")
    first, second = sides.values()
    chances = [f"prob_{name}" for name in CLASSES]
    alone = delong_clustered(
        [CLASSES.index(label) for label in first["label"]],
        first[chances].to_numpy(),
        second[chances].to_numpy(),
        list(first["patient_id"]),
    )
    assert row["p_value"] == pytest.approx(alone.p_value)
    assert row["statistic"] == pytest.approx(alone.statistic)


def test_a_test_that_does_not_suit_leaves_a_stated_row():
    settings = StatisticsSettings(tests=("mcnemar", "corrected-resampled-t", "equivalence", "wilcoxon[zeros=pratt]"))
    found = compared_models(predictions(per_patient=3), SIZES, settings).tests
    notes = found.drop_duplicates("test").set_index("test")["note"]
    assert "Use mcnemar-clustered (Durkalski 2003)" in notes["mcnemar"]
    assert notes["corrected-resampled-t"].startswith("There are no scores of folds")
    assert notes["equivalence"] == "No margin was stated beforehand."
    assert "(Pratt)" in notes["wilcoxon"] or "after ranking" in notes["wilcoxon"]
    assert found.loc[found["test"] != "wilcoxon", "p_value"].isna().all()
    assert found["sentence"].str.len().gt(0).all()


def test_several_seeds_are_averaged_and_have_no_answers_of_their_own():
    answers = predictions(seeds=2)
    found = compared_models(answers, SIZES, StatisticsSettings()).tests
    assert list(dict.fromkeys(found["test"])) == ["paired-t", "permutation"]
    mean = answers.groupby(["sample", "model"])["correct"].mean().unstack()
    row = found.iloc[0]
    assert row["p_value"] == pytest.approx(stats.ttest_rel(mean[row["a"]], mean[row["b"]]).pvalue)


def test_a_margin_brings_non_inferiority_and_equivalence():
    found = compared_models(predictions(folds=5), SIZES, StatisticsSettings(margin=0.2)).tests
    counts = found.groupby("test").size()
    assert (counts["non-inferiority"], counts["equivalence"]) == (6, 3)
    assert set(found["margin"].dropna()) == {0.2}
    assert found[found["test"] == "non-inferiority"]["sentence"].str.contains("not worse than").all()
    named = compared_models(predictions(folds=5), SIZES, StatisticsSettings(tests=("wilcoxon",), margin=0.2)).tests
    assert set(named["test"]) == {"wilcoxon", "non-inferiority", "equivalence"}
    alone = compared_models(predictions(folds=5), SIZES, StatisticsSettings(tests=("equivalence",), margin=0.2)).tests
    assert set(alone["test"]) == {"equivalence"}


@pytest.mark.parametrize(("declared", "size"), [("test", 6), ("data-set", 3), ("study", 12)])
def test_the_declared_family_is_corrected_together(declared, size):
    answers = pd.concat([predictions("brain", folds=5), predictions("skin", folds=5)], ignore_index=True)
    found = compared_models(answers, SIZES, StatisticsSettings(family=declared)).tests
    assert set(found["family"]) == {size}
    keys = {"test": ["test"], "data-set": ["test", "dataset"], "study": ["images"]}[declared]
    for _, part in found.groupby(keys):
        assert part["p_adjusted"].tolist() == pytest.approx(adjust(part["p_value"].tolist()).p_values)


def test_copies_are_left_out_of_a_second_set_of_images():
    found = compared_models(predictions(copies=12), SIZES, StatisticsSettings(tests=("paired-t",)))
    assert found.tests.groupby("images")["n"].first().to_dict() == {"all": 60, "without copies": 48}
    assert found.power.groupby("images")["n"].first().to_dict() == {"all": 60, "without copies": 48}


def test_a_fold_that_a_model_lacks_is_left_out_and_said():
    answers = predictions(folds=5)
    answers = answers[~((answers["model"] == "vgg16") & (answers["fold"] == 2))]
    found = compared_models(answers, SIZES, StatisticsSettings()).tests.set_index(["test", "a", "b"])
    row = found.loc["corrected-resampled-t", "resnet18", "vgg16"]
    assert (row["n"], row["note"]) == (4, "1 row without a score on either side left out.")
    accuracy = answers.groupby(["fold", "model"])["correct"].mean().unstack().dropna()
    alone = corrected_resampled_t(accuracy["resnet18"], accuracy["vgg16"], 48, 12)
    assert row["p_value"] == pytest.approx(alone.p_value)


def test_nothing_to_compare_gives_empty_tables():
    empty = compared_models(pd.DataFrame(), {}, StatisticsSettings())
    assert (len(empty.tests), len(empty.power)) == (0, 0)
    answers = predictions()
    alone = compared_models(answers[answers["model"] == "vgg16"], SIZES, StatisticsSettings())
    assert (len(alone.tests), list(alone.tests.columns)) == (0, TEST_COLUMNS)


def test_settings_are_checked(tmp_path):
    fields = {"models": ["resnet18"], "datasets": [{"name": "a", "path": "phantom:chest"}]}
    with pytest.raises(InputError, match=r"statistics\.tests.*unknown test 'mcnemr'. Did you mean 'mcnemar'"):
        parse_config({**fields, "statistics": {"tests": ["mcnemr"]}}, base=tmp_path)
    with pytest.raises(InputError, match=r"statistics\.margin"):
        parse_config({**fields, "statistics": {"margin": 0}}, base=tmp_path)
    chosen = parse_config({**fields, "statistics": {"tests": ["permutation[seed=3]"]}}, base=tmp_path)
    assert chosen.statistics.tests == ("permutation[seed=3]",)


def test_models_are_compared_on_external_sets_by_patient_over_the_networks_of_all_folds():
    answers = predictions(folds=5)
    abroad = pd.concat(
        [
            predictions("brain", images=40, copies=10).assign(
                split="external abroad",
                fold=fold,
                correct=lambda rows, fold=fold: rows["correct"] ^ (rows.index % 7 == fold),
            )
            for fold in range(5)
        ],
        ignore_index=True,
    )
    found = compared_models(answers, SIZES, StatisticsSettings(), abroad).tests
    alone = compared_models(answers, SIZES, StatisticsSettings()).tests
    inside = found[found["images"] == "all"].reset_index(drop=True)
    pd.testing.assert_frame_equal(inside, alone)
    assert set(found["images"]) == {"all", "external abroad", "external abroad without copies"}
    rows = found[(found["images"] == "external abroad") & (found["test"] == "paired-t")]
    assert len(rows) == 3
    means = abroad.groupby(["patient_id", "model"])["correct"].mean().unstack()
    for _, row in rows.iterrows():
        known = stats.ttest_rel(means[row["a"]], means[row["b"]])
        assert row["n"] == 40
        assert row["statistic"] == pytest.approx(known.statistic)
        assert row["p_value"] == pytest.approx(known.pvalue)
    assert "corrected-resampled-t" not in set(found[found["images"] != "all"]["test"])  # the folds share these images
    clean = found[(found["images"] == "external abroad without copies") & (found["test"] == "paired-t")]
    assert set(clean["n"]) == {30}
