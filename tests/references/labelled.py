"""A data set of pictures with any number of labels: a bright disc, stripes, a dark corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

LABELS = ("corner", "disc", "stripe")


def write_labelled(root: Path, n: int = 96, *, seed: int = 0, size: int = 32) -> pd.DataFrame:
    """Write `n` pictures, two to a patient, and a manifest with labels parted by "|".

    Returns the manifest's other columns beside the labels as columns of 0 and 1.
    """
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size]
    has = generator.random((n, 3)) < (0.3, 0.5, 0.35)
    has[:2] = False
    for row, (corner, disc, stripe) in enumerate(has):
        picture = 60 + 12 * generator.standard_normal((size, size))
        if disc:
            cx, cy = generator.integers(size // 4, 3 * size // 4, 2)
            picture[np.hypot(x - cx, y - cy) < size / 7] += 120
        if stripe:
            picture[:, ::4] += 60
        if corner:
            picture[5 * size // 8 :, 5 * size // 8 :] -= 50
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(root / f"{row:03d}.png")
    table = pd.DataFrame(
        {"path": [f"{row:03d}.png" for row in range(n)], "patient_id": [f"p{row // 2}" for row in range(n)]}
    )
    columns = pd.DataFrame(has.astype(int), columns=list(LABELS))
    texts = ["|".join(name for name, one in zip(LABELS[::-1], row[::-1], strict=True) if one) for row in has]
    table.assign(label=texts).to_csv(root / "manifest.csv", index=False)
    return pd.concat([table, columns], axis=1)
