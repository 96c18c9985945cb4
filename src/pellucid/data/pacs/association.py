"""An association with a DIMSE server (PS3.8), and one clear error where it isn't granted or breaks off."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from pellucid.data.pacs import statuses
from pellucid.data.pacs.address import Access, Address
from pellucid.data.pacs.certificates import context_of
from pellucid.data.pacs.errors import (
    NotInPacsError,
    PacsBrokenError,
    PacsError,
    PacsRefusedError,
    PacsUnreachableError,
    of_connection,
)

MOST_CONTEXTS = 128  # of one association (PS3.8, 9.3.2.2)

_CONNECT_SECONDS = 10.0
_CALLED_UNKNOWN, _CALLING_UNKNOWN = 7, 3  # PS3.8, table 9-21, for source 1
_TRANSIENT = 2
_UNANSWERED = "it broke off without an answer (does it speak DICOM there, and is it dicom:// or dicom-tls://?)"


class NothingGrantedError(PacsRefusedError):
    """The server grants none of the presentation contexts that were asked for."""


def contexts_of(pairs: Sequence[tuple[str, str]]) -> list[PresentationContext]:
    """A presentation context for each pair of SOP class and transfer syntax, so that each is granted by itself."""
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


class Calls:
    """How associations with one server are asked for."""

    def __init__(self, address: Address, access: Access) -> None:
        self.where = f"PACS at {address}"
        self._address, self._access = address, access

    def application(self) -> AE:
        """Our own application entity, with the patience that was chosen."""
        access = self._access
        own = AE(access.calling)
        own.acse_timeout = own.dimse_timeout = own.network_timeout = access.timeout
        own.connection_timeout = min(_CONNECT_SECONDS, access.timeout)
        return own

    @contextlib.contextmanager
    def associated(
        self, contexts: Sequence[PresentationContext], roles: Sequence[Any] = (), handlers: Sequence[Any] = ()
    ) -> Iterator[Association]:
        """An association that is released at the end, or aborted where something went wrong."""
        association = self._associate(contexts, roles, handlers)
        plain = _socket_of(association)
        try:
            yield association
        except RuntimeError:  # so pynetdicom says that an association is gone when something is to be sent
            if association.is_established:
                raise
            raise PacsBrokenError(f"{self.where}: the connection broke off.") from None
        except BaseException:
            if association.is_established:
                association.abort()
            raise
        finally:
            if association.is_established:
                association.release()
            association.join(self._access.timeout)
            _shut(plain)

    def checked(self, status: Dataset, doing: str) -> int:
        """The code of a response; PacsBrokenError where there was none."""
        if "Status" not in status:
            title = self._access.calling
            raise PacsBrokenError(f"{self.where}: it broke off {doing}. Does it know our AE title {title!r}?")
        return int(status.Status)

    def failed(self, code: int, doing: str) -> PacsError:
        """The error of a response that says that an operation failed."""
        kind = NotInPacsError if code == 0x0112 else PacsRefusedError if code == 0x0124 else PacsError
        return kind(f"{self.where}: {doing} failed: {statuses.words(code)}.")

    def _associate(
        self, contexts: Sequence[PresentationContext], roles: Sequence[Any], handlers: Sequence[Any]
    ) -> Association:
        access, address = self._access, self._address
        tls = context_of(access) if address.encrypted else None
        for attempt in itertools.count(1):
            try:
                association = self.application().associate(
                    address.host,
                    address.port,
                    contexts=list(contexts),
                    ae_title=address.title,
                    ext_neg=list(roles),
                    tls_args=None if tls is None else (tls, address.host),
                    evt_handlers=list(handlers),
                )
            except OSError as error:  # of the name alone: others are written to its log
                raise of_connection(error, self.where, access.timeout) from None
            if association.is_established:
                _send_at_once(association)
                return association
            _shut(_socket_of(association))
            told = self._why(association, tls)
            if attempt >= access.attempts or not isinstance(told, PacsUnreachableError):
                raise told
            time.sleep(access.pause * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _why(self, association: Association, tls: ssl.SSLContext | None) -> PacsError:
        """Why an association wasn't established."""
        answer = association.acceptor.primitive
        if association.is_rejected and isinstance(answer, A_ASSOCIATE):
            return self._of_rejection(answer)
        if isinstance(answer, A_ASSOCIATE) and answer.result == 0:
            return NothingGrantedError(f"{self.where}: it grants none of the services that were asked for.")
        return self._try_connection(tls) or PacsBrokenError(f"{self.where}: {_UNANSWERED}.")

    def _try_connection(self, tls: ssl.SSLContext | None) -> PacsError | None:
        """What goes wrong in connecting, which an association only writes into its log."""
        seconds = min(_CONNECT_SECONDS, self._access.timeout)
        try:
            with socket.create_connection((self._address.host, self._address.port), seconds) as plain:
                if tls is not None:
                    with tls.wrap_socket(plain, server_hostname=self._address.host) as wrapped:
                        wrapped.settimeout(0.2)
                        with contextlib.suppress(TimeoutError):
                            wrapped.recv(1)  # in TLS 1.3 a refused certificate is told only now
        except OSError as error:
            broken = "the connection broke off" + (" (does it speak TLS there?)" if tls is not None else "")
            return of_connection(error, self.where, seconds, broken)
        return None

    def _of_rejection(self, answer: A_ASSOCIATE) -> PacsError:
        access, address = self._access, self._address
        if answer.result_source == 1 and answer.diagnostic == _CALLED_UNKNOWN:
            return PacsRefusedError(f"{self.where}: its AE title isn't {address.title!r}, it says.")
        if answer.result_source == 1 and answer.diagnostic == _CALLING_UNKNOWN:
            return PacsRefusedError(
                f"{self.where}: it doesn't know our AE title {access.calling!r}. "
                "Have it entered there, or give one that is known with --pacs-aet."
            )
        reason = f"{self.where}: it refuses the association ({answer.reason_str.lower()})."
        return PacsUnreachableError(reason) if answer.result == _TRANSIENT else PacsRefusedError(reason)


def _socket_of(association: Association) -> socket.socket | None:
    connection = association.dul.socket
    return None if connection is None else connection.socket


def _send_at_once(association: Association) -> None:
    """Don't wait for the other end's receipt before the next message, which costs 40 ms for each."""
    plain = _socket_of(association)
    if plain is not None:
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _shut(plain: socket.socket | None) -> None:
    """Close a socket that pynetdicom leaves open where its other end is gone already."""
    if plain is not None:
        with contextlib.suppress(OSError):
            plain.close()
