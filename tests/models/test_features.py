import copy

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pellucid.attribution import explain
from pellucid.errors import InputError
from pellucid.models.boosting import BoostedFeatures, TreeShape
from pellucid.models.ensemble import Ensemble, Member, Preparation
from pellucid.models.features import linear_network, pooled
from pellucid.models.fitting import fit_boosted, fit_linear, trees_of
from pellucid.models.zoo import create_model

PLAIN = Preparation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 32)
pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")


def member(name: str, seed: int = 0, classes: int = 3) -> Member:
    torch.manual_seed(seed)
    return Member(create_model(name, classes=classes, size=32).eval(), PLAIN, PLAIN).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Three classes that differ in the strength of their channels."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(45, 3, 32, 32, generator=generator)
    return noise * (1 + 2 * torch.eye(3)[torch.arange(45) % 3])[:, :, None, None]


LABELS = np.arange(45) % 3
GROUPS = np.arange(45) // 2


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050", "vgg11_bn"])
def test_features_are_what_the_classifier_is_given(name: str, images: Tensor) -> None:
    one = member(name)
    with torch.no_grad():
        features = pooled(one, images[:2])
        torch.testing.assert_close(one.network.get_classifier()(features), one(images[:2]))
        BoostedFeatures([one], TreeShape(1, 1, 1, 0))
        torch.testing.assert_close(pooled(one, images[:2]), features, rtol=0, atol=0)


@pytest.mark.parametrize("names", [("test_resnet",), ("test_resnet", "resnet10t"), ("vgg11_bn", "test_vit")])
def test_the_network_gives_the_regressions_probabilities(names: tuple[str, ...], images: Tensor) -> None:
    """Against scikit-learn's pipeline with the same C."""

    members = [member(name, seed) for seed, name in enumerate(names)]
    with torch.no_grad():
        features = np.concatenate([pooled(each, images).numpy() for each in members], axis=1)
    head = fit_linear(features, LABELS, GROUPS)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=head.strength, max_iter=10_000))
    pipeline.fit(features.astype(np.float64), LABELS)
    network = linear_network(members, head, features).eval()
    with torch.no_grad():
        probabilities = network(images).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(features), atol=2e-4)
    assert isinstance(network, Ensemble) == (len(names) > 1)


def test_two_classes_are_mirror_images(images: Tensor) -> None:
    members = [member("test_resnet", 0, classes=2), member("resnet10t", 1, classes=2)]
    labels = (LABELS > 0).astype(int)
    with torch.no_grad():
        features = np.concatenate([pooled(each, images).numpy() for each in members], axis=1)
    network = linear_network(members, fit_linear(features, labels, GROUPS, balanced=True), features).eval()
    found = explain(network, images[:2], "integrated-gradients", target="all")
    torch.testing.assert_close(found["integrated-gradients"][:, 0], -found["integrated-gradients"][:, 1])
    with torch.no_grad():
        logits = network(images)
    torch.testing.assert_close(logits[:, 0], -logits[:, 1], rtol=1e-4, atol=1e-4)


def test_the_parts_of_the_logits_have_equal_means_and_shares_by_their_spread(images: Tensor) -> None:
    members = [member("test_resnet", 0), member("resnet10t", 1)]
    with torch.no_grad():
        features = np.concatenate([pooled(each, images).numpy() for each in members], axis=1)
    network = linear_network(members, fit_linear(features, LABELS, GROUPS), features)
    assert isinstance(network, Ensemble)
    with torch.no_grad():
        parts = [each(images).double() for each in network.each()]
    torch.testing.assert_close(parts[0].mean(dim=0), parts[1].mean(dim=0), rtol=1e-3, atol=1e-3)
    spread = torch.stack([part.std(dim=0, correction=0).sum() for part in parts])
    torch.testing.assert_close(network.weights.double(), spread / spread.sum(), rtol=1e-4, atol=1e-4)


def test_one_network_is_explained_as_itself(images: Tensor) -> None:
    one = member("test_resnet")
    with torch.no_grad():
        features = pooled(one, images).numpy()
    network = linear_network([one], fit_linear(features, LABELS, GROUPS), features)
    assert network is one.network
    found = explain(network, images[:2], ["grad-cam", "ablation-cam"])
    assert found.layer == "layer4"


def test_the_penalty_is_chosen_by_groups_on_noise() -> None:
    """Where groups share their features and labels are theirs, folds that part them would see no reason to penalise."""
    generator = np.random.default_rng(0)
    kinds = generator.normal(size=(20, 30))
    features = np.repeat(kinds, 5, axis=0) + generator.normal(scale=1e-3, size=(100, 30))
    labels = np.repeat(generator.integers(2, size=20), 5)
    together = fit_linear(features, labels, np.repeat(np.arange(20), 5))
    parted = fit_linear(features, labels, np.arange(100))
    assert together.strength < parted.strength
    assert min(together.losses.values()) == together.losses[together.strength]
    again = fit_linear(features, labels, np.repeat(np.arange(20), 5))
    assert np.array_equal(again.weight, together.weight)


def test_a_class_with_one_group_leaves_c_at_one() -> None:
    features = np.random.default_rng(0).normal(size=(12, 4))
    head = fit_linear(features, np.repeat([0, 1], 6), np.array([0] * 6 + [1, 2, 3, 4, 5, 6]))
    assert (head.strength, head.losses) == (1.0, {})


@pytest.mark.parametrize("classes", [2, 3])
def test_trees_give_scikit_learns_probabilities(classes: int) -> None:

    generator = np.random.default_rng(classes)
    features = generator.normal(size=(300, 12)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] ** 2 + generator.normal(size=300)).argsort().argsort() * classes // 300
    train, validation = (features[:200], labels[:200]), (features[200:], labels[200:])
    boosted = fit_boosted(train, validation, balanced=True, seed=3)
    rounds = int(boosted.losses.argmin()) + 1
    assert boosted.trees.shape.rounds == rounds
    reference = HistGradientBoostingClassifier(
        max_iter=rounds, early_stopping=False, class_weight="balanced", random_state=3
    ).fit(*train)
    unseen = generator.normal(size=(500, 12)).astype(np.float32)
    raw = boosted.trees(torch.from_numpy(unseen)).numpy()
    np.testing.assert_allclose(raw.squeeze(), reference.decision_function(unseen), atol=1e-5)


def test_thresholds_part_the_same_features_at_the_border() -> None:
    """Features that lie on a threshold, and one float32 beside it, go the way scikit-learn sends them."""

    generator = np.random.default_rng(5)
    features = generator.normal(size=(400, 1)).astype(np.float32)
    labels = (features[:, 0] > 0.1).astype(int) ^ (generator.random(400) < 0.1)
    classifier = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(features, labels)
    nodes = np.concatenate([predictor.nodes for each in classifier._predictors for predictor in each])
    border = nodes["num_threshold"][nodes["is_leaf"] == 0].astype(np.float32)
    near = np.concatenate([border, np.nextafter(border, np.float32(9)), np.nextafter(border, np.float32(-9))])[:, None]
    raw = trees_of(classifier, 20)(torch.from_numpy(near)).squeeze().numpy()
    np.testing.assert_allclose(raw, classifier.decision_function(near), atol=1e-5)


def test_boosted_features_serve_methods_that_ask_for_scores(images: Tensor) -> None:
    members = [member("test_resnet"), member("resnet10t", 1)]
    with torch.no_grad():
        features = np.concatenate([pooled(each, images).numpy() for each in members], axis=1)
    boosted = fit_boosted((features[::2], LABELS[::2]), (features[1::2], LABELS[1::2]))
    network = BoostedFeatures(members, boosted.trees.shape).eval()
    network.trees = boosted.trees
    found = explain(network, images[:2], ["occlusion", "random"])
    torch.testing.assert_close(found.score, network(images[:2]).max(dim=1).values)
    with pytest.raises(InputError, match=r"trees boosted on frozen features.*occlusion"):
        explain(network, images[:2], "grad-cam")
    assert not any("classifier" in name or ".fc." in name for name in network.state_dict())


def test_refusals(images: Tensor) -> None:
    with pytest.raises(InputError, match="one of timm's networks"):
        pooled(Member(nn.Conv2d(3, 3, 3), PLAIN, PLAIN), images)
    with pytest.raises(InputError, match="each at least once"):
        fit_linear(np.ones((4, 2)), np.array([0, 0, 2, 2]), np.arange(4))
    one = member("test_resnet")
    with torch.no_grad():
        features = pooled(one, images).numpy()
    head = fit_linear(features, LABELS, GROUPS)
    with pytest.raises(InputError, match="3 × 64"):
        linear_network([member("test_vit", 0), copy.deepcopy(one)], head, features)
    with pytest.raises(InputError, match="whose classifier is one linear layer"):
        linear_network([Member(nn.Linear(2, 2), PLAIN, PLAIN)], head, features)
