"""Prepared images for a DataLoader, in an order and with changes that depend on seeds alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pellucid.data.enhancements import ENHANCEMENTS, NONE, Enhancement
from pellucid.data.images import MedicalImage, decode_file, quiet_decoders, read_image
from pellucid.data.resample import Frame, Geometry
from pellucid.data.shown import scaling_words
from pellucid.data.transforms import AS_STORED, Augmentation, Normalisation, augment, is_grey, prepare
from pellucid.data.whole import DecodeError
from pellucid.errors import expected
from pellucid.progress import progress
from pellucid.registry import Choice

CACHE_BYTES = 2 * 2**30


class _Cache:
    """Prepared tensors by position, until the bytes are used up; shared by datasets of the same images."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self.full = limit, 0, False
        self.tensors: dict[int, Tensor] = {}
        self.geometry: dict[int, Geometry] = {}

    def add(self, position: int, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self.used + size <= self.limit:
            self.tensors[position] = tensor
            self.used += size
        else:
            self.full = True

    def __getstate__(self) -> dict[str, object]:
        # a worker that isn't forked begins with an empty cache instead of a copy through a pipe
        return {"limit": self.limit, "used": 0, "full": False, "tensors": {}, "geometry": {}}


class ImageDataset(Dataset[tuple[Tensor, int | Tensor, int]]):
    """Images by position: (tensor (C, size, size), or (C, D, H, W) of a volume, float32, label index, position).

    An item is asked for by its position, or by (position, epoch) as `EpochSampler` does; the epoch decides how the
    image is augmented, so that the data set has no state of its own and workers need none. What was prepared is
    kept in memory, up to `cache_bytes`.

    Arguments:
        paths: image files.
        labels: class index of each; or, where images may have several, a tensor (N, K) float32 of 0 and 1.
        channels, size, intensity, enhancement, frame: as `prepare` takes them; what comes after is augmentation and
            normalisation.
        cache_bytes: bound on the memory of the cache, 2 GiB unless told; 0 keeps nothing.

    Raises UnreadableFileError when a file can't be read, at the time when it is asked for.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int] | Tensor,
        *,
        channels: int,
        size: int | tuple[int, int, int],
        intensity: str = "dtype",
        enhancement: str | Choice[Enhancement] = NONE,
        frame: Frame = AS_STORED,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if len(paths) != len(labels):
            raise expected("labels", f"one for each of {len(paths)} paths", len(labels))
        self.paths = [Path(path) for path in paths]
        self.labels: Sequence[int] | Tensor = labels if isinstance(labels, Tensor) else [int(each) for each in labels]
        self.channels, self.size, self.intensity = channels, size, intensity
        self.enhancement, self.frame = ENHANCEMENTS.resolve(enhancement), frame
        self._cache = _Cache(cache_bytes)
        self._normalisation: Normalisation | None = None
        self._augmentation: Augmentation | None = None
        self._seed = 0

    def with_transform(
        self, normalisation: Normalisation, augmentation: Augmentation | None = None, *, seed: int = 0
    ) -> ImageDataset:
        """The same images, sharing the cache, augmented by (seed, epoch, position) and then normalised."""
        other = ImageDataset(
            self.paths,
            self.labels,
            channels=self.channels,
            size=self.size,
            intensity=self.intensity,
            enhancement=self.enhancement,
            frame=self.frame,
            cache_bytes=0,
        )
        other._cache = self._cache
        other._normalisation, other._augmentation, other._seed = normalisation, augmentation, seed
        return other

    def image(self, position: int) -> Tensor:
        """The prepared image (C, size, size) in [0, 1], neither augmented nor normalised; not to be written to."""
        return self._coloured(self._compact(position))

    def geometry(self, position: int) -> Geometry:
        """Where the stored pixels of an image lie; it is read for that only where it never was."""
        if position not in self._cache.geometry:
            self._prepared(position, read_image(self.paths[position]))
        return self._cache.geometry[position]

    def keep(self, threads: int, *, show_progress: bool = False) -> None:
        """Read what isn't kept in memory yet, in so many threads, as far as the cache goes.

        Processes that are forked afterwards find it there; what they read themselves is lost with them.
        """
        ahead = 8 * threads
        with (
            quiet_decoders(),
            ThreadPoolExecutor(threads) as pool,
            progress("reading images", len(self), show=show_progress) as advance,
        ):
            for start in range(0, len(self), ahead):
                part = range(start, min(start + ahead, len(self)))
                list(pool.map(self._keep, part))
                advance(len(part))
                if self._cache.full:
                    return

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Tensor, int | Tensor, int]:
        position, epoch = index if isinstance(index, tuple) else (index, 0)
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} images")
        image = self._compact(position)
        if self._augmentation is not None:
            image = augment(image, self._augmentation, (self._seed, epoch, position), self.frame.orientation)
        image = self._coloured(image)
        if self._normalisation is not None:
            image = self._normalisation.normalise(image, image.ndim - 1)
        return image.contiguous(), self.labels[position], position

    def _coloured(self, image: Tensor) -> Tensor:
        return image.expand(self.channels, *image.shape[1:])

    def _compact(self, position: int) -> Tensor:
        """The prepared image, grey in one channel: a third of the memory and of the augmentation's work."""
        kept = self._cache.tensors.get(position)
        if kept is None:
            kept = self._prepared(position, read_image(self.paths[position]))
        return kept

    def _keep(self, position: int) -> None:
        if position not in self._cache.tensors:
            with contextlib.suppress(DecodeError):  # which is told when the image is asked for
                self._prepared(position, decode_file(self.paths[position], volumes=True))

    def _prepared(self, position: int, image: MedicalImage) -> Tensor:
        kept = prepare(
            image,
            channels=self.channels,
            size=self.size,
            intensity=self.intensity,
            enhancement=self.enhancement,
            frame=self.frame,
        )
        self._cache.geometry[position] = Geometry.of(image, scaling_words(image, self.intensity))
        if is_grey(kept):
            kept = kept[:1].clone()
        self._cache.add(position, kept)
        return kept


class EpochSampler(Sampler[tuple[int, int]]):
    """Each epoch's order of (position, epoch), drawn from the seed and the epoch and from nothing else.

    Lightning calls `set_epoch` before each epoch; so a training that was resumed goes through the same images in
    the same order. With `balanced`, an epoch of the same length holds the classes in equal numbers, and within a
    class no image comes again before each has come.
    """

    def __init__(self, labels: Tensor | Sequence[int], *, seed: int, balanced: bool = False) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        if not len(self.labels):
            raise expected("labels", "at least one image", "none")
        self.seed, self.balanced, self.epoch = seed, balanced, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng(np.random.SeedSequence((self.seed, self.epoch)))
        drawn = self._balanced(generator) if self.balanced else np.arange(len(self.labels))
        epoch = self.epoch
        return iter([(position, epoch) for position in drawn[generator.permutation(len(drawn))].tolist()])

    def _balanced(self, generator: np.random.Generator) -> np.ndarray:
        classes = generator.permutation(np.unique(self.labels))  # the first ones get what division leaves over
        share, over = divmod(len(self.labels), len(classes))
        drawn = []
        for turn, name in enumerate(classes):
            members = np.flatnonzero(self.labels == name)
            wanted = share + (turn < over)
            rounds = [generator.permutation(members) for _ in range(-(-wanted // len(members)))]
            drawn.append(np.concatenate([members[:0], *rounds])[:wanted])  # a rare class may get none
        return np.concatenate(drawn)


def class_weights(labels: Tensor | Sequence[int], classes: int) -> Tensor:
    """Loss weight (K,) float32 of each class: N / (K · its images), so that all classes count alike.

    Raises InputError when a class has no image.

    >>> class_weights([0, 0, 0, 1], 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(torch.as_tensor(labels, dtype=torch.int64), minlength=classes)
    if len(counts) != classes or int(counts.min()) == 0:
        raise expected("labels", f"at least one image of each of {classes} classes", counts.tolist())
    return (counts.sum() / (classes * counts.double())).float()


def positive_weights(labels: Tensor) -> Tensor:
    """Loss weight (K,) float32 of having each label, from labels (N, K) of 0 and 1: images without it over those with.

    Raises InputError when no image has a label.

    >>> positive_weights(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
    tensor([3.0000, 0.3333])
    """
    counts = labels.double().sum(dim=0)
    if not bool((counts > 0).all()):
        raise expected("labels", "at least one image of each label", counts.tolist())
    return ((len(labels) - counts) / counts).float()
