"""Networks compiled with their weights as constants: the same values, and none from weights that were since changed."""

from __future__ import annotations

import gc
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution import frozen, nearby
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.frozen import CompiledWarning, Frozen, copied_bytes
from pellucid.attribution.graph import graph_of
from pellucid.attribution.nearby import Nearby, Plan
from pellucid.errors import InputError, PellucidError
from references.cam_networks import seeded

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch compiles with a C++ compiler, and none is here"
)
ROWS = 4  # that a program takes


class Heads(nn.Module):
    """Gives a dict, and can't take channels that lie last."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.linear = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 100, 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.norm(self.convolution(images)).relu()
        return {"logits": self.linear(maps.view(len(maps), -1)), "maps": maps}


class Choosing(nn.Module):
    """Does one thing or another by what the image holds, which can't be compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(144, 3)

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = self.linear(images.flatten(1))
        return rows if float(images.sum()) > 0 else -rows


def network() -> nn.Sequential:
    convolution, norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
    model = seeded(nn.Sequential(convolution, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)))
    norm.running_mean.copy_(torch.linspace(-0.2, 0.2, 8))  # type: ignore[union-attr]
    return model


class Counted:
    """How many rows the model itself was run on."""

    def __init__(self, model: nn.Module) -> None:
        self.rows = 0
        model.register_forward_pre_hook(self)

    def __call__(self, model: nn.Module, given: tuple[Tensor]) -> None:
        if not torch.compiler.is_exporting():
            self.rows += len(given[0])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without what the compiler's own imports warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", CompiledWarning)
        yield


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are compiled at once, however few images run, as where there is nothing faster."""
    monkeypatch.setattr(frozen, "_PAYS", 0)
    monkeypatch.setattr(frozen, "pack", lambda *given: False)


@pytest.mark.parametrize("pays", [0, 10, math.inf, None])
def test_any_number_of_rows_gives_what_the_model_gives(pays: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if pays is not None:
        monkeypatch.setattr(frozen, "_PAYS", pays)
        monkeypatch.setattr(frozen, "pack", lambda *given: False)
    model, images = network(), torch.randn(11, 1, 12, 12)
    own = model.eval()(images).detach()
    counted = Counted(model)
    with borrowed(model), torch.no_grad():
        compiled = Frozen(model, ROWS)
        compiled.prepare(images)
        counted.rows = 0
        for rows in (1, 2, 3, 4, 5, 7, 11):
            torch.testing.assert_close(compiled(images[:rows]), own[:rows], rtol=1e-5, atol=1e-6)
        assert counted.rows == (4 if pays == 10 else 0)  # the program that is compiled on the way is held against it


def test_outputs_keep_their_form_whatever_layout_the_model_takes() -> None:
    model, images = seeded(Heads()).eval(), torch.randn(7, 1, 12, 12)
    own = model(images)
    with borrowed(model), torch.no_grad():
        found = Frozen(model, ROWS)(images)
    assert list(found) == ["logits", "maps"]
    for name, values in own.items():
        torch.testing.assert_close(found[name], values.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("at_once")
def test_changed_weights_are_never_taken_for_those_that_were_compiled() -> None:
    model, images = network().eval(), torch.randn(ROWS, 1, 12, 12)
    counted = Counted(model)
    with borrowed(model), torch.no_grad():
        compiled = Frozen(model, ROWS)
        before = compiled(images)
        model[0].weight.mul_(2)
        counted.rows = 0
        torch.testing.assert_close(compiled(images), model(images))
        assert counted.rows == 2 * ROWS  # the model itself ran
        assert (model(images) - before).abs().max() > 1e-2
        later = Frozen(model, ROWS)  # as in a later call
        torch.testing.assert_close(later(images), model(images), rtol=1e-5, atol=1e-6)
        model[5].weight.data += 1  # which no counter of versions tells
        torch.testing.assert_close(Frozen(model, ROWS)(images), model(images), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("at_once")
def test_what_was_compiled_serves_later_calls_and_goes_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.codecache import PyCodeCache

    def constants() -> int:
        gc.collect()
        return sum(isinstance(value, Tensor) for module in PyCodeCache.modules for value in vars(module).values())

    before = constants()
    model, images = network().eval(), torch.randn(ROWS, 1, 12, 12)
    with borrowed(model), torch.no_grad():
        first = Frozen(model, ROWS)(images)
        assert constants() > before
        monkeypatch.setattr(frozen, "_program", lambda *given: pytest.fail("compiled once more"))
        monkeypatch.setattr(frozen, "graph_of", lambda *given: pytest.fail("read once more"))
        assert torch.equal(Frozen(model, ROWS)(images), first)
    del model
    assert constants() == before


@pytest.mark.usefixtures("at_once")
def test_a_program_that_gives_other_values_is_told_of_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network().eval(), torch.randn(ROWS, 1, 12, 12)
    own = model(images).detach()
    told = "through its compiled form gives what differs by {} from its own outputs; it isn't used"
    wrong = frozen._Program(lambda rows: model(rows) * 1.01)
    monkeypatch.setattr(frozen, "_program", lambda *given: wrong)
    with borrowed(model), torch.no_grad():
        compiled = Frozen(model, ROWS)
        with pytest.warns(CompiledWarning, match=told.format("1.0e-02")):
            torch.testing.assert_close(compiled(images), own, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(compiled(images), own, rtol=1e-5, atol=1e-6)  # without another warning
    monkeypatch.setattr(frozen, "_program", lambda *given: frozen._Program(lambda rows: model(rows)[:, :1]))
    model = network().eval()
    with borrowed(model), torch.no_grad(), pytest.warns(CompiledWarning, match=told.format("inf")):
        Frozen(model, ROWS)(images)


def test_a_graph_that_gives_other_values_is_told_of_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network().eval(), torch.randn(ROWS, 1, 12, 12)

    def wrong(*given: Any) -> Any:
        graph = graph_of(*given)
        graph.get_buffer("conv2d_bias_of_its_own").add_(0.1)
        return graph

    monkeypatch.setattr(frozen, "graph_of", wrong)
    counted = Counted(model)
    with borrowed(model), torch.no_grad():
        compiled = Frozen(model, ROWS)
        with pytest.warns(CompiledWarning, match="through its graph gives what differs by"):
            compiled.prepare(images)
        counted.rows = 0
        torch.testing.assert_close(compiled(images), model(images))
        assert counted.rows == 2 * ROWS


def test_changes_run_where_they_reach_and_are_held_against_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearby, "_SAVED", 0)
    model, images = network().eval(), torch.randn(1, 1, 12, 12).repeat(8, 1, 1, 1)
    for place in range(8):
        images[place:, :, place] = 0.0  # a line more is gone in each
    images = torch.cat([images[:5], images[4:]])
    own, counted, ran = model(images).detach(), Counted(model), Nearby.__call__
    planned: list[int] = []

    def noted(self: Nearby, rows: Tensor, plan: Plan) -> Any:
        planned.append(len(rows))
        return ran(self, rows, plan)

    monkeypatch.setattr(Nearby, "__call__", noted)
    with borrowed(model), torch.no_grad():
        compiled = Frozen(model, ROWS)
        compiled.prepare(images)
        counted.rows = 0
        found = compiled(images)
        torch.testing.assert_close(found, own, rtol=1e-5, atol=1e-6)
        assert torch.equal(found[5], found[4])  # which isn't run again
        assert (planned, counted.rows) == ([4, 4], 4)  # held against the model once
        monkeypatch.setattr(Nearby, "__call__", lambda self, rows, plan: ran(self, rows, plan) * 1.01)
        frozen._KNOWN.clear()
        compiled = Frozen(model, ROWS)
        with pytest.warns(CompiledWarning, match="through what changes alone gives what differs by 1.0e-02"):
            torch.testing.assert_close(compiled(images), own, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(compiled(images), own, rtol=1e-5, atol=1e-6)


def test_a_model_that_can_t_be_compiled_is_told_of(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    model, images = seeded(Choosing()), torch.rand(6, 1, 12, 12)
    explanation = pellucid.explain(model, images, "random")
    with pytest.raises(PellucidError, match=r"compile: this model can't be compiled here \(.+\)\. Leave compile=True"):
        pellucid.evaluate(model, images, explanation, "deletion", batch_size=ROWS, compile=True)

    def function(rows: Tensor) -> np.ndarray:
        return rows.numpy().reshape(len(rows), -1)[:, :3]

    assert not [record for record in caplog.records if record.levelname == "WARNING"]  # nothing else is said
    assert not capsys.readouterr().err
    with pytest.raises(PellucidError, match="compile: this model can't be compiled here"):
        pellucid.evaluate(function, images, explanation, "deletion", batch_size=ROWS, compile=True)


def test_images_that_the_model_doesn_t_take_are_told_of_as_without() -> None:
    model, images = network(), torch.rand(6, 3, 12, 12)
    explanation = pellucid.explain(network(), images[:, :1], "random")
    with pytest.raises(InputError) as plain:
        pellucid.evaluate(model, images, explanation, "deletion")
    with pytest.raises(InputError, match=re.escape(str(plain.value))):
        pellucid.evaluate(model, images, explanation, "deletion", compile=True)


@pytest.mark.parametrize("pays", [0, None])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_metrics_have_the_same_values(precision: Any, pays: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if pays is not None:
        monkeypatch.setattr(frozen, "_PAYS", pays)
        monkeypatch.setattr(frozen, "pack", lambda *given: False)
    monkeypatch.setattr(nearby, "_SAVED", 0)
    model, images = network(), torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    explanation = pellucid.explain(model, images, ["layer-cam", "saliency", "random"], layer="2", precision=precision)
    metrics = ["road", "deletion", "selectivity", "max-sensitivity"]
    counted = Counted(model)
    plain = pellucid.evaluate(model, images, explanation, metrics, precision=precision)
    ran, counted.rows = counted.rows, 0
    notes: list[str] = []
    compiled = pellucid.evaluate(
        model,
        images,
        explanation,
        metrics,
        batch_size=16,
        progress=lambda steps=1, note="": notes.append(note),
        precision=precision,
        compile=True,
    )
    assert notes.count("compiling the network") == 1
    assert counted.rows < ran / 2  # the rest ran compiled
    assert plain["value"].notna().all()
    assert (compiled["value"] - plain["value"]).abs().max() < (1e-4 if precision == "float32" else 5e-2)


@pytest.mark.parametrize("pays", [0, None])
def test_maps_from_scores_have_the_same_values(pays: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if pays is not None:
        monkeypatch.setattr(frozen, "_PAYS", pays)
        monkeypatch.setattr(frozen, "pack", lambda *given: False)
    monkeypatch.setattr(nearby, "_SAVED", 0)
    model, images = network(), torch.rand(3, 1, 12, 12)
    counted = Counted(model)
    plain = pellucid.explain(model, images, ["rise", "occlusion"])
    ran, counted.rows = counted.rows, 0
    compiled = pellucid.explain(model, images, ["rise", "occlusion"], compile=True)
    assert counted.rows < ran / 2
    for name, maps in plain.maps.items():
        torch.testing.assert_close(compiled.maps[name], maps, rtol=1e-4, atol=1e-5 * float(maps.abs().max()))


def test_memory_for_the_weights_is_asked_for() -> None:
    model, images = network(), torch.rand(2, 1, 12, 12)
    taken = sum(each.nbytes * (2 if each.ndim > 3 else 1) for each in model.parameters())  # small ones in two layouts
    assert copied_bytes(model, "float32") == taken
    assert copied_bytes(model, "bfloat16") == taken // 2
    large = nn.Sequential(nn.Flatten(), nn.Linear(144, 64), nn.Linear(64, 3))
    copies, explanation = copied_bytes(large, "float32"), pellucid.explain(network(), images, "random")
    assert copies == 4 * (145 * 64 + 65 * 3)
    calls: list[Callable[[int], object]] = [
        lambda most: pellucid.explain(large, images, "rise", max_memory=most, compile=True),
        lambda most: pellucid.evaluate(large, images, explanation, "deletion", max_memory=most, compile=True),
    ]
    wanted = r"at least (\d+) bytes \(0.0 MiB\), which one image takes beside copies of the weights, .* leave comp"
    for call in calls:
        with pytest.raises(InputError, match=wanted) as caught:
            call(10_000)
        least = int(re.search(wanted, str(caught.value))[1])
        assert least > copies
        call(least)
        with pytest.raises(InputError, match=wanted):
            call(least - 1)


@pytest.mark.slow
@pytest.mark.parametrize("has_packed", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "densenet121", "vgg11", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_networks_of_the_field_compile(
    name: str, precision: Any, has_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    monkeypatch.setattr(frozen, "_PAYS", 0)
    if not has_packed:
        monkeypatch.setattr(frozen, "pack", lambda *given: False)

    given = {"img_size": 64} if name.startswith("vit") else {}
    model = seeded(timm.create_model(name, num_classes=3, in_chans=3, **given)).eval()
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with borrowed(model), torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            own = model(images).float()
            counted = Counted(model)
            compiled = Frozen(model, 6)
            compiled.prepare(images)
            counted.rows = 0
            found = compiled(images).float()
    assert counted.rows == 0
    rounding = 0.0 if precision == "float32" else float((own - exact).abs().max())
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max() + 2 * rounding


@pytest.mark.usefixtures("at_once")
def test_volumes_compile() -> None:
    parts = [nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)]
    model, images = seeded(nn.Sequential(*parts)).eval(), torch.rand(3, 1, 6, 7, 8)
    with borrowed(model), torch.no_grad():
        torch.testing.assert_close(Frozen(model, 3)(images), model(images), rtol=1e-5, atol=1e-6)
