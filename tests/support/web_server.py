"""A server on this machine with a few pages, some of which behave badly."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Page:
    """What the server sends for one path; `pause` is in seconds, before every byte."""

    content: bytes = b""
    kind: str = "image/png"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0


@contextmanager
def web_server(pages: Mapping[str, Page]) -> Iterator[tuple[str, list[Mapping[str, str]]]]:
    """Yields the server's address, and the headers of all requests so far."""
    requests: list[Mapping[str, str]] = []
    handler = type("BoundHandler", (_Handler,), {"pages": pages, "requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Page]
    requests: list[Mapping[str, str]]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(dict(self.headers))
        page = self.pages.get(self.path, Page(status=404))
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            if not page.pause:
                self.wfile.write(page.content)
                return
            for number in range(len(page.content)):
                time.sleep(page.pause)
                self.wfile.write(page.content[number : number + 1])
        except OSError:
            pass  # the client has hung up
