from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pellucid.attribution import METHODS
from pellucid.attribution.controls import center_gaussian, image, random, sobel

SHAPES = [(2, 3, 8, 9), (2, 1, 5, 6, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METHODS.names("control"))
def test_gives_a_finite_map_per_image_like_it_gives_one_alone(name: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    seeds = torch.tensor([3, 4])
    maps = METHODS[name].function(images, seeds)
    assert maps.shape == (2, *shape[2:])
    assert maps.isfinite().all()
    assert maps.min() >= 0
    assert maps.std() > 0
    torch.testing.assert_close(METHODS[name].function(images[1:], seeds[1:]), maps[1:], rtol=0, atol=0)


def test_random_follows_each_images_seed() -> None:
    images = torch.zeros(3, 1, 32, 32)
    maps = random(images, torch.tensor([1, 2, 1]))
    assert torch.equal(maps[0], maps[2])
    assert not torch.equal(maps[0], maps[1])
    assert abs(float(maps.mean()) - 0.5) < 0.05
    assert maps.max() < 1


def test_center_gaussian_peaks_at_the_centre_and_falls_by_its_width() -> None:
    bell = center_gaussian(torch.zeros(1, 1, 9, 17), torch.tensor([0]), width=0.25)[0]
    assert bell[4, 8] == 1
    torch.testing.assert_close(bell, bell.flip(0, 1))
    torch.testing.assert_close(bell[4, 0], torch.tensor(-(8**2) / (2 * (0.25 * 17) ** 2)).exp())


def convolved(image: Tensor, kernel: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(image[None, None], (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel[None, None])[0, 0]


def test_sobel_equals_its_two_kernels() -> None:
    image = torch.rand(1, 2, 7, 8, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    energy = sum(convolved(channel, k) ** 2 for channel in image[0] for k in (kernel, kernel.T))
    torch.testing.assert_close(sobel(image, torch.tensor([0]))[0], energy.sqrt())


def test_sobel_sees_no_edge_in_a_flat_image_and_is_blind_to_brightness() -> None:
    image = torch.rand(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    seeds = torch.tensor([0])
    assert not sobel(torch.full((1, 1, 6, 6, 6), 0.7), seeds).any()
    torch.testing.assert_close(sobel(image + 1, seeds), sobel(image, seeds), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_image_ranks_places_by_brightness_however_the_image_was_normalised(shape: tuple[int, ...]) -> None:
    raw = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw[:, :, :2] = 0  # the background of a scan
    seeds = torch.zeros(2, dtype=torch.long)
    maps = image(raw, seeds)
    torch.testing.assert_close(maps, raw.mean(dim=1))
    assert not maps[:, :2].any()
    for mean, deviation in ((0.5, 0.25), (-3.0, 100.0)):
        torch.testing.assert_close(image((raw - mean) / deviation, seeds), maps / deviation)


def test_image_sees_nothing_in_a_flat_image() -> None:
    assert not image(torch.full((1, 3, 6, 6), -1.7), torch.tensor([0])).any()
