"""Many frames in one file: a volume in its place, one frame of a film, or one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import SimpleITK
from pydicom.uid import JPEG2000Lossless

from dicom_files.made import enhanced, items, packed, plain, save
from pellucid.data.dicom.frames import stack_of
from pellucid.data.images import decode_file, read_image
from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError

OBLIQUE = (0.8, 0.36, -0.48, 0.6, -0.48, 0.64)  # rows, then columns: at right angles to each other
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])
ORIGIN = np.array([-12.5, 30.0, 7.25])
STEP = 2.5
SPACING = (0.75, 0.5)
STORED = np.random.default_rng(0).integers(0, 1000, (6, 9, 11)).astype("u2")
SHUFFLED = [3, 0, 5, 1, 4, 2]


def places(order: list[int], step: np.ndarray = STEP * NORMAL) -> list[np.ndarray]:
    return [ORIGIN + place * step for place in order]


def shuffled(**elements: Any) -> Any:
    """The oblique volume STORED with its frames out of order."""
    return enhanced(STORED[SHUFFLED], places(SHUFFLED), OBLIQUE, spacing=SPACING, **elements)


def refusal(path: Path, index: int | None = None) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read_image(path, index)
    return str(caught.value)


def test_frames_lie_by_their_places_and_not_by_their_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", shuffled())
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, STORED[None])
    assert image.affine is not None
    assert image.spacing == pytest.approx((STEP, *SPACING))
    assert image.orientation == pytest.approx(OBLIQUE)
    to_ras = np.diag([-1, -1, 1])
    for slice_, row, column in ((0, 0, 0), (5, 8, 10), (2, 3, 4)):
        along = SPACING[1] * column * np.array(OBLIQUE[:3]) + SPACING[0] * row * np.array(OBLIQUE[3:])
        wanted = ORIGIN + STEP * slice_ * NORMAL + along
        np.testing.assert_allclose((image.affine @ (slice_, row, column, 1))[:3], to_ras @ wanted, atol=1e-9)


def test_the_place_is_that_of_simpleitk_and_highdicom(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", enhanced(STORED, places(list(range(6))), OBLIQUE, spacing=SPACING, modality="CT"))
    image = read_image(path)
    assert image.affine is not None
    volume = highdicom.imread(path).get_volume(dtype=np.uint16)
    lps_to_ras = np.diag([-1.0, -1, 1, 1])
    here_to_there = np.linalg.inv(lps_to_ras @ volume.affine) @ image.affine
    turned = np.diag([-1.0, 1, 1, 1])  # which counts slices from the other end
    turned[0, 3] = 5
    np.testing.assert_allclose(here_to_there, turned, atol=1e-6)
    np.testing.assert_array_equal(volume.array[::-1], image.pixels[0])
    other = SimpleITK.ReadImage(str(path))
    for index in ((0, 0, 0), (10, 8, 5), (4, 3, 2)):
        there = np.array(other.TransformContinuousIndexToPhysicalPoint(index))
        np.testing.assert_allclose((image.affine @ (*index[::-1], 1))[:3], np.diag([-1, -1, 1]) @ there, atol=1e-4)


def test_a_tilted_gantry_shears_the_affine(tmp_path: Path) -> None:
    step = np.array([0, 0.7, 2.0])
    order = list(range(6))
    image = read_image(save(tmp_path / "a.dcm", enhanced(STORED, places(order, step), spacing=SPACING)))
    assert image.affine is not None
    np.testing.assert_allclose(image.affine[:3, 0], [0, -0.7, 2])
    assert image.spacing == pytest.approx((np.linalg.norm(step), *SPACING))


def test_one_frame_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", shuffled())
    for number, place in enumerate(SHUFFLED):
        image = read_image(path, number)
        np.testing.assert_array_equal(image.pixels, STORED[None, place])
        assert image.affine is None
        assert image.spacing == SPACING
        assert image.orientation == pytest.approx(OBLIQUE)
    assert "holds 6 frames, none with index 6" in refusal(path, 6)
    assert "none with index -1" in refusal(path, -1)


def test_encoded_frames_and_those_of_one_frame(tmp_path: Path) -> None:
    import imagecodecs

    streams = [bytes(imagecodecs.jpeg2k_encode(f, level=0, codecformat="J2K", reversible=True)) for f in STORED]
    dataset = packed(shuffled(syntax=JPEG2000Lossless), [streams[place] for place in SHUFFLED])
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.dcm", dataset)).pixels, STORED[None])
    single = enhanced(STORED[:1], places([0]), OBLIQUE, spacing=SPACING)
    image = read_image(save(tmp_path / "b.dcm", single))
    assert (image.affine, image.spacing, image.pixels.shape) == (None, SPACING, (1, 9, 11))
    assert image.orientation == pytest.approx(OBLIQUE)


def test_pictures_alone_are_taken_where_no_volumes_are(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", shuffled())
    with pytest.raises(DecodeError, match="a DICOM file of 6 slices; PNG, .* DICOM pictures are taken"):
        decode_file(path)
    assert decode_file(path, 2).pixels.shape == (1, 9, 11)
    assert decode_file(path, volumes=True).pixels.shape == (1, 6, 9, 11)


def test_several_frames_to_a_place(tmp_path: Path) -> None:
    dataset = enhanced(STORED, places([0, 0, 1, 1, 2, 2]), OBLIQUE, spacing=SPACING)
    path = save(tmp_path / "a.dcm", dataset)
    told = "its 6 frames lie at 3 places, several to a place; pick one with index= (--index), from 0 to 5"
    assert told in refusal(path)
    np.testing.assert_array_equal(read_image(path, 3).pixels[0], STORED[3])


def test_frames_turned_against_each_other(tmp_path: Path) -> None:
    turned = [{}] * 4 + [{"PlaneOrientationSequence": items({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})}] * 2
    path = save(tmp_path / "a.dcm", enhanced(STORED, places(list(range(6))), OBLIQUE, per_frame=turned))
    assert "its 6 frames lie in 2 orientations; pick one with index=" in refusal(path)


def test_frames_of_two_pixel_sizes(tmp_path: Path) -> None:
    groups = [{}] * 5 + [{"PixelMeasuresSequence": items({"PixelSpacing": [9, 9]})}]
    path = save(tmp_path / "a.dcm", enhanced(STORED, places(list(range(6))), OBLIQUE, per_frame=groups))
    assert "its 6 frames have 2 pixel spacings; pick one with index=" in refusal(path)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 5, 6], [0, 1, 2, 3, 4, 9]])
def test_gaps_between_frames(tmp_path: Path, order: list[int]) -> None:
    path = save(tmp_path / "a.dcm", enhanced(STORED, places(order), OBLIQUE, spacing=SPACING))
    assert f"its 6 frames are unevenly spaced, 2.5 to {2.5 * max(np.diff(order)):g} mm; pick one" in refusal(path)


def test_steps_may_differ_by_rounding(tmp_path: Path) -> None:
    rounded = [np.round(place, 2) for place in places(list(range(6)))]
    assert read_image(save(tmp_path / "a.dcm", enhanced(STORED, rounded, OBLIQUE))).pixels.shape == (1, 6, 9, 11)


def test_a_film_says_nothing_of_places(tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 256, (4, 9, 11, 3)).astype("u1")
    path = save(tmp_path / "a.dcm", plain(film, Modality="US"))
    told = "the file holds 4 frames, and doesn't say where they lie; pick one with index= (--index), from 0 to 3"
    assert told in refusal(path)
    np.testing.assert_array_equal(np.moveaxis(read_image(path, 2).pixels, 0, -1), film[2])
    one = save(tmp_path / "b.dcm", plain(film[:1], Modality="US"))
    assert read_image(one).pixels.shape == read_image(one, 0).pixels.shape == (3, 9, 11)
    assert "a picture, so that there is none with index 1" in refusal(one, 1)


@pytest.mark.parametrize("first", [0.0, 20.0])
def test_planes_of_a_dose(tmp_path: Path, first: float) -> None:
    """Offsets from the first plane along the normal, or places along the body (PS3.3, C.8.8.3.2)."""
    offsets = [first + 3.0 * plane for plane in range(6)]
    dataset = plain(
        STORED, Modality="RTDOSE", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2", DoseGridScaling=0.5, DoseUnits="GY",
        GridFrameOffsetVector=offsets, ImagePositionPatient=[-10, -20, 20], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[2, 1],
    )  # fmt: skip
    path = save(tmp_path / "a.dcm", dataset)
    image = read_image(path)
    assert image.affine is not None
    assert (image.units, image.spacing) == ("GY", (3, 2, 1))
    np.testing.assert_array_equal(image.pixels[0], STORED * 0.5)
    np.testing.assert_allclose(image.affine, [[0, 0, -1, 10], [0, -2, 0, 20], [3, 0, 0, 20], [0, 0, 0, 1]])
    other = SimpleITK.ReadImage(str(path))
    there = np.array(other.TransformContinuousIndexToPhysicalPoint((2.0, 3.0, 4.0)))
    np.testing.assert_allclose((image.affine @ (4, 3, 2, 1))[:3], np.diag([-1, -1, 1]) @ there, atol=1e-6)


def test_a_thousand_frames_are_sorted_soon() -> None:
    count = 1000
    order = np.random.default_rng(0).permutation(count).tolist()
    stack = stack_of(enhanced(np.zeros((count, 2, 2), "u1"), places(order), OBLIQUE), count)
    assert stack is not None
    assert stack.order == tuple(np.argsort(order).tolist())
