import math

import pytest

from pellucid.errors import InputError, UnknownNameError
from pellucid.registry import Registry


@pytest.fixture
def scores() -> Registry:
    registry: Registry = Registry("score")

    @registry.register("half", family="toy", source="none", needs=("value",), higher_is_better=True)
    def half(value: float, *, offset: float = 0.0) -> float:
        """Half of the value."""
        return value / 2 + offset

    return registry


def test_a_taken_name_is_refused(scores: Registry) -> None:
    with pytest.raises(InputError, match="score 'half' is registered already"):
        scores.register("half", family="toy", source="none")(lambda value: value)


def test_an_unknown_name_lists_the_nearest(scores: Registry) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown score 'hafl'. Did you mean 'half'\?"):
        scores["hafl"]
    assert str(UnknownNameError("no quotes around this")) == "no quotes around this"


def test_an_unknown_option_lists_the_nearest(scores: Registry) -> None:
    with pytest.raises(UnknownNameError, match="unknown option of score 'half' 'ofset'. Did you mean 'offset'"):
        scores.choose("half", ofset=1.0)


def test_a_choice_is_labelled_by_what_was_given(scores: Registry) -> None:
    assert scores.resolve("half").label == "half"
    choice = scores.choose("half", offset=1.0)
    assert scores.resolve(choice) is choice
    assert choice.label == "half[offset=1.0]"


def test_table_has_a_row_per_entry(scores: Registry) -> None:
    (row,) = scores.table().to_dict("records")
    assert row == {
        "name": "half",
        "family": "toy",
        "needs": "value",
        "better": "higher",
        "options": "offset=0.0",
        "source": "none",
        "summary": "Half of the value.",
    }
    assert len(scores) == 1
    assert "half" in scores
    assert scores.names("toy") == ("half",)
    assert scores.names("other") == ()


def test_a_choice_may_be_an_option_of_another_and_a_label_gives_both_back(scores: Registry) -> None:
    inner = scores.choose("half", offset=1.0)
    assert scores.choose("half", offset=inner).label == "half[offset=half[offset=1.0]]"
    assert repr(inner) == "half[offset=1.0]"  # no address in it, so that it names the same thing in the next process
    assert scores.resolve("half[offset=half[offset=1.0]]").options == {"offset": "half[offset=1.0]"}
    assert scores.resolve("half[offset=half[offset=1.0]]").label == "half[offset=half[offset=1.0]]"
    assert scores.resolve("half[offset=1.0]").options == {"offset": 1.0}
    with pytest.raises(UnknownNameError, match="scale"):
        scores.resolve("half[scale=2]")


def test_a_range_and_what_missing_means_are_in_the_table_where_an_entry_has_them(scores: Registry) -> None:
    scores.register("whole", family="toy", source="none", range=(-1.0, math.inf), missing="it is flat")(abs)
    half, whole = scores.table().to_dict("records")
    assert (half["range"], half["missing"]) == ("", "")
    assert (whole["range"], whole["missing"]) == ("-1 to ∞", "it is flat")
