"""Enhancements: analytic cases, libraries that have them, and a sweep over all of them."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import pellucid
from pellucid.data.enhancements import ENHANCEMENTS, enhance, enhancement_label
from pellucid.data.images import read_image
from pellucid.data.shading import sharpened
from pellucid.data.transforms import prepare
from pellucid.errors import InputError, UnknownNameError

ALL = ENHANCEMENTS.names()
ON_LUMINANCE = ("histogram-equalisation", "clahe", "contrast-stretch", "unsharp")
NOISE = 0.02  # of the phantoms, a share
VOLUMES = tuple(entry.name for entry in ENHANCEMENTS if "2d" not in entry.needs)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Smooth structures over noise, as float32 in [0, 1]."""
    values = np.random.default_rng(seed).random(shape)
    smooth = np.stack([ndimage.gaussian_filter(channel, 2.0) for channel in values])
    return torch.from_numpy((smooth - smooth.min()) / np.ptp(smooth)).float()


def luminance(image: Tensor) -> Tensor:
    return (image * image.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=0, keepdim=True)


# analytic cases


def test_a_negative_twice_is_the_image() -> None:
    image = (torch.arange(256) / 255).view(1, 16, 16)
    torch.testing.assert_close(enhance(image, "negative"), 1 - image)
    torch.testing.assert_close(enhance(enhance(image, "negative"), "negative"), image, atol=1e-7, rtol=0)


def test_gamma_is_a_power_of_each_channel() -> None:
    image = drawn(3, 8, 8)
    torch.testing.assert_close(enhance(image, "gamma[gamma=0.5]"), image.sqrt())
    torch.testing.assert_close(enhance(image, pellucid.enhancement("gamma", gamma=2)), image**2)


def test_an_equalised_histogram_is_flat() -> None:
    image = torch.from_numpy(np.random.default_rng(1).beta(2, 6, (1, 300, 300))).float()
    counts = np.histogram(enhance(image, "histogram-equalisation").numpy(), bins=10, range=(0, 1))[0]
    assert np.abs(counts / image.numel() - 0.1).max() < 0.005
    assert np.histogram(image.numpy(), bins=10, range=(0, 1))[0].max() > 0.2 * image.numel()


def test_equalisation_equals_opencv_on_8_bits() -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(2).binomial(255, 0.3, (64, 64)).astype(np.uint8)
    pixels[:8] = 0  # a dark background stays dark
    pixels[-1, -1] = 255
    ours = enhance(torch.from_numpy(pixels / 255).float()[None], "histogram-equalisation")
    assert np.abs(ours[0].numpy() * 255 - cv2.equalizeHist(pixels)).max() <= 0.5 + 1e-3
    assert float(ours[0, :8].max()) == 0


@pytest.mark.parametrize("shape", [(1, 96, 80), (1, 16, 24, 20)])
def test_clahe_equals_scikit_image(shape: tuple[int, ...]) -> None:
    from skimage.exposure import equalize_adapthist

    image = drawn(*shape)
    wanted = equalize_adapthist(image[0].double().numpy())
    torch.testing.assert_close(enhance(image, "clahe")[0].double(), torch.from_numpy(wanted), atol=1e-6, rtol=0)
    sizes = tuple(max(side // 4, 1) for side in shape[1:])
    wanted = equalize_adapthist(image[0].double().numpy(), kernel_size=sizes, clip_limit=0.03)
    ours = enhance(image, "clahe[clip_limit=0.03,tiles=4]")[0].double()
    torch.testing.assert_close(ours, torch.from_numpy(wanted), atol=1e-6, rtol=0)


def test_clahe_raises_local_contrast() -> None:
    image = 0.45 + 0.1 * drawn(1, 64, 64)
    assert float(enhance(image, "clahe").std()) > 3 * float(image.std())


def test_stretching_takes_the_percentiles_to_the_ends() -> None:
    image = torch.linspace(0.2, 0.7, 1001).view(1, 7, 143)
    stretched = enhance(image, "contrast-stretch[low=10.0,high=90.0]")
    torch.testing.assert_close(stretched, ((image - 0.25) / 0.4).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [0, 45, 90, 135])
def test_hog_draws_an_edge_along_itself(angle: int) -> None:
    """The half plane beyond a straight edge: in the cells that hold it the brightest line runs along it."""
    y, x = np.mgrid[:64, :64] - 31.5
    turn = np.deg2rad(angle)  # of the edge against the rows, anticlockwise as shown
    image = torch.from_numpy((x * np.sin(turn) + y * np.cos(turn) > 0).astype(np.float32))[None]
    picture = enhance(image, "hog[cell=16,orientations=8]")[0].numpy()  # the middle of a bin at each of the angles
    assert picture.max() == 1
    cell = picture[16:32, 32:48] if angle == 45 else picture[32:48, 32:48] if angle == 135 else None
    if cell is None:
        cell = picture[16:32, 16:32]
    rows, columns = np.mgrid[:16, :16] - 8.0
    weight = cell / cell.sum()
    spread = np.array([[(weight * a * b).sum() for b in (columns, -rows)] for a in (columns, -rows)])
    along = np.linalg.eigh(spread)[1][:, -1]
    found = np.rad2deg(np.arctan2(along[1], along[0])) % 180
    assert min(abs(found - angle), 180 - abs(found - angle)) < 15


def test_hog_is_scikit_image_s_picture() -> None:
    from skimage.feature import hog

    image = drawn(1, 48, 40)
    picture = hog(image[0].double().numpy(), 9, (8, 8), (1, 1), visualize=True)[1]
    torch.testing.assert_close(enhance(image, "hog")[0], torch.from_numpy(picture / picture.max()).float())


def test_sobel_unsharp_and_median_equal_scipy() -> None:
    image = drawn(1, 40, 40)
    values = image[0].double().numpy()
    slopes = np.hypot(*(ndimage.sobel(values, axis) for axis in (0, 1)))
    ours = enhance(image, "sobel")[0].double().numpy()
    np.testing.assert_allclose(ours[1:-1, 1:-1], (slopes / slopes.max())[1:-1, 1:-1], atol=1e-6)
    wanted = np.clip(values + 1.5 * (values - ndimage.gaussian_filter(values, 3.0)), 0, 1)
    np.testing.assert_allclose(enhance(image, "unsharp[radius=3,amount=1.5]")[0].numpy(), wanted, atol=1e-6)
    wanted = ndimage.median_filter(values, 5)
    np.testing.assert_allclose(enhance(image, "median[size=5]")[0].numpy(), wanted, atol=1e-6)


# shading


def phantom(shape: tuple[int, ...], strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three tissues in an ellipsoid on black, and the same under a smooth bias field with 2 % of noise."""
    generator = np.random.default_rng(seed)
    places = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    first, last = places[0], places[-1]
    away = sum(place**2 for place in places)
    tissue = np.where(away < 0.8, 0.45, 0.0)
    tissue[away < 0.4] = 0.6
    tissue[(first - 0.2) ** 2 + (last - 0.1) ** 2 < 0.05] = 0.3
    tissue[away >= 0.8] = 0
    field = np.exp(strength * (0.8 * last - 0.5 * first**2 + 0.4 * first * last))
    seen = tissue * field * (1 + NOISE * generator.standard_normal(shape))
    return tissue, np.clip(seen / seen.max(), 0, 1)


def variation(image: np.ndarray, tissue: np.ndarray) -> float:
    """Coefficient of variation of the shading inside, less the noise's 0.02."""
    ratio = image[tissue > 0] / tissue[tissue > 0]
    return float(np.sqrt(max((ratio.std() / ratio.mean()) ** 2 - NOISE**2, 0)))


@pytest.mark.parametrize("shape", [(96, 80), (24, 32, 28)])
def test_shading_is_brought_below_two_percent(shape: tuple[int, ...]) -> None:
    tissue, seen = phantom(shape, 0.35)
    assert variation(seen, tissue) > 0.11
    corrected = enhance(torch.from_numpy(seen)[None], "bias-correction")[0].numpy()
    assert variation(corrected, tissue) < 0.02
    assert np.percentile(corrected, 99) == pytest.approx(np.percentile(seen, 99))


def test_where_there_is_no_shading_little_is_changed() -> None:
    tissue, seen = phantom((96, 80), 0.0)
    corrected = enhance(torch.from_numpy(seen)[None], "bias-correction")[0].numpy()
    assert variation(corrected, tissue) < 0.02


def test_shading_of_a_colour_image_is_removed_from_all_channels_alike() -> None:
    tissue, seen = phantom((64, 64), 0.35)
    tint = np.array([1.0, 0.6, 0.4])[:, None, None]
    corrected = enhance(torch.from_numpy(seen * tint), "bias-correction").numpy()
    inside = tissue > 0
    np.testing.assert_allclose(corrected[1][inside] / corrected[0][inside], 0.6, atol=1e-6)
    assert variation(corrected[0], tissue) < 0.02


def test_sharpening_takes_a_gaussian_out_of_a_histogram() -> None:
    """Two values blurred by the Gaussian that is taken out: what is expected of each is the nearer of the two."""
    generator = np.random.default_rng(4)
    true = generator.choice([0.0, 1.0], 20000)
    seen = true + generator.normal(0, 0.15 / np.sqrt(8 * np.log(2)), true.shape)
    found = sharpened(seen, 0.15, 0.01)
    assert np.abs(found - true).mean() < 0.5 * np.abs(seen - true).mean()
    assert bool(((found > 0.5) == (seen > 0.5)).all())


# colour


@pytest.mark.parametrize("name", ON_LUMINANCE)
def test_colour_is_enhanced_in_its_luminance(name: str) -> None:
    image = drawn(3, 32, 32, seed=5)
    changed = enhance(image, name)
    torch.testing.assert_close(luminance(changed), enhance(luminance(image), name), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", [*ON_LUMINANCE, "bias-correction"])
def test_hue_is_kept(name: str) -> None:
    image = drawn(3, 24, 24, seed=6)
    changed = enhance(image, name)
    assert float((changed - image).abs().max()) > 0.02
    compared = 0
    for before, after in zip(image.flatten(1).T.tolist(), changed.flatten(1).T.tolist(), strict=True):
        if min(np.ptp(before), np.ptp(after)) > 0.02:  # grey has no hue
            away = abs(colorsys.rgb_to_hsv(*before)[0] - colorsys.rgb_to_hsv(*after)[0])
            assert min(away, 1 - away) < 1e-3
            compared += 1
    assert compared > 200


@pytest.mark.parametrize("name", ALL)
def test_grey_in_three_channels_stays_grey_and_equals_one(name: str) -> None:
    grey = drawn(1, 24, 24)
    changed = enhance(grey.expand(3, -1, -1), name)
    torch.testing.assert_close(changed, enhance(grey, name).expand(3, -1, -1), atol=1e-5, rtol=0)


# all of them


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 17, 33), (3, 32, 24), (1, 9, 16, 12), (3, 8, 8, 8)])
def test_shape_type_range_and_input_are_kept(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    image = drawn(*shape).to(dtype)
    before = image.clone()
    if len(shape) == 4 and name not in VOLUMES:
        with pytest.raises(InputError, match="pictures only"):
            enhance(image, name)
        return
    changed = enhance(image, name)
    assert (changed.shape, changed.dtype) == (image.shape, dtype)
    assert bool(((changed >= 0) & (changed <= 1)).all())
    assert torch.equal(image, before)
    assert torch.equal(changed, enhance(image, name))
    assert (name == "none") == torch.equal(changed, image)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_images_come_back_constant(name: str, channels: int, value: float) -> None:
    changed = enhance(torch.full((channels, 24, 24), value), name)
    wanted = {"negative": 1 - value, "gamma": value**0.5, "hog": 0.0, "sobel": 0.0}.get(name, value)
    torch.testing.assert_close(changed, torch.full((channels, 24, 24), wanted), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", [1, 3, 8])
def test_a_spot_on_black_comes_back_finite(name: str, side: int) -> None:
    image = torch.zeros(3, 64, 64)
    image[:, 20 : 20 + side, 20 : 20 + side] = drawn(3, side, side) if side > 1 else 0.7
    changed = enhance(image, name)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1


@pytest.mark.parametrize("name", ["histogram-equalisation", "clahe", "contrast-stretch", "hog", "sobel"])
def test_rounding_of_a_constant_image_isn_t_blown_up(name: str) -> None:
    image = 0.4 + 1e-7 * drawn(1, 24, 24)
    changed = enhance(image, name)
    assert float(changed.max() - changed.min()) < 1e-5


@pytest.mark.parametrize("name", ALL)
def test_the_smallest_images(name: str) -> None:
    if name == "hog":
        with pytest.raises(InputError, match="cell: expected at most the image's side, 1 pixels, got 8"):
            enhance(torch.rand(1, 1, 1), name)
    else:
        assert bool(enhance(torch.full((1, 1, 1), 0.5), name).isfinite().all())


@pytest.mark.parametrize("pack", ["brain_mri", "chest_xray", "skin"])
def test_real_images_keep_range_and_repeat(pack: str, shared_data: Path) -> None:
    files = sorted((shared_data / pack / "test").rglob("*.[jp][pn]g"))
    for path in files[:: len(files) // 3]:
        image = prepare(read_image(path), channels=3, size=96)
        for name in ALL:
            changed = enhance(image, name)
            assert bool(changed.isfinite().all())
            assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
            assert torch.equal(changed, enhance(image, name))
            wanted = prepare(read_image(path), channels=3, size=96, enhancement=name)
            torch.testing.assert_close(changed, wanted, atol=2e-3, rtol=0)  # grey is enhanced in one channel there


def test_volumes_are_enhanced_through_all_their_slices() -> None:
    from skimage.exposure import equalize_adapthist

    image = torch.rand(1, 16, 20, 12, generator=torch.Generator().manual_seed(0)) ** 2
    values = image[0].double().numpy()
    flat = image.reshape(1, 16, 240)  # what looks at values alone sees no slices
    for name in ("negative", "gamma", "contrast-stretch", "histogram-equalisation"):
        torch.testing.assert_close(enhance(image, name), enhance(flat, name).reshape(image.shape), msg=name)
    wanted = equalize_adapthist(values, kernel_size=(4, 5, 3), clip_limit=0.02)
    np.testing.assert_allclose(enhance(image, "clahe[clip_limit=0.02,tiles=4]")[0].numpy(), wanted, atol=1e-6)
    slopes = np.sqrt(sum(ndimage.sobel(values, axis) ** 2 for axis in range(3)))
    ours = enhance(image, "sobel")[0].double().numpy()
    inner = (slice(1, -1),) * 3
    assert np.corrcoef(ours[inner].ravel(), slopes[inner].ravel())[0, 1] > 0.999
    wanted = np.clip(values + 1.5 * (values - ndimage.gaussian_filter(values, 2.0)), 0, 1)
    np.testing.assert_allclose(enhance(image, "unsharp[amount=1.5]")[0].numpy(), wanted, atol=1e-6)
    np.testing.assert_allclose(enhance(image, "median")[0].numpy(), ndimage.median_filter(values, 3), atol=1e-6)
    with pytest.raises(InputError, match="expected one that takes volumes, got 'hog'"):
        enhance(image, "hog")


def test_a_real_volume(shared_data: Path) -> None:
    image = prepare(read_image(shared_data / "dicom_nifti/nifti/anatomical.nii"), channels=1, size=(20, 24, 22),
                    intensity="image")  # fmt: skip
    for name in VOLUMES:
        changed = enhance(image, name)
        assert changed.shape == image.shape
        assert bool(((changed >= 0) & (changed <= 1)).all())


# choosing


def test_tables_labels_and_choices_are_the_same_choice() -> None:
    image = drawn(1, 16, 16)
    label = enhancement_label({"name": "clahe", "tiles": 2, "clip_limit": 0.02})
    assert label == "clahe[clip_limit=0.02,tiles=2]" == enhancement_label(label)
    chosen = pellucid.enhancement("clahe", tiles=2, clip_limit=0.02)
    assert enhancement_label(chosen) == label
    assert torch.equal(enhance(image, label), enhance(image, chosen))
    assert not torch.equal(enhance(image, label), enhance(image, "clahe"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("clahee", "unknown enhancement 'clahee'. Did you mean 'clahe'"),
        ("gamma[gama=2]", "unknown option of enhancement 'gamma' 'gama'. Did you mean 'gamma'"),
        ("gamma[gamma=0]", "gamma: expected a number above 0, got 0"),
        ("gamma[gamma=dark]", "gamma: expected a number, got 'dark'"),
        ("clahe[tiles=0]", "tiles: expected a whole number of at least 1, got 0"),
        ("clahe[clip_limit=2.0]", "clip_limit: expected a share above 0 and up to 1, got 2.0"),
        ("contrast-stretch[low=60,high=40]", "low, high: expected two percentiles"),
        ("hog[cell=1]", "cell: expected a whole number of at least 2, got 1"),
        ("bias-correction[foreground=1.5]", "foreground: expected a share between 0 and 1, got 1.5"),
        ({"gamma": 0.7}, "enhancement: expected a name, or a table of name and options"),
    ],
)
def test_wrong_choices_are_named_before_anything_is_read(given: str | dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as raised:
        enhancement_label(given)
    assert said in str(raised.value)
    assert isinstance(raised.value, UnknownNameError) == said.startswith("unknown")


def test_wrong_images_are_named() -> None:
    with pytest.raises(InputError, match=r"image: expected finite values in \[0, 1\], got 0 to 2"):
        enhance(torch.tensor([[[0.0, 2.0]]]), "negative")
    with pytest.raises(InputError, match="image: expected finite values"):
        enhance(torch.tensor([[[0.0, float("nan")]]]), "negative")
    for image in (torch.zeros(2, 4, 4), torch.zeros(4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"image: expected float \(1 or 3, H, W\)"):
            enhance(image, "negative")


def test_the_table_names_each_with_its_options_and_source() -> None:
    table = pellucid.enhancements()
    assert table["name"].tolist() == list(ALL)
    assert {"none", "negative", "clahe", "histogram-equalisation", "hog", "gamma", "bias-correction"} <= set(ALL)
    assert (table["source"] != "").all()
    assert table.set_index("name").loc["clahe", "options"] == "clip_limit=0.01, tiles=8"
