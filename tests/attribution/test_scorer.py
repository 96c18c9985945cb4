"""A bare function as the model: every method that asks for scores alone takes it, others are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from pellucid.attribution import METHODS, explain, method
from pellucid.attribution.asking import Scores
from pellucid.errors import InputError
from pellucid.registry import Choice, Entry


def covered(score_of: Scores, images: Tensor, seeds: Tensor, *, size: int = 2) -> Tensor:
    """How much each score falls when a square is set to zero: what the perturbation family asks for, in short."""
    sample = torch.arange(len(images), device=images.device)
    whole = score_of(images, sample)
    maps = images.new_zeros(len(images), whole.shape[1], *images.shape[2:])
    for row in range(0, images.shape[2], size):
        for column in range(0, images.shape[3], size):
            rows = images.clone()
            rows[:, :, row : row + size, column : column + size] = 0
            fall = whole - score_of(rows, sample)
            maps[:, :, row : row + size, column : column + size] = fall[..., None, None]
    return maps


COVERED = Choice(Entry("covered", covered, "perturbation", "none", ("scores",)))  # type: ignore[type-var]
ENOUGH = [entry.name for entry in METHODS if entry.needs in (("scores",), ("images",))]


def pictures(count: int = 5) -> Tensor:
    return torch.randn(count, 1, 6, 8, generator=torch.Generator().manual_seed(1))


def linear(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes)).eval()


@pytest.mark.parametrize("target", ["predicted", "all", 1])
def test_a_function_is_explained_as_the_network_that_it_runs(target: str | int) -> None:
    model, images = linear(), pictures()

    def remote(rows: Tensor) -> np.ndarray:
        assert rows.is_contiguous()
        assert not rows.requires_grad
        with torch.no_grad():
            scores = model(rows).double().numpy()
        rows.fill_(torch.nan)  # its own copy
        return scores

    of_network = explain(model, images, [COVERED, "sobel", "random"], target=target)
    for function in (remote, lambda rows: torch.from_numpy(remote(rows)), lambda rows: remote(rows).tolist()):
        found = explain(function, images, [COVERED, "sobel", "random"], target=target, batch_size=2)
        torch.testing.assert_close(found.score, of_network.score)
        assert torch.equal(found.target, of_network.target)
        for name, maps in of_network.maps.items():
            torch.testing.assert_close(found.maps[name], maps, msg=name)


@pytest.mark.parametrize("name", ENOUGH)
def test_every_method_that_needs_no_more_takes_a_function(name: str) -> None:
    model, images = linear(), pictures(2)
    found = explain(lambda rows: model(rows), images, name, target=0)
    torch.testing.assert_close(found.maps[name], explain(model, images, name, target=0).maps[name])


def test_scikit_learn_is_explained_by_its_coefficients() -> None:
    images = pictures(60)
    labels = (images[:, 0, 1, 2] > 0).numpy()
    fitted = LogisticRegression(C=10).fit(images.flatten(1).numpy(), labels)
    choice = Choice(COVERED.entry, {"size": 1})
    found = explain(lambda rows: fitted.decision_function(rows.flatten(1).numpy()), images, choice, target=1)
    assert torch.equal(found.score > 0, torch.from_numpy(fitted.predict(images.flatten(1).numpy())))
    parts = images[:, 0] * torch.from_numpy(fitted.coef_).float().reshape(6, 8)
    torch.testing.assert_close(found.maps[choice.label], parts, rtol=1e-4, atol=1e-5)


def test_the_batch_size_changes_nothing_and_bounds_the_rows() -> None:
    model, images = linear(), pictures(7)
    most = [0]

    def counting(rows: Tensor) -> Tensor:
        most[0] = max(most[0], len(rows))
        return model(rows)

    whole = explain(counting, images, COVERED, batch_size=7).maps["covered"]
    most[0] = 0
    torch.testing.assert_close(explain(counting, images, COVERED, batch_size=3).maps["covered"], whole)
    assert most[0] == 3


def test_other_methods_are_refused_with_the_names_of_those_that_work() -> None:
    model, images = linear(), pictures()
    with pytest.raises(InputError, match=r"methods: expected methods that ask for scores alone.*got grad-cam, "
                                         r"saliency\[channels=sum\]\. These do: .*random, .*sobel"):  # fmt: skip
        explain(lambda rows: model(rows), images, ["grad-cam", "sobel", method("saliency", channels="sum")])
    with pytest.raises(InputError, match="model: expected a torch module, or a function"):
        explain("resnet18", images, "sobel")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "got NoneType"),
        (np.zeros((4, 3)), r"got ndarray of shape \(4, 3\)"),
        ([np.zeros((5, 3))], r"got list of shape \(1, 5, 3\)"),
        ([[1.0], [1.0, 2.0]], "got list"),
        (np.array(["a"] * 5), "got ndarray"),
        (torch.zeros(5, dtype=torch.complex64), "got Tensor"),
    ],
)
def test_what_is_no_row_of_scores_is_named(given: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"model: expected .*\(5,\) or \(5, n\) for 5 images, {said}"):
        explain(lambda rows: given, pictures(), "sobel")


def test_an_exception_of_the_function_comes_through() -> None:
    def fails(rows: Tensor) -> Tensor:
        raise ConnectionError("no answer")

    with pytest.raises(ConnectionError, match="no answer"):
        explain(fails, pictures(), "sobel")
