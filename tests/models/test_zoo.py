import urllib.error
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from pellucid.errors import InputError, MissingWeightsError, UnknownNameError
from pellucid.models import zoo
from pellucid.models.zoo import create_model, fetch_weights, pretrained_normalisation


@pytest.mark.parametrize(("name", "channels", "size"), [("resnet18", 1, 64), ("vit_tiny_patch16_224", 3, 96)])
def test_networks_take_the_channels_and_size_asked_for(name: str, channels: int, size: int) -> None:
    network = create_model(name, classes=5, channels=channels, size=size).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, channels, size, size)).shape == (2, 5)


def test_a_smaller_output_stride_gives_a_finer_last_map() -> None:
    for stride, side in ((None, 2), (16, 4), (8, 8)):
        network = create_model("resnet10t", classes=2, channels=1, size=64, output_stride=stride).eval()
        with torch.no_grad():
            assert network.forward_features(torch.zeros(1, 1, 64, 64)).shape[-2:] == (side, side)


def test_a_stride_that_the_network_cannot_have_is_refused() -> None:
    with pytest.raises(InputError, match="output_stride: expected a stride that 'vgg16' can be built with, got 16"):
        create_model("vgg16", classes=2, output_stride=16)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'resnet81'. Did you mean 'resnet18'"):
        create_model("resnet81", classes=2)


def test_no_class_is_refused() -> None:
    with pytest.raises(InputError, match="classes: expected at least 1, got 0"):
        create_model("resnet18", classes=0)


def test_a_hub_out_of_reach_is_said_at_once_with_the_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(zoo.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(zoo, "_cached", lambda *_: False)
    with pytest.raises(MissingWeightsError, match=r"can't be fetched.*pretrained = false.*local weights file"):
        create_model("resnet18", classes=2, pretrained=True)


def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(zoo, "_cached", lambda *_: False)
    monkeypatch.setattr(zoo.urllib.request, "urlopen", lambda *_, **__: pytest.fail("the network was used"))
    with pytest.raises(MissingWeightsError, match="OfflineModeIsEnabled"):
        fetch_weights("resnet18")


def test_a_network_without_published_weights_says_so() -> None:
    with pytest.raises(MissingWeightsError, match="the model hub has no weights for 'botnet50ts_256'"):
        fetch_weights("botnet50ts_256")


def test_local_weights_load_with_channels_and_classes_adapted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("resnet18", num_classes=1000)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network = create_model("resnet18", classes=3, channels=1, pretrained=tmp_path / "w.safetensors")
    kept = network.get_parameter("layer1.0.conv1.weight")
    assert torch.equal(kept, source.get_parameter("layer1.0.conv1.weight"))
    summed = source.get_parameter("conv1.weight").sum(dim=1, keepdim=True)
    torch.testing.assert_close(network.get_parameter("conv1.weight"), summed)
    assert network.get_parameter("fc.weight").shape == (3, 512)


def test_local_weights_that_are_missing_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="isn't there"):
        create_model("resnet18", classes=3, pretrained=tmp_path / "none.safetensors")
    save_file({"conv1.weight": torch.ones(64, 1, 7, 7)}, tmp_path / "w.safetensors")
    with pytest.raises(MissingWeightsError, match="can't be loaded into 'resnet18' with 3 channels"):
        create_model("resnet18", classes=3, pretrained=tmp_path / "w.safetensors")


def test_normalisation_is_that_of_the_published_weights() -> None:
    assert pretrained_normalisation("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert pretrained_normalisation("vit_tiny_patch16_224")[0] == (0.5, 0.5, 0.5)
