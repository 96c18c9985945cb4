"""HTTP to a DICOMweb server: credentials, certificates, patience, and one clear error for what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from pellucid.data.pacs.address import PASSWORD, TOKEN, USER, Access, Address
from pellucid.data.pacs.certificates import context_of
from pellucid.data.pacs.errors import (
    NotInPacsError,
    PacsBrokenError,
    PacsError,
    PacsRefusedError,
    PacsUnreachableError,
    of_connection,
)
from pellucid.data.pacs.multipart import FilesAsParts, content_type

JSON_TYPES = ("application/dicom+json", "application/json")
MOST_JSON = 2**26  # bytes of one answer

_RECEIVED = 2**16  # bytes read at once, which is what is lost where a connection breaks
_CONNECT_SECONDS = 10.0
_LONGEST_PAUSE = 30.0
_BUSY = (408, 425, 429, 502, 503, 504)  # which say that it may work later
_UNANSWERED = "it broke off without an answer (does it speak HTTP there, and is it http:// or https://?)"
_log = logging.getLogger(__name__)


class StatusError(PacsError):
    """An answer whose HTTP status says that it isn't what was asked for."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class _Credentials(AuthBase):
    """Ours alone, or none: `requests` would else look into ~/.netrc."""

    def __init__(self, access: Access) -> None:
        self._header = None
        if access.token is not None:
            self._header = f"Bearer {access.token}"
        elif access.user is not None:
            self._header = "Basic " + base64.b64encode(f"{access.user}:{access.password}".encode()).decode()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header is not None:
            request.headers["Authorization"] = self._header
        return request


class Transport:
    """Requests to one server. No error holds credentials, a path or a query, since those hold UIDs."""

    def __init__(self, address: Address, access: Access) -> None:
        self.where = f"PACS at {address}"
        self._access = access
        self._address = address
        self._root = str(address)
        self._session = requests.Session()
        self._session.auth = _Credentials(access)
        self._session.headers.update({"User-Agent": "pellucid", "Accept-Encoding": "identity"})
        if address.encrypted:
            context_of(access)  # since `requests` would say of a wrong file no more than that TLS failed
        if access.certificate is not None:
            key = access.key
            self._session.cert = str(access.certificate) if key is None else (str(access.certificate), str(key))
        secret = access.user is not None or access.token is not None
        if secret and not address.encrypted and not address.here:
            _log.warning("note: %s isn't encrypted, so that others on the way can read the credentials", self.where)

    def close(self) -> None:
        self._session.close()

    def get_json(self, path: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The data sets of an answer in DICOM JSON (PS3.18 annex F); none where it is empty."""
        with self.get(path, JSON_TYPES[0], parameters) as response:
            if response.status_code == HTTPStatus.NO_CONTENT:
                return []
            return [each for each in self.json_of(response) if isinstance(each, dict)]

    def json_of(self, response: requests.Response) -> list[Any]:
        """An answer as a list, read up to a size that no true one has."""
        kind, _ = content_type(response.headers.get("Content-Type", ""))
        if kind not in (*JSON_TYPES, ""):
            raise PacsError(f"{self.where}: {_other_type(kind)} where DICOM JSON was asked for. {self._check_path}")
        data = bytearray()
        for piece in self.pieces(response):
            data += piece
            if len(data) > MOST_JSON:
                raise PacsError(f"{self.where}: an answer of more than {MOST_JSON // 2**20} MiB. Ask for less.")
        if not data.strip():
            return []
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise PacsError(f"{self.where}: an answer that isn't JSON. {self._check_path}") from None
        return value if isinstance(value, list) else [value]

    @contextlib.contextmanager
    def get(self, path: str, accept: str, parameters: Mapping[str, Any] | None = None) -> Iterator[requests.Response]:
        """An answer whose body isn't read yet; retried while the server can't be reached or is busy."""
        with contextlib.closing(self._ask("GET", path, {"Accept": accept}, parameters, None)) as response:
            self._check(response)
            yield response

    @contextlib.contextmanager
    def post(self, path: str, body: FilesAsParts) -> Iterator[requests.Response]:
        """As `get`, with files; any status of a store (PS3.18, 10.5.3.1) is left to the caller."""
        headers = {"Accept": JSON_TYPES[0], "Content-Type": body.content_type}
        with contextlib.closing(self._ask("POST", path, headers, None, body)) as response:
            if response.status_code not in (200, 202, 400, 409, 413):
                self._check(response)
            yield response

    def pieces(self, response: requests.Response) -> Iterator[bytes]:
        """The body of an answer, piece by piece; PacsBrokenError where it breaks off."""
        try:
            yield from response.iter_content(_RECEIVED)
        except (requests.RequestException, OSError) as error:
            told = of_connection(error, self.where, self._access.timeout)
            raise PacsBrokenError(str(told)) from None

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        parameters: Mapping[str, Any] | None,
        body: FilesAsParts | None,
    ) -> requests.Response:
        access = self._access
        for attempt in itertools.count(1):
            pause = access.pause * 2 ** (attempt - 1)
            told: PacsError
            try:
                response = self._session.request(
                    method,
                    self._root + path,
                    params=parameters,
                    headers=headers,
                    data=body,
                    stream=True,
                    allow_redirects=False,  # credentials go nowhere else
                    timeout=(min(_CONNECT_SECONDS, access.timeout), access.timeout),
                    verify=True if access.ca is None else str(access.ca),
                )
            except (requests.RequestException, OSError) as error:
                told = of_connection(error, self.where, access.timeout, _UNANSWERED)
            else:
                if response.status_code not in _BUSY:
                    return response
                told = PacsUnreachableError(f"{self.where}: it is busy or out of order ({_status(response)}).")
                asked = response.headers.get("Retry-After", "")
                pause = max(pause, min(float(asked), _LONGEST_PAUSE)) if asked.isdecimal() else pause
                response.close()
            if attempt >= access.attempts or not isinstance(told, PacsUnreachableError):
                raise told from None
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _check(self, response: requests.Response) -> None:
        status, access = response.status_code, self._access
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            place = urlsplit(response.headers.get("Location", ""))
            there = f" to {place.scheme}://{place.hostname}" if place.scheme and place.hostname else ""
            raise PacsError(f"{self.where}: it sends elsewhere{there} ({status}). Give that address with --pacs.")
        if status == HTTPStatus.UNAUTHORIZED:
            given = "the token" if access.token is not None else "this user and password"
            if access.token is None and access.user is None:
                raise PacsRefusedError(
                    f"{self.where}: it wants to know who asks (401). Set {USER} and {PASSWORD}, or {TOKEN}."
                )
            raise PacsRefusedError(f"{self.where}: it doesn't let in {given} (401).")
        if status == HTTPStatus.FORBIDDEN:
            raise PacsRefusedError(f"{self.where}: it doesn't allow that to us (403).")
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise NotInPacsError(f"{self.where}: nothing is there ({status}). {self._check_path}")
        raise StatusError(f"{self.where}: it answers {_status(response)}.", status)

    @property
    def _check_path(self) -> str:
        return "Is it the address of its DICOMweb services, such as https://pacs/dicom-web?"


def _status(response: requests.Response) -> str:
    """The status by its number and the standard's name: a server's own words could hold anything."""
    try:
        return f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return str(response.status_code)


def _other_type(kind: str) -> str:
    known = {"text/html": "a web page", "application/dicom+xml": "XML", "application/xml": "XML", "text/xml": "XML"}
    return known.get(
        kind, f"an answer of the type {kind[:60]!r}" if kind.isprintable() else "an answer of another type"
    )
