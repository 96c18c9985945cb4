"""What a notebook shows: HTML that holds all it needs, and no text that could be taken for markup."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pellucid.attribution import Explanation
from pellucid.attribution.shown import WIDTH, Shown
from pellucid.drawing import enlarge, overlay, to_picture
from pellucid.errors import InputError


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def explanation(count: int = 2, size: tuple[int, ...] = (8, 12), **changes: object) -> Explanation:
    places = torch.arange(count)
    whole = Explanation(
        maps={"layer-cam": maps(count, *size), "input-x-gradient": maps(count, *size, seed=1) - 0.5},
        target=places % 3,
        score=places + 0.5,
        probability=(places + 1) / 16,
        layer="layer4",
        grid=tuple(2 for _ in size),
        seconds={"forward": 1.0},
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """The tags, text and pictures of HTML; fails where tags aren't closed as they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.pictures: list[tuple[str, np.ndarray]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            given = dict(attrs)
            assert set(given) == {"src", "alt", "width", "height"}
            kind, data = str(given["src"]).split(",")
            assert kind == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                assert picture.size == (int(given["width"] or 0), int(given["height"] or 0))
                self.pictures.append((str(given["alt"]), np.asarray(picture)))
        else:
            assert {name for name, _ in attrs} <= {"style"}
            if tag != "br":
                self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


TAGS = {"div", "p", "table", "tr", "th", "td", "img", "b", "br"}


def test_images_overlays_targets_and_probabilities_are_shown() -> None:
    images, whole = maps(2, 1, 8, 12, seed=2), explanation()
    page = Page(whole.shown(images, ["bright", "dark", "odd"])._repr_html_())
    assert page.tags == TAGS
    for text in ("bright", "dark", "image 1", "probability 0.062", "probability 0.125", "score 1.5", "layer-cam"):
        assert text in page.texts
    assert "2 images · layer layer4, grid 2 × 2" in page.texts
    found = dict(page.pictures)
    assert len(page.pictures) == 2 * 3 + 2  # and a scale of each kind, under one alternative text
    ground = enlarge(to_picture(images[1, 0].numpy()), WIDTH)
    assert (found["image 1, dark: the image"] == ground).all()
    large = torch.nn.functional.interpolate(whole["layer-cam"][1:, None], ground.shape[:2], mode="bilinear")[0, 0]
    assert (found["image 1, dark: layer-cam"] == overlay(ground, large.numpy())).mean() > 0.999
    lined = dict(Page(str(whole.shown(images, ["bright", "dark", "odd"], lines=True))).pictures)
    assert (lined["image 1, dark: the image"] == ground).all()
    assert (lined["image 1, dark: layer-cam"] == ground).mean() > 0.3
    assert not (lined["image 1, dark: layer-cam"] == ground).all()


def test_without_images_the_maps_stand_alone() -> None:
    page = Page(explanation()._repr_html_())
    assert len(page.pictures) == 2 * 2 + 2
    assert "image" not in page.texts
    assert "class 1" in page.texts


def test_no_text_is_taken_for_markup() -> None:
    trap = '"><script>alert(1)</script><img src=x onerror=alert(1)>&amp;'
    whole = explanation(layer=trap, maps={trap: maps(2, 8, 12)}, coinciding=((trap, trap),))
    page = Page(whole.shown(maps(2, 3, 8, 12), [trap] * 3)._repr_html_())
    assert page.tags == TAGS
    assert page.texts.count(trap) == 1 + 2  # the method's column, and the class of each image
    assert any(text.count(trap) == 3 for text in page.texts)  # the layer, and what coincides
    assert page.pictures[1][0] == f"image 0, {trap}: {trap}"


def test_of_many_images_and_classes_the_first_and_the_highest_are_shown() -> None:
    page = Page(explanation(20)._repr_html_())
    assert "20 images, the first 8 shown" in page.texts[0]
    assert len(page.pictures) == 8 * 2 + 2
    scores = torch.tensor([[0.0, 5.0, 1.0, 4.0, 3.0, 2.0]])
    every = explanation(
        1,
        maps={"saliency": maps(1, 6, 8, 12)},
        target=torch.arange(6)[None],
        score=scores,
        probability=scores.softmax(dim=1),
    )
    page = Page(every.shown(maps(1, 1, 8, 12))._repr_html_())
    assert "of 6 classes the 4 of highest score shown" in page.texts[0]
    assert [text for text in page.texts if text.startswith("class")] == ["class 1", "class 3", "class 4", "class 5"]


def test_of_a_volume_the_strongest_slice_is_shown() -> None:
    volume = torch.zeros(1, 5, 8, 12)
    volume[0, 3, 2:5, 2:5] = 1
    images = maps(1, 1, 5, 8, 12)
    whole = explanation(1, (5, 8, 12), maps={"layer-cam": volume})
    page = Page(whole.shown(images)._repr_html_())
    assert "slice 4 of 5" in page.texts
    assert (page.pictures[0][1] == enlarge(to_picture(images[0, 0, 3].numpy()), WIDTH)).all()
    assert "slice 4 of 5" in Page(whole._repr_html_()).texts


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_and_maps_of_several_channels_are_shown(channels: int) -> None:
    kept = maps(2, channels, 8, 12) - 0.5
    whole = explanation(maps={"saliency": kept})
    page = Page(whole.shown(maps(2, channels, 8, 12) * 9 - 4)._repr_html_())
    assert [picture.shape for _, picture in page.pictures[:2]] == [(112, 168, 3)] * 2
    assert Page(explanation(maps={"saliency": kept, "a": kept[:, 0]}, grid=())._repr_html_()).pictures


def test_a_map_without_evidence_says_so_and_leaves_the_image_bare() -> None:
    for empty in (torch.zeros(1, 8, 12), torch.full((1, 8, 12), float("nan"))):
        page = Page(explanation(1, maps={"grad-cam": empty}).shown(maps(1, 1, 8, 12))._repr_html_())
        assert "no evidence" in page.texts
        assert (page.pictures[0][1] == page.pictures[1][1]).all()


def test_the_value_of_a_function_has_no_probability() -> None:
    whole = explanation(target=torch.full((2,), -1), probability=torch.full((2,), float("nan")))
    html = whole._repr_html_()
    assert "a function’s value" in html
    assert "probability" not in html
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html)


def test_what_does_not_belong_to_the_explanation_is_refused() -> None:
    whole = explanation()
    for shape in [(3, 1, 8, 12), (2, 1, 12, 8), (2, 8, 12), (2, 1, 8)]:
        with pytest.raises(InputError, match=r"images: expected the 2 images that were explained, \(B, C, \*S\)"):
            whole.shown(torch.zeros(shape))
    with pytest.raises(InputError, match="classes: expected a name for each class, at least 2, got 1"):
        whole.shown(torch.zeros(2, 1, 8, 12), ["a"])
    assert isinstance(whole.shown(torch.zeros(2, 1, 8, 12)), Shown)
