"""Text burned into pictures, with the truth known."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf")
TEXTS = (
    *("MUELLER^HANNA", "DOE, JOHN", "ID 4711-0815", "1961-03-09 F"),
    *("ACC 20231104", "St. Mary Hosp.", "Dr Kowalski", "12.04.1975"),
)


def burned(picture: np.ndarray, random: np.random.Generator, *, faint: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A picture (C, H, W) uint8 with a line of text somewhere, and where its letters are (H, W).

    White or yellow on dark ground and black on bright; two of five times compressed by JPEG afterwards.
    """
    height, width = picture.shape[1:]
    name = FONTS[random.integers(len(FONTS))]
    size = int(random.integers(11, 26))
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
    text = TEXTS[random.integers(len(TEXTS))]
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    left = int(random.integers(2, max(3, width - pen.textlength(text, font=font) - 3)))
    top = int(random.choice([random.integers(2, 30), random.integers(0, height - size - 4)]))
    pen.text((left, top), text, font=font, fill=255)
    share = np.asarray(mask) / 255.0
    dark = float(picture[:, share > 0.5].mean()) < 150
    level = np.array([255.0 if dark else 0.0] * len(picture))
    if dark and len(picture) == 3 and random.random() < 0.5:
        level[2] = 0.0
    if faint:
        level = picture.mean(axis=(1, 2)) + 24
    values = (picture * (1 - share) + level[:, None, None] * share).round().astype(np.uint8)
    if random.random() < 0.4 and not faint:
        buffer = io.BytesIO()
        shown = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
        Image.fromarray(shown).save(buffer, "JPEG", quality=int(random.integers(80, 96)))
        read = np.asarray(Image.open(buffer))
        values = read[None] if read.ndim == 2 else np.moveaxis(read, -1, 0)
    return values, share > 0.5
