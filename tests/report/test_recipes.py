"""The table of how networks were trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pellucid.report.recipes import recipes_table
from pellucid.training.defaults import resolved, taken_by_default
from pellucid.training.settings import TrainingSettings


def dataset(*cells: tuple[str, dict[str, Any]]) -> Any:
    found = [SimpleNamespace(model=model, card=card) for model, card in cells]
    models = tuple(dict.fromkeys(model for model, _ in cells))
    return SimpleNamespace(models=models, of_model=lambda model: [cell for cell in found if cell.model == model])


def card(settings: TrainingSettings, name: str, **more: Any) -> dict[str, Any]:
    full = resolved(settings, name, pretrained=True).model_copy(update=more.pop("update", {}))
    return {"training": full.model_dump(mode="json"), "by_default": list(taken_by_default(settings)), **more}


def test_what_nobody_chose_is_marked() -> None:
    given = TrainingSettings(learning_rate=0.01, optimiser="sgd", mixup=0.2)
    table = recipes_table(dataset(("resnet50", card(given, "resnet50")), ("votes", {"training": None})))
    assert table is not None
    (row,) = table.rows
    texts = dict(zip(table.columns, row, strict=True))
    assert texts["Model"].text == "resnet50"
    assert (texts["Optimiser"].text, texts["Optimiser"].small) == ("SGD, Nesterov", "")
    assert (texts["Learning rate"].text, texts["Learning rate"].small) == ("0.01", "")
    assert (texts["Weight decay"].text, texts["Weight decay"].small) == ("0.0005", "family’s default")
    assert (texts["Epochs, at most"].text, texts["Frozen first"].text) == ("30", "1")
    assert texts["Besides"].text == "cosine schedule; rate by layers × 0.7; mixup 0.2; classes weighted"


def test_found_rates_of_several_folds_are_a_range_with_how_they_were_found() -> None:
    given, found = TrainingSettings(learning_rate="find"), "steepest fall of the loss in a range test"
    cells = [
        ("vit", card(given, "vit_tiny_patch16_224", rate_found=found, update={"learning_rate": rate}))
        for rate in (3e-4, 1e-4)
    ]
    table = recipes_table(dataset(*cells))
    assert table is not None
    (row,) = table.rows
    rate = dict(zip(table.columns, row, strict=True))["Learning rate"]
    assert (rate.text, rate.small) == ("0.0001 to 0.0003", found)


def test_without_any_card_that_tells_there_is_no_table() -> None:
    assert recipes_table(dataset(("old", {}))) is None
