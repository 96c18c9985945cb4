"""From stored values to those in the file's units, and what else a file says of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicom_files.made import enhanced, items, plain, save
from pellucid.data.images import MedicalImage, read_image
from pellucid.errors import UnreadableFileError

STORED = np.array([[0, 1, 2], [100, 2000, 4095]], np.uint16)


def read(tmp_path: Path, dataset: pydicom.Dataset, index: int | None = None) -> MedicalImage:
    return read_image(save(tmp_path / "a.dcm", dataset), index)


def refusal(tmp_path: Path, dataset: pydicom.Dataset) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(tmp_path, dataset)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "wanted"),
    [
        ("u2", None, None, "u2"),
        ("u2", 1, 0, "u2"),
        ("u2", 1, -1024, "i2"),
        ("u2", 2, 0, "i2"),
        ("u2", -1, 0, "i2"),
        ("u2", 8, 7, "i2"),  # 32,767 at most
        ("u2", 8, 8, "f4"),
        ("u2", -8, -9, "f4"),
        ("u2", 1, 100_000, "f4"),
        ("u2", 65537, 0, "f8"),
        ("u2", 0.5, 0, "f4"),
        ("u2", 1, -0.5, "f4"),
        ("i2", 1, -1024, "i2"),
        ("u1", 1, -1024, "i2"),
        ("u4", 1, -1024, "i2"),
        ("u4", 0.25, 0, "f8"),
    ],
)
def test_slope_and_intercept(
    tmp_path: Path, dtype: str, slope: float | None, intercept: float | None, wanted: str
) -> None:
    stored = STORED.clip(0, 255 if dtype == "u1" else None).astype(dtype)
    elements = {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": intercept}
    image = read(tmp_path, plain(stored, **elements))
    assert image.pixels.dtype == wanted
    exact = stored.astype(float) * (1 if slope is None else slope) + (intercept or 0)
    np.testing.assert_array_equal(image.pixels[0], exact)


def test_the_whole_range_of_sixteen_bits_survives_a_sum_that_overflows_on_the_way(tmp_path: Path) -> None:
    stored = np.array([[0, 65535, 32768, 40000]], np.uint16)
    image = read(tmp_path, plain(stored, RescaleSlope=1, RescaleIntercept=-32768))
    assert image.pixels.dtype == np.int16
    np.testing.assert_array_equal(image.pixels[0], stored.astype(int) - 32768)


@pytest.mark.parametrize(("bits", "first", "dtype"), [(8, 0, "u1"), (12, 0, "u2"), (16, 5, "u2"), (16, -100, "u2")])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_modality_lut_goes_before_slope_and_intercept(
    tmp_path: Path, bits: int, first: int, dtype: str, as_bytes: bool
) -> None:
    table = np.random.default_rng(0).integers(0, 2**bits, 300).astype("u2")
    lut = items({"LUTDescriptor": [300, max(first, 0), bits], "ModalityLUTType": "OD", "LUTData": table.tolist()})
    lut[0]["LUTData"].VR = "US"
    if first < 0:
        lut[0]["LUTDescriptor"].VR, lut[0].LUTDescriptor = "SS", [300, first, bits]
    if as_bytes:
        lut[0].add_new("LUTData", "OW", table.tobytes())
    stored = STORED.astype("i2") - np.int16(50 if first < 0 else 0)
    image = read(tmp_path, plain(stored, ModalityLUTSequence=lut, RescaleSlope=2, RescaleIntercept=1))
    assert image.pixels.dtype == dtype
    assert image.units == "OD"
    np.testing.assert_array_equal(image.pixels[0], table[(stored.astype(int) - first).clip(0, 299)])


@pytest.mark.parametrize(
    ("elements", "units"),
    [
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}, "HU"),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}, "HU"),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "US"}, None),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "MGML"}, "MGML"),
        ({"Modality": "CT"}, None),
        (
            {
                "Modality": "CT",
                "RescaleSlope": 1,
                "RescaleIntercept": 0,
                "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
            },
            None,
        ),
        ({"Modality": "MR", "RescaleSlope": 1, "RescaleIntercept": 0}, None),
        ({"Modality": "CR", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "OD"}, "OD"),
        ({"Modality": "RTDOSE", "DoseGridScaling": 0.5, "DoseUnits": "GY"}, "GY"),
        ({"Modality": "PT", "Units": "CNTS"}, "CNTS"),
        ({"Modality": "PT", "Units": "GML"}, "SUVbw"),
        ({"Modality": "PT", "Units": "GML", "SUVType": "LBM"}, "SUVlbm"),
    ],
)
def test_units(tmp_path: Path, elements: dict[str, Any], units: str | None) -> None:
    assert read(tmp_path, plain(STORED, **elements)).units == units


def test_a_dose_is_scaled(tmp_path: Path) -> None:
    image = read(tmp_path, plain(STORED.astype("u4"), Modality="RTDOSE", DoseGridScaling="0.001", DoseUnits="GY"))
    np.testing.assert_allclose(image.pixels[0], STORED * 0.001, rtol=1e-15)


def test_padding_keeps_its_value_and_is_told(tmp_path: Path) -> None:
    stored = np.full((20, 20), 1000, np.int16) + np.arange(20, dtype=np.int16)
    stored[:10] = -2000
    base = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    dataset = plain(stored, **base)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    image = read(tmp_path, dataset)
    assert image.pixels.min() == -3024
    assert image.notes == ("200 pixels are padding, by (0028,0120) PixelPaddingValue",)
    assert image.window is not None
    assert image.window.centre - image.window.width / 2 >= -24  # found without them
    dataset.add_new("PixelPaddingValue", "US", 63536)  # the same, by a writer that forgot the sign
    assert read(tmp_path, dataset).notes == image.notes
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.add_new("PixelPaddingRangeLimit", "SS", 1005)
    assert read(tmp_path, dataset).notes[0].startswith("260 pixels")
    assert not read(tmp_path, plain(stored, **base)).notes


# enhanced objects


def test_each_frame_may_have_its_own_slope(tmp_path: Path) -> None:
    stored = np.arange(2 * 4 * 5, dtype="u2").reshape(2, 4, 5)
    groups = [
        {"PixelValueTransformationSequence": items({"RescaleSlope": slope, "RescaleIntercept": 3, "RescaleType": "US"})}
        for slope in (2, 0.5)
    ]
    path = save(tmp_path / "a.dcm", enhanced(stored, [(0, 0, 0), (0, 0, 2)], per_frame=groups))
    volume = read_image(path)
    assert volume.pixels.dtype == np.float32
    np.testing.assert_array_equal(volume.pixels[0, 0], stored[0] * 2.0 + 3)
    np.testing.assert_array_equal(volume.pixels[0, 1], stored[1] * 0.5 + 3)
    assert read_image(path, 0).pixels.dtype == np.int16


def test_slopes_that_all_frames_share(tmp_path: Path) -> None:
    stored = np.arange(2 * 4 * 5, dtype="u2").reshape(2, 4, 5)
    group = items({"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"})
    dataset = enhanced(
        stored, [(0, 0, 0), (0, 0, 2)], modality="CT", shared={"PixelValueTransformationSequence": group}
    )  # fmt: skip
    image = read(tmp_path, dataset)
    assert (image.units, image.pixels.dtype) == ("HU", np.int16)
    np.testing.assert_array_equal(image.pixels[0], stored.astype(int) - 1024)


def real_world(code: str = "mm2/s", **changes: Any) -> pydicom.sequence.Sequence:
    entry = {
        "RealWorldValueFirstValueMapped": 0,
        "RealWorldValueLastValueMapped": 65535,
        "RealWorldValueSlope": 0.001,
        "RealWorldValueIntercept": 0.0,
        "MeasurementUnitsCodeSequence": items(
            {"CodeValue": code, "CodingSchemeDesignator": "UCUM", "CodeMeaning": code}
        ),
    }
    return items({key: value for key, value in {**entry, **changes}.items() if value is not None})


def test_a_real_world_mapping_applies_where_nothing_gainsays_it(tmp_path: Path) -> None:
    image = read(tmp_path, plain(STORED, Modality="MR", RealWorldValueMappingSequence=real_world()))
    assert image.units == "mm2/s"
    np.testing.assert_allclose(image.pixels[0], STORED * 0.001, rtol=1e-6)
    same = {"RescaleSlope": 0.001, "RescaleIntercept": 0}
    image = read(tmp_path, plain(STORED, Modality="MR", RealWorldValueMappingSequence=real_world(), **same))
    assert image.units == "mm2/s"
    np.testing.assert_allclose(image.pixels[0], STORED * 0.001, rtol=1e-6)
    other = {"RescaleSlope": 2, "RescaleIntercept": 0}
    image = read(tmp_path, plain(STORED, Modality="MR", RealWorldValueMappingSequence=real_world(), **other))
    assert image.units is None
    np.testing.assert_array_equal(image.pixels[0], STORED * 2)
    two = pydicom.sequence.Sequence([*real_world(), *real_world("ug/ml", RealWorldValueSlope=7)])
    assert read(tmp_path, plain(STORED, Modality="MR", RealWorldValueMappingSequence=two)).units is None
    table = real_world(RealWorldValueSlope=None, RealWorldValueLUTData=[1.0, 2.0])
    assert read(tmp_path, plain(STORED, Modality="MR", RealWorldValueMappingSequence=table)).units is None
    assert read(tmp_path, plain(STORED, RealWorldValueMappingSequence=real_world("[hnsf'U]"))).units == "HU"
    assert read(tmp_path, plain(STORED, RealWorldValueMappingSequence=real_world("1"))).units is None


# uptake

WEIGHT, DOSE, HALF_LIFE = 70.0, 3.7e8, 6586.2  # kg, Bq, s of fluorine-18


def pet(*, tracer: dict[str, Any] | None = None, **elements: Any) -> pydicom.Dataset:
    base = {
        "Modality": "PT", "Units": "BQML", "DecayCorrection": "START", "CorrectedImage": ["ATTN", "DECY"],
        "PatientWeight": WEIGHT, "SeriesDate": "20240301", "SeriesTime": "110000", "AcquisitionDate": "20240301",
        "AcquisitionTime": "110500", "RescaleSlope": 10, "RescaleIntercept": 0,
    }  # fmt: skip
    described = {
        "RadionuclideTotalDose": DOSE,
        "RadionuclideHalfLife": HALF_LIFE,
        "RadiopharmaceuticalStartTime": "100000",
        **(tracer or {}),
    }
    sequence = items({key: value for key, value in described.items() if value is not None})
    return plain(STORED, **{**base, "RadiopharmaceuticalInformationSequence": sequence, **elements})


@pytest.mark.parametrize(
    ("tracer", "elements", "elapsed"),
    [
        ({}, {}, 3600),
        ({"RadiopharmaceuticalStartTime": "104500.500"}, {}, 899.5),
        ({"RadiopharmaceuticalStartDateTime": "20240301093000"}, {}, 5400),
        ({"RadiopharmaceuticalStartDateTime": "20240229233000.0"}, {"SeriesTime": "003000"}, 3600),
        ({"RadiopharmaceuticalStartTime": "233000"}, {"SeriesTime": "003000"}, 3600),  # before midnight
        ({}, {"DecayCorrection": "ADMIN"}, 0),
    ],
)
def test_activity_becomes_uptake(
    tmp_path: Path, tracer: dict[str, Any], elements: dict[str, Any], elapsed: float
) -> None:
    """A body that holds the dose evenly, at one gram to the millilitre, has an uptake of 1 everywhere."""
    dataset = pet(tracer=tracer, **elements)
    even = DOSE * math.exp(-math.log(2) * elapsed / HALF_LIFE) / (WEIGHT * 1000)
    image = read(tmp_path, dataset)
    assert image.units == "SUVbw"
    np.testing.assert_allclose(image.pixels[0], STORED * 10 / even, rtol=1e-6)
    assert not image.notes


@pytest.mark.parametrize(
    ("tracer", "elements", "told"),
    [
        ({"RadionuclideTotalDose": None}, {}, "the injected dose is missing"),
        ({"RadionuclideHalfLife": None}, {}, "the half-life is missing"),
        ({"RadiopharmaceuticalStartTime": None}, {}, "times of injection and of the scan are missing or don't agree"),
        ({"RadiopharmaceuticalStartDateTime": "20240227093000"}, {}, "don't agree"),
        ({}, {"PatientWeight": None}, "the weight is missing"),
        ({}, {"PatientWeight": 0}, "the weight is missing"),
        ({}, {"RadiopharmaceuticalInformationSequence": items()}, "the tracer isn't described"),
        ({}, {"CorrectedImage": ["ATTN"]}, "isn't corrected for decay"),
        ({}, {"DecayCorrection": "NONE"}, "isn't corrected for decay"),
        ({}, {"SeriesTime": "120000"}, "don't agree"),  # a series that was made later
    ],
)
def test_activity_stays_where_uptake_cannot_be_told(
    tmp_path: Path, tracer: dict[str, Any], elements: dict[str, Any], told: str
) -> None:
    missing = [keyword for keyword, value in elements.items() if value is None]
    dataset = pet(tracer=tracer, **{key: value for key, value in elements.items() if value is not None})
    for keyword in missing:
        delattr(dataset, keyword)
    image = read(tmp_path, dataset)
    assert image.units == "BQML"
    np.testing.assert_array_equal(image.pixels[0], STORED * 10.0)
    assert told in image.notes[0]


def test_the_window_of_activity_goes_with_it(tmp_path: Path) -> None:
    image = read(tmp_path, pet(WindowCenter=5000, WindowWidth=10000))
    factor = image.pixels[0, 1, 0] / 1000  # 100 stored are 1,000 Bq/ml
    assert image.window is not None
    assert (image.window.name, image.window.function) == ("file's", "linear-exact")
    np.testing.assert_allclose([image.window.centre, image.window.width], [4999.5 * factor, 9999 * factor], rtol=1e-5)


# what else is told


@pytest.mark.parametrize(
    ("elements", "side"),
    [
        ({"ImageLaterality": "L"}, "L"),
        ({"Laterality": "R"}, "R"),
        ({"ImageLaterality": "B", "Laterality": "R"}, "B"),
        ({"ImageLaterality": "U"}, None),
        ({}, None),
    ],
)
def test_sides(tmp_path: Path, elements: dict[str, str], side: str | None) -> None:
    assert read(tmp_path, plain(STORED, **elements)).laterality == side


def test_the_side_of_a_frame(tmp_path: Path) -> None:
    groups = [{"FrameAnatomySequence": items({"FrameLaterality": side})} for side in "LR"]
    path = save(tmp_path / "a.dcm", enhanced(np.zeros((2, 4, 5), "u1"), [(0, 0, 0), (0, 0, 2)], per_frame=groups))
    assert [read_image(path, place).laterality for place in (0, 1)] == ["L", "R"]


REGION = {"RegionSpatialFormat": 1, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}


@pytest.mark.parametrize(
    ("elements", "spacing", "note"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25), ""),
        ({"PixelSpacing": [0.5, 0.25], "ImagerPixelSpacing": [1, 1]}, (0.5, 0.25), ""),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "detector"),
        ({"NominalScannedPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "film"),
        ({"PixelSpacing": [0, 0.25]}, None, ""),
        ({"PixelSpacing": [0.5]}, None, ""),
        (
            {"SequenceOfUltrasoundRegions": items({**REGION, "PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.03})},
            (0.3, 0.2),
            "ultrasound",
        ),
        (
            {
                "SequenceOfUltrasoundRegions": items(
                    {**REGION, "PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.03},
                    {**REGION, "PhysicalDeltaX": 0.05, "PhysicalDeltaY": 0.05},
                )
            },
            None,
            "",
        ),
        ({}, None, ""),
    ],
)
def test_spacing(tmp_path: Path, elements: dict[str, Any], spacing: tuple[float, float] | None, note: str) -> None:
    image = read(tmp_path, plain(STORED, **elements))
    assert image.spacing == (None if spacing is None else pytest.approx(spacing))
    assert all(note in each for each in image.notes)
    assert len(image.notes) == bool(note)


def test_orientation_and_what_is_none(tmp_path: Path) -> None:
    cosines = [0.6, 0.8, 0, 0, 0, -1]
    assert read(tmp_path, plain(STORED, ImageOrientationPatient=cosines)).orientation == tuple(cosines)
    for wrong in ([1, 0, 0, 1, 0, 0], [0] * 6, [1, 0, 0], [2, 0, 0, 0, 2, 0]):
        assert read(tmp_path, plain(STORED, ImageOrientationPatient=wrong)).orientation is None
    image = read(tmp_path, plain(STORED, PhotometricInterpretation="MONOCHROME1", Modality="DX"))
    assert (image.inverted, image.modality) == (True, "DX")
    np.testing.assert_array_equal(image.pixels[0], STORED)


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "(0028,1053) RescaleSlope is 0"),
        ({"ModalityLUTSequence": items({"ModalityLUTType": "OD"})}, "(0028,3002) LUTDescriptor is missing"),
    ],
)
def test_damage_to_what_gives_values_their_meaning_is_refused(
    tmp_path: Path, elements: dict[str, Any], told: str
) -> None:
    assert told in refusal(tmp_path, plain(STORED, **elements))


def test_numbers_that_are_none(tmp_path: Path) -> None:
    dataset = plain(STORED, RescaleSlope="1.0", RescaleIntercept="0")
    data = save(tmp_path / "a.dcm", dataset).read_bytes()
    for said in (b"abc ", b"nan ", b"inf ", b"1e99"):
        (tmp_path / "b.dcm").write_bytes(data.replace(b"1.0 ", said))
        if said == b"1e99":
            assert read_image(tmp_path / "b.dcm").pixels.max() == 4095e99
            continue
        with pytest.raises(UnreadableFileError, match=r"\(0028,1053\) RescaleSlope (isn't a number|should hold)"):
            read_image(tmp_path / "b.dcm")
