"""Addresses and credentials: what is taken, and that no secret is ever shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pellucid.data.pacs import Access, credentials, parse_address, parse_listen
from pellucid.errors import InputError


@pytest.mark.parametrize(
    ("text", "shown", "kind", "encrypted"),
    [
        ("https://pacs.example/dicom-web", "https://pacs.example:443/dicom-web", "dicomweb", True),
        ("http://127.0.0.1:8042/dicom-web/", "http://127.0.0.1:8042/dicom-web", "dicomweb", False),
        ("HTTPS://PACS/a/b/", "https://pacs:443/a/b", "dicomweb", True),
        ("http://[::1]:80", "http://[::1]:80", "dicomweb", False),
        ("dicom://ARCHIVE@10.0.0.7", "dicom://ARCHIVE@10.0.0.7:104", "dimse", False),
        ("dicom-tls://My Pacs@pacs:2762", "dicom-tls://My Pacs@pacs:2762", "dimse", True),
    ],
)
def test_an_address_is_read_and_shown(text: str, shown: str, kind: str, encrypted: bool) -> None:
    address = parse_address(text)
    assert (str(address), address.kind, address.encrypted) == (shown, kind, encrypted)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://someone:hunter2@pacs/dicom-web", "a URL without a user, got one with a user. Set PELLUCID_PACS_USER"),
        ("https://someone@pacs/dicom-web", "a URL without a user"),
        ("https://pacs/dicom-web?token=hunter2", "a URL without a query"),
        ("https://pacs/dicom-web#hunter2", "a URL without a query"),
        ("dicom://A:hunter2@pacs:104", "dicom://AETITLE@host:port"),
        ("dicom://pacs:104", "dicom://AETITLE@host:port"),
        ("dicom://A@pacs:104/x", "dicom://AETITLE@host:port"),
        ("dicom://SEVENTEEN-LETTERS@pacs:104", "an AE title of 1 to 16 plain characters, got one of 17"),
        ("ftp://pacs", "the scheme 'ftp'"),
        ("pacs/dicom-web", "none with a scheme"),
        ("https://:80/hunter2", "one without a host"),
        ("https://pacs:hunter2/", "something else"),
        ("https://pacs:99999/", "something else"),
        ("https://[::1/hunter2", "something else"),
        ("", "none with a scheme"),
    ],
)
def test_what_is_no_address_is_told_without_repeating_it(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_address(text)
    assert told in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert "someone" not in str(caught.value)


def test_credentials_come_from_the_environment_and_are_never_shown() -> None:
    given = {"PELLUCID_PACS_USER": "me", "PELLUCID_PACS_PASSWORD": "hunter2", "PELLUCID_PACS_TOKEN": "", "HOME": "/"}
    assert credentials(given) == {"user": "me", "password": "hunter2"}
    access = Access(user="me", password="hunter2")
    assert "hunter2" not in repr(access)
    assert "hunter2" not in repr(Access(token="hunter2"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"user": "me"}, "both PELLUCID_PACS_USER and PELLUCID_PACS_PASSWORD"),
        ({"password": "hunter2"}, "both PELLUCID_PACS_USER and PELLUCID_PACS_PASSWORD"),
        ({"user": "me", "password": "hunter2", "token": "hunter2"}, "PELLUCID_PACS_TOKEN: expected either it, or"),
        ({"token": "hunter2\r\nX-Evil: 1"}, "no line breaks or control characters"),
        ({"user": "m:e", "password": "hunter2"}, "a name without a colon"),
        ({"ca": Path("/nowhere/ca.pem")}, "pacs-ca: expected a file, got '/nowhere/ca.pem', which isn't there"),
        ({"key": Path(__file__)}, "pacs-key: expected a certificate that it belongs to"),
        ({"calling": ""}, "pacs-aet: expected an AE title"),
        ({"calling": "A\\B"}, "pacs-aet: expected an AE title"),
        ({"timeout": 0.0}, "pacs-timeout: expected seconds above 0"),
    ],
)
def test_what_does_not_go_together_is_told(given: dict[str, object], told: str) -> None:
    with pytest.raises(InputError) as caught:
        Access(**given)  # type: ignore[arg-type]
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_place_to_listen_is_on_loopback_unless_it_says_otherwise() -> None:
    assert parse_listen(" 104 ") == ("127.0.0.1", 104)
    assert parse_listen("[::]:11112") == ("::", 11112)
    for text in ("", "host:", "0", "70000", "port"):
        with pytest.raises(InputError, match="pacs-listen: expected PORT or HOST:PORT"):
            parse_listen(text)


def test_access_has_patience_by_default() -> None:
    access = Access()
    assert access.attempts > 1
    assert access.listen is None
    assert dataclasses.replace(access, timeout=5.0).timeout == 5.0
