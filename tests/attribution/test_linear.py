from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.attribution.linear import answered, is_linear_like, is_linear_on, quick_forward

MODULES = [
    (nn.Linear(12, 5), (80, 12), True),
    (nn.Linear(12, 5, bias=False), (3, 12), True),
    (nn.Linear(12, 5), (3, 4, 12), False),
    (nn.Conv2d(3, 5, 4), (70, 3, 4, 4), True),
    (nn.Conv2d(3, 5, 4), (70, 3, 5, 4), False),
    (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 3, 3), False),
    (nn.Conv2d(4, 6, 1, groups=2), (2, 4, 1, 1), False),
    (nn.Conv2d(3, 5, 3, padding="same"), (2, 3, 3, 3), False),
    (nn.Conv3d(2, 5, (2, 3, 1), bias=False), (65, 2, 2, 3, 1), True),
]


@pytest.mark.parametrize(("module", "shape", "linear"), MODULES)
@pytest.mark.parametrize("learning", [True, False])
def test_the_quick_forward_gives_the_modules_output(
    module: nn.Module, shape: tuple[int, ...], linear: bool, learning: bool
) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert is_linear_like(module)
    assert is_linear_on(module, features) == linear
    with torch.set_grad_enabled(learning):
        quick, plain = quick_forward(module)(features), module(features)
    assert quick.shape == plain.shape
    assert quick.layout == torch.strided
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-5)


def test_a_subclass_and_a_changed_forward_are_left_alone() -> None:
    class Scaled(nn.Linear):
        pass

    changed = nn.Linear(2, 2)
    changed.forward = lambda features: features  # type: ignore[method-assign]
    assert not is_linear_like(Scaled(2, 2))
    assert not is_linear_like(changed)
    assert not is_linear_like(nn.ReLU())


@pytest.mark.parametrize("fails", [True, False])
def test_answers_last_as_long_as_the_block(fails: bool) -> None:
    plain, changed = nn.ReLU(), nn.ReLU()
    own = changed.forward = lambda features: features + 1  # type: ignore[method-assign]
    value = torch.tensor(-1.0)
    try:
        with answered({plain: lambda features: features * 2, changed: lambda features: features * 3}):
            assert (plain(value), changed(value)) == (-2, -3)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert (plain(value), changed(value)) == (0, 0)
    assert "forward" not in plain.__dict__
    assert changed.forward is own
