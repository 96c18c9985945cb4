"""`evaluate`: the table, what is shared, how the model is treated, and what is refused."""

from __future__ import annotations

import dataclasses
import gc
import math
import warnings
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution import explain, memory
from pellucid.attribution.explanation import Explanation
from pellucid.attribution.memory import most_held
from pellucid.errors import InputError, UnknownNameError
from pellucid.metrics import METRICS, metric
from pellucid.metrics.again import Explained
from pellucid.metrics.block import Block
from pellucid.metrics.evaluate import (
    EmptyMaskWarning,
    MissingValuesWarning,
    NondeterministicWarning,
    UnmovedScoreWarning,
    evaluate,
)
from pellucid.metrics.network import Network
from pellucid.metrics.road import road_curves
from pellucid.metrics.scores import Scores
from pellucid.metrics.truth import Truth


def network(classes: int = 3, channels: int = 2, axes: int = 2) -> nn.Module:
    """A small network with batch normalisation and dropout, left in training mode."""
    convolution, norm, pool = {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d),
    }[axes]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            convolution(channels, 6, 3),
            norm(6),
            nn.ReLU(),
            pool(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(6 * 2**axes, classes),
        )


class Counting(nn.Module):
    """Says how many rows it was shown, batch by batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        outputs: Tensor = self.inner(images)
        return outputs


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def explanation_of(images: Tensor, methods: int = 2, classes: int = 3) -> Explanation:
    count, size = len(images), images.shape[2:]
    return Explanation(
        maps={f"method-{place}": drawn(count, *size, seed=place + 1).relu() for place in range(methods)},
        target=torch.arange(count) % classes,
        score=torch.zeros(count),
        probability=torch.zeros(count),
        layer="layer",
        grid=tuple(size),
        seconds={},
    )


def value(table: pd.DataFrame, sample: int, method: str, name: str) -> float:
    row = table[(table["sample"] == sample) & (table["method"] == method) & (table["metric"] == name)]
    assert len(row) == 1
    return float(row["value"].iloc[0])


def central_masks(count: int, size: int = 14) -> Tensor:
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    masks[:, 4:9, 4:9] = True
    return masks


def test_the_table_has_a_row_per_image_method_and_metric() -> None:
    images = drawn(3, 2, 14, 14)
    table = evaluate(network(), images, explanation_of(images), masks=central_masks(3))
    assert list(table.columns) == ["sample", "method", "metric", "value", "reason"]
    assert len(table) == 3 * 2 * 3
    assert table["sample"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert table["metric"].tolist()[:3] == ["road", "pointing-game", "energy-pointing"]
    assert table["value"].dtype == "float64"
    assert not table["value"].isna().any()
    assert (table["reason"] == "").all()


@pytest.mark.parametrize("axes", [2, 3])
def test_road_is_that_of_the_softmax_of_the_explained_class(axes: int) -> None:
    images = drawn(2, 2, *(7,) * axes)
    model, explanation = network(axes=axes), explanation_of(images)
    table = evaluate(model, images, explanation, metrics=["road", "road-morf", "road-lerf"])
    model.eval()

    @torch.no_grad()
    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        probabilities: Tensor = model(rows).softmax(dim=1)
        return probabilities[torch.arange(len(rows)), explanation.target[sample]]

    for method, maps in explanation.maps.items():
        curves = road_curves(Scores(score_of, images), maps)
        for sample in range(2):
            morf, lerf = (value(table, sample, method, name) for name in ("road-morf", "road-lerf"))
            assert morf == pytest.approx(curves.morf[sample].mean().item(), abs=1e-5)
            assert lerf == pytest.approx(curves.lerf[sample].mean().item(), abs=1e-5)
            assert value(table, sample, method, "road") == pytest.approx((lerf - morf) / 2, abs=1e-6)
            assert value(table, sample, method, "road") == pytest.approx(
                ((curves.lerf - curves.morf) / 2).mean(dim=1)[sample].item(), abs=1e-5
            )


def test_a_single_logit_is_two_classes_by_the_sigmoid() -> None:
    images = drawn(2, 2, 14, 14)
    explanation = explanation_of(images, methods=1, classes=2)
    model = network(classes=1)
    table = evaluate(model, images, explanation, metrics="road-morf")
    flipped = dataclasses.replace(explanation, target=1 - explanation.target)
    other = evaluate(model, images, flipped, metrics="road-morf")
    torch.testing.assert_close(torch.tensor((table["value"] + other["value"]).to_numpy()), torch.ones(2).double())
    assert table["value"].between(0, 1).all()


def test_multi_label_takes_the_sigmoid_of_each_logit() -> None:
    images, model = drawn(2, 2, 14, 14), network()
    explanation = explanation_of(images, methods=1)
    zero = metric("road-morf", fractions=(0.0,))
    by_label = evaluate(model, images, explanation, metrics=[zero], multi_label=True)["value"]
    softmax = evaluate(model, images, explanation, metrics=[zero])["value"]
    with torch.no_grad():
        logits = model.eval()(images)[torch.arange(2), explanation.target]
    torch.testing.assert_close(torch.tensor(by_label.to_numpy()), logits.sigmoid().double(), rtol=0, atol=1e-6)
    assert not torch.allclose(torch.tensor(softmax.to_numpy()), logits.sigmoid().double())


def test_all_road_metrics_share_one_pass_and_equal_maps_too() -> None:
    images = drawn(2, 2, 14, 14)
    explanation = explanation_of(images, methods=1)
    counting = Counting(network())

    def rows(*metrics: object, maps: int = 1) -> int:
        counting.batches.clear()
        same = {f"copy-{place}": (place + 1) * explanation.maps["method-0"] for place in range(maps)}
        evaluate(counting, images, dataclasses.replace(explanation, maps=same), metrics=metrics)
        return sum(counting.batches)

    once_more = 3  # both, to see whether the model repeats itself, and one for whether it takes channels last
    assert rows("road") == 2 * 19 + once_more
    assert rows("road", "road-morf", "road-lerf") == 2 * 19 + once_more
    assert rows("road", maps=3) == 2 * 19 + once_more
    assert rows("road", metric("road", noise=0.0)) == 2 * (19 + 18) + once_more
    with pytest.warns(MissingValuesWarning, match="2 of 2 values are missing: pointing-game: 2, since no masks"):
        assert rows("pointing-game") == 0


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_changes_values_by_rounding_alone(batch_size: int) -> None:
    images = drawn(3, 2, 14, 14)
    counting, explanation = Counting(network()), explanation_of(images)
    usual = evaluate(network(), images, explanation, metrics=["road", "road-lerf"])
    table = evaluate(counting, images, explanation, metrics=["road", "road-lerf"], batch_size=batch_size)
    assert max(counting.batches) <= batch_size
    assert (table["value"] - usual["value"]).abs().max() < 1e-5
    assert table.drop(columns="value").equals(usual.drop(columns="value"))


def test_an_image_scores_the_same_whatever_comes_after_it() -> None:
    images = drawn(8, 2, 9, 9)
    explanation = explanation_of(images)
    whole = evaluate(network(), images, explanation, metrics="road")
    few = dataclasses.replace(
        explanation,
        maps={name: maps[:3] for name, maps in explanation.maps.items()},
        target=explanation.target[:3],
    )
    part = evaluate(network(), images[:3], few, metrics="road")
    assert (whole[whole["sample"] < 3]["value"] - part["value"]).abs().max() < 1e-5


def test_how_many_images_run_at_once_changes_values_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images = drawn(20, 2, 9, 9)
    explanation = explanation_of(images)
    whole = evaluate(network(), images, explanation, metrics="road")
    monkeypatch.setattr("pellucid.metrics.evaluate._BLOCK_BYTES", 7 * 4 * 9 * 9 * 4)  # seven images at once
    parts = evaluate(network(), images, explanation, metrics="road")
    assert (whole["value"] - parts["value"]).abs().max() < 1e-5
    assert whole["sample"].max() == 19


def test_seeds_repeat_and_none_means_0() -> None:
    images = drawn(2, 2, 14, 14)
    explanation = explanation_of(images)
    default = evaluate(network(), images, explanation, metrics="road")
    seeded = evaluate(network(), images, explanation, metrics="road", generator=torch.Generator().manual_seed(0))
    other = evaluate(network(), images, explanation, metrics="road", generator=torch.Generator().manual_seed(1))
    assert default.equals(seeded)
    assert not default.equals(other)


def test_options_make_a_metric_of_their_own() -> None:
    images = drawn(1, 2, 14, 14)
    table = evaluate(
        network(), images, explanation_of(images), metrics=["road", metric("road", noise=0.0, fractions=(0.5,))]
    )
    assert table["metric"].unique().tolist() == ["road", "road[fractions=(0.5,),noise=0.0]"]
    assert table["value"].nunique() == 4


def test_an_empty_mask_is_missing_and_counted() -> None:
    images, masks = drawn(4, 2, 14, 14), central_masks(4)
    masks[1] = masks[3] = False
    names = ["pointing-game", "energy-pointing"]
    message = "2 of 4 masks are empty, without a value of pointing-game and energy-pointing"
    with pytest.warns(EmptyMaskWarning, match=message):
        table = evaluate(network(), images, explanation_of(images), metrics=names, masks=masks)
    assert table[table["sample"].isin([1, 3])]["value"].isna().all()
    assert not table[table["sample"].isin([0, 2])]["value"].isna().any()


def test_without_masks_what_needs_them_is_missing() -> None:
    images = drawn(2, 2, 14, 14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = evaluate(network(), images, explanation_of(images))
    missing = table.set_index("metric")["value"].isna()
    assert missing[["pointing-game", "energy-pointing"]].all()
    assert not missing["road"].any()


def test_a_map_without_evidence_is_missing_where_it_must_be() -> None:
    images = drawn(1, 2, 14, 14)
    explanation = dataclasses.replace(explanation_of(images), maps={"empty": torch.zeros(1, 14, 14)})
    with pytest.warns(MissingValuesWarning, match="1 of 3 .* energy-pointing: 1, since the map has no positive value"):
        table = evaluate(network(), images, explanation, masks=central_masks(1))
    assert math.isnan(value(table, 0, "empty", "energy-pointing"))
    assert value(table, 0, "empty", "pointing-game") == pytest.approx(25 / 196)  # what a blind guess gets
    assert value(table, 0, "empty", "road") == 0.0


class Failing(nn.Module):
    """Breaks at its third batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        outputs: Tensor = self.inner(images)
        return outputs


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_given_back_as_it_was(fails: bool) -> None:
    inner = network()
    inner[1].eval()  # one part in evaluation mode
    inner[0].weight.requires_grad_(False)
    model = Failing(inner) if fails else Counting(inner)
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = drawn(2, 2, 14, 14)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, images, explanation_of(images), metrics="road", batch_size=4)
    else:
        evaluate(model, images, explanation_of(images), metrics="road", batch_size=4)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_images_and_maps_are_left_alone() -> None:
    images = drawn(2, 2, 14, 14)
    explanation = explanation_of(images)
    before = images.clone(), {name: maps.clone() for name, maps in explanation.maps.items()}
    evaluate(network(), images, explanation, metrics="road")
    assert torch.equal(images, before[0])
    assert all(torch.equal(maps, before[1][name]) for name, maps in explanation.maps.items())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode: type[torch.no_grad]) -> None:
    plain = evaluate(network(), drawn(1, 2, 14, 14), explanation_of(drawn(1, 2, 14, 14)), metrics="road")
    model = network()
    with mode():
        images = drawn(1, 2, 14, 14)
        table = evaluate(model, images, explanation_of(images), metrics="road")
    assert table.equals(plain)


@pytest.mark.gpu
def test_a_network_on_a_gpu_scores_as_on_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    images, masks = drawn(3, 2, 14, 14), central_masks(3)
    explanation = explanation_of(images)
    here = evaluate(network(), images, explanation, masks=masks)
    there = evaluate(network().cuda(), images, explanation, masks=masks)
    assert there.drop(columns="value").equals(here.drop(columns="value"))
    assert (there["value"] - here["value"]).abs().max() < 1e-3


def test_progress_names_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, str]] = []

    def hear(count: int = 1, note: str = "") -> None:
        steps.append((count, note))

    monkeypatch.setattr("pellucid.metrics.evaluate._BLOCK_BYTES", 5 * 4 * 9 * 9 * 4)
    images = drawn(20, 2, 9, 9)
    evaluate(network(), images, explanation_of(images), metrics=["road", metric("road", noise=0.0)], progress=hear)
    assert sum(count for count, _ in steps) == 80
    assert len(steps) == 16
    assert steps[0] == (5, "road of method-0")


@pytest.mark.skipif(memory._TRIM is None, reason="the C library gives memory back by itself, or can't")
def test_freed_memory_goes_back_to_the_system_after_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    held: list[weakref.ref[Block]] = []

    class Noted(Block):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            held.append(weakref.ref(self))

    monkeypatch.setattr(memory, "_TRIM", lambda _: given_back.append(sum(each() is not None for each in held)))
    monkeypatch.setattr("pellucid.metrics.evaluate.Block", Noted)
    monkeypatch.setattr("pellucid.metrics.evaluate._BLOCK_BYTES", 5 * 4 * 9 * 9 * 4)
    images = drawn(20, 2, 9, 9)
    evaluate(network(), images, explanation_of(images), metrics=["road"])
    assert given_back == [0] * 4  # nothing of a block is there any more


@pytest.mark.skipif(memory._TRIM is None, reason="the C library gives memory back by itself, or can't")
def test_pieces_go_back_between_blocks_where_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def trim(_: int) -> None:
        nonlocal calls
        calls += 1

    monkeypatch.setattr(memory, "_TRIM", trim)
    images = drawn(4, 2, 9, 9)
    choices = [metric("pixel-flipping", features_in_step=1)]
    for most, least_calls in ((None, 1), (2**30, 2)):
        calls = 0
        evaluate(network(), images, explanation_of(images), metrics=choices, max_memory=most)
        assert calls == least_calls  # after the block, and before the network first runs
    resident = iter(range(2**40, 2**50, 2**20))
    monkeypatch.setattr(memory, "_taken", lambda: next(resident))  # as if each look found a mebibyte more
    calls = 0
    evaluate(network(), images, explanation_of(images), metrics=choices, max_memory=2**21)
    assert calls > 4


def test_a_map_that_is_not_finite_is_missing_and_disturbs_no_other() -> None:
    images, masks = drawn(3, 2, 14, 14), central_masks(3)
    explanation = explanation_of(images)
    whole = evaluate(network(), images, explanation, masks=masks)
    explanation.maps["method-1"][1, 3, 3] = torch.nan
    with pytest.warns(MissingValuesWarning, match="3 of 18 .* road: 1, since the map isn't finite"):
        table = evaluate(network(), images, explanation, masks=masks)
    missing = (table["sample"] == 1) & (table["method"] == "method-1")
    assert table[missing]["value"].isna().all()
    assert (table[missing]["reason"] == "the map isn't finite").all()
    assert (table[~missing]["value"] - whole[~missing]["value"]).abs().max() < 1e-6


class Noisy(nn.Module):
    """Gives bright images another score each time."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.inner(images)
        return outputs + torch.rand(1) * (images.mean((1, 2, 3)) > 0).unsqueeze(1)


@pytest.mark.parametrize("noisy", [0, 1])
def test_a_model_that_does_not_repeat_itself_is_told_of(noisy: int) -> None:
    images = -drawn(2, 2, 14, 14).abs()
    images[noisy] *= -1  # the one that chance doesn't spare
    with pytest.warns(NondeterministicWarning, match="differs by .* from one time to the next"):
        evaluate(Noisy(network()), images, explanation_of(images), metrics="road")


def test_values_are_kept_and_taken_again_for_the_same_input_alone(tmp_path: Path) -> None:
    images, masks = drawn(4, 2, 9, 9), torch.zeros(4, 9, 9, dtype=torch.bool)
    masks[:, 2:5, 2:5] = True
    explanation, counting = explanation_of(images), Counting(network())
    names = ["road", "energy-pointing"]

    def run(**changes: object) -> tuple[pd.DataFrame, int]:
        counting.batches.clear()
        given: dict[str, object] = {"model": counting, "images": images, "explanation": explanation, "masks": masks}
        table = evaluate(**(given | changes), metrics=names, keep=tmp_path / "values")
        return table, sum(counting.batches)

    first, asked = run()
    again, nothing = run()
    assert asked == 4 * (1 + 2 * 18) + 4 + 1
    assert nothing == 0
    pd.testing.assert_frame_equal(first, again)
    changed = images.clone()
    changed[2] += 1
    table, some = run(images=changed)
    assert some == asked  # a block is computed whole
    assert table["value"][table["sample"] != 2].equals(first["value"][first["sample"] != 2])
    assert run(generator=torch.Generator().manual_seed(5))[1] == asked
    counting.inner[6].bias.data += 1
    assert run()[1] == asked


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.metrics.evaluate._BLOCK_BYTES", 2 * 4 * 9 * 9 * 4)  # two images at once
    images = drawn(6, 2, 9, 9)
    explanation = explanation_of(images)
    plain = evaluate(network(), images, explanation, metrics=["road"])
    model = Failing(network())

    def calls(keep: Path | None, before: int = 10_000) -> int:
        """How often the network ran, which fails after `before` times."""
        model.calls = 2 - before
        table = evaluate(model, images, explanation, metrics=["road"], keep=keep, batch_size=64)
        pd.testing.assert_frame_equal(table, plain)
        return model.calls - 2 + before

    whole = calls(None)
    with pytest.raises(KeyboardInterrupt):
        calls(tmp_path, before=whole // 2)
    assert calls(tmp_path) <= whole * 2 / 3 + 1  # two images of six were done
    assert calls(tmp_path) == 0


def test_controls_are_scored_beside() -> None:
    images, model = drawn(2, 2, 14, 14), network()
    explanation = explain(model, images, methods=["layer-cam", "random"], layer="2")
    table = evaluate(model, images, explanation, "road", controls=("random", "sobel"))
    assert table["method"].unique().tolist() == ["layer-cam", "random", "sobel"]
    alone = evaluate(model, images, explanation, "road")
    assert table[table["method"] != "sobel"]["value"].tolist() == pytest.approx(alone["value"].tolist(), abs=1e-6)
    with pytest.raises(InputError, match="controls: expected some of random, .*, got layer-cam"):
        evaluate(model, images, explanation, "road", controls=("layer-cam",))


class Constant(nn.Module):
    """Says the same of every image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.new_tensor([[1.0, 2.0, 0.5]]).expand(len(images), 3)


def test_a_score_that_never_changes_is_told_of() -> None:
    images = drawn(2, 2, 14, 14)
    explanation = explanation_of(images)
    names = ["road", "deletion", "faithfulness-correlation", "monotonicity", "mu-fidelity"]
    with (
        pytest.warns(MissingValuesWarning, match="since the score doesn't change, whatever is removed"),
        pytest.warns(UnmovedScoreWarning, match="the score of 2 of 2 images doesn't change, whatever is removed"),
    ):
        table = evaluate(Constant(), images, explanation, names)
    table = table.set_index("metric")
    assert (table.loc["road", "value"] == 0).all()
    # the area under a flat curve is the probability of the class
    odds = torch.tensor([1.0, 2.0, 0.5]).softmax(dim=0)[explanation.target].repeat_interleave(2)
    assert table.loc["deletion", "value"].tolist() == pytest.approx(odds.tolist(), abs=1e-6)
    for name in names[2:]:
        assert table.loc[name, "value"].isna().all()
        assert (table.loc[name, "reason"] == "the score doesn't change, whatever is removed").all()


def test_masks_with_labels() -> None:
    images, masks = drawn(2, 2, 14, 14), central_masks(2).long()
    explanation = explanation_of(images)
    by_bool = evaluate(network(), images, explanation, ["energy-pointing"], masks.bool())
    assert evaluate(network(), images, explanation, ["energy-pointing"], masks).equals(by_bool)
    masks[0, :3] = 3
    with pytest.raises(InputError, match=r"masks: expected labels 0, 1, got 0, 1, 3. Pass Truth\(masks, labels="):
        evaluate(network(), images, explanation, ["energy-pointing"], masks)
    chosen = evaluate(network(), images, explanation, ["energy-pointing"], Truth(masks, labels=(1, 3)))
    assert not chosen.equals(by_bool)


def test_a_bare_function_is_evaluated_too() -> None:
    images, model = drawn(2, 2, 14, 14), network().eval()
    explanation = explanation_of(images)
    with torch.no_grad():
        table = evaluate(lambda rows: model(rows).numpy(), images, explanation, "road")
    assert (table["value"] - evaluate(model, images, explanation, "road")["value"]).abs().max() < 1e-6


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    images, explanation = drawn(3, 2, 14, 14), explanation_of(drawn(3, 2, 14, 14))
    counting = Counting(network())
    usual = evaluate(counting, images, explanation, "road")
    assert max(counting.batches) == 32
    counting.batches.clear()
    few = evaluate(counting, images, explanation, "road", max_memory=80_000)
    assert max(counting.batches) < 10
    assert (usual["value"] - few["value"]).abs().max() < 1e-5
    with pytest.raises(InputError, match="max_memory: expected at least .* which one image takes, got 100") as caught:
        evaluate(counting, images, explanation, "road", max_memory=100)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert len(evaluate(counting, images, explanation, "road", max_memory=least)) == len(few)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_copies_of_weights_are_within_the_bound(precision: Any) -> None:
    wide = nn.Sequential(nn.Conv2d(2, 64, 3), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(wide, nn.Flatten(), nn.Linear(256, 2000), nn.ReLU(), nn.Linear(2000, 3)).eval()
    images = drawn(12, 2, 14, 14)
    explanation = explanation_of(images)
    copied = sum(each.nbytes for each in model.parameters()) // 2 if precision == "bfloat16" else 0
    run = partial(evaluate, model, images, explanation, ["road", "deletion"], precision=precision)
    table = run()
    tables = []
    for bound in (4 << 20, 8 << 20):
        taken = most_held(lambda bound=bound: tables.append(run(max_memory=bound)))
        assert copied < taken <= bound
        assert (tables[-1]["value"] - table["value"]).abs().max() < 1e-2
    if precision == "float32":
        run(max_memory=1 << 20)  # where bfloat16 can't
        return
    with pytest.raises(InputError, match=r"max_memory: expected at least \d+ bytes") as caught:
        run(max_memory=1 << 20)
    assert int(str(caught.value).split("at least ")[1].split()[0]) > copied


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore::pellucid.metrics.evaluate.MissingValuesWarning")
def test_nothing_waits_for_the_garbage_collector(precision: Any) -> None:
    images, model = drawn(2, 2, 14, 14), network()
    explanation = explain(model, images, methods=["grad-cam", "random"], layer="2", precision=precision)
    gc.collect()
    gc.disable()
    try:
        evaluate(model, images, explanation, METRICS.names(), central_masks(2), precision=precision)
        held = [each for each in map(type, gc.get_objects()) if each in (Block, Scores, Network, Explained)]
    finally:
        gc.enable()
    assert held == []


def test_runs_on_what_explain_gives() -> None:
    images, model = drawn(2, 2, 14, 14), network()
    explanation = explain(model, images, methods=["grad-cam", "layer-cam", "random"], layer="2")
    table = evaluate(model, images, explanation, metrics=["road"])
    assert table["method"].unique().tolist() == ["grad-cam", "layer-cam", "random"]
    assert table["value"].between(-0.5, 0.5).all()


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"maps": {}}, {}, "explanation: expected at least one map"),
        (
            {"maps": {"a": torch.zeros(2, 7, 7)}},
            {},
            r"explanation: expected maps \(2, 14, 14\), got \(2, 7, 7\) for 'a'",
        ),
        ({"maps": {"a": torch.zeros(2, 3, 14, 14)}}, {}, "Evaluate one class's maps at a time"),
        ({}, {"images": torch.full((2, 2, 14, 14), torch.nan)}, "images: expected finite values, .* in image 0"),
        ({"target": torch.tensor([0, -1])}, {}, "explanation: expected one class per image"),
        ({"target": torch.zeros(2, 3).long()}, {}, "explanation: expected one class per image"),
        ({"target": torch.tensor([0, 3])}, {}, "classes from 0 to 2, as the model has, got 3"),
        ({}, {"masks": torch.zeros(2, 14, 14)}, "masks: expected a bool tensor"),
        ({}, {"masks": torch.zeros(1, 14, 14, dtype=torch.bool)}, "masks: expected a bool tensor"),
        ({}, {"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({}, {"metrics": []}, "metrics: expected at least one, each once, got none"),
        ({}, {"metrics": ["road", "road"]}, "metrics: expected at least one, each once, got road, road"),
        ({}, {"images": drawn(2, 5, 14, 14)}, "images: expected 2 channels"),
        ({}, {"images": drawn(0, 2, 14, 14)}, "images: expected a tensor"),
        ({}, {"images": [1, 2]}, "images: expected a tensor .* got list"),
    ],
)
def test_bad_input_is_named(changes: dict[str, object], arguments: dict[str, object], message: str) -> None:
    images = drawn(2, 2, 14, 14)
    explanation = dataclasses.replace(explanation_of(images), **changes)
    with pytest.raises(InputError, match=message):
        evaluate(**({"model": network(), "images": images, "explanation": explanation} | arguments))


def test_an_unknown_metric_names_the_nearest() -> None:
    images = drawn(1, 2, 14, 14)
    with pytest.raises(UnknownNameError, match="unknown metric 'raod'. Did you mean 'road'"):
        evaluate(network(), images, explanation_of(images), metrics="raod")


def test_lower_precision_runs_the_network_in_it_and_moves_scores_little() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    seen: list[torch.dtype] = []
    model[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    images = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    whole, half = (
        evaluate(
            model,
            images,
            explain(model, images, ["layer-cam", "saliency"], precision=precision),
            ["road", "avg-sensitivity"],
            precision=precision,
        )
        for precision in ("float32", "bfloat16")
    )
    assert torch.bfloat16 in seen
    assert half["value"].notna().all()  # maps are made again in the precision in which they were made
    road = whole["metric"] == "road"
    difference = (whole["value"] - half["value"])[road].abs()
    assert 0 < difference.max() < 0.01
    with pytest.raises(InputError, match="precision: expected 'float32' or 'bfloat16', got 'float16'"):
        evaluate(model, images, explain(model, images, "sobel"), "road", precision="float16")
