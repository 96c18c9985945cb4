"""Where a PACS is, and how it is entered: an address that can be shown, and credentials that never are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pellucid.errors import InputError, expected

USER, PASSWORD, TOKEN = "PELLUCID_PACS_USER", "PELLUCID_PACS_PASSWORD", "PELLUCID_PACS_TOKEN"
CALLING = "PELLUCID"  # our own AE title

_WANTED = "a URL such as https://pacs/dicom-web or dicom://AETITLE@pacs:104"
_PORTS = {"http": 80, "https": 443, "dicom": 104, "dicom-tls": 2762}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Address:
    """Where a PACS is; it holds no secret, so that it may be shown and written down.

    `title` is the AE title of a PACS that is spoken to by DIMSE, `root` the path of its DICOMweb services.
    """

    kind: Literal["dicomweb", "dimse"]
    host: str
    port: int
    encrypted: bool
    root: str = ""
    title: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.kind == "dimse":
            return f"dicom{'-tls' if self.encrypted else ''}://{self.title}@{host}:{self.port}"
        return f"http{'s' if self.encrypted else ''}://{host}:{self.port}{self.root}"

    @property
    def here(self) -> bool:
        """Whether it is this very machine."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def parse_address(text: str) -> Address:
    """The address of a DICOMweb server (http, https), or of a DIMSE one by its AE title (dicom, dicom-tls).

    Raises InputError, which never repeats the text, since that may hold a password.

    >>> str(parse_address("https://pacs.example/dicom-web/")), str(parse_address("dicom://ARCHIVE@10.0.0.7:11112"))
    ('https://pacs.example:443/dicom-web', 'dicom://ARCHIVE@10.0.0.7:11112')
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:  # which repeats the text
        raise expected("pacs", _WANTED, "something else") from None
    if parts.scheme not in _PORTS:
        raise expected("pacs", _WANTED, f"the scheme {parts.scheme!r}" if parts.scheme else "none with a scheme")
    if not host or _CONTROL.search(text) or " " in host:
        raise expected("pacs", _WANTED, "one without a host")
    if parts.query or parts.fragment:
        raise expected("pacs", "a URL without a query", "one with ? or #")
    port = port or _PORTS[parts.scheme]
    if parts.scheme in ("http", "https"):
        if parts.username is not None:
            raise expected(
                "pacs", "a URL without a user", "one with a user", do=f"Set {USER} and {PASSWORD}, or {TOKEN}."
            )
        return Address("dicomweb", host, port, parts.scheme == "https", root=parts.path.rstrip("/"))
    if parts.password is not None or not parts.username or parts.path.strip("/"):
        raise expected("pacs", "dicom://AETITLE@host:port", "a dicom URL of another form")
    return Address("dimse", host, port, parts.scheme == "dicom-tls", title=check_title("pacs", parts.username))


def check_title(argument: str, title: str) -> str:
    r"""An AE title (PS3.5, 6.2: up to 16 characters, none of them "\" or a control character), or InputError."""
    title = title.strip()
    if not 1 <= len(title) <= 16 or not title.isascii() or "\\" in title or _CONTROL.search(title):
        raise expected(argument, "an AE title of 1 to 16 plain characters", f"one of {len(title)}")
    return title


@dataclass(frozen=True)
class Access:
    """How a PACS is entered and how patiently it is asked.

    Arguments:
        user, password: for basic authentication; or `token`, a bearer token.
        ca: a file of certificates (PEM) that are trusted instead of the system's.
        certificate, key: our own, for a PACS that asks for one (PEM).
        calling: our own AE title.
        listen: host and port where files may be sent to when a PACS knows C-MOVE only; None for nowhere.
        timeout: seconds without any answer after which a PACS counts as silent.
        attempts: how often something is tried that may succeed later, with pauses that double from `pause` seconds.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    calling: str = CALLING
    listen: tuple[str, int] | None = None
    timeout: float = 60.0
    attempts: int = 4
    pause: float = 0.5

    def __post_init__(self) -> None:
        for name, value in ((USER, self.user), (PASSWORD, self.password), (TOKEN, self.token)):
            if value is not None and _CONTROL.search(value):  # else it could forge a header
                raise expected(name, "no line breaks or control characters", "some")
        if (self.user is None) != (self.password is None):
            raise expected(USER, f"both {USER} and {PASSWORD}", "one of them")
        if self.user is not None and self.token is not None:
            raise expected(TOKEN, f"either it, or {USER} and {PASSWORD}", "both")
        if self.user is not None and ":" in self.user:
            raise expected(USER, "a name without a colon", "one with it")
        for name, file in (("pacs-ca", self.ca), ("pacs-cert", self.certificate), ("pacs-key", self.key)):
            if file is not None and not file.is_file():
                raise expected(name, "a file", f"{str(file)!r}, which isn't there")
        if self.key is not None and self.certificate is None:
            raise expected("pacs-key", "a certificate that it belongs to (--pacs-cert)", "none")
        check_title("pacs-aet", self.calling)
        if not self.timeout > 0:
            raise expected("pacs-timeout", "seconds above 0", self.timeout)


def credentials(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """User, password and token from the environment, as `Access` takes them; what is empty counts as absent."""
    names = {"user": USER, "password": PASSWORD, "token": TOKEN}
    return {key: environment[name] for key, name in names.items() if environment.get(name)}


def parse_listen(text: str) -> tuple[str, int]:
    """`PORT`, on loopback alone, or `HOST:PORT`.

    >>> parse_listen("11112"), parse_listen("0.0.0.0:11112")
    (('127.0.0.1', 11112), ('0.0.0.0', 11112))
    """
    host, _, port = text.strip().rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"pacs-listen: expected PORT or HOST:PORT, got {text!r}.")
    return host.strip("[]") or "127.0.0.1", int(port)
