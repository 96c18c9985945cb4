"""Images that show the same picture in other pixels: resized, recompressed, flipped, turned or brightened."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pellucid.data.leakage.exact import copy_in_train
from pellucid.data.leakage.fingerprint import FORMS, alike
from pellucid.data.leakage.thumbnails import Thumbnails, read_thumbnails
from pellucid.data.manifest import Manifest
from pellucid.errors import expected
from pellucid.progress import progress

NEAR = 0.95
ALIKE = 0.85
NEAR_COLUMNS = ("sample", "other", "kind", "similarity", "transform", "pixel_hash", "other_hash")
_SAME_SIZE = 0.02  # relative difference of a side
_SAME_LEVEL = 0.015  # of mean and spread, as shares of what the type holds


def find_near(
    manifest: Manifest,
    thumbnails: Thumbnails | None = None,
    *,
    near: float = NEAR,
    alike_from: float = ALIKE,
    against: tuple[Manifest, Thumbnails] | None = None,
    show_progress: bool = False,
) -> pd.DataFrame:
    """Pairs of images that aren't pixel-identical and show the same picture, or nearly the same.

    Similarity is the correlation of structures at 64 × 64 pixels, in whichever of the eight flips and turns fits best
    (`fingerprint.describe`). `kind` is "near" from `near` on: a copy in all but pixels; "alike" from `alike_from` on:
    as a neighbouring slice, or the same lesion taken again.

    The thresholds come from real images. Of 450 brain, skin and chest images 99 of 100 copies reach 0.98 after JPEG
    at quality 60, 0.97 after halving, and 0.97 after shrinking to 128 pixels, less contrast and that JPEG together.
    Of 2.9 million pairs of brain images that aren't identical 216 reach 0.95: the same slice again but for some ten,
    neighbouring slices of one patient. Of 0.6 million pairs of chest films one does, the same film with other
    contrast, and the next has 0.84; of 0.9 million pairs of skin images none does, and the six from 0.85 on are each of
    one lesion.

    Arguments:
        manifest: the data set.
        thumbnails: of its images in order; read where they aren't given.
        near, alike_from: similarities, 0.5 to 1.
        against: a second data set, to find copies in it instead.
        show_progress: show bars with the time left.

    Returns a row per pair, of identical images the first alone: sample, other (of the second set, if there is one),
    kind, similarity, transform (from sample to other, in words), pixel_hash and other_hash.
    """
    if not 0.5 <= alike_from <= near <= 1:
        raise expected("near", "0.5 ≤ alike ≤ near ≤ 1", f"alike {alike_from:g} and near {near:g}")
    if thumbnails is None:
        paths = [manifest.root / sample for sample in manifest.table["sample"]]
        thumbnails = read_thumbnails(paths, show_progress=show_progress)
    mine = _distinct(manifest, thumbnails)
    theirs = mine if against is None else _distinct(*against)
    their_manifest, their_thumbnails = (manifest, thumbnails) if against is None else against
    second = None if against is None else their_thumbnails.pixels[theirs]
    with progress("looking for copies", len(mine), show=show_progress) as advance:
        first_at, second_at, similarity, form = alike(thumbnails.pixels[mine], second, alike_from, advance)
    table, other = manifest.table, their_manifest.table
    rows, others = mine[first_at], theirs[second_at]
    pairs = pd.DataFrame(
        {
            "sample": table["sample"].to_numpy()[rows],
            "other": other["sample"].to_numpy()[others],
            "kind": np.where(similarity >= near, "near", "alike"),
            "similarity": similarity.round(4),
            "transform": [
                _transform(form_, (table, thumbnails, row), (other, their_thumbnails, column))
                for form_, row, column in zip(form, rows, others, strict=True)
            ],
            "pixel_hash": table["pixel_hash"].to_numpy()[rows],
            "other_hash": other["pixel_hash"].to_numpy()[others],
        },
        columns=list(NEAR_COLUMNS),
    )
    return pairs[pairs["pixel_hash"] != pairs["other_hash"]].reset_index(drop=True)


def near_groups(table: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """Number (N,) of the group of each image: near and pixel-identical copies share one; -1 without a near copy.

    `table` has pixel_hash, `pairs` as `find_near` gives them; those that are only alike bind nothing. Groups are
    numbered from 0 by their first image.
    """
    pairs = pairs[pairs["kind"] == "near"]
    codes, hashes = pd.factorize(table["pixel_hash"])
    ends = [pd.Index(hashes).get_indexer(pairs[column]) for column in ("pixel_hash", "other_hash")]
    known = (ends[0] >= 0) & (ends[1] >= 0)
    ends = [end[known] for end in ends]
    graph = coo_array((np.ones(len(ends[0]), np.int8), tuple(ends)), shape=(len(hashes), len(hashes)))
    groups = connected_components(graph, directed=False)[1][codes]
    bound = np.isin(codes, np.concatenate(ends))
    numbers = np.full(len(table), -1, dtype=np.int64)
    numbers[bound] = pd.factorize(groups[bound])[0]
    return numbers


def copy_groups(table: pd.DataFrame, pairs: pd.DataFrame | None) -> pd.Series:
    """A word per image that pixel-identical copies share, and near ones if `pairs` are given.

    >>> pairs = pd.DataFrame({"kind": ["near"], "pixel_hash": ["a"], "other_hash": ["c"]})
    >>> copy_groups(pd.DataFrame({"pixel_hash": ["a", "b", "c", "b"]}), pairs).tolist()
    ['near 0', 'b', 'near 0', 'b']
    """
    hashes = table["pixel_hash"].astype(str)
    if pairs is None:
        return hashes
    groups = near_groups(table, pairs)
    return hashes.where(groups < 0, [f"near {group}" for group in groups])


def copy_kind(pixel_hash: pd.Series, split: pd.Series, pairs: pd.DataFrame | None = None) -> pd.Series:
    """What each image outside of the training part is to one in it: "exact", "near" or "" for no copy or excluded.

    >>> pairs = pd.DataFrame({"kind": ["near"], "pixel_hash": ["a"], "other_hash": ["c"]})
    >>> copy_kind(pd.Series(["a", "a", "b", "c"]), pd.Series(["train", "test", "test", "test"]), pairs).tolist()
    ['', 'exact', '', 'near']
    """
    kinds = pd.Series("", pixel_hash.index, dtype="str")
    outside = split != "train"
    if pairs is not None:
        pairs = pairs[pairs["kind"] == "near"]
        trained = set(pixel_hash[~outside])
        seen = {
            mine
            for ends in (("pixel_hash", "other_hash"), ("other_hash", "pixel_hash"))
            for mine, other in zip(*(pairs[end] for end in ends), strict=True)
            if other in trained
        }
        kinds[pixel_hash.isin(seen) & outside] = "near"
    kinds[copy_in_train(pixel_hash, split)] = "exact"
    kinds[split == "excluded"] = ""
    return kinds


def _distinct(manifest: Manifest, thumbnails: Thumbnails) -> np.ndarray:
    """Rows to compare: of identical images the first, none that couldn't be read."""
    first = ~manifest.table["pixel_hash"].duplicated().to_numpy()
    return np.flatnonzero(first & thumbnails.readable)


def _transform(
    form: int, first: tuple[pd.DataFrame, Thumbnails, int], second: tuple[pd.DataFrame, Thumbnails, int]
) -> str:
    """What was done to the first image to get the second, in words."""
    sizes = [_size(table, row) for table, _, row in (first, second)]
    words = [FORMS[form]] if form else []
    before, after = sizes[0][::-1] if form & 4 else sizes[0], sizes[1]
    scales = [new / old for old, new in zip(before, after, strict=True)]
    if max(abs(scale - 1) for scale in scales) > _SAME_SIZE:
        stretched = abs(scales[0] / scales[1] - 1) > _SAME_SIZE
        words.append("resized, other proportions" if stretched else "resized")
    levels = [thumbnails.levels(row) for _, thumbnails, row in (first, second)]
    shift, gain = (new - old for old, new in zip(*levels, strict=True))
    if max(abs(shift), abs(gain)) > _SAME_LEVEL:
        words.append("brightness or contrast changed")
    return ", ".join(words) or "recompressed or the like"


def _size(table: pd.DataFrame, row: int) -> tuple[float, float]:
    if "width" not in table:  # a manifest made by hand
        return 1.0, 1.0
    return float(table["width"].iloc[row]), float(table["height"].iloc[row])
