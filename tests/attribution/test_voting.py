import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid import evaluate
from pellucid.attribution import METHODS, GridWarning, explain
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.run import looks_at_layer
from pellucid.attribution.voting import vote_of_maps
from pellucid.errors import InputError, UnknownNameError
from pellucid.models.ensemble import Ensemble, Member, Preparation
from pellucid.models.zoo import create_model

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")

PLAIN = Preparation((0.4, 0.5, 0.6), (0.25, 0.25, 0.25), 32)
LAYER_CAMS = sorted(entry.name for entry in METHODS if looks_at_layer(METHODS.resolve(entry.name)))
SLOW = {"score-cam"}  # a pass for each channel
CAMS = ("grad-cam", "grad-cam-plus-plus", "layer-cam", "eigen-grad-cam", "ablation-cam")


def net(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(name, classes=3, size=32).eval()


def vote(nets: Sequence[nn.Module], weights: Sequence[float] | None = None) -> Ensemble:
    return Ensemble([Member(each, PLAIN, PLAIN) for each in nets], weights).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def nets() -> list[nn.Module]:
    return [net("test_resnet", 0), net("resnet10t", 1)]


def close(one: Tensor, other: Tensor) -> None:
    scale = float(other.abs().max()) or 1.0
    torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=2e-4)


def test_a_vote_of_two_copies_has_the_networks_maps(nets: list[nn.Module], images: Tensor) -> None:
    methods = ["saliency", "integrated-gradients", "occlusion", "random"]
    methods += [name for name in LAYER_CAMS if name not in SLOW and name not in _untaken(nets[0], images)]
    assert len(methods) > 15
    one = explain(nets[0], images, methods)
    both = explain(vote([nets[0], copy.deepcopy(nets[0])]), images, methods)
    torch.testing.assert_close(both.score, one.score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.probability, one.probability, rtol=1e-4, atol=1e-5)
    assert list(both.maps) == list(one.maps)
    assert both.grid == one.grid
    assert set(both.seconds) == set(one.seconds)
    for method in methods:
        close(both.maps[method], one.maps[method])


def _untaken(model: nn.Module, images: Tensor) -> list[str]:
    """Methods of transformers, which a ResNet can't be explained by."""
    refused = []
    for name in LAYER_CAMS:
        if name in SLOW:
            continue
        try:
            explain(model, images[:1], name)
        except InputError:
            refused.append(name)
    return refused


def test_all_the_weight_on_one_member_gives_its_maps(nets: list[nn.Module], images: Tensor) -> None:
    one = explain(nets[1], images, CAMS, target=1)
    voted = explain(vote(nets, [0.0, 1.0]), images, CAMS, target=1)
    for method in CAMS:
        close(voted.maps[method], one.maps[method])


def test_maps_are_the_weighted_mean_of_the_members_for_the_votes_class(nets: list[nn.Module], images: Tensor) -> None:
    """Recomputed member by member from what the layer gave, with the class that the vote predicts."""
    weights = [0.3, 0.7]
    ensemble = vote(nets, weights)
    with torch.no_grad():
        predicted = sum(w * each(images).softmax(dim=1) for w, each in zip(weights, nets, strict=True)).argmax(dim=1)
    voted = explain(ensemble, images, CAMS, batch_size=2)
    assert voted.target.tolist() == predicted.tolist()
    parts = [explain(each, images, CAMS, target=predicted) for each in nets]
    for method in CAMS:
        maps = [resize_maps(part.layer_maps[method], (32, 32)) for part in parts]
        sizes = [each.abs().amax(dim=(1, 2), keepdim=True) for each in maps]
        mean = sum(w * m / s.clamp(min=1e-30) for w, m, s in zip(weights, maps, sizes, strict=True))
        close(voted.maps[method], mean * (weights[0] * sizes[0] + weights[1] * sizes[1]))


def test_integrated_gradients_add_up_to_the_ensembles_score(nets: list[nn.Module], images: Tensor) -> None:
    ensemble = vote(nets, [0.4, 0.6])
    found = explain(ensemble, images, [pellucid.method("integrated-gradients", steps=300)], target=2)
    with torch.no_grad():
        difference = ensemble(images)[:, 2] - ensemble(torch.zeros_like(images))[:, 2]
    total = next(iter(found.maps.values())).sum(dim=(1, 2))
    torch.testing.assert_close(total, difference, rtol=2e-2, atol=2e-3)


def test_all_classes_smoothed_maps_and_a_function_as_target(nets: list[nn.Module], images: Tensor) -> None:
    ensemble = vote(nets)
    every = explain(ensemble, images, "layer-cam", target="all")
    assert every.maps["layer-cam"].shape == (3, 3, 32, 32)
    for target in range(3):
        close(every.maps["layer-cam"][:, target], explain(ensemble, images, "layer-cam", target=target)["layer-cam"])
    mirrored = explain(ensemble, images.flip(-1), [pellucid.method("grad-cam", smooth="flips")], target=0)
    straight = explain(ensemble, images, [pellucid.method("grad-cam", smooth="flips")], target=0)
    for name, values in straight.maps.items():
        close(mirrored.maps[name].flip(-1), values)
    difference = explain(ensemble, images, "grad-cam", target=lambda logits: logits[:, 0] - logits[:, 1])
    assert difference.target.tolist() == [-1] * 3
    assert difference["grad-cam"].shape == (3, 32, 32)


def test_members_of_other_sizes_and_norms(images: Tensor) -> None:
    """The maps of a member that takes larger images lie on the images that were given."""
    larger = Preparation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 64)
    first, second = net("test_resnet", 0), net("test_resnet", 3)
    ensemble = Ensemble([Member(first, PLAIN, PLAIN), Member(second, PLAIN, larger)], [0.0, 1.0]).eval()
    found = explain(ensemble, images, "layer-cam", target=1)
    seen = nn.functional.interpolate(
        images * 0.25 + torch.tensor(PLAIN.mean)[:, None, None], size=(64, 64), mode="bilinear", align_corners=False
    )
    alone = explain(second, seen, "layer-cam", target=1)
    assert found["layer-cam"].shape == (3, 32, 32)
    close(found["layer-cam"], resize_maps(alone.layer_maps["layer-cam"], (32, 32)))


def test_layers_can_be_named_and_are_taken_again(nets: list[nn.Module], images: Tensor) -> None:
    ensemble = vote(nets)
    auto = explain(ensemble, images, "layer-cam")
    assert auto.layer == "members.0.network.layer4 + members.1.network.layer4"
    again = explain(ensemble, images, "layer-cam", layer=auto.layer)
    torch.testing.assert_close(again["layer-cam"], auto["layer-cam"], rtol=0, atol=0)
    finer = explain(ensemble, images, "layer-cam", layer="members.0.network.layer2 + members.1.network.layer2")
    assert finer.grid > auto.grid
    single = explain(ensemble, images, "grad-cam", layer="members.0.network.layer4")  # of the vote's score
    assert single.layer == "members.0.network.layer4"
    with pytest.raises(InputError, match="one layer of each of 2 members"):
        explain(ensemble, images, "layer-cam", layer="members.0.network.layer4 + members.0.network.layer3")
    with pytest.raises(UnknownNameError, match="Did you mean 'layer"):
        explain(ensemble, images, "layer-cam", layer="members.0.network.layer44 + members.1.network.layer4")


def test_an_ensemble_votes_in_an_ensemble(nets: list[nn.Module], images: Tensor) -> None:
    inner = vote([nets[0], copy.deepcopy(nets[0])])
    outer, flat = vote([inner, nets[1]], [0.4, 0.6]), vote(nets, [0.4, 0.6])
    found, expected = (explain(each, images, ("layer-cam", "eigen-cam"), target=1) for each in (outer, flat))
    assert found.layer.count(" + ") == 2
    for method in found.maps:
        close(found[method], expected[method])
    again = explain(outer, images, "layer-cam", target=1, layer=found.layer)
    torch.testing.assert_close(again["layer-cam"], found["layer-cam"], rtol=0, atol=0)


def test_methods_that_coincide_on_every_member_do_so_on_the_vote(nets: list[nn.Module], images: Tensor) -> None:
    alone = explain(nets[0], images, ("grad-cam", "hires-cam", "eigen-cam", "random"))
    voted = explain(vote(nets), images, ("grad-cam", "hires-cam", "eigen-cam", "random"))
    assert voted.coinciding == alone.coinciding == (("grad-cam", "hires-cam"),)


def test_metrics_take_an_ensemble_and_make_its_maps_again(nets: list[nn.Module], images: Tensor) -> None:
    ensemble = vote(nets)
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    found = explain(ensemble, images, ("layer-cam", "grad-cam"))
    metrics = ("deletion", pellucid.metric("avg-sensitivity", draws=2), "random-logit")
    table = evaluate(ensemble, images, found, metrics=metrics)
    assert table["value"].notna().all()
    assert len(table) == 3 * 2 * 3
    for name, value in ensemble.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_coarse_grid_is_told_of(nets: list[nn.Module], images: Tensor) -> None:
    with pytest.warns(GridWarning, match="members.0.network.layer4"):
        explain(vote(nets), images, "layer-cam")


def test_a_listener_hears_of_each_image_once_in_all(nets: list[nn.Module], images: Tensor) -> None:
    heard: list[float] = []
    methods = ["layer-cam", "occlusion", pellucid.method("rise", samples=5)]
    explain(vote(nets), images, methods, progress=lambda steps=1, note="": heard.append(steps))
    assert sum(heard) == pytest.approx(len(images))
    assert min(heard) >= 0
    assert max(heard) <= len(images) / 3  # no more than a method's part at once


def test_an_empty_map_takes_no_part() -> None:
    empty, full = torch.zeros(1, 2, 2), torch.tensor([[[0.0, 4.0], [2.0, 0.0]]])
    voted = vote_of_maps([empty, full], torch.tensor([0.5, 0.5]), 2)
    torch.testing.assert_close(voted, full / 4)
