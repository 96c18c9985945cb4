from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pellucid.attribution import explain
from pellucid.errors import MissingWeightsError
from pellucid.models.checkpoints import ModelCard, digest, load_weights, save_weights
from pellucid.models.zoo import count_parameters, create_model
from pellucid.training.defaults import family_of

NAMES = ("densenet_light", "vgg_bn_light")


@pytest.mark.parametrize("name", NAMES)
def test_small_images_have_maps_of_a_sixteenth(name: str) -> None:
    network = create_model(name, classes=3, channels=1, size=128).eval()
    explanation = explain(network, torch.rand(2, 1, 128, 128), methods=("layer-cam", "ablation-cam"))
    assert explanation.grid == (8, 8)
    assert explanation.maps["ablation-cam"].any()


@pytest.mark.parametrize("name", NAMES)
def test_far_fewer_parameters_than_the_familys_smallest(name: str) -> None:
    full = {"densenet_light": "densenet121", "vgg_bn_light": "vgg11_bn"}[name]
    with torch.device("meta"):
        assert count_parameters(create_model(name, classes=3)) < 0.2 * count_parameters(create_model(full, classes=3))


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_by_name(name: str, tmp_path: Path) -> None:
    network = create_model(name, classes=2, channels=1, size=128).eval()
    card = ModelCard(name, 64, 1, ("a", "b"), (0.5,), (0.25,), "data-set", "dtype", None)
    save_weights(tmp_path / "w.safetensors", network, card)
    again, _ = load_weights(tmp_path / "w.safetensors", torch.device("cpu"))
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(images), network(images))
    assert digest(again) == digest(network)


def test_nobody_published_weights() -> None:
    with pytest.raises(MissingWeightsError, match="has no weights for 'vgg_bn_light'"):
        create_model("vgg_bn_light", classes=2, pretrained=True)


def test_families_are_known_to_the_training() -> None:
    assert [family_of(name) for name in NAMES] == ["densenet", "vgg-bn"]
