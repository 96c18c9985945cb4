"""Multipart messages of any length, part by part: never more than a piece of one is in memory (RFC 2046, 5.1)."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from pathlib import Path

PIECE = 2**20  # bytes that are read or sent at once

_MOST_BEFORE = 2**16  # bytes before the first boundary
_MOST_HEADERS = 2**14  # bytes of one part's headers


class MultipartError(Exception):
    """A message that isn't what its headers say; the reason alone."""


class TruncatedError(MultipartError):
    """A message that ends too early."""


def content_type(value: str) -> tuple[str, str | None]:
    """A Content-Type's media type in lower case, and its boundary.

    >>> content_type('Multipart/Related; type="application/dicom"; boundary="a b"')
    ('multipart/related', 'a b')
    """
    message = Message()
    message["Content-Type"] = value
    boundary = message.get_boundary()
    return message.get_content_type() if "/" in value else "", boundary


class Parts:
    """The parts of a message: each its headers, by lower-case names, and its body in pieces.

    A body is read before the next part is asked for; what is left of it is skipped then.
    """

    def __init__(self, chunks: Iterable[bytes], boundary: str) -> None:
        if not 1 <= len(boundary) <= 70:
            raise MultipartError("the boundary between its parts can't be right")
        self._chunks = iter(chunks)
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._buffer = bytearray(b"\r\n")  # so that a boundary may come first

    def __iter__(self) -> Iterator[tuple[dict[str, str], Iterator[bytes]]]:
        before = 0
        for piece in self._until_delimiter():
            before += len(piece)
            if before > _MOST_BEFORE:
                raise MultipartError("no part begins where one should")
        while not self._at_end():
            headers = self._headers()
            body = self._until_delimiter()
            yield headers, body
            for _ in body:
                pass

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise TruncatedError("it ends before its last part does")
        self._buffer += chunk

    def _until_delimiter(self) -> Iterator[bytes]:
        buffer, delimiter = self._buffer, self._delimiter
        while (place := buffer.find(delimiter)) < 0:
            safe = len(buffer) - len(delimiter) + 1
            if safe > 0:
                yield bytes(buffer[:safe])
                del buffer[:safe]
            self._more()
        if place:
            yield bytes(buffer[:place])
        del buffer[: place + len(delimiter)]

    def _at_end(self) -> bool:
        """Whether the delimiter just read was the last; if not, go to the start of the line behind it."""
        while len(self._buffer) < 2:
            self._more()
        if self._buffer.startswith(b"--"):
            return True
        line = self._line(70)
        if line.strip(b" \t"):
            raise MultipartError("a boundary between its parts is damaged")
        return False

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        left = _MOST_HEADERS
        while line := self._line(left):
            left -= len(line) + 2
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return headers

    def _line(self, most: int) -> bytes:
        while (place := self._buffer.find(b"\r\n")) < 0 and len(self._buffer) <= most:
            self._more()
        if not 0 <= place <= most:
            raise MultipartError("the headers of a part are damaged")
        line = bytes(self._buffer[:place])
        del self._buffer[: place + 2]
        return line


class FilesAsParts:
    """DICOM files as one message, read from disk while it is sent; its length is known beforehand."""

    def __init__(self, files: Sequence[Path]) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        self._files = [(path, path.stat().st_size) for path in files]
        self._start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        return sum(len(self._start) + size + 2 for _, size in self._files) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for path, size in self._files:
            yield self._start
            with path.open("rb") as handle:
                while piece := handle.read(PIECE):
                    size -= len(piece)
                    if size < 0:
                        break
                    yield piece
            if size:
                raise OSError(f"{path} changed while it was read")
            yield b"\r\n"
        yield self._end
