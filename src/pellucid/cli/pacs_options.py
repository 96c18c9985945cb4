"""Options of the verbs that speak to a PACS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pellucid.data.pacs import Outcome, Pacs

_PANEL = "PACS"
_LISTED = 20  # files that weren't stored
_FILE = {"rich_help_panel": _PANEL, "dir_okay": False}

_URL = typer.Option(
    "--pacs",
    help="https://HOST/dicom-web, or dicom://AETITLE@HOST:PORT. User and password, or a token, come from "
    "PELLUCID_PACS_USER and PELLUCID_PACS_PASSWORD, or PELLUCID_PACS_TOKEN.",
    rich_help_panel=_PANEL,
)
_STUDY = typer.Option("--study", help="The Study Instance UID.", rich_help_panel=_PANEL)
Url = Annotated[str, _URL]
OptionalUrl = Annotated[str | None, _URL]
Study = Annotated[str, _STUDY]
OptionalStudy = Annotated[str | None, _STUDY]
SeriesUids = Annotated[
    list[str] | None,
    typer.Option("--series", help="A Series Instance UID; all without. Repeatable.", rich_help_panel=_PANEL),
]
StoreBack = Annotated[
    bool,
    typer.Option(
        "--store-back", help="Store the DICOM objects in the PACS: those of --write, else all.", rich_help_panel=_PANEL
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option("--pacs-ca", envvar="PELLUCID_PACS_CA", help="Certificates to trust (PEM).", **_FILE),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--pacs-cert", envvar="PELLUCID_PACS_CERT", help="Our own certificate (PEM).", **_FILE),
]
Key = Annotated[
    Path | None,
    typer.Option("--pacs-key", envvar="PELLUCID_PACS_KEY", help="Its key, where it is a file of its own.", **_FILE),
]
Title = Annotated[
    str, typer.Option("--pacs-aet", envvar="PELLUCID_PACS_AET", help="Our own AE title.", rich_help_panel=_PANEL)
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--pacs-listen",
        envvar="PELLUCID_PACS_LISTEN",
        help="PORT (on loopback) or HOST:PORT where files may be sent to, for a PACS that knows C-MOVE only.",
        rich_help_panel=_PANEL,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--pacs-timeout",
        envvar="PELLUCID_PACS_TIMEOUT",
        help="Seconds without an answer after which it counts as silent.",
        rich_help_panel=_PANEL,
    ),
]


def open_pacs(
    url: str,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    title: str,
    listen: str | None,
    timeout: float,
) -> AbstractContextManager[Pacs]:
    """The PACS at a URL, entered with the credentials of the environment; raises InputError."""
    from pellucid.data.pacs import Access, connect, credentials, parse_listen

    secrets = credentials()
    access = Access(
        user=secrets.get("user"),
        password=secrets.get("password"),
        token=secrets.get("token"),
        ca=ca,
        certificate=certificate,
        key=key,
        calling=title,
        listen=None if listen is None else parse_listen(listen),
        timeout=timeout,
    )
    return connect(url, access)


def tell_stored(outcomes: Sequence[Outcome]) -> None:
    """Say what became of stored files; raises PacsError where some weren't."""
    from pellucid.data.pacs import PacsError, failures

    for each in outcomes:
        if each.state == "stored" and each.reason:
            typer.echo(f"{each.path}: {each.reason}", err=True)
    failed = failures(outcomes)
    for each in failed[:_LISTED]:
        typer.echo(f"not stored: {each.path}: {each.reason}", err=True)
    stored = sum(each.state == "stored" for each in outcomes)
    there = sum(each.state == "there" for each in outcomes)
    typer.echo(f"{stored} stored" + (f", {there} were there before" if there else ""))
    if failed:
        raise PacsError(f"{len(failed)} of {len(outcomes)} files were not stored; run the same command to try again.")
