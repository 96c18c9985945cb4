"""Metrics beside the maps that `explain` makes: in the records, and in structured reports."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from torch import nn

import pellucid
from pellucid.errors import InputError
from pellucid.files import read_json
from pellucid.models.checkpoints import ModelCard
from pellucid.study.explain_files import Question, explain_files
from pellucid.study.explain_objects import Wishes
from pellucid.training.predict import as_wanted

CARD = ModelCard("test_resnet", 64, 1, ("a", "b"), (0.5,), (0.25,), "data-set")
METHODS = ("layer-cam", "saliency")
METRICS = (pellucid.metric("road", fractions=(0.3, 0.6)), pellucid.metric("sparseness"))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return CARD.build().eval()


@pytest.fixture(scope="module")
def scan() -> Path:
    return Path(str(get_testdata_file("CT_small.dcm")))


@pytest.fixture(scope="module")
def out(network: nn.Module, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    question = Question(METHODS, layers=("layer2",), metrics=METRICS, write=Wishes(("structured-report",)))
    explain_files([scan], (network, CARD), folder, question)
    return folder


def test_records_hold_the_values_of_evaluate(network: nn.Module, scan: Path, out: Path) -> None:
    images = as_wanted(pellucid.read_image(scan), CARD)[None]
    seed = torch.Generator().manual_seed(0)
    explanation = pellucid.explain(network, images, METHODS, layer="layer2", generator=seed)
    table = pellucid.evaluate(network, images, explanation, METRICS, generator=torch.Generator().manual_seed(0))
    record = read_json(out / "CT_small.json")
    for method, metric, value in table[["method", "metric", "value"]].itertuples(index=False):
        assert record["metrics"][method][metric] == pytest.approx(value, abs=1e-6)


def test_structured_reports_hold_them_with_their_source(out: Path) -> None:
    record = read_json(out / "CT_small.json")
    (path,) = out.glob("*.dcm")
    found: dict[str, list[float]] = {}
    sources = []

    def walk(items: pydicom.Sequence) -> None:
        for item in items:
            if item.ValueType == "NUM":
                name = item.ConceptNameCodeSequence[0].CodeMeaning
                found.setdefault(name, []).append(float(item.MeasuredValueSequence[0].NumericValue))
            if item.ValueType == "TEXT":
                sources.append(item.TextValue)
            walk(item.get("ContentSequence", []))

    walk(pydicom.dcmread(path).ContentSequence)
    assert found["sparseness"] == pytest.approx([record["metrics"][name]["sparseness"] for name in METHODS])
    assert sum(text.startswith("source: Rong et al. 2022") for text in sources) == len(METHODS)


def test_metrics_that_need_more_than_the_image_are_refused(network: nn.Module, scan: Path, tmp_path: Path) -> None:
    masked = Question(METHODS, metrics=(pellucid.metric("pointing-game"),))
    with pytest.raises(InputError, match=r"got pointing-game, which needs masks. Use pellucid evaluate"):
        explain_files([scan], (network, CARD), tmp_path, masked)
    with pytest.raises(InputError, match="target: expected one class, for which metrics are measured, got all"):
        explain_files([scan], (network, CARD), tmp_path, Question(METHODS, target="all", metrics=METRICS))
    assert not list(tmp_path.iterdir())


def test_without_metrics_records_say_nothing_of_them(network: nn.Module, scan: Path, tmp_path: Path) -> None:
    explain_files([scan], (network, CARD), tmp_path, Question(METHODS, layers=("layer2",)))
    assert "metrics" not in read_json(tmp_path / "CT_small.json")
