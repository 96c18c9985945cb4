"""How much burned-in text is seen, and how often none is where there is none; the figures stand in the docs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pellucid.data.dicom.deidentify.burned_in import Box, find_text
from pellucid.data.images import read_image
from pellucid.data.phantoms import draw_phantom
from references.burned import burned


def covered(boxes: list[Box], letters: np.ndarray) -> float:
    """How much of the letters the boxes hold."""
    held = np.zeros(letters.shape, bool)
    for box in boxes:
        held[box.top : box.bottom, box.left : box.right] = True
    return float((held & letters).sum() / letters.sum())


def phantom(task: str, index: int) -> np.ndarray:
    picture = draw_phantom(task, index, size=320).image
    return picture[None] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)


@pytest.mark.parametrize("task", ["brain", "chest", "skin"])
def test_text_on_phantoms_is_seen_and_nothing_else(task: str) -> None:
    random = np.random.default_rng(0)
    shares = []
    for index in range(5):
        picture = phantom(task, index)
        assert find_text(picture[None]) == []
        values, letters = burned(picture, random)
        shares.append(covered(find_text(values[None]), letters))
    assert np.mean([share >= 0.5 for share in shares]) >= 0.6, shares


def test_faint_text_on_even_ground_is_seen() -> None:
    random = np.random.default_rng(3)
    shares = []
    for level in (40, 90, 140, 200):
        values, letters = burned(np.full((1, 128, 256), level, np.uint8), random, faint=True)
        values = values.copy()
        values[0, 120:, :4] = 255  # a picture has a range of greys
        values[0, 120:, 252:] = 0
        shares.append(covered(find_text(values[None]), letters))
    assert min(shares) >= 0.5, shares


def test_text_is_what_all_frames_have() -> None:
    random = np.random.default_rng(1)
    moving = random.integers(0, 90, (6, 1, 200, 300)).astype(np.uint8)
    _, letters = burned(np.zeros((1, 200, 300), np.uint8), random)
    still, passing = moving.copy(), moving.copy()
    still[:, 0, letters] = 255
    passing[2, 0, letters] = 255
    assert covered(find_text(still), letters) > 0.8
    assert find_text(passing) == []


def test_any_depth_and_any_size() -> None:
    random = np.random.default_rng(5)
    values, letters = burned(phantom("chest", 1), random)
    deep = (values.astype(np.int32) * 200 - 20000).astype(np.int16)
    large = np.kron(values, np.ones((1, 8, 8), np.uint8))
    assert covered(find_text(deep[None]), letters) > 0.5
    assert covered(find_text(large[None]), np.kron(letters, np.ones((8, 8), bool))) > 0.5
    assert find_text(np.zeros((1, 1, 5, 300), np.uint8)) == []
    assert find_text(np.full((1, 3, 64, 64), 7, np.uint8)) == []


def test_a_ruler_is_no_text() -> None:
    picture = np.zeros((1, 1, 128, 256), np.uint8)
    for left in range(20, 230, 10):
        picture[0, 0, 60:72, left : left + 2] = 255
    assert find_text(picture) == []


def real(shared_data: Path, pack: str, word: str, count: int) -> list[np.ndarray]:
    table = pd.read_csv(shared_data / pack / "manifest.csv", dtype=str)
    paths = [path for path in table["path"] if word in path]
    chosen = paths[:: max(1, len(paths) // count)][:count]
    return [read_image(shared_data / pack / path).pixels for path in chosen]


@pytest.mark.parametrize(
    ("pack", "word", "most"), [("chest_xray", "", 0.1), ("brain_mri", "", 0.1), ("lesion_masks", "breast", 0.3)]
)
def test_text_on_real_pictures_is_seen(shared_data: Path, pack: str, word: str, most: float) -> None:
    """`most` of the pictures may be flagged before anything is burned in: some bear words of their own."""
    random = np.random.default_rng(2)
    found, flagged = [], 0
    for picture in real(shared_data, pack, word, 10):
        flagged += bool(find_text(picture[None]))
        values, letters = burned(picture, random)
        found.append(covered(find_text(values[None]), letters) >= 0.5)
    assert np.mean(found) >= 0.8
    assert flagged <= most * 10


@pytest.mark.slow
def test_the_figures_of_the_docs(shared_data: Path) -> None:
    random = np.random.default_rng(1)
    shares, flagged, total = [], {}, {}
    for pack, word, count in (("chest_xray", "", 120), ("brain_mri", "", 120), ("lesion_masks", "breast", 90)):
        for picture in real(shared_data, pack, word, count):
            total[pack] = total.get(pack, 0) + 1
            flagged[pack] = flagged.get(pack, 0) + bool(find_text(picture[None]))
            values, letters = burned(picture, random)
            shares.append(covered(find_text(values[None]), letters))
    told = f"{np.mean(np.array(shares) >= 0.5):.3f} of {len(shares)} seen, flagged unburned {flagged} of {total}"
    assert np.mean(np.array(shares) >= 0.5) >= 0.95, told
    assert flagged["brain_mri"] <= 0.06 * total["brain_mri"], told
    assert flagged["chest_xray"] <= 0.06 * total["chest_xray"], told
