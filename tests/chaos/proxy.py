"""A proxy on loopback in front of an HTTP server, that loses answers, makes errors up, or is late with a request, by a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Answer = tuple[int, list[tuple[str, str]], bytes]  # status, headers, content
TIMEOUT_S = 120.0
MADE_UP: Answer = (500, [], b"made up by a test")
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"}


@dataclass
class Faults:
    """What the proxy does to requests: `drop` and `error` are probabilities, of no answer and of a made-up 500.

    With an error the server may or may not have seen the request. `refuse` closes every connection at once. The next
    `hold` requests whose path ends with `held_path` get no answer, and reach the server only when the proxy is told so.
    """

    drop: float = 0.0
    error: float = 0.0
    refuse: bool = False
    hold: int = 0
    held_path: str = ""


class Proxy:
    """Forwards what comes to `uri` to the server on `port`; `calls` counts requests, `dropped`, `errors` and `held` faults."""

    def __init__(self, port: int, seed: int = 0) -> None:
        self.faults = Faults()
        self.calls = self.dropped = self.errors = 0
        self.held: list[Callable[[], object]] = []
        self._port, self._chance = port, random.Random(seed)
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self, "timeout": TIMEOUT_S})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def release(self) -> int:
        """Hand the held requests to the server, whose answers nobody waits for; how many there were."""
        held, self.held = self.held, []
        for forward in held:
            forward()
        return len(held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fate(self) -> tuple[bool, bool, bool]:
        """Count a request; whether it is dropped, is answered with an error, and reaches the server."""
        with self._lock:
            self.calls += 1
            dropped = self._chance.random() < self.faults.drop
            failed = not dropped and self._chance.random() < self.faults.error
            reached = not failed or self._chance.random() < 0.5
            self.dropped += dropped
            self.errors += failed
            return dropped, failed, reached

    def holds(self, path: str) -> bool:
        """Whether this request is held back."""
        with self._lock:
            held = self.faults.hold > 0 and path.endswith(self.faults.held_path)
            self.faults.hold -= held
            return held

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """The server's answer; OSError or HTTPException where it is away."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed in the middle of a request is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes, and the second would wait 40 ms for the first to be acknowledged
    proxy: Proxy

    def _any(self) -> None:
        proxy = self.proxy
        body = self._body()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        request = (self.command, self.path, body, headers)
        self.close_connection = True  # unless it comes to an answer
        if proxy.faults.refuse:
            return
        if proxy.holds(self.path):
            proxy.held.append(partial(proxy.forward, *request))
            return
        dropped, failed, reached = proxy.fate()
        with suppress(OSError, HTTPException):  # the server is away, or the client is
            answer = proxy.forward(*request) if reached else MADE_UP
            if not dropped:
                self._answer(*(MADE_UP if failed else answer))
                self.close_connection = False

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
