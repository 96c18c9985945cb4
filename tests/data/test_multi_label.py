"""Several labels to an image: read from a manifest, parted in equal shares, balanced in the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.data.dataset import ImageDataset, positive_weights
from pellucid.data.labels import members
from pellucid.data.manifest import Manifest, load_manifest
from pellucid.data.splits import assign_splits, inner_folds
from pellucid.errors import InputError
from references.labelled import LABELS, write_labelled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_labelled(root, 160)
    return root


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return load_manifest(folder, multi_label=True)


def test_labels_parted_by_a_bar_are_classes_of_their_own(manifest: Manifest) -> None:
    assert manifest.classes == LABELS
    assert manifest.multi_label
    texts = set(manifest.table["label"])
    assert "corner|disc" in texts  # written the other way round, and sorted when read
    assert "" in texts
    assert not any("more than one class" in note for note in manifest.notes)


def test_columns_of_0_and_1_mean_the_same(folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    table = write_labelled(tmp_path, 160)
    table.to_csv(tmp_path / "manifest.csv", index=False)
    found = load_manifest(tmp_path, multi_label=True, labels=LABELS)
    assert found.classes == manifest.classes
    assert found.table["label"].tolist() == manifest.table["label"].tolist()
    assert not set(LABELS) & set(found.table)  # they are labels, not further facts


def test_the_same_manifest_read_as_single_labels_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="label: expected a label for each image"):
        load_manifest(folder)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    table = write_labelled(tmp_path, 8)
    table.assign(disc=2).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(InputError, match="labels: expected 0 or 1 in the column 'disc', got 8 rows"):
        load_manifest(tmp_path, multi_label=True, labels=LABELS)
    with pytest.raises(InputError, match="expected a column 'disk'"):
        load_manifest(tmp_path, multi_label=True, labels=("disk",))
    (tmp_path / "manifest.csv").unlink()
    with pytest.raises(InputError, match="expected a manifest, which several labels to an image need"):
        load_manifest(tmp_path, multi_label=True)


@pytest.mark.parametrize("folds", [1, 4])
def test_parts_hold_each_label_and_images_in_equal_shares(manifest: Manifest, folds: int) -> None:
    splits = assign_splits(manifest, test=0.25, folds=folds, seed=1)
    truth = members(list(manifest.table["label"]), LABELS, True)
    share = 0.25
    for fold, part in splits.groupby("fold"):
        test = (part["split"] == "test").to_numpy()
        np.testing.assert_allclose(truth[test].sum(axis=0), share * truth.sum(axis=0), atol=3)
        assert test.sum() == pytest.approx(share * len(part), abs=6)
        without = ~truth.any(axis=1)
        assert (without & test).sum() == pytest.approx(share * without.sum(), abs=3)
        assert part.groupby("patient_id")["split"].nunique().max() == 1, fold
        for name in ("train", "val"):
            assert truth[(part["split"] == name).to_numpy()].any(axis=0).all()


def test_inner_folds_hold_each_label(manifest: Manifest) -> None:
    truth = members(list(manifest.table["label"]), LABELS, True)
    parts = inner_folds(manifest.table, 3, 0, multi_label=True)
    assert (np.sum(parts, axis=0) == 1).all()
    for part in parts:
        np.testing.assert_allclose(truth[part.to_numpy()].sum(axis=0), truth.sum(axis=0) / 3, atol=4)


def test_a_label_too_rare_for_the_parts_is_named(manifest: Manifest) -> None:
    from dataclasses import replace

    table = manifest.table.copy()
    table["label"] = table["label"].str.replace("corner|", "", regex=False).replace("corner", "")
    table.loc[0, "label"] = "corner|disc"
    with pytest.raises(InputError, match=r"at least 3 independent images of each class.*got 1 of 'corner'"):
        assign_splits(replace(manifest, table=table))


def test_the_data_set_yields_a_row_of_labels(folder: Path) -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    images = ImageDataset([folder / "000.png", folder / "001.png"], labels, channels=1, size=32)
    assert torch.equal(images[0][1], labels[0])
    with pytest.raises(InputError, match="labels: expected one for each of 1 paths"):
        ImageDataset([folder / "000.png"], labels, channels=1, size=32)


def test_positive_weights_balance_each_label() -> None:
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    weights = positive_weights(labels)
    with_label, without = (weights * labels.sum(dim=0)), (1 - labels).sum(dim=0)
    assert torch.allclose(with_label, without)
    with pytest.raises(InputError, match="at least one image of each label"):
        positive_weights(torch.tensor([[1.0, 0.0]]))
