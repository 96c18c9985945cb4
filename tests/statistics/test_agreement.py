"""Readers' agreement: against Krippendorff's definition, its published example, and cases with a known answer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sklearn

from pellucid.errors import InputError
from pellucid.statistics import mask_agreement, rating_agreement, summarise
from references.agreement import krippendorff_nominal

# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: four readers, twelve cases
NONE = math.nan
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_ratings_equal_the_published_example(level: str, alpha: float) -> None:
    estimate = rating_agreement(PUBLISHED, level, resamples=50)
    assert estimate.value == pytest.approx(alpha, abs=5e-4)
    assert (estimate.n, estimate.n_missing) == (11, 1)
    assert estimate.low < estimate.value < estimate.high


def test_nominal_ratings_equal_the_definition() -> None:
    generator = np.random.default_rng(0)
    ratings = generator.integers(1, 4, size=(3, 40)).astype(float)
    ratings[1] = np.where(generator.random(40) < 0.7, ratings[0], ratings[1])
    ratings[generator.random(ratings.shape) < 0.2] = math.nan
    counts = [[int((case == value).sum()) for value in (1, 2, 3)] for case in ratings.T]
    assert rating_agreement(ratings, "nominal", resamples=1).value == pytest.approx(krippendorff_nominal(counts))


def test_the_interval_resamples_patients() -> None:
    generator = np.random.default_rng(1)
    ratings = np.repeat(generator.integers(0, 5, size=(2, 12)), 6, axis=1)
    ids = np.repeat([f"p{i}" for i in range(12)], 6)
    clustered, plain = (rating_agreement(ratings, units=units, resamples=300) for units in (ids, "image"))
    assert clustered.value == pytest.approx(plain.value)
    assert (clustered.units, clustered.unit, plain.units) == (12, "patient", 72)
    assert clustered.high - clustered.low > 1.5 * (plain.high - plain.low)


def test_neither_the_order_of_cases_nor_that_of_readers_matters() -> None:
    ratings = np.array(PUBLISHED)
    ids = [f"p{i // 2}" for i in range(12)]
    order = np.random.default_rng(2).permutation(12)
    changed = ratings[::-1][:, order]
    shuffled = rating_agreement(changed, units=[ids[place] for place in order], resamples=100)
    assert shuffled == rating_agreement(ratings, units=ids, resamples=100)
    assert rating_agreement(changed, resamples=100) == rating_agreement(ratings, resamples=100)


def test_full_agreement_is_1_and_one_value_for_all_has_no_alpha() -> None:
    assert rating_agreement([[1, 2, 3], [1, 2, 3]], resamples=20).value == 1
    assert rating_agreement([[1, 2, 1, 2], [2, 1, 2, 1]], "nominal", resamples=20).value < 0
    same = rating_agreement([[2, 2, 2], [2, 2, 2]], resamples=20)
    assert same.value is None
    assert "no value" in same.note


def test_cases_that_one_reader_rated_say_nothing() -> None:
    alone = rating_agreement([[1, 2, NONE], [NONE, NONE, 3]], resamples=20)
    assert (alone.value, alone.n, alone.n_missing) == (None, 0, 3)
    more = np.concatenate([np.array(PUBLISHED), [[9] * 3, [NONE] * 3, [NONE] * 3, [NONE] * 3]], axis=1)
    assert rating_agreement(more, resamples=20).value == pytest.approx(rating_agreement(PUBLISHED, resamples=20).value)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("ratings", {"ratings": [[1, 2, 3]]}),
        ("ratings", {"ratings": [1, 2, 3]}),
        ("ratings", {"ratings": [[1, math.inf], [1, 2]]}),
        ("level", {"level": "cardinal"}),
        ("units", {"units": ["a"]}),
    ],
)
def test_ratings_that_cannot_be_used_are_named(argument: str, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"^{argument}"):
        rating_agreement(**{"ratings": [[1, 2, 3], [1, 2, 4]], **options})


@pytest.mark.parametrize("shape", [(6, 7), (3, 4, 5)])
def test_masks_equal_the_definitions(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(3)
    truth = generator.random((5, *shape)) < 0.3
    masks = np.array([truth ^ (generator.random(truth.shape) < noise) for noise in (0.05, 0.1, 0.3)])
    found = mask_agreement(masks)
    assert found.pairs == ((0, 1), (0, 2), (1, 2))
    for image in range(5):
        votes = masks[:, image].reshape(3, -1).sum(axis=0)
        assert found.alpha[image] == pytest.approx(krippendorff_nominal([[3 - int(n), int(n)] for n in votes]))
        for row, (a, b) in enumerate(found.pairs):
            pair = masks[a, image].ravel(), masks[b, image].ravel()
            assert found.dice[row, image] == pytest.approx(sklearn.f1_score(*pair))
            assert found.iou[row, image] == pytest.approx(sklearn.jaccard_score(*pair))
    assert found.dice[0].mean() > found.dice[1].mean()


def test_masks_all_half_and_not_shared() -> None:
    one = np.zeros((1, 4, 4), dtype=bool)
    one[0, :2] = True
    for moved, dice, iou in ((0, 1, 1), (1, 0.5, 1 / 3), (2, 0, 0)):
        found = mask_agreement([one, np.roll(one, moved, axis=1)])
        assert found.dice.item() == pytest.approx(dice)
        assert found.iou.item() == pytest.approx(iou)
        assert found.alpha.item() == pytest.approx({0: 1, 1: 1 - 31 / 32, 2: 1 - 31 / 16}[moved])


def test_background_raises_dice_in_nothing_and_alpha_not_to_agreement() -> None:
    """A hundred times the image round masks that share nothing: nearly all pixels agree, alpha stays below 0."""
    masks = np.zeros((2, 1, 50, 50), dtype=bool)
    masks[0, 0, :3], masks[1, 0, 3:6] = True, True
    found = mask_agreement(masks)
    assert (masks[0] == masks[1]).mean() > 0.85
    assert found.alpha.item() < 0
    assert found.dice.item() == 0


def test_images_in_which_nobody_marks_anything_have_no_value() -> None:
    masks = np.zeros((3, 3, 4, 4), dtype=bool)
    masks[:2, 0, 1], masks[2, 1, 2] = True, True
    found = mask_agreement(masks)
    assert np.isnan(found.alpha).tolist() == [False, False, True]
    assert np.isnan(found.dice).tolist() == [[False, True, True], [False, False, True], [False, False, True]]
    assert np.isnan(found.iou).tolist() == np.isnan(found.dice).tolist()
    assert found.dice[0, 0] == 1
    assert summarise(found.dice[1], resamples=20).n_missing == 1


@pytest.mark.parametrize(
    "masks", [np.zeros((1, 2, 3, 3)), np.zeros((2, 3)), np.full((2, 1, 3, 3), 2), np.full((2, 1, 3), 0.5)]
)
def test_masks_that_cannot_be_used_are_named(masks: np.ndarray) -> None:
    with pytest.raises(InputError, match="^masks"):
        mask_agreement(masks)


def test_a_real_lesion_drawn_again_a_pixel_wider(shared_data: Path) -> None:
    from PIL import Image
    from scipy import ndimage

    folder = shared_data / "lesion_masks" / "masks" / "brain_mri_br35h"
    drawn = []
    for path in sorted(folder.glob("*.png"))[:4]:
        with Image.open(path) as picture:
            drawn.append(np.array(picture.convert("L").resize((128, 128), Image.Resampling.NEAREST)) > 127)
    one = np.array(drawn)
    wider = np.array([ndimage.binary_dilation(mask) for mask in one])
    found = mask_agreement([one, wider, np.roll(one, 64, axis=2)])
    shared = one.sum(axis=(1, 2)) / wider.sum(axis=(1, 2))
    np.testing.assert_allclose(found.iou[0], shared)
    np.testing.assert_allclose(found.dice[0], 2 * shared / (1 + shared))
    assert (found.dice[0] > found.dice[1]).all()
