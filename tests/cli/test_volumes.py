"""Volumes from a folder of DICOM series to maps in mm, by the commands alone: quick, and (slow) until it is learnt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pellucid.cli.main import main
from pellucid.data.images import read_image
from pellucid.data.phantoms import draw_volume, write_volumes
from pellucid.models.checkpoints import read_card

FRAME = ["--orientation", "SPL", "--intensity", "lung"]
MAPS = ["integrated-gradients", "smooth-grad", "random"]


def lesion_and_peaks(out: Path, index: int, source: Path) -> dict[str, float]:
    """By method, mm from the map's greatest voxel to the nearest of the lesion."""
    sample = draw_volume(index, seed=7, tilt=12.0)
    lesion = (sample.affine[:3, :3] @ np.argwhere(sample.mask).T).T + sample.affine[:3, 3]
    records = [json.loads(path.read_text()) for path in out.glob("*.json")]
    (record,) = [each for each in records if Path(each["image"]).parent == source]
    return {
        label: float(np.linalg.norm(lesion - told["greatest"]["mm"], axis=1).min())
        for label, told in record["methods"].items()
    }


def chain(tmp_path: Path, volumes: int, new: int, epochs: int, size: str, step: int) -> tuple[Path, Path]:
    """Train on NIfTI in folders of classes, then predict, explain and evaluate tilted DICOM series."""
    write_volumes(tmp_path / "ct", volumes=volumes)
    write_volumes(tmp_path / "new", volumes=new, form="dicom", tilt=12.0, seed=7)
    weights = tmp_path / "one" / "weights.safetensors"
    train = ["train", str(tmp_path / "ct" / "images"), "--output", str(tmp_path / "one"), "--size", size, *FRAME]
    train += ["--spacing", str(step)]
    train += ["--model", "resnet10-slim-3d", "--epochs", str(epochs), "--batch-size", "4", "--learning-rate", "1e-3"]
    assert main([*train, "--device", "cpu"]) == 0
    card = read_card(weights)
    assert (card.orientation, card.spacing, card.intensity, card.channels) == ("SPL", (step,) * 3, "lung", 1)
    model = ["--model", str(weights), "--device", "cpu"]
    assert main(["predict", str(tmp_path / "new" / "images"), *model, "--out", str(tmp_path / "p.csv")]) == 0
    out, scores = tmp_path / "explained", tmp_path / "evaluated"
    asked = ["--methods", ",".join(MAPS), "--target", "lesion"]
    assert main(["explain", str(tmp_path / "new" / "images"), *model, "--out", str(out), *asked]) == 0
    metrics = ["--metrics", "peak-distance,pointing-game", "--no-controls"]
    saved = ["--maps", str(out), "--output", str(scores), *metrics]
    assert main(["evaluate", str(tmp_path / "new"), *model, *saved]) == 0
    return out, scores


def test_a_folder_of_volumes_is_trained_predicted_explained_and_evaluated(tmp_path: Path) -> None:
    out, scores = chain(tmp_path, volumes=16, new=4, epochs=1, size="12,16,16", step=14)
    assert len(pd.read_csv(tmp_path / "p.csv")) == 4
    assert len(list(out.glob("*.map.nii.gz"))) == 4 * len(MAPS)
    series = next((tmp_path / "new" / "images" / "lesion").iterdir())
    image = read_image(series)
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        if Path(record["image"]).parent == series:
            told = record["methods"]["random"]
            np.testing.assert_allclose(
                (image.affine @ [*told["greatest"]["voxel"], 1])[:3],  # type: ignore[operator]
                told["greatest"]["mm"],
                atol=2e-3,
            )
            assert told["window"] == "lung window, -600/1500"
    page = (out / "index.html").read_text()
    assert page.count("data-scroll>") == 4
    table = pd.read_csv(scores / "scores.csv")
    found = table[table["metric"] == "peak-distance"]
    assert found["value"].notna().sum() == 2 * len(MAPS)
    assert "data-scroll>" in (scores / "index.html").read_text()


@pytest.mark.slow
def test_a_network_learns_nodules_and_its_maps_lie_on_them(tmp_path: Path) -> None:
    out, scores = chain(tmp_path, volumes=240, new=8, epochs=24, size="24,32,32", step=7)
    predictions = pd.read_parquet(tmp_path / "one" / "predictions.parquet")
    test = predictions[predictions["split"] == "test"]
    assert test["correct"].mean() > 0.8
    new = pd.read_csv(tmp_path / "p.csv")
    truth = [Path(path).parent.parent.name for path in new["path"]]
    assert np.mean([said == label for said, label in zip(new["predicted"], truth, strict=True)]) >= 0.75
    table = pd.read_csv(scores / "summary.csv").set_index(["metric", "method"])["mean"]
    assert table["peak-distance", "smooth-grad"] < 25 < 60 < table["peak-distance", "random"]
    assert table["pointing-game", "smooth-grad"] > 0.4
    assert table["pointing-game", "random"] < 0.3
    apart = [
        lesion_and_peaks(out, int(source.name.rsplit("-", 1)[1]), source)["smooth-grad"]
        for source in sorted((tmp_path / "new" / "images" / "lesion").iterdir())
    ]
    assert np.median(apart) < 10
