"""Stands in for a raylet's agents until they are asked for, or for good. A program of its own; imports next to nothing.

A raylet begins when its agents have written into files at which ports they listen, Ray's own behind half a second of imports, and
ends when one of them does. The dashboard's is asked nothing by a search on one machine: this one writes what Ray's does where there is
no dashboard (-1), and idles until the raylet ends. That of runtime environments is needed where a trainer uses some, or whoever starts
`hpo` does (uv): this one writes a port that it keeps, and becomes Ray's own, at a low priority, which then listens there.
"""

from __future__ import annotations

import os
import sys
import time

DASHBOARD = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
RUNTIME_ENVIRONMENTS = "runtime_env_agent_port"
LOOK_S = 0.5
NICE = 10


def main(arguments: list[str]) -> None:
    """Stand in for an agent whose program and arguments are these."""
    raylet = os.getppid()
    given = dict(word.removeprefix("--").split("=", 1) for word in arguments if "=" in word)
    folder, node = given["session-dir"], given["node-id"]
    if "runtime-env-agent-port" in given:
        port = _kept_port(given["node-ip-address"])
        _write(f"{folder}/{RUNTIME_ENVIRONMENTS}_{node}", port)
        os.nice(NICE)
        own = [word for word in arguments if not word.startswith("--runtime-env-agent-port=")]
        os.execv(sys.executable, [sys.executable, "-P", "-u", *own, f"--runtime-env-agent-port={port}"])
    for name in DASHBOARD:
        _write(f"{folder}/{name}_{node}", -1)
    while os.getppid() == raylet:
        time.sleep(LOOK_S)


def _kept_port(address: str) -> int:
    """A free port of this address, bound for as long as the process lives, and not listened at: Ray's agent may bind it too."""
    import socket

    family, kind, protocol, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    keeping = socket.socket(family, kind, protocol)
    keeping.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray's agent does
    keeping.bind(place)
    port = int(keeping.getsockname()[1])
    os.set_inheritable(keeping.detach(), True)
    return port


def _write(path: str, port: int) -> None:
    with open(f"{path}.new", "w", encoding="ascii") as file:  # noqa: PTH123  # pathlib takes as long to import as all of this
        file.write(str(port))
    os.rename(f"{path}.new", path)  # noqa: PTH104  # the raylet reads as soon as the file is there


if __name__ == "__main__":
    main(sys.argv[1:])
