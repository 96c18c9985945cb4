"""Evaluate the explanations of image files: every method and control by every metric, in one folder of tables."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.engine import PAPER_METHODS
from pellucid.attribution.families import is_control
from pellucid.attribution.targets import class_logits
from pellucid.data.images import read_image
from pellucid.data.labels import labels_of
from pellucid.data.resample import Geometry
from pellucid.data.shown import scaling_words
from pellucid.errors import InputError, UnreadableFileError, expected
from pellucid.files import write_json, write_table
from pellucid.metrics.block import EMPTY_ANATOMY, EMPTY_MASK, NO_BOX
from pellucid.metrics.lesions import Detections, Froc, froc_of
from pellucid.models.checkpoints import ModelCard, digest
from pellucid.progress import Advance, progress
from pellucid.study.environment import environment
from pellucid.study.evaluate_question import EvaluationQuestion, check_target, fitting_metrics
from pellucid.study.evaluate_shards import Scoring, Shard, ShardValues, Values, made_in, whole_set_values
from pellucid.study.evaluate_summary import (
    froc_table,
    metric_record,
    missing_table,
    numbered,
    scores_table,
    summary_table,
)
from pellucid.study.explain_files import class_names, model_record, tell_coarse
from pellucid.study.known_images import KnownImage, ListedImage, known_of, list_images
from pellucid.study.saved_maps import SavedMap, SavedMaps, open_maps
from pellucid.study.shown_volumes import NAME as SHOWN
from pellucid.study.shown_volumes import keep_shown
from pellucid.training.predict import as_wanted, frame_of, image_files

KEPT = ".values"  # in the output: what a stopped run goes on from
BANK = 64  # held-out images at most

_FILES_AT_ONCE, _VOLUMES_AT_ONCE = 4, 2  # whatever the batch size, since draws follow from an image's place among these


@dataclass(frozen=True)
class Evaluated:
    """What came of it.

    `scores` has sample, image, method, metric, value, reason; `samples` a row per image with sample, image, patient_id
    (a number in the order of the images, never the id), label, predicted, target and probability; `summary` a row per
    metric and method. `skipped` has the name and reason of each image that was left out, `problems` sentences on masks
    and boxes that can't be used, `left_out` the metrics for which nothing was given, `curves` the free-response ROC of
    each method where there are masks.
    """

    scores: pd.DataFrame
    samples: pd.DataFrame
    summary: pd.DataFrame
    skipped: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    left_out: tuple[str, ...]
    curves: Mapping[str, Froc]
    shown: tuple[tuple[int, Path], ...] = ()
    """Of volumes, the number and the file of each that the page shows, which `read_shown` reads."""


@dataclass(frozen=True)
class _Read:
    listed: ListedImage
    image: Tensor
    known: KnownImage
    lies: Geometry


@dataclass
class _Run:
    """What is the same for all images, and what is told of them on the way."""

    card: ModelCard
    classes: Sequence[str]
    question: EvaluationQuestion
    scoring: Scoring
    saved: SavedMaps | None
    strict: bool
    skipped: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def skip(self, name: str, error: Exception | str, advance: Advance) -> None:
        self.skipped.append((name, str(error)))
        advance(len(self.scoring.labels) * len(self.scoring.metrics))


def evaluate_files(
    paths: Sequence[Path],
    model: tuple[nn.Module, ModelCard],
    output: Path,
    question: EvaluationQuestion,
    *,
    strict: bool = False,
    show_progress: bool = False,
) -> Evaluated:
    """Explain image files, or take maps that were saved, and score every map by every metric.

    Leaves in `output`: `scores.csv` and `scores.parquet`, a row per image, method and metric; `summary.csv`, the means;
    `missing.csv`, how many values are missing and why; `samples.csv`, what is known of each image; and
    `evaluation.json`, what was asked of what. Values are kept as they come, so that the same call goes on after a stop
    and ends with the same bytes.

    Arguments:
        paths: image files, folders that are searched at any depth, and manifests or folders that hold one.
        model: the network and its card, as `load_weights` gives them. It is given back as it was.
        output: the folder; it is made.
        question: methods, metrics, target, truth and how to run.
        strict: stop at the first image, mask or map that can't be used.
        show_progress: show a bar with the time left.

    Raises:
        InputError: a path that isn't there, no image among them, maps of another network or target, or a question that
            can't be answered.
        UnreadableFileError: no image can be evaluated; or, when `strict`, one can't.
    """
    network, card = model
    classes = class_names(card)
    images = list_images(list(paths), question.sources, classes, multi_label=card.multi_label, volumes=card.axes == 3)
    given = _given(images)
    metrics, left_out = fitting_metrics(question, given)
    check_target(question.target, classes)
    weights = digest(network)
    labels = [each if isinstance(each, str) else each.label for each in question.methods]
    saved = None if question.maps is None else open_maps(question.maps, images, weights, labels, frame_of(card))
    scoring = Scoring(
        network=network,
        weights=weights,
        methods=(question.methods or PAPER_METHODS) if saved is None else (),
        saved=() if saved is None else saved.labels,
        controls=question.controls,
        metrics=metrics,
        layers=question.layers,
        given=given,
        batch_size=question.batch_size,
        max_memory=question.max_memory,
        seed=question.seed,
        bank=_bank(question.bank, images, card),
        multi_label=card.multi_label,
        precision=question.precision,
        compile=question.compile,
    )
    run = _Run(card, classes, question, scoring, saved, strict)
    steps = len(images) * len(scoring.labels) * len(metrics)
    with progress("evaluating", steps, show=show_progress) as advance:
        found = _through(images, run, output / KEPT, advance)
        whole = whole_set_values(found.folders, torch.tensor(found.predicted), scoring)
        if whole is None:  # an image or a metric came to those of an earlier run, whose maps aren't kept
            again = dataclasses.replace(run, skipped=[], problems=[])
            _through(images, again, output / KEPT, lambda steps=1, note="": advance(0, note), maps=True)
            whole = whole_set_values(found.folders, torch.tensor(found.predicted), scoring)
        assert whole is not None
        found.rows += _rows(whole, None, 0)
        advance(len(found.samples) * len(scoring.labels) * len(scoring.whole_set))
    made = made_in(found.folders[0])
    tell_coarse(made["layer"], made["grid"])
    return _write(output, run, found, left_out)


@dataclass
class _Found:
    """What came of all images: rows of the table, what is known of each, and where the shards' values are kept."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    kinds: set[tuple[str, bool]] = field(default_factory=set)
    shown: list[tuple[int, Path]] = field(default_factory=list)
    detections: dict[str, list[Detections]] = field(default_factory=dict)


def _through(images: Sequence[ListedImage], run: _Run, folder: Path, advance: Advance, *, maps: bool = False) -> _Found:
    """Go through the images, a few at a time; raises UnreadableFileError where none can be evaluated."""
    found = _Found()
    at_once = _VOLUMES_AT_ONCE if run.card.axes == 3 else _FILES_AT_ONCE
    readable = _readable(images, run, advance)
    for number, part in enumerate(iter(lambda: list(itertools.islice(readable, at_once)), [])):
        fitting, shard = _shard(number, part, run, advance)
        if shard is None:
            continue
        store = ShardValues(shard, run.scoring, folder)
        values = store.values(advance, maps=maps)
        if run.scoring.localised:
            for label, detected in store.detections(advance).items():
                found.detections.setdefault(label, []).extend(detected)
        found.rows += _rows(values, [each.known for each in fitting], len(found.samples))
        found.samples += _samples(fitting, shard, run, len(found.samples))
        found.predicted += shard.logits.argmax(dim=1).tolist()
        found.folders.append(store.folder)
        if run.card.axes == 3:
            _show(found, fitting, shard, store, run, advance)
    if not found.samples:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in run.skipped[:3])
        raise UnreadableFileError(f"images: none of {len(images)} can be evaluated. {reasons}")
    return found


def _show(found: _Found, read: Sequence[_Read], shard: Shard, store: ShardValues, run: _Run, advance: Advance) -> None:
    """Keep what the page shows of the volumes of a shard that are the first of their kind."""
    first = len(found.samples) - len(read)
    for row, each in enumerate(read):
        known = found.samples[first + row]
        kind = (known["label"] or known["predicted"], known["label"] in ("", known["predicted"]))
        if kind in found.kinds:
            continue
        found.kinds.add(kind)
        path = store.folder / SHOWN.format(row)
        if not path.exists():
            mask = None if "mask" in each.known.missing else each.known.mask
            one = list(store.explanation(advance))[row]
            keep_shown(path, shard.images[row], each.lies, one, mask, run.card)
        found.shown.append((first + row, path))


def _given(images: Sequence[ListedImage]) -> frozenset[str]:
    """What is known of any image."""
    there = {
        "masks": any(each.mask or "mask" in each.doubt for each in images),
        "anatomy": any(each.anatomy or "anatomy" in each.doubt for each in images),
        "boxes": any(each.boxes for each in images),
    }
    return frozenset(name for name, known in there.items() if known)


def _bank(paths: Sequence[Path], images: Sequence[ListedImage], card: ModelCard) -> Tensor | None:
    """Held-out images (K, C, *S), none of them among those evaluated."""
    if not paths:
        return None
    own = {each.path.resolve() for each in images}
    files = image_files(list(paths), volumes=card.axes == 3)
    shared = [path for path in files if path.resolve() in own]
    if shared:
        raise expected("bank", "images that aren't evaluated", f"{shared[0].name}, which is")
    return torch.stack([_prepared(path, card, None)[0] for path in files[:BANK]])


def _prepared(path: Path, card: ModelCard, index: int | None) -> tuple[Tensor, Any]:
    """An image as the network wants it, and as it was read."""
    image = read_image(path, index)
    return as_wanted(image, card), image


def _readable(images: Sequence[ListedImage], run: _Run, advance: Advance) -> Iterator[_Read]:
    """Each image that can be read, with its truth; the others are skipped."""
    sources = run.question.sources
    for listed in images:
        try:
            prepared, image = _prepared(listed.path, run.card, run.question.index)
        except (UnreadableFileError, InputError) as error:
            if run.strict:
                raise
            run.skip(listed.name, str(error).replace(str(listed.path), listed.name), advance)
            continue
        known = known_of(listed, image, run.card.image_size, sources.labels, frame_of(run.card))
        if run.strict and known.problems:
            raise InputError(known.problems[0])
        run.problems += known.problems
        yield _Read(listed, prepared, known, Geometry.of(image, scaling_words(image, run.card.intensity)))


def _shard(number: int, part: Sequence[_Read], run: _Run, advance: Advance) -> tuple[list[_Read], Shard | None]:
    """The images that have a class to explain and, where maps were saved, maps that fit them."""
    images = torch.stack([each.image for each in part])
    logits = _logits(run.scoring, images)
    fitting, targets, maps = [], [], []
    for row, read in enumerate(part):
        try:
            target = _target(read.listed, logits[row], run)
            found = None if run.saved is None else run.saved.of(read.listed, read.lies, images.shape[2:])
            if found is not None:
                found.check(logits[row])
                target = _same_target(target, found, read.listed, run)
                maps.append(found)
        except _Elsewhere:
            raise
        except (UnreadableFileError, InputError) as error:
            if run.strict:
                raise type(error)(f"{read.listed.name}: {error}") from error
            run.skip(read.listed.name, error, advance)
            continue
        assert target is not None
        fitting.append(row)
        targets.append(target)
    if not fitting:
        return [], None
    kept = [part[row] for row in fitting]
    known = [each.known for each in kept]
    logits, classes = logits[fitting], torch.tensor(targets)
    apart = run.card.multi_label or len(run.card.classes) == 1
    probabilities = logits.sigmoid() if apart else logits.softmax(dim=1)
    probability = probabilities.gather(1, classes[:, None])[:, 0]
    return kept, Shard(number, images[fitting], logits, classes, probability, known, maps)


class _Elsewhere(InputError):
    """Maps that explain another class than asked: of the wrong run, so that going on makes no sense."""


def _target(listed: ListedImage, logits: Tensor, run: _Run) -> int | None:
    """The class to explain; None where saved maps say it."""
    asked = run.question.target
    if asked is None and run.saved is not None:
        return None
    if asked in (None, "predicted"):
        return int(logits.argmax())
    name = listed.label if asked == "true" else asked
    if asked == "true" and run.card.multi_label:
        own = [run.classes.index(each) for each in labels_of(listed.label) if each in run.classes]
        if not own:
            raise InputError("it has none of the network's labels, and the true one was asked for")
        return max(own, key=lambda place: float(logits[place]))
    if asked == "true" and not name:
        raise InputError("it has no label, and the true class was asked for")
    if name in run.classes:
        return run.classes.index(str(name))
    if asked == "true":
        raise InputError(f"its label {name!r} isn't one of the network's classes")
    return int(str(name))


def _same_target(target: int | None, found: SavedMap, listed: ListedImage, run: _Run) -> int:
    if target is not None and target != found.target:
        wanted, got = run.classes[target], run.classes[found.target]
        do = "Explain again, or leave --target out."
        raise _Elsewhere(str(expected("maps", f"maps of class {wanted!r}", f"{got!r} for {listed.name}", do)))
    return found.target


def _logits(scoring: Scoring, images: Tensor) -> Tensor:
    device = next(scoring.network.parameters()).device
    with torch.no_grad():
        parts = [class_logits(scoring.network(part.to(device))) for part in images.split(scoring.batch_size)]
    return torch.cat(parts).float().cpu()


def _rows(values: Values, known: Sequence[KnownImage] | None, first: int) -> list[tuple[Any, ...]]:
    """Rows (sample, method, metric, value, reason), which say why an image has no mask where it has none."""
    rows = []
    for (row, method, metric), (value, reason) in values.items():
        missing = {} if known is None else known[row].missing
        if reason == EMPTY_MASK:
            reason = missing.get("mask", reason)
        elif reason == EMPTY_ANATOMY:
            reason = missing.get("anatomy", reason)
        elif reason == NO_BOX:
            reason = missing.get("boxes", reason)
        rows.append((first + row, method, metric, value, reason))
    return rows


def _samples(read: Sequence[_Read], shard: Shard, run: _Run, first: int) -> list[dict[str, Any]]:
    samples = []
    for row, each in enumerate(read):
        target = run.classes[int(shard.target[row])]
        label, predicted = each.listed.label, run.classes[int(shard.logits[row].argmax())]
        if run.card.multi_label:  # what is explained is one label: whether it is there, and whether the network says so
            known = each.listed.listed or label != ""
            label = "" if not known else target if target in labels_of(label) else f"no {target}"
            predicted = target if float(shard.probability[row]) >= 0.5 else f"no {target}"
        samples.append(
            {
                "sample": first + row,
                "image": each.listed.name,
                "patient_id": each.listed.patient,
                "label": label,
                "predicted": predicted,
                "target": target,
                "probability": float(shard.probability[row]),
            }
        )
    return samples


def _write(output: Path, run: _Run, found: _Found, left_out: tuple[str, ...]) -> Evaluated:
    """The tables and the record."""
    scoring = run.scoring
    known = pd.DataFrame(found.samples)
    patients = known["patient_id"].tolist()
    known["patient_id"] = numbered(patients)
    scores = scores_table(found.rows, scoring.labels, scoring.metrics)
    scores.insert(1, "image", [known["image"][sample] for sample in scores["sample"]])
    summary = summary_table(scores, scoring.labels, scoring.metrics, patients)
    for name in ("scores.csv", "scores.parquet"):
        write_table(output / name, scores)
    write_table(output / "summary.csv", summary)
    write_table(output / "missing.csv", missing_table(scores))
    write_table(output / "samples.csv", known)
    curves = {label: froc_of(detected) for label, detected in found.detections.items() if detected}
    if curves:
        write_table(output / "froc.csv", froc_table(curves))
    write_json(output / "evaluation.json", _record(run, found, left_out))
    return Evaluated(
        scores, known, summary, tuple(run.skipped), tuple(run.problems), left_out, curves, tuple(found.shown)
    )


def _record(run: _Run, found: _Found, left_out: tuple[str, ...]) -> dict[str, Any]:
    """What was asked of what, by which versions; no time, so that it repeats."""
    question, scoring, card = run.question, run.scoring, run.card
    made = [made_in(folder) for folder in found.folders]
    return {
        "pellucid": pellucid.__version__,
        "environment": environment(next(scoring.network.parameters()).device),
        "model": model_record(scoring.network, card),
        "classes": list(run.classes),
        "images": len(found.samples),
        "skipped": [list(each) for each in run.skipped],
        "problems": list(run.problems),
        "given": sorted(scoring.given),
        "target": question.target or ("predicted" if question.maps is None else "as saved"),
        "maps": None if question.maps is None else question.maps.name,
        "layer": sorted({each["layer"] for each in made}),
        "grid": made[0]["grid"],
        "methods": {label: {"control": is_control(label), "saved": label in scoring.saved} for label in scoring.labels},
        "metrics": {choice.label: metric_record(choice) for choice in scoring.metrics},
        "left_out": list(left_out),
        "bank": 0 if scoring.bank is None else len(scoring.bank),
        "seed": scoring.seed,
        "batch_size": scoring.batch_size,
        "precision": scoring.precision,
        "index": question.index,
    }
