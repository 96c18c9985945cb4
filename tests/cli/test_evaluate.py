"""`pellucid evaluate` as a user meets it: what is printed and written, what it refuses, and how it goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from pellucid.attribution import frozen
from pellucid.cli.evaluate import write_section
from pellucid.cli.main import main
from pellucid.cli.options import parse_metrics
from pellucid.errors import InputError, UnknownNameError
from pellucid.metrics import METRICS
from pellucid.metrics.evaluate import DEFAULT_METRICS
from pellucid.models.checkpoints import ModelCard, load_weights, save_weights
from pellucid.report.names import method_title
from pellucid.study.evaluate_files import evaluate_files
from pellucid.study.evaluate_question import EvaluationQuestion

CARD = ModelCard("test_resnet", 32, 1, ("bright", "dark"), (0.5,), (0.5,), "imagenet")
ROAD = "road[fractions=(0.2, 0.6)]"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    save_weights(path, CARD.build(), CARD)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, value in (("in", 255), ("masks", 2)):
        (tmp_path / name).mkdir()
        for seed in range(3):
            pixels = np.random.default_rng(seed).integers(0, value, (30, 50), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{seed}.png")
    return tmp_path / "in"


@pytest.fixture
def stopping() -> Iterator[list[str]]:
    """A metric that stops the run, as Ctrl-C does, at the maps of a method that is listed."""
    stop: list[str] = []

    @METRICS.register("stopping", family="toy", source="none", needs=("maps",), higher_is_better=True, range=(0, 1))
    def flaky(maps: Tensor) -> Tensor:
        """Stop."""
        if stop:
            raise KeyboardInterrupt
        return maps.flatten(1).mean(dim=1)

    yield stop
    del METRICS._entries["stopping"]


def arguments(images: Path, weights: Path, *more: str) -> list[str]:
    output = str(images.parent / "out")
    chosen = ["--methods", "layer-cam,saliency", "--layer", "layer2", "--metrics", ROAD, "--device", "cpu"]
    return ["evaluate", str(images), "--model", str(weights), "--output", output, *chosen, *more]


def table(images: Path) -> pd.DataFrame:
    return pd.read_parquet(images.parent / "out" / "scores.parquet")


def test_methods_are_scored_beside_controls(images: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "broken.png").write_bytes(b"nothing")
    masks = ["--masks", str(images.parent / "masks"), "--metrics", "localisation"]
    assert main(arguments(images, weights, *masks)) == 0
    told = capsys.readouterr()
    lines = [line.split("\t") for line in told.out.splitlines()]
    summary = pd.read_csv(images.parent / "out" / "summary.csv")
    for row in summary.to_dict("records"):
        (line,) = [each for each in lines if each[0].startswith(f"{row['metric']} (") and each[1] == row["method"]]
        mean = float(line[2] or "nan")
        assert mean == pytest.approx(row["mean"], rel=1e-3, nan_ok=True)
        assert [int(line[4]), int(line[5])] == [row["n"], row["missing"]]
        assert row["n"] + row["missing"] == 3
        assert ("*" in line[6:]) == row["best"]
        assert ("floor" in line[6:]) == (row["control"] and row["mean"] == row["floor"])
    assert set(summary["metric"]) >= {"road[fractions=(0.2, 0.6)]", "pointing-game", "energy-pointing"}
    assert set(summary["method"]) == {"layer-cam", "saliency", "random", "sobel", "center-gaussian"}
    assert lines[-2][0].startswith("3 evaluated, 1 skipped")
    assert lines[-1] == [f"report: {images.parent / 'out' / 'index.html'}"]
    page = (images.parent / "out" / "index.html").read_text()
    assert "Evaluation of explanations of test_resnet" in page
    assert method_title("layer-cam") in page
    assert "skipped broken.png: can't read broken.png: not an image of a known format" in told.err
    assert "layer2 has a grid of 4 × 4" in told.err
    assert main(arguments(images, weights, "--strict")) == 1
    assert "broken.png" in capsys.readouterr().err
    assert main(arguments(images, weights, "--no-controls")) == 0
    assert set(table(images)["method"]) == {"layer-cam", "saliency"}


def test_ctrl_c_keeps_what_was_finished(
    images: Path, weights: Path, stopping: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(images, weights, "--metrics", "stopping")
    stopping.append("now")
    assert main(command) == 130
    assert "stopped. What was finished is kept; run the same command to go on." in capsys.readouterr().err
    kept = {path: path.stat().st_mtime_ns for path in (images.parent / "out" / ".values").rglob("*.parquet")}
    assert len(kept) == 1
    stopping.clear()
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    first = table(images)
    (images.parent / "out").rename(images.parent / "former")
    assert main(command) == 0
    pd.testing.assert_frame_equal(table(images), first, check_exact=True)


def test_maps_of_pellucid_explain_are_taken(images: Path, weights: Path) -> None:
    maps = str(images.parent / "maps")
    explained = ["explain", str(images), "--model", str(weights), "--out", maps, "--target", "dark", "--device", "cpu"]
    assert main([*explained, "--methods", "layer-cam,saliency", "--layer", "layer2"]) == 0
    assert main(arguments(images, weights, "--maps", maps)) == 0
    saved = table(images)
    assert main(arguments(images, weights, "--target", "dark", "--batch-size", "2")) == 0
    np.testing.assert_allclose(table(images)["value"], saved["value"], rtol=1e-3, atol=1e-6)
    assert table(images)["method"].tolist() == saved["method"].tolist()


def test_a_compiled_network_gives_the_same_scores(images: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(arguments(images, weights)) == 0
    plain = table(images)
    (images.parent / "out").rename(images.parent / "plain")
    compiled, read = [], frozen.graph_of
    monkeypatch.setattr(frozen, "graph_of", lambda *given: compiled.append(given) or read(*given))
    assert main(arguments(images, weights, "--compile")) == 0
    assert len(compiled) == 1
    np.testing.assert_allclose(table(images)["value"], plain["value"], atol=1e-5)


def test_drawn_maps_of_pellucid_explain_come_out_the_same_when_metrics_make_them_again(
    images: Path, weights: Path
) -> None:
    for seed in range(3, 6):  # more than are evaluated together, and fewer than are explained together
        pixels = np.random.default_rng(seed).integers(0, 255, (30, 50), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{seed}.png")
    maps = str(images.parent / "maps")
    explained = ["explain", str(images), "--model", str(weights), "--out", maps, "--device", "cpu"]
    assert main([*explained, "--methods", "rise[samples=20]"]) == 0
    saved = ["--output", str(images.parent / "out"), "--maps", maps, "--metrics", "max-sensitivity[draws=2]"]
    assert main(["evaluate", str(images), "--model", str(weights), "--device", "cpu", *saved]) == 0
    drawn = table(images).query("method == 'rise[samples=20]'")
    assert len(drawn) == 6
    assert drawn["value"].notna().all()
    for record in Path(maps).glob("*.json"):  # as an older version wrote it
        record.write_text(record.read_text().replace('"image_seed"', '"unknown"'))
    assert main(["evaluate", str(images), "--model", str(weights), "--device", "cpu", *saved]) == 0
    told = table(images).query("method == 'rise[samples=20]'")["reason"]
    assert told.str.contains("comes out otherwise when it is made again").any()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--metrics", "raod"], "Did you mean 'road'"),
        (["--metrics", "faithfulnes"], "Did you mean 'faithfulness'"),
        (["--metrics", "road[noise=loud]"], "road[noise]: expected a value like its default, 0.01, got 'loud'"),
        (["--metrics", "road[nose=0.1]"], "Did you mean 'noise'"),
        (["--metrics", "road]["], "metrics: expected names with commas between"),
        (["--metrics", "pointing-game"], "expected masks of the images for pointing-game, got none. Pass --masks"),
        (["--methods", "layercam"], "Did you mean 'layer-cam'"),
        (["--target", "grey"], "unknown target 'grey'"),
        (["--masks", "nowhere"], "masks: expected a folder, got 'nowhere'"),
        (["--boxes", "nowhere.csv"], "boxes: can't read nowhere.csv"),
        (["--labels", "1,tumour"], "labels: expected whole numbers above 0"),
        (["--maps", "nowhere"], "maps: expected a folder that pellucid explain wrote, got 'nowhere'"),
        (["--max-memory", "much"], "max-memory: expected a size"),
        (["--seed", "-1"], "greater than or equal to 0"),
    ],
)
def test_what_can_not_be_used_is_one_clear_line(
    images: Path, weights: Path, more: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(images, weights, *more)) == 2
    written = capsys.readouterr().err
    assert told in written
    assert "Traceback" not in written
    assert not (images.parent / "out").exists()


def test_help_shows_options_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, example in (("evaluate", "road[noise=0.0]"), ("explain", "saliency[smooth=flips]")):
        assert main([verb, "--help"]) == 0
        assert example in capsys.readouterr().out


def test_metrics_are_chosen_by_name_family_or_all() -> None:
    chosen, optional = parse_metrics([])
    assert [choice.label for choice in chosen] == list(DEFAULT_METRICS)
    assert optional == set(DEFAULT_METRICS)
    chosen, optional = parse_metrics(["localisation", "road[noise=0.0],pointing-game"])
    labels = [choice.label for choice in chosen]
    assert set(labels) == {*METRICS.names("localisation"), "road[noise=0.0]"}
    assert len(labels) == len(set(labels))
    assert optional == set(METRICS.names("localisation")) - {"pointing-game"}
    chosen, optional = parse_metrics(["road[fractions=(0.1, 0.2),noise=0.0]", "all"])
    assert chosen[0].options == {"fractions": (0.1, 0.2), "noise": 0.0}
    assert [choice.label for choice in chosen][1:] == list(METRICS.names())
    with pytest.raises(InputError, match="names with commas between"):
        parse_metrics(["road[noise=0.0"])
    with pytest.raises(UnknownNameError, match="unknown metric"):
        parse_metrics(["everything"])
    with pytest.raises(InputError, match="a value like its default"):
        parse_metrics(["road[noise=True]"])


def test_the_report_gets_neither_names_nor_patients(images: Path, weights: Path) -> None:
    root = images.parent
    (root / "manifest.csv").write_text("path,label,patient_id\nin/0.png,bright,SECRET-7\nin/1.png,dark,SECRET-8\n")
    chosen, _ = parse_metrics([ROAD])
    question = EvaluationQuestion(chosen, methods=("layer-cam",), layers=("layer2",))
    found = evaluate_files([root / "manifest.csv"], load_weights(weights), root / "out", question)
    page = write_section(found, root / "out", "Study").read_text()
    assert "Study" in page
    for hidden in ("SECRET", "0.png", "1.png"):
        assert hidden not in page
    for file in (root / "out").iterdir():
        assert file.is_dir() or b"SECRET" not in file.read_bytes()
    one = dataclasses.replace(question, controls=())
    alone = evaluate_files([images / "0.png"], load_weights(weights), root / "one", one)
    assert write_section(alone, root / "one", "One").exists()
