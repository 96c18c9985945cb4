import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics import log_loss
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.models.ensemble import Ensemble, Member, Preparation, vote_weights
from pellucid.models.zoo import create_model

PLAIN = Preparation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 32)
OWN = Preparation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 32)
LARGER = Preparation(OWN.mean, OWN.std, 48)


def net(name: str, seed: int, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(name, classes=classes, size=32).eval()


def vote(nets: Sequence[nn.Module], weights: Sequence[float] | None = None) -> Ensemble:
    return Ensemble([Member(each, PLAIN, PLAIN) for each in nets], weights).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_vote_of_two_copies_is_the_network(images: Tensor) -> None:
    one = net("test_resnet", 0)
    with torch.no_grad():
        torch.testing.assert_close(vote([one, copy.deepcopy(one)])(images), one(images), rtol=1e-5, atol=1e-5)


def test_all_the_weight_on_one_member_is_that_member(images: Tensor) -> None:
    nets = [net("test_resnet", 0), net("resnet10t", 1)]
    with torch.no_grad():
        for place, weights in enumerate(([1.0, 0.0], [0.0, 1.0])):
            torch.testing.assert_close(vote(nets, weights)(images), nets[place](images), rtol=1e-5, atol=1e-5)


def test_the_weighted_mean_of_probabilities_in_float64(images: Tensor) -> None:
    nets = [net("test_resnet", 0), net("resnet10t", 1), net("test_vit", 2)]
    weights = [0.2, 0.5, 0.3]
    with torch.no_grad():
        expected = sum(
            weight * each(images).double().softmax(dim=1) for weight, each in zip(weights, nets, strict=True)
        )
        torch.testing.assert_close(vote(nets, weights)(images).double().softmax(dim=1), expected, rtol=1e-5, atol=1e-6)


def test_a_member_without_weight_leaves_gradients_finite(images: Tensor) -> None:
    nets = [net("test_resnet", 0), net("resnet10t", 1)]
    leaf = images.clone().requires_grad_()
    vote(nets, [1.0, 0.0])(leaf)[:, 1].sum().backward()
    alone = images.clone().requires_grad_()
    nets[0](alone)[:, 1].sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, alone.grad, rtol=1e-4, atol=1e-6)


def test_each_member_sees_the_images_as_it_was_trained_to(images: Tensor) -> None:
    """Resized and normalised as torchvision-like code does it, channel by channel."""
    seen: list[Tensor] = []

    class Noting(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            seen.append(given)
            return given.mean(dim=(2, 3))

    common = Preparation((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), 32)
    member = Member(Noting(), common, LARGER)
    given = torch.stack([(images[:, c] - common.mean[c]) / common.std[c] for c in range(3)], dim=1)
    member(given)
    larger = torch.nn.functional.interpolate(images, size=(48, 48), mode="bilinear", align_corners=False)
    expected = torch.stack([(larger[:, c] - OWN.mean[c]) / OWN.std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)
    assert Member(Noting(), OWN, OWN).prepare(given) is given


def test_volumes_are_resized_as_well() -> None:
    given, wanted = Preparation((0.0,), (1.0,), (8, 8, 8)), Preparation((0.5,), (0.5,), (4, 6, 8))
    prepared = Member(nn.Identity(), given, wanted).prepare(torch.ones(2, 1, 8, 8, 8))
    assert prepared.shape == (2, 1, 4, 6, 8)
    torch.testing.assert_close(prepared, torch.ones_like(prepared))


def test_logits_add_up_where_that_is_asked(images: Tensor) -> None:
    nets = [net("test_resnet", 0), net("resnet10t", 1)]
    adding = Ensemble([Member(each, PLAIN, PLAIN) for each in nets], adding=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(adding(images), nets[0](images) + nets[1](images))


def test_its_weights_belong_to_the_state() -> None:
    nets = [net("test_resnet", 0), net("test_resnet", 1)]
    state = vote(nets, [0.25, 0.75]).state_dict()
    assert state["weights"].tolist() == [0.25, 0.75]
    assert {name.split(".network.")[0] for name in state if name != "weights"} == {"members.0", "members.1"}


@pytest.mark.parametrize("seed", range(5))
def test_the_weights_of_least_log_loss_against_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=60)
    logits = generator.normal(size=(4, 60, 3))
    for member, skill in enumerate((0.2, 1.0, 1.5, 0.0)):
        logits[member, np.arange(60), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)

    def loss(weights: np.ndarray) -> float:
        return float(log_loss(labels, np.einsum("m,mnk->nk", weights, probabilities), labels=[0, 1, 2]))

    reference = minimize(
        loss,
        np.full(4, 0.25),
        method="SLSQP",
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-12},
    )
    weights = np.array(vote_weights("weighted", probabilities, labels))
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert loss(weights) <= reference.fun + 1e-6
    np.testing.assert_allclose(weights, reference.x, atol=1e-3)


def test_weights_by_accuracy_and_equal_ones() -> None:
    labels = np.array([0, 0, 1, 1])
    right = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    half = np.array([[0.9, 0.1]] * 4)
    both = np.stack([right, half])
    assert vote_weights("accuracy", both, labels) == [0.6667, 0.3333]
    assert vote_weights("soft", both, labels) == [0.5, 0.5]
    assert vote_weights("accuracy", 1 - np.stack([right, right]), labels) == [0.5, 0.5]


def test_a_certain_error_of_every_member_leaves_weights_finite() -> None:
    sure = np.stack([np.array([[1.0, 0.0], [0.0, 1.0]])] * 2)
    assert vote_weights("weighted", sure, np.array([1, 1])) == [0.5, 0.5]


def test_refusals_say_what_is_wanted(images: Tensor) -> None:
    one, four = net("test_resnet", 0), net("test_resnet", 0, classes=4)
    with pytest.raises(InputError, match="two networks or more, got 1"):
        vote([one])
    for weights in ([0.5, 0.6], [1.5, -0.5], [1.0]):
        with pytest.raises(InputError, match="weights: expected 2 of them, at least 0, that add up to 1"):
            vote([one, one], weights)
    with pytest.raises(InputError, match=r"logits \(B, K\) of the same classes"):
        vote([one, four])(images)
    with pytest.raises(InputError, match="two or more"):
        vote([net("test_resnet", 0, classes=1)] * 2)(images)
    with pytest.raises(InputError, match="3 channels of size 32, got 1 channels of size 32"):
        Member(one, PLAIN, Preparation((0.0,), (1.0,), 32))
    with pytest.raises(InputError, match=r"labels \(N,\)"):
        vote_weights("soft", np.ones((2, 3, 2)), np.zeros(4, int))
