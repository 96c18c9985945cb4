"""Memory: what a run's tensors take at most, batches that keep within a bound, and what is said when it runs out."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution import explain, memory, method
from pellucid.attribution.memory import Bound, free_bytes, most_held, rows_within
from pellucid.errors import InputError
from references.cam_networks import seeded

FIELD = 8 * 48 * 48 * 4  # bytes of one activation of the network below for one image


def deep(layers: int = 6) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()]
    for _ in range(layers - 1):
        parts += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return seeded(nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)))


def test_what_is_held_at_once_is_counted_to_the_byte() -> None:
    assert most_held(lambda: [torch.zeros(100) for _ in range(3)]) == 3 * 400
    assert most_held(lambda: torch.zeros(100).view(10, 10).mT.relu_()) == 400
    before = torch.zeros(1000)
    assert most_held(lambda: before.add_(1).view(10, 100)) == 0

    def freed() -> None:
        for _ in range(5):
            torch.zeros(100).add(1)

    assert most_held(freed) == 2 * 400


def test_a_graph_holds_what_the_way_back_needs() -> None:
    model, images = deep(), torch.rand(2, 1, 48, 48)
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def forward() -> None:
        with torch.no_grad():
            model(images)

    def backward() -> None:
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(model(leaf).sum(), leaf)

    # two activations at a time; with a graph both of every layer, a convolution's input being the ReLU before it
    assert most_held(forward) == pytest.approx(2 * 2 * FIELD, rel=0.01)
    assert 6 * 2 * FIELD < most_held(backward) < 14 * 2 * FIELD


def test_rows_grow_evenly_with_memory() -> None:
    def run(rows: int) -> Tensor:
        return torch.zeros(50 + 100 * rows)

    assert rows_within(run, 32, 599) == (0, 600, 0)
    assert rows_within(run, 32, 600) == (1, 600, 0)
    assert rows_within(run, 32, 600 + 3 * 400 - 1) == (3, 600, 399)
    assert rows_within(run, 32, 10**9) == (32, 600, 10**9 - 600 - 31 * 400)
    assert rows_within(run, 1, 700) == (1, 600, 100)


@pytest.mark.parametrize(
    "name",
    [
        "grad-cam",
        "saliency",
        method("integrated-gradients", steps=20),
        method("smooth-grad", samples=20),
        method("expected-gradients", samples=20),
        method("rise", samples=40),
        method("occlusion", window=12),
        method("kernel-shap", samples=40, regions=3),
    ],
)
def test_the_bound_holds_whatever_the_number_of_images_and_draws(name: str) -> None:
    model, images = deep(), torch.rand(24, 1, 48, 48)
    bound = 40 * FIELD
    maps = 24 * 48 * 48 * 4 * 6  # what is given back, and what it is summed in

    def run(max_memory: int | None) -> None:
        found.append(explain(model, images, name, layer="11", target=0, max_memory=max_memory))

    found: list[object] = []
    free = most_held(lambda: run(None))
    bounded = most_held(lambda: run(bound))
    assert bounded <= bound + maps
    assert free > bounded
    label = next(iter(found[0].maps))
    torch.testing.assert_close(found[0].maps[label], found[1].maps[label], rtol=1e-4, atol=1e-6)


def test_a_bound_below_one_image_is_refused_with_what_it_takes() -> None:
    with pytest.raises(
        InputError, match=r"max_memory: expected at least \d+ bytes \([\d.]+ MiB\), which one image takes"
    ):
        explain(deep(), torch.rand(2, 1, 48, 48), "saliency", max_memory=1000)
    for wrong in (0, -1, True, 1e9):
        with pytest.raises(InputError, match="max_memory: expected bytes, at least 1"):
            explain(deep(), torch.rand(2, 1, 48, 48), "saliency", max_memory=wrong)


class Full(nn.Module):
    """Runs out of memory above so many images at once, as an accelerator would."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner = deep(2)
        self.most = most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.inner(images)


def test_running_out_of_memory_names_a_batch_size_and_gives_the_model_back() -> None:
    model = Full(3).train()
    with pytest.raises(InputError, match=r"batch_size: expected at most about (\d+) images .* got 8, which") as caught:
        explain(model, torch.rand(8, 1, 16, 16), "saliency", batch_size=8)
    assert "CUDA out of memory" in str(caught.value)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(InputError, match="images: expected images of which one fits into the memory of cpu, got one"):
        explain(Full(0), torch.rand(2, 1, 16, 16), "saliency")
    assert explain(model, torch.rand(8, 1, 16, 16), "saliency", batch_size=3).maps["saliency"].shape == (8, 16, 16)


def test_other_errors_pass() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        explain(Broken(), torch.rand(2, 1, 8, 8), "saliency")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_a_real_shortage_of_memory_is_told_with_a_batch_size_that_then_fits() -> None:
    program = """
        import re, resource, torch
        from torch import nn
        from pellucid.attribution import explain
        from pellucid.errors import InputError

        torch.set_num_threads(1)
        layers = [nn.Conv2d(1, 128, 1), nn.ReLU()]
        for _ in range(4):
            layers += [nn.Conv2d(128, 128, 1), nn.ReLU()]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 2))
        images = torch.rand(64, 1, 64, 64)
        explain(model, images[:1], "saliency")
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 650 * 2**20, resource.RLIM_INFINITY))
        try:
            explain(model, images, "saliency", batch_size=64)
        except InputError as error:
            print(error)
            fits = int(re.search(r"Pass batch_size=(\\d+)", str(error)).group(1))
        print(fits, explain(model, images, "saliency", batch_size=fits).maps["saliency"].shape)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    told, ran = run.stdout.splitlines()
    assert told.startswith("batch_size: expected at most about ")
    assert "memory" in told
    assert 2 <= int(ran.split()[0]) < 64
    assert ran.endswith("torch.Size([64, 64, 64])")


@pytest.mark.skipif(memory._TRIM is None, reason="the C library gives memory back by itself, or can't")
def test_memory_that_stays_in_pieces_goes_back_once_it_is_too_much() -> None:
    bound, free, unbound = Bound(2**25), Bound(2**30), Bound(None)
    for each in (bound, free, unbound):
        each()
    before = memory._taken()
    blocks = [torch.ones(25_000) for _ in range(800)]  # 76 MiB, each below what would be a mapping of its own
    last = blocks.pop()
    blocks.clear()  # what lies before the last stays with the process
    free()
    unbound()
    assert memory._taken() - before > 2**26
    bound()
    assert memory._taken() - before < 2**24
    assert last.sum() == 25_000


@pytest.mark.skipif(memory._TRIM is None, reason="the C library gives memory back by itself, or can't")
def test_what_is_not_in_pieces_is_not_asked_back_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, calls = [1000], []
    monkeypatch.setattr(memory, "_taken", lambda: taken[0])
    monkeypatch.setattr(memory, "_TRIM", lambda _: calls.append(taken[0]))
    bound = Bound(80)
    for taken[0] in (1000, 1080, 1081, 1085, 1091, 1092, 1102, 1103, 1070, 1081):
        bound()
    assert calls == [1000, 1081, 1092, 1103]


def test_free_memory_is_a_number_or_unknown() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**45
    assert free_bytes(torch.device("meta")) is None
