"""Multipart messages: the parts that went in come out, however they are cut, and nothing large is ever held."""

from __future__ import annotations

import email
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pellucid.data.pacs.multipart import PIECE, FilesAsParts, MultipartError, Parts, TruncatedError, content_type

BOUNDARY = "a-boundary_0123"


def message(*bodies: bytes, before: bytes = b"", headers: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    parts = b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + headers + b"\r\n" + body + b"\r\n" for body in bodies)
    return before + parts + b"--" + BOUNDARY.encode() + b"--\r\n"


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read(data: bytes, size: int = 7, boundary: str = BOUNDARY) -> list[tuple[dict[str, str], bytes]]:
    return [(headers, b"".join(body)) for headers, body in Parts(cut(data, size), boundary)]


TRICKY = [
    b"",
    b"\r\n",
    b"\r\n--",
    b"\r\n--a-boundary_012",
    b"--a-boundary_0123",
    b"-\r\n\r\n--a-boundary_01\r\n--",
    bytes(range(256)) * 3,
]


@pytest.mark.parametrize("size", [1, 2, 3, 19, 20, 64, 10_000])
def test_parts_come_out_as_they_went_in(size: int) -> None:
    found = read(message(*TRICKY), size)
    assert [body for _, body in found] == TRICKY
    assert {headers["content-type"] for headers, _ in found} == {"application/dicom"}
    assert read(message(*TRICKY, before=b"some words\r\n"), size) == found
    assert read(message(), size) == []


def test_a_peer_reads_them_alike() -> None:
    data = message(*TRICKY[4:])
    peer = email.message_from_bytes(f'Content-Type: multipart/related; boundary="{BOUNDARY}"\r\n\r\n'.encode() + data)
    assert [part.get_payload(decode=True) for part in peer.get_payload()][-1] == TRICKY[-1]  # type: ignore[union-attr]
    assert read(data)[-1][1] == TRICKY[-1]


def test_a_body_that_is_not_read_is_skipped() -> None:
    bodies = []
    for number, (_, body) in enumerate(Parts(cut(message(b"one" * 50, b"two", b"three"), 5), BOUNDARY)):
        if number != 1:
            bodies.append(b"".join(body))
    assert bodies == [b"one" * 50, b"three"]


def test_a_message_cut_anywhere_is_told() -> None:
    data = message(b"one", b"two")
    for length in range(len(data) - 4):  # behind the last dash nothing need follow
        with pytest.raises(TruncatedError):
            read(data[:length])
    assert [body for _, body in read(data[:-2])] == [b"one", b"two"]


def test_no_more_than_a_piece_is_held() -> None:
    largest = 0
    pieces = 300

    def chunks() -> Iterator[bytes]:
        yield f"--{BOUNDARY}\r\n\r\n".encode()
        for _ in range(pieces):
            yield bytes(1000)
        yield f"\r\n--{BOUNDARY}--".encode()

    parts = Parts(chunks(), BOUNDARY)
    total = 0
    for _, body in parts:
        for piece in body:
            largest = max(largest, len(piece), len(parts._buffer))
            total += len(piece)
    assert total == pieces * 1000
    assert largest < 1200


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"x" * 70_000 + message(b"one"), "no part begins where one should"),
        (message(b"one", headers=b"A: " + b"b" * 20_000 + b"\r\n"), "the headers of a part are damaged"),
        (message(b"one", headers=b"A: b\r\n" * 5_000), "the headers of a part are damaged"),
        (message(b"one\r\n--a-boundary_0123456"), "a boundary between its parts is damaged"),
    ],
)
def test_a_message_that_cannot_be_right_is_told(data: bytes, told: str) -> None:
    with pytest.raises(MultipartError, match=told):
        read(data, 997)


def test_a_boundary_must_be_one() -> None:
    for boundary in ("", "b" * 71):
        with pytest.raises(MultipartError, match="the boundary between its parts can't be right"):
            Parts(iter([b""]), boundary)


def test_random_bytes_give_parts_or_one_error() -> None:
    generator = np.random.default_rng(0)
    data = message(b"one" * 20, b"two" * 20)
    for _ in range(400):
        broken = bytearray(data)
        for _ in range(generator.integers(1, 6)):
            broken[generator.integers(len(broken))] = generator.integers(256)
        try:
            found = read(bytes(broken), int(generator.integers(1, 50)))
        except MultipartError:
            continue
        assert len(found) <= 2


def test_the_type_of_a_message_is_told_from_its_header() -> None:
    assert content_type('multipart/related; type="application/dicom"; boundary=x.y') == ("multipart/related", "x.y")
    assert content_type("application/dicom+json; charset=utf-8") == ("application/dicom+json", None)
    assert content_type("") == ("", None)
    assert content_type("nonsense") == ("", None)


def test_files_are_sent_as_parts_of_a_known_length(tmp_path: Path) -> None:
    bodies = [b"", b"small", bytes(PIECE + 17)]
    paths = []
    for number, body in enumerate(bodies):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(body)
    sent = FilesAsParts(paths)
    data = b"".join(sent)
    assert len(data) == len(sent)
    assert max(map(len, sent)) <= PIECE
    kind, boundary = content_type(sent.content_type)
    assert kind == "multipart/related"
    assert boundary is not None
    assert [body for _, body in read(data, PIECE, boundary)] == bodies
    assert b"".join(sent) == data  # as often as it has to be sent
    paths[1].write_bytes(b"larger than before")
    with pytest.raises(OSError, match="changed while it was read"):
        list(sent)
