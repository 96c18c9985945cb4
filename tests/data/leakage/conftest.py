"""Phantoms, distinct ones and changed copies of them, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pellucid.data.phantoms.draw import draw_phantom

CHANGES: Mapping[str, tuple[Callable[[Image.Image], Image.Image], str, str]] = {
    "resized": (lambda image: image.resize((80, 80), Image.Resampling.BICUBIC), ".png", "resized"),
    "enlarged": (lambda image: image.resize((200, 200)), ".png", "resized"),
    "stretched": (lambda image: image.resize((160, 110)), ".png", "resized, other proportions"),
    "jpeg60": (lambda image: image, ".jpg", "recompressed"),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), ".png", "flipped left to right"),
    "upended": (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), ".png", "flipped top to bottom"),
    "turned": (lambda image: image.transpose(Image.Transpose.ROTATE_270), ".png", "rotated by 90° clockwise"),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.15), ".png", "brightness"),
    "flatter": (lambda image: ImageEnhance.Contrast(image).enhance(0.8), ".png", "contrast"),
    "all": (
        lambda image: ImageEnhance.Brightness(image.transpose(Image.Transpose.ROTATE_180).resize((96, 96))).enhance(
            0.9
        ),
        ".jpg",
        "rotated by 180°, resized, brightness",
    ),
}


@pytest.fixture(scope="session")
def phantoms() -> Mapping[str, list[np.ndarray]]:
    """Twelve pictures of each task, from different patients."""
    return {
        task: [draw_phantom(task, index, size=128).image for index in range(12)] for task in ("brain", "skin", "chest")
    }


@pytest.fixture(scope="session")
def save() -> Callable[[Image.Image, Path], None]:
    """Save a picture; a JPEG at quality 60."""

    def write(image: Image.Image, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **({"quality": 60} if path.suffix == ".jpg" else {}))

    return write


@pytest.fixture(scope="session")
def changes() -> Mapping[str, tuple[Callable[[Image.Image], Image.Image], str, str]]:
    """By name what is done to a picture, the ending to save it with, and words of its transform."""
    return CHANGES
