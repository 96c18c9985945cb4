"""The three studies of arXiv 2503.08420: where they stand, what they need, and how they are run in turn."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from time import monotonic

from pellucid.data.images import IMAGE_ENDINGS
from pellucid.errors import MissingWeightsError, expected, unknown_name
from pellucid.progress import duration
from pellucid.study.config import StudyConfig, parse_config, read_config
from pellucid.study.dataset_settings import PHANTOM, DatasetSettings
from pellucid.study.network import training_epochs
from pellucid.study.plan import plan
from pellucid.study.runner import Study, run_study

log = logging.getLogger(__name__)

TASKS = ("brain", "skin", "chest")
_WAYS_ON = (
    "Or --quick, whose nets are trained from random weights; or copies of examples/paper/*.toml, changed so, with "
    "--studies FOLDER."
)


def paper_studies(
    data: Path | None, tasks: Sequence[str] = (), *, quick: bool = False, folder: Path | None = None
) -> dict[str, StudyConfig]:
    """The studies of the tasks asked for, in the paper's order.

    Arguments:
        data: the folder that holds each task's images, in the folder that its TOML file names.
        tasks: any of "brain", "skin" and "chest"; none means all.
        quick: the light form, for two cores.
        folder: own TOML files, TASK.toml each, in place of those that come with pellucid.

    Raises InputError for an unknown task, or for data or a TOML file that isn't there: it says what is expected where.
    """
    for task in tasks:
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
    if quick and folder is not None:
        raise expected("quick", "either quick or own studies", "both")
    chosen = [task for task in TASKS if task in tasks or not tasks]
    if folder is not None:
        studies = {task: _read(folder / f"{task}.toml", data) for task in chosen}
    else:
        with resources.as_file(resources.files("pellucid.study") / "paper_studies") as shipped:
            studies = {task: _read(shipped / ("quick" if quick else ".") / f"{task}.toml", data) for task in chosen}
    _check_data(studies, data)
    return studies


def run_paper(
    studies: Mapping[str, StudyConfig],
    output: Path,
    *,
    device: str = "auto",
    strict: bool = False,
    fresh: bool = False,
    progress: bool = False,
) -> Iterator[tuple[str, Study]]:
    """Run each study in `output`/TASK, and yield it when it is done; what is done already isn't computed again.

    With `progress`, the time left is told after each task, from the epochs and images of those to come.

    Raises what `run_study` raises.
    """
    work = {task: _work(config) for task, config in studies.items()}
    started, done = monotonic(), 0
    for number, (task, config) in enumerate(studies.items(), start=1):
        if progress:
            log.info("task %d of %d: %s", number, len(studies), task)
        try:
            study = run_study(config, output / task, device=device, strict=strict, fresh=fresh, progress=progress)
        except MissingWeightsError as error:
            raise MissingWeightsError(f"{error} {_WAYS_ON}") from error
        yield task, study
        done += work[task]
        spent, left = monotonic() - started, sum(work.values()) - done
        if progress and left:
            log.info("%s done after %s; about %s left", task, duration(spent), duration(spent * left / done))


def _read(path: Path, data: Path | None) -> StudyConfig:
    """A task's study; its relative paths are relative to `data`."""
    if not path.is_file():
        raise expected(
            "studies", f"a folder with {', '.join(f'{task}.toml' for task in TASKS)}", f"no {path.name} there"
        )
    config = read_config(path)
    if data is None:
        return config
    return parse_config(tomllib.loads(path.read_text(encoding="utf-8")), base=data.expanduser().resolve())


def _check_data(studies: Mapping[str, StudyConfig], data: Path | None) -> None:
    """Tell of all folders that are missing before anything is computed."""
    wanted = [
        (task, dataset)
        for task, config in studies.items()
        for dataset in config.datasets
        if not dataset.path.startswith(PHANTOM)
    ]
    missing = [f"{Path(dataset.path).name} ({task})" for task, dataset in wanted if not Path(dataset.path).exists()]
    if missing:
        folders = ", ".join(f"{Path(dataset.path).name} ({task})" for task, dataset in wanted)
        raise expected(
            "data", f"a folder that holds {folders}, each with class folders of images or a manifest.csv",
            "no folder" if data is None else f"{str(data)!r} without {', '.join(missing)}",
            do="Give it with --data FOLDER, or leave tasks out with --task.",
        )  # fmt: skip


def _work(config: StudyConfig) -> int:
    """Images that training passes over, for the time left."""
    images = {dataset.name: _images(dataset) for dataset in config.datasets}
    return sum(images[cell.dataset.name] * training_epochs(cell, config) for cell in plan(config))


def _images(dataset: DatasetSettings) -> int:
    if dataset.path.startswith(PHANTOM):
        return dataset.images
    path = Path(dataset.path)
    folder = path if path.is_dir() else path.parent
    return sum(file.suffix.lower() in IMAGE_ENDINGS for file in folder.rglob("*"))
