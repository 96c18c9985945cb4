"""A family of comparisons, and the sentences made of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import (
    ROW_COLUMNS,
    TESTS,
    Evidence,
    adjust,
    compare,
    compare_all,
    correct_family,
    corrected_resampled_t,
    delong,
    detectable_difference,
    equivalence,
    mcnemar,
    non_inferiority,
    paired_t,
    permutation,
    wilcoxon,
)


@pytest.fixture
def scores():
    generator = np.random.default_rng(6)
    base = generator.normal(0.7, 0.1, size=120)
    return {
        "resnet18": base + generator.normal(0.04, 0.1, size=120),
        "mobilenetv3": base,
        "vgg16": base + generator.normal(0.0, 0.1, size=120),
    }


PATIENTS = [f"p{i}" for i in range(120)]


def test_every_pair_is_tested_and_corrected_over_all(scores):
    family = compare_all(scores, PATIENTS)
    assert [(pair.first, pair.second) for pair in family] == list(combinations(scores, 2))
    raw = [paired_t(scores[first], scores[second], PATIENTS) for first, second in combinations(scores, 2)]
    assert [pair.result for pair in family] == raw
    assert tuple(pair.adjusted_p for pair in family) == adjust([result.p_value for result in raw]).p_values
    assert {pair.family for pair in family} == {3}


def test_folds_are_compared_by_the_corrected_test():
    folds = {"a": [0.8, 0.7, 0.9, 0.8, 0.8], "b": [0.7, 0.7, 0.8, 0.7, 0.6]}
    (pair,) = compare_all(folds, "fold", "corrected-resampled-t", "benjamini-hochberg", sizes=(4, 1))
    assert pair.result == corrected_resampled_t(folds["a"], folds["b"], 4, 1)
    assert pair.correction == "benjamini-hochberg"
    assert "Benjamini–Hochberg-adjusted p = " in pair.sentence()
    assert "5 folds" in pair.sentence()


def test_sentence_of_a_difference_names_the_higher_first(scores):
    for names in (("resnet18", "mobilenetv3"), ("mobilenetv3", "resnet18")):
        (pair,) = compare_all({name: scores[name] for name in names}, PATIENTS)
        assert pair.significant
        low, high = sorted(abs(bound) for bound in pair.result.interval)
        assert pair.sentence() == (
            f"resnet18 scores {abs(pair.result.mean_difference):.3f} higher than mobilenetv3 "
            f"(95 % interval {low:.3f} to {high:.3f}, Holm-adjusted p < 0.001, 120 patients)."
        )


def test_sentence_where_no_difference_can_be_shown(scores):
    pair = compare_all(scores, PATIENTS)[2]
    assert not pair.significant
    assert pair.sentence().startswith("No difference can be shown between ")
    assert "interval −0." in pair.sentence()


def test_significance_follows_the_adjusted_p():
    generator = np.random.default_rng(0)
    a = generator.normal(0.4, 1.0, size=40)
    others = {f"m{i}": generator.normal(0.0, 1.0, size=40) for i in range(4)}
    family = compare_all({"a": a, **others}, "image")
    changed = [p for p in family if p.result.p_value <= 0.05 < p.adjusted_p]
    assert changed
    assert all(pair.sentence().startswith("No difference") for pair in changed)


def test_sentence_of_identical_ones(scores):
    family = compare_all({"grad-cam": scores["vgg16"], "xgrad-cam": scores["vgg16"].copy()}, PATIENTS)
    assert family[0].identical
    assert family[0].adjusted_p == 1.0
    assert family[0].sentence() == "grad-cam and xgrad-cam are identical (120 patients)."


def test_known_coincidence_is_identical_through_rounding(scores):
    nearly = {"grad-cam": scores["vgg16"], "xgrad-cam": scores["vgg16"] + 1e-3 * np.sin(np.arange(120))}
    assert not compare_all(nearly, PATIENTS)[0].identical
    (pair,) = compare_all(nearly, PATIENTS, coinciding=[("grad-cam", "hires-cam", "xgrad-cam")])
    assert pair.identical
    assert pair.adjusted_p == 1.0
    assert "through rounding" in pair.result.note


def test_sentences_where_no_test_can_be_made():
    (same,) = compare_all({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6]}, "fold")
    assert same.adjusted_p is None
    assert same.sentence() == (
        "a scores 0.100 higher than b, but that can't be tested: "
        "the difference is the same in all 3 folds, so there is no spread to hold it against."
    )
    (one,) = compare_all({"a": [0.5], "b": [0.6]}, "fold")
    assert one.sentence().startswith("b scores 0.100 higher than a, but that can't be tested: one fold only")
    (none,) = compare_all({"a": [np.nan, 0.1], "b": [0.1, np.nan]}, "fold")
    assert none.sentence() == "a and b can't be compared: no pair has a score on both sides."


def test_missing_ones_are_not_counted_in_the_family():
    generator = np.random.default_rng(1)
    a, c = generator.random(8), generator.random(8)
    family = compare_all({"a": a, "b": a + 0.25, "c": c, "gone": np.full(8, np.nan)}, "fold")
    assert [pair.adjusted_p is None for pair in family] == [True, False, True, False, True, True]
    assert {pair.family for pair in family} == {2}


def test_a_family_can_be_joined_and_corrected_again(scores):
    brain, skin = compare_all(scores, PATIENTS), compare_all({k: v[::2] for k, v in scores.items()}, "image")
    both = correct_family([*brain, *skin])
    assert {pair.family for pair in both} == {6}
    assert all(joint.adjusted_p >= alone.adjusted_p for joint, alone in zip(both, [*brain, *skin], strict=True))


def test_order_of_rows_changes_nothing(scores):
    shuffled = np.random.default_rng(0).permutation(120)
    ids = np.array([f"p{i % 30}" for i in range(120)])
    one = compare_all(scores, ids)
    other = compare_all({name: values[shuffled] for name, values in scores.items()}, ids[shuffled])
    for pair, same in zip(one, other, strict=True):
        assert pair.adjusted_p == pytest.approx(same.adjusted_p, rel=1e-9)
        assert pair.sentence() == same.sentence()


def test_one_name_has_nothing_to_be_compared_with():
    assert compare_all({"alone": [0.1, 0.2]}) == ()
    assert compare_all({}) == ()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"test": "t"}, UnknownNameError, "unknown test 't'"),
        ({"correction": "bonferoni"}, UnknownNameError, "unknown correction"),
        ({"test": "corrected-resampled-t"}, InputError, r"sizes: expected \(n_train, n_test\)"),
        ({"sizes": (4, 1)}, InputError, "sizes: expected None with test 'paired-t'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        compare_all({"a": [0.1, 0.2], "b": [0.2, 0.1]}, **arguments)


def test_vectors_of_different_length_are_refused():
    with pytest.raises(InputError, match="scores: expected vectors of one length"):
        compare_all({"a": [0.1, 0.2], "b": [0.2]})


@pytest.fixture
def evidence():
    """Three nets on 60 images of 60 patients of three classes."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, size=60)
    tables = {}
    for name, strength in (("resnet18", 1.6), ("vgg16", 0.6), ("densenet121", 1.5)):
        raw = generator.normal(size=(60, 3))
        raw[np.arange(60), labels] += strength
        tables[name] = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    right = {name: (table.argmax(axis=1) == labels).astype(float) for name, table in tables.items()}
    ids = [f"p{i}" for i in range(60)]
    return Evidence(scores=right, probabilities=tables, labels=labels, classes=("glioma", "no", "other"), units=ids)


def test_every_test_gives_rows_of_one_form(evidence):
    names = [entry.name for entry in TESTS]
    rows = [pair.row() for pair in compare(evidence, names, margin=0.3)]
    assert {tuple(row) for row in rows} == {ROW_COLUMNS}
    assert {row["test"] for row in rows} == set(names)
    for row in rows:
        assert all(value is None or isinstance(value, (str, bool, int)) or np.isfinite(value) for value in row.values())
        assert row["sentence"].endswith((".", "?"))
        assert row["p_adjusted"] is None or row["p_adjusted"] >= row["p_value"]
        if row["test"] == "corrected-resampled-t":
            assert row["note"] == f"There are no scores of folds for {row['a']}."
            assert row["sentence"] == (
                f"{row['a']} and {row['b']} aren't compared by corrected-resampled-t: "
                f"there are no scores of folds for {row['a']}."
            )
        elif row["test"] != "power":
            assert row["p_value"] is not None
            assert row["effect_low"] <= row["effect_size"] <= row["effect_high"]
            assert row["low"] <= row["mean_difference"] <= row["high"]


def test_each_result_is_its_functions(evidence):
    a, b = evidence.scores["resnet18"], evidence.scores["vgg16"]
    tables = evidence.probabilities["resnet18"], evidence.probabilities["vgg16"]
    alone = {
        "wilcoxon": wilcoxon(a, b, evidence.units),
        "permutation": permutation(a, b, evidence.units),
        "mcnemar": mcnemar(a, b, evidence.units),
        "delong": delong(evidence.labels, *tables, evidence.units),
        "equivalence": equivalence(a, b, 0.1, evidence.units),
        "power": detectable_difference(a, b, evidence.units),
    }
    for name, result in alone.items():
        assert compare(evidence, [name], margin=0.1)[0].result == result


def test_options_and_confidence_reach_the_test(evidence):
    pair = compare(evidence, ["wilcoxon[zeros=pratt]"], confidence=0.9)[0]
    expected = wilcoxon(*list(evidence.scores.values())[:2], evidence.units, zeros="pratt", confidence=0.9)
    assert pair.result == expected
    assert pair.result.level == pytest.approx(0.1)


def test_folds_are_taken_where_there_are_any(evidence):
    generator = np.random.default_rng(0)
    folds = {name: generator.normal(0.8, 0.05, size=5) for name in evidence.scores}
    both = replace(evidence, folds=folds, sizes=(4, 1))
    first, second = list(folds.values())[:2]
    found = {name: compare(both, [name], margin=0.1)[0] for name in ("paired-t", "non-inferiority", "power", "mcnemar")}
    assert found["paired-t"].result == paired_t(first, second, "fold")
    assert found["non-inferiority"].result == non_inferiority(first, second, 0.1, "fold", 1 / 4)
    assert found["power"].result == detectable_difference(first, second, "fold", 1 / 4)
    assert found["mcnemar"].result.unit == "patient"


def test_clustered_images_leave_a_row_that_names_the_clustered_form(evidence):
    clustered = replace(evidence, units=[f"p{i // 2}" for i in range(60)])
    found = compare(clustered, ["mcnemar", "delong", "mcnemar-clustered", "delong-clustered"])
    refused = [pair for pair in found if pair.refused]
    assert {pair.result.name for pair in refused} == {"mcnemar", "delong"}
    for pair in refused:
        assert (pair.adjusted_p, pair.result.n, pair.family) == (None, 0, 0)
        assert f"{pair.result.name}-clustered" in pair.sentence()
    assert all(pair.result.n == 30 for pair in found if not pair.refused)


def test_classes_are_a_family_of_their_own(evidence):
    found = compare(evidence, ["delong"])
    whole, single = [p for p in found if not p.subject], [p for p in found if p.subject]
    assert ({p.family for p in whole}, {p.family for p in single}) == ({3}, {9})
    assert {p.subject for p in single} == {"glioma", "no", "other"}
    assert "has an AUROC for “glioma” " in single[0].sentence()
    assert {p.family for p in compare(evidence, ["delong"], family="all")} == {12}


def test_the_declared_family_holds_all_tests(evidence):
    apart = compare(evidence, ["paired-t", "wilcoxon"])
    together = compare(evidence, ["paired-t", "wilcoxon"], family="all")
    assert {pair.family for pair in apart} == {3}
    assert {pair.family for pair in together} == {6}
    raw = [pair.result.p_value for pair in together]
    assert tuple(pair.adjusted_p for pair in together) == adjust(raw).p_values


def test_non_inferiority_is_asked_both_ways_round(evidence):
    found = compare(evidence, ["non-inferiority"], margin=0.2)
    assert len(found) == 6
    assert {(pair.first, pair.second) for pair in found} == set(permutations(evidence.scores, 2))
    better, worse = found[0], next(p for p in found if (p.first, p.second) == ("vgg16", "resnet18"))
    assert better.significant
    assert better.sentence().startswith("resnet18 is not worse than vgg16 by more than 0.2 (difference 0.")
    assert "90 % interval" in better.sentence()
    assert worse.sentence().startswith("It can't be shown that vgg16 is not worse than resnet18 by more than 0.2 (")


def test_sentences_of_equivalence_and_power(evidence):
    pair = next(p for p in compare(evidence, ["equivalence"], margin=0.3) if p.second == "densenet121")
    assert pair.sentence().startswith("resnet18 and densenet121 differ by less than 0.3 (difference ")
    generator = np.random.default_rng(8)
    near = {"a": generator.normal(0.80, 0.1, size=60), "b": generator.normal(0.81, 0.1, size=60)}
    (power,) = compare(Evidence(scores=near, units=evidence.units), ["power"])
    result = power.result
    assert power.sentence() == (
        f"With 60 patients a difference of {result.detectable:.3f} between a and b would be found 8 times out of 10. "
        f"The difference seen, {abs(result.mean_difference):.3f}, would take {result.needed:,} patients."
    )


def test_a_margin_that_was_not_stated_is_said():
    (first, *_) = compare(Evidence(scores={"a": [0.1, 0.4], "b": [0.2, 0.7]}), ["equivalence"])
    assert first.refused
    assert first.sentence() == "a and b aren't compared by equivalence: no margin was stated beforehand."


def test_what_stops_one_test_stops_no_other():
    """One fold, a class missing in a fold, and no probabilities: a stated answer each, in order."""
    folds = {"a": [0.8, np.nan, 0.9], "b": [0.7, 0.6, 0.7]}
    found = compare(Evidence(folds=folds, sizes=(2, 1)), ["delong", "corrected-resampled-t", "permutation", "mcnemar"])
    assert [pair.refused for pair in found] == [True, False, False, True]
    assert found[1].row()["note"] == "1 row without a score on either side left out."
    assert found[1].result.n == 2
    one = compare(Evidence(folds={"a": [0.8], "b": [0.7]}, sizes=(2, 1)), ["paired-t", "wilcoxon", "power"])
    assert all("one fold only" in pair.sentence() for pair in one)


def test_an_arm_without_scores_is_named():
    evidence = Evidence(scores={"a": [0.0, 1.0]}, probabilities={"b": [[0.1, 0.9], [0.2, 0.8]]}, labels=[0, 1])
    (pair,) = compare(evidence, ["paired-t"])
    assert pair.sentence().endswith("there are no scores of images for b.")
    (ranks,) = compare(evidence, ["friedman-nemenyi"])
    assert ranks.refused


def test_unknown_tests_and_families_are_refused(evidence):
    with pytest.raises(UnknownNameError, match="unknown test 'delongs'"):
        compare(evidence, ["delongs"])
    with pytest.raises(InputError, match="family: expected 'test' or 'all'"):
        compare(evidence, ["paired-t"], family="each")
    with pytest.raises(UnknownNameError, match="unknown option of test 'wilcoxon'"):
        compare(evidence, ["wilcoxon[zero=pratt]"])
