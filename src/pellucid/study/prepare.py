"""One data set, read, parted and described, before any network sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pellucid.data.dataset import ImageDataset
from pellucid.data.labels import classes_in, joined, labels_of, members
from pellucid.data.leakage import LeakageReport, copy_kind, find_copies, report_leakage, shown_groups
from pellucid.data.manifest import Manifest, load_manifest
from pellucid.data.masks import on_voxels_of, read_mask
from pellucid.data.phantoms import write_phantoms, write_volumes
from pellucid.data.resample import grid_of
from pellucid.data.splits import assign_splits, left_out_values, split_notes
from pellucid.data.transforms import mask_of
from pellucid.errors import expected
from pellucid.files import read_json, write_json, write_table
from pellucid.metrics import Truth
from pellucid.study.config import ExplainSettings, StudyConfig
from pellucid.study.dataset_settings import PHANTOM, DatasetSettings, ExternalSettings
from pellucid.study.near_copies import NearCopies, near_copies
from pellucid.study.store import fingerprint, table_fingerprint, write_pictures

EXTERNAL = "external "
"""What the part of an external set begins with, in tables of predictions."""
EXAMPLES_PER_CLASS = 4


@dataclass(frozen=True)
class Prepared:
    """A data set ready for its cells: `splits` has a row per image and fold."""

    settings: DatasetSettings
    manifest: Manifest
    splits: pd.DataFrame
    fingerprint: str
    external: Mapping[str, Manifest] = field(default_factory=dict)
    """Sets of other origin by name, their labels in this data set's words."""
    near: NearCopies = field(default_factory=NearCopies)

    @property
    def folds(self) -> int:
        return int(self.splits["fold"].max()) + 1

    def rows(self, fold: int, split: str) -> pd.DataFrame:
        """The manifest's rows of one part of one fold, in the order of their sample names."""
        part = self.splits[(self.splits["fold"] == fold) & (self.splits["split"] == split)]
        table = self.manifest.table.drop(columns="split").merge(part[["sample", "split", "copy_in_train"]], on="sample")
        return table.sort_values("sample", ignore_index=True)

    def external_rows(self, name: str) -> pd.DataFrame:
        """The same of an external set, all of it its own part of the split: "external NAME"."""
        table = self.external[name].table.sort_values("sample", ignore_index=True)
        hashes = pd.concat([self.manifest.table["pixel_hash"], table["pixel_hash"]], ignore_index=True)
        parts = pd.Series("train", hashes.index).where(hashes.index < len(hashes) - len(table), "external")
        kinds = copy_kind(hashes, parts, self.near.across(name)).iloc[-len(table) :]
        return table.assign(split=f"{EXTERNAL}{name}", copy_in_train=(kinds != "").to_numpy())

    def images(self, rows: pd.DataFrame, *, enhancement: str = "none", external: str | None = None) -> ImageDataset:
        """The images of some rows, scaled to [0, 1] and enhanced, not yet normalised."""
        settings = self.settings
        root = self.manifest.root if external is None else self.external[external].root
        return ImageDataset(
            [root / sample for sample in rows["sample"]],
            self._labels(rows),
            channels=settings.channels,
            size=settings.image_size,
            intensity=settings.intensity,
            enhancement=enhancement,
            frame=settings.frame,
        )

    def _labels(self, rows: pd.DataFrame) -> list[int] | Tensor:
        """The class of each row, or 0 and 1 for each of its labels."""
        found = members(list(rows["label"]), self.manifest.classes, self.manifest.multi_label)
        if self.manifest.multi_label:
            return torch.from_numpy(found).float()
        return [int(place) for place in found.argmax(axis=1)]

    def truth(self, rows: pd.DataFrame, images: ImageDataset, first: int = 0) -> Truth:
        """Lesion masks of rows that are the images from position `first` on, empty without one, and mm between pixels.

        The spacing is left out where an image doesn't say.
        """
        size, frame = self.settings.image_size, self.settings.frame
        lengths = size if isinstance(size, tuple) else (size, size)
        masks = torch.zeros(len(rows), *lengths, dtype=torch.bool)
        steps = []
        for position, path in enumerate(rows["mask"]):
            lies = images.geometry(first + position)
            steps.append(lies.steps(lengths, frame))
            if path:
                mask = on_voxels_of(read_mask(self.manifest.root / path, lies.affine), lies.shape, lies.affine)
                masks[position] = mask_of(mask, size=size, frame=frame)
        known = steps and None not in steps
        return Truth(masks, spacing=torch.tensor(steps, dtype=torch.float64) if known else None)


def prepare_dataset(
    settings: DatasetSettings, config: StudyConfig, output: Path, *, strict: bool = False, show_progress: bool = False
) -> Prepared:
    """Read and part one data set and write down what was found."""
    prepared = read_dataset(settings, config, output, strict=strict, show_progress=show_progress)
    describe_dataset(prepared, config, output, show_progress=show_progress)
    return prepared


def read_dataset(
    settings: DatasetSettings, config: StudyConfig, output: Path, *, strict: bool = False, show_progress: bool = False
) -> Prepared:
    """Read and part one data set; only phantoms, which must be drawn first, leave files in `output`.

    Raises InputError when an external set has a class that the data set doesn't.
    """
    manifest = load_manifest(
        _locate(settings, config.seed, output, show_progress),
        name=settings.name,
        multi_label=settings.multi_label,
        labels=settings.labels,
        volumes=settings.volumes,
        strict=strict,
        show_progress=show_progress,
    )
    external = {
        each.name: _read_external(each, manifest, volumes=settings.volumes, strict=strict, show_progress=show_progress)
        for each in settings.external
    }
    # near copies are looked for among pictures; identical volumes are found as identical pictures are
    leakage = settings.leakage.model_copy(update={"near": settings.leakage.near and not settings.volumes})
    near = near_copies(manifest, external, leakage, output / "data", show_progress=show_progress)
    split = settings.split
    alone = split.use == "given"  # asked for by name: a hold-out beside other data sets' folds
    splits = assign_splits(
        manifest,
        test=split.test,
        validation=split.validation,
        folds=1 if alone else config.folds,
        repeats=1 if alone else config.repeats,
        leave_out=split.leave_out,
        seed=config.seed,
        split=split.use,
        near=near.within if near.sought else None,
        action=settings.leakage.action,
    )
    key = fingerprint(manifest_fingerprint(manifest), table_fingerprint(splits))
    return Prepared(settings, manifest, splits, key, external, near)


def check_splits(prepared: Prepared) -> LeakageReport:
    """The leakage that is left in the first fold, with its own parts, and in external sets."""
    manifest, splits = prepared.manifest, prepared.splits
    parts = splits.loc[(splits["fold"] == 0) & (splits["split"] != "excluded"), ["sample", "split"]]
    table = manifest.table.drop(columns="split").merge(parts, on="sample")
    others = [(other, prepared.near.across(name)) for name, other in prepared.external.items()]
    return report_leakage(replace(manifest, table=table[list(manifest.table)]), prepared.near.within, others)


def manifest_fingerprint(manifest: Manifest) -> str:
    """A hash of what a data set holds, wherever it stands."""
    return table_fingerprint(manifest.table[["sample", "label", "patient_id", "pixel_hash", "mask"]])


def _read_external(
    settings: ExternalSettings, manifest: Manifest, *, volumes: bool, strict: bool, show_progress: bool
) -> Manifest:
    several, path = manifest.multi_label, Path(settings.path)
    found = load_manifest(
        path, name=settings.name, multi_label=several, volumes=volumes, strict=strict, show_progress=show_progress
    )
    texts = [
        joined(settings.labels.get(name, name) for name in labels_of(text, several)) for text in found.table["label"]
    ]
    table = found.table.assign(label=texts)
    others = sorted(set(classes_in(texts, several)) - set(manifest.classes))
    if others:
        raise expected(
            f"external set {settings.name!r}",
            f"the classes of {manifest.name!r} ({', '.join(manifest.classes)})",
            f"also {', '.join(others)}",
            do=f'Name them alike, e.g. labels = {{"{others[0]}" = "{manifest.classes[0]}"}}, or leave them out.',
        )
    return replace(found, table=table, classes=manifest.classes)


def choose_explained(test: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Up to `count` test rows, the classes in equal numbers as far as they go, the same for every model."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, 0xE7]))
    shuffled = test.sort_values("sample").iloc[generator.permutation(len(test))]
    turn = shuffled.groupby("label").cumcount()  # the first of each class, then the second of each …
    chosen = shuffled.iloc[np.lexsort((shuffled["label"].to_numpy(str), turn.to_numpy()))].head(count)
    return chosen.sort_values("sample", ignore_index=True)


def _locate(settings: DatasetSettings, seed: int, output: Path, show_progress: bool) -> Path:
    if not settings.path.startswith(PHANTOM):
        return Path(settings.path)
    task = settings.path.removeprefix(PHANTOM)
    folder = output / "phantoms" / settings.name
    if isinstance(settings.image_size, tuple):
        return write_volumes(folder, volumes=settings.images, seed=seed, progress=show_progress)
    return write_phantoms(
        task, folder, images=settings.images, size=settings.image_size, seed=seed, progress=show_progress
    )


def describe_dataset(prepared: Prepared, config: StudyConfig, output: Path, *, show_progress: bool = False) -> None:
    """Write the facts and pictures of a data set, unless they stand there for the same data already.

    Leaves `data/NAME.json`, `data/NAME_duplicates.csv`, `data/NAME_leakage.csv` and, for the report, small pictures
    of examples, of copies and of the images to explain.
    """
    folder, manifest, name = output / "data", prepared.manifest, prepared.settings.name
    others = {name: manifest_fingerprint(other) for name, other in prepared.external.items()}
    key = fingerprint(prepared.fingerprint, prepared.settings.model_dump(), others, config.explain.images, config.seed)
    facts_path = folder / f"{name}.json"
    if facts_path.exists() and read_json(facts_path).get("key") == key:
        return
    copies = find_copies(manifest)
    write_table(folder / f"{name}_duplicates.csv", copies)
    prepared.near.store(folder, name)
    _write_examples(prepared, folder)
    leakage = check_splits(prepared)
    rows = [found.rows.assign(kind=found.kind) for found in leakage.findings if "sample" in found.rows]
    write_table(folder / f"{name}_leakage.csv", pd.concat([pd.DataFrame(columns=["kind"]), *rows], ignore_index=True))
    _write_leakage(prepared, shown_groups(leakage), folder)
    for fold in range(prepared.folds):
        _write_explained(prepared, config.explain, config.seed, fold, folder)
    named = by_label(prepared.splits, manifest.multi_label)
    counts = named.groupby(["fold", "split", "label"]).size().rename("images").reset_index()
    test = prepared.splits[prepared.splits["split"] == "test"]
    write_json(
        facts_path,
        {
            "key": key,
            "name": name,
            "classes": list(manifest.classes),
            "multi_label": manifest.multi_label,
            "images": len(manifest.table),
            "patients": int(manifest.table["patient_id"].replace("", np.nan).nunique()),
            "counts": counts.to_dict("records"),
            "unreadable": [list(entry) for entry in manifest.unreadable],
            "mask_problems": [list(entry) for entry in manifest.mask_problems],
            "notes": [*manifest.notes, *split_notes(manifest, prepared.splits), *_design_notes(prepared, config)],
            "folds": list(_fold_titles(prepared)),
            "external": {
                name: {
                    "images": len(other.table),
                    "patients": int(other.table["patient_id"].replace("", np.nan).nunique()),
                    "counts": by_label(other.table, manifest.multi_label)["label"]
                    .value_counts()
                    .sort_index()
                    .to_dict(),
                    "copies": int(prepared.external_rows(name)["copy_in_train"].sum()),
                    "unreadable": [list(entry) for entry in other.unreadable],
                }
                for name, other in prepared.external.items()
            },
            "given_split": bool(
                (manifest.table["split"] != "").any()
                and prepared.settings.split.use != "random"
                and prepared.settings.leakage.action != "group"
            ),
            "leakage": leakage.table().to_dict("records"),
            "leakage_action": prepared.settings.leakage.action,
            "image_size": prepared.settings.image_size,
            "channels": prepared.settings.channels,
            "frame": prepared.settings.frame.text(),
            "masks": int((manifest.table["mask"] != "").sum()),
            "duplicates": {
                "groups": int(copies["group"].nunique()),
                "images": len(copies),
                "cross_split": int((test["copy_in_train"]).sum()),
                "near_cross_split": int((test["copy_kind"] == "near").sum()),
                "test_images": len(test),
                "conflicting_groups": int((copies.groupby("group")["label"].nunique() > 1).sum()),
            },
        },
    )


def _design_notes(prepared: Prepared, config: StudyConfig) -> Iterator[str]:
    """How folds come about and which images come from elsewhere, where there is something to say of it."""
    column = prepared.settings.split.leave_out
    excluded = int((prepared.splits["split"] == "excluded").sum())
    if column is not None:
        yield f"Each fold tests one value of {column!r}; the networks of that fold were trained on the others."
        tested = prepared.splits[prepared.splits["split"] == "test"]
        for title, (_, rows) in zip(_fold_titles(prepared), tested.groupby("fold"), strict=True):
            if gone := [name for name in prepared.manifest.classes if name not in set(rows["label"])]:
                yield f"The fold that tests {title} holds no image of {', '.join(gone)}."
        if excluded:
            yield f"{excluded} images are left out of a fold, since a patient, lesion or copy of theirs is tested."
    elif config.repeats > 1 and prepared.folds > 1:
        way = "as a hold-out" if config.folds == 1 else f"into {config.folds} folds"
        yield f"The images were parted {way} {config.repeats} times."
    if excluded and column is None:
        where = "" if prepared.folds == 1 else ", counted over the folds,"
        yield f"{excluded} images{where} are left out, as copies of test images or of images with another label."
    for name in prepared.external:
        rows = prepared.external_rows(name)
        copies = int(rows["copy_in_train"].sum())
        yield (
            f"External set {name!r}: {len(rows)} images that no training touched"
            + (f", {copies} of them copies of images of this data set." if copies else ".")
        )


def _fold_titles(prepared: Prepared) -> tuple[str, ...]:
    column = prepared.settings.split.leave_out
    if column is not None:
        return tuple(f"{column} {value}" for value in left_out_values(prepared.manifest.table, column))
    return tuple(f"fold {fold}" for fold in range(prepared.folds))


def by_label(table: pd.DataFrame, multi_label: bool) -> pd.DataFrame:
    """A row per image and label, where an image may have several; those without a label are left out."""
    if not multi_label:
        return table
    return table.assign(label=table["label"].map(labels_of)).explode("label").dropna(subset=["label"])


def _write_examples(prepared: Prepared, folder: Path) -> None:
    table = by_label(prepared.manifest.table.sort_values("sample"), prepared.manifest.multi_label)
    chosen = table.groupby("label", sort=True).head(EXAMPLES_PER_CLASS).sort_values(["label", "sample"])
    arrays, lies = _seen(prepared, chosen)
    write_pictures(
        folder / f"{prepared.settings.name}_examples.zarr", arrays, {"labels": list(chosen["label"]), **lies}
    )


def _write_leakage(prepared: Prepared, shown: pd.DataFrame, folder: Path) -> None:
    if shown.empty:
        return
    pictures = np.concatenate(
        [
            _thumbnail(prepared, row, external=None if name == prepared.manifest.name else str(name))
            for name, row in ((name, shown.iloc[[index]]) for index, name in enumerate(shown["data_set"]))
        ]
    )
    columns = {str(column): shown[column].astype(object).where(shown[column].notna(), None) for column in shown}
    write_pictures(
        folder / f"{prepared.settings.name}_leakage.zarr",
        {"images": pictures},
        {column: values.tolist() for column, values in columns.items()},
    )


def _write_explained(prepared: Prepared, explain: ExplainSettings, seed: int, fold: int, folder: Path) -> None:
    chosen = choose_explained(prepared.rows(fold, "test"), explain.images, seed)
    if chosen.empty:
        return
    images = prepared.images(chosen)
    arrays, lies = _seen(prepared, chosen, images)
    masks = prepared.truth(chosen, images).masks
    assert masks is not None
    path = folder / f"{prepared.settings.name}_explained_fold-{fold}.zarr"
    write_pictures(path, arrays | {"masks": masks.numpy()}, {"samples": list(chosen["sample"]), **lies})


def _seen(
    prepared: Prepared, rows: pd.DataFrame, images: ImageDataset | None = None
) -> tuple[dict[str, np.ndarray], dict[str, list[Any]]]:
    """Images (n, C, H, W) as 8-bit values, as the networks get them but for the normalisation, and by which window.

    Volumes are "volumes" (n, C, D, H, W), and of each its affine is told.
    """
    images = images or prepared.images(rows)
    size, frame = prepared.settings.image_size, prepared.settings.frame
    pixels = np.stack([_bytes(images, position) for position in range(len(rows))])
    lies = [images.geometry(position) for position in range(len(rows))]
    words = [each.scaling for each in lies]
    if not isinstance(size, tuple):
        return {"images": pixels}, {"scaling": words}
    affines = [grid_of(each.shape, each.affine, size, frame).affine for each in lies]
    told = [np.eye(4).tolist() if each is None else each.tolist() for each in affines]
    return {"volumes": pixels}, {"affines": told, "scaling": words}


def _thumbnail(prepared: Prepared, rows: pd.DataFrame, external: str | None = None) -> np.ndarray:
    """Pictures (n, C, H, W) of images; of volumes the middle slice along the third axis of the networks' grid."""
    images = prepared.images(rows, external=external)
    shown = [_bytes(images, position) for position in range(len(rows))]
    return np.stack([each[..., each.shape[-1] // 2] if each.ndim == 4 else each for each in shown])


def _bytes(images: ImageDataset, position: int) -> np.ndarray:
    return (images.image(position) * 255).round().to(torch.uint8).numpy()
