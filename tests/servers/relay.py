"""TLS in front of a server that speaks none, as a reverse proxy gives it: bytes are passed on both ways."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def behind_tls(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port on loopback where TLS is spoken within the block, for the server at `port`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        ended = threading.Event()
        threads = [threading.Thread(target=_accept, args=(listener, port, context, ended))]
        threads[0].start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            threads[0].join()


def _accept(listener: socket.socket, port: int, context: ssl.SSLContext, ended: threading.Event) -> None:
    threads: list[threading.Thread] = []
    while not ended.is_set():
        try:
            plain, _ = listener.accept()
        except TimeoutError:
            continue
        threads.append(threading.Thread(target=_serve, args=(plain, port, context, ended)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def _serve(plain: socket.socket, port: int, context: ssl.SSLContext, ended: threading.Event) -> None:
    plain.settimeout(5)
    with (
        contextlib.suppress(OSError),
        plain,
        context.wrap_socket(plain, server_side=True) as outer,
        socket.create_connection(("127.0.0.1", port)) as inner,
    ):
        outer.settimeout(0.01)
        inner.settimeout(0.01)
        while not ended.is_set():
            for source, target in ((outer, inner), (inner, outer)):
                try:
                    data = source.recv(2**16)
                except TimeoutError:
                    continue
                if not data:
                    return
                target.settimeout(5)
                target.sendall(data)
                target.settimeout(0.01)
