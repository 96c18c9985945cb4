from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pellucid.data.images import MedicalImage, read_image
from pellucid.data.transforms import (
    Augmentation,
    Normalisation,
    augment,
    dataset_normalisation,
    is_grey,
    mask_of,
    prepare,
    prepare_mask,
)
from pellucid.errors import InputError, UnreadableFileError

STILL = Augmentation(rotation=0, translation=0, scale=0, brightness=0, contrast=0)


def image_of(pixels: np.ndarray) -> MedicalImage:
    return MedicalImage(pixels if pixels.ndim == 3 else pixels[None], None, None, None, Path("made.png"))


@pytest.mark.parametrize(
    ("dtype", "values", "wanted"),
    [
        (np.uint8, [0, 51, 255], [0, 0.2, 1]),
        (np.uint16, [0, 13107, 65535], [0, 0.2, 1]),
        (np.int16, [-32768, -19661, 32767], [0, 0.2, 1]),
        (np.uint32, [0, 858993459, 4294967295], [0, 0.2, 1]),
        (np.float32, [0, 0.2, 1], [0, 0.2, 1]),
        (np.float64, [0.1, 0.2, 0.7], [0.1, 0.2, 0.7]),
    ],
)
def test_the_type_decides_the_range(dtype: type, values: list[float], wanted: list[float]) -> None:
    pixels = np.array(values, dtype)[None, None].repeat(3, axis=1)
    out = prepare(image_of(pixels), channels=1, size=3)
    assert out.dtype == torch.float32
    assert out.shape == (1, 3, 3)
    np.testing.assert_allclose(out[0, 1], wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_the_image_decides_the_range(dtype: type) -> None:
    pixels = np.array([20, 40, 100], dtype)[None, None].repeat(3, axis=1)
    np.testing.assert_allclose(prepare(image_of(pixels), channels=1, size=3, intensity="image")[0, 1], [0, 0.25, 1])


def test_a_constant_image_becomes_black() -> None:
    assert not prepare(image_of(np.full((4, 4), 7, np.uint16)), channels=3, size=4, intensity="image").any()


def test_the_range_of_colours_is_common() -> None:
    pixels = np.stack([np.full((2, 2), value, np.uint8) for value in (10, 20, 30)])
    out = prepare(image_of(pixels), channels=3, size=2, intensity="image")
    assert out[:, 0, 0].tolist() == [0, 0.5, 1]


def test_float_beyond_its_range_is_refused_with_the_way_on() -> None:
    with pytest.raises(InputError, match=r'-1 to 3 in made\.png.*intensity = "image"'):
        prepare(image_of(np.array([[-1.0, 3.0]])), channels=1, size=2)


def test_grey_is_repeated_and_colour_weighed() -> None:
    grey = np.arange(9, dtype=np.uint8).reshape(3, 3) * 20
    tripled = prepare(image_of(grey), channels=3, size=3)
    assert is_grey(tripled)
    assert torch.equal(tripled[:1], prepare(image_of(grey), channels=1, size=3))
    colour = np.stack([np.full((2, 2), value, np.uint8) for value in (255, 0, 51)])
    out = prepare(image_of(colour), channels=1, size=2)
    np.testing.assert_allclose(out, np.full((1, 2, 2), 0.299 + 0.114 * 0.2), atol=1e-6)


def test_grey_stored_as_colour_gives_the_same_bits(colours: np.ndarray) -> None:
    grey = colours[..., 0][None]
    for channels in (1, 3):
        one = prepare(image_of(grey), channels=channels, size=17)
        assert torch.equal(one, prepare(image_of(np.repeat(grey, 3, axis=0)), channels=channels, size=17))


def test_resizing_equals_pillow_within_rounding(colours: np.ndarray) -> None:
    for size in (16, 64):
        wanted = Image.fromarray(colours).resize((size, size), Image.Resampling.BILINEAR)
        out = prepare(image_of(np.moveaxis(colours, -1, 0)), channels=3, size=size)
        np.testing.assert_allclose(out * 255, np.moveaxis(np.asarray(wanted), -1, 0), atol=1.01)


def test_shrinking_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    inner = prepare(image_of(stripes), channels=1, size=16)[0, :, 2:-2]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)


def test_values_never_leave_the_range() -> None:
    pixels = np.random.default_rng(0).choice([0, 65535], (1, 97, 61)).astype(np.uint16)
    for size in (13, 97, 200):
        out = prepare(image_of(pixels), channels=3, size=size)
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1


def test_wrong_arguments_of_prepare() -> None:
    grey = image_of(np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="channels: expected 1 or 3"):
        prepare(grey, channels=2, size=2)
    with pytest.raises(InputError, match="expected 'dtype', 'image', 'file', .* got 'auto'"):
        prepare(grey, channels=1, size=2, intensity="auto")
    with pytest.raises(InputError, match=r"a picture, \(1 or 3, H, W\)"):
        prepare(image_of(np.zeros((2, 4, 4), np.uint8)), channels=1, size=2)


def mask_file(folder: Path, mask: np.ndarray, name: str = "mask.png") -> Path:
    Image.fromarray(mask).save(folder / name)
    return folder / name


def test_a_mask_of_the_same_size_comes_back(tmp_path: Path) -> None:
    truth = np.random.default_rng(1).random((32, 32)) > 0.7
    for high in (1, 255):
        out = prepare_mask(mask_file(tmp_path, truth.astype(np.uint8) * high), size=32)
        assert out.dtype == torch.bool
        np.testing.assert_array_equal(out, truth)


def test_a_mask_keeps_place_and_share(tmp_path: Path) -> None:
    truth = np.zeros((300, 200), np.uint8)
    truth[60:180, 100:160] = 255
    out = prepare_mask(mask_file(tmp_path, truth), size=50)
    wanted = np.zeros((50, 50), bool)
    wanted[10:30, 25:40] = True
    np.testing.assert_array_equal(out, wanted)


def test_any_channel_and_any_label_count(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1, 1], labels[5, 6] = 1, 2
    assert int(prepare_mask(mask_file(tmp_path, labels), size=8).sum()) == 2
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[3, 4, 2] = 9
    assert prepare_mask(mask_file(tmp_path, colour), size=8).nonzero().tolist() == [[3, 4]]


def test_a_jpeg_mask_is_cut_at_half(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    truth = (rows - 30) ** 2 + (columns - 35) ** 2 < 200
    Image.fromarray(truth.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=60)
    assert (read_image(tmp_path / "mask.jpg").pixels[0] > 0).sum() > truth.sum() + 100
    assert (prepare_mask(tmp_path / "mask.jpg", size=64).numpy() != truth).sum() < 10


def test_a_tiny_lesion_is_not_lost(tmp_path: Path) -> None:
    truth = np.zeros((512, 512), np.uint8)
    truth[99:101, 200:202] = 255
    out = prepare_mask(mask_file(tmp_path, truth), size=32)
    assert 1 <= int(out.sum()) <= 4
    assert out[6, 12]


def test_an_empty_mask_stays_empty(tmp_path: Path) -> None:
    for size in (8, 16):
        assert not prepare_mask(mask_file(tmp_path, np.zeros((16, 16), np.uint8)), size=size).any()


def test_an_unreadable_mask_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError):
        prepare_mask(tmp_path / "none.png", size=8)


def test_normalise_and_back() -> None:
    normalisation = Normalisation((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "imagenet")
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    out = normalisation.normalise(images)
    np.testing.assert_allclose(out[:, 1], (images[:, 1] - 0.2) / 0.25, rtol=1e-6)
    np.testing.assert_allclose(normalisation.denormalise(out), images, atol=1e-6)
    assert torch.equal(normalisation.normalise(images[1]), out[1])


def test_normalisation_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(InputError, match="values above 0"):
        Normalisation((0.0,), (0.0,), "x")
    with pytest.raises(InputError, match="as many values as mean"):
        Normalisation((0.0, 1.0), (1.0,), "x")
    with pytest.raises(InputError, match=r"\(…, 1, H, W\)"):
        Normalisation((0.0,), (1.0,), "x").normalise(torch.zeros(3, 4, 4))


class Stack:
    """Images in memory, as `dataset_normalisation` reads them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, position: int) -> Tensor:
        return self.images[position]


def test_mean_and_deviation_are_those_of_all_pixels() -> None:
    images = (
        torch.rand(7, 3, 5, 5, generator=torch.Generator().manual_seed(3)) * torch.tensor([1, 0.5, 0.1])[:, None, None]
    )
    found = dataset_normalisation(Stack(images))
    values = images.double().transpose(0, 1).flatten(1)
    np.testing.assert_allclose(found.mean, values.mean(dim=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(dim=1, correction=0), rtol=1e-9)
    assert found.origin == "data-set"


def test_a_channel_that_does_not_vary_gets_deviation_1() -> None:
    assert dataset_normalisation(Stack(torch.full((2, 1, 3, 3), 0.25))) == Normalisation((0.25,), (1.0,), "data-set")
    with pytest.raises(InputError, match="at least one image"):
        dataset_normalisation(Stack(torch.zeros(0, 1, 3, 3)))


def test_augmentation_repeats_with_its_seed_and_reads_no_global_state(colours: np.ndarray) -> None:
    image = prepare(image_of(np.moveaxis(colours, -1, 0)), channels=3, size=32)
    settings = Augmentation(horizontal_flip=True, vertical_flip=True)
    torch.manual_seed(0)
    first = augment(image, settings, (1, 2, 3))
    state = torch.get_rng_state()
    torch.manual_seed(9)
    assert torch.equal(augment(image, settings, (1, 2, 3)), first)
    for other in ((1, 2, 4), (1, 3, 3), (2, 2, 3)):
        assert not torch.equal(augment(image, settings, other), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == image.shape
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_no_augmentation_changes_nothing() -> None:
    image = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment(image, STILL, 5), image)


def test_flips_are_made_half_of_the_time_and_only_when_allowed() -> None:
    image = torch.arange(9.0).reshape(1, 3, 3) / 9
    flipped = Augmentation(**{**vars(STILL), "horizontal_flip": True})
    outs = [augment(image, flipped, seed) for seed in range(200)]
    made = [torch.equal(out, image.flip(-1)) for out in outs]
    assert all(torch.equal(out, image) or done for out, done in zip(outs, made, strict=True))
    assert 70 < sum(made) < 130
    vertical = Augmentation(**{**vars(STILL), "vertical_flip": True})
    assert any(torch.equal(augment(image, vertical, seed), image.flip(-2)) for seed in range(9))


def test_one_setting_does_not_change_what_another_does() -> None:
    image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.5
    both = augment(image, Augmentation(**{**vars(STILL), "brightness": 0.3, "rotation": 20.0}), 4)
    turned = augment(image, Augmentation(**{**vars(STILL), "rotation": 20.0}), 4)
    lit = augment(image, Augmentation(**{**vars(STILL), "brightness": 0.3}), 4)
    factor = float(lit[0, 5, 5] / image[0, 5, 5])
    np.testing.assert_allclose(both, turned * factor, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_picture_moves_by_no_more_than_is_set(seed: int) -> None:
    image = torch.zeros(1, 101, 101)
    image[0, 48:53, 48:53] = 1
    out = augment(image, Augmentation(**{**vars(STILL), "translation": 0.1}), seed)
    rows, columns = (out[0] > 0.5).nonzero().double().mean(dim=0).tolist()
    assert max(abs(rows - 50), abs(columns - 50)) <= 10.6
    turned = augment(image, Augmentation(**{**vars(STILL), "rotation": 30.0}), seed)
    assert (turned[0] > 0.5).nonzero().double().mean(dim=0).tolist() == pytest.approx([50, 50], abs=0.6)


def test_real_images_prepare(shared_data: Path) -> None:
    for pack in ("brain_mri", "skin", "chest_xray"):
        path = sorted((shared_data / pack).rglob("*.jpg"))[7]
        out = prepare(read_image(path), channels=3, size=64)
        assert out.shape == (3, 64, 64)
        assert float(out.std()) > 0.05


def test_a_volume_is_resized_as_its_rows_planes_and_columns_are() -> None:
    voxels = np.random.default_rng(0).integers(-500, 500, (1, 9, 20, 14)).astype(np.int16)
    volume = MedicalImage(voxels, (1.0, 1.0, 1.0), None, None, Path("made.nii"), np.eye(4))
    size = (5, 8, 21)  # smaller along two axes, which needs antialiasing, and larger along one
    found = prepare(volume, channels=1, size=size, intensity="image")
    assert found.shape == (1, *size)
    low, high = int(voxels.min()), int(voxels.max())
    wanted = (voxels[0].astype(np.float64) - low) / (high - low)
    for axis, length in enumerate(size):
        wanted = np.apply_along_axis(lambda line, n=length: _resized_line(line, n), axis, wanted)
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=2e-6)
    three = prepare(volume, channels=3, size=size, intensity="image")
    assert torch.equal(three, found.expand(3, -1, -1, -1))
    same = prepare(volume, channels=1, size=(9, 20, 14))
    np.testing.assert_allclose(same[0].numpy(), (voxels[0] + 32768.0) / 65535, atol=1e-6)


def _resized_line(line: np.ndarray, length: int) -> np.ndarray:
    """A line read at half-pixel centres through a triangle that is as wide as a new pixel, or an old one if wider."""
    scale = len(line) / length
    width = max(scale, 1.0)
    centres = (np.arange(length) + 0.5) * scale
    away = np.abs(np.arange(len(line)) + 0.5 - centres[:, None]) / width
    weights = np.maximum(1 - away, 0)
    resized: np.ndarray = (weights / weights.sum(axis=1, keepdims=True)) @ line
    return resized


def test_volumes_and_pictures_are_told_apart_in_words() -> None:
    volume = MedicalImage(np.zeros((1, 4, 5, 6), np.uint8), None, None, None, Path("v.nii"))
    with pytest.raises(InputError, match=r"a picture, \(1 or 3, H, W\), got a volume, \(1, 4, 5, 6\), in v.nii"):
        prepare(volume, channels=1, size=8)
    with pytest.raises(InputError, match=r"a volume, \(1 or 3, D, H, W\), got a picture, \(1, 2, 2\), in made.png"):
        prepare(image_of(np.zeros((2, 2), np.uint8)), channels=1, size=(8, 8, 8))


def test_volumes_are_normalised_by_channel() -> None:
    normalisation = Normalisation((0.5, 0.25, 0.0), (0.5, 0.5, 2.0), "data-set")
    volumes = torch.rand(2, 3, 4, 5, 6)
    normal = normalisation.normalise(volumes, axes=3)
    torch.testing.assert_close(normal[:, 1], (volumes[:, 1] - 0.25) / 0.5)
    torch.testing.assert_close(normalisation.denormalise(normal, axes=3), volumes)
    with pytest.raises(InputError, match=r"images: expected \(…, 3, D, H, W\)"):
        normalisation.normalise(torch.rand(3, 4, 5), axes=3)


def test_a_mask_of_a_volume_keeps_asked_labels_in_register() -> None:
    voxels = np.zeros((1, 4, 8, 6), np.int16)
    voxels[0, :2], voxels[0, 2:, :4] = 1, 3
    volume = MedicalImage(voxels, None, None, None, Path("mask.nii"))
    whole = mask_of(volume, size=(8, 8, 3))
    one, other = (mask_of(volume, size=(8, 8, 3), labels=[label]) for label in (1, 3))
    assert whole.shape == (8, 8, 3)
    assert one[:4].all()
    assert not one[4:].any()
    assert other[4:, :4].all()
    assert int(other.sum()) == 4 * 4 * 3
    assert torch.equal(whole, one | other)
    assert not mask_of(volume, size=(8, 8, 3), labels=[2]).any()
