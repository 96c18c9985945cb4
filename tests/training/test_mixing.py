"""Mixed images and shares of classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pellucid.training.mixing import cross_entropy, mixer


def constant_images(*shape: int) -> tuple[Tensor, Tensor]:
    """Images that show nothing but their own number, and labels that are those numbers."""
    labels = torch.arange(shape[0])
    return labels.float().view(-1, *(1,) * (len(shape) - 1)).expand(shape).contiguous(), labels


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (5, 2, 4, 8, 8)])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_an_image_is_made_of_classes_in_the_shares_that_it_is_labelled_with(
    shape: tuple[int, ...], mixup: float, cutmix: float
) -> None:
    images, labels = constant_images(*shape)
    mix = mixer(mixup, cutmix, 5)
    assert mix is not None
    torch.manual_seed(0)
    for _ in range(10):
        mixed, shares = mix(images.clone(), labels)
        assert mixed.shape == shape
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(5))
        torch.testing.assert_close(mixed.flatten(1).mean(dim=1), shares @ torch.arange(5.0))


def test_mixup_blends_and_cutmix_pastes_and_both_take_turns() -> None:
    images, labels = constant_images(4, 1, 16, 16)

    def kinds(mixup: float, cutmix: float) -> set[str]:
        mix = mixer(mixup, cutmix, 4)
        assert mix is not None
        torch.manual_seed(1)
        seen = set()
        for _ in range(30):
            values = mix(images.clone(), labels)[0][1].unique().tolist()
            if len(values) > 1:
                seen.add("pasted")
            elif values[0] not in (0.0, 1.0):
                seen.add("blended")
        return seen

    assert kinds(1.0, 0.0) == {"blended"}
    assert kinds(0.0, 1.0) == {"pasted"}
    assert kinds(1.0, 1.0) == {"blended", "pasted"}
    assert mixer(0.0, 0.0, 4) is None


def test_one_seed_gives_the_same_mix_again() -> None:
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(6)
    mix = mixer(0.2, 1.0, 6)
    assert mix is not None
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append([mix(images.clone(), labels) for _ in range(5)])
    for (one, some), (two, others) in zip(*found, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(some, others)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_whole_shares_is_that_of_labels(smoothing: float) -> None:
    logits, labels, weights = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 0, 1, 2]), torch.tensor([0.5, 1.0, 2.0])
    shares = functional.one_hot(labels, 3).float()
    for given in (None, weights):
        torch.testing.assert_close(
            cross_entropy(logits, shares, given, smoothing), cross_entropy(logits, labels, given, smoothing)
        )


def test_the_loss_of_mixed_shares_is_the_weighted_mean_over_images() -> None:
    logits, weights = torch.randn(5, 3), torch.tensor([0.5, 1.0, 2.0])
    shares = torch.rand(5, 3)
    shares /= shares.sum(dim=1, keepdim=True)
    total = sum(
        float(shares[row, name] * weights[name] * -logits[row].log_softmax(0)[name])
        for row in range(5)
        for name in range(3)
    )
    counted = sum(float(shares[row, name] * weights[name]) for row in range(5) for name in range(3))
    assert float(cross_entropy(logits, shares, weights)) == pytest.approx(total / counted, rel=1e-5)
