"""DICOM files and series wherever pictures and volumes are taken: in folders, folders of classes, and manifests."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset

from pellucid.data.dataset import ImageDataset
from pellucid.data.dicom.series import scan
from pellucid.data.found import images_in, looks_dicom
from pellucid.data.images import read_image
from pellucid.data.layout import Listing, list_folder
from pellucid.data.manifest import Manifest, image_hash, load_manifest
from pellucid.errors import InputError, UnreadableFileError
from pellucid.training.predict import image_files
from references.slices import CORONAL, ROOT, a_slice, pixels_of, save, write_series


def patient(name: str):
    def change(dataset: Dataset, index: int) -> None:
        dataset.PatientID = name

    return change


def scout(folder: Path, series: str) -> Path:
    found = a_slice(90, (0, 0, 0), pixels_of(90), orientation=CORONAL, series=series)
    found.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return save(found, folder / "scout.dcm")


def report(folder: Path) -> Path:
    found = a_slice(91, None)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(found, name)
    found.Modality, found.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.11"
    return save(found, folder / "report.dcm")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series in folders of their own, with a scout, a report, a picture, a text, and a file that is empty."""
    for number in (1, 2):
        write_series(tmp_path / "in" / f"s{number}", series=f"{ROOT}.{number}", seed=number)
    scout(tmp_path / "in" / "s1", f"{ROOT}.1")
    report(tmp_path / "in")
    Image.new("L", (8, 8)).save(tmp_path / "in" / "photo.png")
    (tmp_path / "in" / "text.txt").write_text("x" * 300)
    (tmp_path / "in" / "empty.dcm").write_bytes(b"")
    return tmp_path / "in"


def test_dicom_is_found_by_ending_or_mark(study: Path) -> None:
    series = sorted((study / "s2").iterdir())
    assert all(looks_dicom(path) for path in (*series, study / "empty.dcm", study / "report.dcm"))
    assert not any(looks_dicom(path) for path in (study / "photo.png", study / "text.txt", study / "none"))
    disguised = study / "odd.1.2.840.7"
    shutil.copy(series[0], disguised)
    assert looks_dicom(disguised)


def test_a_folder_holds_pictures_or_volumes(study: Path) -> None:
    pictures = image_files([study])
    assert len(pictures) == 6 + 6 + 1 + 1 + 1  # slices, scout, photo, and the empty file, to be told
    assert study / "report.dcm" not in pictures
    assert pictures == sorted(pictures)
    names = {each.name: each for each in image_files([study], volumes=True)}
    series = {each.path.name for each in scan([study]).series if each.volume}
    assert set(names) == {*series, "photo.png", "empty.dcm"}
    for name in series:
        image = read_image(names[name])
        assert image.pixels.shape == (1, 6, 5, 7)
        assert image_files([names[name]], volumes=True) == [names[name]]
    with pytest.raises(UnreadableFileError, match="the file is empty"):
        read_image(study / "empty.dcm")
    with pytest.raises(InputError, match="isn't there"):
        image_files([study / "none" / "#12345678"], volumes=True)


def test_where_there_are_no_volumes_pictures_are_given(tmp_path: Path) -> None:
    path = scout(tmp_path, f"{ROOT}.1")
    assert images_in(tmp_path, (), volumes=True) == [path]


def test_a_series_that_should_be_a_volume_is_told(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 2, 4, 7.1])
    (path,) = image_files([tmp_path], volumes=True)
    with pytest.raises(UnreadableFileError, match="unequal steps"):
        read_image(path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes of three series each, those of one class in one folder, one of the others in two pieces."""
    root = tmp_path / "set"
    for number in range(3):
        change = patient(f"secret-{number % 2}")
        write_series(root / "sick", series=f"{ROOT}.{number}", seed=number, change=change)
        write_series(
            root / "well" / f"case{number}", series=f"{ROOT}.1{number}", seed=9 + number, change=patient(f"w{number}")
        )
    moved = sorted((root / "well" / "case2").iterdir())
    (root / "well" / "case2" / "more").mkdir()
    for path in moved[:2]:
        path.rename(root / "well" / "case2" / "more" / path.name)
    scout(root / "well", f"{ROOT}.55")
    return root


def test_class_folders_of_series(classes: Path) -> None:
    manifest = load_manifest(classes, volumes=True)
    assert manifest.classes == ("sick", "well")
    assert manifest.unreadable == ()
    table = manifest.table.set_index("sample")
    assert len(table) == 6
    assert sorted(sample.rsplit("/", 1)[0] for sample in table.index) == [
        *["sick"] * 3, *[f"well/case{number}" for number in range(3)],
    ]  # fmt: skip
    for sample, row in table.iterrows():
        image = read_image(classes / str(sample))
        assert row["pixel_hash"] == image_hash(image)
        assert (row["width"], row["height"]) == (7, 5)
    of_sick = table.loc[table["label"] == "sick", "patient_id"]
    assert sorted(of_sick.value_counts().tolist()) == [1, 2]  # of two patients
    assert table["patient_id"].str.fullmatch(r"patient-\d{4}").all()
    assert table["patient_id"].nunique() == 5
    told = " ".join(manifest.notes)
    assert "secret" not in told + table.to_csv()
    assert "1 DICOM files are no part of a volume" in told
    assert "5 patients are told apart by what DICOM files say" in told
    tensor, label, _ = ImageDataset(
        [classes / sample for sample in table.index], [0] * 6, channels=1, size=(4, 4, 4), intensity="image"
    )[3]
    assert tensor.shape == (1, 4, 4, 4)
    assert label == 0


def test_class_folders_of_dicom_pictures(classes: Path) -> None:
    manifest = load_manifest(classes)
    assert len(manifest.table) == 6 * 6 + 1
    assert manifest.unreadable == ()
    assert manifest.table["patient_id"].nunique() == 6  # that of the scout, too


def test_a_series_in_two_splits_is_one_in_each(classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes, tmp_path / "split" / "train")
    shutil.copytree(classes, tmp_path / "split" / "test")
    table = load_manifest(tmp_path / "split", volumes=True).table
    assert table["split"].value_counts().to_dict() == {"train": 6, "test": 6}
    assert table["pixel_hash"].value_counts().min() == 2  # which the check of leakage finds


def listed(root: Path) -> Listing:
    return list_folder(root, volumes=True)


def test_damaged_files_of_class_folders_are_listed(classes: Path) -> None:
    (classes / "sick" / "cut.dcm").write_bytes(next((classes / "sick").iterdir()).read_bytes()[:160])
    manifest = load_manifest(classes, volumes=True)
    assert [name for name, _ in manifest.unreadable] == ["sick/cut.dcm"]
    assert len(manifest.table) == 6
    with pytest.raises(UnreadableFileError, match=r"cut\.dcm"):
        load_manifest(classes, volumes=True, strict=True)
    assert "1 damaged file beside its slices" in " ".join(listed(classes).notes)


def table_of(root: Path, rows: list[dict[str, str]]) -> Path:
    pd.DataFrame(rows).to_csv(root / "manifest.csv", index=False)
    return root / "manifest.csv"


def in_manifest(root: Path, *, volumes: bool = True) -> Manifest:
    return load_manifest(root / "manifest.csv", volumes=volumes)


def test_a_manifest_names_folders_series_and_files(classes: Path) -> None:
    flat = sorted(each.path.name for each in scan([classes / "sick"]).series)
    affine = read_image(classes / "well" / "case0").affine
    assert affine is not None
    mask = np.zeros((6, 5, 7), np.uint8)
    mask[2:4, 1, 1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, affine), classes / "mask.nii.gz")
    turned = np.ascontiguousarray(mask.transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(turned, affine[:, [2, 1, 0, 3]]), classes / "turned.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask[:5], np.diag([9.0, 9, 9, 1])), classes / "wrong.nii.gz")
    voxels = sitk.GetImageFromArray(pixels_of(0, (6, 5 * 7)).reshape(6, 5, 7).astype(np.int16))
    sitk.WriteImage(voxels, str(classes / "volume.nrrd"))
    sitk.WriteImage(voxels, str(classes / "volume.mha"))
    rows = [
        {"path": f"sick/{flat[0]}", "label": "sick"},
        {"path": f"sick/{flat[1]}", "label": "sick"},
        {"path": "well/case0", "label": "well", "mask": "mask.nii.gz"},
        {"path": "well/case1/", "label": "well", "mask": "turned.nii.gz"},
        {"path": "well/case2", "label": "well", "mask": "wrong.nii.gz"},
        {"path": "volume.nrrd", "label": "well"},
        {"path": "volume.mha", "label": "sick"},
        {"path": "sick", "label": "sick"},
        {"path": "well/scout.dcm", "label": "well"},
    ]
    table_of(classes, rows)
    manifest = in_manifest(classes)
    samples = set(manifest.table["sample"])
    assert samples == {
        f"sick/{flat[0]}",
        f"sick/{flat[1]}",
        "well/case0",
        "well/case1",
        "well/case2",
        "volume.nrrd",
        "volume.mha",
    }
    unreadable = dict(manifest.unreadable)
    assert "holds 3 series; name one" in unreadable["sick"]
    assert "a picture, where volumes are wanted" in unreadable["well/scout.dcm"]
    assert dict(manifest.table[["sample", "mask"]].to_numpy())["well/case1"] == "turned.nii.gz"
    assert [name for name, _ in manifest.mask_problems] == ["wrong.nii.gz"]
    table_of(classes, [{"path": f"well/case{each}", "label": str(each)} for each in (0, 1)])
    with pytest.raises(InputError, match="a volume of 6 × 5 × 7 voxels"):
        in_manifest(classes, volumes=False)
    with pytest.raises(InputError, match="no series of that name"):
        table_of(classes, [{"path": "sick/#00000000", "label": "a"}])
        in_manifest(classes)
