from pathlib import Path

from pellucid.study.config import parse_config
from pellucid.study.plan import cell_folders, plan


def test_cells_are_data_sets_times_models_times_folds() -> None:
    config = parse_config(
        {
            "folds": 2,
            "datasets": [{"name": "a", "path": "a"}, {"name": "b", "path": "b"}],
            "models": ["resnet18", "vgg16"],
        },
        base=Path("/x"),
    )
    cells = plan(config)
    assert len(cells) == 8
    assert cells[1].title == "a / resnet18 / fold 1"
    assert cell_folders(config, Path("out"))[2] == Path("out/a/vgg16/fold-0")
