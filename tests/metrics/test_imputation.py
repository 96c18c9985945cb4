"""The imputed image against a direct solver, known solutions and the peer."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from pellucid.errors import InputError, PellucidError
from pellucid.metrics.imputation import linear_imputation
from pellucid.metrics.multigrid import fill_batched, neighbour_weights
from pellucid.metrics.multigrid_compiled import fill_compiled
from pellucid.metrics.multigrid_kernels import _compiled
from pellucid.metrics.ranking import removal_orders, removed_mask
from references import road as reference

Floats = NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scattered(shape: tuple[int, ...], share: float, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def smooth_image(channels: int, size: int) -> Tensor:
    coarse = interpolate(drawn(1, channels, 5, 5), size=(size, size), mode="bilinear")[0]
    return coarse + 0.2 * drawn(channels, size, size, seed=1)


def saliency_maps(size: int) -> dict[str, Tensor]:
    """Maps of the shapes that methods give: blobs, blobs on zeros, edges, noise, and a net of single pixels."""
    grid = torch.arange(size)
    blobs = interpolate(drawn(1, 1, 7, 7), size=(size, size), mode="bilinear")[0, 0]
    return {
        "blobs": blobs,
        "blobs-on-zeros": blobs.relu(),
        "grain": avg_pool2d(drawn(1, 1, size + 4, size + 4), 5, 1)[0, 0],
        "noise": drawn(size, size),
        "net": ((grid[:, None] % 9 == 0) & (grid % 9 == 0)).float(),
        "stripes": (grid % 3 == 0).float()[:, None] + torch.zeros(size),
        "centre": -((grid[:, None] - size / 2) ** 2 + (grid - size / 2) ** 2),
    }


def error(filled: Tensor, exact: Floats, image: Tensor) -> float:
    return float(np.abs(filled.double().numpy() - exact).max() / image.abs().max())


@pytest.mark.parametrize(
    "shape", [(9, 11), (16, 16), (1, 12), (12, 1), (2, 2), (1, 2), (5, 4, 6), (3, 1, 7), (2, 2, 2), (17,)]
)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_paper_by_a_dense_solver(shape: tuple[int, ...], share: float, channels: int) -> None:
    image, removed = drawn(channels, *shape), scattered(shape, share)
    removed.view(-1)[0] = False
    exact = reference.imputed(image.double().numpy(), removed.numpy())
    assert error(linear_imputation(image[None], removed[None])[0], exact, image) < 1e-4
    double = linear_imputation(image[None].double(), removed[None])[0]
    assert double.dtype == torch.float64
    assert error(double, exact, image) < 1e-4


@pytest.mark.parametrize("kind", saliency_maps(8))
def test_equals_a_direct_solver_at_each_fraction(kind: str) -> None:
    size = 96
    image = smooth_image(3, size)
    orders = torch.cat(removal_orders(saliency_maps(size)[kind][None], torch.tensor([0])))
    masks = torch.stack(
        [removed_mask(order, round(share * size**2), (size, size)) for order in orders for share in (0.1, 0.5, 0.9)]
    )
    images = image.expand(len(masks), -1, -1, -1)
    compiled = linear_imputation(images, masks)
    batched, _ = fill_batched(images, masks, tolerance=1e-5, most=60)
    for row, mask in enumerate(masks):
        exact = reference.imputed_sparse(image.double().numpy(), mask.numpy())
        assert error(compiled[row], exact, image) < 1e-4
        assert error(batched[row], exact, image) < 1e-4


@pytest.mark.parametrize("shape", [(30, 40), (8, 9, 10)])
def test_a_hole_in_a_ramp_is_filled_by_the_ramp(shape: tuple[int, ...]) -> None:
    axes = torch.meshgrid(*(torch.arange(float(length)) for length in shape), indexing="ij")
    ramp = sum((place + 1) * axis for place, axis in enumerate(axes))
    removed = torch.zeros(shape, dtype=torch.bool)
    removed[(slice(2, -2),) * len(shape)] = True
    filled = linear_imputation(ramp[None, None], removed[None])[0, 0]
    assert (filled - ramp).abs().max() < 1e-4 * ramp.max()


def test_the_weights_are_those_of_the_paper_and_their_3d_rule() -> None:
    flat, deep = neighbour_weights(2), neighbour_weights(3)
    assert 4 * flat[0] + 4 * flat[1] == 12
    assert [weight / 12 for weight in flat] == [1 / 6, 1 / 12]
    assert 6 * deep[0] + 12 * deep[1] + 8 * deep[2] == 88
    assert [weight / 88 for weight in deep] == [3 / 44, 3 / 88, 1 / 44]


@pytest.mark.parametrize("shape", [(15, 14), (6, 5, 7)])
def test_one_known_pixel_fills_the_image_with_itself(shape: tuple[int, ...]) -> None:
    image, removed = drawn(2, *shape), torch.ones(shape, dtype=torch.bool)
    removed.view(-1)[7] = False
    filled = linear_imputation(image[None], removed[None])[0]
    assert (filled.flatten(1) - image.flatten(1)[:, 7:8]).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(15, 14), (6, 5, 7)])
def test_where_everything_is_removed_each_channel_is_its_mean(shape: tuple[int, ...]) -> None:
    images = drawn(3, 2, *shape)
    removed = torch.stack([torch.ones(shape), torch.zeros(shape), scattered(shape, 0.5).float()]).bool()
    filled = linear_imputation(images, removed)
    means = images[0].flatten(1).mean(dim=1)
    assert torch.allclose(filled[0].flatten(1), means[:, None].expand(-1, removed[0].numel()))
    assert torch.equal(filled[1], images[1])  # nothing removed, nothing changed
    assert torch.equal(filled[2], linear_imputation(images[2:], removed[2:])[0])


@pytest.mark.parametrize("shape", [(12, 13), (5, 6, 4)])
def test_known_pixels_stay_as_they_are_bit_for_bit(shape: tuple[int, ...]) -> None:
    image, removed = drawn(3, *shape), scattered(shape, 0.7)
    filled = linear_imputation(image[None], removed[None])[0]
    assert torch.equal(filled[:, ~removed], image[:, ~removed])
    assert image[:, ~removed].min() <= filled.min()  # a weighted mean stays inside the known range
    assert filled.max() <= image[:, ~removed].max()


def test_a_constant_image_stays_constant() -> None:
    filled = linear_imputation(torch.full((1, 1, 20, 20), 3.5), scattered((1, 20, 20), 0.8))
    assert torch.equal(filled, torch.full((1, 1, 20, 20), 3.5))


@pytest.mark.parametrize("shape", [(20, 18), (6, 7, 5)])
def test_six_channels_are_solved_as_each_alone(shape: tuple[int, ...]) -> None:
    images, removed = drawn(1, 6, *shape), scattered((1, *shape), 0.6)
    images[0, 2] *= 1000  # a large channel doesn't loosen the others
    together = linear_imputation(images, removed)
    for channel in range(6):
        alone = linear_imputation(images[:, channel : channel + 1], removed)
        scale = images[:, channel].abs().max()
        assert (together[:, channel] - alone[:, 0]).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("shape", [(20, 18), (6, 7, 5)])
def test_an_image_in_a_batch_is_filled_as_alone(shape: tuple[int, ...]) -> None:
    images = drawn(5, 3, *shape)
    removed = torch.stack([scattered(shape, 0.15 * (row + 1), seed=row) for row in range(5)])
    together = linear_imputation(images, removed)
    for row in range(5):
        alone = linear_imputation(images[row : row + 1], removed[row : row + 1])[0]
        assert (together[row] - alone).abs().max() < 1e-4


def test_the_number_of_threads_changes_no_bit() -> None:
    images = drawn(6, 2, 33, 40).numpy()
    removed = torch.stack([scattered((33, 40), 0.1 + 0.15 * row, seed=row) for row in range(6)]).numpy()
    one, _ = fill_compiled(images, removed, tolerance=1e-5, most=60, threads=1)
    three, _ = fill_compiled(images, removed, tolerance=1e-5, most=60, threads=3)
    assert np.array_equal(one, three)


def test_float32_stays_exact_where_nearly_all_is_removed() -> None:
    """A hole of nine tenths has a condition number of thousands; whole-number weights keep rounding out of the sums."""
    size = 224
    image = smooth_image(1, size) + 10  # far from zero, as an unnormalised image is
    removed = removed_mask(
        removal_orders(saliency_maps(size)["centre"][None], torch.zeros(1).long())[0][0], 45158, (size, size)
    )
    exact = reference.imputed_sparse(image.double().numpy(), removed.numpy())
    filled, estimate = fill_compiled(image[None].numpy(), removed[None].numpy(), tolerance=1e-8, most=60, threads=1)
    assert estimate <= 1e-8
    assert error(torch.from_numpy(filled[0]), exact, image) < 1e-5


def test_the_estimate_of_the_error_is_right_to_a_factor_of_a_few() -> None:
    image, removed = smooth_image(1, 64), scattered((64, 64), 0.6)
    removed[16:48, 16:48] = True
    exact = reference.imputed_sparse(image.double().numpy(), removed.numpy())
    known = image[0][~removed]
    for tolerance in (1e-1, 1e-2, 1e-3, 1e-4):
        filled, estimate = fill_compiled(
            image[None].numpy(), removed[None].numpy(), tolerance=tolerance, most=60, threads=1
        )
        assert estimate <= tolerance
        assert np.abs(filled[0] - exact).max() / (known - known.mean()).abs().max() < 3 * tolerance


@pytest.mark.parametrize("kind", saliency_maps(8))
def test_few_steps_are_enough_at_every_fraction(kind: str) -> None:
    """A preconditioner that is only nearly right still converges, in many steps; the right one needs 6 to 9."""
    size = 130
    orders = torch.cat(removal_orders(saliency_maps(size)[kind][None], torch.tensor([0])))
    counts = [round(step / 10 * size**2) for step in range(1, 10)]
    masks = torch.stack([removed_mask(order, count, (size, size)) for order in orders for count in counts])
    images = smooth_image(1, size).expand(len(masks), -1, -1, -1).contiguous()
    _, error = fill_compiled(images.numpy(), masks.numpy(), tolerance=1e-5, most=11, threads=1)
    assert error <= 1e-5
    _, error = fill_batched(images[::4], masks[::4], tolerance=1e-5, most=11)
    assert error <= 1e-5


def test_few_steps_are_enough_for_volumes() -> None:
    shape = (20, 33, 18)
    hole = torch.zeros(1, *shape, dtype=torch.bool)
    hole[:, 2:-2, 2:-2, 2:-2] = True
    masks = torch.cat([hole, scattered((3, *shape), 0.9), hole | scattered((1, *shape), 0.5)])
    _, error = fill_batched(drawn(5, 1, *shape), masks, tolerance=1e-5, most=11)
    assert error <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(65, 40), (9, 12, 10)])
def test_a_gpu_fills_as_the_cpu_does(shape: tuple[int, ...]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    images, removed = drawn(4, 3, *shape), scattered((4, *shape), 0.7)
    there = linear_imputation(images.cuda(), removed.cuda())
    assert there.is_cuda
    assert (there.cpu() - linear_imputation(images, removed)).abs().max() < 1e-4 * images.abs().max()


def test_half_precision_is_computed_in_float32() -> None:
    images, removed = drawn(1, 1, 16, 16), scattered((1, 16, 16), 0.5)
    half = linear_imputation(images.bfloat16(), removed)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, linear_imputation(images.bfloat16().float(), removed).bfloat16())


def test_works_in_inference_mode_on_a_view_that_wants_gradients() -> None:
    images, removed = drawn(1, 2, 16, 16).requires_grad_(), scattered((1, 16, 16), 0.5)
    plain = linear_imputation(images, removed)
    assert not plain.requires_grad
    with torch.inference_mode():
        turned = linear_imputation(images.transpose(2, 3), removed.mT)
    torch.testing.assert_close(turned.clone(), plain.transpose(2, 3), rtol=0, atol=1e-4)


def test_values_that_are_not_finite_are_named() -> None:
    images, removed = drawn(3, 1, 16, 16), scattered((3, 16, 16), 0.5)
    images[1, 0][~removed[1]] = torch.nan
    with pytest.raises(PellucidError, match="finite values"):
        linear_imputation(images, removed)
    with pytest.raises(PellucidError, match="finite values"):
        linear_imputation(images.double(), removed)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match=r"removed: expected a bool tensor \(1, 4, 4\), got shape \(1, 4, 5\)"):
        linear_imputation(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5, dtype=torch.bool))
    with pytest.raises(InputError, match="removed: expected a bool tensor"):
        linear_imputation(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(InputError, match=r"images: expected a float tensor \(M, C, \*S\)"):
        linear_imputation(torch.zeros(1, 3, 4, 4).long(), torch.zeros(1, 4, 4, dtype=torch.bool))


def test_a_function_without_a_cache_folder_compiles_all_the_same() -> None:
    scope: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x", scope)  # has no file beside which to keep the machine code
    double = scope["double"]
    assert callable(double)
    assert _compiled(double)(3) == 6


def peer() -> Callable[[Tensor, Tensor], Tensor]:
    """pytorch-grad-cam's imputer, without noise."""
    pytest.importorskip("pytorch_grad_cam")
    imputer: Callable[[Tensor, Tensor], Tensor]
    imputer = importlib.import_module("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0.0)
    return imputer


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # its way of calling NumPy and SciPy warns
@pytest.mark.parametrize("kind", ["blobs", "grain", "noise"])
@pytest.mark.parametrize("percentile", [10, 50, 90])
def test_equals_pytorch_grad_cam_on_its_own_masks(kind: str, percentile: int) -> None:
    imputer = peer()
    image, saliency = smooth_image(3, 64), saliency_maps(64)[kind]
    known = saliency < np.percentile(saliency.numpy(), percentile)  # its way to a mask, most relevant first
    theirs = imputer(image, known.float())
    ours = linear_imputation(image[None], ~known[None])[0]
    assert (ours - theirs).abs().max() < 1e-4 * image.abs().max()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_where_pytorch_grad_cam_loses_every_pixel_of_a_map_with_ties_ours_loses_half() -> None:
    """Of a map that is 60 % zeros it removes all 4096 pixels at a share of one half, and its system is singular."""
    imputer = peer()
    image, saliency = smooth_image(1, 64), drawn(64, 64).abs()
    saliency.view(-1)[: round(0.6 * 4096)] = 0
    known = saliency < np.percentile(saliency.numpy(), 50)
    theirs = imputer(image, known.float())
    assert int((~known).sum()) == 4096
    assert int((theirs == image).sum()) == 0
    removed = removed_mask(removal_orders(saliency[None], torch.tensor([0]))[0][0], 2048, (64, 64))
    ours = linear_imputation(image[None], removed[None])
    assert int(removed.sum()) == 2048
    assert image.min() <= ours.min()
    assert ours.max() <= image.max()
