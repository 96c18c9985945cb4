"""`pellucid data query`, `fetch` and `store`: studies in a PACS, out of it, and files into it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.pacs_options import (
    Ca,
    Certificate,
    Key,
    Listen,
    SeriesUids,
    Study,
    Timeout,
    Title,
    Url,
    open_pacs,
    tell_stored,
)

if TYPE_CHECKING:
    from pellucid.data.pacs import StudyEntry

_WIDEST = 40  # letters of one column


def query(
    pacs: Url,
    patient_id: Annotated[str | None, typer.Option(help="The patient's ID in the PACS.")] = None,
    modality: Annotated[str | None, typer.Option(help="One that occurs in the study, such as CT.")] = None,
    date: Annotated[str | None, typer.Option(help="YYYYMMDD, or a range such as 20260101-20261231.")] = None,
    limit: Annotated[int, typer.Option(help="How many are listed at most.", min=1)] = 50,
    names: Annotated[bool, typer.Option("--names", help="Show patients' names and IDs too.")] = False,
    pacs_ca: Ca = None,
    pacs_cert: Certificate = None,
    pacs_key: Key = None,
    pacs_aet: Title = "PELLUCID",
    pacs_listen: Listen = None,
    pacs_timeout: Timeout = 60.0,
) -> None:
    """List studies in a PACS, the latest first: date, modalities, how much they hold, and their UIDs."""
    from pellucid.data.pacs import Query, find_studies

    asked = Query(patient_id, modality and modality.upper(), date, limit=limit + 1)
    with open_pacs(pacs, pacs_ca, pacs_cert, pacs_key, pacs_aet, pacs_listen, pacs_timeout) as server:
        found = find_studies(server, asked)
    if not found:
        typer.echo("No study matches.")
        return
    typer.echo(_table(found[:limit], names=names))
    if len(found) > limit:
        typer.echo(f"There are more than {limit}: narrow the search, or raise --limit.", err=True)


def fetch(
    pacs: Url,
    study: Study,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.", file_okay=False)],
    series: SeriesUids = None,
    pacs_ca: Ca = None,
    pacs_cert: Certificate = None,
    pacs_key: Key = None,
    pacs_aet: Title = "PELLUCID",
    pacs_listen: Listen = None,
    pacs_timeout: Timeout = 60.0,
) -> None:
    """Fetch a study from a PACS into a folder. Run again, it fetches only what is missing."""
    from pellucid.data.pacs import fetch_study, study_folder

    with open_pacs(pacs, pacs_ca, pacs_cert, pacs_key, pacs_aet, pacs_listen, pacs_timeout) as server:
        fetched = fetch_study(server, study, output / study_folder(study), series=series or (), show_progress=True)
    before = f" ({fetched.before} were there before)" if fetched.before else ""
    typer.echo(f"{len(fetched.files)} instances{before}: {fetched.folder}")


def store(
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders that are searched for *.dcm.")],
    pacs: Url,
    record: Annotated[
        Path | None, typer.Option(help="A JSON file that remembers what was stored, by hashes.", dir_okay=False)
    ] = None,
    pacs_ca: Ca = None,
    pacs_cert: Certificate = None,
    pacs_key: Key = None,
    pacs_aet: Title = "PELLUCID",
    pacs_listen: Listen = None,
    pacs_timeout: Timeout = 60.0,
) -> None:
    """Store DICOM files in a PACS, each once: what it has already isn't sent again."""
    from pellucid.data.pacs import store_files
    from pellucid.errors import expected

    absent = [path for path in files if not path.exists()]
    if absent:
        raise expected("files", "files and folders", f"{str(absent[0])!r}, which isn't there")
    listed = [each for path in files for each in (sorted(path.rglob("*.dcm")) if path.is_dir() else [path])]
    if not listed:
        raise expected("files", "DICOM files", "folders without *.dcm")
    with open_pacs(pacs, pacs_ca, pacs_cert, pacs_key, pacs_aet, pacs_listen, pacs_timeout) as server:
        outcomes = store_files(server, listed, record=record, show_progress=True)
    tell_stored(outcomes)


def _table(studies: Sequence[StudyEntry], *, names: bool) -> str:
    heads = ["date", "modalities", "series", "instances", "description", *(["patient", "ID"] if names else []), "study"]
    rows = [heads]
    for each in studies:
        counts = ["" if count is None else str(count) for count in (each.series, each.instances)]
        person = [each.patient_name, each.patient_id] if names else []
        described = each.description if names or not _tells(each) else "(names the patient)"
        rows.append([each.date, ", ".join(each.modalities), *counts, described, *person, each.uid])
    shown = [[*(_shown(cell)[:_WIDEST] for cell in row[:-1]), _shown(row[-1])] for row in rows]
    widths = [max(len(row[place]) for row in shown) for place in range(len(heads))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )


def _tells(study: StudyEntry) -> bool:
    """Whether a study's description holds a part of the patient's name or the ID."""
    words = [*re.split(r"[\W_]+", study.patient_name), study.patient_id]
    return any(len(word) > 2 and word.casefold() in study.description.casefold() for word in words)


def _shown(text: str) -> str:
    """A server's text without what could move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
