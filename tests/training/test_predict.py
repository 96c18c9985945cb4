import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.training.predict import predict


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
