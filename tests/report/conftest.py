"""Folders as a study leaves them, made up: synthetic pictures, drawn scores, real statistics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w

from pellucid.files import write_json, write_table, write_text
from pellucid.study.plan import arm_folder
from pellucid.study.store import CellStore, write_pictures

METHODS = (
    "grad-cam-plus-plus",
    "xgrad-cam",
    "layer-cam",
    "eigen-grad-cam",
    "ablation-cam",
    "grad-cam",
    "random",
    "center-gaussian",
    "sobel",
)
STRENGTH = dict(zip(METHODS, (0.09, 0.12, 0.08, 0.02, 0.11, 0.12, -0.01, 0.03, 0.10), strict=True))
METRICS = ("road", "road-morf", "road-lerf", "pointing-game", "energy-pointing")


@dataclass
class Made:
    """What to make up; each field is one way in which studies differ."""

    datasets: Sequence[str] = ("brain",)
    models: Sequence[str] = ("resnet18", "mobilenetv3_small_100")
    classes: Sequence[str] = ("glioma", "meningioma", "no tumour")
    enhancements: Sequence[str] = ("none",)
    folds: int = 1
    test: int = 60
    explained: int = 24
    masks: bool = True
    accuracy: float = 0.8
    copies: float = 0.0
    never_predicted: str = ""
    patients: bool = True
    channels: int = 1
    methods: Sequence[str] = METHODS
    signed: bool = False
    unreadable: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    missing: Sequence[tuple[str, str, int]] = field(default_factory=tuple)
    pictures: bool = True
    grid: int = 4


@pytest.fixture(scope="session")
def made_study() -> Callable[..., Path]:
    """`made_study(folder, **fields of Made)` writes a whole folder of results and returns it."""

    def make(output: Path, **fields: object) -> Path:
        from pellucid.study.summary import summarise_stored

        made = Made(**fields)  # type: ignore[arg-type]
        _study_toml(output, made)
        packages = {"pellucid": "0.1.0", "torch": "2.13.0"}
        write_json(
            output / "environment.json", {"packages": packages, "python": "3.12.1", "device": "cpu", "threads": 2}
        )
        splits = pd.concat([_dataset(output, made, name) for name in made.datasets], ignore_index=True)
        write_table(output / "splits.parquet", splits)
        summarise_stored(output)
        return output

    return make


def _study_toml(output: Path, made: Made) -> None:
    study = {
        "name": "made-up",
        "seed": 3,
        "folds": made.folds,
        "models": [{"name": name, "pretrained": False} for name in made.models],
        "enhancements": list(made.enhancements),
        "datasets": [
            {"name": name, "path": f"/home/someone/secret/{name}", "image_size": 64, "channels": made.channels}
            for name in made.datasets
        ],
        "explain": {"methods": list(made.methods), "images": made.explained},
        "statistics": {"resamples": 100},
    }
    write_text(output / "study.toml", tomli_w.dumps(study))


def _dataset(output: Path, made: Made, name: str) -> pd.DataFrame:
    draws = np.random.default_rng(len(name))
    splits: list[pd.DataFrame] = []
    others: list[pd.DataFrame] = []
    for fold in range(made.folds):
        test = _test_rows(made, fold, draws)
        splits.append(test.assign(dataset=name, fold=fold, split="test"))
        others += [
            test.assign(dataset=name, fold=fold, split=split, sample=[f"{split}/{sample}" for sample in test["sample"]])
            for split in ("train", "val")
        ]
        chosen = test.iloc[: made.explained].reset_index(drop=True)
        images, masks = _pictures(chosen, made, draws)
        if made.pictures and len(chosen):
            attributes = {"samples": list(chosen["sample"])}
            arrays = {"images": images, "masks": masks}
            write_pictures(output / "data" / f"{name}_explained_fold-{fold}.zarr", arrays, attributes)
        for model, enhancement in itertools.product(made.models, made.enhancements):
            arm = model if enhancement == "none" else f"{model} + {enhancement}"
            if (name, arm, fold) not in made.missing:
                _cell(
                    CellStore(arm_folder(output, name, arm) / f"fold-{fold}"),
                    made,
                    name,
                    arm,
                    fold,
                    test,
                    chosen,
                    masks,
                    draws,
                )
    rows = pd.concat(splits, ignore_index=True)
    _facts(output / "data", made, name, rows)
    return pd.concat([rows, *others], ignore_index=True)


def _test_rows(made: Made, fold: int, draws: np.random.Generator) -> pd.DataFrame:
    labels = [made.classes[index % len(made.classes)] for index in range(made.test)]
    patients = [f"PAT-{fold}{index // 2:03d}" if made.patients else "" for index in range(made.test)]
    samples = [f"{fold}/{patient}_scan{index:03d}.png" for index, patient in enumerate(patients)]
    return pd.DataFrame(
        {
            "sample": samples,
            "label": labels,
            "copy_in_train": draws.random(made.test) < made.copies,
            "patient_id": patients,
        }
    )


def _pictures(rows: pd.DataFrame, made: Made, draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A soft disc for a head, a bright blob for a lesion; the last class has none."""
    y, x = np.mgrid[0:64, 0:64]
    images = np.zeros((len(rows), made.channels, 64, 64), np.uint8)
    masks = np.zeros((len(rows), 64, 64), bool)
    for index, label in enumerate(rows["label"]):
        head = np.clip(1.3 - np.hypot((x - 32) / 26, (y - 32) / 30), 0, 1)
        head = 0.45 * head**0.5 + 0.06 * draws.standard_normal((64, 64)) * (head > 0)
        if label != made.classes[-1]:
            cx, cy, radius = *draws.integers(20, 44, 2), draws.integers(5, 9)
            lesion = np.hypot(x - cx, y - cy) < radius
            head = head + 0.4 * lesion
            masks[index] = lesion & made.masks
        images[index] = (np.clip(head, 0, 1) * 255).astype(np.uint8)
    return images, masks


def _facts(folder: Path, made: Made, name: str, test: pd.DataFrame) -> None:
    counts = [
        {"fold": fold, "split": split, "label": label, "images": count + fold}
        for fold in range(made.folds)
        for split, count in (("train", 150), ("val", 30), ("test", made.test // len(made.classes)))
        for label in made.classes
    ]
    copies = int(test["copy_in_train"].sum())
    duplicates = pd.DataFrame(
        [
            (group, "cross_split", f"{split}/{group}.png", split, made.classes[0])
            for group in range(1, min(copies, 9) + 1)
            for split in ("train", "test")
        ],
        columns=["group", "kind", "sample", "split", "label"],
    )
    write_table(folder / f"{name}_duplicates.csv", duplicates)
    draws = np.random.default_rng(1)
    if made.pictures:
        labels = [label for label in made.classes for _ in range(4)]
        shown = pd.DataFrame({"label": labels})
        write_pictures(
            folder / f"{name}_examples.zarr", {"images": _pictures(shown, made, draws)[0]}, {"labels": labels}
        )
        if len(duplicates):
            attributes = {
                "kind": ["exact-in-training"] * len(duplicates),
                "size": [2] * len(duplicates),
                "data_set": [name] * len(duplicates),
                "transform": ["", "pixel-identical"] * (len(duplicates) // 2),
                "similarity": [None] * len(duplicates),
                **{column: duplicates[column].tolist() for column in ("group", "sample", "split", "label")},
            }
            images = _pictures(duplicates, made, draws)[0]
            images[1::2] = images[::2]
            write_pictures(folder / f"{name}_leakage.zarr", {"images": images}, attributes)
    write_json(
        folder / f"{name}.json",
        {
            "name": name,
            "classes": list(made.classes),
            "images": 180 * len(made.classes) + made.test,
            "patients": made.test // 2 if made.patients else 0,
            "counts": counts,
            "unreadable": [list(entry) for entry in made.unreadable],
            "notes": list(made.notes),
            "given_split": False,
            "image_size": 64,
            "channels": made.channels,
            "masks": 40 if made.masks else 0,
            "leakage": [
                {
                    "kind": "exact-in-training",
                    "severity": "alarm",
                    "count": copies,
                    "sentence": f"{copies} of {len(test)} test images have a twin, as patient PAT-0001’s scan.",
                }
            ],
            "duplicates": {
                "groups": copies,
                "images": 2 * copies,
                "cross_split": copies,
                "test_images": len(test),
                "conflicting_groups": 0,
            },
        },
    )


def _cell(
    store: CellStore,
    made: Made,
    dataset: str,
    model: str,
    fold: int,
    test: pd.DataFrame,
    chosen: pd.DataFrame,
    masks: np.ndarray,
    draws: np.random.Generator,
) -> None:
    epochs = np.arange(1, 9)
    history = pd.DataFrame(
        {"epoch": epochs, "train_loss": 1.2 * 0.7**epochs, "val_loss": 0.4 + 0.03 * (epochs - 5) ** 2}
    )
    history["val_accuracy"] = 0.9 - 0.5 * 0.6**epochs
    history["learning_rate"] = 1e-3
    history["best"] = epochs == 5
    write_table(store.history, history)
    answers = _answers(made, test, draws)
    write_table(store.predictions, answers)
    explained = _explained(made, chosen, answers, masks, store)
    if len(explained):
        write_table(store.scores, _scores(made, explained, draws))
        store.write_shard(0, {"explained": []}, _maps(made, masks, draws), len(explained))
        store.drop_shards()
    write_json(
        store.times,
        {
            "train_seconds": 83.2,
            "epochs": 8,
            "explain": {method: 0.002 + 0.001 * place for place, method in enumerate(made.methods)}
            if len(chosen)
            else {},
            "forward_seconds_per_image": 0.0123 if len(chosen) else None,
            "shared_seconds_per_image": 0.0287 if len(chosen) else None,
            "evaluate_seconds_per_image": 0.8,
            "device": "cpu",
            "images": len(chosen),
        },
    )
    write_json(
        store.card,
        {
            "dataset": dataset,
            "model": model,
            "network": model.partition(" + ")[0],
            "enhancement": model.partition(" + ")[2] or "none",
            "seed": 3,
            "fold": fold,
            "classes": list(made.classes),
            "image_size": 64,
            "channels": made.channels,
            "normalisation": {"mean": [0.2] * made.channels, "std": [0.2] * made.channels, "origin": "data-set"},
            "pretrained": False,
            "layer": "layer4" if len(chosen) else None,
            "grid": [made.grid, made.grid] if len(chosen) else None,
            "coinciding": [["xgrad-cam", "grad-cam"]] if "xgrad-cam" in made.methods and len(chosen) else [],
            "best_epoch": 5,
            "epochs": 8,
            "stopped_early": True,
            "parameters": 11_170_000,
            "methods": list(made.methods),
            "metrics": list(METRICS),
            "target": "predicted",
            "explained": len(chosen),
            "chance": 1 / len(made.classes),
        },
    )


def _answers(made: Made, test: pd.DataFrame, draws: np.random.Generator) -> pd.DataFrame:
    classes = list(made.classes)
    chance = np.where(test["copy_in_train"], 1.0, made.accuracy)
    right = draws.random(len(test)) < chance
    predicted = []
    for label, hit in zip(test["label"], right, strict=True):
        others = [name for name in classes if name not in (label, made.never_predicted)]
        name = label if hit else others[int(draws.integers(len(others)))]
        predicted.append(name if name != made.never_predicted else others[0])
    table = test[["sample", "patient_id"]].assign(split="test", label=test["label"], predicted=predicted)
    table["correct"] = table["label"] == table["predicted"]
    table["copy_in_train"] = test["copy_in_train"].to_numpy()
    probabilities = draws.dirichlet(np.ones(len(classes)), len(test)) * 0.4
    for row, name in enumerate(predicted):
        probabilities[row, classes.index(name)] += 0.6
    for index, name in enumerate(classes):
        table[f"prob_{name}"] = probabilities[:, index]
    return table


def _explained(
    made: Made, chosen: pd.DataFrame, answers: pd.DataFrame, masks: np.ndarray, store: CellStore
) -> pd.DataFrame:
    if chosen.empty:
        return chosen
    table = chosen.merge(answers[["sample", "predicted", "correct"]], on="sample")
    table["target"] = table["predicted"]
    table["score"] = 2.0
    table["probability"] = 0.6 + 0.01 * np.arange(len(table))
    table["has_mask"] = made.masks
    table["lesion_share"] = masks.mean(axis=(1, 2)) if made.masks else np.nan
    write_table(store.explained, table.astype({"lesion_share": "float64"}))
    return table


def _scores(made: Made, explained: pd.DataFrame, draws: np.random.Generator) -> pd.DataFrame:
    rows = []
    for _, image in explained.iterrows():
        noise = draws.normal(0, 0.03)
        lesion = image["has_mask"] and image["lesion_share"] > 0
        for method in made.methods:
            road = STRENGTH["xgrad-cam" if method == "grad-cam" else method] + noise
            if method not in ("xgrad-cam", "grad-cam"):
                road += draws.normal(0, 0.02)
            values = (road, 0.4 - road, 0.4 + road, float(road > 0.08), 0.5 * max(road, 0.01) + 0.1)
            for metric, value in zip(METRICS, values, strict=True):
                known = lesion or metric.startswith("road")
                rows.append((image["sample"], method, metric, value if known else np.nan))
    return pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])


def _maps(made: Made, masks: np.ndarray, draws: np.random.Generator) -> dict[str, np.ndarray]:
    n, cell = len(masks), 64 // made.grid
    coarse = masks.reshape(n, made.grid, cell, made.grid, cell).mean(axis=(2, 4)).astype(np.float32)
    maps: dict[str, np.ndarray] = {}
    for method in made.methods:
        if method in ("random", "center-gaussian", "sobel"):
            maps[method] = draws.random((n, 64, 64), dtype=np.float32)
        else:
            maps[method] = coarse + 0.02 * draws.random(coarse.shape, dtype=np.float32) - (0.05 if made.signed else 0)
    maps[made.methods[0]][0] = 0
    return maps
