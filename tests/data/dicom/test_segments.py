"""DICOM segmentations as masks: written by highdicom, laid on the grid of the series that they mark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_files.made import plain, save
from pellucid.data.dicom.segments import decode_segments, is_segmentation, referenced_series
from pellucid.data.images import read_image
from pellucid.data.masks import on_voxels_of, read_mask
from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError
from references.segmentations import write_segmentation
from references.slices import AXIAL, ROOT, oblique, write_series


@pytest.mark.parametrize("orientation", [AXIAL, oblique()])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("slices", [(3,), (1, 3), (0, 2, 5), (2, 3, 4)])
def test_a_mask_lies_where_it_was_drawn(
    tmp_path: Path, orientation: tuple[float, ...], kind: str, slices: tuple[int, ...]
) -> None:
    files = write_series(tmp_path / "ct", orientation=orientation)
    labels = np.zeros((6, 5, 7), np.uint8)
    labels[list(slices), 1:3, 2:6] = 1
    labels[slices[0], 0, 0] = 1
    path = write_segmentation(files, labels, tmp_path / "seg.dcm", kind)
    image, mask = read_image(tmp_path / "ct"), read_mask(path, read_image(tmp_path / "ct").affine)
    laid = on_voxels_of(mask, image.pixels.shape[1:], image.affine)
    np.testing.assert_array_equal(laid.pixels[0], labels)
    assert laid.notes == ()
    assert is_segmentation(path.read_bytes())
    assert not is_segmentation(files[0].read_bytes())
    assert referenced_series(path) == f"{ROOT}.1"
    assert referenced_series(files[0]) is None
    assert referenced_series(tmp_path / "none") is None


def test_segments_keep_their_numbers(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct")
    labels = np.random.default_rng(0).integers(0, 4, (6, 5, 7)).astype(np.uint8)
    mask = read_mask(write_segmentation(files, labels, tmp_path / "seg.dcm"))
    np.testing.assert_array_equal(mask.pixels[0], labels)
    np.testing.assert_allclose(mask.affine, read_image(tmp_path / "ct").affine, atol=1e-6)


def test_labels_that_a_palette_paints_keep_their_numbers(tmp_path: Path) -> None:
    stored = np.arange(20, dtype="u1").reshape(4, 5)
    elements = {"PhotometricInterpretation": "PALETTE COLOR", "SegmentationType": "LABELMAP"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = bytes(range(255, -1, -1))
    path = save(tmp_path / "a.dcm", plain(stored, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.7", **elements))
    np.testing.assert_array_equal(decode_segments(path.read_bytes(), path).pixels[0], stored)


def test_fractions_count_from_one_half_on(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct")
    share = np.linspace(0, 1, 6 * 5 * 7, dtype=np.float32).reshape(6, 5, 7)
    mask = read_mask(write_segmentation(files, share[..., None], tmp_path / "seg.dcm", "FRACTIONAL"))
    np.testing.assert_array_equal(mask.pixels[0, -5:], share[-5:] >= 0.5)


def test_segments_that_overlap_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct")
    labels = np.zeros((6, 5, 7, 2), np.uint8)
    labels[2, 1:3, 1:3, 0] = labels[2, 2:4, 2:4, 1] = 1
    path = write_segmentation(files, labels, tmp_path / "seg.dcm")
    with pytest.raises(UnreadableFileError, match="its segments 1 and 2 overlap"):
        read_mask(path)


def test_frames_off_a_grid_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", [0, 2, 4.5, 7, 11])
    labels = np.ones((5, 5, 7), np.uint8)
    path = write_segmentation(files, labels, tmp_path / "seg.dcm")
    with pytest.raises(DecodeError, match="mm off a grid of equal steps"):
        decode_segments(path.read_bytes(), path)


def test_a_mask_of_another_grid_is_taken_to_the_nearest_voxels(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", orientation=oblique())
    image = read_image(tmp_path / "ct")
    labels = np.zeros((6, 5, 7), np.uint8)
    labels[2:4, 1:4, 2:5] = 1
    mask = read_mask(write_segmentation(files, labels, tmp_path / "seg.dcm"), image.affine)
    half = np.diag([0.5, 0.5, 0.5, 1.0])
    half[:3, 3] = -0.25  # each of the image's voxels is eight of the finer grid's
    finer = image.affine @ half
    laid = on_voxels_of(mask, (12, 10, 14), finer)
    np.testing.assert_array_equal(laid.pixels[0], labels.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    assert "took the nearest" in laid.notes[0]
    back = on_voxels_of(laid, (6, 5, 7), image.affine)
    np.testing.assert_array_equal(back.pixels[0], labels)
    cut = np.array(finer)
    cut[:3, 3] = (finer @ (6, 0, 0, 1))[:3]
    with pytest.raises(DecodeError, match="9 of its marked voxels lie outside of the image"):
        on_voxels_of(mask, (6, 10, 14), cut)
