"""Stands in for a raylet's agents, which a search on one machine asks nothing. A program of its own; imports next to nothing.

A raylet ends when one of its agents does, and before it begins it waits until they have written into files at which ports they
listen, Ray's own behind half a second of imports. This one listens at none, writes what Ray's agent without a dashboard does (-1), and
for runtime environments, of which there are none, a port at which nobody answers. It ends with the raylet.
"""

from __future__ import annotations

import os
import sys
import time

DASHBOARD = {"metrics_agent_port": -1, "metrics_export_port": -1, "dashboard_agent_listen_port": -1}
RUNTIME_ENVIRONMENTS = {"runtime_env_agent_port": 1}
LOOK_S = 0.5


def main(arguments: list[str]) -> None:
    """Write the ports into the session's folder, and idle. `arguments` are those that Ray gives its own agents."""
    given = dict(word.removeprefix("--").split("=", 1) for word in arguments if "=" in word)
    ports = RUNTIME_ENVIRONMENTS if "runtime-env-agent-port" in given else DASHBOARD
    for name, port in ports.items():
        path = f"{given['session-dir']}/{name}_{given['node-id']}"
        with open(f"{path}.new", "w", encoding="ascii") as file:  # noqa: PTH123  # pathlib takes as long to import as all of this
            file.write(str(port))
        os.rename(f"{path}.new", path)  # noqa: PTH104  # the raylet reads as soon as the file is there
    raylet = os.getppid()
    while os.getppid() == raylet:
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1:])
