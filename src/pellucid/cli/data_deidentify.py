"""`pellucid data deidentify`: DICOM files without what tells whose they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.options import split_names

if TYPE_CHECKING:
    from pellucid.data.dicom.deidentify import Outcome

_SHOWN = 10

Folder = Annotated[Path, typer.Argument(help="A folder of DICOM files, searched at any depth, or one file.")]


def deidentify(
    folder: Folder,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder, apart from the source.")],
    dates: Annotated[
        str, typer.Option(help="remove, shift (by days of their own for each patient) or keep.")
    ] = "remove",
    keep: Annotated[
        str, typer.Option(help="With commas: patient-characteristics, device, institution, uids, safe-private.")
    ] = "",
    clean: Annotated[
        str,
        typer.Option(help="Cleaned, not removed, with commas: descriptors, structured-content, graphics."),
    ] = "",
    key: Annotated[
        Path | None, typer.Option(help="File of the secret key; made where it isn't there. OUTPUT.key by default.")
    ] = None,
    clean_pixels: Annotated[
        bool, typer.Option("--clean-pixels", help="Blacken what looks like burned-in text.")
    ] = False,
    boxes: Annotated[
        Path | None, typer.Option(help="Blacken these boxes, which someone looked at: boxes.csv of a former run.")
    ] = None,
    keep_map: Annotated[
        Path | None, typer.Option(help="Write which source became which file; tells whose they are.")
    ] = None,
) -> None:
    """Take out of DICOM files what tells whose they are, by PS3.15's basic profile, and read the result back."""
    from pellucid.data.dicom.deidentify import Choices, Job
    from pellucid.data.dicom.deidentify import deidentify as run
    from pellucid.data.dicom.deidentify.review import read_boxes
    from pellucid.report.burned_in import write_burned_in

    cleaned = {name for name in split_names([clean]) if name}
    if clean_pixels or boxes is not None:
        cleaned.add("pixels")
    kept = frozenset(name for name in split_names([keep]) if name)
    choices = Choices(dates, kept, frozenset(cleaned))  # type: ignore[arg-type]  # names are checked there
    regions = None if boxes is None else read_boxes(boxes)
    job = Job(folder, output, key, choices, regions, keep_map)
    fresh = not job.key_file.exists()
    outcome = run(job, show_progress=True)
    _say(outcome)
    if fresh:
        typer.echo(
            f"key: {job.key_file} (keep it, and apart from the files: it leads from their names to the patients')"
        )
    if outcome.suspects or job.review.exists():
        typer.echo(f"burned-in text: {write_burned_in(outcome, job.review)}")
    if keep_map is not None:
        typer.echo(f"map: {keep_map}")
    if not outcome.checked.clean:
        raise typer.Exit(1)


def _say(outcome: Outcome) -> None:
    from pellucid.data.dicom.deidentify.log import LOG
    from pellucid.report.names import counted

    there = f", {len(outcome.present)} were there" if outcome.present else ""
    typer.echo(f"{counted(len(outcome.written), 'file')} de-identified{there}, {len(outcome.skipped)} left out.")
    for name, reason in outcome.skipped[:_SHOWN]:
        typer.echo(f"  {name}: {reason}", err=True)
    if len(outcome.skipped) > _SHOWN:
        typer.echo(f"  and {len(outcome.skipped) - _SHOWN} more", err=True)
    for warning, count in Counter(str(each.row["warnings"]) for each in outcome.files if each.row["warnings"]).items():
        typer.echo(f"  {counted(count, 'file')}: {warning}", err=True)
    if outcome.suspects:
        seem = "picture seems" if len(outcome.suspects) == 1 else "pictures seem"
        told = f"{len(outcome.suspects)} {seem} to bear burned-in text."
        typer.echo(f"{told} Look before you pass the files on.")
    checked = outcome.checked
    formed = f", {checked.formed} of them by dciodvfy" if checked.formed else ""
    if checked.clean:
        typer.echo(
            f"{counted(checked.files, 'file')} read back{formed}: nothing of the source's identifiers was found."
        )
    else:
        kinds = Counter(problem.kind for problem in checked.problems)
        typer.echo(f"{counted(checked.files, 'file')} read back{formed}, with problems: " + ", ".join(
            f"{count} {_KINDS[kind]}" for kind, count in kinds.items()) + ".", err=True)  # fmt: skip
        for problem in checked.problems[:_SHOWN]:
            typer.echo(f"  {problem.file}: {problem.place}", err=True)
    typer.echo(f"log: {outcome.output / LOG}")


_KINDS = {
    "leak": "that may tell whose they are",
    "reference": "with broken references",
    "pixels": "with other pixels",
    "unreadable": "that can't be read",
    "form": "with new errors of form",
}
