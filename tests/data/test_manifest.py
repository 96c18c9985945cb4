from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from pellucid.data.images import read_image
from pellucid.data.manifest import COLUMNS, MEASURED, image_hash, load_manifest, pixel_hash
from pellucid.data.phantoms.write_volumes import write_nifti
from pellucid.errors import InputError, UnreadableFileError


def picture(path: Path, value: int = 0, size: tuple[int, int] = (6, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three images, of which a/0 and b/0 are alike."""
    for name in "ab":
        for number in range(3):
            picture(tmp_path / "data" / name / f"{number}.png", number * (10 if name == "a" else 20))
    return tmp_path / "data"


def test_a_folder_of_classes(folder: Path) -> None:
    manifest = load_manifest(folder)
    table = manifest.table
    assert (manifest.name, manifest.root, manifest.classes) == ("data", folder, ("a", "b"))
    assert tuple(table.columns) == (*COLUMNS, *MEASURED)
    assert table["sample"].tolist() == [f"{name}/{number}.png" for name in "ab" for number in range(3)]
    assert set(table["split"]) == set(table["patient_id"]) == set(table["mask"]) == {""}
    assert table["age"].dtype == np.float64
    facts = table[["width", "height", "channels", "bits"]].drop_duplicates()
    assert facts.to_numpy().tolist() == [[6, 5, 1, 8]]
    assert manifest.unreadable == ()
    assert manifest.mask_problems == ()


def test_hashes_are_those_of_the_pixels(folder: Path) -> None:
    table = load_manifest(folder).table.set_index("sample")
    assert table.loc["a/0.png", "pixel_hash"] == table.loc["b/0.png", "pixel_hash"]
    assert table["pixel_hash"].nunique() == 4  # 0, 10, 20 and 40
    for sample, row in table.iterrows():
        assert row["pixel_hash"] == pixel_hash(read_image(folder / str(sample)).pixels)


def test_the_hash_sees_type_shape_and_values() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    others = [pixels.astype(np.uint16), pixels.reshape(1, 4, 3), pixels[:, ::-1], np.concatenate([pixels] * 2)]
    assert len({pixel_hash(other) for other in [pixels, *others]}) == 5
    assert pixel_hash(np.concatenate([pixels] * 3)) == pixel_hash(pixels)
    assert pixel_hash(pixels.swapaxes(1, 2)) == pixel_hash(pixels.swapaxes(1, 2).copy())
    assert pixel_hash(pixels.astype(">u2").astype("=u2")) == pixel_hash(pixels.astype(np.uint16))


def test_a_volume_in_other_axes_and_types_is_the_same(tmp_path: Path) -> None:
    affine = np.array([[-1.6, 0.5, -0.3, 4.0], [0.7, 1.4, -0.9, 2.0], [-0.2, 0.8, 2.7, 1.0], [0, 0, 0, 1]])
    values = np.random.default_rng(0).integers(-900, 900, (6, 7, 5)).astype(np.int16)
    hashes = set()
    for number, codes in enumerate(("RAS", "LPS", "SPL", "AIR")):
        path = tmp_path / f"{number}.nii.gz"
        write_nifti(path, values.astype(np.float32) if number == 2 else values, affine, codes)
        hashes.add(image_hash(read_image(path)))
    assert len(hashes) == 1
    write_nifti(tmp_path / "mirrored.nii.gz", values[::-1], affine, "RAS")
    assert image_hash(read_image(tmp_path / "mirrored.nii.gz")) not in hashes


def test_the_name_can_be_given_and_the_root_be_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load_manifest(".").name == "data"
    assert load_manifest(".", name="other").name == "other"


def test_a_manifest_file_in_the_folder_is_taken(folder: Path) -> None:
    text = "path,label,split,patient_id\nb/1.png,x,test,p1\na/1.png,y,train,\n"
    (folder / "manifest.csv").write_text(text)
    for path in (folder, folder / "manifest.csv"):
        manifest = load_manifest(path)
        assert manifest.table[["sample", "label", "split", "patient_id"]].to_numpy().tolist() == [
            ["a/1.png", "y", "train", ""],
            ["b/1.png", "x", "test", "p1"],
        ]
        assert "1 of 2 images have no patient id; each counts as a patient of its own." in manifest.notes
    pd.read_csv(folder / "manifest.csv").to_parquet(folder / "manifest.parquet")
    with pytest.raises(InputError, match=r"manifest\.csv and manifest\.parquet"):
        load_manifest(folder)


def test_parquet_in_the_folder_is_taken(folder: Path) -> None:
    pd.DataFrame({"path": ["a/1.png", "b/1.png"], "label": ["u", "v"]}).to_parquet(folder / "manifest.parquet")
    assert load_manifest(folder).classes == ("u", "v")


def test_further_columns_are_kept_and_measured_ones_corrected(folder: Path) -> None:
    text = "path,label,lesion_id,width,height\na/1.png,x,01,6,5\nb/1.png,y,,6,50\n"
    (folder / "manifest.csv").write_text(text)
    manifest = load_manifest(folder)
    assert manifest.table["lesion_id"].tolist() == ["01", ""]
    assert manifest.table["height"].tolist() == [5, 5]
    assert any("height differ from what the files hold" in note for note in manifest.notes)
    assert not any("width" in note for note in manifest.notes)


def test_unreadable_images_are_listed_and_the_rest_goes_on(folder: Path) -> None:
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[:-20])
    (folder / "b" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "text.bmp").write_text("hello")
    (folder / "b" / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    manifest = load_manifest(folder)
    assert len(manifest.table) == 6
    reasons = dict(manifest.unreadable)
    assert list(reasons) == ["a/cut.png", "b/empty.jpg", "b/scan.dcm", "b/text.bmp"]
    assert "truncated" in reasons["a/cut.png"]
    assert "empty" in reasons["b/empty.jpg"]
    assert "DICOM" in reasons["b/scan.dcm"]
    with pytest.raises(UnreadableFileError, match=r"a/cut\.png: the file is truncated"):
        load_manifest(folder, strict=True)


def test_a_file_that_is_not_there_is_listed(folder: Path) -> None:
    (folder / "manifest.csv").write_text("path,label\na/1.png,x\nb/1.png,y\nb/none.png,y\n")
    assert load_manifest(folder).unreadable == (("b/none.png", "No such file or directory"),)


def test_a_class_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "1.png").write_bytes(b"")
    manifest = load_manifest(folder)
    assert manifest.classes == ("a", "b")
    assert "No image of c could be read; the data set goes on without." in manifest.notes


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 2 images .* a/1.png: the file is empty"):
        load_manifest(tmp_path)


def test_one_class_is_an_error_with_a_hint(folder: Path) -> None:
    with pytest.raises(InputError, match=r"at least two classes, got one, 'data'.*name that folder"):
        load_manifest(folder.parent)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="isn't there"):
        load_manifest(tmp_path / "none")


def test_masks_are_checked_against_their_images(folder: Path) -> None:
    masks = folder.parent / "data" / "m"
    picture(masks / "good.png", 255)
    picture(masks / "large.png", 255, size=(12, 10))
    (masks / "broken.png").write_bytes(b"")
    rows = [
        "a/0.png,x,m/good.png",
        "a/1.png,x,m/large.png",
        "b/0.png,y,m/broken.png",
        "b/1.png,y,m/none.png",
        "b/2.png,y,",
    ]
    (folder / "manifest.csv").write_text("path,label,mask\n" + "\n".join(rows) + "\n")
    manifest = load_manifest(folder)
    assert manifest.table["mask"].tolist() == ["m/good.png", "", "", "", ""]
    assert manifest.unreadable == ()
    assert manifest.mask_problems == (
        ("m/large.png", "mask of a/1.png: it is 12 × 10 pixels, its image 6 × 5 pixels"),
        ("m/broken.png", "mask of b/0.png: the file is empty"),
        ("m/none.png", "mask of b/1.png: No such file or directory"),
    )
    assert any(note.startswith("3 masks can't be used") for note in manifest.notes)
    with pytest.raises(UnreadableFileError, match=r"large\.png, the mask of a/1\.png: it is 12 × 10"):
        load_manifest(folder, strict=True)


def test_depths_that_differ_are_noted(folder: Path) -> None:
    tifffile.imwrite(folder / "a" / "deep.tif", np.zeros((5, 6), np.uint16))
    manifest = load_manifest(folder)
    assert "Images differ in bits per sample (6 of 8, 1 of 16); the depth may give the source away." in manifest.notes


def test_no_patient_ids_are_noted(folder: Path) -> None:
    assert any(note.startswith("No patient ids are known") for note in load_manifest(folder).notes)


def test_patients_of_several_classes_are_noted(folder: Path) -> None:
    rows = "a/0.png,x,p\na/1.png,x,q\nb/1.png,y,p\nb/2.png,y,\n"
    (folder / "manifest.csv").write_text("path,label,patient_id\n" + rows)
    assert "1 patients have images of more than one class." in load_manifest(folder).notes


def test_what_a_real_pack_hides_is_noted(shared_data: Path) -> None:
    assert load_manifest(shared_data / "chest_xray").notes == ("21 patients have images of more than one class.",)


def test_strict_stops_without_reading_everything(folder: Path) -> None:
    (folder / "a" / "0.png").write_bytes(b"")
    for number in range(300):
        picture(folder / "b" / f"{number}.png", number % 250, size=(300, 300))
    with pytest.raises(UnreadableFileError, match=r"a/0\.png"):
        load_manifest(folder, strict=True)


def test_the_same_folder_gives_the_same_table(folder: Path) -> None:
    pd.testing.assert_frame_equal(load_manifest(folder).table, load_manifest(folder).table)


@pytest.mark.parametrize(
    ("pack", "images", "classes"), [("brain_mri", 2409, 4), ("skin", 1367, 9), ("chest_xray", 1124, 3)]
)
def test_real_packs_are_read_whole(pack: str, images: int, classes: int, shared_data: Path) -> None:
    started = time.perf_counter()
    manifest = load_manifest(shared_data / pack)
    assert time.perf_counter() - started < 60  # seconds; about two on a quiet machine
    assert (len(manifest.table), len(manifest.classes)) == (images, classes)
    assert manifest.unreadable == ()
    listed = pd.read_csv(shared_data / pack / "manifest.csv").set_index("path").loc[manifest.table["sample"]]
    assert (listed[["width", "height"]].to_numpy() == manifest.table[["width", "height"]].to_numpy()).all()


def test_a_real_pack_reads_the_same_as_folders(shared_data: Path) -> None:
    listed = load_manifest(shared_data / "skin").table
    root = shared_data / "skin" / "test"
    found = load_manifest(root).table
    wanted = listed[listed["split"] == "test"]
    assert found["label"].tolist() == wanted["label"].tolist()
    assert found["pixel_hash"].tolist() == wanted["pixel_hash"].tolist()
    assert os.fspath(root / found["sample"].iloc[0]).endswith(wanted["sample"].iloc[0])


def test_real_masks_fit_their_images(shared_data: Path) -> None:
    manifest = load_manifest(shared_data / "lesion_masks")
    assert (len(manifest.table), int((manifest.table["mask"] != "").sum())) == (396, 396)
    assert manifest.mask_problems == ()
