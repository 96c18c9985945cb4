"""One cell from training to scores; each stage is skipped when its files are there."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pellucid.attribution import aims
from pellucid.attribution.engine import GridWarning, explain
from pellucid.attribution.explanation import Explanation
from pellucid.attribution.run import device_of
from pellucid.attribution.scorer import unserved
from pellucid.data.dataset import ImageDataset
from pellucid.data.labels import labels_of, members
from pellucid.devices import clock
from pellucid.files import read_json, read_table, write_json, write_table
from pellucid.metrics.evaluate import MissingValuesWarning, evaluate
from pellucid.metrics.families import METRICS, Metric
from pellucid.metrics.verdict import EVIDENCE, METRICS_ASKED, verdicts
from pellucid.models.checkpoints import ModelCard, load_weights
from pellucid.models.zoo import count_parameters
from pellucid.progress import Advance, in_parts, progress
from pellucid.registry import Choice
from pellucid.study.combine import obtain_model
from pellucid.study.config import StudyConfig
from pellucid.study.model_settings import ModelSettings, VoteSettings
from pellucid.study.network import chosen_candidate, training_settings
from pellucid.study.notes import noted
from pellucid.study.plan import Cell, cell_seed, member_cell
from pellucid.study.predictions import card_normalisation, predict_cell, predicted
from pellucid.study.prepare import Prepared, choose_explained, manifest_fingerprint
from pellucid.study.store import SHARD, CellStore, fingerprint
from pellucid.training.defaults import taken_by_default
from pellucid.training.fit import Fitted

_log = logging.getLogger(__name__)
_EVIDENCE = [each.name for each in EVIDENCE]
_TARGET_COLUMNS = {"predicted": "predicted", "true": "label"}


def run_cell(
    cell: Cell,
    prepared: Prepared,
    config: StudyConfig,
    output: Path,
    *,
    device: torch.device,
    show_progress: bool = False,
) -> None:
    """Train, predict, explain and score one cell; what is done already isn't computed again."""
    store = CellStore(cell.folder(output))
    store.accept(cell_inputs(cell, prepared, config))
    if not store.finished:
        _compute(cell, prepared, config, output, device, show_progress)
    store.drop_shards()  # a kill may have come between the card and this
    if prepared.external and not store.external.exists():
        network, card = load_weights(store.weights, device)
        tables = [
            predicted(network, card, prepared, cell, prepared.external_rows(name), name, show_progress)
            for name in prepared.external
        ]
        write_table(store.external, pd.concat(tables, ignore_index=True))


def _compute(
    cell: Cell, prepared: Prepared, config: StudyConfig, output: Path, device: torch.device, show_progress: bool
) -> None:
    store = CellStore(cell.folder(output))
    fitted = obtain_model(cell, prepared, config, output, device=device, show_progress=show_progress)
    network, card = load_weights(store.weights, device)
    if not store.predictions.exists():
        table = predict_cell(network, card, prepared, cell, show_progress=show_progress)
        write_table(store.predictions, table)
    _explain_cell(network, card, cell, prepared, config, store, show_progress)
    _finish(network, card, cell, config, store, fitted, device)


def _explain_cell(
    network: nn.Module,
    card: ModelCard,
    cell: Cell,
    prepared: Prepared,
    config: StudyConfig,
    store: CellStore,
    show_progress: bool,
) -> None:
    """Explain and score the chosen test images, a shard at a time."""
    most = config.explain.images if made_methods(network, config) else 0
    rows = choose_explained(prepared.rows(cell.fold, "test"), most, config.seed)
    known = read_table(store.predictions).set_index("sample").loc[list(rows["sample"])]
    rows["predicted"] = known["predicted"].to_numpy()
    rows["target"] = explained_classes(known, card, config.explain.target)
    shards = math.ceil(len(rows) / SHARD)
    images = prepared.images(rows, enhancement=cell.enhancement)
    dataset = images.with_transform(card_normalisation(card))
    title = f"explaining {cell.model.name}"
    with progress(title, len(rows), show=show_progress) as advance:
        for shard in range(shards):
            part = rows.iloc[shard * SHARD : (shard + 1) * SHARD].reset_index(drop=True)
            if store.shard_done(shard):
                advance(len(part))
            else:
                _explain_shard(network, card, cell, prepared, config, store, dataset, part, shard, len(rows), advance)


def _explain_shard(
    network: nn.Module,
    card: ModelCard,
    cell: Cell,
    prepared: Prepared,
    config: StudyConfig,
    store: CellStore,
    dataset: ImageDataset,
    part: pd.DataFrame,
    shard: int,
    total: int,
    advance: Advance,
) -> None:
    by_half = in_parts(advance, 2)
    start = shard * SHARD
    images = torch.stack([dataset[position][0] for position in range(start, start + len(part))])
    target = torch.tensor([card.classes.index(name) for name in part["target"]])
    truth = prepared.truth(part, dataset, start)
    assert truth.masks is not None
    masks, has_mask = truth.masks, torch.tensor([bool(path) for path in part["mask"]])
    seed = cell_seed(config.seed, cell, shard, with_model=False)  # controls are the same for every model
    with noted(_log, GridWarning, MissingValuesWarning):  # which the report tells
        explanation = explain(
            network,
            images,
            methods=made_methods(network, config),
            target=aims.multi_label(target) if card.multi_label else target,
            layer=config.explain.layer,
            batch_size=config.explain.batch_size,
            generator=torch.Generator().manual_seed(seed),
            progress=by_half,
        )
        measures = _measured(config)
        forward_seconds = _forward_seconds(network, images, config.explain.batch_size)
        started = clock(device_of(network))
        values = evaluate(
            network,
            images,
            explanation,
            metrics=measures,
            masks=truth if bool(has_mask.any()) else None,
            multi_label=card.multi_label,
            batch_size=config.evaluate.batch_size,
            compile=config.evaluate.compile,
            generator=torch.Generator().manual_seed(seed + 1),
            progress=in_parts(by_half, len(explanation.maps) * len(measures)),
        )
        evaluate_seconds = clock(device_of(network)) - started
    explained = _explained_rows(part, explanation, card, masks, has_mask)
    asked = values["metric"].isin(config.evaluate.metrics)
    scores = values[asked].assign(sample=[part["sample"].iloc[place] for place in values.loc[asked, "sample"]])
    said = verdicts(values, explanation.probability.tolist()) if config.evaluate.verdicts else values[:0]
    said = said.assign(sample=[part["sample"].iloc[place] for place in said["sample"]])
    store.write_shard(
        shard,
        {
            "explained": _records(explained),
            "scores": _records(scores[["sample", "method", "metric", "value", "reason"]]),
            "verdicts": _records(said),
            "layer": explanation.layer,
            "grid": list(explanation.grid),
            "coinciding": [list(group) for group in explanation.coinciding],
            "seconds": {name: value for name, value in explanation.seconds.items() if name != "forward"},
            "shared_seconds": explanation.seconds["forward"],
            "forward_seconds": forward_seconds,
            "evaluate_seconds": evaluate_seconds,
        },
        {method: explanation.layer_maps.get(method, explanation.maps[method]).numpy() for method in explanation.maps},
        total,
    )


def _measured(config: StudyConfig) -> list[Choice[Metric]]:
    """The study's metrics, and those that verdicts rest on."""
    labels = [*config.evaluate.metrics, *(METRICS_ASKED if config.evaluate.verdicts else ())]
    return [METRICS.from_label(label) for label in dict.fromkeys(labels)]


def explained_classes(answers: pd.DataFrame, card: ModelCard, target: str) -> list[str]:
    """The class of each image that is explained: that predicted, or the true one.

    Of several labels that of the largest probability, or the same among those that the image has, as far as it has any.
    """
    if not card.multi_label:
        return list(answers[_TARGET_COLUMNS[target]])
    probabilities = answers[[f"prob_{name}" for name in card.classes]].to_numpy()
    truth = members(list(answers["label"]), card.classes, True)
    if target == "true":
        probabilities = probabilities + truth  # a label that is there comes before any that isn't
    return [card.classes[place] for place in probabilities.argmax(axis=1)]


def made_methods(network: nn.Module, config: StudyConfig) -> list[str]:
    """The study's methods that can be made of this network."""
    without = unserved(network, config.explain.methods)
    return [method for method in config.explain.methods if method not in without]


def _forward_seconds(network: nn.Module, images: Tensor, batch_size: int) -> float:
    """What plain forward passes of the images take, without gradients: the floor under every explanation."""
    device = device_of(network)
    started = clock(device)
    with torch.inference_mode():
        for batch in images.split(batch_size):
            network(batch.to(device))
    return clock(device) - started


def _explained_rows(
    part: pd.DataFrame, explanation: Explanation, card: ModelCard, masks: Tensor, has_mask: Tensor
) -> pd.DataFrame:
    table = part[["sample", "patient_id", "label", "predicted"]].copy()
    table["target"] = [card.classes[index] for index in explanation.target.tolist()]
    table["score"] = explanation.score.double().numpy()
    table["probability"] = explanation.probability.double().numpy()
    if card.multi_label:  # what is explained is one label: whether it is there, and whether the network says so
        named = zip(table["target"], table["label"], table["predicted"], strict=True)
        said = [[name if name in labels_of(text) else f"no {name}" for text in texts] for name, *texts in named]
        table["label"], table["predicted"] = ([pair[side] for pair in said] for side in (0, 1))
    table["correct"] = table["label"] == table["predicted"]
    table["copy_in_train"] = part["copy_in_train"].astype(bool)
    table["has_mask"] = has_mask.numpy()
    share = masks.flatten(1).double().mean(dim=1).numpy()
    table["lesion_share"] = np.where(has_mask.numpy(), share, np.nan)
    return table


def _finish(
    network: nn.Module,
    card: ModelCard,
    cell: Cell,
    config: StudyConfig,
    store: CellStore,
    fitted: Fitted,
    device: torch.device,
) -> None:
    """Join the shards into tables and write the cell's card, which marks it as finished."""
    shards = store.read_shards()
    explained = pd.DataFrame([row for shard in shards for row in shard["explained"]])
    scores = pd.DataFrame([row for shard in shards for row in shard["scores"]])
    if shards:
        write_table(store.explained, explained.astype({"lesion_share": "float64"}))
        write_table(store.scores, scores.astype({"value": "float64"}))
        judged = [row for shard in shards for row in shard["verdicts"]]
        if judged:
            write_table(store.verdicts, pd.DataFrame(judged).astype(dict.fromkeys(_EVIDENCE, "float64")))
    predictions = read_table(store.predictions)
    test = predictions[predictions["split"] == "test"]
    images = max(len(explained), 1)
    methods = list(shards[0]["seconds"]) if shards else []

    def per_image(name: str) -> float | None:
        return sum(float(shard[name]) for shard in shards) / images if shards else None

    write_json(
        store.times,
        {
            "train_seconds": fitted.seconds,
            "epochs": len(fitted.history),
            "explain": {name: sum(shard["seconds"][name] for shard in shards) / images for name in methods},
            "forward_seconds_per_image": per_image("forward_seconds"),
            "shared_seconds_per_image": per_image("shared_seconds"),
            "evaluate_seconds_per_image": per_image("evaluate_seconds"),
            "device": str(device),
            "images": len(explained),
        },
    )
    write_json(
        store.card,
        {
            "dataset": cell.dataset.name,
            "model": cell.arm,
            "network": cell.model.name,
            "enhancement": cell.enhancement,
            "seed": cell.seed,
            "fold": cell.fold,
            "classes": list(card.classes),
            "image_size": card.image_size,
            "channels": card.channels,
            "orientation": card.orientation,
            "spacing": card.spacing,
            "normalisation": {"mean": list(card.mean), "std": list(card.std), "origin": card.normalisation},
            "pretrained": getattr(cell.model, "pretrained", None),
            "combination": read_json(store.combination) if store.combination.exists() else None,
            "layer": shards[0]["layer"] if shards else None,
            "grid": shards[0]["grid"] if shards else None,
            "coinciding": _coinciding([shard["coinciding"] for shard in shards]),
            **_trained(cell, config, store, fitted),
            "best_epoch": fitted.best_epoch,
            "epochs": len(fitted.history),
            "stopped_early": fitted.stopped_early,
            "parameters": count_parameters(network),
            "methods": made_methods(network, config),
            "unmade": unserved(network, config.explain.methods),
            "metrics": list(config.evaluate.metrics),
            "target": config.explain.target,
            "explained": len(explained),
            "chance": float(test["label"].value_counts(normalize=True).max()),
        },
    )


def _trained(cell: Cell, config: StudyConfig, store: CellStore, fitted: Fitted) -> dict[str, Any]:
    """The settings that the network was trained with, and where they come from; None where nothing was trained."""
    if not isinstance(cell.model, ModelSettings) or fitted.settings is None:
        return {"tuned": None, "training": None, "by_default": [], "rate_found": ""}
    tuned = config.tuning.candidates[chosen_candidate(store)] if config.tuning.candidates else None
    asked = cell.model.trained_by(config.training).model_copy(update=tuned or {})
    return {
        "tuned": tuned,
        "training": fitted.settings.model_dump(mode="json", exclude={"workers", "devices"}),
        "by_default": list(taken_by_default(asked)),
        "rate_found": fitted.found,
    }


def _coinciding(shards: list[list[list[str]]]) -> list[list[str]]:
    """Methods that gave the same map up to scale in every shard: pairs common to all, joined into groups."""
    if not shards:
        return []
    common = set.intersection(
        *({(a, b) for group in groups for a in group for b in group if a != b} for groups in shards)
    )
    joined: list[list[str]] = []
    for group in shards[0]:
        rest = list(group)
        while rest:
            same = [name for name in rest if name == rest[0] or (rest[0], name) in common]
            if len(same) > 1:
                joined.append(same)
            rest = [name for name in rest if name not in same]
    return joined


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, which has no NaN."""
    return [
        {str(key): None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def stale_stages(cell: Cell, prepared: Prepared, config: StudyConfig, output: Path) -> tuple[str, ...]:
    """Finished stages of a cell that were made from other inputs than these."""
    return CellStore(cell.folder(output)).stale(cell_inputs(cell, prepared, config))


def cell_inputs(cell: Cell, prepared: Prepared, config: StudyConfig) -> dict[str, str]:
    """What each stage of the cell is made from, in short."""
    members = cell.model.members if isinstance(cell.model, VoteSettings) else ()
    training = fingerprint(
        cell.model.model_dump(exclude={"learning_rate", "epochs", "training"}),
        [cell_inputs(member_cell(cell, name, config), prepared, config)["training"] for name in members],
        cell.dataset.model_dump(exclude={"path", "name", "external"}),
        prepared.fingerprint,
        # as trained: another version's defaults may differ
        training_settings(cell.model, config.training).model_dump(exclude={"workers", "devices"})
        if isinstance(cell.model, ModelSettings)
        else None,
        config.tuning.model_dump() if config.tuning.candidates else None,
        cell.enhancement,
        cell.seed,
        cell.fold,
    )
    explaining = fingerprint(
        training,
        config.seed,
        config.explain.model_dump(exclude={"batch_size"}),
        config.evaluate.model_dump(exclude={"batch_size", "compile"}),
    )
    others = {name: manifest_fingerprint(other) for name, other in prepared.external.items()}
    return {"training": training, "explaining": explaining, "external": fingerprint(training, others)}
