"""`--write`: what other programs open, of DICOM pictures and volumes, and what becomes of images that aren't DICOM."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from torch import nn

from pellucid.cli.main import main
from pellucid.data.dicom.series import series_name
from pellucid.data.images import read_image
from pellucid.errors import InputError
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.explain_objects import WRITTEN, Wishes
from references import dicom_sources as sources
from references.ct_series import SERIES, STUDY, write_ct_series

WHEN = datetime.datetime(2024, 5, 6, 7, 8, 9)


def bright(axes: int) -> nn.Module:
    """A network that says how bright its image is: its layer-cam is the image itself."""
    convolution, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if axes == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    first, last = convolution(1, 1, 1, bias=False), nn.Linear(1, 2)
    nn.init.ones_(first.weight)
    last.weight.data, last.bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    return nn.Sequential(first, nn.ReLU(), pool(1), nn.Flatten(), last)


def card(size: int | tuple[int, int, int]) -> ModelCard:
    return ModelCard("bright", size, 1, ("bright", "dark"), (0.0,), (1.0,), "none", "image")


def explained(
    path: Path, out: Path, size: int | tuple[int, int, int], wishes: Wishes, **asked: Any
) -> tuple[dict[str, Any], list[Path]]:
    axes = 2 if isinstance(size, int) else 3
    question = Question(**{"methods": ("layer-cam",), "layers": ("1",), "write": wishes, **asked})
    records, unreadable = explain_files([path], (bright(axes), card(size)), out, question)
    assert not unreadable
    record = json.loads(records[0].read_text())
    return record, [out / each for each in record.get("written", {}).get("files", [])]


def test_a_frame_of_a_loop_has_all_objects(tmp_path: Path) -> None:
    path = sources.ultrasound(tmp_path / "loop.dcm")
    record, files = explained(path, tmp_path / "out", 32, Wishes(WRITTEN, "0.75", WHEN), index=2)
    assert [file.name for file in files] == [
        "loop.layer-cam.map.nii.gz",
        "loop.layer-cam.map.nrrd",
        "loop.layer-cam.parametric-map.dcm",
        "loop.layer-cam.segmentation.dcm",
        "loop.layer-cam.secondary-capture.dcm",
        "loop.structured-report.dcm",
    ]
    assert record["written"] == {
        "files": [file.name for file in files],
        "left_out": [],
        "threshold": "0.75",
        "when": "2024-05-06T07:08:09",
    }
    made = highdicom.imread(files[2])
    values = np.frombuffer(made.FloatPixelData, "<f4").reshape(24, 32)
    frame = read_image(path, 2).pixels[0].astype(float)
    assert np.corrcoef(values.reshape(-1), frame.reshape(-1))[0, 1] > 0.7  # through 32 by 32 pixels and back
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(files[1]))), values)
    np.testing.assert_array_equal(nibabel.load(files[0]).get_fdata(dtype=np.float32)[..., 0].T, values)
    reference = made.SourceImageSequence[0]
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedFrameNumber) == (
        pydicom.dcmread(path).SOPInstanceUID,
        3,
    )
    assert made.DeviceSerialNumber == record["model"]["weights"]
    report = str(pydicom.dcmread(files[5]))
    assert "bright" in report
    assert "Is the predicted class" in report


def test_a_volume_has_its_map_where_it_lies(tmp_path: Path) -> None:
    path = sources.enhanced_mr(tmp_path / "mr.dcm")
    volume = read_image(path)
    record, files = explained(
        path, tmp_path / "out", volume.pixels.shape[1:], Wishes(("parametric-map", "nifti", "nrrd"), when=WHEN)
    )
    assert record["maps"] == {"layer-cam": "mr.layer-cam.map.nii.gz"}  # written in any case, and not twice
    assert [file.name for file in files] == [
        "mr.layer-cam.map.nii.gz",
        "mr.layer-cam.map.nrrd",
        "mr.layer-cam.parametric-map.dcm",
    ]
    of_volume = highdicom.imread(files[2]).get_volume()
    assert volume.affine is not None
    place = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine @ [4, 7, 9, 1])[:3]
    nifti, nrrd = nibabel.load(files[0]), sitk.ReadImage(str(files[1]))
    at = {
        "parametric map": of_volume.array[_index(of_volume.affine, place)],
        "nifti": nifti.get_fdata()[_index(np.diag([-1.0, -1.0, 1.0, 1.0]) @ nifti.affine, place)],
        "nrrd": nrrd[nrrd.TransformPhysicalPointToIndex(place.tolist())],
    }
    low, high = volume.pixels.min(), volume.pixels.max()
    expected = (volume.pixels[0, 4, 7, 9] - low) / (high - low) / volume.pixels.size  # the gradient of a mean
    for name, value in at.items():
        assert value == pytest.approx(expected, rel=1e-4), name


def test_a_series_is_named_without_saying_whose_it_is(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", shape=(4, 8, 8), markers=[((-30.0, 30.0, -305.0), 900.0)])
    _, files = explained(tmp_path / "ct", tmp_path / "out", (4, 8, 8), Wishes(WRITTEN, when=WHEN))
    assert len(files) == 6
    (name,) = {file.name.split(".")[0] for file in files}
    assert name == series_name(SERIES)
    for file in files:
        if file.suffix == ".dcm":
            made = pydicom.dcmread(file)
            assert (made.StudyInstanceUID, str(made.PatientName)) == (STUDY, "Mäkelä^Märta")
            assert str(tmp_path) not in str(made)
        else:
            data = file.read_bytes()
            text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            assert not any(said in text for said in (b"made-up", SERIES.encode(), "Mäkelä".encode(), b"19500102"))


def _index(affine: np.ndarray, place: np.ndarray) -> tuple[int, ...]:
    return tuple(np.rint((np.linalg.inv(affine) @ [*place, 1])[:3]).astype(int))


def test_all_classes_have_objects(tmp_path: Path) -> None:
    path = sources.radiograph(tmp_path / "cr.dcm")
    _, files = explained(path, tmp_path / "out", 32, Wishes(("parametric-map", "structured-report")), target="all")
    assert [file.name for file in files] == [
        "cr.layer-cam.bright.parametric-map.dcm",
        "cr.layer-cam.dark.parametric-map.dcm",
        "cr.structured-report.dcm",
    ]


def test_a_given_time_repeats_every_byte(tmp_path: Path) -> None:
    path = sources.radiograph(tmp_path / "cr.dcm")
    for out in ("a", "b"):
        explained(path, tmp_path / out, 32, Wishes(WRITTEN, when=WHEN))
    names = [each.name for each in (tmp_path / "a").iterdir() if each.suffix != ".json"]  # which has the seconds
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_image_that_is_not_dicom_keeps_all_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32), dtype=np.uint8)).save(path)
    record, files = explained(path, tmp_path / "out", 32, Wishes(("segmentation", "nrrd")))
    assert [file.name for file in files] == ["a.layer-cam.map.nrrd"]
    (reason,) = record["written"]["left_out"]
    assert reason.startswith("segmentation: image: expected one that was read from DICOM files, got a.png")
    assert "not written: segmentation" in caplog.text
    assert (tmp_path / "out/a.maps.npz").exists()


def test_nothing_is_said_where_nothing_was_wished_for(tmp_path: Path) -> None:
    record, _ = explained(sources.radiograph(tmp_path / "cr.dcm"), tmp_path / "out", 32, Wishes())
    assert "written" not in record


def test_own_objects_are_not_explained_in_turn(tmp_path: Path) -> None:
    path = sources.radiograph(tmp_path / "cr.dcm")
    out = tmp_path / "out"
    explained(path, out, 32, Wishes(WRITTEN, when=WHEN))
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(out / "new.png")
    question = Question(("layer-cam",), layers=("1",))
    records, unreadable = explain_files([out], (bright(2), card(32)), tmp_path / "again", question)
    assert ([record.name for record in records], unreadable) == (["new.json"], [])


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"kinds": ["segmentations"]}, "unknown kind of file to write 'segmentations'. Did you mean 'segmentation'"),
        ({"kinds": ["segmentation"], "threshold": "half"}, "threshold: expected a share of the largest value"),
    ],
)
def test_wishes_that_are_none_are_refused_before_anything_runs(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Wishes(**wishes)


def test_the_command_line_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sources.radiograph(tmp_path / "cr.dcm")
    named = ModelCard("test_resnet", 32, 1, ("bright", "dark"), (0.0,), (1.0,), "none", "image")
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", named.build(), named)
    asked = ["explain", str(path), "--model", str(tmp_path / "w.safetensors"), "--device", "cpu"]
    asked += ["--methods", "saliency", "--write", "parametric-map, nrrd", "--write", "segmentation"]
    asked += ["--threshold", "top:0.1", "--when", "2024-05-06T07:08:09", "--out", str(tmp_path / "out")]
    assert main(asked) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "out/cr.json").read_text())
    assert record["written"]["files"] == [
        "cr.saliency.map.nrrd",
        "cr.saliency.parametric-map.dcm",
        "cr.saliency.segmentation.dcm",
    ]
    made = pydicom.dcmread(tmp_path / "out/cr.saliency.segmentation.dcm")
    assert "top 10 % of pixels" in made.SegmentSequence[0].SegmentDescription
    assert made.ContentDate == "20240506"
    assert main([*asked[:-2], "--out", str(tmp_path / "b"), "--write", "sgementation"]) == 2
    assert "unknown kind of file to write" in capsys.readouterr().err
