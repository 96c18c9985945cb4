"""What is known of images: accepted forms, and what is refused with a reason."""

from __future__ import annotations

import pytest
import torch

from pellucid.errors import InputError
from pellucid.metrics.truth import Truth

SHAPE = (2, 6, 8)


def test_what_is_given_comes_out_in_one_form() -> None:
    boxes = [torch.tensor([[[0, 0], [6, 8]]]), torch.zeros(0, 2, 2)]
    masks = torch.zeros(SHAPE, dtype=torch.uint8)
    masks[0, 1, 1] = 2
    truth = Truth(masks, boxes, torch.ones(SHAPE, dtype=torch.bool), (0.5, 2.0), labels=(1, 2)).checked(SHAPE)
    assert truth.masks is not None
    assert truth.masks.dtype == torch.bool
    assert truth.masks.sum() == 1
    assert torch.as_tensor(truth.spacing).tolist() == [[0.5, 2.0]] * 2
    assert Truth().checked(SHAPE) == Truth()


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (
            Truth(torch.zeros(2, 6, 7, dtype=torch.bool)),
            r"masks: expected a bool tensor \(2, 6, 8\), a value per pixel, got .* by nearest neighbours\.$",
        ),
        (Truth(torch.zeros(2, 6, 7)), r"got shape \(2, 6, 7\), .* by nearest neighbours\. Pass masks > 0\.$"),
        (Truth(torch.zeros(SHAPE)), r"masks: expected a bool tensor .* torch.float32. Pass masks > 0\.$"),
        (Truth(torch.full(SHAPE, 255)), "masks: expected labels 0, 1, got 0, 255. Pass Truth"),
        (Truth(anatomy=torch.full(SHAPE, 2)), "anatomy: expected labels 0, 1"),
        (Truth(boxes=[torch.zeros(1, 2, 2)]), "boxes: expected boxes of each of 2 images, got of 1"),
        (Truth(boxes=[torch.zeros(1, 4)] * 2), r"boxes: expected a tensor \(n, 2, 2\) per image"),
        (Truth(boxes=[torch.tensor([[[0, 0], [7, 8]]])] * 2), "boxes: expected corners in order within"),
        (Truth(boxes=[torch.tensor([[[3, 3], [3, 5]]])] * 2), "boxes: expected corners in order within"),
        (Truth(spacing=(1.0,)), "spacing: expected mm above 0, 2 of them"),
        (Truth(spacing=(1.0, 0.0)), "spacing: expected mm above 0"),
    ],
)
def test_bad_truth_is_named(truth: Truth, message: str) -> None:
    with pytest.raises(InputError, match=message):
        truth.checked(SHAPE)
