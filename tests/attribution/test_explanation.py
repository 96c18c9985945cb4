from __future__ import annotations

import dataclasses

import pytest
import torch

from pellucid.attribution import concatenate
from pellucid.attribution.explanation import Explanation, coinciding_maps
from pellucid.errors import InputError, UnknownNameError


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


@pytest.mark.parametrize(
    ("which", "places"),
    [(3, [3]), (-1, [4]), (slice(2, 5), [2, 3, 4]), (slice(None, None, -2), [4, 2, 0]), (slice(3, 99), [3, 4])],
)
def test_an_index_explains_those_images_alone(which: int | slice, places: list[int]) -> None:
    whole = explanation(0, 5)
    part, wanted = whole[which], concatenate([explanation(place, 1) for place in places])
    for name in ("maps", "layer_maps"):
        for label, values in getattr(wanted, name).items():
            assert torch.equal(getattr(part, name)[label], values)
    for name in ("target", "score", "probability"):
        assert torch.equal(getattr(part, name), getattr(wanted, name))
    assert (part.layer, part.grid, part.seed, part.coinciding) == ("layer4", (2, 2), 7, (("a", "b"),))
    assert part.seconds == pytest.approx({"forward": len(places) / 5, "a": len(places) / 10, "b": len(places) / 20})


def test_the_images_one_by_one_are_the_whole_again() -> None:
    whole = explanation(0, 5)
    again = concatenate(list(whole))
    assert len(whole) == len(again) == 5
    assert torch.equal(again["b"], whole.maps["b"])
    assert again.seconds == pytest.approx(whole.seconds)


def test_a_part_says_which_methods_coincide_there() -> None:
    first, second = torch.ones(1, 2, 2), torch.arange(4.0).reshape(1, 2, 2)
    whole = explanation(0, 2, layer_maps={"a": torch.cat([first] * 2), "b": torch.cat([first, second])}, coinciding=())
    assert (whole[0].coinciding, whole[1].coinciding) == ((("a", "b"),), ())


def test_an_index_that_means_nothing_is_refused() -> None:
    whole = explanation(0, 3)
    for which in (3, -4):
        with pytest.raises(InputError, match="a place from -3 to 2"):
            whole[which]
    with pytest.raises(InputError, match="at least one of 3 images, got none"):
        whole[3:]
    with pytest.raises(InputError, match="a method's label, an image's place or a slice of places, got float"):
        whole[1.0]  # type: ignore[call-overload]
    with pytest.raises(UnknownNameError, match="unknown method in this explanation 'layer-cam'. Known: a, b"):
        whole["layer-cam"]


def test_a_users_own_maps_take_the_place_of_the_explanations() -> None:
    mine = {"mine": torch.rand(2, 8, 8)}
    replaced = dataclasses.replace(explanation(0, 2), maps=mine)
    assert replaced.maps is mine
    assert torch.equal(replaced.target, explanation(0, 2).target)
