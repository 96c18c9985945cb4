import pytest
import torch

from pellucid.devices import pick_device, pick_devices
from pellucid.errors import InputError


def test_auto_takes_what_the_machine_has() -> None:
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else pick_device("auto").type)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="device: expected"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cpu,1", "cuda:0,2", "cuda:1,0", "cuda,1", "cuda:x,1", "cpu,cpu"])
def test_several_devices_follow_one_another(name: str) -> None:
    with pytest.raises(InputError, match="device: expected several as in 'cuda:0,1', one after the other, got"):
        pick_devices(name)


def test_one_device_is_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_devices("cpu") == (torch.device("cpu"),)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert pick_devices("cuda:1,2") == (torch.device("cuda", 1), torch.device("cuda", 2))
    with pytest.raises(InputError, match="device: expected a device of this machine, got 'cuda:3'"):
        pick_devices("cuda:2,3")
