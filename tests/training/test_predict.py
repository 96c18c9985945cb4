from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.data.images import read_image
from pellucid.data.transforms import Normalisation, prepare
from pellucid.models.checkpoints import ModelCard, save_weights
from pellucid.training.predict import as_wanted, predict, predict_files

CARD = ModelCard("test_resnet", 32, 3, ("a", "b", "c"), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), "data-set")


class Sum(nn.Module):
    """Logits are the sums of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(images.flatten(2).sum(dim=2) * self.weight)


def loader(images: Tensor, batch_size: int) -> DataLoader:
    rows = torch.arange(len(images))
    return DataLoader(TensorDataset(images, rows, rows), batch_size=batch_size)


def test_probabilities_are_the_softmax_whatever_the_batch_and_the_mode_comes_back() -> None:
    images = torch.randn(7, 3, 4, 4)
    network = Sum().train()
    wanted = images.flatten(2).sum(dim=2).softmax(dim=1)
    for batch_size in (1, 3, 7):
        torch.testing.assert_close(predict(network, loader(images, batch_size)), wanted)
    assert network.training


def test_a_single_logit_counts_as_two_classes() -> None:
    images = torch.randn(5, 1, 4, 4)
    positive = images.flatten(1).sum(dim=1).sigmoid()
    wanted = torch.stack([1 - positive, positive], dim=1)
    torch.testing.assert_close(predict(Sum(), loader(images, 2)), wanted)


def test_the_card_s_enhancement_is_made_unasked(tmp_path: Path) -> None:
    """Weights trained on negatives see an image as other weights see its negative."""
    generator = np.random.default_rng(3)
    for number in range(3):
        pixels = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        for folder, values in (("images", pixels), ("negatives", 255 - pixels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / f"{number}.png")
    torch.manual_seed(0)
    network = CARD.build()
    save_weights(tmp_path / "plain.safetensors", network, CARD)
    save_weights(tmp_path / "negative.safetensors", network, replace(CARD, enhancement="negative"))

    def predicted(folder: str, weights: str) -> pd.DataFrame:
        device = torch.device("cpu")
        return predict_files([tmp_path / folder], tmp_path / f"{weights}.safetensors", device=device)[0].iloc[:, 1:]

    pd.testing.assert_frame_equal(predicted("images", "negative"), predicted("negatives", "plain"), atol=1e-5)
    assert not np.allclose(predicted("images", "plain").iloc[:, 1:], predicted("images", "negative").iloc[:, 1:])


def test_an_image_is_prepared_then_enhanced_then_normalised(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (40, 50)).astype(np.uint8)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    wanted = prepare(image, channels=3, size=32) ** 0.5
    wanted = Normalisation(CARD.mean, CARD.std, "").normalise(wanted)
    torch.testing.assert_close(as_wanted(image, replace(CARD, enhancement="gamma[gamma=0.5]")), wanted)
