"""A study of volumes from files to the report: two classes of noise with and without a ball, two tiny networks."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
import zarr

from pellucid.data.dataset import ImageDataset
from pellucid.data.manifest import load_manifest
from pellucid.data.planes import middle
from pellucid.data.transforms import Augmentation, augment, dataset_normalisation
from pellucid.errors import InputError
from pellucid.models.checkpoints import load_weights
from pellucid.report.build import build_report
from pellucid.study.config import StudyConfig, parse_config
from pellucid.study.estimate import estimate_study
from pellucid.study.runner import run_study

SHAPE = (20, 24, 22)
SIZE = [16, 16, 16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 32 volumes, half of them with a bright ball and its mask."""
    folder = tmp_path_factory.mktemp("volumes")
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    rows = []
    for number in range(32):
        values = generator.normal(100, 10, SHAPE)
        name, mask = f"v{number:02d}.nii.gz", ""
        if number % 2:
            centre = np.array([generator.integers(6, length - 6) for length in SHAPE])
            ball = ((grid - centre[:, None, None, None]) ** 2).sum(axis=0) <= 16
            values[ball] += 120
            mask = f"m{number:02d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(ball.astype(np.uint8), np.diag([1.0, 1.0, 2.0, 1.0])), folder / mask)
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.diag([1.0, 1.0, 2.0, 1.0])), folder / name)
        rows.append({"path": name, "label": "ball" if number % 2 else "none", "patient_id": f"p{number}", "mask": mask})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder


def config(folder: Path, **changed: Any) -> StudyConfig:
    fields: dict[str, Any] = {
        "name": "volumes",
        "models": [{"name": "resnet10-3d", "epochs": 2}],
        "datasets": [{"name": "balls", "path": str(folder), "image_size": SIZE, "channels": 1, "intensity": "image"}],
        "training": {"epochs": 1, "batch_size": 8},
        "explain": {"methods": ["layer-cam", "saliency", "random"], "images": 3},
        "evaluate": {"metrics": ["deletion", "energy-pointing"]},
        "statistics": {"resamples": 100},
    }
    return parse_config({**fields, **changed}, base=Path())


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    run_study(config(folder), output, device="cpu")
    return output


def check_cell(output: Path, model: str) -> None:
    cell = output / "balls" / model / "fold-0"
    _, card = load_weights(cell / "weights.safetensors")
    assert card.image_size == tuple(SIZE)
    assert len(pd.read_parquet(cell / "predictions.parquet")) > 8
    saliency = np.asarray(zarr.open_group(cell / "maps.zarr", mode="r")["saliency"])  # type: ignore[arg-type]
    assert saliency.shape == (3, *SIZE)
    assert (saliency.reshape(3, -1).max(axis=1) > 0).all()
    scores = pd.read_parquet(cell / "scores.parquet")
    assert scores.loc[scores["metric"] == "deletion", "value"].notna().all()
    explained = pd.read_parquet(cell / "explained.parquet")
    assert explained.loc[explained["label"] == "ball", "has_mask"].all()


def test_predictions_maps_and_scores_of_volumes(finished: Path) -> None:
    check_cell(finished, "resnet10-3d")


@pytest.mark.slow
def test_networks_of_volumes_vote(folder: Path, tmp_path: Path) -> None:
    members = ["resnet10-3d", "resnet18-3d"]
    vote = {"name": "vote", "members": members, "vote": "weighted"}
    run_study(config(folder, models=[*members, vote], training={"epochs": 1, "batch_size": 8}), tmp_path, device="cpu")
    for model in (*members, "vote"):
        check_cell(tmp_path, model)


@pytest.mark.slow
def test_enhancements_of_volumes_are_crossed_and_shown(folder: Path, tmp_path: Path) -> None:
    asked = {"enhancements": ["none", "negative"], "models": [{"name": "resnet10-slim-3d", "epochs": 1}]}
    run_study(config(folder, **asked), tmp_path, device="cpu")
    page = build_report(tmp_path).read_text()
    assert "Images are shown as negative leaves them." in page
    assert page.count('class="thumbs volumes"') == 4  # examples of both classes, as they are and under both
    shown = [json.loads(part.split("</script>")[0]) for part in page.split('<script type="application/json">')[1:]]
    plain, negative = (
        [each for each in shown if each["id"].startswith(f"balls-resnet10-slim-3d{arm}-")]
        for arm in ("", " + negative")
    )
    assert plain
    assert negative
    for one, other in zip(plain, negative, strict=False):
        assert one["image"] != other["image"]


def test_the_report_shows_three_planes_and_a_scroll(finished: Path) -> None:
    page = build_report(finished).read_text()
    assert "seen by the networks at 16 × 16 × 16 voxels" in page
    assert "1 × 16 × 16 × 16" in page
    assert "planes nearest to them" in page or "or those nearest to them" in page
    assert page.count("data-scroll>") == len(re.findall(r"<figure class=\"strip", page)) > 0
    pictures = zarr.open_group(finished / "data" / "balls_explained_fold-0.zarr", mode="r")
    assert np.asarray(pictures["volumes"]).shape == (3, 1, *SIZE)  # type: ignore[arg-type]
    masks = np.asarray(pictures["masks"])  # type: ignore[arg-type]
    assert masks.shape == (3, *SIZE)
    assert masks.any(axis=(1, 2, 3)).sum() >= 1


def test_an_estimate_probes_volumes(folder: Path, tmp_path: Path) -> None:
    cells = estimate_study(config(folder), tmp_path / "none", device="cpu").cells
    assert (cells["seconds"] > 0).all()


def test_the_middle_of_a_mask_lies_in_it() -> None:
    ring = np.zeros((5, 5, 5), bool)
    ring[2, 1:4, 1:4] = True
    ring[2, 2, 2] = False
    assert ring[middle(ring)]
    assert middle(np.zeros((4, 6, 8), bool)) == (2, 3, 4)


def test_volumes_are_mirrored_and_brightened_but_not_turned() -> None:
    volume = torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    still = Augmentation(brightness=0, contrast=0)
    torch.testing.assert_close(augment(volume, still, 3), volume)
    flips = Augmentation(horizontal_flip=True, vertical_flip=True, brightness=0, contrast=0)
    seen = {tuple(axes) for seed in range(20) for axes in ([], [1], [3], [1, 3])
            if torch.allclose(augment(volume, flips, seed), volume.flip(axes))}  # fmt: skip
    assert seen == {(), (1,), (3,), (1, 3)}
    changed = augment(volume, Augmentation(), 5)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.allclose(changed, volume)
    assert torch.equal(augment(volume, Augmentation(), 5), changed)


def test_volumes_are_normalised_over_all_voxels(folder: Path) -> None:
    paths = sorted(folder.glob("v*.nii.gz"))[:4]
    dataset = ImageDataset(paths, [0, 1, 0, 1], channels=1, size=(16, 16, 16), intensity="image")
    normalisation = dataset_normalisation(dataset)
    images = torch.stack([dataset.with_transform(normalisation)[place][0] for place in range(4)])
    assert images.shape == (4, 1, 16, 16, 16)
    assert float(images.double().mean()) == pytest.approx(0, abs=1e-4)
    assert float(images.double().std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_pictures_are_left_out_of_volumes_and_volumes_of_pictures(folder: Path) -> None:
    volumes = load_manifest(folder, volumes=True)
    assert len(volumes.table) == 32
    assert not volumes.mask_problems
    with pytest.raises(InputError, match="none of the 32 images"):
        load_manifest(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": ["resnet18"]}, "unknown network of volumes 'resnet18'. Did you mean 'resnet18-3d'"),
        ({"models": [{"name": "f", "features": ["resnet18"]}]}, "takes features of pictures"),
        ({"models": [{"name": "resnet18-3d", "pretrained": True}]}, "no published weights"),
        ({"enhancements": ["none", "hog"]}, "expected those of volumes, got 'hog'"),
        (
            {"datasets": [{"name": "a", "path": "phantom:chest", "image_size": SIZE}]},
            "a phantom of volumes, got",
        ),
        ({"datasets": [{"name": "a", "path": "x", "image_size": [16, 16]}]}, r"datasets\[1\].image_size"),
        ({"datasets": [{"name": "a", "path": "x", "image_size": [4, 16, 16]}]}, "greater than or equal to 8"),
        ({"models": ["densenet121-3d"]}, "at least 29 voxels along each axis for 'densenet121-3d', got 16 × 16 × 16"),
        (
            {"datasets": [{"name": "a", "path": "x", "image_size": SIZE, "orientation": "RAX"}]},
            "three letters, one each",
        ),
        ({"datasets": [{"name": "a", "path": "x", "image_size": SIZE, "spacing": [1, 0, 1]}]}, "three steps above 0"),
        (
            {"models": ["resnet18"], "datasets": [{"name": "a", "path": "x", "orientation": "RAS"}]},
            "expected none for pictures, got some",
        ),
        ({"datasets": [{"name": "a", "path": "x"}]}, r"a network of pictures, got 'resnet10-3d'.*image_size = \[64"),
        (
            {"datasets": [{"name": "a", "path": "x"}, {"name": "b", "path": "x", "image_size": SIZE}]},
            "pictures alone or volumes alone",
        ),
    ],
)
def test_a_config_is_refused_in_words(folder: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(folder, **changed)
