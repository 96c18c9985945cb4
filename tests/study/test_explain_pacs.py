"""A study out of a real Orthanc, explained, and the objects back into it: equal when fetched again, and stored once."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pynetdicom.sop_class import _STORAGE_CLASSES
from torch import nn

from pellucid.cli.main import main
from pellucid.data.dicom.objects import MANUFACTURER
from pellucid.data.pacs import (
    Access,
    InstanceEntry,
    NotInPacsError,
    PacsUnreachableError,
    Query,
    connect,
    fetch_study,
    find_studies,
)
from pellucid.errors import InputError
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.study.explain_files import Question
from pellucid.study.explain_objects import OBJECTS, Wishes
from pellucid.study.explain_pacs import MAKER, _at_first_time, explain_study, is_image
from servers.orthanc import DICOM, PASSWORD, REFUSED, USER, WEB, Orthanc, impatient
from servers.studies import slice_of, uid, write

IDENTIFYING = ("Nobody", "P-17", "ACC-4711", "19600102")
EVERYTHING = Question(("layer-cam",), layers=("1",), write=Wishes(OBJECTS))


def bright(axes: int) -> nn.Module:
    """A network that says how bright its image is: its layer-cam is the image itself."""
    convolution, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if axes == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    first, last = convolution(1, 1, 1, bias=False), nn.Linear(1, 2)
    nn.init.ones_(first.weight)
    last.weight.data, last.bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    return nn.Sequential(first, nn.ReLU(), pool(1), nn.Flatten(), last)


def model(size: int | tuple[int, int, int]) -> tuple[nn.Module, ModelCard]:
    card = ModelCard("bright", size, 1, ("bright", "dark"), (0.0,), (1.0,), "none", "image")
    return bright(2 if isinstance(size, int) else 3), card


@pytest.fixture(params=["dicomweb", "dimse"])
def way(request: pytest.FixtureRequest, orthanc: Orthanc) -> tuple[str, Access]:
    return (orthanc.web, WEB) if request.param == "dicomweb" else (orthanc.dicom, DICOM)


@pytest.mark.parametrize("way", ["dicomweb", pytest.param("dimse", marks=pytest.mark.slow)], indirect=True)
def test_a_volume_is_explained_and_its_objects_come_back_equal(
    way: tuple[str, Access], orthanc: Orthanc, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    orthanc.upload(*write(tmp_path / "in", *(slice_of("v", number) for number in range(6))))
    with connect(*way) as pacs:
        done = explain_study(pacs, uid("v"), model((6, 16, 16)), tmp_path / "out", EVERYTHING, store_back=True)
        assert (len(done.fetched.files), len(done.records), done.skipped) == (6, 1, [])
        assert [(each.state, each.reason) for each in done.outcomes] == [("stored", "")] * 4
        assert [each.path.name.split(".")[-2] for each in done.outcomes] == list(OBJECTS)
        assert orthanc.count() == 10
        back = fetch_study(pacs, uid("v"), tmp_path / "back")
        (found,) = find_studies(pacs, Query())
        assert {"CT", "SEG", "SR"} < set(found.modalities)
    stored = {pydicom.dcmread(each.path).SOPInstanceUID: each.path for each in done.outcomes}
    fetched = {pydicom.dcmread(path).SOPInstanceUID: path for path in back.files}
    for each, path in stored.items():
        assert pydicom.dcmread(fetched[each]) == pydicom.dcmread(path)
        assert way[0].startswith("dicom") or fetched[each].read_bytes() == path.read_bytes()
    made = pydicom.dcmread(done.outcomes[0].path)
    source = {place(each): each.pixel_array.ravel() for each in map(pydicom.dcmread, done.fetched.files)}
    frames = np.frombuffer(made.FloatPixelData, "<f4").reshape(6, -1)
    places = [place(each.PlanePositionSequence[0]) for each in made.PerFrameFunctionalGroupsSequence]
    assert sorted(places) == sorted(source)
    for values, where in zip(frames, places, strict=True):  # the map is the image, slice by slice where it lies
        assert np.corrcoef(values, source[where])[0, 1] > 0.99
    said = caplog.text + "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    said += " ".join(str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("*"))
    told = [word for word in (*IDENTIFYING, uid("v"), uid("v", "a"), uid("v", "a", 0)) if word in said]
    assert told == []
    assert USER not in said


def place(data: pydicom.Dataset) -> float:
    return float(data.ImagePositionPatient[2])


def test_a_second_run_fetches_and_stores_nothing(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.upload(*write(tmp_path / "in", slice_of("p", 0), slice_of("p", 1)))
    with connect(orthanc.web, WEB) as pacs:
        first = explain_study(pacs, uid("p"), model(16), tmp_path / "out", EVERYTHING, store_back=True)
        assert [each.state for each in first.outcomes] == ["stored"] * 8
        digests = {each.path: each.path.read_bytes() for each in first.outcomes}
        (tmp_path / "out" / ".pacs" / "stored.json").unlink()  # the objects' UIDs suffice
        again = explain_study(pacs, uid("p"), model(16), tmp_path / "out", EVERYTHING, store_back=True)
        assert (again.fetched.before, again.fetched.left_out, again.fetched.apart) == (2, 6, 2)  # captures are images
        assert [each.state for each in again.outcomes] == ["there"] * 8
        assert {path: path.read_bytes() for path in digests} == digests
        assert orthanc.count() == 10
        third = explain_study(pacs, uid("p"), model(16), tmp_path / "out", EVERYTHING, store_back=True)
        assert (third.fetched.before, len(third.records)) == (4, 2)
        other = dataclasses.replace(EVERYTHING, target="dark")  # another question makes other objects
        asked = explain_study(pacs, uid("p"), model(16), tmp_path / "out", other, store_back=True)
        assert [each.state for each in asked.outcomes] == ["stored"] * len(asked.outcomes)


def test_captures_of_ours_alone_are_not_explained(orthanc: Orthanc, tmp_path: Path) -> None:
    ours = slice_of("o", 0, modality="OT")
    ours.Manufacturer = MAKER
    orthanc.upload(*write(tmp_path / "in", ours))
    assert MAKER == MANUFACTURER
    with connect(orthanc.web, WEB) as pacs:
        with pytest.raises(NotInPacsError, match="all images of that study were made by pellucid"):
            explain_study(pacs, uid("o"), model(16), tmp_path / "out", EVERYTHING)
        with pytest.raises(InputError, match="store_back: expected DICOM objects among what is written"):
            explain_study(pacs, uid("o"), model(16), tmp_path / "out", Question(), store_back=True)


def test_results_outlive_a_server_that_dies_before_they_are_stored(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.upload(*write(tmp_path / "in", slice_of("k", 0)))
    access = dataclasses.replace(WEB, attempts=1)
    with connect(orthanc.web, access) as pacs:
        from pellucid.study import explain_pacs

        explain_files = explain_pacs.explain_files

        def dying(*given: object, **options: object) -> object:
            done = explain_files(*given, **options)  # type: ignore[arg-type]
            orthanc.kill()
            return done

        monkeypatch.setattr(explain_pacs, "explain_files", dying)
        try:
            with pytest.raises(PacsUnreachableError, match="nothing listens there"):
                explain_study(pacs, uid("k"), model(16), tmp_path / "out", EVERYTHING, store_back=True)
        finally:
            orthanc.start()
        assert len(list((tmp_path / "out").glob("*.dcm"))) == 4
        monkeypatch.undo()
        done = explain_study(pacs, uid("k"), model(16), tmp_path / "out", EVERYTHING, store_back=True)
        assert done.fetched.before == 1
        assert [each.state for each in done.outcomes] == ["stored"] * 4


def test_every_class_of_images_is_explained_and_no_other() -> None:
    def explained(sop_class: str) -> bool:
        return is_image(InstanceEntry("1", "1", "1", sop_class))

    assert explained("")
    assert explained("1.2.3.4")  # of some vendor
    images = {name for name in _STORAGE_CLASSES if "Image" in name and "WholeSlide" not in name}
    images |= {"EnhancedUSVolumeStorage", "ConfocalMicroscopyTiledPyramidalImageStorage"}
    images |= {"OphthlamicOpticalCoherenceTomographyBscanVolumeAnalysisStorage"}
    assert {name for name, sop_class in _STORAGE_CLASSES.items() if explained(sop_class)} >= images
    left_out = {name for name, sop_class in _STORAGE_CLASSES.items() if not explained(sop_class)}
    assert {"SegmentationStorage", "ParametricMapStorage", "RawDataStorage", "RTDoseStorage"} < left_out
    assert not {name for name in left_out if "Image" in name} - {"VLWholeSlideMicroscopyImageStorage"}


def test_the_command_explains_a_study_and_stores_back(
    orthanc: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    monkeypatch.setenv("PELLUCID_PACS_USER", USER)
    monkeypatch.setenv("PELLUCID_PACS_PASSWORD", PASSWORD)
    card = ModelCard("test_resnet", 32, 1, ("bright", "dark"), (0.5,), (0.5,), "none", "image")
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", card.build(), card)
    orthanc.upload(*write(tmp_path / "in", slice_of("c", 0), slice_of("c", 0, series="b")))
    out = tmp_path / "out"
    words = ["explain", "--pacs", orthanc.web, "--study", uid("c"), "--series", uid("c", "a"), "--model"]
    words += [str(tmp_path / "w.safetensors"), "--out", str(out), "--device", "cpu", "--methods", "layer-cam"]
    assert main([*words, "--store-back", "--write", "parametric-map,structured-report"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"1 explained: {out}\n2 stored\n"
    assert orthanc.count() == 4
    assert main([*words, "--store-back"]) == 0
    assert capsys.readouterr().out == f"1 explained: {out}\n4 stored\n"
    assert main([*words, "--store-back"]) == 0
    assert capsys.readouterr().out == f"1 explained: {out}\n0 stored, 4 were there before\n"
    assert json.loads(next(out.glob("*.json")).read_text())["written"]["left_out"] == []


def test_a_store_that_fails_is_told_and_the_results_are_kept(
    orthanc: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    monkeypatch.setenv("PELLUCID_PACS_USER", USER)
    monkeypatch.setenv("PELLUCID_PACS_PASSWORD", PASSWORD)
    card = ModelCard("test_resnet", 32, 1, ("bright", "dark"), (0.5,), (0.5,), "none", "image")
    save_weights(tmp_path / "w.safetensors", card.build(), card)
    (path,) = write(tmp_path / "in", slice_of("f", 0))
    orthanc.upload(path)
    store = "pellucid.study.explain_pacs.store_files"
    from pellucid.data.pacs import store_files

    def refused(pacs: object, files: list[Path], **options: object) -> object:
        for file in files:  # as if the study were of a patient of whom the server takes nothing
            data = pydicom.dcmread(file)
            data.PatientID = REFUSED
            data.save_as(file)
        return store_files(pacs, files, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store, refused)
    words = ["explain", "--pacs", orthanc.web, "--study", uid("f"), "--model", str(tmp_path / "w.safetensors")]
    words += ["--out", str(tmp_path / "out"), "--device", "cpu", "--methods", "layer-cam", "--store-back"]
    assert main([*words, "--write", "parametric-map"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[-2].endswith("parametric-map.dcm: it said that it was stored, but doesn't list it")
    assert err[-1] == "error: 1 of 1 files were not stored; run the same command to try again."
    assert len(list((tmp_path / "out").glob("*.parametric-map.dcm"))) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "images: expected image files or folders, or --pacs with --study, got none"),
        (["--store-back"], "pacs: expected the address of a PACS"),
        (["--study", "1.2"], "pacs: expected the address of a PACS"),
        (["--pacs", "http://127.0.0.1:1"], "study: expected a Study Instance UID and no image files"),
        (
            ["x.png", "--pacs", "http://127.0.0.1:1", "--study", "1.2"],
            "study: expected a Study Instance UID and no image",
        ),
    ],
)
def test_options_that_do_not_go_together_are_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words, "--model", "w.safetensors"]) == 2
    assert told in capsys.readouterr().err


def test_each_question_has_a_time_of_its_own(tmp_path: Path) -> None:
    times = tmp_path / "times.json"
    questions = [dataclasses.replace(EVERYTHING, target=target) for target in ("predicted", "bright", "dark")]
    first = [_at_first_time(each, ("1.2",), times).write.when for each in questions]
    assert len(set(first)) == 3  # though they were asked within a second
    assert [_at_first_time(each, ("1.2",), times).write.when for each in questions] == first
    assert _at_first_time(questions[0], ("1.3",), times).write.when not in first
    given = dataclasses.replace(EVERYTHING, write=Wishes(OBJECTS, when=datetime.datetime(2024, 5, 6)))
    assert _at_first_time(given, ("1.2",), times) is given
    assert "1.2" not in times.read_text()
