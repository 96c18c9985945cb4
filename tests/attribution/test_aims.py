"""Targets beyond the class of an image, each against its score written out by hand, image by image."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pellucid
from pellucid.attribution import at, box_score, class_over_region, method, multi_label, output_at
from pellucid.attribution.targets import Target
from pellucid.errors import InputError

IMAGES = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
METHODS = [
    "grad-cam",
    "ablation-cam",
    method("occlusion", window=8, stride=8),
    method("integrated-gradients", steps=8),
    "saliency",
]
Score = Callable[[Any, int], Tensor]  # the output for one image, and its place in the call -> its score


class Body(nn.Module):
    """Features on an 8 × 8 grid, and a head that makes something of them."""

    def __init__(self, head: Callable[[Tensor], Any], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU())
        self.last = nn.Conv2d(6, 5, 1)
        with torch.no_grad():  # so that the images' outputs differ from place to place
            self.last.weight *= 4
            self.last.bias -= self.last(self.features(IMAGES)).mean(dim=(0, 2, 3))
        self._head = head

    def forward(self, images: Tensor) -> Any:
        return self._head(self.last(self.features(images)))


def segmentation() -> Body:
    """As torchvision's: a dict, enlarged to the image, three classes."""
    return Body(lambda x: {"out": functional.interpolate(x[:, :3].tanh(), scale_factor=2.0), "aux": x})


def detector(dropped: float | None = None) -> Body:
    """One stage, one box per cell of 4 × 4, five numbers each; a list of dicts per image where weak ones go."""

    def head(x: Tensor) -> Any:
        x = functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2)  # (M, 16, 5)
        rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        corner = torch.stack([columns, rows], dim=-1).reshape(16, 2) * 4
        boxes = torch.cat([corner - x[..., :2].sigmoid(), corner + 4 + x[..., 2:4].sigmoid()], dim=2)
        scores = (3 * x[..., 4]).sigmoid()
        labels = torch.arange(16).remainder(2).expand(len(x), 16)
        if dropped is None:
            return {"boxes": boxes, "scores": scores, "labels": labels}
        kept = [score > dropped for score in scores]
        parts = zip(boxes, scores, labels, kept, strict=True)
        return [{"boxes": b[k], "scores": s[k], "labels": n[k]} for b, s, n, k in parts]

    return Body(head)


def gradient_of(model: nn.Module, place: int, score: Score, image: Tensor | None = None) -> Tensor:
    image = (IMAGES[place] if image is None else image)[None].clone().requires_grad_()
    return torch.autograd.grad(score(model(image), place), image)[0][0]


def by_hand(model: Body, place: int, score: Score) -> dict[str, Tensor]:
    """The five maps of one image, from their definitions."""
    image = IMAGES[place]
    with torch.no_grad():
        features = model.features(image[None])
        whole = score(model(image[None]), place)
    leaf = features.clone().requires_grad_()
    slopes = torch.autograd.grad(score(model._head(model.last(leaf)), place), leaf)[0][0]
    cam = (slopes.mean(dim=(1, 2))[:, None, None] * features[0]).sum(dim=0).relu()
    with torch.no_grad():
        drops = []
        for channel in range(6):
            ablated = features.clone()
            ablated[:, channel] = 0
            drops.append(whole - score(model._head(model.last(ablated)), place))
        weights = torch.stack(drops).reshape(6) / whole.abs() if whole else torch.zeros(6)
        ablation = (weights[:, None, None] * features[0]).sum(dim=0).relu()
        occlusion = torch.zeros(16, 16)
        for top in (0, 8):
            for left in (0, 8):
                hidden = image[None].clone()
                hidden[:, :, top : top + 8, left : left + 8] = 0
                occlusion[top : top + 8, left : left + 8] = whole - score(model(hidden), place)
    nodes, shares = np.polynomial.legendre.leggauss(8)
    path = torch.zeros(16, 16)
    for node, share in zip(nodes.tolist(), shares.tolist(), strict=True):
        path = path + share / 2 * gradient_of(model, place, score, (node + 1) / 2 * image)
    sizes = [functional.interpolate(each[None, None], (16, 16), mode="bilinear")[0, 0] for each in (cam, ablation)]
    return dict(
        zip(
            ("grad-cam", "ablation-cam", "occlusion", "integrated-gradients", "saliency"),
            (*sizes, occlusion, (path * image).sum(dim=0), gradient_of(model, place, score).abs()[0]),
            strict=True,
        )
    )


def check(model: Body, target: Target, score: Score) -> pellucid.Explanation:
    model = model.eval()
    found = pellucid.explain(model, IMAGES, METHODS, target=target, layer="features", batch_size=2)
    for place in range(3):
        with torch.no_grad():
            torch.testing.assert_close(found.score[place], score(model(IMAGES[place : place + 1]), place).reshape(()))
        for name, wanted in by_hand(model, place, score).items():
            label = next(label for label in found.maps if label.split("[")[0] == name)
            torch.testing.assert_close(found[label][place], wanted, rtol=2e-3, atol=1e-5, msg=lambda m, n=name: n + m)
    return found


def masks() -> Tensor:
    inside = torch.zeros(3, 16, 16, dtype=torch.bool)
    inside[0, :5, :5] = inside[1, 9:, 3:12] = inside[2, 4, 4] = True
    return inside


def test_a_class_over_each_images_own_region() -> None:
    regions = masks()
    check(segmentation(), at("out", class_over_region(1, regions)), lambda o, i: o["out"][0, 1][regions[i]].sum())
    check(
        segmentation(),
        at("out", class_over_region(2, regions, mean=True)),
        lambda o, i: o["out"][0, 2][regions[i]].mean(),
    )
    one = regions[1]
    found = check(segmentation(), at("out", class_over_region(0, one)), lambda o, i: o["out"][0, 0][one].sum())
    assert found.target.tolist() == [-1, -1, -1]
    assert found.probability.isnan().all()


def test_a_class_where_it_is_predicted_stays_there_when_the_image_is_hidden() -> None:
    model = segmentation().eval()
    with torch.no_grad():
        fixed = model(IMAGES)["out"].argmax(dim=1)
        shown = model(torch.zeros_like(IMAGES))["out"].argmax(dim=1)
    index = int(fixed.flatten().bincount().argmax())
    assert bool(((fixed == index) != (shown == index)).any())  # following the prediction would give other scores
    check(model, at("out", class_over_region(index)), lambda o, i: o["out"][0, index][fixed[i] == index].sum())


def test_a_class_that_is_predicted_nowhere_has_no_evidence() -> None:
    model = Body(lambda x: torch.cat([x[:, :1] - 100, x[:, 1:2] + 100], dim=1))
    with torch.no_grad():
        found = pellucid.explain(model, IMAGES, METHODS, target=class_over_region(0, mean=True), layer="features")
    assert found.score.tolist() == [0, 0, 0]
    assert all(not values.any() for values in found.maps.values())


def test_a_segmentation_in_three_dimensions_with_one_logit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 1))
    volumes = torch.rand(2, 1, 7, 8, 9)
    with torch.no_grad():
        model[2].bias -= model(volumes).median()
    found = pellucid.explain(model, volumes, ["saliency", "layer-cam"], target=class_over_region(0), layer="1")
    with torch.no_grad():
        logits = model(volumes)[:, 0]
    assert 0.2 < float((logits > 0).float().mean()) < 0.8
    torch.testing.assert_close(found.score, logits.clamp(min=0).flatten(1).sum(dim=1))
    assert found["layer-cam"].shape == (2, 7, 8, 9)


def iou(one: Tensor, other: Tensor) -> float:
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    shared = max(0.0, float(right - left)) * max(0.0, float(bottom - top))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return shared / (sum(areas) - shared)


def nearest_score(wanted: Tensor, label: int | None = None) -> Score:
    def score(outputs: Any, place: int) -> Tensor:
        row = outputs[0] if isinstance(outputs, list) else {key: values[0] for key, values in outputs.items()}
        box = wanted[place] if wanted.ndim == 2 else wanted
        best, found = 0.0, row["scores"].sum() * 0
        for each, value, name in zip(row["boxes"], row["scores"], row["labels"], strict=True):
            overlap = iou(each.detach(), box) if label in (None, int(name)) else 0.0
            if overlap > best:
                best, found = overlap, value
        return found

    return score


def test_the_score_of_the_box_that_overlaps_most() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 4], [6, 7, 12, 12], [11, 2, 15, 9]])
    check(detector(), box_score(boxes), nearest_score(boxes))
    check(detector(), box_score([4, 4, 12, 8], label=1), nearest_score(torch.tensor([4.0, 4, 12, 8]), 1))


def test_boxes_that_a_threshold_drops_count_as_none() -> None:
    model = detector(dropped=0.5).eval()
    with torch.no_grad():
        counts = [len(row["scores"]) for row in model(torch.cat([IMAGES, torch.zeros_like(IMAGES)]))]
    assert len(set(counts)) > 1
    wanted = torch.tensor([[0.0, 0, 5, 4], [6, 7, 12, 12], [11, 2, 15, 9]])
    check(model, box_score(wanted), nearest_score(wanted))
    nowhere = pellucid.explain(model, IMAGES, "saliency", target=box_score([90, 90, 99, 99]))
    assert nowhere.score.tolist() == [0, 0, 0]
    assert not nowhere["saliency"].any()


def test_columns_of_scores_are_labels() -> None:
    outputs = {"boxes": torch.tensor([[[0.0, 0, 4, 4], [4, 4, 8, 8]]]), "scores": torch.tensor([[[1.0, 2], [3, 4]]])}
    zero = torch.tensor([0])
    assert box_score([4, 4, 7, 8], 0).objective(outputs, slice(0, 1)).scores(outputs, zero).tolist() == [[3.0]]
    with pytest.raises(InputError, match="label: expected one from 0 to 1, as boxes have, got None"):
        box_score([4, 4, 7, 8]).objective(outputs, slice(0, 1)).scores(outputs, zero)


def pooled(count: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.square().mean(dim=(2, 3))[:, :count]


def test_a_single_value_is_one_class_of_two_unless_the_output_itself_is_asked_for() -> None:
    model = Body(pooled(1))
    check(model, output_at(), lambda o, i: o[0, 0])
    check(Body(lambda x: pooled(1)(x)[:, 0]), output_at(), lambda o, i: o[0])
    check(Body(lambda x: x[:, 1:]), output_at((1, 3, -1)), lambda o, i: o[0, 1, 3, -1])
    shifted = Body(lambda x: pooled(1)(x) - 100)  # "predicted" explains the class that a negative value means
    with torch.no_grad():
        assert bool((pellucid.explain(shifted, IMAGES, "saliency").score > 0).all())
        assert bool((pellucid.explain(shifted, IMAGES, "saliency", target=output_at()).score < 0).all())


def test_labels_that_do_not_exclude_each_other() -> None:
    model = Body(pooled(4)).eval()
    with torch.no_grad():
        logits = model(IMAGES)
    best, own = logits.argmax(dim=1), torch.tensor([3, 0, 2])
    found = check(model, multi_label(), lambda o, i: o[0, best[i]])
    assert torch.equal(found.target, best)
    torch.testing.assert_close(found.probability, logits.amax(dim=1).sigmoid())
    found = check(model, multi_label(own), lambda o, i: o[0, own[i]])
    assert torch.equal(found.target, own)
    torch.testing.assert_close(found.probability, logits.gather(1, own[:, None])[:, 0].sigmoid())
    every = pellucid.explain(model, IMAGES, METHODS, target=multi_label("all"), layer="features", batch_size=2)
    assert every.target.tolist() == [[0, 1, 2, 3]] * 3
    torch.testing.assert_close(every.probability, logits.sigmoid())
    for label in range(4):
        one = pellucid.explain(model, IMAGES, METHODS, target=multi_label(label), layer="features")
        for name, values in one.maps.items():
            torch.testing.assert_close(every[name][:, label], values, rtol=1e-4, atol=1e-6)


def test_methods_that_compare_classes_compare_those_of_the_aim() -> None:
    def means(count: int) -> Callable[[Tensor], Tensor]:
        return lambda x: x.relu().mean(dim=(2, 3))[:, :count]

    names = ["finer-cam", "relevance-cam"]
    plain = pellucid.explain(Body(means(3)), IMAGES, names, target=1, layer="features")
    for head, target in (
        (lambda x: {"logits": means(3)(x)}, at("logits", 1)),
        (means(3), multi_label(1)),
        (lambda x: (0, means(3)(x)), at(1, multi_label(1))),
    ):
        found = pellucid.explain(Body(head), IMAGES, names, target=target, layer="features")
        for name in names:
            assert plain[name].any()
            torch.testing.assert_close(found[name], plain[name])
    assert pellucid.explain(Body(means(1)), IMAGES, "relevance-cam", target=multi_label(), layer="features").maps
    with pytest.raises(InputError, match="model: expected at least two classes"):
        pellucid.explain(Body(means(1)), IMAGES, "finer-cam", target=multi_label(), layer="features")


def test_a_single_label_is_one_label() -> None:
    found = pellucid.explain(Body(pooled(1)), IMAGES, "saliency", target=multi_label("all"))
    assert found.target.tolist() == [[0], [0], [0]]
    assert found["saliency"].shape == (3, 1, 16, 16)
    torch.testing.assert_close(found.probability, found.score.sigmoid())


@pytest.mark.parametrize("target", ["predicted", "all", 1, torch.tensor([2, 0, 1]), multi_label("all")])
def test_a_part_of_the_output_is_explained_as_an_output_would_be(target: Target) -> None:
    plain = pellucid.explain(Body(pooled(3)), IMAGES, METHODS, target=target, layer="features")
    for wrap, key in (
        (lambda x: {"logits": x, "loss": None}, "logits"),
        (lambda x: (None, x), 1),
        (lambda x: [x], -1),
        (lambda x: SimpleNamespace(logits=x), "logits"),
    ):
        model = Body(lambda x, wrap=wrap: wrap(pooled(3)(x)))
        found = pellucid.explain(model, IMAGES, METHODS, target=at(key, target), layer="features", batch_size=2)
        assert torch.equal(found.target, plain.target)
        torch.testing.assert_close((found.score, found.probability), (plain.score, plain.probability))
        for name, values in plain.maps.items():
            torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-6)
    nested = Body(lambda x: {"a": (x, {"b": pooled(3)(x)})})
    found = pellucid.explain(nested, IMAGES, METHODS, target=at("a", at(1, at("b", target))), layer="features")
    torch.testing.assert_close(found.score, plain.score)


@pytest.mark.parametrize("wrap", [lambda target: at("logits", target), multi_label])
def test_views_of_an_image_share_the_class_that_is_predicted_for_it(wrap: Callable[[Target], Target]) -> None:
    def head(x: Tensor) -> Any:  # what is predicted depends on the side
        scores = torch.stack([x[..., :4].mean(dim=(1, 2, 3)), x[..., 4:].mean(dim=(1, 2, 3))], dim=1)
        return scores if wrap is multi_label else {"logits": scores}

    model = Body(head)
    smooth = [method("saliency", smooth="flips"), "saliency"]
    found = pellucid.explain(model, IMAGES, smooth, target=wrap("predicted"))
    fixed = pellucid.explain(model, IMAGES, smooth, target=wrap(found.target))
    flipped = pellucid.explain(model, IMAGES.flip(-1), "saliency", target=wrap("predicted"))
    assert not torch.equal(found.target, flipped.target)
    torch.testing.assert_close((found.score, found.probability), (fixed.score, fixed.probability))
    for name, values in fixed.maps.items():
        torch.testing.assert_close(found[name], values)
    windows = pellucid.explain(model, IMAGES, "saliency", target=wrap("all"), window=(8, 16))
    assert windows["saliency"].shape == (3, 2, 16, 16)


def test_a_place_in_the_image_is_refused_where_views_move_the_image() -> None:
    for target, model in (
        (at("out", class_over_region(0, masks())), segmentation()),
        (box_score([0, 0, 5, 4]), detector()),
    ):
        found = pellucid.explain(model, IMAGES, method("saliency", smooth="noise"), target=target)
        assert found["saliency[smooth=noise]"].any()
        for smooth in ("flips", "scales", "flips+noise"):
            with pytest.raises(InputError, match="target: expected a target without a region or a box"):
                pellucid.explain(model, IMAGES, method("saliency", smooth=smooth), target=target)
        with pytest.raises(InputError, match="target: expected a target without a region or a box"):
            pellucid.explain(model, IMAGES, "saliency", target=target, window=8)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: class_over_region(0, torch.ones(16, 16)), r"region: expected a bool tensor \(\*S\) or \(B, \*S\)"),
        (lambda: class_over_region(0, masks()[:2]), r"region: expected 2 spatial axes, and 3 rows .*\(2, 16, 16\)"),
        (lambda: class_over_region(0, masks()[:, :8]), r"region: expected at least one place in each, got none at 1"),
        (lambda: class_over_region(0, masks()[:, :12]), r"region: expected the output's resolution \(16, 16\)"),
        (lambda: class_over_region(7), r"target: expected classes from 0 to 4, got 7"),
        (lambda: at("out", 0), r"target: expected an output of which 'out' is a part, got shape \(3, 5, 16, 16\)"),
        (lambda: 0, r"model: expected one row of logits .*pellucid.attribution.aims"),
        (lambda: output_at(5), r"model: expected a float output \(B, …\) with 1 axes in each row"),
        (lambda: output_at((0, 0, 16)), r"target: expected a place in rows of shape \(5, 16, 16\)"),
        (lambda: multi_label(), r"model: expected one logit per label, \(B, n\), as its output"),
        (lambda: multi_label("best"), r"target: expected 'predicted', 'all'"),
        (lambda: multi_label(lambda outputs: outputs), r"label: expected 'predicted', 'all', an index"),
        (lambda: at(0, torch.tensor([0, 1])), r"target: expected 'predicted', 'all', a class index, an integer"),
        (lambda: box_score([0, 0, 1, 1]), r"model: expected a dict of boxes and scores per image"),
        (lambda: box_score([3, 0, 1, 1]), r"box: expected left, top, right, bottom"),
        (lambda: box_score([3, 0, 1]), r"box: expected left, top, right, bottom, \(4,\) or \(B, 4\)"),
        (lambda: box_score(torch.tensor([[0, 0, 1, 1]] * 2)), r"box: expected one box, or one for each of 3 images"),
    ],
)
def test_a_target_that_does_not_fit_says_so(make: Callable[[], Target], told: str) -> None:
    model = Body(lambda x: functional.interpolate(x, scale_factor=2.0))
    with pytest.raises(InputError, match=told):
        pellucid.explain(model, IMAGES, "saliency", target=make())


def test_a_missing_part_of_a_dict_tells_those_that_are_there() -> None:
    with pytest.raises(InputError, match=r"'logits' is a part, got dict with out, aux"):
        pellucid.explain(segmentation(), IMAGES, "saliency", target=at("logits"))


def test_regions_and_boxes_made_in_inference_mode_serve() -> None:
    networks = segmentation(), detector()
    with torch.inference_mode():
        targets = at("out", class_over_region(1, masks())), box_score(torch.tensor([[0.0, 0, 5, 4]] * 3))
        for network, target in zip(networks, targets, strict=True):
            assert pellucid.explain(network, IMAGES, METHODS, target=target, layer="last")["saliency"].any()
