"""Explanations on disk come back to the last bit, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import zarr
from torch import nn

from pellucid.attribution import Explanation, explain, load_explanation, method, resize_maps
from pellucid.errors import InputError, PellucidError, UnreadableFileError


def network(axes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    convolution, pool = ((nn.Conv2d, nn.AdaptiveAvgPool2d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[axes - 2]
    first, second = convolution(2, 4, 3, stride=2), convolution(4, 5, 3)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(5, 3))


def explained(axes: int = 2, **asked: object) -> Explanation:
    images = torch.rand(19, 2, *[21, 24, 22][:axes], generator=torch.Generator().manual_seed(1))
    methods = ["layer-cam", "grad-cam", method("smooth-grad", samples=2, channels="keep"), "input-x-gradient", "random"]
    return explain(network(axes), images, methods=methods, **{"layer": "3", "batch_size": 4, **asked})  # type: ignore[arg-type]


def bits(values: torch.Tensor) -> bytes:
    return values.numpy().tobytes()


def assert_same(ours: Explanation, theirs: Explanation) -> None:
    for field in dataclasses.fields(Explanation):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name in ("maps", "layer_maps"):
            assert list(one) == list(other)
            for label, values in one.items():
                assert (values.dtype, values.shape) == (other[label].dtype, other[label].shape)
                assert bits(values) == bits(other[label]), label
        elif isinstance(one, torch.Tensor):
            assert (one.dtype, bits(one)) == (other.dtype, bits(other))
        else:
            assert one == other


@pytest.mark.parametrize(
    "asked",
    [{}, {"axes": 3}, {"target": "all"}, {"layer": ["1", "3"]}, {"target": lambda outputs: outputs.sum(dim=1)}],
    ids=["2-D", "3-D", "all classes", "two layers", "a function"],
)
@pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")
def test_a_saved_explanation_comes_back_to_the_last_bit(asked: dict[str, object], tmp_path: Path) -> None:
    explanation = explained(**asked)  # type: ignore[arg-type]
    explanation.save(tmp_path / "e.zarr")
    assert_same(load_explanation(tmp_path / "e.zarr"), explanation)
    part = explanation[3:5]
    part.save(str(tmp_path / "e.zarr"))  # in place of the former
    assert_same(load_explanation(str(tmp_path / "e.zarr")), part)
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.zarr"]


def test_cams_are_kept_at_their_layers_grid(tmp_path: Path) -> None:
    explanation = explained()
    explanation.save(tmp_path / "e.zarr")
    group = zarr.open_group(tmp_path / "e.zarr", mode="r")
    stored = {name: array.shape for name, array in group["maps"].arrays()}  # type: ignore[union-attr]
    assert stored == {"2": (19, 2, 21, 24), "3": (19, 21, 24), "4": (19, 21, 24)}
    assert {array.shape for _, array in group["layer_maps"].arrays()} == {(19, 8, 9)}  # type: ignore[union-attr]


def test_maps_that_enlarging_would_not_give_are_kept_as_they_are(tmp_path: Path) -> None:
    explanation = explained()
    nearly = explanation["layer-cam"].clone()
    nearly[0, 0, 0] += 1e-7
    odd = {"a/../b": torch.rand(19, 4, 4, dtype=torch.float64), "": -explanation["random"], "layer-cam": nearly}
    mine = dataclasses.replace(explanation, maps=odd)
    mine.save(tmp_path / "e.zarr")
    loaded = load_explanation(tmp_path / "e.zarr")
    assert_same(loaded, mine)
    assert not torch.equal(loaded["layer-cam"], resize_maps(loaded.layer_maps["layer-cam"], (21, 24)))


def test_values_that_are_not_finite_come_back(tmp_path: Path) -> None:
    values = torch.tensor([[[float("nan"), float("inf")], [-0.0, 0.0]]])
    mine = dataclasses.replace(explained()[0], maps={"mine": values})
    mine.save(tmp_path / "e.zarr")
    assert bits(load_explanation(tmp_path / "e.zarr")["mine"]) == bits(values)


def test_what_is_no_explanation_is_never_replaced_nor_read(tmp_path: Path) -> None:
    explanation = explained()[0]
    folder, file, other = tmp_path / "mine", tmp_path / "notes.txt", tmp_path / "other.zarr"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    file.write_text("mine")
    zarr.open_group(other, mode="w").create_array("x", data=torch.ones(2).numpy())
    for path in (folder, file, other):
        with pytest.raises(InputError, match="path: expected a new name or a saved explanation, got"):
            explanation.save(path)
        with pytest.raises(InputError, match="which is something else"):
            load_explanation(path)
    assert (folder / "a.txt").read_text() == file.read_text() == "mine"
    with pytest.raises(InputError, match="which isn't there"):
        load_explanation(tmp_path / "none")
    half = dataclasses.replace(explanation, maps={"half": torch.ones(1, 2, 2, dtype=torch.bfloat16)})
    with pytest.raises(InputError, match=r"maps\['half'\]: expected a dtype that NumPy has, such as float32"):
        half.save(tmp_path / "half.zarr")
    assert not (tmp_path / "half.zarr").exists()


def test_a_failed_save_keeps_the_former_explanation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, explanation = tmp_path / "e.zarr", explained()
    explanation[0].save(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "create_array", full)
        with pytest.raises(PellucidError, match="can't write .*e.zarr: No space left on device"):
            explanation.save(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            explanation.save(path)
    assert_same(load_explanation(path), explanation[0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.zarr"]


def test_a_kill_while_writing_leaves_the_former_explanation(tmp_path: Path) -> None:
    path, explanation = tmp_path / "e.zarr", explained()[0]
    explanation.save(path)
    script = f"""
        import os, zarr
        from pathlib import Path
        from pellucid.attribution import load_explanation
        explanation = load_explanation({str(path)!r})
        make = zarr.Group.create_array
        def cut(group, name, **rest):
            make(group, name, **rest)
            if name.startswith("layer_maps"):
                os._exit(9)
        zarr.Group.create_array = cut
        explanation.save({str(path)!r})
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 9
    assert_same(load_explanation(path), explanation)


def test_a_damaged_explanation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.zarr"
    explained()[0].save(path)
    chunks = [file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert len(chunks) > 5
    for file in chunks:  # zarr itself fills a missing chunk with zeros: no evidence where there was some
        damaged = tmp_path / "d.zarr"
        shutil.copytree(path, damaged)
        (damaged / file.relative_to(path)).unlink()
        with pytest.raises(UnreadableFileError, match="the explanation is damaged"):
            load_explanation(damaged)
        (damaged / file.relative_to(path)).write_bytes(b"\x01" * 7)
        with pytest.raises(UnreadableFileError, match="the explanation is damaged"):
            load_explanation(damaged)
        shutil.rmtree(damaged)
    zarr.open_group(path, mode="r+").attrs["pellucid-explanation"] = 2
    with pytest.raises(UnreadableFileError, match="its form is 2, and this version of pellucid reads 1"):
        load_explanation(path)
