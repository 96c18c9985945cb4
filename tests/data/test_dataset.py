from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pellucid.data import dataset as module
from pellucid.data import transforms
from pellucid.data.dataset import EpochSampler, ImageDataset, class_weights
from pellucid.data.enhancements import enhance
from pellucid.data.images import read_image
from pellucid.data.transforms import Augmentation, Normalisation, augment, prepare
from pellucid.errors import InputError, UnknownNameError, UnreadableFileError

NORMALISATION = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "data-set")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Ten images in colour and, at the odd places, grey."""
    generator = np.random.default_rng(8)
    found = []
    for number in range(10):
        pixels = generator.integers(0, 256, (14, 12, 3)).astype(np.uint8)
        found.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels[..., 0] if number % 2 else pixels).save(found[-1])
    return found


def dataset_of(paths: list[Path], **options: int) -> ImageDataset:
    return ImageDataset(paths, [number % 3 for number in range(len(paths))], channels=3, size=8, **options)


def test_items_are_the_prepared_images(paths: list[Path]) -> None:
    dataset = dataset_of(paths)
    assert len(dataset) == 10
    for position, path in enumerate(paths):
        wanted = prepare(read_image(path), channels=3, size=8)
        for _ in range(2):  # the second time from memory
            image, label, found = dataset[position]
            assert torch.equal(image, wanted)
            assert torch.equal(dataset.image(position), wanted)
            assert (label, found) == (position % 3, position)


def test_an_enhancement_is_made_once_per_image_before_augmentation(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    label = "gamma[gamma=0.6]"
    monkeypatch.setattr(
        transforms, "enhance", lambda image, choice: (made.append(str(choice)), enhance(image, choice))[1]
    )
    dataset = ImageDataset(paths, [0] * 10, channels=3, size=8, enhancement=label)
    settings = Augmentation(brightness=0.3)
    changed = dataset.with_transform(NORMALISATION, settings, seed=4)
    for epoch in range(3):
        for position in range(10):
            plain = prepare(read_image(paths[position]), channels=3, size=8)
            wanted = NORMALISATION.normalise(augment(plain**0.6, settings, (4, epoch, position)))
            torch.testing.assert_close(changed[position, epoch][0], wanted, atol=1e-4, rtol=0)
    made = [each for each in made if each != "none"]
    assert made == [label] * 10
    assert torch.equal(dataset_of(paths)[3][0], ImageDataset(paths, [0] * 10, channels=3, size=8)[3][0])
    with pytest.raises(UnknownNameError, match="unknown enhancement 'clae'"):
        ImageDataset(paths, [0] * 10, channels=3, size=8, enhancement="clae")


def test_transforms_are_augmentation_then_normalisation(paths: list[Path]) -> None:
    settings = Augmentation(horizontal_flip=True, brightness=0)
    dataset = dataset_of(paths)
    changed = dataset.with_transform(NORMALISATION, settings, seed=4)
    for position, epoch in ((0, 0), (0, 3), (7, 3)):
        wanted = NORMALISATION.normalise(augment(dataset.image(position), settings, (4, epoch, position)))
        torch.testing.assert_close(changed[position, epoch][0], wanted)
    assert torch.equal(changed[2][0], changed[2, 0][0])
    assert not torch.equal(changed[2, 0][0], changed[2, 1][0])
    assert torch.equal(dataset[2][0], dataset.image(2))
    assert torch.equal(changed.image(2), dataset.image(2))


def test_files_are_read_once_and_the_cache_is_shared(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(module, "read_image", lambda path: (read.append(path), read_image(path))[1])
    dataset = dataset_of(paths)
    for kind in (dataset, dataset.with_transform(NORMALISATION), dataset):
        for position in range(10):
            kind[position]
    assert read == paths


def test_the_cache_keeps_within_its_bytes(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(module, "read_image", lambda path: (read.append(path), read_image(path))[1])
    colour, grey = 3 * 8 * 8 * 4, 8 * 8 * 4
    dataset = dataset_of(paths, cache_bytes=2 * colour + grey)
    first = [dataset[position][0] for position in range(10)]
    again = [dataset[position][0] for position in range(10)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(read) == 10 + 7  # a colour, a grey and a colour image fit
    assert len([dataset_of(paths, cache_bytes=0)[0] for _ in range(2)]) == 2
    assert len(read) == 19


def test_an_item_may_be_written_to_without_harm(paths: list[Path]) -> None:
    dataset = dataset_of(paths).with_transform(Normalisation((0.0,) * 3, (1.0,) * 3, "x"))
    wanted = dataset[1][0].clone()
    dataset[1][0].zero_()
    assert torch.equal(dataset[1][0], wanted)


def test_pickling_leaves_the_cache_behind(paths: list[Path]) -> None:
    dataset = dataset_of(paths)
    wanted = dataset[3][0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 3000
    assert torch.equal(copy[3][0], wanted)


def test_wrong_arguments(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels: expected one for each of 10 paths, got 1"):
        ImageDataset(paths, [0], channels=3, size=8)
    for position in (10, -1):
        with pytest.raises(IndexError):
            dataset_of(paths)[position]
    with pytest.raises(UnreadableFileError, match=r"gone\.png"):
        ImageDataset([tmp_path / "gone.png"], [0], channels=3, size=8)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_workers(workers: int, paths: list[Path]) -> None:
    dataset = dataset_of(paths).with_transform(NORMALISATION, Augmentation(), seed=2)
    sampler = EpochSampler(dataset.labels, seed=7)
    sampler.set_epoch(3)
    order = [position for position, _ in sampler]
    batches = list(DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers))
    assert torch.cat([positions for _, _, positions in batches]).tolist() == order
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == [position % 3 for position in order]
    images = torch.cat([images for images, _, _ in batches])
    assert torch.equal(images, torch.stack([dataset[position, 3][0] for position in order]))


def test_each_epoch_has_its_own_order_that_repeats() -> None:
    sampler = EpochSampler([0] * 50, seed=1)
    orders = []
    for epoch in (0, 1, 2):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == [(position, epoch) for position in range(50)]
    assert len({tuple(position for position, _ in order) for order in orders}) == 3
    torch.manual_seed(3)
    resumed = EpochSampler([0] * 50, seed=1)
    resumed.set_epoch(2)
    assert list(resumed) == list(resumed) == orders[2]
    assert len(resumed) == 50
    assert list(EpochSampler([0] * 50, seed=2)) != orders[0]


def test_balanced_epochs_hold_the_classes_in_equal_numbers() -> None:
    labels = torch.tensor([0] * 80 + [1] * 15 + [2] * 5)
    sampler = EpochSampler(labels, seed=4, balanced=True)
    leftover = set()
    for epoch in range(6):
        sampler.set_epoch(epoch)
        drawn = [position for position, _ in sampler]
        assert len(drawn) == len(sampler) == 100
        counts = torch.bincount(labels[drawn])
        assert sorted(counts.tolist()) == [33, 33, 34]
        leftover.add(int(counts.argmax()))
        times = np.bincount(drawn, minlength=100)
        for name in range(3):  # none comes again before each has come
            of_class = times[labels.numpy() == name]
            assert of_class.max() - of_class.min() <= 1
    assert len(leftover) > 1
    seen = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        seen |= {position for position, _ in sampler}
    assert len(seen) == 100


def test_more_classes_than_images_in_an_epoch_is_no_error() -> None:
    assert sorted(EpochSampler([0, 1, 2], seed=0, balanced=True)) == [(0, 0), (1, 0), (2, 0)]
    with pytest.raises(InputError, match="at least one image"):
        EpochSampler([], seed=0)


def test_class_weights_make_classes_count_alike() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = class_weights(labels, 3)
    assert weights.dtype == torch.float32
    sums = torch.zeros(3).index_add(0, labels, weights[labels])
    np.testing.assert_allclose(sums, np.full(3, 10 / 3), rtol=1e-6)
    np.testing.assert_allclose(class_weights([0, 1], 2), [1, 1])


def test_class_weights_need_every_class() -> None:
    with pytest.raises(InputError, match="each of 3 classes"):
        class_weights([0, 1], 3)
    with pytest.raises(InputError, match="each of 2 classes"):
        class_weights([0, 1, 2], 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_images_are_kept_ahead_as_far_as_memory_goes(
    threads: int, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [dataset_of(paths)[position][0] for position in range(10)]
    colour = 3 * 8 * 8 * 4
    whole, part, damaged = dataset_of(paths), dataset_of(paths, cache_bytes=2 * colour), dataset_of(paths)
    whole.keep(threads)
    part.keep(threads)
    asked: list[Path] = []
    monkeypatch.setattr(module, "read_image", lambda path: (asked.append(path), read_image(path))[1])
    assert all(torch.equal(whole[position][0], image) for position, image in enumerate(wanted))
    assert asked == []
    assert all(torch.equal(part[position][0], image) for position, image in enumerate(wanted))
    assert 5 <= len(asked) < 10  # two in colour fit, or up to six in grey
    paths[4].write_bytes(b"nothing")
    damaged.keep(threads)
    with pytest.raises(UnreadableFileError, match="4.png"):
        damaged[4]
    assert torch.equal(damaged[5][0], wanted[5])
