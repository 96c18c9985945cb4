"""CT phantoms: HU of what they are made of, repeatable, lesions in a lung, and the same as NIfTI and as DICOM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from pellucid.data.dicom.series import scan
from pellucid.data.images import read_image
from pellucid.data.phantoms import draw_volume, write_volumes
from pellucid.data.phantoms.ct import SHAPE, SPACING
from pellucid.errors import InputError

SMALL = {"shape": (18, 42, 60), "spacing": (10.0, 6.0, 6.0)}


def test_a_volume_repeats_and_another_seed_gives_another() -> None:
    first, again, other = (draw_volume(0, seed=seed, **SMALL) for seed in (1, 1, 2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.values, again.values)
    assert first.patient_id == again.patient_id
    assert (first.values != other.values).mean() > 0.1
    assert first.values.dtype == np.int16


def test_lesions_lie_in_a_lung_and_weigh_as_soft_tissue() -> None:
    for index in range(8):
        sample = draw_volume(index, **SMALL)  # type: ignore[arg-type]
        assert sample.label == ("lesion" if index % 2 == 0 else "normal")
        assert sample.mask.any() == (sample.label == "lesion")
        if sample.mask.any():
            centre = np.argwhere(sample.mask).mean(axis=0)
            right, front, up = (sample.affine @ [*centre, 1])[:3]
            assert 20 < abs(right) < 140
            assert abs(front) < 70
            assert -70 < up < 90
            whole = draw_volume(index)
            inside = whole.values[whole.mask]
            assert -60 < np.median(inside) < 110
            diameter = (6 * whole.mask.sum() * np.prod(SPACING) / np.pi) ** (1 / 3)
            assert 22 < diameter < 44


def test_air_lungs_soft_tissue_and_bone_are_there() -> None:
    values = draw_volume(1).values
    shares = [
        float(((values > low) & (values < high)).mean())
        for low, high in ((-1025, -940), (-930, -780), (-150, -50), (0, 100), (300, 3072))
    ]
    assert min(shares) > 0.01, shares


def test_the_class_changes_the_lesion_alone() -> None:
    sample = draw_volume(0)
    air = sample.values.astype(float)
    assert np.median(air[sample.mask]) - np.median(air[(air > -930) & (air < -780)]) > 700


def test_a_tilted_volume_shows_the_same_patient() -> None:
    straight, tilted = draw_volume(0), draw_volume(0, tilt=12.0)
    places = [(sample.affine @ [*np.argwhere(sample.mask).mean(axis=0), 1])[:3] for sample in (straight, tilted)]
    assert np.linalg.norm(places[0] - places[1]) < 3
    assert nibabel.aff2axcodes(tilted.affine) == ("S", "P", "L")
    assert abs(tilted.affine[1, 0]) > 0.5


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shape": (4, 40, 40)}, "shape: expected at least 8"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing: expected three steps above 0"),
        ({"seed": -1}, "seed: expected 0 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_volume(0, **asked)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for form in ("nifti", "dicom"):
        made[form] = tmp_path_factory.mktemp(form)
        write_volumes(made[form], volumes=2, form=form, tilt=9.0)  # type: ignore[arg-type]
    return made


def test_nifti_and_dicom_hold_the_same_volume_at_the_same_place(folders: dict[str, Path]) -> None:
    sample = draw_volume(0, tilt=9.0)
    stored = nibabel.load(folders["nifti"] / "images/lesion/ct-lesion-00000.nii.gz")
    assert nibabel.aff2axcodes(stored.affine) == ("L", "A", "S")
    series = scan([folders["dicom"] / "images/lesion/ct-lesion-00000"]).series
    assert len(series) == 1
    image = read_image(series[0].path)
    np.testing.assert_array_equal(image.pixels[0], sample.values)
    assert image.affine is not None
    np.testing.assert_allclose(image.affine, sample.affine, atol=1e-3)
    assert (image.modality, image.units) == ("CT", "HU")
    turned = np.asarray(stored.dataobj)[:, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(turned, sample.values)
    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folders["dicom"] / "images/lesion/ct-lesion-00000"))
    theirs = sitk.ReadImage(names)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), sample.values)
    place = np.array(theirs.TransformIndexToPhysicalPoint((50, 20, 30))) * (-1, -1, 1)
    np.testing.assert_allclose(place, (sample.affine @ [30, 20, 50, 1])[:3], atol=1e-3)


def test_the_manifest_tells_patients_and_masks(folders: dict[str, Path]) -> None:
    for form, folder in folders.items():
        table = pd.read_csv(folder / "manifest.csv", keep_default_na=False)
        assert table["label"].tolist() == ["lesion", "normal"]
        assert table["mask"].tolist() == ["masks/lesion/ct-lesion-00000.nii.gz", ""]
        assert all((folder / path).exists() for path in table["path"]), form
        mask = nibabel.load(folder / table["mask"][0])
        assert np.asarray(mask.dataobj).sum() == draw_volume(0, tilt=9.0).mask.sum()


def test_what_stands_is_not_drawn_again_and_what_is_missing_is(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(folders["dicom"], folder)
    first = folder / "images/lesion/ct-lesion-00000/IM00001.dcm"
    whole = first.read_bytes()
    kept = folder / "images/normal/ct-lesion-00001/IM00003.dcm"
    kept.write_bytes(b"kept")
    first.unlink()
    write_volumes(folder, volumes=2, form="dicom", tilt=9.0)
    assert first.read_bytes() == whole
    assert kept.read_bytes() == b"kept"
    with pytest.raises(InputError, match="which has other images in it"):
        (tmp_path / "theirs" / "images").mkdir(parents=True)
        write_volumes(tmp_path / "theirs", volumes=2)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of Debian's dicom3tools isn't installed")
def test_dciodvfy_finds_no_error_in_the_slices(folders: dict[str, Path]) -> None:
    files = sorted((folders["dicom"] / "images/lesion/ct-lesion-00000").glob("*.dcm"))
    assert len(files) == SHAPE[0]
    for path in files[::12]:
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said, said
