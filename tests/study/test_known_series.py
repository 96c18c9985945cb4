"""The truth of DICOM series: masks by name of folder or series, by what a segmentation marks, or by a manifest."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from pellucid.data.dicom.series import scan
from pellucid.data.images import read_image
from pellucid.errors import InputError
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.known_images import ListedImage, Sources, known_of, list_images
from pellucid.training.predict import predict_files
from references.slices import ROOT, write_series

SHAPE = (6, 5, 7)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    for number in (1, 2):
        write_series(tmp_path / "in" / "sick" / f"case{number}", series=f"{ROOT}.{number}", seed=number)
    return tmp_path / "in"


def truth(number: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[number : number + 2, 1:3, 2:5] = 1
    return mask


def write_mask(cases: Path, number: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = read_image(cases / "sick" / f"case{number}").affine
    nibabel.save(nibabel.Nifti1Image(truth(number), affine), path)


def assert_known(images: list[ListedImage]) -> None:
    assert len(images) == 2
    for image in images:
        number = int(image.path.parent.name[-1] if image.path.name.startswith("#") else image.path.name[-1])
        known = known_of(image, read_image(image.path), SHAPE, None)
        assert known.problems == ()
        np.testing.assert_array_equal(known.mask.numpy(), truth(number))


@pytest.mark.parametrize("names", ["folders", "paths", "series", "marked"])
def test_masks_bear_the_name_of_the_folder_or_of_the_series(cases: Path, tmp_path: Path, names: str) -> None:
    for series in scan([cases]).series:
        case = series.folder.name
        name = {"folders": case, "paths": f"sick/{case}", "series": series.name, "marked": series.path.name}[names]
        write_mask(cases, int(case[-1]), tmp_path / "masks" / f"{name}.nii.gz")
    images = list_images([cases], Sources(masks=tmp_path / "masks"), ("sick", "well"), volumes=True)
    assert [image.label for image in images] == ["sick", "sick"]
    assert_known(images)


def test_a_segmentation_is_found_by_what_it_marks(cases: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    from references.segmentations import write_segmentation

    for number in (1, 2):
        files = list(read_image(cases / "sick" / f"case{number}").files)
        write_segmentation(files, truth(number), tmp_path / "masks" / f"{7 - number}.dcm", uid=f"{ROOT}.7{number}")
    assert_known(list_images([cases], Sources(masks=tmp_path / "masks"), ("sick",), volumes=True))
    one = cases / "sick" / "case1"
    write_segmentation(list(read_image(one).files), truth(1), tmp_path / "masks" / "more.dcm", uid=f"{ROOT}.79")
    images = list_images([cases], Sources(masks=tmp_path / "masks"), ("sick",), volumes=True)
    doubts = [image.doubt for image in images if image.path.parent == one]
    assert "several files or images are called" in doubts[0]["mask"]


def test_a_manifest_tells_of_series_by_their_folder_or_name(cases: Path, tmp_path: Path) -> None:
    rows = []
    for series in scan([cases]).series:
        number = int(series.folder.name[-1])
        write_mask(cases, number, cases / f"mask{number}.nii.gz")
        path = series.folder if number == 1 else series.path
        rows.append({"path": path.relative_to(cases).as_posix(), "label": "sick", "mask": f"mask{number}.nii.gz"})
    pd.DataFrame(rows).to_csv(cases / "manifest.csv", index=False)
    assert_known(list_images([cases], Sources(), ("sick",), volumes=True))
    (cases / "manifest.csv").rename(cases / "table.csv")
    assert_known(list_images([cases / "sick"], Sources(manifest=cases / "table.csv"), ("sick",), volumes=True))
    with pytest.raises(InputError, match="a table with the images' paths"):
        pd.DataFrame(rows)[:0].assign(path="").to_csv(tmp_path / "other.csv", index=False)
        pd.DataFrame([{"path": "x.nii", "label": "y"}]).to_csv(tmp_path / "other.csv", index=False)
        list_images([cases / "sick"], Sources(manifest=tmp_path / "other.csv"), ("sick",), volumes=True)


def test_series_are_predicted_and_explained(cases: Path, tmp_path: Path) -> None:
    card = ModelCard("resnet10-3d", (16, 16, 16), 1, ("sick", "well"), (0.0,), (1.0,), "none", "image")
    torch.manual_seed(0)
    network = card.build().eval()
    save_weights(tmp_path / "net.safetensors", network, card)
    table, unreadable = predict_files([cases], tmp_path / "net.safetensors", device=torch.device("cpu"))
    assert unreadable == []
    paths = [each.path for each in scan([cases]).series]
    assert table["path"].tolist() == sorted(map(str, paths))
    records, skipped = explain_files(
        [cases, paths[0]], (network, card), tmp_path / "out", Question(("saliency",), target="sick")
    )
    assert skipped == []
    assert sorted(record.stem for record in records) == sorted(each.name.removeprefix("#") for each in paths)
    assert len(records) == 2
