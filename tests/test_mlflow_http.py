"""MLflow's client asks a server over plain HTTP by a new connection for each call, which Linux answers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow.tracking.request_header import registry

from hpo import mlflow_http
from hpo.opening import existing_store

MISSING = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}'


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process registers for later, other tests do not see."""
    monkeypatch.setattr(registry._request_header_provider_registry, "_registry", list(registry._request_header_provider_registry))


@contextmanager
def asked() -> Iterator[tuple[str, list[str | None]]]:
    """A server that knows no experiment: its address, and what each call says of its connection."""
    heard: list[str | None] = []

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            heard.append(self.headers["Connection"])
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(MISSING)))
            self.end_headers()
            self.wfile.write(MISSING)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()


def test_each_call_asks_for_its_connection_to_be_closed() -> None:
    with asked() as (uri, heard):
        for _ in range(2):
            assert existing_store(uri, "none") is None
    assert heard == ["close", "close"]
    own = [provider for provider in registry._request_header_provider_registry if isinstance(provider, mlflow_http.Closing)]
    assert len(own) == 1


def test_where_connections_are_dear_they_are_kept() -> None:
    mlflow_http.use_for("https://mlflow.example.org")
    mlflow_http.use_for("sqlite:///mlflow.db")
    assert "Connection" not in registry.resolve_request_headers()


def test_another_version_of_mlflow_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry._request_header_provider_registry
    monkeypatch.delattr(registry, "_request_header_provider_registry")
    mlflow_http.use_for("http://127.0.0.1:5000")
    assert not any(isinstance(provider, mlflow_http.Closing) for provider in known)
