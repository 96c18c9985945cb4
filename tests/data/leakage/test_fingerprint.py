from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pellucid.data.leakage.fingerprint import FORMS, SPREAD, alike, describe, fingerprints, in_form


def _pictures(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures (N, 64, 64) uint8."""
    noise = np.random.default_rng(seed).normal(size=(count, 64, 64))
    smooth = gaussian_filter(noise, (0, 2, 2), mode="wrap")
    low, high = smooth.min((1, 2), keepdims=True), smooth.max((1, 2), keepdims=True)
    return np.asarray(((smooth - low) / (high - low) * 255).round().astype(np.uint8))


def test_forms_are_the_flips_and_turns_that_they_are_called() -> None:
    picture = np.arange(12).reshape(1, 3, 4)
    wanted = {
        "": picture[0],
        "flipped top to bottom": np.flipud(picture[0]),
        "flipped left to right": np.fliplr(picture[0]),
        "rotated by 180°": np.rot90(picture[0], 2),
        "flipped along the diagonal": picture[0].T,
        "rotated by 90° anticlockwise": np.rot90(picture[0]),
        "rotated by 90° clockwise": np.rot90(picture[0], -1),
        "flipped along the other diagonal": np.rot90(np.fliplr(picture[0]), -1),
    }
    for form, name in enumerate(FORMS):
        np.testing.assert_array_equal(in_form(picture, form)[0], wanted[name], err_msg=name)
    assert len({in_form(picture, form).tobytes() for form in range(8)}) == 8


def test_a_description_ignores_brightness_and_contrast_and_follows_each_form() -> None:
    pictures = _pictures(3)
    unit, blank = describe(pictures)
    assert not blank.any()
    np.testing.assert_allclose(np.square(unit).sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(unit.mean((1, 2)), 0, atol=1e-7)
    np.testing.assert_allclose(describe(pictures * 0.5 + 40.0)[0], unit, atol=1e-5)
    for form in range(8):
        np.testing.assert_allclose(describe(in_form(pictures, form))[0], in_form(unit, form), atol=1e-6)


def test_a_fingerprint_is_nearly_the_whole_description() -> None:
    unit, _ = describe(_pictures(20))
    prints = fingerprints(unit).reshape(20, -1)
    whole = unit.reshape(20, -1) @ unit.reshape(20, -1).T
    np.testing.assert_allclose(prints @ prints.T, whole, atol=0.05)


@pytest.mark.parametrize("form", range(8))
def test_each_form_is_found_and_named(form: int) -> None:
    pictures = _pictures(6)
    second = np.concatenate([_pictures(2, seed=1), in_form(pictures[3:4], form)])
    first_at, second_at, similarity, forms = alike(pictures, second, 0.9)
    assert (first_at.tolist(), second_at.tolist(), forms.tolist()) == ([3], [2], [form])
    assert similarity[0] == pytest.approx(1, abs=1e-5)


def test_pairs_are_those_of_a_plain_comparison_of_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.data.leakage.fingerprint._BLOCK", 7)  # so that pairs lie across blocks
    monkeypatch.setattr("pellucid.data.leakage.fingerprint._PAIRS", 3)
    plain = _pictures(20)
    generator = np.random.default_rng(3)
    mixed = 0.8 * np.stack([in_form(plain[i : i + 1], i % 8)[0] for i in range(10)]) + 0.2 * _pictures(10, seed=9)
    pictures = np.concatenate([plain, mixed.round().astype(np.uint8)])[generator.permutation(30)]
    unit, _ = describe(pictures)
    wanted = {}
    for i in range(30):
        for j in range(i + 1, 30):
            values = [float((in_form(unit[i : i + 1], form)[0] * unit[j]).sum()) for form in range(8)]
            if max(values) >= 0.6:
                wanted[i, j] = (int(np.argmax(values)), max(values))
    first_at, second_at, similarity, forms = alike(pictures, None, 0.6)
    assert len(wanted) >= 10
    assert dict(zip(zip(first_at.tolist(), second_at.tolist(), strict=True), forms.tolist(), strict=True)) == {
        pair: form for pair, (form, _) in wanted.items()
    }
    np.testing.assert_allclose(similarity, [wanted[pair][1] for pair in sorted(wanted)], atol=1e-5)


def test_blank_pictures_and_lone_markers_match_nothing() -> None:
    generator = np.random.default_rng(0)
    black, white = np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)
    marked = np.zeros((64, 64), np.uint8)
    marked[4:9, 4:9] = 255
    noisy = (marked + generator.integers(0, 2, (64, 64))).clip(0, 255).astype(np.uint8)
    pictures = np.stack([black, white, marked, np.roll(marked, 20, 0), noisy, black])
    _, blank = describe(pictures)
    assert blank.tolist() == [True, True, True, True, True, True]
    assert [len(part) for part in alike(pictures, None, 0.5)] == [0, 0, 0, 0]
    assert 0 < SPREAD < 0.06


def test_blank_but_for_different_structures_of_some_size_is_told_apart() -> None:
    pictures = np.zeros((4, 64, 64), np.uint8)
    for index, texture in enumerate(_pictures(4, seed=5)):
        pictures[index, 16:48, 16:48] = texture[16:48, 16:48]
    assert not describe(pictures)[1].any()
    assert alike(pictures, None, 0.85)[0].size == 0
    assert alike(pictures, in_form(pictures, 5).copy(), 0.95)[0].tolist() == [0, 1, 2, 3]


def test_no_pictures_and_one_have_no_pairs() -> None:
    for count in (0, 1):
        assert [len(part) for part in alike(_pictures(count), None, 0.5)] == [0, 0, 0, 0]
