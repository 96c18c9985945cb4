import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import pytest
import safetensors.torch
import torch
from torch import nn

from pellucid.errors import InputError, UnreadableFileError
from pellucid.models.boosting import BoostedFeatures, TreeShape
from pellucid.models.checkpoints import (
    ModelCard,
    combined,
    digest,
    load_plain_weights,
    load_state,
    load_weights,
    read_card,
    read_state,
    save_weights,
)
from pellucid.models.ensemble import Ensemble
from pellucid.models.zoo import create_model

CARD = ModelCard(
    architecture="mobilenetv3_small_050",
    image_size=64,
    channels=1,
    classes=("benign", "malignant"),
    mean=(0.25,),
    std=(0.5,),
    normalisation="data-set",
    intensity="image",
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_model(CARD.architecture, classes=2, channels=1, size=64)


def test_weights_come_back_with_all_that_is_needed_to_use_them(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, network, CARD)
    loaded, card = load_weights(path)
    assert card == CARD == read_card(path)
    assert not loaded.training
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network.eval()(images), rtol=0, atol=0)


def test_the_enhancement_comes_back_and_older_cards_have_none(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, network, replace(CARD, enhancement="gamma[gamma=0.7]"))
    assert read_card(path).enhancement == "gamma[gamma=0.7]"
    older = {name: value for name, value in asdict(CARD).items() if name != "enhancement"}
    safetensors.torch.save_file(network.state_dict(), path, metadata={"pellucid": json.dumps(older)})
    assert read_card(path) == CARD
    assert CARD.enhancement == "none"


def test_the_output_stride_comes_back_with_the_weights(tmp_path: Path) -> None:
    card = replace(CARD, architecture="resnet10t", output_stride=8)
    save_weights(tmp_path / "w.safetensors", card.build(), card)
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    with torch.no_grad():
        assert loaded.forward_features(torch.zeros(1, 1, 64, 64)).shape[-2:] == (8, 8)


def test_equal_weights_give_equal_bytes(tmp_path: Path, network: nn.Module) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, network, CARD)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_channels_last_weights_are_written_in_plain_order(tmp_path: Path, network: nn.Module) -> None:
    save_weights(tmp_path / "plain", network, CARD)
    save_weights(tmp_path / "last", network.to(memory_format=torch.channels_last), CARD)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "last").read_bytes()


def test_a_file_without_a_card_says_so(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    with pytest.raises(UnreadableFileError, match="carries no model card"):
        read_card(path)


def test_a_damaged_file_says_so(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, network, CARD)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnreadableFileError, match="can't read .* as safetensors"):
        load_weights(path)


def test_a_card_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, metadata={"pellucid": json.dumps({"image_size": "big"})})
    with pytest.raises(UnreadableFileError, match="card"):
        read_card(path)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(nn.Linear(2, 2), path)  # a whole module, which needs unpickling of code
    with pytest.raises(UnreadableFileError, match="can't read weights"):
        read_state(path)


def test_a_plain_state_dict_is_read(tmp_path: Path) -> None:
    state = nn.Linear(2, 2).state_dict()
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    assert set(read_state(tmp_path / "w.pt")) == {"weight", "bias"}
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="a state dict of named tensors"):
        read_state(tmp_path / "x.pt")
    with pytest.raises(InputError, match="isn't there"):
        read_state(tmp_path / "none.pt")


def test_weights_that_do_not_fit_name_what_is_wrong() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(InputError, match="they lack bias"):
        load_state(layer, {"weight": torch.ones(3, 2)})
    with pytest.raises(InputError, match="have unknown extra"):
        load_state(layer, {**layer.state_dict(), "extra": torch.ones(1)})
    with pytest.raises(InputError, match=r"another shape for weight \(1, 2\) for \(3, 2\)"):
        load_state(layer, {**layer.state_dict(), "weight": torch.ones(1, 2)})


def test_the_network_of_another_size_is_refused(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, network, replace(CARD, classes=("a", "b", "c")))
    with pytest.raises(InputError, match="another shape for classifier.weight"):
        load_weights(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_plain_state_dict_gets_the_card_that_its_architecture_implies(
    tmp_path: Path, network: nn.Module, suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    write = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    write(network.state_dict(), path)  # type: ignore[operator]
    loaded, card = load_plain_weights(path, CARD.architecture, classes=("a", "b"), size=64, channels=1)
    assert (card.classes, card.image_size, card.channels, card.normalisation) == (("a", "b"), 64, 1, "imagenet")
    assert card.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))
    assert card.std == pytest.approx(((0.229 + 0.224 + 0.225) / 3,))
    assert not loaded.training
    assert digest(loaded) == digest(network)
    with pytest.raises(InputError, match="they have another shape for .*classifier"):
        load_plain_weights(path, CARD.architecture, classes=("a", "b", "c"), channels=1)


def test_weights_with_a_card_are_not_taken_for_plain_ones(tmp_path: Path, network: nn.Module) -> None:
    save_weights(tmp_path / "w.safetensors", network, CARD)
    with pytest.raises(InputError, match="none for weights that carry a model card"):
        load_plain_weights(tmp_path / "w.safetensors", CARD.architecture, classes=("a", "b"), channels=1)


def test_a_digest_follows_every_value_and_name(network: nn.Module) -> None:
    one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    other.load_state_dict(one.state_dict())
    assert digest(one) == digest(other)
    with torch.no_grad():
        other.bias += 1e-6
    assert digest(one) != digest(other)
    assert digest(nn.Sequential(one)) != digest(one)
    assert digest(nn.BatchNorm2d(3)) != digest(nn.BatchNorm2d(4))  # a count without an axis among them


def small(architecture: str, **changed: object) -> ModelCard:
    card = ModelCard(architecture, 32, 3, ("a", "b", "c"), (0.1,) * 3, (0.5,) * 3, "data-set")
    return replace(card, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("vote", ["weighted", "sum"])
def test_an_ensemble_comes_back_from_one_file(tmp_path: Path, vote: Literal["weighted", "sum"]) -> None:
    torch.manual_seed(0)
    own = small("resnet10t", mean=(0.4,) * 3, std=(0.2,) * 3, image_size=48)
    card = combined([small("test_resnet"), own], vote)
    network = card.build().eval()
    assert isinstance(network, Ensemble)
    network.weights.copy_(torch.tensor([0.25, 0.75]))
    save_weights(tmp_path / "w.safetensors", network, card)
    loaded, read = load_weights(tmp_path / "w.safetensors")
    assert read == card
    assert read.architecture == "test_resnet + resnet10t"
    assert digest(loaded) == digest(network)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network(images))
    network.weights.copy_(torch.tensor([0.75, 0.25]))
    assert digest(loaded) != digest(network)


def test_trees_come_back_without_a_pickle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = combined([small("test_resnet"), small("resnet10t")], "boosting", TreeShape(5, 3, 7, 2))
    network = card.build().eval()
    assert isinstance(network, BoostedFeatures)
    generator = torch.Generator().manual_seed(0)
    trees = network.trees
    trees.feature.copy_(torch.randint(64, trees.feature.shape, generator=generator))
    trees.left.copy_(torch.randint(7, trees.left.shape, generator=generator))
    trees.value.copy_(torch.randn(trees.value.shape, generator=generator))
    save_weights(tmp_path / "w.safetensors", network, card)
    loaded, read = load_weights(tmp_path / "w.safetensors")
    assert read == card
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), network(images), rtol=0, atol=0)


def test_the_card_of_one_network_says_nothing_of_members(tmp_path: Path) -> None:
    card = small("test_resnet")
    save_weights(tmp_path / "w.safetensors", card.build(), card)
    with safetensors.safe_open(tmp_path / "w.safetensors", framework="pt") as handle:
        fields = json.loads(handle.metadata()["pellucid"])
    assert not {"members", "vote", "trees"} & set(fields)


@pytest.mark.parametrize("changed", [{"classes": ("a", "b")}, {"intensity": "image"}])
def test_members_take_the_same_images_and_tell_the_same_classes(changed: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"members: expected the same {next(iter(changed))}"):
        combined([small("test_resnet"), small("test_resnet", **changed)], "soft")
    with pytest.raises(InputError, match="at least one network"):
        combined([], "soft")
