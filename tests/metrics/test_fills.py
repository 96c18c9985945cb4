"""Fills against plain loops; what they leave alone, what they do where everything is gone, and how they are named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.errors import InputError, UnknownNameError
from pellucid.metrics import FILLS, filling, metric
from pellucid.metrics.draws import noise_field
from pellucid.metrics.fills import PETSIUK_BLUR, blur, dataset_mean, inpainting, mean, noise, zero
from pellucid.metrics.removals import Sets
from pellucid.metrics.scores import Scores
from references import removal as reference

SHAPES = [(6, 5), (3, 4, 5)]
SEEDS = torch.tensor([3, 3, 4, 5])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def case(shape: tuple[int, ...], channels: int = 2) -> tuple[Tensor, Tensor]:
    """Four rows of three images, the first two of one, and different masks."""
    images = drawn(3, channels, *shape)[torch.tensor([0, 0, 1, 2])] + 1
    return images, drawn(4, *shape, seed=1) > 0


def given(name: str, bank: Tensor, seeds: Tensor = SEEDS) -> list[Tensor]:
    return [{"bank": bank, "seeds": seeds}[need] for need in FILLS[name].needs]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_zero_mean_and_blur_equal_plain_loops(shape: tuple[int, ...], sigma: float) -> None:
    images, removed = case(shape)
    fills: list[tuple[Tensor, Callable[..., np.ndarray]]] = [
        (zero(images, removed), reference.zero),
        (mean(images, removed), reference.mean),
        (blur(images, removed, sigma=sigma), lambda image, mask: reference.blur(image, mask, sigma)),
    ]
    for filled, plainly in fills:
        for row, image, mask in zip(filled, images, removed, strict=True):
            exact = plainly(image.double().numpy(), mask.numpy())
            np.testing.assert_allclose(row.numpy(), exact, atol=1e-5)


def test_the_blur_is_a_share_of_the_longest_side_unless_told_in_pixels() -> None:
    images, removed = drawn(1, 1, 20, 56), torch.ones(1, 20, 56, dtype=torch.bool)
    torch.testing.assert_close(blur(images, removed), blur(images, removed, sigma=56 * 5 / 224))
    torch.testing.assert_close(blur(images, removed, share=0.1), blur(images, removed, sigma=5.6))
    torch.testing.assert_close(
        blur(images, removed, share=0.001), blur(images, removed, sigma=1.0)
    )  # never none at all
    assert pytest.approx(5 / 224) == PETSIUK_BLUR
    wide = blur(images, removed, sigma=1e4)
    torch.testing.assert_close(wide, mean(images, removed), rtol=0, atol=1e-4)  # as wide as that, it is the mean


def test_a_constant_image_is_the_same_blurred_up_to_its_border() -> None:
    images = torch.full((1, 1, 9, 9), 2.5)
    torch.testing.assert_close(blur(images, torch.ones(1, 9, 9, dtype=torch.bool), sigma=3.0), images)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_is_the_seeds_own_with_the_channels_mean_and_spread(shape: tuple[int, ...], kind: str) -> None:
    images, removed = case(shape)
    filled = noise(images, removed, SEEDS, kind=kind)
    for row, image, mask, seed in zip(filled, images, removed, SEEDS.tolist(), strict=True):
        field = noise_field(seed, image.shape).double()
        if kind == "uniform":
            field = (2 * torch.distributions.Normal(0.0, 1.0).cdf(field) - 1) * 3**0.5
        for channel in range(len(image)):
            pixels = image[channel].double().numpy()
            wanted = pixels.mean() + pixels.std() * field[channel].numpy()
            np.testing.assert_allclose(row[channel].numpy()[mask], wanted[mask], atol=1e-5)


def test_noise_has_the_spread_and_the_shape_that_it_is_said_to_have() -> None:
    images = drawn(1, 2, 90, 90) * torch.tensor([2.0, 0.0]).view(1, 2, 1, 1) + 5
    everything = torch.ones(1, 90, 90, dtype=torch.bool)
    for kind, largest in (("normal", 3.3), ("uniform", 3**0.5)):
        values = noise(images, everything, torch.tensor([7]), kind=kind)[0]
        assert values[0].mean().item() == pytest.approx(images[0, 0].mean().item(), abs=0.06)
        assert values[0].std().item() == pytest.approx(images[0, 0].std().item(), rel=0.03)
        reach = ((values[0] - images[0, 0].mean()) / images[0, 0].std()).abs().max().item()
        assert (reach <= largest + 1e-3) == (kind == "uniform")
        assert (values[1] == 5).all()  # no spread, no noise


def test_a_pixel_gets_the_same_noise_whatever_else_is_removed() -> None:
    images = drawn(1, 2, 8, 8).expand(2, -1, -1, -1)
    removed = torch.stack([torch.ones(8, 8), torch.eye(8)]).bool()
    filled = noise(images, removed, torch.tensor([1, 1]))
    diagonal = torch.eye(8).bool()
    assert torch.equal(filled[0][:, diagonal], filled[1][:, diagonal])
    assert not torch.equal(filled[0], noise(images, removed, torch.tensor([2, 2]))[0])


def test_the_dataset_mean_is_that_of_the_bank() -> None:
    images, removed = case((6, 5))
    bank = drawn(5, 2, 6, 5, seed=2)
    for row, image, mask in zip(dataset_mean(images, removed, bank), images, removed, strict=True):
        exact = reference.put(image.double().numpy(), mask.numpy(), lambda c, at: bank[:, c].double().mean().item())
        np.testing.assert_allclose(row.numpy(), exact, atol=1e-5)
    for row, image, mask in zip(dataset_mean(images, removed, bank, per="pixel"), images, removed, strict=True):
        exact = reference.put(
            image.double().numpy(), mask.numpy(), lambda c, at: sum(each[(c, *at)].item() for each in bank) / 5
        )
        np.testing.assert_allclose(row.numpy(), exact, atol=1e-5)
    larger = drawn(3, 2, 9, 9)  # a mean per channel serves any size
    assert dataset_mean(images, removed, larger).shape == images.shape


@pytest.mark.parametrize("shape", SHAPES)
def test_inpainting_takes_the_image_that_is_nearest_on_known_pixels(shape: tuple[int, ...]) -> None:
    images, removed = case(shape)
    bank = drawn(7, 2, *shape, seed=2)
    filled = inpainting(images, removed, bank, SEEDS)
    chosen = set()
    for row, image, mask in zip(filled, images, removed, strict=True):
        (best,) = reference.nearest(image.double().numpy(), mask.numpy(), bank.double().numpy())
        assert torch.equal(row, torch.where(mask, bank[best], image))
        chosen.add(best)
    assert len(chosen) > 1


def test_which_image_is_nearest_is_told_by_what_is_known_not_by_what_is_gone() -> None:
    """One of the bank equals the known half, the other the half that is gone."""
    image = drawn(1, 1, 4, 6)
    removed = torch.zeros(1, 4, 6, dtype=torch.bool)
    removed[..., 3:] = True
    known, gone = image.clone(), image.clone()
    known[..., 3:] = 9
    gone[..., :3] = 9
    filled = inpainting(image, removed, torch.cat([gone, known]), torch.tensor([0]))
    assert torch.equal(filled, known)


def test_close_distances_are_told_apart_exactly() -> None:
    """Bright images that differ by little: float32 sums of squares don't say which is nearer."""
    image = 1000 + drawn(1, 1, 12, 12)
    bank = torch.cat([image + 0.02, image + 0.01, image + 0.03])
    removed = torch.zeros(1, 12, 12, dtype=torch.bool)
    removed[0, 0, 0] = True
    filled = inpainting(image, removed, bank, torch.tensor([0]))
    assert filled[0, 0, 0, 0] == bank[1, 0, 0, 0]


def test_the_seed_decides_between_equally_near_images_and_where_everything_is_gone() -> None:
    image = drawn(1, 1, 4, 4)
    removed = torch.zeros(1, 4, 4, dtype=torch.bool)
    removed[0, 0] = True
    bank = image.repeat(6, 1, 1, 1)
    bank[:, 0, 0] = torch.arange(6.0).unsqueeze(1) + 10
    for mask in (removed, torch.ones_like(removed)):
        found = {seed: inpainting(image, mask, bank, torch.tensor([seed]))[0, 0, 0, 0].item() for seed in range(30)}
        assert set(found.values()) == {10.0, 11.0, 12.0, 13.0, 14.0, 15.0}
        again = {seed: inpainting(image, mask, bank, torch.tensor([seed]))[0, 0, 0, 0].item() for seed in range(30)}
        assert found == again


@pytest.mark.parametrize("name", FILLS.names())
@pytest.mark.parametrize("shape", SHAPES)
def test_known_pixels_stay_bit_for_bit_and_channels_go_together(name: str, shape: tuple[int, ...]) -> None:
    images, removed = case(shape, channels=3)
    before = images.clone()
    bank = drawn(5, 3, *shape, seed=2)
    filled = FILLS[name].function(images, removed, *given(name, bank))
    assert filled.shape == images.shape
    assert filled.dtype == images.dtype
    assert torch.equal(images, before)
    changed = filled != images
    assert not changed.movedim(1, -1)[~removed].any()
    replaced = changed.movedim(1, -1)[removed]
    if name == "resampled":  # which may draw the pixel itself
        assert torch.equal(replaced.any(dim=1), replaced.all(dim=1))
        assert replaced.float().mean() > 0.8
    else:
        assert replaced.all()


@pytest.mark.parametrize("name", FILLS.names())
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_and_everything_removed_have_an_answer(name: str, shape: tuple[int, ...]) -> None:
    images, _ = case(shape)
    bank = drawn(5, 2, *shape, seed=2)
    nothing = torch.zeros(4, *shape, dtype=torch.bool)
    assert torch.equal(FILLS[name].function(images, nothing, *given(name, bank)), images)
    assert FILLS[name].function(images, ~nothing, *given(name, bank)).isfinite().all()


@pytest.mark.parametrize("name", FILLS.names())
def test_a_row_alone_is_filled_as_in_a_batch(name: str) -> None:
    images, removed = case((6, 5))
    bank = drawn(5, 2, 6, 5, seed=2)
    together = FILLS[name].function(images, removed, *given(name, bank))
    for row in range(4):
        part = slice(row, row + 1)
        alone = FILLS[name].function(images[part], removed[part], *given(name, bank, SEEDS[part]))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)


def test_equal_images_with_seeds_of_their_own_get_noise_of_their_own() -> None:
    images = drawn(1, 1, 5, 5).expand(2, -1, -1, -1)
    removed = torch.ones(2, 5, 5, dtype=torch.bool)
    together = noise(images, removed, torch.tensor([1, 2]))
    torch.testing.assert_close(together[1:], noise(images[1:], removed[1:], torch.tensor([2])))
    assert not torch.equal(together[0], together[1])


def test_fills_are_named_with_their_options() -> None:
    assert filling("blur", sigma=3).label == "blur[sigma=3]"
    assert metric("deletion", fill=filling("blur", sigma=3)).label == "deletion[fill=blur[sigma=3]]"
    assert metric("deletion", fill="mean").label == "deletion[fill=mean]"
    with pytest.raises(UnknownNameError, match="sigma"):
        filling("blur", sigmas=3)
    assert all(entry.source for entry in FILLS)


def test_a_label_gives_the_fill_back() -> None:
    choice = FILLS.resolve("blur[share=0.1,sigma=3]")
    assert choice.options == {"share": 0.1, "sigma": 3}
    scores = Scores(lambda rows, sample: rows.mean((1, 2, 3)), drawn(1, 1, 6, 6))
    masks = Sets(torch.ones(1, 1, 6, 6, dtype=torch.bool))
    assert torch.equal(scores.without(masks, "blur[sigma=3]"), scores.without(masks, filling("blur", sigma=3)))
    assert not torch.equal(scores.without(masks, "blur[sigma=3]"), scores.without(masks, "blur[sigma=1]"))


def test_scores_hand_a_fill_what_it_needs() -> None:
    images, bank = drawn(2, 1, 6, 6), drawn(3, 1, 6, 6, seed=1)
    masks = Sets(torch.ones(1, 1, 6, 6, dtype=torch.bool), 2)
    scores = Scores(lambda rows, sample: rows.mean((1, 2, 3)), images, bank=bank)
    assert scores.without(masks, "dataset-mean")[:, 0].tolist() == pytest.approx([bank.mean().item()] * 2)
    assert set(scores.without(masks, "inpainting").flatten().tolist()) <= set(bank.mean((1, 2, 3)).tolist())
    with pytest.raises(InputError, match="bank: expected images that the fill 'inpainting' takes from, got none"):
        Scores(lambda rows, sample: rows.mean((1, 2, 3)), images).without(masks, "inpainting")


@pytest.mark.parametrize(
    ("name", "options", "bank", "message"),
    [
        ("blur", {"sigma": 0.0}, None, "sigma: expected pixels above 0"),
        ("blur", {"sigma": float("nan")}, None, "sigma: expected"),
        ("blur", {"share": -1.0}, None, "share: expected a share"),
        ("noise", {"kind": "salt"}, None, "kind: expected 'normal' or 'uniform', got 'salt'"),
        ("dataset-mean", {"per": "image"}, None, "per: expected 'channel' or 'pixel', got 'image'"),
        ("dataset-mean", {}, torch.zeros(2, 1, 6, 5), r"bank: expected at least one image, \(K, 2, \*S\), got shape"),
        (
            "dataset-mean",
            {"per": "pixel"},
            torch.zeros(2, 2, 7, 7),
            r"bank: expected at least one image, \(K, 2, 6, 5\)",
        ),
        ("inpainting", {}, torch.zeros(2, 2, 7, 7), r"bank: expected at least one image, \(K, 2, 6, 5\), got shape"),
        ("inpainting", {}, torch.zeros(0, 2, 6, 5), "bank: expected at least one image"),
        ("inpainting", {}, torch.full((1, 2, 6, 5), torch.nan), "bank: expected finite values"),
        ("inpainting", {}, case((6, 5))[0], "bank: expected images other than the explained ones"),
    ],
)
def test_bad_input_is_named(name: str, options: dict[str, object], bank: Tensor | None, message: str) -> None:
    images, removed = case((6, 5))
    held_out = drawn(3, 2, 6, 5, seed=2) if bank is None else bank
    with pytest.raises(InputError, match=message):
        FILLS[name].function(images, removed, *given(name, held_out), **options)
