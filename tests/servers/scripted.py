"""An HTTP server on loopback that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What is sent; `length` is declared where it isn't that of the body, `cut` closes the connection after it."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/dicom+json"
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    cut: bool = False


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted(ThreadingHTTPServer):
    """`answer(request)` says what is sent."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.asked = answer, list[Request]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/dicom-web"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        self.server.asked.append(request)
        answer = self.server.answer(request)
        self.send_response(answer.status)
        headers = {"Content-Type": answer.kind, **answer.headers}
        headers.setdefault("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(answer.body)
        self.close_connection = self.close_connection or answer.cut

    do_POST = do_GET

    def log_message(self, format: str, *words: object) -> None:
        pass


@contextlib.contextmanager
def scripted(answer: Callable[[Request], Answer] | Answer | Sequence[Answer]) -> Iterator[Scripted]:
    """A server with one answer, with one after the other, the last one again and again, or as a function says."""
    if isinstance(answer, Answer):
        answer = [answer]
    if not callable(answer):
        left = list(answer)
        server = Scripted(lambda request: left.pop(0) if len(left) > 1 else left[0])
    else:
        server = Scripted(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
