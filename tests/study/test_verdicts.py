"""Studies that ask whether each map can be trusted."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from pellucid.attribution import explain
from pellucid.data.transforms import Normalisation
from pellucid.errors import InputError
from pellucid.metrics.verdict import VERDICTS, trust
from pellucid.models.checkpoints import load_weights
from pellucid.report.build import build_report
from pellucid.study.config import parse_config, read_config
from pellucid.study.plan import cell_seed, plan
from pellucid.study.prepare import read_dataset
from pellucid.study.runner import run_study
from references.pages import Page

STUDY = """
models = ["test_resnet"]

[[datasets]]
name = "chest"
path = "phantom:chest"
image_size = 64
channels = 1
images = 60

[training]
epochs = 1
batch_size = 16

[explain]
methods = ["layer-cam", "saliency", "random", "sobel"]
images = 6

[evaluate]
metrics = ["road"]
verdicts = true

[statistics]
resamples = 100
"""
CELL = "chest/test_resnet/fold-0"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    (folder / "study.toml").write_text(STUDY)
    run_study(folder / "study.toml", folder / "out", device="cpu")
    return folder


def test_each_map_of_a_study_has_its_verdict(judged: Path) -> None:
    table = pd.read_parquet(judged / "out" / CELL / "verdicts.parquet")
    explained = pd.read_parquet(judged / "out" / CELL / "explained.parquet")
    assert list(table["sample"].unique()) == list(explained["sample"])
    assert set(table["method"]) == {"layer-cam", "saliency"}
    assert set(table["verdict"]) <= set(VERDICTS)
    assert table[["faithfulness", "stability", "sanity", "agreement"]].notna().all(axis=None)
    scores = pd.read_parquet(judged / "out" / CELL / "scores.parquet")
    assert set(scores["metric"]) == {"road"}  # what verdicts rest on stays apart from what was asked


@pytest.mark.filterwarnings("ignore::pellucid.attribution.engine.GridWarning")
def test_verdicts_are_those_of_trust(judged: Path) -> None:
    config = read_config(judged / "out" / "study.toml")
    (cell,) = plan(config, {"chest": 1})
    prepared = read_dataset(cell.dataset, config, judged / "out")
    known = pd.read_parquet(judged / "out" / CELL / "explained.parquet")
    network, card = load_weights(judged / "out" / CELL / "weights.safetensors", torch.device("cpu"))
    table = prepared.manifest.table
    rows = table.set_index("sample").loc[list(known["sample"])].reset_index()
    images = prepared.images(rows).with_transform(Normalisation(card.mean, card.std, card.normalisation))
    stacked = torch.stack([images[place][0] for place in range(len(rows))])
    seed = cell_seed(config.seed, cell, 0, with_model=False)
    target = torch.tensor([card.classes.index(name) for name in known["target"]])
    explanation = explain(
        network,
        stacked,
        methods=config.explain.methods,
        target=target,
        batch_size=config.explain.batch_size,
        generator=torch.Generator().manual_seed(seed),
    )
    again = trust(network, stacked, explanation, torch.Generator().manual_seed(seed + 1), batch_size=64)
    stored = pd.read_parquet(judged / "out" / CELL / "verdicts.parquet")
    values = ["stability", "sanity", "agreement"]  # `trust` adds a third control, which may raise the floor
    assert stored[values].to_numpy() == pytest.approx(again[values].to_numpy(), abs=1e-5)


def test_the_report_says_what_can_be_trusted(judged: Path) -> None:
    page = Page(build_report(judged / "out").read_text(encoding="utf-8"))
    assert "Can the maps be trusted? test_resnet," in page.text
    assert "faithfulness passes ≥" in page.text
    table = pd.read_parquet(judged / "out" / CELL / "verdicts.parquet")
    sheet = pd.read_csv(judged / "out" / "report" / "verdicts.csv")
    assert list(sheet["verdict"]) == list(table["verdict"])
    assert sheet["image"].tolist() == [place for place in range(1, 7) for _ in range(2)]
    first = table[table["method"] == "layer-cam"]["verdict"]
    assert any(f"LayerCAM: {sign} {word}" in page.text for sign, word in _signs(first))


def _signs(words: pd.Series) -> list[tuple[str, str]]:
    return [({"trusted": "✓", "doubtful": "?", "not trusted": "✗"}[word], word) for word in words]


def test_verdicts_want_a_control(tmp_path: Path) -> None:
    fields = {
        "models": ["test_resnet"],
        "datasets": [{"name": "chest", "path": "phantom:chest"}],
        "explain": {"methods": ["layer-cam", "saliency"]},
        "evaluate": {"verdicts": True},
    }
    with pytest.raises(InputError, match="expected a control such as 'random' among them"):
        parse_config(fields, base=tmp_path)
