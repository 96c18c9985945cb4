"""Class probabilities of a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pellucid.data.dicom.series import is_series_path
from pellucid.data.found import VOLUME_ENDINGS, images_in
from pellucid.data.images import IMAGE_ENDINGS, MedicalImage, read_image
from pellucid.data.labels import joined
from pellucid.data.resample import Frame
from pellucid.data.transforms import Normalisation, prepare
from pellucid.errors import InputError, UnreadableFileError
from pellucid.models.checkpoints import ModelCard, load_weights
from pellucid.progress import progress
from pellucid.training.classifier import Item

_FILES_AT_ONCE, _VOLUMES_AT_ONCE = 32, 4


def predict(
    network: nn.Module, loader: DataLoader[Item], *, multi_label: bool = False, show_progress: bool = False
) -> Tensor:
    """Probabilities (N, K) in [0, 1], float32, on the CPU, in the loader's order.

    A single logit counts as two classes by the sigmoid; with `multi_label` each logit is a label's own. The network
    runs where its parameters are; it comes back in the mode it was in.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    probabilities = []
    try:
        with torch.inference_mode(), progress("predicting", len(loader), show=show_progress) as advance:
            for images, _, _ in loader:
                probabilities.append(_probabilities(network(images.to(device)), multi_label).cpu())
                advance(1)
    finally:
        network.train(was_training)
    return torch.cat(probabilities)


def predict_files(
    paths: Sequence[Path | str],
    weights: Path | str,
    *,
    device: torch.device,
    strict: bool = False,
    show_progress: bool = False,
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Predict image files by a weights file that says how to prepare them.

    Arguments:
        paths: image files, DICOM series (`FOLDER/#NAME`), and folders that are searched for either at any depth.
        weights: a file that pellucid wrote.
        device: where the network runs.
        strict: stop at the first file that can't be read.
        show_progress: show a bar with the time left.

    Returns:
        A row per image that could be read (path, predicted, prob_CLASS for each class), and the path and reason of
        each that couldn't.

    Raises:
        InputError: a path that isn't there, or no image among them.
        UnreadableFileError: the weights can't be read; or, when `strict`, an image.
    """
    network, card = load_weights(weights, device)
    files = image_files([Path(path) for path in paths], volumes=card.axes == 3)
    at_once = _VOLUMES_AT_ONCE if card.axes == 3 else _FILES_AT_ONCE
    rows: list[dict[str, object]] = []
    unreadable: list[tuple[str, str]] = []
    with torch.inference_mode(), progress("predicting", len(files), show=show_progress) as advance:
        for start in range(0, len(files), at_once):
            part = files[start : start + at_once]
            read, images = [], []
            for path in part:
                try:
                    image = as_wanted(read_image(path), card)
                except (UnreadableFileError, InputError) as error:  # such as a volume, where pictures are wanted
                    if strict:
                        raise
                    unreadable.append((str(path), str(error)))
                else:
                    read.append(path)
                    images.append(image)
            if images:
                logits = network(torch.stack(images).to(device))
                probabilities = _probabilities(logits, card.multi_label).double().cpu()
                for path, row in zip(read, probabilities, strict=True):
                    columns = {f"prob_{name}": value for name, value in zip(card.classes, row.tolist(), strict=True)}
                    said = predicted_label(row, card.classes, card.multi_label)
                    rows.append({"path": str(path), "predicted": said, **columns})
            advance(len(part))
    names = ["path", "predicted", *(f"prob_{name}" for name in card.classes)]
    return pd.DataFrame(rows, columns=names), unreadable


def as_wanted(image: MedicalImage, card: ModelCard) -> Tensor:
    """The image (C, *S) float32 as the network of a card wants it: prepared, enhanced and normalised.

    Raises InputError where it can't be prepared, such as a volume where pictures are wanted.
    """
    prepared = prepare(
        image,
        channels=card.channels,
        size=card.image_size,
        intensity=card.intensity,
        enhancement=card.enhancement,
        frame=frame_of(card),
    )
    return Normalisation(card.mean, card.std, card.normalisation).normalise(prepared, card.axes)


def frame_of(card: ModelCard) -> Frame:
    """How volumes are laid before the network of a card."""
    return Frame(card.orientation, card.spacing)


def image_files(paths: Sequence[Path], endings: tuple[str, ...] | None = None, *, volumes: bool = False) -> list[Path]:
    """Image files as they are, and those at any depth of folders, sorted.

    DICOM files are found by their content as well. Where `volumes` are wanted, a folder's DICOM series stand for their
    files, as `FOLDER/#NAME`, which may be given as a path too. Raises InputError where there are no images.
    """
    endings = endings or (*IMAGE_ENDINGS, *(VOLUME_ENDINGS if volumes else ()))
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += images_in(path, endings, volumes=volumes)
        elif path.is_file() or is_series_path(path):
            files.append(path)
        else:
            raise InputError(f"images: expected image files or folders, got {str(path)!r}, which isn't there.")
    if not files:
        raise InputError(f"images: no image file in {', '.join(map(str, paths))}.")
    return files


def predicted_label(probabilities: Tensor, classes: Sequence[str], multi_label: bool) -> str:
    """The class of the largest of the probabilities (K,), the first of equals; of several labels those from 0.5 on."""
    if multi_label:
        return joined(name for name, value in zip(classes, probabilities.tolist(), strict=True) if value >= 0.5)
    return classes[int(probabilities.argmax())]


def _probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    if multi_label:
        return logits.float().sigmoid()
    if logits.shape[1] == 1:
        positive = logits.float().sigmoid()
        return torch.cat([1 - positive, positive], dim=1)
    return logits.float().softmax(dim=1)
