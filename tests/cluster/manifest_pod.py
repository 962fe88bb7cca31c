"""A pod of the manifests as a host of its own, its container as processes there, with what Kubernetes would hand to it.

Volumes, users, groups, environment, Secrets, ConfigMaps and probes are the manifest's; the image's own environment is the
Dockerfile's; its programs are this environment's. Limits of CPU and memory, and network policies, are not kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.hosts import Host, Network
from tests.dockerfile import targets
from tests.manifests import BIN, INFRA
from tests.servers import postgres

STARTED_S = 240.0
PATH = f"{BIN}:{postgres.programs()}:/usr/bin:/bin"
UNITS = {"Mi": 2**20, "Gi": 2**30}


@dataclass(slots=True)
class Namespace:
    """What pods find by name: other pods, Secrets, ConfigMaps and claims; a network for all."""

    folder: Path
    network: Network
    secrets: dict[str, dict[str, str]]
    settings: dict[str, dict[str, str]]
    names: dict[str, str] = field(default_factory=dict)

    def pod(self, name: str, spec: dict[str, Any], image: str) -> Pod:
        """A pod that is reached under `name`; `image` is the Dockerfile's stage. Its container does not run yet."""
        host = self.network.host()
        self.names[name] = host.address
        return Pod(self, name, spec, image, host)


@dataclass(slots=True)
class Pod:
    """One pod with one container."""

    namespace: Namespace
    name: str
    spec: dict[str, Any]
    image: str
    host: Host
    process: subprocess.Popen[bytes] | None = None
    runs: int = 0

    @property
    def container(self) -> dict[str, Any]:
        """Of the manifest."""
        return self.spec["containers"][0]

    @property
    def log(self) -> Path:
        """What the container prints."""
        return self.host.folder / "log"

    def start(self, words: Sequence[str | Path], log: Path | None = None) -> subprocess.Popen[bytes]:
        """Run `words` in the container, as its program or beside it."""
        self.runs += 1
        folder = self.host.folder / f"run{self.runs}"
        (scratch := folder / "scratch").mkdir(parents=True)
        rules = self.spec["securityContext"]
        group = rules.get("fsGroup", rules["runAsGroup"])
        wanted = {
            "scratch": str(scratch),
            "mounts": [
                *self._mounts(folder, group),
                {"at": "/usr/local/share/hpo-mlflow", "source": str(INFRA / "mlflow"), "readOnly": True},
            ],
            "hosts": "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **self.namespace.names}.items()),
            "user": rules["runAsUser"],
            "group": rules["runAsGroup"],
            "groups": [group],
            "environment": self.environment(),
            "words": [str(word) for word in words],
        }
        (file := folder / "container.json").write_text(json.dumps(wanted))
        become = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            sys.executable,
            "-I",
            str(Path(__file__).with_name("become_container.py")),
            str(file),
        ]
        return self.host.start(become, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, Path("/"), log or self.log)

    def run(self, *words: str | Path, timeout_s: float = STARTED_S) -> tuple[int, str]:
        """Run a command in a container like this one, to its end; its exit code and all that it printed."""
        log = self.host.folder / f"said{self.runs}"
        code = self.start(words, log).wait(timeout_s)
        return code, log.read_text()

    def environment(self) -> dict[str, str]:
        """The image's, then the ConfigMaps', then the container's own."""
        found = dict(targets()[self.image].environment)
        for source in self.container.get("envFrom", []):
            found |= self.namespace.settings[source["configMapRef"]["name"]]
        for entry in self.container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            found[entry["name"]] = self.namespace.secrets[reference["name"]][reference["key"]] if reference else entry["value"]
        return {**found, "PATH": PATH}

    def _mounts(self, folder: Path, group: int) -> list[dict[str, Any]]:
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        found = []
        for mount in sorted(self.container.get("volumeMounts", []), key=lambda mount: len(mount["mountPath"])):
            volume = volumes.get(mount["name"], {"claim": {}})
            shown = {"at": mount["mountPath"], "readOnly": mount.get("readOnly", False)}
            if "emptyDir" in volume:
                number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", volume["emptyDir"]["sizeLimit"]).groups()  # type: ignore[union-attr]
                found.append({"at": mount["mountPath"], "size": int(number) * UNITS[unit]})
            elif "secret" in volume or "configMap" in volume:
                found.append({**shown, "source": str(self._files(folder / mount["name"], volume, group))})
            else:
                claim = volume.get("persistentVolumeClaim", {}).get("claimName", f"{self.name}-{mount['name']}")
                found.append({**shown, "source": str(self._claim(claim, group))})
        return found

    def _files(self, folder: Path, volume: dict[str, Any], group: int) -> Path:
        """A Secret or ConfigMap as files, owned by root and readable by the pod's group."""
        folder.mkdir()
        secret = volume.get("secret")
        content = self.namespace.secrets[secret["secretName"]] if secret else self.namespace.settings[volume["configMap"]["name"]]
        for name, text in content.items():
            (file := folder / name).write_text(text)
            _give(file, group, 0o440 if secret else 0o644)
        return folder

    def _claim(self, name: str, group: int) -> Path:
        """A volume that stays: root's, writable by the pod's group, as fsGroup has it."""
        folder = self.namespace.folder / "claims" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            _give(folder, group, 0o2775)
        return folder

    def answers(self, probe: str) -> bool:
        """Whether the container passes this one of its probes, by HTTP at the pod's address or by a command in it."""
        said = self.container[probe]
        if "exec" in said:
            return self.run(*said["exec"]["command"])[0] == 0
        port = said["httpGet"]["port"]
        numbers = {entry["name"]: entry["containerPort"] for entry in self.container.get("ports", [])}
        return self.get(f"http://{self.host.address}:{numbers.get(port, port)}{said['httpGet']['path']}") == 200

    def get(self, address: str, *words: str) -> int:
        """The HTTP status of an address, asked from this pod's host; 0 without an answer."""
        asked = ["curl", "--silent", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}", *words, address]
        return int(self.host.run(asked, {"PATH": "/usr/bin:/bin"}, Path("/")).stdout or 0)

    def until_ready(self) -> None:
        """Wait until the probe that says so passes; AssertionError with the log's end where the container ended instead."""
        assert self.process is not None
        until = time.monotonic() + STARTED_S
        while not self.answers("readinessProbe"):
            assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < until, f"{self.name} is not ready: {self.log.read_text()[-3000:]}"
            time.sleep(0.5)

    def end(self) -> None:
        """Kill all that runs in it; what it mounted goes with that, claims stay."""
        assert self.process is not None
        self.host.run(["kill", "-KILL", "-1"], {"PATH": "/usr/bin:/bin"}, Path("/"))
        self.process.wait()


def _give(path: Path, group: int, mode: int) -> None:
    os.chown(path, 0, group)
    path.chmod(mode)
