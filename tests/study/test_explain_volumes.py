"""Volumes explained: maps lie over their volume in millimetres, and planes are drawn as a radiologist sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image
from torch import nn

import pellucid
from pellucid.data.images import MedicalImage
from pellucid.data.transforms import prepare
from pellucid.errors import UnreadableFileError
from pellucid.models.checkpoints import ModelCard
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.explain_volumes import Shown, planes

SHAPE = (20, 26, 17)
# turned about two axes, steps of three sizes, and left-handed
OBLIQUE = np.array([[-1.6, 0.5, -0.3, 40.0], [0.7, 1.4, -0.9, -25.0], [-0.2, 0.8, 2.7, 12.0], [0, 0, 0, 1]])
MARKER = (14, 6, 11)


def bright(channels: int = 1) -> nn.Module:
    """A network that says how bright its image is: its layer-cam is the image itself."""
    first, last = nn.Conv3d(channels, 1, 1, bias=False), nn.Linear(1, 2)
    nn.init.ones_(first.weight)
    last.weight.data, last.bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), last)


def card(*size: int) -> ModelCard:
    return ModelCard("bright", (size[0], size[1], size[2]), 1, ("bright", "dark"), (0.0,), (1.0,), "none", "image")


def marked(path: Path, affine: np.ndarray = OBLIQUE) -> Path:
    voxels = np.zeros(SHAPE, np.int16)
    voxels[MARKER] = 900
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def explained(path: Path, out: Path, model: tuple[nn.Module, ModelCard], **asked: Any) -> dict[str, Any]:
    question = Question(
        **{"methods": ("layer-cam", "integrated-gradients"), "target": "bright", "layers": ("1",), **asked}
    )
    records, unreadable = explain_files([path], model, out, question)
    assert not unreadable
    return json.loads(records[0].read_text())


@pytest.mark.parametrize("size", [SHAPE, (16, 16, 16), (31, 40, 34)])
def test_the_map_has_its_peak_where_the_marker_is_in_millimetres(tmp_path: Path, size: tuple[int, int, int]) -> None:
    assert np.linalg.det(OBLIQUE[:3, :3]) < 0
    path = marked(tmp_path / "m.nii.gz")
    place = OBLIQUE[:3] @ [*MARKER, 1]
    record = explained(path, tmp_path / "out", (bright(), card(*size)))
    voxel_side = np.linalg.norm(OBLIQUE[:3, :3], axis=0).max()
    for label, name in record["maps"].items():
        found = nibabel.load(tmp_path / "out" / name)
        np.testing.assert_array_equal(found.affine, nibabel.load(path).affine)
        assert found.shape == SHAPE
        assert found.get_data_dtype() == np.float32
        values = np.asarray(found.dataobj)
        peak = found.affine[:3] @ [*np.unravel_index(values.argmax(), SHAPE), 1]
        assert np.linalg.norm(peak - place) < 1.2 * voxel_side, label
        centre = np.array([(grid * values).sum() for grid in np.indices(SHAPE)]) / values.sum()
        assert np.linalg.norm(found.affine[:3] @ [*centre, 1] - place) < 0.35 * voxel_side, label
        told = record["methods"][label]["greatest"]
        np.testing.assert_allclose(told["mm"], peak, atol=1e-2)
        np.testing.assert_array_equal(told["voxel"], np.unravel_index(values.argmax(), SHAPE))
    if size == SHAPE:
        assert record["methods"]["layer-cam"]["greatest"]["voxel"] == list(MARKER)
        assert record["methods"]["layer-cam"]["resize"] is None


def test_what_is_written_is_what_explain_says_enlarged_once(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    path = tmp_path / "v.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, OBLIQUE), path)
    model = bright(), card(12, 13, 14)
    record = explained(path, tmp_path / "out", model)
    prepared = prepare(pellucid.read_image(path), channels=1, size=(12, 13, 14), intensity="image")[None]
    whole = pellucid.explain(model[0], prepared, ["layer-cam", "integrated-gradients"], target=0, layer="1")
    for label, name in record["maps"].items():
        wanted = nn.functional.interpolate(whole[label][:, None], SHAPE, mode="trilinear")[0, 0]
        values = np.asarray(nibabel.load(tmp_path / "out" / name).dataobj)
        np.testing.assert_allclose(values, wanted.numpy(), rtol=1e-4, atol=1e-7)
        assert record["methods"][label]["resize"] == "trilinear"
    assert (record["target"], record["target_index"], record["layer"]) == ("bright", 0, "1")
    np.testing.assert_allclose(record["score"], whole.score.item(), rtol=1e-5)
    np.testing.assert_allclose(record["probability"], whole.probability.item(), rtol=1e-5)
    assert set(record["seconds"]) == {"forward", *record["maps"]}
    assert record["model"]["image_size"] == [12, 13, 14]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "v.integrated-gradients.map.nii.gz",
        "v.json",
        "v.layer-cam.map.nii.gz",
        "v.overlay.png",
    ]


def test_several_values_of_a_voxel_are_several_volumes(tmp_path: Path) -> None:
    path = marked(tmp_path / "m.nii.gz")
    out = tmp_path / "out"
    record = explained(path, out, (bright(), card(8, 8, 8)), target="all", methods=("input-x-gradient",))
    one = explained(path, tmp_path / "one", (bright(), card(8, 8, 8)), target="dark", methods=("input-x-gradient",))
    every = nibabel.load(out / record["maps"]["input-x-gradient"])
    assert every.shape == (*SHAPE, 2)
    np.testing.assert_array_equal(every.affine, nibabel.load(path).affine)
    single = nibabel.load(tmp_path / "one" / one["maps"]["input-x-gradient"])
    np.testing.assert_allclose(every.dataobj[..., 1], single.dataobj, rtol=1e-5)
    assert record["target"] == ["bright", "dark"]
    with Image.open(out / "m.overlay.png") as both, Image.open(tmp_path / "one" / "m.overlay.png") as alone:
        assert both.size[0] == alone.size[0]
        assert both.size[1] > 1.5 * alone.size[1]


def scene(codes: str) -> MedicalImage:
    """The same things at the same places, stored along other axes: right is brightest, then front, then up."""
    voxels = np.zeros((12, 18, 10), np.float32)
    voxels[9:, 7:10, 4:6], voxels[5:7, 15:, 4:6], voxels[5:7, 7:10, 8:] = 1.0, 0.7, 0.4
    affine = np.diag([2.0, 1.0, 4.0, 1.0])
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored = nibabel.orientations.apply_orientation(voxels, change)
    turned = affine @ inv_ornt_aff(change, voxels.shape)
    spacing = tuple(np.linalg.norm(turned[:3, :3], axis=0).tolist())
    return MedicalImage(stored[None], spacing, None, None, Path("made"), turned)


def ends(picture: np.ndarray, axis: int) -> tuple[int, int]:
    """The brightest of the first and of the last fifth of a picture."""
    length = picture.shape[axis]
    parts = picture.take(range(length // 5), axis), picture.take(range(length - length // 5, length), axis)
    return int(parts[0].max()), int(parts[1].max())


def test_right_is_on_the_left_front_and_head_above_however_voxels_are_stored() -> None:
    pictures = {}
    for codes in ("RAS", "LPS", "SPL", "AIR", "PSR"):
        volume = scene(codes)
        ras = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
        peak = np.zeros((12, 18, 10), np.float32)
        peak[6, 8, 4] = 1
        values = nibabel.orientations.apply_orientation(peak, ras)
        row = planes(volume, values, "made")
        assert "planes through (12, 8, 16) mm" in row.title
        pictures[codes] = [panel.picture for panel in row.panels]
        assert len(row.panels) == 6
    for codes, found in pictures.items():
        for one, other in zip(found, pictures["RAS"], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=codes)
    look = Shown.of(scene("LPS")).look
    axial, coronal, sagittal = (look.plane(axis, (5, 9, 5)[axis], 280, marks=False) for axis in range(3))
    for picture, axis, brightest in (
        (axial, 1, 255),  # right
        (axial, 0, 178),  # front
        (coronal, 1, 255),
        (coronal, 0, 102),  # head
        (sagittal, 1, 178),
        (sagittal, 0, 102),
    ):
        first, last = ends(picture, axis)
        assert abs(first - brightest) < 40
        assert last < 40
    heights = [picture.shape[:2] for picture in (axial, coronal, sagittal)]
    assert heights == [(126, 168), (280, 168), (280, 126)]  # 24, 18 and 40 mm to one scale


def test_a_volume_without_evidence_is_drawn_bare(tmp_path: Path) -> None:
    row = planes(scene("RAS"), np.zeros((12, 18, 10), np.float32), "layer-cam")
    assert row.panels[3].caption == "layer-cam (no evidence)"
    for bare, laid in zip(row.panels[:3], row.panels[3:], strict=True):
        np.testing.assert_array_equal(bare.picture, laid.picture)
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, 7, np.int16), OBLIQUE), tmp_path / "flat.nii")
    record = explained(tmp_path / "flat.nii", tmp_path / "out", (bright(), card(8, 8, 8)))
    assert record["methods"]["layer-cam"]["largest"] == 0


def test_each_kind_of_file_is_told_from_the_other(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    marked(tmp_path / "in" / "a.nii.gz")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "in" / "b.png")
    question = Question(("layer-cam",), layers=("1",))
    records, skipped = explain_files([tmp_path / "in"], (bright(), card(8, 8, 8)), tmp_path / "out", question)
    assert [path.name for path in records] == ["a.json"]
    assert len(skipped) == 1
    assert "expected a volume, (1 or 3, D, H, W), got a picture, (1, 9, 9), in" in skipped[0][1]
    flat = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    pictures = ModelCard("flat", 8, 1, ("bright", "dark"), (0.0,), (1.0,), "none")
    records, skipped = explain_files([tmp_path / "in"], (flat, pictures), tmp_path / "out2", question)
    assert [path.name for path in records] == ["b.json"]
    assert "expected a picture, (1 or 3, H, W), got a volume, (1, 20, 26, 17), in" in skipped[0][1]
    with pytest.raises(UnreadableFileError, match="none of 1 can be read.*expected a picture"):
        explain_files([tmp_path / "in" / "a.nii.gz"], (flat, pictures), tmp_path / "out3", question)


def test_maps_are_never_explained_nor_volumes_replaced(tmp_path: Path) -> None:
    first = marked(tmp_path / "x.nii.gz")
    trap = marked(tmp_path / "x.layer-cam.map.nii.gz")  # somebody's own, though it has a map's name
    before = first.read_bytes(), trap.read_bytes()
    model, question = (bright(), card(8, 8, 8)), Question(("layer-cam",), layers=("1",))
    for _ in range(2):
        records, _ = explain_files([tmp_path / "x.nii.gz", trap], model, tmp_path, question)
        assert len(records) == 2
        assert (first.read_bytes(), trap.read_bytes()) == before
    (tmp_path / "alone").mkdir()
    marked(tmp_path / "alone" / "y.nii")
    for _ in range(2):
        records, _ = explain_files([tmp_path / "alone"], model, tmp_path / "alone", question)
        assert [path.name for path in records] == ["y.json"]


def test_a_real_volume_gets_maps_of_its_own_shape(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "dicom_nifti" / "nifti" / "anatomical.nii"
    record = explained(path, tmp_path, (bright(), card(16, 16, 16)))
    for name in record["maps"].values():
        found = nibabel.load(tmp_path / name)
        assert found.shape == (33, 41, 25)
        np.testing.assert_array_equal(found.affine, nibabel.load(path).affine)
