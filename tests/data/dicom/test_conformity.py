"""Every kind of object, of every kind of source: to the standard, and to the last byte."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pellucid.data.dicom.objects import About, Finding, Map, Metric
from pellucid.data.dicom.outputs import KINDS, Wanted, write_objects
from pellucid.data.images import MedicalImage
from pellucid.errors import InputError
from references import dicom_sources as sources
from references.checkers import dumped, errors_of
from references.ct_series import write_ct_series

SHARED = Path(__file__).parents[4] / "shared/data/dicom_nifti/dicom"
ABOUT = About("resnet50", "0123456789abcdef", datetime.datetime(2024, 5, 6, 7, 8, 9))
FINDING = Finding("Lungenentzündung", 1.25, 0.875, predicted=True)

# A Parametric Map needs plane positions and orientations where its frame of reference is relative to the patient, or to
# a slide (PS3.3, A.75.5, Table A.75-2). That of a radiograph, an ultrasound or a screen is neither, so that there are
# none to give. dciodvfy asks for those of the patient and of the slide at once, which no object could have.
MISTAKEN = [
    f"Error - Missing attribute Type 1 Required Element=<{name}Sequence> Module=<{name}Macro>"
    for name in ("PlanePosition", "PlaneOrientation", "PlanePositionSlide")
]

Made = tuple[MedicalImage, int | None]


def shared(name: str, frame: int | None = None) -> Callable[[Path], Made]:
    def made(_: Path) -> Made:
        if not (SHARED / name).exists():
            pytest.skip("shared data isn't there")
        return sources.picture_of(SHARED / name, frame or 0), frame

    return made


SOURCES: dict[str, Callable[[Path], Made]] = {
    "CT, oblique": lambda at: (sources.volume_of(write_ct_series(at)), None),
    "CT, tilted": lambda at: (sources.volume_of(write_ct_series(at, tilt=15.0)), None),
    "CT, one slice": lambda at: (sources.picture_of(write_ct_series(at)[4]), None),
    "MR": lambda at: (sources.volume_of(sources.series_of(at, "MR")), None),
    "PT": lambda at: (sources.volume_of(sources.series_of(at, "PT")), None),
    "MR, enhanced": lambda at: (sources.volume_of([sources.enhanced_mr(at / "a.dcm")]), None),
    "CR": lambda at: (sources.picture_of(sources.radiograph(at / "a.dcm")), None),
    "MG": lambda at: (sources.picture_of(sources.radiograph(at / "a.dcm", "MG")), None),
    "US, a frame": lambda at: (sources.picture_of(sources.ultrasound(at / "a.dcm"), 1), 1),
    "CT_small": shared("CT_small.dcm"),
    "MR_small": shared("MR_small.dcm"),
    "MR_small, big endian": shared("MR_small_bigendian.dcm"),
    "enhanced MR without places": shared("emri_small_RLE.dcm", 3),
    "CR, RG3": shared("RG3_J2KR.dcm"),
    "CR of RSNA": shared("cr_monochrome2_rsna.dcm"),
    "DX": shared("dx_image.dcm"),
    "US, palette": shared("examples_palette.dcm"),
    "US, colour": shared("color-px.dcm"),
    "US, two frames": shared("OBXXXX1A_rle_2frame.dcm", 1),
    "NM": shared("JPEG-LL.dcm"),
    "SC, colour": shared("SC_rgb_jpeg_dcmtk.dcm"),
}
PLACED = {"CT, oblique", "CT, tilted", "CT, one slice", "MR", "PT", "MR, enhanced", "CT_small", "MR_small"}
PLACED |= {"MR_small, big endian"}
LARGE = {"CR, RG3", "CR of RSNA", "SC, colour", "NM", "US, two frames"}


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """A bump off the middle."""
    grid = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    bump: np.ndarray = np.exp(-sum((axis - 0.3) ** 2 for axis in grid) / 0.1)
    return bump.astype(np.float32)


def maps_of(image: MedicalImage) -> list[Map]:
    bump = smooth(image.pixels.shape[1:])
    metrics = (Metric("road", 0.125, source="Rong et al. 2022"), Metric("pointing-game", float("nan")))
    return [
        Map("grad-cam-plus-plus", bump, FINDING, metrics),
        Map("integrated-gradients[steps=64]", bump - 0.5, FINDING),
        Map("eigen-cam", np.zeros_like(bump), FINDING),
    ]


def written(at: Path, source: str, name: str = "a") -> tuple[MedicalImage, list[Path]]:
    image, index = SOURCES[source](at / "source")
    made = write_objects(image, maps_of(image), ABOUT, at / "out", name, Wanted(index=index))
    assert made.left_out == ("segmentation of eigen-cam for Lungenentzündung: the map is zero everywhere",)
    return image, list(made.files)


@pytest.mark.parametrize("source", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in SOURCES])
def test_no_checker_finds_an_error_that_the_source_did_not_have(tmp_path: Path, source: str) -> None:
    image, files = written(tmp_path, source)
    assert sorted({path.name.split(".")[-2] for path in files}) == sorted(KINDS)
    assert len(files) == 3 + 2 + 3 + 1
    inherited = {_bare(error) for error in errors_of(image.files[0])}
    for path in files:
        errors = [error for error in errors_of(path) if _bare(error) not in inherited]
        if "parametric-map" in path.name and source not in PLACED:
            assert set(errors) == set(MISTAKEN), path.name
        else:
            assert not errors, path.name


def _bare(error: str) -> str:
    """An error without the tag at which it stands: a UID that is wrong is wrong where it is referred to as well."""
    return error.split(" in (")[0]


@pytest.mark.parametrize("source", ["CT, oblique", "MR, enhanced", "CR", "US, a frame"])
def test_dcmtk_reads_them_whole(tmp_path: Path, source: str) -> None:
    image, files = written(tmp_path, source)
    for path in files:
        assert dumped(path).count(str(pydicom.dcmread(image.files[0]).SOPInstanceUID)) >= 1, path.name
    report = dumped(files[-1], "dsrdump")
    for said in ("resnet50", "0123456789abcdef", "0.875", "Lungenentzündung", "Rong et al. 2022", "0.125"):
        assert said in report
    assert "pointing-game" not in report  # which has no value


def test_equal_content_gives_equal_bytes_and_another_time_other_objects(tmp_path: Path) -> None:
    image, _ = SOURCES["CT, oblique"](tmp_path / "source")
    later = dataclasses.replace(ABOUT, when=ABOUT.when + datetime.timedelta(seconds=1))
    runs = [
        write_objects(image, maps_of(image), about, tmp_path / str(number), "a").files
        for number, about in enumerate((ABOUT, ABOUT, later))
    ]
    for first, second, third in zip(*runs, strict=True):
        assert first.read_bytes() == second.read_bytes()
        one, other = pydicom.dcmread(first), pydicom.dcmread(third)
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert (one.ContentTime, other.ContentTime) == ("070809", "070810")
        for each in (one, other):
            assert each.SOPInstanceUID.is_valid
            assert each.SeriesInstanceUID.is_valid


@pytest.mark.parametrize("source", ["CT, oblique", "MR, enhanced", "US, a frame", "US, two frames"])
def test_patient_and_study_are_the_source_s_and_series_are_new(tmp_path: Path, source: str) -> None:
    image, files = written(tmp_path, source)
    of = pydicom.dcmread(image.files[0])
    instances, series = set(), {}
    for path in files:
        made = pydicom.dcmread(path)
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
            assert made.get(name) == of.get(name, ""), name
        assert made.SeriesInstanceUID != of.SeriesInstanceUID
        assert (made.Manufacturer, made.SoftwareVersions, made.DeviceSerialNumber) == (
            "pellucid",
            ABOUT.version,
            ABOUT.weights,
        )
        instances.add(made.SOPInstanceUID)
        series.setdefault(path.name.split(".")[-2], set()).add((made.SeriesInstanceUID, made.SeriesNumber))
    assert len(instances) == len(files)
    assert all(len(each) == 1 for each in series.values())
    assert len({next(iter(each)) for each in series.values()}) == 4


def test_all_source_images_are_referred_to(tmp_path: Path) -> None:
    image, files = written(tmp_path, "CT, oblique")
    uids = {pydicom.dcmread(path).SOPInstanceUID for path in image.files}
    for path in files[:-1]:
        made = pydicom.dcmread(path)
        series = made.ReferencedSeriesSequence[0]
        assert series.SeriesInstanceUID == pydicom.dcmread(image.files[0]).SeriesInstanceUID
        for sequence in (series.ReferencedInstanceSequence, made.SourceImageSequence):
            assert {item.ReferencedSOPInstanceUID for item in sequence} == uids
            assert {item.ReferencedSOPClassUID.name for item in sequence} == {"CT Image Storage"}
    evidence = pydicom.dcmread(files[-1]).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    found = {item.ReferencedSOPInstanceUID for each in evidence for item in each.ReferencedSOPSequence}
    assert found == uids | {pydicom.dcmread(path).SOPInstanceUID for path in files[:-1]}


def test_frames_are_referred_to_where_the_image_is_frames(tmp_path: Path) -> None:
    image, files = written(tmp_path, "US, a frame")
    for path in files[:-1]:
        reference = pydicom.dcmread(path).SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == pydicom.dcmread(image.files[0]).SOPInstanceUID
        assert reference.ReferencedFrameNumber == 2


def test_what_the_source_left_out_is_not_made_up(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "source")
    for path in paths:
        dataset = pydicom.dcmread(path)
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            setattr(dataset, name, "")
        for name in ("AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription", "PatientAge"):
            del dataset[name]
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "made up"
        dataset.save_as(path)
    image = sources.volume_of(paths)
    made = write_objects(image, maps_of(image), ABOUT, tmp_path / "out", "a")
    for path in made.files:
        dataset = pydicom.dcmread(path)
        for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber"):
            assert dataset.get(name) in ("", None), name
        assert (dataset.PatientIdentityRemoved, dataset.DeidentificationMethod) == ("YES", "made up")
        assert str(tmp_path) not in str(dataset)
        assert not errors_of(path)


@pytest.mark.parametrize(
    ("characters", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO_IR 144"], "Люкceмбypг"),
        (["GB18030"], "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_in_any_script_stay_what_they_are(tmp_path: Path, characters: list[str], name: str) -> None:
    path = sources.radiograph(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    dataset.SpecificCharacterSet, dataset.PatientName, dataset.StudyDescription = characters, name, name.split("=")[-1]
    dataset.save_as(path)
    image = sources.picture_of(path)
    for made in write_objects(image, maps_of(image), ABOUT, tmp_path / "out", "a").files:
        read = pydicom.dcmread(made)
        assert (read.SpecificCharacterSet, str(read.PatientName)) == ("ISO_IR 192", name)
        assert read.StudyDescription == name.split("=")[-1]
        assert name in dumped(made)


def test_damaged_identities_neither_stop_it_nor_reach_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_ct_series(tmp_path / "source", shape=(3, 8, 8))
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.PatientName = "Secret Surname"
        for tag, value in (("PatientBirthDate", "unknown"), ("StudyTime", "noon"), ("PatientSex", "female")):
            dataset[tag]._value = value
        dataset.save_as(path)
    image = sources.volume_of(paths)
    for path in write_objects(image, maps_of(image), ABOUT, tmp_path / "out", "a").files:
        dataset = pydicom.dcmread(path)
        assert dataset.PatientName == "Secret Surname"
        assert (dataset.PatientBirthDate, dataset.PatientSex) == ("", "")
    assert "Secret" not in caplog.text


def test_a_file_that_objects_cannot_refer_to_is_named(tmp_path: Path) -> None:
    path = sources.radiograph(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.StudyInstanceUID
    dataset.save_as(path)
    image = sources.picture_of(path)
    with pytest.raises(InputError, match=r"got .*a\.dcm without StudyInstanceUID\. Write its maps as NIfTI or NRRD"):
        write_objects(image, maps_of(image), ABOUT, tmp_path / "out", "a")


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    image = sources.volume_of(write_ct_series(tmp_path / "source"))
    maps, out = maps_of(image), tmp_path / "out"
    with pytest.raises(InputError, match=r"unknown kind of object 'segmentations'. Did you mean 'segmentation'"):
        write_objects(image, maps, ABOUT, out, "a", Wanted(["segmentations"]))
    with pytest.raises(InputError, match="read from DICOM files"):
        write_objects(dataclasses.replace(image, files=()), maps, ABOUT, out, "a")
    with pytest.raises(InputError, match=r"one for each pixel of the image, \(10, 24, 32\), got \(9, 24, 32\)"):
        write_objects(image, [dataclasses.replace(maps[0], values=maps[0].values[1:])], ABOUT, out, "a")
    with pytest.raises(InputError, match="NaN or infinity in grad-cam-plus-plus"):
        write_objects(image, [dataclasses.replace(maps[0], values=maps[0].values * np.nan)], ABOUT, out, "a")
    with pytest.raises(InputError, match="file 2 beside slice 9"):
        write_objects(dataclasses.replace(image, files=image.files[::-1]), maps, ABOUT, out, "a")
    cine = sources.picture_of(sources.ultrasound(tmp_path / "us.dcm"))
    with pytest.raises(InputError, match="which of the file's 3 frames the image is, from 0, got None"):
        write_objects(cine, maps_of(cine), ABOUT, out, "a")
    assert not out.exists()


def test_slices_that_were_filled_in_have_no_frames(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "source")
    whole = sources.volume_of(paths)
    gone = {whole.files[3], whole.files[6]}
    filled = dataclasses.replace(whole, files=tuple(path for path in whole.files if path not in gone))
    for path in gone:
        path.unlink()
    bump = smooth(whole.pixels.shape[1:])
    made = write_objects(filled, [Map("grad-cam", bump, FINDING)], ABOUT, tmp_path / "out", "a")
    mapped = pydicom.dcmread(made.files[0])
    kept = [at for at in range(10) if whole.files[at] not in gone]
    stored = np.frombuffer(mapped.FloatPixelData, "<f4").reshape(8, 24, 32)
    of = {pydicom.dcmread(whole.files[at]).SOPInstanceUID: at for at in kept}
    for frame, group in zip(stored, mapped.PerFrameFunctionalGroupsSequence, strict=True):
        reference = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_array_equal(frame, bump[of[reference]])
    for path in made.files:
        assert not errors_of(path)


def test_classes_have_objects_of_their_own(tmp_path: Path) -> None:
    image = sources.volume_of(write_ct_series(tmp_path / "source"))
    bump = smooth(image.pixels.shape[1:])
    maps = [Map("grad-cam", bump * scale, Finding(name, 0.0)) for name, scale in (("a/b", 1), ("a b", 2), ("c", 3))]
    made = write_objects(image, maps, ABOUT, tmp_path / "out", "x", Wanted(["parametric-map"]))
    assert [path.name for path in made.files] == [
        "x.grad-cam.a-b.parametric-map.dcm",
        "x.grad-cam.a-b-2.parametric-map.dcm",
        "x.grad-cam.c.parametric-map.dcm",
    ]
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in made.files}) == 3
