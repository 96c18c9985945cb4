"""Kept values: what is written, read again and told apart."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from pellucid.metrics.kept import Kept, fingerprint, model_fingerprint


def test_values_come_back_from_the_folder(tmp_path: Path) -> None:
    with Kept(tmp_path / "values") as kept:
        kept.add({"a": (0.1 + 0.2, ""), "b": (math.nan, "the mask is empty")})
        assert kept.get("a") == (0.1 + 0.2, "")
    again = Kept(tmp_path / "values")
    assert again.get("a") == (0.1 + 0.2, "")
    value, reason = again.get("b") or (0.0, "")
    assert math.isnan(value)
    assert reason == "the mask is empty"
    assert again.get("c") is None


def test_they_are_written_whatever_ends_the_block(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Kept(tmp_path) as kept:
        kept.add({"a": (1.0, "")})
        raise KeyboardInterrupt
    assert Kept(tmp_path).get("a") == (1.0, "")
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_shards_come_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("pellucid.metrics.kept.time.monotonic", lambda: now)
    kept = Kept(tmp_path)
    kept.add({"a": (1.0, "")})
    assert not list(tmp_path.iterdir())
    now = 6.0
    kept.add({"b": (2.0, "")})
    assert len(list(tmp_path.iterdir())) == 1
    assert Kept(tmp_path).get("a") == (1.0, "")


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    kept = Kept(None)
    kept.add({"a": (1.0, "")})
    assert not kept
    assert kept.get("a") is None


def test_fingerprints_tell_content_shape_and_type_apart() -> None:
    values = torch.arange(4.0)
    parts = [(values,), (values.view(2, 2),), (values.double(),), (values + 1,), (values, "a"), ("a", values), ()]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    assert fingerprint(values) == fingerprint(values.clone())
    assert fingerprint(torch.arange(8.0)[::2]) == fingerprint(torch.tensor([0.0, 2, 4, 6]))


def test_a_model_is_told_apart_by_weights_buffers_and_parts() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = model_fingerprint(model)
    assert model_fingerprint(model) == before
    model[1].running_mean += 1
    changed = model_fingerprint(model)
    assert changed != before
    model[0].weight.data[0, 0, 0, 0] += 1
    assert model_fingerprint(model) != changed
    assert model_fingerprint(nn.Sequential(nn.ReLU())) != model_fingerprint(nn.Sequential(nn.Tanh()))
