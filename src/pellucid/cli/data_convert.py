"""`pellucid data convert`: a data set from a DICOM folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pellucid.data.dicom.inventory import Kind


def convert(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files, searched at any depth.", file_okay=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="For manifest.csv and a page: this folder, one around it, or another."),
    ],
    volumes: Annotated[
        bool | None, typer.Option("--volumes/--pictures", help="Series as volumes, or each file as a picture.")
    ] = None,
    label: Annotated[
        str, typer.Option(help="folder (the outermost one's name), or an attribute such as BodyPartExamined.")
    ] = "",
    labels: Annotated[Path | None, typer.Option(help="CSV with label, and file, series, study or patient_id.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="File of the key that patients are renamed by. OUTPUT.key by default.")
    ] = None,
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Patients and sites by their own names.")] = False,
) -> None:
    """Write a manifest of the pictures or volumes in a DICOM folder, with a page of what was found."""
    from pellucid.data.dicom.dataset_files import MANIFEST, SKIPPED, write_dataset
    from pellucid.data.dicom.deidentify.pseudonyms import load_key
    from pellucid.data.dicom.inventory import take_inventory
    from pellucid.errors import expected
    from pellucid.report.inventory import write_inventory
    from pellucid.report.names import counted

    if label and labels is not None:
        raise expected("label", "one of --label and --labels", "both")
    names = None
    if not keep_ids:
        key = key or output.resolve().with_name(output.resolve().name + ".key")
        fresh = not key.exists()
        names = load_key(key)
        if fresh:
            typer.echo(f"key: {key} (keep it: with it, patients get the same names again)")
    kind: Kind | None = None if volumes is None else "volumes" if volumes else "pictures"
    found = take_inventory(folder, pseudonyms=names, kind=kind, label=label, labels=labels, show_progress=True)
    write_dataset(found, folder, output, show_progress=True)
    page = write_inventory(found, output, folder.resolve().name if keep_ids else "Data set")
    typer.echo(f"{len(found.table)} {found.kind}, {found.table['series'].nunique()} series, "
               f"{found.table.loc[found.table['patient_id'] != '', 'patient_id'].nunique()} patients.")  # fmt: skip
    for note in found.notes:
        typer.echo(note)
    if found.skipped:
        reasons = Counter(reason for _, reason in found.skipped)
        told = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(5))
        typer.echo(f"{counted(len(found.skipped), 'file')} left out ({output / SKIPPED}): {told}")
    typer.echo(f"manifest: {output / MANIFEST}")
    typer.echo(f"page: {page}")
