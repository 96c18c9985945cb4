"""Free-response curves of evaluated files: those of all images at once, whatever the shards, and shown on the page."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid
from pellucid.cli.evaluate import write_section
from pellucid.metrics.lesions import froc
from pellucid.models.checkpoints import ModelCard
from pellucid.study.evaluate_files import Evaluated, evaluate_files
from pellucid.study.evaluate_question import EvaluationQuestion
from pellucid.study.known_images import Sources, known_of, list_images
from pellucid.training.predict import as_wanted
from references.pages import Page

CARD = ModelCard("test_resnet", 64, 1, ("a", "b"), (0.5,), (0.5,), "imagenet")
METHODS = ("saliency", "input-x-gradient")
COUNT = 6


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return CARD.build().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, five of them with a mask of two lesions, one of these masks empty."""
    root = tmp_path_factory.mktemp("froc")
    for name in ("in", "masks"):
        (root / name).mkdir()
    for seed in range(COUNT):
        drawn = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(drawn).save(root / "in" / f"{seed}.png")
        mask = np.zeros((64, 64), np.uint8)
        if seed != 3:
            mask[4 + seed : 12 + seed, 10:20] = mask[40:50, 30 + seed : 44 + seed] = 255
        if seed != 5:
            Image.fromarray(mask).save(root / "masks" / f"{seed}.png")
    return root


def ask(folder: Path, *metrics: str) -> EvaluationQuestion:
    return EvaluationQuestion(
        metrics=tuple(map(pellucid.metric, metrics)),
        methods=METHODS,
        controls=("random",),
        sources=Sources(masks=folder / "masks"),
        layers=("layer3",),
    )


def run(folder: Path, network: nn.Module, output: Path, *metrics: str) -> Evaluated:
    return evaluate_files([folder / "in"], (network, CARD), output, ask(folder, *metrics))


def test_the_curve_is_that_of_all_masked_images_at_once(folder: Path, network: nn.Module, tmp_path: Path) -> None:
    found = run(folder, network, tmp_path, "pointing-game")
    listed = list_images([folder / "in"], Sources(masks=folder / "masks"), CARD.classes)
    read = [pellucid.read_image(each.path) for each in listed]
    masks = torch.stack([known_of(each, image, 64, None).mask for each, image in zip(listed, read, strict=True)][:5])
    images = torch.stack([as_wanted(image, CARD) for image in read])
    maps = pellucid.explain(network, images, METHODS).maps
    assert set(found.curves) == {*METHODS, "random"}
    for method in METHODS:
        whole, got = froc(maps[method][:5], masks), found.curves[method]
        assert (got.images, got.lesions) == (5, 8) == (whole.images, whole.lesions)
        assert got.sensitivity.tolist() == whole.sensitivity.tolist()
        assert got.false_positives.tolist() == whole.false_positives.tolist()
    table = pd.read_csv(tmp_path / "froc.csv")
    assert list(table.columns) == ["method", "threshold", "sensitivity", "false_positives_per_image"]
    assert table[table["method"] == "saliency"]["sensitivity"].iloc[-1] == found.curves["saliency"].sensitivity[-1]


def test_a_second_call_takes_what_is_there_and_leaves_the_same_bytes(
    folder: Path, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, network, tmp_path, "pointing-game")
    before = (tmp_path / "froc.csv").read_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("explained again")

    monkeypatch.setattr("pellucid.study.evaluate_shards.explain", never)
    again = run(folder, network, tmp_path, "pointing-game")
    assert (tmp_path / "froc.csv").read_bytes() == before
    assert again.curves["random"].lesions == 8


def test_the_page_shows_how_many_lesions_are_found(folder: Path, network: nn.Module, tmp_path: Path) -> None:
    found = run(folder, network, tmp_path, "pointing-game", "lesion-recall")
    page = Page(write_section(found, tmp_path, "Two lesions").read_text(encoding="utf-8"))
    assert "How many lesions the maps find" in page.text
    assert "Over 8 lesions in 5 images." in page.text
    assert "Free-response ROC" in page.text
    assert "froc" in page.ids
    assert "#froc" in page.links
    score = cast(float, found.curves["random"].score)
    assert f"the best control reaches {score:.3f}" in page.text


def test_without_a_metric_of_localisation_no_curve_is_drawn(folder: Path, network: nn.Module, tmp_path: Path) -> None:
    found = run(folder, network, tmp_path, "sparseness")
    assert found.curves == {}
    assert not (tmp_path / "froc.csv").exists()
    page = Page(write_section(found, tmp_path, "None").read_text(encoding="utf-8"))
    assert "How many lesions" not in page.text
