"""`pellucid data`: look a data set over before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Set = Annotated[Path, typer.Argument(help="A folder of class folders, of split folders, or a manifest file.")]


def check(
    path: Set,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for a page with pictures and CSV.", file_okay=False)
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A second data set, to look for copies in: the training data of a test set.")
    ] = None,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Look for near copies too.")] = True,
    threshold: Annotated[float | None, typer.Option(help="Similarity from which pictures are near copies.")] = None,
) -> None:
    """Find copies, parted patients and lesions, conflicting labels, and classes that their source tells."""
    from pellucid.data.leakage import ALIKE, NEAR, check_leakage
    from pellucid.data.manifest import load_manifest
    from pellucid.errors import expected
    from pellucid.report.leakage import WORDS, said, write_leakage

    if threshold is not None and not 0.5 <= threshold <= 1:
        raise expected("threshold", "a similarity from 0.5 to 1", threshold)
    manifest = load_manifest(path, show_progress=True)
    other = None if against is None else load_manifest(against, show_progress=True)
    limit = NEAR if threshold is None else threshold
    report = check_leakage(
        manifest, near=limit if near else None, alike=min(ALIKE, limit), against=other, show_progress=True
    )
    patients = {str(name) for each in (manifest, other) if each is not None for name in each.table["patient_id"]} - {""}
    for each in said(report.findings, patients):
        typer.echo(f"{each.word:{max(map(len, WORDS.values()))}}  {each.text}")
    if not report.findings:
        typer.echo("Nothing was found.")
    if output is not None:
        typer.echo(f"page: {write_leakage(report, manifest, output, against=other)}")
