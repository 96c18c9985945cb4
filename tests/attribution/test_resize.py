from __future__ import annotations

import pytest
import torch

from pellucid.attribution import resize_maps
from pellucid.errors import InputError


def test_halfway_pixels_are_halfway_values() -> None:
    row = torch.tensor([[[0.0, 8.0]]])
    torch.testing.assert_close(resize_maps(row, (1, 8)), torch.tensor([[[0.0, 0.0, 1.0, 3.0, 5.0, 7.0, 8.0, 8.0]]]))


@pytest.mark.parametrize(("grid", "size"), [((3, 4), (9, 8)), ((2, 3, 4), (4, 6, 8))])
def test_keeps_leading_axes_constants_and_range(grid: tuple[int, ...], size: tuple[int, ...]) -> None:
    maps = torch.rand(2, 5, *grid)
    enlarged = resize_maps(maps, size)
    assert enlarged.shape == (2, 5, *size)
    assert maps.min() <= enlarged.min()
    assert enlarged.max() <= maps.max()  # no overshoot
    torch.testing.assert_close(enlarged[1, 3], resize_maps(maps[1, 3], size))
    torch.testing.assert_close(resize_maps(torch.full((1, *grid), 2.0), size), torch.full((1, *size), 2.0))


def test_the_same_size_gives_the_same_map() -> None:
    maps = torch.rand(2, 3, 4)
    assert resize_maps(maps, (3, 4)) is maps


def test_refuses_four_spatial_axes() -> None:
    with pytest.raises(InputError, match="size: expected one to three lengths"):
        resize_maps(torch.rand(1, 2, 2, 2, 2), (2, 2, 2, 2))
