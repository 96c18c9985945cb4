from __future__ import annotations

import dataclasses

import pytest
import torch

from pellucid.attribution import concatenate
from pellucid.attribution.explanation import Explanation, coinciding_maps
from pellucid.errors import InputError


def explanation(first: int, count: int, **changes: object) -> Explanation:
    places = torch.arange(first, first + count)
    grid = torch.arange(1.0, 5.0).reshape(1, 2, 2) * (places + 1).reshape(-1, 1, 1)
    whole = Explanation(
        maps={"a": grid, "b": grid * 2},
        target=places % 3,
        score=places.float(),
        probability=places / 10,
        layer="layer4",
        grid=(2, 2),
        seconds={"forward": 1.0, "a": 0.5, "b": 0.25},
        layer_maps={"a": grid, "b": grid * 2},
        coinciding=(("a", "b"),),
        seed=7,
    )
    return dataclasses.replace(whole, **changes)


def test_parts_together_are_the_whole() -> None:
    whole, both = explanation(0, 5), concatenate([explanation(0, 2), explanation(2, 3)])
    for field in dataclasses.fields(Explanation):
        ours, theirs = getattr(both, field.name), getattr(whole, field.name)
        if field.name == "seconds":
            assert ours == {"forward": 2.0, "a": 1.0, "b": 0.5}
        elif isinstance(theirs, dict):
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        elif isinstance(theirs, torch.Tensor):
            assert torch.equal(ours, theirs)
        else:
            assert ours == theirs


def test_methods_that_coincide_on_one_part_only_do_not_on_the_whole() -> None:
    other = explanation(2, 1, layer_maps={"a": torch.rand(1, 2, 2), "b": torch.rand(1, 2, 2)}, coinciding=())
    assert concatenate([explanation(0, 2), other]).coinciding == ()


@pytest.mark.parametrize("changes", [{"layer": "layer3"}, {"grid": (3, 3)}, {"maps": {"a": torch.ones(1, 2, 2)}}])
def test_parts_that_differ_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="parts: expected the same methods, layer and grid in each"):
        concatenate([explanation(0, 1), explanation(1, 1, **changes)])
    with pytest.raises(InputError, match="parts: expected at least one explanation, got none"):
        concatenate([])


def test_coinciding_wants_the_same_positive_scale_over_the_whole_of_every_map() -> None:
    draw = torch.Generator().manual_seed(0)
    base = torch.rand(4, 3, 3, generator=draw)
    scales = torch.tensor([1.0, 2.0, 0.1, 1e4]).reshape(-1, 1, 1)
    nearly = base.clone()
    nearly[3, 1, 1] *= 1.01
    maps = {
        "base": base,
        "scaled": base * scales,
        "negative": -base,
        "nearly": nearly,
        "other": torch.rand(4, 3, 3, generator=draw),
        "rounded": base * (1 + 1e-6 * torch.randn(4, 3, 3, generator=draw)),
        "nearly-too": nearly * 3,
    }
    assert coinciding_maps(maps) == (("base", "scaled", "rounded"), ("nearly", "nearly-too"))


def test_a_map_of_zeros_is_no_scale_of_another_map() -> None:
    one = torch.ones(2, 2, 2)
    half = one.clone()
    half[1] = 0
    assert coinciding_maps({"one": one, "half": half, "none": torch.zeros(2, 2, 2)}) == ()
    assert coinciding_maps({"half": half, "too": half * 2}) == (("half", "too"),)


def test_maps_of_all_classes_may_each_have_their_own_scale() -> None:
    base = torch.rand(2, 3, 4, 4)
    assert coinciding_maps({"a": base, "b": base * torch.rand(2, 3, 1, 1).add(0.1)}) == (("a", "b"),)


def test_a_users_own_maps_take_the_place_of_the_explanations() -> None:
    mine = {"mine": torch.rand(2, 8, 8)}
    replaced = dataclasses.replace(explanation(0, 2), maps=mine)
    assert replaced.maps is mine
    assert torch.equal(replaced.target, explanation(0, 2).target)
