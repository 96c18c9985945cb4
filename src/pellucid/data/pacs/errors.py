"""What goes wrong between pellucid and a PACS, in words that name no patient and hold no secret."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from pellucid.errors import PellucidError


class PacsError(PellucidError):
    """A PACS can't be asked, refuses, or gives something else than was asked for."""


class PacsUnreachableError(PacsError):
    """There is no way to the PACS just now; it was tried as often as was allowed."""


class PacsBrokenError(PacsUnreachableError):
    """The connection broke in the middle of something, which may be asked again."""


class PacsRefusedError(PacsError):
    """The PACS wants other credentials, rights or AE titles."""


class NotInPacsError(PacsError):
    """What was asked for isn't there, or isn't shown to this user."""


# OpenSSL's numbers of what is wrong with a certificate
_SELF_SIGNED, _SELF_SIGNED_ABOVE, _NO_ISSUER, _NO_CHAIN = 18, 19, 20, 21
_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64


def of_connection(
    error: BaseException, where: str, seconds: float, broken: str = "the connection broke off"
) -> PacsError:
    """Why a connection failed or broke off, from whatever error lies at its bottom.

    >>> print(of_connection(ConnectionRefusedError(), "PACS at http://127.0.0.1:1", 5))
    PACS at http://127.0.0.1:1: nothing listens there (connection refused). Is it running, and is the port right?
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLEOFError):
            return PacsBrokenError(f"{where}: it broke off TLS (does it want a client certificate, --pacs-cert?).")
        if isinstance(cause, ssl.SSLError):
            return PacsError(f"{where}: {_of_tls(cause)}")
        if isinstance(cause, socket.gaierror):
            return PacsUnreachableError(f"{where}: no such host. Check the name, and that this network knows it.")
        if isinstance(cause, ConnectionRefusedError):
            told = "nothing listens there (connection refused). Is it running, and is the port right?"
            return PacsUnreachableError(f"{where}: {told}")
    if any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in causes):
        return PacsBrokenError(f"{where}: no answer within {seconds:g} s.")
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ConnectionError):
            return PacsUnreachableError(f"{where}: {cause.strerror[:1].lower()}{cause.strerror[1:]}.")
    return PacsBrokenError(f"{where}: {broken}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it holds and what lies behind it, the outermost first."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop(0)
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        held = [*error.args, getattr(error, "reason", None), error.__cause__, error.__context__]
        waiting.extend(each for each in held if isinstance(each, BaseException))


def _of_tls(error: ssl.SSLError) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = (error.reason or "").replace("_", " ").lower()
        if any(word in reason for word in ("wrong version number", "http request", "record layer", "unknown protocol")):
            return "it doesn't speak TLS there. Is it http:// or dicom:// rather than https:// or dicom-tls://?"
        if "alert" in reason and ("certificate" in reason or "handshake" in reason or "unknown ca" in reason):
            return f"it wants a client certificate that it trusts ({reason}); give one with --pacs-cert and --pacs-key."
        return f"TLS failed ({reason or 'no reason given'})."
    if error.verify_code in (_SELF_SIGNED, _SELF_SIGNED_ABOVE, _NO_ISSUER, _NO_CHAIN):
        signed = (
            "is signed by itself" if error.verify_code == _SELF_SIGNED else "is signed by an authority unknown here"
        )
        return f"its certificate {signed}. Give the file of that certificate or authority with --pacs-ca."
    if error.verify_code in (_EXPIRED, _NOT_YET):
        return "its certificate has expired." if error.verify_code == _EXPIRED else "its certificate isn't valid yet."
    if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        return "its certificate is for another host. Give the address by the name that the certificate bears."
    return f"its certificate can't be trusted ({error.verify_message})."
