from __future__ import annotations

import contextlib
import threading
import time

import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution.borrow import borrowed
from pellucid.errors import InputError
from references.cam_networks import affine_net, seeded


class Counting(nn.Module):
    """Writes to a buffer in every forward, whatever the mode, and puts another in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))
        self.register_buffer("nothing", None)

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        self.last = values.detach().clone()
        return values


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_given_back(fails: bool) -> None:
    model = nn.Sequential(affine_net(), Counting())
    model.train()
    model[0][1].eval()  # modes differ between modules
    model[0][0].weight.requires_grad_(False)
    model[0][5].weight.grad = torch.ones_like(model[0][5].weight)
    modes = [module.training for module in model.modules()]
    learning = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    held = model[1].last
    with pytest.raises(RuntimeError, match="inside") if fails else contextlib.nullcontext(), borrowed(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model(torch.rand(2, 1, 8, 8))
        assert model[1].calls == 1
        if fails:
            raise RuntimeError("inside")
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == learning
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model[1].last is held
    assert torch.equal(model[0][5].weight.grad, torch.ones_like(model[0][5].weight))
    assert model[0][5].bias.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_can_be_taken_whatever_the_caller_does(mode: type) -> None:
    model = affine_net()
    with mode(), borrowed(model):
        value = torch.ones(2, requires_grad=True)
        (value**2).sum().backward()
        assert torch.equal(value.grad, torch.full((2,), 2.0))
        assert not torch.is_inference_mode_enabled()
    with mode():
        before = torch.is_grad_enabled()
        with borrowed(model):
            pass
        assert torch.is_grad_enabled() == before


def test_weights_made_in_inference_mode_are_refused_by_name() -> None:
    with torch.inference_mode():
        model = affine_net()
    with (
        pytest.raises(InputError, match=r"model: expected weights that gradients can pass, got '0\.weight'"),
        borrowed(model),
    ):
        pass


def test_threads_take_turns_and_a_thread_may_borrow_again() -> None:
    model, inside, together = seeded(affine_net()), [0], [0]

    def borrow() -> None:
        with borrowed(model), borrowed(model):
            inside[0] += 1
            together[0] = max(together[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    threads = [threading.Thread(target=borrow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_models_are_let_go() -> None:
    import gc
    import weakref

    model = affine_net()
    with borrowed(model):
        pass
    left = weakref.ref(model)
    del model
    gc.collect()
    assert left() is None
