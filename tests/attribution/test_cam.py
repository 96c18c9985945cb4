"""Every CAM against its paper in plain loops, on cases with a known answer, in 2-D and 3-D."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.attribution import METHODS
from pellucid.attribution.cam import (
    ablation_cam,
    eigen_grad_cam,
    finer_cam,
    grad_cam,
    grad_cam_plus_plus,
    layer_cam,
    xgrad_cam,
)
from pellucid.errors import InputError
from references import cam as reference

GRIDS = [(4, 5), (3, 2, 4)]
CAMS = METHODS.names("cam")
ALL_CAMS = (*CAMS, *METHODS.names("rescoring-cam"))


def drawn(grid: tuple[int, ...], seed: int = 0, images: int = 3, channels: int = 6) -> dict[str, Tensor]:
    """Non-negative activations with zeros in them, gradients and drops of both signs, in float64."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "activations": torch.randn(images, channels, *grid, generator=draw, dtype=torch.float64).relu(),
        "gradients": torch.randn(images, channels, *grid, generator=draw, dtype=torch.float64),
        "scores": torch.randn(images, generator=draw, dtype=torch.float64),
        "drops": torch.randn(images, channels, generator=draw, dtype=torch.float64),
        "curvature": torch.randn(images, channels, *grid, generator=draw, dtype=torch.float64),
        "masked scores": torch.randn(images, channels, generator=draw, dtype=torch.float64),
        "relevance": torch.randn(images, channels, *grid, generator=draw, dtype=torch.float64),
        "rival gradients": torch.randn(images, 3, channels, *grid, generator=draw, dtype=torch.float64),
    }


def applied(name: str, given: dict[str, Tensor], **options: object) -> Tensor:
    entry = METHODS[name]
    return entry.function(*(given[need] for need in entry.needs), **options)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ALL_CAMS)
def test_equals_the_paper(name: str, grid: tuple[int, ...]) -> None:
    given = drawn(grid)
    slow = getattr(reference, name.replace("-", "_"))(*(given[need].numpy() for need in METHODS[name].needs))
    assert slow.max() > 0
    np.testing.assert_allclose(applied(name, given).numpy(), slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL_CAMS)
def test_float32_equals_float64_to_rounding(name: str) -> None:
    given = drawn((7, 7), channels=32)
    exact = applied(name, given)
    single = applied(name, {key: value.float() for key, value in given.items()})
    assert single.dtype == torch.float32
    assert (single - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ALL_CAMS)
def test_an_image_alone_is_the_image_in_a_batch(name: str, grid: tuple[int, ...]) -> None:
    given = drawn(grid, images=7)
    alone = applied(name, {key: value[4:5] for key, value in given.items()})
    torch.testing.assert_close(alone[0], applied(name, given)[4], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL_CAMS)
def test_the_signed_map_cut_at_zero_is_the_map(name: str) -> None:
    given = drawn((4, 5))
    given["activations"] -= 0.6  # so that every method has something to cut
    signed = applied(name, given, positive=False)
    assert signed.min() < 0 < signed.max()
    torch.testing.assert_close(signed.relu(), applied(name, given))


@pytest.mark.parametrize("name", ALL_CAMS)
def test_no_evidence_stays_zero(name: str) -> None:
    given = drawn((4, 5))
    none = {key: torch.zeros_like(value) for key, value in given.items()}
    assert not applied(name, given | {"activations": none["activations"]}).any()
    evidence = {"gradients", "curvature", "drops", "relevance", "rival gradients"} & set(METHODS[name].needs)
    if evidence:
        assert not applied(name, given | {key: none[key] for key in evidence}).any()


@pytest.mark.parametrize("name", CAMS)
def test_inputs_are_left_as_they_were(name: str) -> None:
    given, before = drawn((4, 5)), drawn((4, 5))
    applied(name, given)
    assert all(torch.equal(given[key], before[key]) for key in given)


def test_constant_gradients_make_grad_cam_and_xgrad_cam_one_map() -> None:
    given = drawn((4, 5))
    slopes = given["gradients"][:, :, :1, :1].expand(-1, -1, 4, 5)
    torch.testing.assert_close(grad_cam(given["activations"], slopes), xgrad_cam(given["activations"], slopes))


def test_xgrad_cam_gives_no_weight_to_activations_that_cancel() -> None:
    activations = torch.tensor([[[[0.1, 0.7, -0.8]], [[1.0, 2.0, 3.0]]]], dtype=torch.float64)
    assert activations[0, 0].sum() != 0  # cancels to rounding only
    gradients = torch.tensor([[[[1.0, 2.0, 3.0]], [[1.0, 1.0, 1.0]]]], dtype=torch.float64)
    torch.testing.assert_close(xgrad_cam(activations, gradients), activations[:, 1])


def test_grad_cam_plus_plus_has_no_epsilon_at_the_scale_of_trained_gradients() -> None:
    given = drawn((7, 7))
    slopes = given["gradients"] * 1e-4
    ours = grad_cam_plus_plus(given["activations"], slopes).numpy()
    paper = reference.grad_cam_plus_plus(given["activations"].numpy(), slopes.numpy())
    shrunk = reference.grad_cam_plus_plus(given["activations"].numpy(), slopes.numpy(), epsilon=1e-6)
    np.testing.assert_allclose(ours, paper, rtol=1e-9)
    assert np.abs(shrunk - paper).max() > 0.5 * paper.max()


def test_grad_cam_plus_plus_survives_a_denominator_of_zero() -> None:
    activations = torch.tensor([[[[-2.0, 0.0]], [[1.0, 1.0]]]])  # 2 + G Σ A = 0 at the first channel's first position
    gradients = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])
    torch.testing.assert_close(grad_cam_plus_plus(activations, gradients), torch.tensor([[[0.25, 0.25]]]))


def test_layer_cam_is_blind_to_negative_gradients() -> None:
    given = drawn((4, 5))
    torch.testing.assert_close(
        layer_cam(given["activations"], given["gradients"]), layer_cam(given["activations"], given["gradients"].relu())
    )


@pytest.mark.parametrize("shape", [(2, 3), (9, 8)])  # fewer positions than channels, and more
def test_eigen_grad_cam_equals_the_full_decomposition(shape: tuple[int, int]) -> None:
    given = drawn(shape, channels=20)
    for centred in (True, False):
        ours = eigen_grad_cam(given["activations"], given["gradients"], centred=centred).numpy()
        slow = reference.eigen_grad_cam(given["activations"].numpy(), given["gradients"].numpy(), centred)
        np.testing.assert_allclose(ours, slow, rtol=1e-7, atol=1e-9)


def test_eigen_grad_cam_lies_where_the_energy_is_whatever_the_sign_of_the_gradients() -> None:
    bump = torch.zeros(1, 1, 5, 5)
    bump[..., 2, 2] = 1
    for sign in (1.0, -1.0):
        saliency = eigen_grad_cam(bump, torch.full_like(bump, sign))
        assert saliency.argmax() == 12
        assert (saliency > 0).sum() == 1


def test_eigen_grad_cam_picks_a_side_where_energy_has_none() -> None:
    activations = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    slopes = torch.tensor([[[[1.0, 1.0], [-1.0, 1.0]]]])
    for side in (slopes, -slopes):
        saliency = eigen_grad_cam(activations, side)
        torch.testing.assert_close(saliency.max(), torch.tensor(1.0))
        assert (saliency > 0.5).sum() == 1


def test_eigen_grad_cam_of_a_flat_layer_is_zero_when_centred() -> None:
    flat = torch.full((1, 3, 4, 4), 0.1)
    slopes = torch.tensor([0.3, -0.7, 1.1]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert not eigen_grad_cam(flat, slopes).any()
    assert eigen_grad_cam(flat, slopes, centred=False).any()


def test_ablation_cam_keeps_its_signs_where_the_score_is_negative() -> None:
    given = drawn((4, 5))
    for sign in (1, -1):
        torch.testing.assert_close(
            ablation_cam(given["activations"], sign * given["scores"].abs(), given["drops"]),
            ablation_cam(given["activations"], given["scores"], given["drops"]),
        )


def test_ablation_cam_by_the_plain_drop_needs_no_score() -> None:
    given = drawn((4, 5))
    plain = ablation_cam(given["activations"], given["scores"], given["drops"], relative=False)
    divided = ablation_cam(given["activations"], given["scores"], given["drops"])
    torch.testing.assert_close(plain, divided * given["scores"].abs().reshape(-1, 1, 1))
    zero = torch.zeros_like(given["scores"])
    torch.testing.assert_close(ablation_cam(given["activations"], zero, given["drops"]), plain)


def test_finer_cam_without_strength_is_grad_cam_and_sees_nothing_that_rivals_share() -> None:
    given = drawn((4, 5))
    activations, slopes, rivals = (given[need] for need in METHODS["finer-cam"].needs)
    torch.testing.assert_close(finer_cam(activations, slopes, rivals, strength=0.0), grad_cam(activations, slopes))
    shared = slopes.unsqueeze(1).expand_as(rivals)
    assert finer_cam(activations, slopes, shared, strength=1.0).max() < 1e-15


def test_finer_cam_takes_the_nearest_of_its_rivals() -> None:
    given = drawn((4, 5))
    activations, slopes, rivals = (given[need] for need in METHODS["finer-cam"].needs)
    for count in (1, 2, 3, 9):
        slow = reference.finer_cam(activations.numpy(), slopes.numpy(), rivals.numpy(), 0.8, count)
        ours = finer_cam(activations, slopes, rivals, strength=0.8, rivals=count).numpy()
        np.testing.assert_allclose(ours, slow, rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="rivals: expected at least 1, got 0"):
        finer_cam(activations, slopes, rivals, rivals=0)
