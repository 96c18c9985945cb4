"""Volumes laid in a frame of mm: explained, measured and shown at the right place, however they are stored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from torch import nn

from pellucid.data.images import read_image
from pellucid.data.phantoms.series import Scanned, write_series
from pellucid.data.resample import Frame, grid_of
from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.models.checkpoints import ModelCard, combined, load_weights, read_card, save_weights
from pellucid.models.zoo import create_model
from pellucid.registry import Choice
from pellucid.report.build import build_report
from pellucid.report.explained import write_explained
from pellucid.study.evaluate_files import evaluate_files
from pellucid.study.evaluate_question import EvaluationQuestion
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.known_images import UNSEEN, Sources
from pellucid.study.shown_volumes import read_shown
from pellucid.training.predict import as_wanted

SHAPE = (26, 34, 22)
OBLIQUE = np.array([[-1.6, 0.5, -0.3, 40.0], [0.7, 1.4, -0.9, -25.0], [-0.2, 0.8, 2.7, 12.0], [0, 0, 0, 1]])
MARKER = (15, 14, 12)
SIZE, STEPS = (14, 15, 16), (2.5, 2.5, 2.5)
QUESTION = Question(("layer-cam", "integrated-gradients"), target="bright", layers=("1",))


def bright() -> nn.Module:
    """A network that says how bright its image is: its layer-cam is the image itself."""
    first, last = nn.Conv3d(1, 1, 1, bias=False), nn.Linear(1, 2)
    nn.init.ones_(first.weight)
    last.weight.data, last.bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), last)


def card(orientation: str | None = "SPL", spacing: tuple[float, float, float] | None = STEPS) -> ModelCard:
    return ModelCard(
        "bright", SIZE, 1, ("bright", "dark"), (0.0,), (1.0,), "none", "image", orientation=orientation, spacing=spacing
    )


def stored(path: Path, voxels: np.ndarray, codes: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = OBLIQUE
    if codes:
        change = ornt_transform(io_orientation(OBLIQUE), axcodes2ornt(codes))
        affine = OBLIQUE @ inv_ornt_aff(change, voxels.shape)
        voxels = np.ascontiguousarray(apply_orientation(voxels, change))
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def marked() -> np.ndarray:
    voxels = np.zeros(SHAPE, np.int16)
    voxels[tuple(slice(place - 1, place + 2) for place in MARKER)] = 900
    return voxels


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "IAR", "PIL"])
@pytest.mark.parametrize("frame", [("SPL", STEPS), ("RAS", None), (None, STEPS)], ids=str)
def test_the_map_lies_on_the_marker_and_is_0_where_the_network_sees_nothing(
    tmp_path: Path, codes: str, frame: tuple[str | None, tuple[float, float, float] | None]
) -> None:
    path = stored(tmp_path / "m.nii.gz", marked(), codes)
    records, unreadable = explain_files([path], (bright(), card(*frame)), tmp_path / "out", QUESTION)
    assert not unreadable
    record = json.loads(records[0].read_text())
    place = OBLIQUE[:3] @ [*MARKER, 1]
    assert record["model"]["orientation"] == frame[0]
    image = read_image(path)
    grid = grid_of(image.pixels.shape[1:], image.affine, SIZE, Frame(*frame))
    assert grid.spacing is not None
    for label, name in record["maps"].items():
        found = nibabel.load(tmp_path / "out" / name)
        np.testing.assert_array_equal(found.affine, nibabel.load(path).affine)
        values = np.asarray(found.dataobj)
        centre = np.array([(index * values).sum() for index in np.indices(values.shape)]) / values.sum()
        assert np.linalg.norm(found.affine[:3] @ [*centre, 1] - place) < 0.35 * max(grid.spacing), label
        peak = found.affine[:3] @ [*np.unravel_index(values.argmax(), values.shape), 1]
        assert np.linalg.norm(peak - place) < 1.2 * max(grid.spacing), label
        seen = record["methods"][label]["seen"]
        outside = np.ones(values.shape, bool)
        outside[tuple(slice(*bounds) for bounds in seen)] = False
        assert outside.any() == (frame[1] is not None)
        assert not values[outside].any()


def test_one_anatomy_has_one_answer(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    torch.manual_seed(0)
    network = create_model("resnet10-slim-3d", classes=2, channels=1, size=SIZE).eval()
    asked = dataclasses.replace(card(), architecture="resnet10-slim-3d")
    given = [as_wanted(read_image(stored(tmp_path / f"{codes}.nii", voxels, codes)), asked) for codes in ("RAS", "PIL")]
    assert torch.equal(*given)
    # as DICOM, whose slices have right angles
    turn, _ = np.linalg.qr(OBLIQUE[:3, :3])
    square = OBLIQUE.copy()
    square[:3, :3] = turn * np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    write_series(tmp_path / "dicom", voxels, square, Scanned("a", "a"))
    nibabel.save(nibabel.Nifti1Image(voxels, square), tmp_path / "square.nii")
    both = [as_wanted(read_image(tmp_path / name), asked) for name in ("dicom", "square.nii")]
    torch.testing.assert_close(*both, atol=1e-3, rtol=0)
    with torch.no_grad():
        answers = network(torch.stack(given))
    assert torch.equal(answers[0], answers[1])


def ask(*names: str, **sources: Path) -> EvaluationQuestion:
    metrics: list[Choice] = [METRICS.choose(name) for name in names]
    return EvaluationQuestion(
        metrics=metrics,
        methods=QUESTION.methods,
        layers=QUESTION.layers,
        target="bright",
        controls=("random",),
        sources=Sources(**sources),
    )


def test_distances_are_in_mm_and_saved_maps_score_as_those_made_on_the_way(tmp_path: Path) -> None:
    network = (bright(), card(spacing=(3.0, 3.0, 3.0)))  # no finer than the volumes, so that nothing is lost
    for number, codes in enumerate(("RAS", "LPS", "SPL")):
        voxels = marked() if number else np.roll(marked(), (3, 0, -2), (0, 1, 2))
        stored(tmp_path / "in" / f"{number}.nii.gz", voxels, codes)
        mask = np.zeros(SHAPE, np.uint8)
        mask[MARKER[0] + 3, MARKER[1], MARKER[2]] = 1
        stored(tmp_path / "masks" / f"{number}.nii.gz", mask, "AIL")  # along other axes than the image
    names = ("peak-distance", "pointing-game", "energy-pointing")
    found = evaluate_files([tmp_path / "in"], network, tmp_path / "a", ask(*names, masks=tmp_path / "masks"))
    assert not found.problems
    rows = found.scores.set_index(["sample", "method", "metric"])["value"]
    # in images 1 and 2 the marker's edge is two voxels away from the mask, along the first axis, 1.76 mm each
    away = 3 * np.linalg.norm(OBLIQUE[:3, 0])
    for sample in (1, 2):
        assert rows[sample, "layer-cam", "peak-distance"] == pytest.approx(away, abs=1.5 * 3)
    assert rows[0, "layer-cam", "peak-distance"] == pytest.approx(2 * np.linalg.norm(OBLIQUE[:3, 2]), abs=1.5 * 3)
    explain_files([tmp_path / "in"], network, tmp_path / "out", QUESTION)
    asked = dataclasses.replace(
        ask(*names, masks=tmp_path / "masks"), maps=tmp_path / "out", methods=("layer-cam", "integrated-gradients")
    )
    again = evaluate_files([tmp_path / "in"], network, tmp_path / "b", asked)
    saved = again.scores.set_index(["sample", "method", "metric"])["value"]
    for key, value in rows.items():
        assert saved[key] == pytest.approx(value, abs=2e-3), key
    assert len(found.shown) == 1  # without labels one of each class that is predicted
    number, path = found.shown[0]
    shown = read_shown(path, number)
    assert shown.grey.shape == SIZE
    assert shown.window == "from its own least to its greatest value, 0 to 900"
    assert shown.mask is not None
    assert shown.mask.sum() == 1
    place = shown.affine @ [*np.argwhere(shown.mask)[0], 1]
    np.testing.assert_allclose(place[:3], OBLIQUE[:3] @ [MARKER[0] + 3, *MARKER[1:], 1], atol=1.5)


def test_a_mask_outside_of_what_is_seen_is_said(tmp_path: Path) -> None:
    stored(tmp_path / "in" / "a.nii.gz", marked())
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 0, 0] = 1
    stored(tmp_path / "masks" / "a.nii.gz", mask)
    question = ask("pointing-game", "deletion", masks=tmp_path / "masks")
    found = evaluate_files([tmp_path / "in"], (bright(), card()), tmp_path / "out", question)
    missing = found.scores[found.scores["metric"] == "pointing-game"]
    assert missing["value"].isna().all()
    assert set(missing["reason"]) == {UNSEEN}


def test_the_page_of_explained_volumes(tmp_path: Path) -> None:
    for codes in ("RAS", "SPL"):
        stored(tmp_path / "in" / f"{codes}.nii.gz", marked(), codes)
    asked = dataclasses.replace(QUESTION, target="all", methods=("random", "input-x-gradient"))
    records, _ = explain_files([tmp_path / "in"], (bright(), card()), tmp_path / "out", asked)
    path = write_explained(records, tmp_path / "out")
    assert path == tmp_path / "out" / "index.html"
    text = path.read_text()
    assert text.count("data-scroll>") == 2
    assert "2 volumes explained." in text
    assert text.count("explained: bright, probability") == 2
    assert "percentile window" in text
    starts = [json.loads(found)["start"] for found in _scripts(text)]
    assert starts[0] == starts[1]  # of the same anatomy
    (tmp_path / "in" / "RAS.nii.gz").unlink()
    text = write_explained(records, tmp_path / "out").read_text()  # type: ignore[union-attr]
    assert text.count("data-scroll>") == 1
    assert 'href="RAS.overlay.png"' in text
    assert write_explained([], tmp_path / "none") is None


def _scripts(text: str) -> list[str]:
    parts = text.split('<script type="application/json">')[1:]
    return [part.split("</script>")[0] for part in parts]


def test_weights_carry_the_frame(tmp_path: Path) -> None:
    framed = dataclasses.replace(card(), architecture="resnet10-slim-3d")
    save_weights(tmp_path / "a.safetensors", framed.build(), framed)
    _, again = load_weights(tmp_path / "a.safetensors")
    assert again == framed
    plain = dataclasses.replace(framed, orientation=None, spacing=None)
    save_weights(tmp_path / "b.safetensors", plain.build(), plain)
    assert read_card(tmp_path / "b.safetensors") == plain
    assert b"orientation" not in (tmp_path / "b.safetensors").read_bytes()[:4000]
    with pytest.raises(InputError, match="members: expected the same spacing"):
        combined([framed, dataclasses.replace(framed, spacing=(1.0, 1.0, 1.0))], "soft")
    with pytest.raises(InputError, match="members: expected the same image_size"):
        combined([framed, dataclasses.replace(framed, image_size=(16, 16, 16))], "soft")
    combined([plain, dataclasses.replace(plain, image_size=(16, 16, 16))], "soft")


def test_scores_of_a_study_are_in_mm(tmp_path: Path) -> None:
    from pellucid.study.config import parse_config
    from pellucid.study.runner import run_study

    generator, rows = np.random.default_rng(0), []
    for number in range(40):
        voxels = generator.integers(0, 90, SHAPE).astype(np.int16)
        if number % 2:
            voxels += marked()
            stored(tmp_path / f"m{number}.nii.gz", (marked() > 0).astype(np.uint8), "PIL")
        codes = ("RAS", "SPL", "LPI")[number % 3]
        stored(tmp_path / f"{number}.nii.gz", voxels, codes)
        mask = f"m{number}.nii.gz" if number % 2 else ""
        rows.append({"path": f"{number}.nii.gz", "label": "ball" if number % 2 else "none", "mask": mask})
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    config = parse_config(
        {
            "models": [{"name": "resnet10-slim-3d", "epochs": 1}],
            "datasets": [
                {
                    "name": "balls", "path": str(tmp_path), "image_size": [12, 12, 12], "channels": 1,
                    "intensity": "image", "orientation": "SPL", "spacing": [4, 3, 3],
                },
            ],
            "training": {"batch_size": 8},
            "explain": {"methods": ["saliency"], "images": 6},
            "evaluate": {"metrics": ["peak-distance", "pointing-game"]},
            "statistics": {"resamples": 100},
        },
        base=tmp_path,
    )  # fmt: skip
    output = tmp_path / "run"
    run_study(config, output, device="cpu")
    cell = output / "balls" / "resnet10-slim-3d" / "fold-0"
    card = read_card(cell / "weights.safetensors")
    assert (card.orientation, card.spacing) == ("SPL", (4.0, 3.0, 3.0))
    import zarr

    explained = pd.read_parquet(cell / "explained.parquet")
    scores = pd.read_parquet(cell / "scores.parquet").set_index(["sample", "metric"])["value"]
    maps = np.asarray(zarr.open_group(cell / "maps.zarr", mode="r")["saliency"])
    masks = zarr.open_group(output / "data" / "balls_explained_fold-0.zarr", mode="r")
    samples = list(masks.attrs["samples"])  # type: ignore[call-overload]
    checked = 0
    for row, (sample, has_mask) in enumerate(zip(explained["sample"], explained["has_mask"], strict=True)):
        mask = np.asarray(masks["masks"][samples.index(sample)])  # type: ignore[index]
        if not has_mask:
            assert np.isnan(scores[sample, "peak-distance"])
            continue
        apart = (np.argwhere(mask) - np.unravel_index(maps[row].argmax(), maps[row].shape)) * (4.0, 3.0, 3.0)
        assert scores[sample, "peak-distance"] == pytest.approx(np.linalg.norm(apart, axis=1).min())
        affine = np.array(masks.attrs["affines"][samples.index(sample)])  # type: ignore[index,call-overload]
        middle = affine[:3] @ [*np.argwhere(mask).mean(axis=0), 1]
        assert np.linalg.norm(middle - OBLIQUE[:3] @ [*MARKER, 1]) < 2
        checked += 1
    assert checked == 3
    page = build_report(output).read_text()
    assert "12 × 12 × 12 voxels (steps of 4 × 3 × 3 mm, axes SPL)" in page
