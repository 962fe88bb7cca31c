"""What somebody without a token or password gets from each port of a host: run on another host, prints JSON.

    python -m tests.cluster.stranger HOST PORT...

Of a port: the status of each HTTP request, and how many methods of each of Ray's gRPC services, all that this version has, were
answered how. With a token in the environment (STRANGERS_TOKEN) it is no stranger: that shows that the questions are real ones.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import pkgutil
import socket
import sys
from collections import Counter
from typing import Any

import grpc

TIMEOUT_S = 3.0
TOKEN = "STRANGERS_TOKEN"
HTTP = (("GET", "/"), ("GET", "/api/version"), ("GET", "/metrics"), ("POST", "/api/jobs/"), ("POST", "/get_or_create_runtime_env"))
OBJECTS = ("Push", "Pull", "FreeObjects")  # the one service that Python has no stub of
HARMLESS = ("Get", "Check", "Health", "Internal", "Poll")  # with a token the others might do what they say


class Methods:
    """Stands in for a channel: a stub tells it the names of its methods."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def unary_unary(self, name: str, **_: Any) -> None:
        self.names.append(name)

    unary_stream = stream_unary = stream_stream = unary_unary


def methods() -> list[str]:
    """The names of all methods of all of Ray's gRPC services."""
    found = Methods()
    generated = importlib.import_module("ray.core.generated")
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2_grpc"):
            stubs = vars(importlib.import_module(f"ray.core.generated.{module.name}")).items()
            for name, stub in stubs:
                if name.endswith("Stub"):
                    stub(found)
    return [*found.names, *(f"/ray.rpc.ObjectManagerService/{name}" for name in OBJECTS)]


def by_http(host: str, port: int, token: str) -> dict[str, int | str]:
    """The status of each request, or what happened instead."""
    found: dict[str, int | str] = {}
    for method, path in HTTP:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request(
                method, path, body=b"{}" if method == "POST" else None, headers={"Authorization": f"Bearer {token}"} if token else {}
            )
            found[f"{method} {path}"] = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            found[f"{method} {path}"] = type(error).__name__
        finally:
            connection.close()
    return found


def by_grpc(host: str, port: int, token: str) -> dict[str, int]:
    """How many methods were answered by which status."""
    found: Counter[str] = Counter()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for name in methods():
            if token and not name.rpartition("/")[2].startswith(HARMLESS):
                continue
            call = channel.unary_unary(name, request_serializer=lambda message: message, response_deserializer=lambda message: message)
            try:
                call(b"", timeout=TIMEOUT_S, metadata=metadata)
                found[f"OK {name}"] += 1
            except grpc.RpcError as error:
                found[error.code().name] += 1
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and not token:
                    break  # it speaks no gRPC
    return dict(found)


def main() -> None:
    """Print what each port answers."""
    host, token, found = sys.argv[1], os.environ.get(TOKEN, ""), {}
    for port in map(int, sys.argv[2:]):
        try:
            socket.create_connection((host, port), timeout=TIMEOUT_S).close()
        except OSError as error:
            found[port] = {"closed": type(error).__name__}
            continue
        found[port] = {"http": by_http(host, port, token), "grpc": by_grpc(host, port, token)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
