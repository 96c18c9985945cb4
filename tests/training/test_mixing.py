"""Mixed images and shares of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional

from pellucid.training.mixing import binary_cross_entropy, cross_entropy, mixer


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


def test_each_label_has_a_cross_entropy_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator)
    labels = (torch.rand(7, 3, generator=generator) < 0.4).float()
    weights = torch.tensor([1.0, 2.0, 5.0])
    probabilities = logits.sigmoid()
    by_hand = -(labels * weights * probabilities.log() + (1 - labels) * (1 - probabilities).log()).mean()
    assert float(binary_cross_entropy(logits, labels, weights)) == pytest.approx(float(by_hand), rel=1e-5)
    plain = binary_cross_entropy(logits, labels, None)
    theirs = np.mean([log_loss(labels[:, k], probabilities[:, k].double(), labels=[0, 1]) for k in range(3)])
    assert float(plain) == pytest.approx(float(theirs), rel=1e-5)
    softened = labels * 0.8 + 0.1
    smooth = functional.binary_cross_entropy_with_logits(logits, softened)
    assert float(binary_cross_entropy(logits, labels, None, 0.2)) == pytest.approx(float(smooth), rel=1e-6)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0)])
def test_labels_of_mixed_images_are_mixed_in_their_shares(mixup: float, cutmix: float) -> None:
    images, _ = constant_images(5, 3, 8, 8)
    labels = torch.eye(5)
    mix = mixer(mixup, cutmix, 5)
    assert mix is not None
    torch.manual_seed(1)
    mixed, shares = mix(images, labels)
    means = (shares * torch.arange(5.0)).sum(dim=1)
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), means, atol=1e-5)
    assert torch.allclose(shares.sum(dim=1), torch.ones(5))
