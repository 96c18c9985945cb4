"""Windows of DICOM files, against the formulas of PS3.3 C.11.2, pydicom and dcmtk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi, apply_voi_lut

from dicom_files.made import enhanced, items, plain, save
from pellucid.data.images import read_image
from pellucid.data.intensity import grey_of
from references.checkers import run

STORED = np.random.default_rng(2).integers(0, 4096, (40, 50)).astype("u2")
CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12}


def by_pydicom(dataset: pydicom.Dataset) -> np.ndarray:
    """Grey in [0, 1] by pydicom's VOI LUT, whose output spans the range of stored values after the modality LUT."""
    values = apply_modality_lut(STORED, dataset)
    shown = apply_voi_lut(values, dataset).astype(float)
    if "VOILUTSequence" in dataset:
        return shown / (2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1)
    low, high = (end * dataset.RescaleSlope + dataset.RescaleIntercept for end in (0, 2**dataset.BitsStored - 1))
    return (shown - low) / (high - low)


def by_dcmtk(path: Path, *options: str) -> np.ndarray:
    out = path.with_suffix(".pnm")
    assert run("dcm2pnm", *options, str(path), str(out)).returncode == 0
    return np.asarray(Image.open(out))


WINDOWS: list[dict[str, Any]] = [
    {"WindowCenter": 40, "WindowWidth": 400},
    {"WindowCenter": -600, "WindowWidth": 1500},
    {"WindowCenter": 100, "WindowWidth": 2},
    {"WindowCenter": 100, "WindowWidth": 1},
    {"WindowCenter": 40.5, "WindowWidth": 351.5, "VOILUTFunction": "LINEAR"},
    {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 40, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 40, "WindowWidth": 1, "VOILUTFunction": "SIGMOID"},
]


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in pydicom's sigmoid
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_are_those_of_pydicom_and_dcmtk(tmp_path: Path, window: dict[str, Any]) -> None:
    path = save(tmp_path / "a.dcm", plain(STORED, **CT, **window))
    image = read_image(path)
    assert image.window is image.windows[0]
    grey = grey_of(image)[0]
    assert grey.dtype == np.float32
    if window["WindowWidth"] > 1 or "VOILUTFunction" in window:  # pydicom divides by zero for a width of 1
        np.testing.assert_allclose(grey, by_pydicom(pydicom.dcmread(path)), atol=2e-6)
    if window.get("VOILUTFunction") != "LINEAR_EXACT":  # which dcmtk 3.6.7 takes for LINEAR
        options = ("+Wfs",) if window.get("VOILUTFunction") == "SIGMOID" else ("+Wfl",)
        shown = by_dcmtk(path, "+Wi", "1", *options)
        assert np.abs(grey * 255 - shown.astype(float)).max() <= 1


def test_a_width_of_one_is_a_threshold(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.dcm", plain(STORED, **CT, WindowCenter=100, WindowWidth=1)))
    np.testing.assert_array_equal(grey_of(image), image.pixels > 99.5)


@pytest.mark.parametrize(("bits", "first"), [(8, 0), (12, 100), (16, 0), (10, 300)])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_tables_are_those_of_pydicom_and_dcmtk(tmp_path: Path, bits: int, first: int, as_bytes: bool) -> None:
    table = (np.linspace(0, 1, 3000) ** 2 * (2**bits - 1)).astype("u2")
    entry = items({"LUTDescriptor": [3000, first, bits]})
    entry[0].add_new("LUTData", "OW" if as_bytes else "US", table.tobytes() if as_bytes else table.tolist())
    elements = {"BitsStored": 12, "VOILUTSequence": entry, "WindowCenter": 5, "WindowWidth": 7}
    path = save(tmp_path / "a.dcm", plain(STORED, **elements))
    image = read_image(path)
    assert [window.table is None for window in image.windows] == [False, True]
    assert image.window is not None
    assert image.window.text() == "file's window, a table of 3000 greys"
    grey = grey_of(image)[0]
    if bits > 8:  # for 8, pydicom counts the entries in 8 bits
        np.testing.assert_allclose(grey, by_pydicom(pydicom.dcmread(path)), atol=1e-6)
    assert np.abs(grey * 255 - by_dcmtk(path, "+Wl", "1").astype(float)).max() <= 1
    np.testing.assert_array_equal(grey_of(image, "file-2"), image.windows[1].apply(image.pixels))


@pytest.mark.parametrize("option", ["+ti", "+tb", "+td"])
@pytest.mark.parametrize("bits", [8, 12])
def test_tables_that_dcmtk_wrote_in_other_syntaxes(tmp_path: Path, option: str, bits: int) -> None:
    entries = 256
    table = np.random.default_rng(0).integers(0, 2**bits, entries).astype("u2")
    lut, voi = (items({"LUTDescriptor": [entries, 0, bits]}) for _ in range(2))
    lut[0].ModalityLUTType = "OD"
    for each in (lut, voi):
        each[0].add_new("LUTData", "OW", table.tobytes() if bits > 8 else table.astype("u1").tobytes())
    stored = (STORED >> 4).astype("u1")
    path = save(tmp_path / "a.dcm", plain(stored, ModalityLUTSequence=lut, VOILUTSequence=voi))
    assert run("dcmconv", option, str(path), str(tmp_path / "b.dcm")).returncode == 0
    one, other = read_image(path), read_image(tmp_path / "b.dcm")
    np.testing.assert_array_equal(one.pixels[0], table[stored])
    np.testing.assert_array_equal(other.pixels, one.pixels)
    np.testing.assert_array_equal(grey_of(other), grey_of(one))


def test_a_table_of_eight_bits_packed_two_to_a_word(tmp_path: Path) -> None:
    table = np.arange(256, dtype="u1")[::-1].copy()
    entry = items({"LUTDescriptor": [256, 0, 8]})
    entry[0].add_new("LUTData", "OW", table.tobytes())
    image = read_image(save(tmp_path / "a.dcm", plain((STORED >> 4).astype("u1"), VOILUTSequence=entry)))
    np.testing.assert_allclose(grey_of(image), 1 - image.pixels / 255, atol=1e-6)


def test_a_table_that_begins_below_zero(tmp_path: Path) -> None:
    table = np.arange(0, 4096, 16, dtype="u2")
    entry = items({})
    entry[0].add_new("LUTDescriptor", "SS", [256, -100, 12])
    entry[0].add_new("LUTData", "US", table.tolist())
    path = save(tmp_path / "a.dcm", plain(STORED, **CT, VOILUTSequence=entry))
    image = read_image(path)
    wanted = table[(image.pixels.astype(int) + 100).clip(0, 255)] / 4095
    np.testing.assert_allclose(grey_of(image), wanted, atol=1e-6)
    np.testing.assert_allclose(grey_of(image)[0], apply_voi(image.pixels[0], pydicom.dcmread(path)) / 4095, atol=1e-6)


def test_low_values_are_bright_in_monochrome1(tmp_path: Path) -> None:
    elements = {"WindowCenter": 1000, "WindowWidth": 800, "BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": 0}
    first = read_image(save(tmp_path / "a.dcm", plain(STORED, PhotometricInterpretation="MONOCHROME1", **elements)))
    second = read_image(save(tmp_path / "b.dcm", plain(STORED, **elements)))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    for choice in ("dtype", "image", "file", "percentile", "1000/800"):
        np.testing.assert_allclose(grey_of(first, choice), 1 - grey_of(second, choice), atol=1e-6)
    shown = by_dcmtk(tmp_path / "a.dcm", "+Wi", "1").astype(float)
    assert np.abs(grey_of(first)[0] * 255 - shown).max() <= 1


def test_several_windows_are_all_there_and_the_first_is_taken(tmp_path: Path) -> None:
    elements = {"WindowCenter": [40, -600, 300], "WindowWidth": [400, 1500, 2000]}
    image = read_image(save(tmp_path / "a.dcm", plain(STORED, **CT, **elements)))
    assert [(each.centre, each.width) for each in image.windows] == [(40, 400), (-600, 1500), (300, 2000)]
    assert image.window is image.windows[0]
    assert image.window.text() == "file's window, 40/400"


@pytest.mark.parametrize(
    ("elements", "kept", "told"),
    [
        ({"WindowCenter": [40, 50], "WindowWidth": [0, 100]}, 1, "WindowWidth can't be used"),
        ({"WindowCenter": [40, 50], "WindowWidth": [100]}, 1, "WindowWidth can't be used"),
        ({"WindowCenter": 40, "WindowWidth": -5}, 0, "WindowWidth can't be used"),
        ({"WindowCenter": 40}, 0, "WindowWidth can't be used"),
        ({"WindowCenter": 40, "WindowWidth": 10, "VOILUTFunction": "CUBIC"}, 0, "VOILUTFunction is none of"),
        ({"VOILUTSequence": items({"LUTDescriptor": [9, 0, 8]})}, 0, "LUTData is missing"),
        (
            {"VOILUTSequence": items({"LUTDescriptor": [9, 0, 8], "LUTData": [1, 2]})},
            0,
            "LUTData holds 2 entries, of 9",
        ),
        ({"VOILUTSequence": items({"LUTDescriptor": [2, 0, 40], "LUTData": [1, 2]})}, 0, "LUTDescriptor says 40 bits"),
    ],
)
def test_windows_that_cannot_be_used_are_left_out_and_told(
    tmp_path: Path, elements: dict[str, Any], kept: int, told: str
) -> None:
    for entry in elements.get("VOILUTSequence", ()):
        if "LUTData" in entry:
            entry["LUTData"].VR = "US"
    image = read_image(save(tmp_path / "a.dcm", plain(STORED, **CT, **elements)))
    assert len(image.windows) == kept
    assert told in image.notes[0]
    assert image.window is not None


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "NM"])
def test_measurements_without_a_window_go_by_percentiles(tmp_path: Path, modality: str) -> None:
    image = read_image(save(tmp_path / "a.dcm", plain(STORED, Modality=modality)))
    assert image.windows == ()
    assert image.window is not None
    low, high = np.percentile(STORED, (0.5, 99.5))
    assert image.window.name == "percentile"
    np.testing.assert_allclose([image.window.centre, image.window.width], [(low + high) / 2, high - low])


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "US", "OT", "XA"])
@pytest.mark.parametrize(("dtype", "bits"), [("u2", 12), ("u2", 16), ("i2", 12), ("u1", 8)])
def test_pictures_without_a_window_go_by_the_range_of_their_bits(
    tmp_path: Path, modality: str, dtype: str, bits: int
) -> None:
    stored = (STORED >> (12 - min(bits, 11))).astype(dtype)
    image = read_image(save(tmp_path / "a.dcm", plain(stored, Modality=modality, BitsStored=bits)))
    assert image.window is not None
    assert image.window.name == "whole range"
    low = -(2 ** (bits - 1)) if dtype == "i2" else 0
    np.testing.assert_allclose(grey_of(image)[0], (stored.astype(float) - low) / (2**bits - 1), atol=1e-6)
    scaled = read_image(
        save(tmp_path / "b.dcm", plain(stored, Modality=modality, BitsStored=bits, RescaleSlope=2, RescaleIntercept=5))
    )
    np.testing.assert_allclose(grey_of(scaled), grey_of(image), atol=1e-6)


def test_pictures_of_real_values_go_by_the_range_of_their_bits_too(tmp_path: Path) -> None:
    elements = {"Modality": "CR", "BitsStored": 12, "RescaleSlope": 0.5, "RescaleIntercept": 100}
    image = read_image(save(tmp_path / "a.dcm", plain(STORED // 2, **elements)))
    assert image.pixels.dtype == np.float32
    np.testing.assert_allclose(grey_of(image)[0], (STORED // 2) / 4095, atol=1e-6)


def test_windows_follow_values_that_are_mapped_beyond_the_modality_lut(tmp_path: Path) -> None:
    code = items({"CodeValue": "mm2/s", "CodingSchemeDesignator": "UCUM", "CodeMeaning": "mm2/s"})
    mapping = items(
        {"RealWorldValueSlope": 0.5, "RealWorldValueIntercept": 7.0, "MeasurementUnitsCodeSequence": code}
    )  # fmt: skip
    shown = {"WindowCenter": 1000, "WindowWidth": 500, "Modality": "MR"}
    mapped = read_image(save(tmp_path / "a.dcm", plain(STORED, RealWorldValueMappingSequence=mapping, **shown)))
    assert mapped.units == "mm2/s"
    bare = read_image(save(tmp_path / "b.dcm", plain(STORED, **shown)))
    np.testing.assert_allclose(grey_of(mapped), grey_of(bare), atol=1e-6)
    mapping[0].RealWorldValueSlope = -0.5
    turned = read_image(save(tmp_path / "c.dcm", plain(STORED, RealWorldValueMappingSequence=mapping, **shown)))
    assert turned.windows == ()
    assert "values that run the other way" in turned.notes[0]
    dose = plain(STORED, DoseGridScaling=0.25, **{**shown, "Modality": "RTDOSE"})
    np.testing.assert_allclose(grey_of(read_image(save(tmp_path / "d.dcm", dose))), grey_of(bare), atol=1e-6)


def test_frames_may_have_windows_of_their_own(tmp_path: Path) -> None:
    stored = STORED[None].repeat(3, 0)
    groups = [
        {"FrameVOILUTSequence": items({"WindowCenter": centre, "WindowWidth": 100})} for centre in (1000, 2000, 3000)
    ]
    places = [(0, 0, 8), (0, 0, 0), (0, 0, 4)]
    path = save(tmp_path / "a.dcm", enhanced(stored, places, per_frame=groups))
    for place, centre in enumerate((1000, 2000, 3000)):
        window = read_image(path, place).window
        assert window is not None
        assert window.centre == centre
    volume = read_image(path)
    assert volume.window is not None
    assert volume.window.centre == 3000  # of the slice in the middle
