"""A family of comparisons, and the sentences made of it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pellucid.errors import InputError, UnknownNameError
from pellucid.statistics import adjust, compare_all, correct_family, corrected_resampled_t, paired_t


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
