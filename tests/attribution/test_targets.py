from __future__ import annotations

import pytest
import torch

from pellucid.attribution.targets import Objective, check_target, class_logits, class_probabilities, objective
from pellucid.errors import InputError

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [0.5, -1.0, 0.0]])


def test_a_single_logit_counts_as_two_classes_by_the_sigmoid() -> None:
    for outputs in (torch.tensor([2.0, -1.0]), torch.tensor([[2.0], [-1.0]])):
        assert torch.equal(class_logits(outputs), torch.tensor([[-2.0, 2.0], [1.0, -1.0]]))
        probabilities = class_probabilities(outputs)
        torch.testing.assert_close(probabilities[:, 1], torch.tensor([2.0, -1.0]).sigmoid())
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
        assert objective("predicted", outputs, slice(0, 2)).classes.tolist() == [[1], [0]]


def test_several_logits_are_classes_by_the_softmax() -> None:
    assert torch.equal(class_logits(LOGITS), LOGITS)
    torch.testing.assert_close(class_probabilities(LOGITS), LOGITS.softmax(dim=1))


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ("predicted", [[1], [0]]),
        ("all", [[0, 1, 2], [0, 1, 2]]),
        (2, [[2], [2]]),
        (torch.tensor([9, 9, 2, 0]), [[2], [0]]),  # rows 2 and 3 of the whole call
    ],
)
def test_each_target_names_its_classes(target: object, classes: list[list[int]]) -> None:
    aim = objective(target, LOGITS, slice(2, 4))
    assert aim.classes.tolist() == classes
    sample = torch.tensor([1, 0, 1])
    assert aim.scores(LOGITS[sample], sample).shape == (3, len(classes[0]))
    for row, image in enumerate(sample.tolist()):
        assert torch.equal(aim.scores(LOGITS[sample], sample)[row], LOGITS[image][aim.classes[image]])
    torch.testing.assert_close(aim.probabilities(LOGITS, torch.arange(2)), LOGITS.softmax(dim=1).gather(1, aim.classes))


def test_a_function_gives_its_own_score_and_no_probability() -> None:
    aim = objective(lambda outputs: outputs["mask"].sum(dim=1), {"mask": LOGITS}, slice(0, 2))
    assert aim.scores({"mask": LOGITS}, torch.arange(2)).tolist() == [[6.0], [-0.5]]
    assert aim.probabilities({"mask": LOGITS}, torch.arange(2)).isnan().all()
    with pytest.raises(
        InputError, match=r"target: expected a function that gives one score for each of the output's 2"
    ):
        Objective(None, lambda outputs, sample: outputs.sum()).scores(LOGITS, torch.arange(2))


@pytest.mark.parametrize("target", [3, -1, torch.tensor([0, 3])])
def test_a_class_that_the_network_lacks_is_refused(target: object) -> None:
    with pytest.raises(InputError, match=r"target: expected classes from 0 to 2, got (3|-1)"):
        objective(target, LOGITS, slice(0, 2))


@pytest.mark.parametrize(
    "target",
    ["best", True, 1.0, None, torch.tensor([0, 1, 2]), torch.tensor([0.0, 1.0]), torch.tensor([True, False])],
)
def test_what_is_no_target_is_refused_before_anything_runs(target: object) -> None:
    with pytest.raises(
        InputError, match=r"target: expected 'predicted', 'all', a class index, an integer tensor \(2,\)"
    ):
        check_target(target, 2)


@pytest.mark.parametrize("outputs", [(LOGITS,), LOGITS[None], LOGITS.long()])
def test_outputs_that_are_no_logits_are_refused(outputs: object) -> None:
    with pytest.raises(InputError, match="model: expected one row of logits per image"):
        class_logits(outputs)
