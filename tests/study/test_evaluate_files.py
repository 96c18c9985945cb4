"""An evaluation of files says what `pellucid.evaluate` says, loses nothing when stopped, and tells what it left out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pellucid
from pellucid.attribution import GridWarning
from pellucid.data.transforms import Normalisation, prepare
from pellucid.errors import InputError, UnknownNameError, UnreadableFileError
from pellucid.metrics import METRICS, metric
from pellucid.models.checkpoints import ModelCard
from pellucid.study.evaluate_files import Evaluated, evaluate_files
from pellucid.study.evaluate_question import EvaluationQuestion
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.known_images import Sources, known_of, list_images

CARD = ModelCard("test_resnet", 32, 1, ("bright", "dark", "odd"), (0.5,), (0.5,), "imagenet")
ROAD = metric("road", fractions=(0.2, 0.6))
MASKED = metric("energy-pointing")
LAYER = "layer2"  # whose grid is 4 × 4
FILES = ("evaluation.json", "missing.csv", "samples.csv", "scores.csv", "scores.parquet", "summary.csv")

Model = tuple[nn.Module, ModelCard]
Register = Callable[..., None]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = CARD.build().eval()
    for parameter in network.parameters():  # so that the classes differ
        parameter.data.mul_(1.5)
    return network, CARD


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed in range(10):  # more than are held at once
        draw(tmp_path / "in" / f"{seed}.png", seed)
    return tmp_path / "in"


@pytest.fixture
def register() -> Iterator[Register]:
    """Declares a metric for one test."""
    names = []

    def declare(name: str, needs: tuple[str, ...], function: Callable[..., Tensor], **told: Any) -> None:
        names.append(name)
        METRICS.register(
            name, family="toy", source="none", needs=needs, **{"higher_is_better": True, "range": (0, 1), **told}
        )(function)

    yield declare
    for name in names:
        del METRICS._entries[name]


def draw(path: Path, seed: int, shape: tuple[int, int] = (30, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60 + 37 * seed % 190, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, shape: tuple[int, int] = (30, 50), part: Any = np.s_[:15]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(shape, np.uint8)
    pixels[part] = 255
    Image.fromarray(pixels).save(path)


def ask(**asked: Any) -> EvaluationQuestion:
    return EvaluationQuestion(**{"metrics": (ROAD,), "methods": ("layer-cam",), "layers": (LAYER,), **asked})


def run(images: Path, model: Model, output: Path, **asked: Any) -> Evaluated:
    return evaluate_files([images], model, output, ask(**asked))


def values(found: Evaluated, method: str, name: str) -> list[float]:
    table = found.scores
    return table[(table["method"] == method) & (table["metric"] == name)]["value"].tolist()


def as_network_sees(path: Path) -> Tensor:
    pixels = prepare(pellucid.read_image(path), channels=1, size=32)
    return Normalisation(CARD.mean, CARD.std, CARD.normalisation).normalise(pixels)


def bytes_of(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in FILES}


def test_the_values_are_those_of_evaluate(images: Path, model: Model, tmp_path: Path) -> None:
    for seed in range(4, 10):
        (images / f"{seed}.png").unlink()
    for seed in range(4):
        mask(tmp_path / "masks" / f"{seed}.png", part=np.s_[seed : seed + 12, seed : 3 * seed + 9])
    found = run(
        images,
        model,
        tmp_path / "out",
        methods=("layer-cam", "smooth-grad"),
        metrics=(ROAD, MASKED),
        sources=Sources(masks=tmp_path / "masks"),
    )
    files = sorted(images.iterdir())
    tensors = torch.stack([as_network_sees(path) for path in files])
    with pytest.warns(GridWarning):
        explanation = pellucid.explain(
            model[0], tensors, ["layer-cam", "smooth-grad", "random", "sobel", "center-gaussian"], layer=LAYER
        )
    sources = Sources(masks=tmp_path / "masks")
    known = [known_of(each, pellucid.read_image(each.path), 32, None) for each in list_images([images], sources, ())]
    table = pellucid.evaluate(
        model[0], tensors, explanation, [ROAD, MASKED], torch.stack([each.mask for each in known])
    )
    assert list(found.scores.columns) == ["sample", "image", "method", "metric", "value", "reason"]
    pd.testing.assert_frame_equal(found.scores.drop(columns="image"), table)
    assert found.scores["image"].unique().tolist() == [path.name for path in files]
    stored = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    pd.testing.assert_frame_equal(stored, found.scores)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out" / "scores.csv")["value"], stored["value"], rtol=1e-15)
    for row in found.samples.to_dict("records"):
        assert row["target"] == row["predicted"] == CARD.classes[int(explanation.target[row["sample"]])]
        np.testing.assert_allclose(row["probability"], explanation.probability[row["sample"]].item(), rtol=1e-5)
    for row in found.summary.to_dict("records"):
        one = table[(table["method"] == row["method"]) & (table["metric"] == row["metric"])]["value"]
        assert (row["n"], row["missing"]) == (one.notna().sum(), one.isna().sum())
        np.testing.assert_allclose(row["mean"], one.mean(), rtol=1e-12)
        assert row["low"] <= row["mean"] <= row["high"]
        controls = table[
            table["method"].isin(["random", "sobel", "center-gaussian"]) & (table["metric"] == row["metric"])
        ]
        np.testing.assert_allclose(row["floor"], controls.groupby("method")["value"].mean().max(), rtol=1e-12)
    for _, part in found.summary.groupby("metric"):
        best = part[~part["control"]].sort_values("mean").iloc[-1]["method"]
        assert part[part["best"]]["method"].tolist() == [best]


def test_the_card_s_enhancement_is_made_before_maps_are_made_and_scored(
    images: Path, model: Model, tmp_path: Path
) -> None:
    for path in sorted(images.iterdir()):
        (tmp_path / "negatives").mkdir(exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / "negatives" / path.name)
    negative = (model[0], dataclasses.replace(model[1], enhancement="negative"))
    ours = run(images, negative, tmp_path / "a", methods=("layer-cam",), metrics=(ROAD,)).scores
    theirs = run(tmp_path / "negatives", model, tmp_path / "b", methods=("layer-cam",), metrics=(ROAD,)).scores
    for method in ("layer-cam", "random"):  # but for a control that looks at the image
        mine, other = (table.loc[table["method"] == method, "value"] for table in (ours, theirs))
        np.testing.assert_allclose(mine, other, atol=1e-4)
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["model"]["enhancement"] == "negative"


def test_a_stop_loses_nothing_and_the_same_call_ends_with_the_same_bytes(
    images: Path, model: Model, tmp_path: Path, register: Register
) -> None:
    calls: list[int] = []
    stop_at = 0

    def flaky(scores: Any, maps: Tensor) -> Tensor:
        calls.append(len(maps))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return maps.flatten(1).mean(dim=1) + scores.unperturbed()

    register("flaky", ("scores", "maps"), flaky)
    metrics = (metric("flaky"), ROAD)
    run(images, model, tmp_path / "whole", metrics=metrics)
    assert calls == [4] * 8 + [2] * 4
    calls.clear()
    stop_at = 6  # in the second part of the images
    with pytest.raises(KeyboardInterrupt):
        run(images, model, tmp_path / "stopped", metrics=metrics)
    assert not (tmp_path / "stopped" / "scores.csv").exists()
    calls.clear()
    stop_at = 0
    run(images, model, tmp_path / "stopped", metrics=metrics)
    assert calls == [4] * 4 + [2] * 4
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")
    calls.clear()
    run(images, model, tmp_path / "stopped", metrics=metrics)
    assert calls == []
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")
    run(images, model, tmp_path / "stopped", metrics=(metric("flaky"), metric("road-morf", fractions=(0.5,))))
    assert calls == []  # a further metric is computed alone
    run(images, model, tmp_path / "stopped", metrics=metrics, seed=1)
    assert calls == [4] * 8 + [2] * 4
    draw(images / "9.png", 99)
    calls.clear()
    run(images, model, tmp_path / "stopped", metrics=metrics)
    assert calls == [2] * 4


def test_making_maps_is_half_of_the_way(
    images: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[float, str]] = []

    @contextlib.contextmanager
    def progress(title: str, total: int, *, show: bool) -> Iterator[Callable[..., None]]:
        heard.clear()
        yield lambda steps=1, note="": heard.append((steps, note))
        assert sum(steps for steps, _ in heard) == pytest.approx(total)

    monkeypatch.setattr("pellucid.study.evaluate_files.progress", progress)
    asked: dict[str, Any] = {"methods": ("smooth-grad", "layer-cam"), "metrics": (ROAD, metric("pixel-flipping"))}
    run(images, model, tmp_path / "out", **asked)
    total = 10 * 5 * 2  # images, methods with three controls, metrics
    moved = [(steps, " of " not in note or "rows" in note) for steps, note in heard if steps]  # while maps are made
    assert sum(steps for steps, is_explaining in moved if is_explaining) == pytest.approx(total / 2)
    assert moved[0][1]
    run(images, model, tmp_path / "out", **asked)  # all is there
    run(images, model, tmp_path / "out", **asked | {"metrics": (ROAD, metric("road-morf"))})  # maps are made again


def test_what_is_wrong_with_a_mask_is_said_and_counted(images: Path, model: Model, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    for seed in (0, 1, 5, 6):
        mask(masks / f"{seed}.png")
    mask(masks / "2.png", part=np.s_[:0])
    mask(masks / "3.png", shape=(20, 20))
    (masks / "6.png").write_bytes(b"no picture")
    mask(masks / "one" / "7.png")
    mask(masks / "two" / "7.png")
    found = run(images, model, tmp_path / "out", metrics=(MASKED, ROAD), sources=Sources(masks=masks))
    told = found.scores[(found.scores["metric"] == MASKED.label) & (found.scores["method"] == "sobel")]
    assert told["reason"].tolist() == [
        *["", "", "the mask is empty", "the image's mask can't be used", "the image has no mask", ""],
        *["the image's mask can't be used", "the image's mask can't be used", "the image has no mask"],
        "the image has no mask",
    ]
    assert told["value"].isna().tolist() == [reason != "" for reason in told["reason"]]
    assert found.scores[found.scores["metric"] == ROAD.label]["value"].notna().all()
    assert len(found.problems) == 3
    assert "mask of 3.png: it is 20 × 20 pixels, its image 50 × 30" in found.problems[0]
    assert "6.png" in found.problems[1]
    assert "several files or images are called '7'" in found.problems[2]
    missing = pd.read_csv(tmp_path / "out" / "missing.csv")
    assert missing["metric"].unique().tolist() == [MASKED.label]
    for _, part in missing.groupby("method"):
        assert dict(zip(part["reason"], part["images"], strict=True)) == {
            "the mask is empty": 1,
            "the image's mask can't be used": 3,
            "the image has no mask": 3,
        }
    assert missing["method"].nunique() == 4
    with pytest.raises(InputError, match="mask of 3.png"):
        evaluate_files([images], model, tmp_path / "strict", ask(sources=Sources(masks=masks)), strict=True)
    with pytest.raises(InputError, match=r"masks: expected files with the images' names, such as '0'"):
        run(images, model, tmp_path / "none", sources=Sources(masks=images.parent / "out"))


def test_a_bad_file_is_listed_and_the_rest_goes_on(images: Path, model: Model, tmp_path: Path) -> None:
    (images / "4.png").write_bytes((images / "4.png").read_bytes()[:60])
    found = run(images, model, tmp_path / "out")
    assert found.skipped == (("4.png", "can't read 4.png: the file is truncated."),)
    assert len(found.samples) == 9
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["skipped"] == [list(found.skipped[0])]
    with pytest.raises(UnreadableFileError, match=r"4\.png"):
        evaluate_files([images], model, tmp_path / "strict", ask(), strict=True)
    with pytest.raises(UnreadableFileError, match=r"none of 1 can be evaluated\. 4\.png: can't read"):
        run(images / "4.png", model, tmp_path / "none")


def test_maps_that_explain_left_score_as_those_made_on_the_fly(images: Path, model: Model, tmp_path: Path) -> None:
    methods = ("layer-cam", "saliency")
    explain_files([images], model, tmp_path / "maps", Question(methods, layers=(LAYER,)))
    fresh = run(images, model, tmp_path / "fresh", methods=methods)
    again = run(images, model, tmp_path / "again", methods=(), maps=tmp_path / "maps")
    assert again.scores["method"].unique().tolist() == ["layer-cam", "saliency", "random", "sobel", "center-gaussian"]
    for method in ("layer-cam", "saliency", "sobel"):
        np.testing.assert_allclose(
            values(again, method, ROAD.label), values(fresh, method, ROAD.label), rtol=1e-4, atol=1e-6
        )
    one = run(images, model, tmp_path / "one", methods=("saliency",), controls=(), maps=tmp_path / "maps")
    assert one.scores["method"].unique().tolist() == ["saliency"]
    record = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert record["methods"]["saliency"] == {"control": False, "saved": True}
    assert record["methods"]["random"] == {"control": True, "saved": False}
    assert (record["layer"], record["target"], record["maps"]) == ([LAYER], "as saved", "maps")
    (tmp_path / "elsewhere").mkdir()
    moved = images.rename(tmp_path / "elsewhere" / "moved")  # folders move, and are told by their names
    assert len(run(moved, model, tmp_path / "moved", methods=(), maps=tmp_path / "maps").samples) == 10


def test_a_saved_explanation_is_scored_in_the_order_of_the_files(images: Path, model: Model, tmp_path: Path) -> None:
    tensors = torch.stack([as_network_sees(path) for path in sorted(images.iterdir())])
    with pytest.warns(GridWarning):
        explanation = pellucid.explain(model[0], tensors, ["layer-cam", "saliency"], target=1)
    own = torch.arange(10 * 32 * 32.0).view(10, 32, 32) % 97
    explanation = dataclasses.replace(explanation, maps={**explanation.maps, "mine": own})
    explanation.save(tmp_path / "e.zarr")
    found = run(images, model, tmp_path / "out", methods=(), maps=tmp_path / "e.zarr")
    table = pellucid.evaluate(model[0], tensors[:4], explanation[:4], ROAD)
    for method in ("layer-cam", "saliency", "mine"):
        assert values(found, method, ROAD.label)[:4] == table[table["method"] == method]["value"].tolist()
    assert found.samples["target"].unique().tolist() == ["dark"]
    with pytest.raises(InputError, match="an explanation of 1 images, in the order of their names, got one of 10"):
        run(images / "0.png", model, tmp_path / "no", methods=(), maps=tmp_path / "e.zarr")
    with pytest.raises(UnknownNameError, match="Did you mean 'layer-cam'"):
        run(images, model, tmp_path / "no", methods=("layer-cm",), maps=tmp_path / "e.zarr")
    (images / "0.png").rename(images / "99.png")  # another order
    with pytest.raises(UnreadableFileError, match="its maps are of another image or another network: the score of"):
        run(images, model, tmp_path / "wrong", methods=(), maps=tmp_path / "e.zarr")
    small = dataclasses.replace(explanation, maps={"mine": own[:, :16]})
    small.save(tmp_path / "e.zarr")
    with pytest.raises(
        UnreadableFileError, match=r"its map by mine has the shape \(16, 32\), the network's images 32 × 32"
    ):
        run(images, model, tmp_path / "no", methods=(), maps=tmp_path / "e.zarr")


def test_maps_of_other_weights_or_another_class_are_refused(images: Path, model: Model, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    explain_files([images], model, maps, Question(("layer-cam",), target="odd"))
    torch.manual_seed(9)
    with pytest.raises(InputError, match="maps: expected maps of these weights"):
        run(images, (CARD.build().eval(), CARD), tmp_path / "out", methods=(), maps=maps)
    with pytest.raises(InputError, match=r"expected maps of class 'dark', got 'odd' for 0\.png"):
        run(images, model, tmp_path / "out", methods=(), maps=maps, target="dark")
    with pytest.raises(InputError, match="a folder that pellucid explain wrote, or a saved explanation"):
        run(images, model, tmp_path / "out", methods=(), maps=images)
    assert len(run(images, model, tmp_path / "out", methods=(), maps=maps, target="odd").samples) == 10


def test_an_image_without_a_map_that_fits_is_listed(images: Path, model: Model, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    explain_files([images], model, maps, Question(("layer-cam", "saliency")))
    (maps / "1.json").unlink()
    draw(images / "2.png", 77)
    (maps / "3.maps.npz").write_bytes(b"damaged")
    with np.load(maps / "4.maps.npz") as stored:
        np.savez(maps / "4.maps.npz", **{**stored, "saliency": stored["saliency"][:5]})
    record = json.loads((maps / "5.json").read_text())
    (maps / "5.json").write_text(json.dumps({**record, "maps": "../in/5.png"}))
    explain_files([images / "6.png"], model, maps, Question(("layer-cam", "saliency"), target="all"))
    found = run(images, model, tmp_path / "out", methods=(), maps=maps)
    assert found.samples["image"].tolist() == ["0.png", "7.png", "8.png", "9.png"]
    reasons = dict(found.skipped)
    assert reasons["1.png"] == "it has no map"
    assert "its maps are of another image or another network" in reasons["2.png"]
    assert "its maps can't be read" in reasons["3.png"]
    assert "its map by saliency has the shape (5, 32), the network's images 32 × 32" in reasons["4.png"]
    assert "expected a file inside" in reasons["5.png"]
    assert reasons["6.png"] == "its maps explain several classes; explain one"
    assert np.isfinite(found.scores["value"]).all()


def test_metrics_that_compare_all_images_see_them_all(
    images: Path, model: Model, tmp_path: Path, register: Register
) -> None:
    calls = []

    def spread(maps: Tensor, classes: Tensor, *, power: float = 1.0) -> Tensor:
        calls.append(len(maps))
        return (maps.flatten(1).mean(dim=1) - maps.mean()).abs() ** power + classes

    register("spread", ("all maps", "all classes"), spread)
    choice = metric("spread", power=2.0)
    found = run(images, model, tmp_path / "out", metrics=(choice, ROAD), controls=("sobel",))
    assert calls == [10, 10]
    tensors = torch.stack([as_network_sees(path) for path in sorted(images.iterdir())])
    with pytest.warns(GridWarning):
        explanation = pellucid.explain(model[0], tensors, ["layer-cam", "sobel"], layer=LAYER)
    for method, maps in explanation.maps.items():
        wanted = spread(maps, explanation.target, power=2.0)
        np.testing.assert_allclose(values(found, method, choice.label), wanted, rtol=1e-4)
    assert not list((tmp_path / "out").rglob("maps.zarr"))
    before = bytes_of(tmp_path / "out")
    calls.clear()
    run(images, model, tmp_path / "out", metrics=(choice, ROAD), controls=("sobel",))
    assert calls == []
    assert bytes_of(tmp_path / "out") == before
    draw(images / "91.png", 91)
    more = run(images, model, tmp_path / "out", metrics=(choice, ROAD), controls=("sobel",))
    assert calls == [11, 11]
    assert len(values(more, "sobel", choice.label)) == 11
    (images / "91.png").unlink()
    only = run(images, model, tmp_path / "only", metrics=(choice,), controls=("sobel",))
    assert values(only, "sobel", choice.label) == values(found, "sobel", choice.label)


def test_labels_come_from_folders_and_manifests_and_patients_are_numbered(model: Model, tmp_path: Path) -> None:
    root = tmp_path / "data"
    rows = ["path,label,patient_id,mask"]
    for seed, label in enumerate(["bright", "dark", "bright", "unheard", ""]):
        draw(root / label / f"{seed}.png", seed)
        if label:
            rows.append(f"{label}/{seed}.png,{label},SECRET-{seed % 2},masks/m{seed}.png")
            mask(root / "masks" / f"m{seed}.png")
    asked: dict[str, Any] = {"target": "true", "metrics": (ROAD,), "controls": ()}
    sources = Sources(masks=root / "masks")  # whose files bear other names, but aren't taken for images
    with pytest.raises(InputError, match="masks: expected files"):
        run(root, model, tmp_path / "out", sources=sources)
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    found = run(root, model, tmp_path / "manifest", **{**asked, "metrics": (ROAD, MASKED)})
    assert found.samples["target"].tolist() == ["bright", "dark", "bright"]
    assert found.samples["patient_id"].tolist() == ["1", "2", "1"]
    assert found.skipped == (("unheard/3.png", "its label 'unheard' isn't one of the network's classes"),)
    assert found.scores["value"].notna().all()
    for file in (tmp_path / "manifest").iterdir():
        assert file.is_dir() or b"SECRET" not in file.read_bytes()
    (root / "manifest.csv").unlink()
    for seed in range(5):
        (root / "masks" / f"m{seed}.png").unlink(missing_ok=True)
    found = run(root, model, tmp_path / "folders", **asked)
    assert found.samples["image"].tolist() == ["bright/0.png", "bright/2.png", "dark/1.png"]
    assert found.samples["label"].tolist() == found.samples["target"].tolist() == ["bright", "bright", "dark"]
    assert dict(found.skipped)["4.png"] == "it has no label, and the true class was asked for"


def test_boxes_are_brought_to_the_networks_size(images: Path, tmp_path: Path) -> None:
    rows = ["path,x,y,w,h", "0.png,25,15,25,15", "0.png,0,0,1,1", "1.png,40,0,20,5", "2.png,0,0,wide,5"]
    (images / "boxes.csv").write_text("\n".join(rows) + "\n")
    listed = list_images([images], Sources(boxes=images / "boxes.csv"), ())
    known = [known_of(each, pellucid.read_image(each.path), 32, None) for each in listed[:4]]
    assert known[0].boxes.tolist() == [[[16, 16], [32, 32]], [[0, 0], [1, 1]]]
    assert [len(each.boxes) for each in known[1:]] == [0, 0, 0]
    assert known[1].missing["boxes"] == known[2].missing["boxes"] == "the image's boxes can't be used"
    assert "(40, 0, 20, 5) isn't within its 50 × 30 pixels" in known[1].problems[0]
    assert "boxes" not in known[3].missing
    (images / "boxes.csv").write_text("path,x,y,w\n0.png,1,1,1\n")
    with pytest.raises(InputError, match="columns path, x, y, w, h in boxes.csv, got none called 'h'"):
        list_images([images], Sources(boxes=images / "boxes.csv"), ())
    (images / "boxes.csv").write_text("path,x,y,w,h\nother.png,1,1,1,1\n")
    with pytest.raises(InputError, match="boxes: expected rows with the images' paths"):
        list_images([images], Sources(boxes=images / "boxes.csv"), ())


def test_metrics_without_what_they_need_are_left_out_or_refused(images: Path, model: Model, tmp_path: Path) -> None:
    optional = frozenset({MASKED.label})
    found = run(images / "0.png", model, tmp_path / "out", metrics=(ROAD, MASKED), optional=optional)
    assert found.left_out == (MASKED.label,)
    assert found.scores["metric"].unique().tolist() == [ROAD.label]
    with pytest.raises(InputError, match="expected masks of the images for energy-pointing, got none. Pass --masks"):
        run(images, model, tmp_path / "no", metrics=(ROAD, MASKED))
    with pytest.raises(InputError, match="at least one that can be computed, got energy-pointing. Pass --masks"):
        run(images, model, tmp_path / "no", metrics=(MASKED,), optional=optional)
    with pytest.raises(UnknownNameError, match="Did you mean 'bright'"):
        run(images, model, tmp_path / "no", target="brigt")


def test_a_held_out_bank_reaches_the_fills(images: Path, model: Model, tmp_path: Path, register: Register) -> None:
    held = draw(tmp_path / "held" / "h.png", 50)
    seen = []

    def banked(scores: Any, maps: Tensor) -> Tensor:
        seen.append(scores.bank)
        return maps.flatten(1).sum(dim=1)

    register("banked", ("scores", "maps"), banked)
    run(images / "0.png", model, tmp_path / "out", metrics=(metric("banked"),), controls=(), bank=(held.parent,))
    assert torch.equal(seen[0], as_network_sees(held)[None])
    with pytest.raises(InputError, match=r"bank: expected images that aren't evaluated, got 0\.png"):
        run(images / "0.png", model, tmp_path / "no", bank=(images,))


def test_volumes_have_masks_and_millimetres(tmp_path: Path, register: Register) -> None:
    card = ModelCard("resnet10-3d", (16, 24, 16), 1, ("sick", "well"), (0.0,), (1.0,), "none", "image")
    torch.manual_seed(0)
    model = card.build().eval(), card
    affine, shape = np.diag([2.0, 1.5, 3.0, 1.0]), (8, 16, 8)
    voxels = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    elsewhere = affine + np.array([[0, 0, 0, 40.0], [0] * 4, [0] * 4, [0] * 4])
    labels = np.zeros(shape, np.uint8)
    labels[:4], labels[4, 0, 0] = 1, 2
    for name, place in (("a", affine), ("b", elsewhere)):
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "in").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "in" / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, place), tmp_path / "masks" / f"{name}.nii")
    draw(tmp_path / "in" / "flat.png", 0)
    told = []

    def share(maps: Tensor, masks: Tensor, spacing: Tensor) -> Tensor:
        told.append(spacing)
        return masks.flatten(1).double().mean(dim=1)

    register("share", ("maps", "masks", "spacing"), share)
    asked: dict[str, Any] = {"metrics": (metric("share"),), "methods": ("saliency",), "controls": ("sobel",)}
    sources = Sources(masks=tmp_path / "masks", labels=(1,))
    found = run(tmp_path / "in", model, tmp_path / "out", sources=sources, **asked)
    assert values(found, "sobel", "share")[0] == pytest.approx(0.5)
    assert np.isnan(values(found, "sobel", "share")[1])
    assert "its voxels lie elsewhere than the image's, by up to 40" in found.problems[0]
    np.testing.assert_allclose(told[0], [[1.0, 1.0, 1.5]])
    assert "expected a volume" in dict(found.skipped)["flat.png"]
    unsaid = run(tmp_path / "in", model, tmp_path / "unsaid", sources=Sources(masks=tmp_path / "masks"), **asked)
    assert "it holds the labels 1, 2; say which are the finding (--labels)" in unsaid.problems[0]
    explain_files([tmp_path / "in" / "a.nii.gz"], model, tmp_path / "maps", Question(("saliency",), target="well"))
    again = run(tmp_path / "in", model, tmp_path / "again", maps=tmp_path / "maps", sources=sources, **asked)
    assert again.samples["target"].tolist() == ["well"]
    assert dict(again.skipped)["b.nii.gz"] == "it has no map"


def test_real_images_with_their_lesions(model: Model, tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "lesion_masks"
    files = sorted((folder / "images" / "brain_mri_br35h").iterdir())[:3]
    sources = Sources(manifest=folder / "manifest.csv")
    question = ask(metrics=(MASKED, metric("pointing-game")), sources=sources)
    found = evaluate_files(files, model, tmp_path / "out", question)
    assert found.scores["value"].between(0, 1).all()
    assert found.samples["label"].tolist() == ["tumor"] * 3
    other = ask(metrics=question.metrics, sources=Sources(masks=folder / "masks"))
    again = evaluate_files(files, model, tmp_path / "again", other)
    assert again.scores["value"].tolist() == found.scores["value"].tolist()
