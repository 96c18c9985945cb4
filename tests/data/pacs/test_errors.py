"""Why a connection failed, in one line, whatever packed the true error in."""

from __future__ import annotations

import socket
import ssl

import pytest
import requests

from pellucid.data.pacs import PacsBrokenError, PacsError, PacsUnreachableError
from pellucid.data.pacs.errors import of_connection
from pellucid.data.pacs.statuses import is_warning, words


def certificate(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "so says OpenSSL"
    return error


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def caused(error: BaseException) -> requests.ConnectionError:
    """As it comes: in words that hold the path, the true error two levels below."""
    outer = requests.ConnectionError("Max retries exceeded with url: /studies/1.2.3?PatientID=P-17")
    inner = OSError("something between")
    inner.__cause__, outer.__context__ = error, inner
    return outer


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (ConnectionRefusedError(), PacsUnreachableError, "nothing listens there (connection refused). Is it running"),
        (socket.gaierror(-2, "Name or service not known"), PacsUnreachableError, "no such host. Check the name"),
        (TimeoutError(), PacsBrokenError, "no answer within 7 s."),
        (requests.ReadTimeout("1.2.3"), PacsBrokenError, "no answer within 7 s."),
        (ConnectionResetError(104, "reset"), PacsBrokenError, "the connection broke off."),
        (requests.exceptions.ChunkedEncodingError("1.2.3"), PacsBrokenError, "the connection broke off."),
        (OSError(113, "No route to host"), PacsUnreachableError, "no route to host."),
        (certificate(18), PacsError, "its certificate is signed by itself. Give the file of that certificate"),
        (certificate(19), PacsError, "its certificate is signed by an authority unknown here. Give the file"),
        (certificate(20), PacsError, "its certificate is signed by an authority unknown here. Give the file"),
        (certificate(10), PacsError, "its certificate has expired."),
        (certificate(9), PacsError, "its certificate isn't valid yet."),
        (certificate(62), PacsError, "its certificate is for another host."),
        (certificate(64), PacsError, "its certificate is for another host."),
        (certificate(23), PacsError, "its certificate can't be trusted (so says OpenSSL)."),
        (tls("WRONG_VERSION_NUMBER"), PacsError, "it doesn't speak TLS there. Is it http:// or dicom://"),
        (tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), PacsError, "it wants a client certificate that it trusts"),
        (tls("TLSV1_ALERT_UNKNOWN_CA"), PacsError, "it wants a client certificate that it trusts"),
        (tls("NO_SHARED_CIPHER"), PacsError, "TLS failed (no shared cipher)."),
        (ssl.SSLEOFError(8, "EOF"), PacsBrokenError, "it broke off TLS (does it want a client certificate"),
    ],
)
def test_the_error_below_is_told(error: BaseException, kind: type[PacsError], told: str) -> None:
    for each in (error, caused(error)):
        found = of_connection(each, "PACS at https://pacs:443", 7)
        assert type(found) is kind
        assert str(found).startswith(f"PACS at https://pacs:443: {told}")
        assert not any(word in str(found) for word in ("1.2.3", "P-17", "\n"))


def test_errors_that_hold_each_other_are_looked_at_once() -> None:
    one, other = OSError("one"), OSError("other")
    one.__context__, other.__context__ = other, one
    assert isinstance(of_connection(one, "PACS at x", 1), PacsBrokenError)


def test_every_status_has_words() -> None:
    assert len({words(status).split(" (0x")[0] for status in range(0x10000)}) > 25
    assert all(words(status).endswith(f"(0x{status:04X})") for status in range(0, 0x10000, 97))
    assert [is_warning(status) for status in (0, 0xB000, 0xB007, 0xA700, 0xC000, 0xFF00, 0x0107)] == [
        *(False, True, True, False, False, False, True)
    ]
