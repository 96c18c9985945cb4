import pytest
import torch

from pellucid.devices import pick_device
from pellucid.errors import InputError


def test_auto_takes_what_the_machine_has() -> None:
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else pick_device("auto").type)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="device: expected"):
        pick_device(name)
