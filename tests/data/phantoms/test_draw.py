"""Phantoms repeat to the byte, patients keep their anatomy and class, and lesions are where the masks say."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pellucid.data.phantoms import TASKS, Phantom, PhantomSample, draw_phantom
from pellucid.data.phantoms.draw import Patient, patient_of
from pellucid.errors import InputError, UnknownNameError

LARGEST_SHARE = 0.13  # of the image; a lesion larger than that is no small target


def drawn(task: str, count: int, size: int = 64, seed: int = 0) -> list[PhantomSample]:
    return [draw_phantom(task, index, size=size, seed=seed) for index in range(count)]


@pytest.mark.parametrize("task", TASKS)
def test_equal_arguments_give_equal_bytes_whatever_was_drawn_before(task: str) -> None:
    forwards = drawn(task, 8)
    for index in reversed(range(8)):
        again = draw_phantom(task, index, size=64)
        assert again.image.tobytes() == forwards[index].image.tobytes()
        assert again.mask.tobytes() == forwards[index].mask.tobytes()
        assert (again.label, again.patient_id, again.age) == (
            forwards[index].label,
            forwards[index].patient_id,
            forwards[index].age,
        )


@pytest.mark.parametrize("task", TASKS)
def test_no_two_images_and_no_two_seeds_are_alike(task: str) -> None:
    samples = drawn(task, 16) + drawn(task, 4, seed=1)
    assert len({sample.image.tobytes() for sample in samples}) == 20


@pytest.mark.parametrize("task", TASKS)
def test_images_have_the_stated_form(task: str) -> None:
    phantom = TASKS[task]
    for size in (64, 97):
        sample = draw_phantom(task, 0, size=size)
        assert sample.image.shape == ((size, size) if phantom.channels == 1 else (size, size, 3))
        assert sample.image.dtype == np.uint8
        assert sample.mask.shape == (size, size)
        assert sample.mask.dtype == np.bool_
        assert int(sample.image.max()) - int(sample.image.min()) > 100


@pytest.mark.parametrize("task", TASKS)
def test_masks_are_empty_exactly_where_there_is_no_lesion(task: str) -> None:
    phantom = TASKS[task]
    for sample in drawn(task, 12 * len(phantom.classes)):
        share = sample.mask.mean()
        if sample.label in phantom.healthy:
            assert share == 0, sample
        else:
            assert 0.01 <= share <= LARGEST_SHARE, (sample.label, share)


def as_class(task: str, index: int, label: int, monkeypatch: pytest.MonkeyPatch) -> PhantomSample:
    """The image `index` as it would look if its patient were of class `label`."""

    def relabelled(phantom: Phantom, index: int, seed: int) -> Patient:
        return dataclasses.replace(patient_of(phantom, index, seed), label=label)

    with monkeypatch.context() as patch:
        patch.setattr("pellucid.data.phantoms.draw.patient_of", relabelled)
        return draw_phantom(task, index, size=64)


@pytest.mark.parametrize("task", TASKS)
def test_the_class_changes_the_lesion_and_nothing_else(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image drawn as each class differs within the lesions; away from them, most pixels are the very same.

    A brain tumour also pushes and swells its surroundings: some pixels change there, but little.
    """
    for index in range(4):
        versions = [as_class(task, index, label, monkeypatch) for label in range(len(TASKS[task].classes))]
        for first, second in itertools.combinations(versions, 2):
            lesions = first.mask | second.mask
            away = ~ndimage.binary_dilation(lesions, iterations=10)
            change = np.abs(first.image.astype(float) - second.image.astype(float))
            assert change[lesions].mean() > 10, (first.label, second.label)
            assert np.median(change[away]) == 0, (first.label, second.label)
            assert change[lesions].mean() > 10 * change[away].mean(), (first.label, second.label)


@pytest.mark.parametrize("task", TASKS)
def test_classes_take_turns_and_one_to_three_images_are_of_one_patient(task: str) -> None:
    phantom = TASKS[task]
    classes = len(phantom.classes)
    patients = [patient_of(phantom, index, seed=0) for index in range(60 * classes)]
    assert [patient.label for patient in patients] == list(range(classes)) * 60
    images = collections.Counter(patient.patient_id for patient in patients)
    assert set(images.values()) == {1, 2, 3}
    shared = collections.defaultdict(set)
    for patient in patients:
        shared[patient.patient_id].add(patient)
    assert all(len(facts) == 1 for facts in shared.values())  # class, age, sex and site are the patient's


@pytest.mark.parametrize("task", TASKS)
def test_what_is_known_of_a_patient_tells_nothing_of_the_class(task: str) -> None:
    phantom = TASKS[task]
    patients = list({patient_of(phantom, index, seed=3) for index in range(2400)})
    ages = [np.mean([p.age for p in patients if p.label == label]) for label in range(len(phantom.classes))]
    assert max(ages) - min(ages) < 6
    for label in range(len(phantom.classes)):
        own = [patient for patient in patients if patient.label == label]
        assert 0.4 < np.mean([patient.sex == "F" for patient in own]) < 0.6
        assert all(0.22 < np.mean([patient.site == site for patient in own]) < 0.45 for site in range(3))
    names = sorted(patients, key=lambda patient: patient.patient_id)
    same = np.mean([a.label == b.label for a, b in itertools.pairwise(names)])
    assert same < 1 / len(phantom.classes) + 0.12  # neighbours by name are of one class by chance only


@pytest.mark.parametrize("task", TASKS)
def test_images_of_a_patient_are_more_alike_than_images_of_a_class(task: str) -> None:
    """Averaged over a class's images, since pose and hairs change from one image to the next."""
    phantom = TASKS[task]
    classes = len(phantom.classes)
    label = classes - 1
    samples = [draw_phantom(task, label + classes * turn, size=64) for turn in range(18)]
    coarse = [_coarse(sample) for sample in samples]
    within, between = [], []
    for first in range(len(samples)):
        for second in range(first):
            apart = float(np.abs(coarse[first] - coarse[second]).mean())
            same = samples[first].patient_id == samples[second].patient_id
            (within if same else between).append(apart)
    assert len(within) >= 9
    assert np.mean(within) < 0.9 * np.mean(between)


def _coarse(sample: PhantomSample, side: int = 16) -> np.ndarray:
    return np.asarray(Image.fromarray(sample.image).resize((side, side), Image.Resampling.BOX), dtype=float)


@pytest.mark.parametrize("task", TASKS)
def test_the_size_changes_the_sampling_and_not_the_composition(task: str) -> None:
    for index in range(len(TASKS[task].classes)):
        small, large = draw_phantom(task, index, size=64), draw_phantom(task, index, size=256)
        assert (small.label, small.patient_id) == (large.label, large.patient_id)
        other = draw_phantom(task, index + len(TASKS[task].classes) * 6, size=256)
        gap = np.abs(_coarse(small, 32) - _coarse(large, 32)).mean()
        assert gap < 6
        assert gap < 0.5 * np.abs(_coarse(other, 32) - _coarse(large, 32)).mean()
        assert small.mask.mean() == pytest.approx(large.mask.mean(), rel=0.15, abs=0.001)
        if small.mask.any():
            middle = [np.argwhere(s.mask).mean(axis=0) / len(s.mask) for s in (small, large)]
            np.testing.assert_allclose(*middle, atol=0.02)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'brian'.*'brain'"):
        draw_phantom("brian", 0)


@pytest.mark.parametrize(("argument", "value"), [("size", 63), ("size", 513), ("index", -1), ("seed", -1)])
def test_arguments_out_of_range_are_named(argument: str, value: int) -> None:
    arguments = {"index": 0, "size": 64, "seed": 0} | {argument: value}
    with pytest.raises(InputError, match=rf"^{argument}: expected .*, got {value}"):
        draw_phantom("brain", arguments["index"], size=arguments["size"], seed=arguments["seed"])
