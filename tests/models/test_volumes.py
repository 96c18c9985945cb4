"""Networks for volumes by name: built, saved with a card, loaded back, and taken from MONAI's own state dicts."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pellucid.errors import InputError, MissingWeightsError, UnknownNameError
from pellucid.models.checkpoints import ModelCard, load_plain_weights, load_weights, read_card, save_weights
from pellucid.models.layers import find_layer
from pellucid.models.volumes import LEAST, NETWORKS
from pellucid.models.zoo import create_model

CARD = ModelCard("resnet10-3d", (24, 32, 40), 1, ("sick", "well"), (0.25,), (0.5,), "data-set", "image")
LAYERS = {
    "densenet121-3d": "class_layers.relu",
    "efficientnet-b0-3d": "_bn1",
    "resnet10-3d": "layer4",
    "seresnet50-3d": "layer4",
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_each_kind_gives_logits_of_a_volume(name: str) -> None:
    network = create_model(name, classes=3, channels=1, size=(32, 48, 64)).eval()
    with torch.no_grad():
        volume = torch.rand(1, 1, 32, 48, 64)
        assert network(volume).shape == (1, 3)
    assert find_layer(network, volume) == LAYERS[name]
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_every_name_is_built_and_ends_in_3d() -> None:
    for name in NETWORKS:
        assert name.endswith("-3d")
        with torch.device("meta"):
            network = create_model(name, classes=2, channels=3, size=(32, 32, 32))
        assert next(p for p in network.parameters() if p.ndim == 5).shape[1] == 3, name


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"densenet169-3d", "resnet34-3d", "resnet50-3d"}))
def test_the_least_size_of_each_network_is_the_least_that_runs(name: str) -> None:
    least = LEAST.get(name, 1)
    network = create_model(name, classes=2, channels=1, size=(least,) * 3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *(least,) * 3)).shape == (1, 2)
        if least > 1 and name != "vit-3d":
            with pytest.raises((RuntimeError, ValueError, AssertionError)):
                network(torch.zeros(1, 1, least, least, least - 1))
    if least > 1:
        with pytest.raises(InputError, match=f"size: expected at least {least} voxels along each axis for '{name}'"):
            create_model(name, classes=2, size=(least, least, least - 1))


def test_the_slim_network_has_a_quarter_of_the_channels() -> None:
    slim, whole = (
        create_model(name, classes=2, channels=1, size=(16, 16, 16)) for name in ("resnet10-slim-3d", "resnet10-3d")
    )
    assert slim.get_submodule("fc").in_features * 4 == whole.get_submodule("fc").in_features
    ratio = sum(p.numel() for p in whole.parameters()) / sum(p.numel() for p in slim.parameters())
    assert 14 < ratio < 17
    assert find_layer(slim, torch.rand(1, 1, 16, 16, 16)) == "layer4"


def test_the_logits_of_a_vit_have_no_tanh() -> None:
    network = create_model("vit-3d", classes=2, channels=1, size=(16, 16, 32)).eval()
    torch.nn.init.constant_(network.get_parameter("classification_head.bias"), 5.0)
    with torch.no_grad():
        assert float(network(torch.rand(1, 1, 16, 16, 32)).min()) > 2
    assert find_layer(network, torch.rand(1, 1, 16, 16, 32)) == "blocks.11.norm1"


@pytest.mark.parametrize(
    ("name", "nearest"), [("densenet121_3d", "densenet121-3d"), ("resnet-18-3d", "resnet18-3d"), ("vit3d", "vit-3d")]
)
def test_an_unknown_name_gives_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=nearest):
        create_model(name, classes=2, size=(32, 32, 32))


def test_what_a_network_of_volumes_cannot_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"size: expected three lengths \(D, H, W\) for 'resnet18-3d', got 224"):
        create_model("resnet18-3d", classes=2)
    with pytest.raises(InputError, match=r"size: expected one length, of a square picture for 'resnet18'"):
        create_model("resnet18", classes=2, size=(32, 32, 32))
    with pytest.raises(InputError, match="size: expected multiples of 16 for 'vit-3d', got 32 × 32 × 40"):
        create_model("vit-3d", classes=2, size=(32, 32, 40))
    with pytest.raises(InputError, match="output_stride: expected none for 'resnet18-3d'"):
        create_model("resnet18-3d", classes=2, size=(32, 32, 32), output_stride=8)
    for pretrained in (True, tmp_path):
        with pytest.raises(MissingWeightsError, match="there are no weights for 'resnet18-3d'"):
            create_model("resnet18-3d", classes=2, size=(32, 32, 32), pretrained=pretrained)


def test_weights_of_volumes_come_back_with_their_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = CARD.build().eval()
    save_weights(tmp_path / "w.safetensors", network, CARD)
    loaded, card = load_weights(tmp_path / "w.safetensors")
    assert card == CARD == read_card(tmp_path / "w.safetensors")
    assert card.axes == 3
    volume = torch.rand(1, 1, 24, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(loaded(volume), network(volume), rtol=0, atol=0)


def test_cards_of_before_are_read(tmp_path: Path) -> None:
    old = {
        "architecture": "resnet18", "image_size": 64, "channels": 1, "classes": ["a", "b"], "mean": [0.5], "std": [0.5],
        "normalisation": "imagenet", "intensity": "dtype", "output_stride": None,
    }  # fmt: skip
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "w", metadata={"pellucid": json.dumps(old)})
    card = read_card(tmp_path / "w")
    assert (card.image_size, card.axes) == (64, 2)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_plain_state_dict_of_monai_is_taken_by_name(tmp_path: Path, suffix: str) -> None:
    nets = importlib.import_module("monai.networks.nets")
    torch.manual_seed(1)
    network = nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2).eval()
    path = tmp_path / f"w{suffix}"
    write = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    write(network.state_dict(), path)
    loaded, card = load_plain_weights(path, "resnet10-3d", classes=("a", "b"), size=(24, 32, 40))
    assert (card.image_size, card.channels, card.intensity) == ((24, 32, 40), 1, "image")
    assert (card.mean, card.std, card.normalisation) == ((0.0,), (1.0,), "none")
    volume = torch.rand(1, 1, 24, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(loaded(volume), network(volume), rtol=0, atol=0)
    assert load_plain_weights(path, "resnet10-3d", classes=("a", "b"))[1].image_size == (96, 96, 96)
    assert load_plain_weights(path, "resnet10-3d", classes=("a", "b"), size=48)[1].image_size == (48, 48, 48)
    with pytest.raises(InputError, match="another shape for fc.weight"):
        load_plain_weights(path, "resnet10-3d", classes=("a", "b", "c"))
