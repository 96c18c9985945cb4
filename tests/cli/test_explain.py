"""`pellucid explain` as a user meets it: three files per image, named safely, that say what `pellucid.explain` says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import pellucid
from pellucid.attribution import resize_maps
from pellucid.cli.main import main
from pellucid.cli.options import parse_methods
from pellucid.data.transforms import Normalisation, prepare
from pellucid.errors import InputError
from pellucid.models.checkpoints import ModelCard, load_weights, save_weights

CARD = ModelCard("test_resnet", 64, 1, ("bright", "dark", "odd"), (0.5,), (0.5,), "imagenet")
QUICK = ["--device", "cpu", "--methods", "layer-cam"]


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def height_of(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.size[1]


def records(out: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    network = CARD.build()
    for parameter in network.parameters():  # so that the classes differ
        parameter.data.mul_(1.5)
    save_weights(folder / "w.safetensors", network, CARD)
    torch.save({"state_dict": network.state_dict()}, folder / "plain.pt")
    return folder / "w.safetensors"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed in range(3):
        draw(tmp_path / "in" / f"{seed}.png", seed)
    return tmp_path / "in"


def test_each_image_leaves_what_explain_says_of_it(images: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["--methods", "layer-cam,integrated-gradients[steps=4]", "--methods", "saliency", "--device", "cpu"]
    assert main(["explain", str(images), "--model", str(weights), "--output", str(out), *asked]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}{ending}" for name in "012" for ending in (".json", ".maps.npz", ".overlay.png")
    ]
    network, card = load_weights(weights)
    for name, record in records(out).items():
        pixels = prepare(pellucid.read_image(images / f"{name}.png"), channels=1, size=64)
        image = Normalisation(card.mean, card.std, card.normalisation).normalise(pixels)[None]
        with pytest.warns(pellucid.attribution.GridWarning):
            whole = pellucid.explain(
                network, image, ["layer-cam", pellucid.method("integrated-gradients", steps=4), "saliency"]
            )
        assert record["target"] == card.classes[int(whole.target)]
        assert record["target_index"] == int(whole.target)
        np.testing.assert_allclose(record["score"], whole.score.item(), rtol=1e-5)
        np.testing.assert_allclose(record["probability"], whole.probability.item(), rtol=1e-5)
        assert (record["layer"], record["grid"]) == ("layer4", [2, 2])
        assert set(record["seconds"]) == {"forward", *whole.maps}
        assert record["image"] == str(images / f"{name}.png")
        maps = np.load(out / record["maps"])
        assert maps["layer-cam"].shape == (2, 2)
        assert {label: entry["resize"] for label, entry in record["methods"].items()} == {
            "layer-cam": "bilinear",
            "integrated-gradients[steps=4]": None,
            "saliency": None,
        }
        for label, values in whole.maps.items():
            assert maps[label].dtype == np.float32
            enlarged = resize_maps(torch.from_numpy(maps[label]), (64, 64))
            torch.testing.assert_close(enlarged, values[0], rtol=1e-4, atol=1e-6)
        with Image.open(out / record["overlay"]) as picture:
            assert picture.size[0] > 4 * 320  # the image and three maps, as wide as an image is long


def test_a_volume_is_no_picture(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), images / "scan.nii")
    assert main(["explain", str(images), "--model", str(weights), "--out", str(tmp_path / "out"), *QUICK]) == 0
    told = capsys.readouterr()
    assert "3 explained, 1 skipped" in told.out
    assert "expected a picture, (1 or 3, H, W), got a volume, (1, 4, 5, 6)" in told.err


def test_what_cannot_be_read_is_named_and_skipped(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.png").write_bytes((images / "0.png").read_bytes()[:60])
    Image.fromarray(np.full((8, 8), 7.0, np.float32)).save(images / "float.tif")  # outside [0, 1]
    arguments = ["explain", str(images), "--model", str(weights), "--out", str(tmp_path / "out"), *QUICK]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "3 explained, 2 skipped" in told.out
    assert "broken.png" in told.err
    assert "float.tif" in told.err
    assert "layer4 has a grid of 2 × 2" in told.err
    assert set(records(tmp_path / "out")) == {"0", "1", "2"}
    assert main([*arguments, "--strict"]) == 1
    assert "broken.png" in capsys.readouterr().err
    nothing = ["explain", str(images / "broken.png"), "--model", str(weights), "--out", str(tmp_path / "none")]
    assert main(nothing) == 1
    assert "none of 1 can be read" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_another_batch_size_gives_the_same_maps(images: Path, weights: Path, tmp_path: Path) -> None:
    for seed in range(3, 35):  # more than are held at once
        draw(images / f"{seed}.png", seed)
    (images / "20.png").write_bytes(b"")
    found = {}
    for size in ("1", "7"):
        out = tmp_path / size
        asked = ["--methods", "smooth-grad[samples=3],random", "--device", "cpu", "--batch-size", size]
        assert main(["explain", str(images), "--model", str(weights), "--out", str(out), *asked]) == 0
        found[size] = {path.name: dict(np.load(path)) for path in sorted(out.glob("*.npz"))}
    assert len(found["1"]) == len(found["7"]) == 34
    for name, maps in found["1"].items():
        for label, values in maps.items():
            np.testing.assert_allclose(values, found["7"][name][label], rtol=1e-3, atol=1e-6, err_msg=name)
    draws = [maps["random"].tobytes() for maps in found["1"].values()]
    assert len(set(draws)) == 34


def test_names_of_outputs_neither_collide_nor_leave_the_folder(weights: Path, tmp_path: Path) -> None:
    names = [
        "a/x.png",
        "b/x.png",
        "a/X.PNG",
        "a/x.bmp",
        "a/$.png",
        "b/~..png",
        "a/-$(rm).png",
        "a/ü ß.png",
        "c/nul.png",
    ]
    for seed, name in enumerate([*names, "c/nul.png", f"a/{'ü' * 120}.png", "a/..dots.png"]):
        draw(tmp_path / "in" / name, seed)
    out = tmp_path / "deep" / "out"
    arguments = [str(tmp_path / "in"), str(tmp_path / "in" / "a" / "x.png"), "--model", str(weights), "--out", str(out)]
    assert main(["explain", *arguments, *QUICK]) == 0
    found = records(out)
    assert len(found) == 11  # x.png counts once, though given twice
    assert len({name.casefold() for name in found}) == 11
    assert len({record["image"] for record in found.values()}) == 11
    assert len(list(out.iterdir())) == 3 * 11
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert "nul" in found
    assert not any(path.name.startswith((".", "-")) for path in out.iterdir())
    before = {path.name for path in out.iterdir()}
    assert main(["explain", *arguments, *QUICK]) == 0
    assert {path.name for path in out.iterdir()} == before


def test_another_image_of_the_same_name_does_not_replace_the_first(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "y.json").write_text('{"mine": 1}')
    for seed, path in enumerate(["a/x.png", "b/x.png", "b/y.png"]):
        image = draw(tmp_path / path, seed)
        assert main(["explain", str(image), "--model", str(weights), "--out", str(out), *QUICK]) == 0
    assert (out / "y.json").read_text() == '{"mine": 1}'
    written = [record["image"] for record in records(out).values() if "image" in record]
    assert sorted(written) == [str(tmp_path / path) for path in ("a/x.png", "b/x.png", "b/y.png")]


def test_images_are_never_replaced_and_own_overlays_never_explained(weights: Path, tmp_path: Path) -> None:
    plain, trap = draw(tmp_path / "x.png", 0), draw(tmp_path / "x.overlay.png", 1)
    before = plain.read_bytes(), trap.read_bytes()
    for _ in range(2):
        assert main(["explain", str(tmp_path), "--model", str(weights), "--out", str(tmp_path), *QUICK]) == 0
        assert (plain.read_bytes(), trap.read_bytes()) == before
        assert len(records(tmp_path)) == 2


def test_a_plain_state_dict_with_its_architecture_gives_the_same(images: Path, weights: Path, tmp_path: Path) -> None:
    given = ["explain", str(images), *QUICK]
    assert main([*given, "--model", str(weights), "--out", str(tmp_path / "card")]) == 0
    plain = ["--arch", "test_resnet", "--classes", "bright, dark,odd", "--size", "64", "--channels", "1"]
    plain_weights = str(weights.with_name("plain.pt"))
    assert main([*given, "--model", plain_weights, "--out", str(tmp_path / "plain"), *plain]) == 0
    for name, record in records(tmp_path / "card").items():
        other = records(tmp_path / "plain")[name]
        assert {**record, "seconds": 0} == {**other, "seconds": 0}
        for file in (record["maps"], record["overlay"]):
            assert (tmp_path / "card" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_the_card_s_enhancement_is_made_and_recorded(images: Path, weights: Path, tmp_path: Path) -> None:
    network, card = load_weights(weights)
    save_weights(tmp_path / "negative.safetensors", network, replace(card, enhancement="negative"))
    for path in sorted(images.iterdir()):
        (tmp_path / "negatives").mkdir(exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / "negatives" / path.name)
    negative = ["--model", str(tmp_path / "negative.safetensors"), "--out", str(tmp_path / "a")]
    assert main(["explain", str(images), *QUICK, *negative]) == 0
    plain = ["--model", str(weights), "--out", str(tmp_path / "b")]
    assert main(["explain", str(tmp_path / "negatives"), *QUICK, *plain]) == 0
    for name, record in records(tmp_path / "a").items():
        other = records(tmp_path / "b")[name]
        assert (record["model"]["enhancement"], other["model"]["enhancement"]) == ("negative", "none")
        assert record["score"] == pytest.approx(other["score"], abs=1e-4)


def test_volumes_are_explained_by_a_plain_state_dict_of_a_3d_network(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = ModelCard("resnet10-3d", (24, 32, 16), 1, ("sick", "well"), (0.0,), (1.0,), "none", "image")
    torch.manual_seed(0)
    network = card.build()
    save_weights(tmp_path / "card.safetensors", network, card)
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    affine = np.array([[0, -1.5, 0, 4], [2, 0, 0, 5], [0, 0.1, 3, 6], [0, 0, 0, 1]])
    voxels = np.random.default_rng(0).integers(-1000, 1000, (9, 11, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), images / "scan.nii.gz")
    given = ["explain", str(images), "--methods", "layer-cam,saliency", "--layer", "layer3", "--device", "cpu"]
    plain = ["--arch", "resnet10-3d", "--classes", "sick,well", "--size", "24,32,16"]
    for name, model in (("card", ["card.safetensors"]), ("plain", ["plain.pt", *plain])):
        out = tmp_path / name
        assert main([*given, "--model", str(tmp_path / model[0]), *model[1:], "--out", str(out)]) == 0
        told = capsys.readouterr()
        assert "1 explained, 3 skipped" in told.out
        assert told.err.count("expected a volume, (1 or 3, D, H, W), got a picture, (1, 30, 50)") == 3
        assert set(records(out)) == {"scan"}
    for file in ("scan.layer-cam.map.nii.gz", "scan.saliency.map.nii.gz", "scan.overlay.png"):
        assert (tmp_path / "card" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    for file in records(tmp_path / "card")["scan"]["maps"].values():
        found = nibabel.load(tmp_path / "card" / file)
        assert found.shape == (9, 11, 7)
        np.testing.assert_array_equal(found.affine, nibabel.load(images / "scan.nii.gz").affine)


def test_one_of_several_volumes_is_picked_by_its_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ModelCard("resnet10-3d", (16, 16, 16), 1, ("sick", "well"), (0.0,), (1.0,), "none", "image")
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", card.build(), card)
    voxels = np.random.default_rng(0).integers(0, 1000, (8, 9, 7, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "series.nii")
    nibabel.save(nibabel.Nifti1Image(voxels[..., 1], np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "second.nii")
    model = ["--model", str(tmp_path / "w.safetensors"), "--methods", "saliency", "--device", "cpu"]
    assert main(["explain", str(tmp_path / "series.nii"), *model, "--out", str(tmp_path / "none")]) == 1
    assert "pick one with index= (--index), from 0 to 2" in capsys.readouterr().err
    for name, index in (("series", ["--index", "1"]), ("second", [])):
        out = ["--out", str(tmp_path / name)]
        assert main(["explain", str(tmp_path / f"{name}.nii"), *model, *out, *index]) == 0
    one, other = (
        nibabel.load(tmp_path / name / f"{name}.saliency.map.nii.gz").get_fdata() for name in ("series", "second")
    )
    assert one.shape == (8, 9, 7)
    np.testing.assert_array_equal(one, other)
    assert records(tmp_path / "series")["series"]["index"] == 1


def test_a_target_is_a_name_an_index_or_all(images: Path, weights: Path, tmp_path: Path) -> None:
    given = ["explain", str(images / "0.png"), "--model", str(weights), *QUICK, "--target"]
    found = {}
    for target in ("odd", "2", "all"):
        assert main([*given, target, "--out", str(tmp_path / target)]) == 0
        found[target] = records(tmp_path / target)["0"], dict(np.load(tmp_path / target / "0.maps.npz"))
    assert found["odd"][0]["target"] == found["2"][0]["target"] == "odd"
    record, maps = found["all"]
    assert record["target"] == list(CARD.classes)
    assert record["target_index"] == [0, 1, 2]
    np.testing.assert_allclose(sum(record["probability"]), 1, rtol=1e-5)
    assert maps["layer-cam"].shape == (3, 2, 2)
    np.testing.assert_allclose(maps["layer-cam"][2], found["odd"][1]["layer-cam"], rtol=1e-4, atol=1e-7)
    one, three = (height_of(tmp_path / target / "0.overlay.png") for target in ("odd", "all"))
    assert three > 2.5 * one


def test_several_layers_and_kept_channels_are_drawn_too(images: Path, weights: Path, tmp_path: Path) -> None:
    asked = [
        "--methods",
        "layer-cam,saliency[channels=keep]",
        "--layer",
        "layer3",
        "--layer",
        "layer4",
        "--device",
        "cpu",
    ]
    image = str(images / "0.png")
    assert main(["explain", image, "--model", str(weights), "--out", str(tmp_path / "out"), *asked]) == 0
    shapes = {name: values.shape for name, values in np.load(tmp_path / "out" / "0.maps.npz").items()}
    assert shapes == {
        "layer-cam@layer3": (4, 4),
        "layer-cam@layer4": (2, 2),
        "saliency[channels=keep]": (1, 64, 64),
    }


def test_a_network_with_one_logit_has_two_classes(images: Path, tmp_path: Path) -> None:
    card = ModelCard("test_resnet", 64, 1, ("sick",), (0.5,), (0.5,), "imagenet")
    save_weights(tmp_path / "one.safetensors", card.build(), card)
    given = ["explain", str(images / "0.png"), "--model", str(tmp_path / "one.safetensors"), *QUICK, "--target"]
    for target in ("not sick", "sick"):
        assert main([*given, target, "--out", str(tmp_path / target)]) == 0
    probabilities = [records(tmp_path / target)["0"]["probability"] for target in ("sick", "not sick")]
    np.testing.assert_allclose(sum(probabilities), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target", "brigth"], "unknown target 'brigth'. Did you mean 'bright'"),
        (["--target", "3"], "target: expected 'predicted', 'all', a class's name or 0 to 2, got 3"),
        (["--target", "-1"], "target: expected"),
        (["--layer", "layer9"], "unknown layer 'layer9'"),
        (["--methods", "layercam"], "unknown method 'layercam'. Did you mean 'layer-cam'"),
        (["--methods", "layer-cam,,sobel"], "methods: expected names with commas between"),
        (["--methods", "layer-cam[x"], "methods: expected names with commas between"),
        (["--methods", "smooth-grad[sample=3]"], "Did you mean 'samples'"),
        (["--methods", "smooth-grad[samples=many]"], "smooth-grad[samples]: expected a value like its default, 25"),
        (["--methods", "smooth-grad[samples]"], "methods: expected options as name=value"),
        (["--classes", "3"], "arch: expected an architecture, since --classes go with it"),
        (["--arch", "test_resnet"], "classes: expected how many"),
        (["--arch", "test_resnet", "--classes", "a,a"], "classes: expected names with commas between, each once"),
        (["--arch", "test_resnet", "--classes", "3"], "none for weights that carry a model card"),
        (["--arch", "test_resnet", "--classes", "3", "--channels", "2"], "channels: expected 1 or 3, got 2"),
        (["--model", "PLAIN"], "For a plain state dict give --arch and --classes"),
        (["--model", "PLAIN", "--arch", "test_resnett", "--classes", "3"], "Did you mean 'test_resnet'"),
        (["--model", "PLAIN", "--arch", "test_resnet", "--classes", "4", "--channels", "1"], "another shape for fc"),
        (["--model", "none.pt"], "none.pt"),
        (["--device", "cuda:77"], "device: expected"),
        (["--batch-size", "0"], "batch-size"),
        (["--size", "0"], "arch: expected an architecture, since --size go with it"),
        (
            ["--model", "PLAIN", "--arch", "test_resnet", "--classes", "3", "--size", "0"],
            "size: expected a length above 0",
        ),
        (
            ["--model", "PLAIN", "--arch", "test_resnet", "--classes", "3", "--size", "8,8,8"],
            "size: expected one length, of a square picture for 'test_resnet', got (8, 8, 8)",
        ),
        (["nowhere.png"], "nowhere.png"),
    ],
)
def test_errors_are_one_clear_line_and_leave_nothing(
    arguments: list[str], told: str, images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(weights.with_name("plain.pt")) if each == "PLAIN" else each for each in arguments]
    out = tmp_path / "out"
    assert main(["explain", str(images), "--model", str(weights), "--out", str(out), *QUICK, *arguments]) == 2
    written = capsys.readouterr().err
    assert told in written
    assert "Traceback" not in written
    assert not out.exists()


def test_labels_of_methods_can_be_written_back() -> None:
    labels = ["layer-cam", "grad-cam[positive=False]", "gradient-shap[channels=keep,samples=3]"]
    labels = [label for label in labels if label.split("[")[0] in pellucid.methods()["name"].tolist()]
    assert len(labels) > 1
    assert [choice.label for choice in parse_methods([",".join(labels)])] == labels
    assert parse_methods(["grad-cam[positive=False]"])[0].options == {"positive": False}
    with pytest.raises(InputError, match="positive"):
        parse_methods(["grad-cam[positive=0]"])


def test_a_full_disk_leaves_no_record_of_an_image_that_is_not_whole(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    out = tmp_path / "out"
    assert main(["explain", str(images), "--model", str(weights), "--out", str(out), *QUICK]) == 1
    assert "0.maps.npz: No space left on device" in capsys.readouterr().err
    assert list(out.iterdir()) == []
    shutil.rmtree(out)


def test_smoothing_fusing_precision_and_memory_are_options(images: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["--methods", "layer-cam[smooth=flips],saliency", "--layer", "layer3", "--layer", "layer4", "--fuse", "max"]
    more = ["--precision", "bfloat16", "--max-memory", "64MiB", "--device", "cpu"]
    assert main(["explain", str(images), "--model", str(weights), "--out", str(out), *asked, *more]) == 0
    for record in records(out).values():
        assert (record["fused"], record["precision"]) == ("max", "bfloat16")
        assert list(record["methods"]) == ["layer-cam[smooth=flips]", "saliency"]
        assert record["methods"]["layer-cam[smooth=flips]"]["largest"] <= 1.0  # fused layers are scaled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fuse", "sum"], "fuse: expected mean or max, got 'sum'."),
        (["--precision", "half"], "precision: expected 'float32' or 'bfloat16', got 'half'."),
        (["--max-memory", "lots"], "max-memory: expected a size such as 2GiB or 500MB, got 'lots'."),
        (["--max-memory", "1KB"], "max_memory: expected at least"),
        (["--methods", "layer-cam[smooth=flip]"], "unknown smooth 'flip'. Did you mean 'flips'?"),
    ],
)
def test_options_that_cant_be_are_refused_in_words(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    given = ["explain", str(images), "--model", str(weights), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*given, *options]) == 2
    assert message in capsys.readouterr().err
