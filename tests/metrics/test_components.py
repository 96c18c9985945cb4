"""Connected components and the boxes round them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.metrics.components import box_overlap, components, largest_boxes
from references.localisation import parts

SHAPES = [(9, 8), (4, 5, 6)]


@pytest.mark.parametrize("shape", SHAPES)
def test_components_are_those_found_by_flooding_each_image(shape: tuple[int, ...]) -> None:
    masks = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0)) < 0.15
    labels, count = components(masks)
    found = {frozenset(map(tuple, np.argwhere(labels == label).tolist())) for label in range(1, count + 1)}
    wanted = {
        frozenset((row, *place) for place in part) for row, mask in enumerate(masks.numpy()) for part in parts(mask)
    }
    assert found == wanted
    assert len(found) == count > 5


def test_boxes_go_round_each_largest_part() -> None:
    masks = torch.zeros(1, 6, 6, dtype=torch.bool)
    masks[0, [0, 1, 4, 4, 1], [0, 1, 2, 3, 4]] = True
    (boxes,) = largest_boxes(masks)
    assert boxes.tolist() == [[[0, 0], [2, 2]], [[4, 2], [5, 4]]]
    assert largest_boxes(masks & False)[0].shape == (0, 2, 2)


def test_boxes_overlap_by_their_shared_share() -> None:
    one = torch.tensor([[[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]])
    others = torch.tensor(
        [[[0, 0, 0], [2, 2, 2]], [[0, 0, 1], [2, 2, 3]], [[2, 0, 0], [4, 2, 2]], [[1, 1, 1], [1.5, 2, 2]]]
    )
    torch.testing.assert_close(box_overlap(one, others), torch.tensor([[1, 4 / 12, 0, 0.5 / 8]], dtype=torch.float64))
