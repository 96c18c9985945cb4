from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data.groups import independent_groups
from pellucid.data.leakage import count_copies
from pellucid.data.manifest import Manifest, load_manifest
from pellucid.data.splits import SPLIT_COLUMNS, assign_splits, inner_folds, split_notes
from pellucid.errors import InputError

Build = Callable[..., Manifest]


def counts(splits: pd.DataFrame) -> dict[str, int]:
    return splits["split"].value_counts().to_dict()


def parts_of(splits: pd.DataFrame, groups: np.ndarray) -> int:
    """The largest number of parts that one group lies in, within a fold."""
    return int(
        splits.assign(group=np.tile(groups, splits["fold"].nunique()))
        .groupby(["fold", "group"])["split"]
        .nunique()
        .max()
    )


def pure_groups(manifest: Manifest) -> int:
    """The smallest number, over the classes, of groups that hold one class only; as many parts are possible."""
    table = manifest.table.assign(group=independent_groups(manifest.table))
    pure = table[table.groupby("group")["label"].transform("nunique") == 1].groupby("label")["group"].nunique()
    return int(pure.reindex(manifest.classes, fill_value=0).min())


def crosses(manifest: Manifest, splits: pd.DataFrame) -> bool:
    table = manifest.table.sort_values("sample", ignore_index=True)
    return parts_of(splits, independent_groups(table)) > 1


def test_shares_and_columns(manifest_of: Build) -> None:
    manifest = manifest_of("a" * 100 + "b" * 50)
    splits = assign_splits(manifest, test=0.2, validation=0.15, seed=3)
    assert tuple(splits.columns) == SPLIT_COLUMNS
    assert splits["sample"].tolist() == manifest.table["sample"].tolist()
    assert set(splits["fold"]) == {0}
    table = splits.groupby(["split", "label"]).size()
    assert table.to_dict() == {
        ("test", "a"): 20,
        ("test", "b"): 10,
        ("val", "a"): 12,
        ("val", "b"): 6,
        ("train", "a"): 68,
        ("train", "b"): 34,
    }
    assert not splits["copy_in_train"].any()


def test_the_seed_decides_and_nothing_else(manifest_of: Build) -> None:
    manifest = manifest_of("ab" * 40, patient_id=[f"p{index // 3}" for index in range(80)])
    order = np.random.default_rng(0).permutation(80)
    shuffled = Manifest("shuffled", Path(), manifest.table.iloc[order], manifest.classes)
    for folds in (1, 4):
        first = assign_splits(manifest, folds=folds, seed=5)
        np.random.seed(1)  # noqa: NPY002  the global state must not matter
        pd.testing.assert_frame_equal(assign_splits(manifest, folds=folds, seed=5), first)
        pd.testing.assert_frame_equal(assign_splits(shuffled, folds=folds, seed=5), first)
        assert not assign_splits(manifest, folds=folds, seed=6)["split"].equals(first["split"])


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[str], list[str], list[str]]:
    """Labels, patients and pixel hashes, with patients of one label or of several."""
    classes = draw(st.integers(2, 4))
    mixed = draw(st.booleans())
    labels, patients, hashes = [], [], []
    for name in range(classes):
        for patient in range(draw(st.integers(4, 15))):
            owner = f"p{patient}" if mixed and draw(st.integers(0, 9)) == 0 else f"p{name}-{patient}"
            for _ in range(draw(st.integers(1, 4))):
                labels.append("abcd"[name])
                patients.append(owner if draw(st.integers(0, 4)) else "")
                hashes.append(f"copy {draw(st.integers(0, 3))}" if draw(st.integers(0, 24)) == 0 else f"h{len(hashes)}")
    return labels, patients, hashes


@settings(max_examples=40, deadline=None)
@given(data=data_sets(), seed=st.integers(0, 10_000))
def test_no_group_crosses_and_every_class_is_everywhere(
    data: tuple[list[str], list[str], list[str]], seed: int, manifest_of: Build
) -> None:
    labels, patients, hashes = data
    manifest = manifest_of(labels, patient_id=patients, pixel_hash=hashes)
    if pure_groups(manifest) < 3:
        return
    splits = assign_splits(manifest, seed=seed)
    assert not crosses(manifest, splits)
    assert not splits["copy_in_train"].any()
    assert set(splits.groupby(["split", "label"]).groups) == {(p, c) for p in ("train", "val", "test") for c in labels}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 3), min_size=20, max_size=60), min_size=2, max_size=4),
    test=st.floats(0.1, 0.5),
    validation=st.floats(0.1, 0.5),
    seed=st.integers(0, 10_000),
)
def test_shares_are_near_in_each_class(
    sizes: list[list[int]], test: float, validation: float, seed: int, manifest_of: Build
) -> None:
    labels = [name for name, groups in zip("abcd", sizes, strict=False) for size in groups for _ in range(size)]
    patients = [f"{n}{g}" for n, groups in enumerate(sizes) for g, size in enumerate(groups) for _ in range(size)]
    splits = assign_splits(manifest_of(labels, patient_id=patients), test=test, validation=validation, seed=seed)
    got = splits.groupby(["label", "split"]).size().unstack()
    whole = got.sum(axis=1)
    # groups hold up to three images, so that no class can miss its share by more than two
    assert ((got["test"] - test * whole).abs() <= 2).all()
    assert ((got["val"] - validation * (whole - got["test"])).abs() <= 2).all()


@settings(max_examples=25, deadline=None)
@given(data=data_sets(), folds=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_folds_test_each_image_once(
    data: tuple[list[str], list[str], list[str]], folds: int, seed: int, manifest_of: Build
) -> None:
    labels, patients, hashes = data
    manifest = manifest_of(labels, patient_id=patients, pixel_hash=hashes)
    if pure_groups(manifest) < max(folds, 4):
        return
    splits = assign_splits(manifest, folds=folds, seed=seed)
    tested = splits[splits["split"] == "test"]
    assert sorted(tested["sample"]) == sorted(manifest.table["sample"])
    assert not crosses(manifest, splits)
    assert len(splits.groupby(["fold", "split", "label"]).groups) == folds * 3 * len(set(labels))


def test_folds_are_alike_in_each_class(manifest_of: Build) -> None:
    labels = ["a"] * 103 + ["b"] * 41 + ["c"] * 5
    splits = assign_splits(manifest_of(labels), folds=5, validation=0.2)
    sizes = splits.groupby(["label", "split", "fold"]).size().unstack("fold")
    assert (sizes.max(axis=1) - sizes.min(axis=1) <= 1).all()
    assert sizes.loc[("c", "test")].tolist() == [1] * 5
    assert sizes.loc[("b", "val")].between(6, 7).all()


def test_groups_join_patients_lesions_and_copies() -> None:
    table = pd.DataFrame(
        {
            "patient_id": ["p", "p", "", "", "q", "", ""],
            "pixel_hash": ["1", "2", "2", "3", "4", "5", "6"],
            "lesion_id": ["", "", "l", "l", "", "m", None],
        }
    )
    assert independent_groups(table).tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_the_given_test_part_stays_as_it_is(manifest_of: Build) -> None:
    given_split = ["train"] * 40 + ["test"] * 10
    manifest = manifest_of("ab" * 25, split=given_split)
    for use in ("auto", "given"):
        splits = assign_splits(manifest, validation=0.25, split=use)
        assert counts(splits) == {"train": 30, "test": 10, "val": 10}
        assert (splits.loc[splits["split"] == "test", "sample"] == manifest.table["sample"][40:]).all()
    assert not assign_splits(manifest, split="random")["split"].equals(assign_splits(manifest)["split"])


def test_a_given_validation_part_stays_too(manifest_of: Build) -> None:
    given_split = ["train"] * 20 + ["val"] * 6 + ["test"] * 6
    splits = assign_splits(manifest_of("ab" * 16, split=given_split))
    assert splits["split"].tolist() == given_split


def test_a_missing_test_part_is_drawn_from_training(manifest_of: Build) -> None:
    given_split = ["train"] * 40 + ["val"] * 10
    splits = assign_splits(manifest_of("ab" * 25, split=given_split), test=0.2)
    assert counts(splits) == {"train": 32, "val": 10, "test": 8}
    assert splits["split"].tolist()[40:] == ["val"] * 10


def test_a_split_that_names_only_training_is_none(manifest_of: Build) -> None:
    manifest = manifest_of("ab" * 30, split=["train"] * 60)
    assert set(assign_splits(manifest)["split"]) == {"train", "val", "test"}
    assert assign_splits(manifest, folds=3)["fold"].nunique() == 3
    with pytest.raises(InputError, match="gives a test part"):
        assign_splits(manifest, split="given")


def test_twins_of_test_images_stay_in_training_and_are_told(manifest_of: Build) -> None:
    hashes = [f"h{index}" for index in range(60)]
    hashes[50:60] = hashes[:10]
    manifest = manifest_of("ab" * 30, split=["train"] * 50 + ["test"] * 10, pixel_hash=hashes)
    for seed in range(5):
        splits = assign_splits(manifest, validation=0.4, seed=seed)
        assert splits["copy_in_train"].tolist() == [False] * 50 + [True] * 10
        assert set(splits["split"][:10]) == {"train"}


def test_where_every_image_has_a_twin_validation_is_drawn_all_the_same(manifest_of: Build) -> None:
    hashes = [f"h{index % 20}" for index in range(40)]
    manifest = manifest_of("ab" * 20, split=["train"] * 20 + ["test"] * 20, pixel_hash=hashes)
    splits = assign_splits(manifest, validation=0.2)
    assert counts(splits) == {"train": 16, "val": 4, "test": 20}
    in_training = set(splits.loc[splits["split"] == "train", "sample"])
    wanted = [f"{index % 20:04d}.png" in in_training and index >= 20 for index in range(40)]
    assert splits["copy_in_train"].tolist() == wanted


def test_copies_and_lesions_stay_together(manifest_of: Build) -> None:
    lesions = [f"l{index // 4}" if index < 40 else "" for index in range(80)]
    hashes = [f"h{index // 2}" for index in range(80)]
    manifest = manifest_of("ab" * 40, lesion_id=lesions, pixel_hash=hashes)
    for seed in range(5):
        splits = assign_splits(manifest, seed=seed)
        for binding in (lesions, hashes):
            known = splits.assign(binding=binding)[np.array(binding) != ""]
            assert known.groupby("binding")["split"].nunique().max() == 1


def test_a_patient_in_two_given_parts_is_refused_without_naming_him(manifest_of: Build) -> None:
    manifest = manifest_of(
        "ab" * 10, split=["train"] * 15 + ["test"] * 5, patient_id=["Jane Doe"] + [""] * 17 + ["Jane Doe", ""]
    )
    with pytest.raises(InputError, match=r"1 patients in several.*0000\.png \(train\), 0018\.png \(test\)") as caught:
        assign_splits(manifest)
    assert "Jane" not in str(caught.value)
    assert '"random"' in str(caught.value)
    assert set(assign_splits(manifest, split="random").query("patient_id != ''")["split"].value_counts()) == {2}


def test_folds_of_a_given_split_are_refused_with_the_way_on(manifest_of: Build) -> None:
    manifest = manifest_of("ab" * 20, split=["train"] * 30 + ["test"] * 10)
    with pytest.raises(InputError, match='"random" to pool all images, or folds = 1'):
        assign_splits(manifest, folds=5)
    assert assign_splits(manifest, folds=5, split="random")["fold"].nunique() == 5


def test_a_split_for_some_images_only_is_refused(manifest_of: Build) -> None:
    manifest = manifest_of("ab" * 10, split=["train"] * 12 + ["test"] * 7 + [""])
    with pytest.raises(InputError, match=r"1 images without, e\.g\. 0019\.png"):
        assign_splits(manifest)


def test_classes_that_are_too_small_are_refused(manifest_of: Build) -> None:
    with pytest.raises(InputError, match=r"at least 3 independent images of each class.*got 1 of 'b'.*leave it out"):
        assign_splits(manifest_of("aaaaaab"))
    with pytest.raises(InputError, match=r"got 1 of 'b' \(4, bound by patient"):
        assign_splits(manifest_of("aaaaaabbbb", patient_id=[""] * 6 + ["p"] * 4))
    with pytest.raises(InputError, match=r"at least 4 .*2 folds, got 3 of 'b'"):
        assign_splits(manifest_of("a" * 20 + "b" * 3), folds=2)
    with pytest.raises(InputError, match=r"at least 5 .*5 folds, got 4 of 'b'"):
        assign_splits(manifest_of("a" * 20 + "b" * 4), folds=5)
    with pytest.raises(InputError, match=r"at least 2 .* in the training part.*got 1 of 'b'"):
        assign_splits(manifest_of("aaabab", split=["train"] * 4 + ["test"] * 2))
    with pytest.raises(InputError, match=r"got 0 of 'c'"):
        assign_splits(manifest_of("aaabbbabc", split=["train"] * 6 + ["test"] * 3))


def test_the_smallest_classes_that_can_be_parted(manifest_of: Build) -> None:
    splits = assign_splits(manifest_of("aaabbb"), test=0.01, validation=0.9)
    assert splits.groupby(["split", "label"]).size().tolist() == [1] * 6
    assert len(assign_splits(manifest_of("aaabbb"), folds=3)) == 18


def test_classes_bound_to_each_other_are_refused(manifest_of: Build) -> None:
    # three groups each, but parting them so that each part has both needs the one group twice
    manifest = manifest_of("aabbcc" + "abc", patient_id=["1", "2", "2", "3", "3", "1"] + ["4"] * 3)
    with pytest.raises(InputError, match="bound to each other"):
        assign_splits(manifest)


@pytest.mark.parametrize("name", ["test", "validation"])
@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_shares_must_lie_between_0_and_1(name: str, share: float, manifest_of: Build) -> None:
    with pytest.raises(InputError, match=f"{name}: expected a share between 0 and 1"):
        assign_splits(manifest_of("ab" * 9), **{name: share})


def test_other_wrong_arguments(manifest_of: Build) -> None:
    with pytest.raises(InputError, match="folds: expected 1 or more"):
        assign_splits(manifest_of("ab" * 9), folds=0)
    with pytest.raises(InputError, match="'auto', 'given' or 'random'"):
        assign_splits(manifest_of("ab" * 9), split="none")  # type: ignore[arg-type]


def test_notes_tell_what_a_given_split_lacks(manifest_of: Build) -> None:
    manifest = manifest_of(
        "aabbccaab",
        split=["train"] * 6 + ["val", "test", "test"],
        pixel_hash=["same", *(f"h{index}" for index in range(5)), "same", "x", "y"],
        lesion_id=["l", "", "", "", "", "", "", "l", ""],
    )
    notes = split_notes(manifest, assign_splits(manifest))
    assert notes == (
        "The given val part holds no image of b, c.",
        "The given test part holds no image of c.",
        "1 images of the given validation part have a copy in training.",
        "1 lesions have images in more than one part of the given split.",
    )
    assert split_notes(manifest_of("ab" * 20), assign_splits(manifest_of("ab" * 20))) == ()


def test_real_packs(shared_data: Path) -> None:
    brain = load_manifest(shared_data / "brain_mri")
    splits = assign_splits(brain, seed=11)
    tested = splits[splits["split"] == "test"]
    assert (len(tested), int(tested["copy_in_train"].sum())) == (394, 251) == (394, count_copies(brain).test_copies)
    assert not splits[splits["split"] == "val"]["copy_in_train"].any()
    share = splits[splits["split"] != "test"].groupby("label")["split"].value_counts(normalize=True).unstack()["val"]
    assert share.between(0.14, 0.16).all()

    skin = load_manifest(shared_data / "skin")
    splits = assign_splits(skin)
    assert int(splits["copy_in_train"].sum()) == 18
    assert split_notes(skin, splits) == ("31 lesions have images in more than one part of the given split.",)
    pooled = assign_splits(skin, split="random", folds=5)
    assert not crosses(skin, pooled)
    assert not pooled["copy_in_train"].any()

    chest = load_manifest(shared_data / "chest_xray")
    assert not crosses(chest, assign_splits(chest))


def test_repeats_part_anew_and_begin_with_the_only_parting(manifest_of: Build) -> None:
    manifest = manifest_of("ab" * 30)
    once, thrice = (assign_splits(manifest, folds=3, repeats=repeats, split="random") for repeats in (1, 3))
    pd.testing.assert_frame_equal(thrice[thrice["fold"] < 3], once)
    assert set(thrice["fold"]) == set(range(9))
    tested = thrice[thrice["split"] == "test"]
    for repeat in range(3):
        assert tested[tested["fold"] // 3 == repeat]["sample"].is_unique
        assert (tested["fold"] // 3 == repeat).sum() == 60
    folds = [frozenset(rows["sample"]) for _, rows in tested.groupby("fold")]
    assert len(set(folds)) == 9
    held_out = assign_splits(manifest, repeats=2)
    first, second = (rows["split"].tolist() for _, rows in held_out.groupby("fold"))
    assert first != second
    assert counts(held_out[held_out["fold"] == 0]) == counts(held_out[held_out["fold"] == 1])


def test_repeats_of_a_given_split_are_refused(manifest_of: Build) -> None:
    manifest = manifest_of("ab" * 20, split=["train"] * 30 + ["test"] * 10)
    with pytest.raises(InputError, match="repeats: expected 1 where the data set gives a split, got 2"):
        assign_splits(manifest, repeats=2)


def test_each_site_is_tested_once_by_networks_that_saw_none_of_its_patients(manifest_of: Build) -> None:
    sites = ["leipzig"] * 20 + ["oslo"] * 20 + ["riga"] * 20
    patients = [f"p{index}" for index in range(60)]
    patients[0] = patients[59] = "moved"  # from Leipzig to Riga
    manifest = manifest_of("ab" * 30, site=sites, patient_id=patients)
    splits = assign_splits(manifest, leave_out="site")
    assert set(splits["fold"]) == {0, 1, 2}
    for fold, site in enumerate(("leipzig", "oslo", "riga")):
        rows = splits[splits["fold"] == fold].set_index("sample")["split"].to_numpy()
        assert ((rows == "test") == (np.array(sites) == site)).all()
        assert set(rows) >= {"train", "val", "test"}
    excluded = splits[splits["split"] == "excluded"]
    assert excluded[["fold", "sample"]].to_numpy().tolist() == [[0, "0059.png"], [2, "0000.png"]]


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("scanner", r"unknown column to leave out by 'scanner'"),
        ("site", r"a value of 'site' for each image, got 1 images without"),
        ("one", r"two or more values of 'one', got only 'x'"),
    ],
)
def test_sites_that_can_t_be_left_out(manifest_of: Build, column: str, told: str) -> None:
    manifest = manifest_of("ab" * 10, site=["oslo"] * 10 + ["riga"] * 9 + [""], one=["x"] * 20)
    with pytest.raises(InputError, match=told):
        assign_splits(manifest, leave_out=column)


def test_a_class_that_only_one_site_has_can_t_be_learnt_without_it(manifest_of: Build) -> None:
    manifest = manifest_of("ab" * 10 + "c" * 5, site=["oslo"] * 10 + ["riga"] * 10 + ["bonn"] * 5)
    with pytest.raises(InputError, match=r"training and validation without site 'bonn', got 0 of 'c'"):
        assign_splits(manifest, leave_out="site")


def test_inner_folds_validate_each_row_once_and_keep_patients_together(manifest_of: Build) -> None:
    patients = [f"p{index // 2}" for index in range(60)]
    table = manifest_of("aabb" * 15, patient_id=patients).table
    parts = inner_folds(table, 3, seed=0)
    assert sum(part.astype(int) for part in parts).tolist() == [1] * 60
    for part in parts:
        assert table[part].groupby("label").size().to_dict() == {"a": 10, "b": 10}
        assert not set(table[part]["patient_id"]) & set(table[~part]["patient_id"])
    with pytest.raises(InputError, match="40 inner folds"):
        inner_folds(table, 40, seed=0)


def _near(manifest: Manifest, *ends: tuple[int, int]) -> pd.DataFrame:
    hashes = manifest.table["pixel_hash"]
    rows = [("near", hashes[first], hashes[second]) for first, second in ends]
    return pd.DataFrame(rows, columns=["kind", "pixel_hash", "other_hash"])


def test_near_copies_stay_together_where_parts_are_drawn(manifest_of: Callable[..., Manifest]) -> None:
    manifest = manifest_of("ab" * 30)
    chain = [(index, index + 2) for index in range(0, 8, 2)] + [(20, 31)]
    for folds in (1, 4):
        splits = assign_splits(manifest, folds=folds, near=_near(manifest, *chain), seed=2)
        assert not splits["copy_in_train"].any()
        for _, part in splits.groupby("fold"):
            where = part["split"].tolist()
            assert len({where[index] for index in (0, 2, 4, 6, 8)}) == 1
            assert where[20] == where[31]
    alone = assign_splits(manifest, seed=2)
    assert set(alone["copy_kind"]) == {""}
    changed = [assign_splits(manifest, seed=seed)["split"] for seed in range(20)]
    assert any(part[20] != part[31] for part in changed)  # nothing else binds them


def test_a_given_split_is_kept_and_both_kinds_of_copies_flagged(manifest_of: Callable[..., Manifest]) -> None:
    given = ["train"] * 30 + ["test"] * 10
    hashes = [f"h{index}" for index in range(40)]
    hashes[30] = "h0"
    manifest = manifest_of("ab" * 20, split=given, pixel_hash=hashes)
    splits = assign_splits(manifest, near=_near(manifest, (1, 31), (32, 33)))
    assert splits["split"].tolist()[30:] == ["test"] * 10
    assert splits["copy_kind"].tolist() == [""] * 30 + ["exact", "near"] + [""] * 8
    assert splits["copy_in_train"].equals(splits["copy_kind"] != "")
    assert splits.loc[[0, 1], "split"].tolist() == ["train", "train"]  # bound to the test, so that none validates


def test_dropping_empties_the_training_of_copies(manifest_of: Callable[..., Manifest]) -> None:
    given = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    hashes = [f"h{index}" for index in range(40)]
    hashes[32], hashes[25], hashes[3] = "h0", "h1", "h2"  # train in test, train in val, and a conflict
    manifest = manifest_of("ab" * 20, split=given, pixel_hash=hashes)
    near = _near(manifest, (5, 35), (26, 34))
    splits = assign_splits(manifest, near=near, action="drop")
    gone = splits.index[splits["split"] == "excluded"].tolist()
    assert gone == [0, 1, 2, 3, 5, 26]
    assert splits["split"].drop(gone).tolist() == [part for index, part in enumerate(given) if index not in gone]
    assert not splits["copy_in_train"].any()
    assert assign_splits(manifest, action="drop")["split"].tolist()[5] == "train"  # near copies count where given


def test_grouping_draws_a_given_split_anew(manifest_of: Callable[..., Manifest]) -> None:
    given = ["train"] * 30 + ["test"] * 10
    manifest = manifest_of("ab" * 20, split=given)
    near = _near(manifest, *[(index, index + 30) for index in range(10)])
    splits = assign_splits(manifest, near=near, action="group", folds=3)
    assert splits["fold"].nunique() == 3
    assert not splits["copy_in_train"].any()
    assert splits["split"].tolist()[:40] != given
    with pytest.raises(InputError, match="action: expected 'keep' or 'drop' with a given split, got 'group'"):
        assign_splits(manifest, action="group", split="given")
    with pytest.raises(InputError, match="action: expected 'keep', 'drop' or 'group', got 'burn'"):
        assign_splits(manifest, action="burn")


def test_dropping_the_last_of_a_class_is_refused(manifest_of: Callable[..., Manifest]) -> None:
    given = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    hashes = [f"h{index}" for index in range(20)]
    labels = "ab" * 5 + "cc" + "abab" + "abcc"
    manifest = manifest_of(labels, split=given, pixel_hash=hashes)
    near = _near(manifest, (10, 18), (11, 19))
    with pytest.raises(InputError, match="images of 'c' that stay in the train part without the copies, got none"):
        assign_splits(manifest, near=near, action="drop")
