"""Hosts that are network, process and mount namespaces, joined by a bridge; what a host runs ends with it. Linux, root.

A host sees the machine's files, except those that are hidden from it, and has a /tmp/ray, a HOME and a name of its own.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

NETWORK = "10.77"
NEEDED = ("ip", "unshare", "nsenter", "mount")
STARTED_S = 20.0
_NETWORKS = itertools.count()


def why_not() -> str:
    """Why there can be no hosts here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install iproute2 util-linux)"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True, check=False)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Host:
    """One of them. `name` is its host name, `address` its IPv4 address."""

    def __init__(self, network: Network, number: int, hidden: Sequence[Path]) -> None:
        self.name = f"host{number}"
        self.address = f"{network.prefix}.{number}"
        self.folder = network.folder / self.name
        self.home, ray, self._empty = self.folder / "home", self.folder / "ray", self.folder / "empty"
        for folder in (self.home, ray, self._empty):
            folder.mkdir(parents=True)
        self._space, self.link = f"{network.name}-{number}", f"{network.name}v{number}"
        self._holder: subprocess.Popen[str] | None = None
        self._init = 0
        self._started: list[subprocess.Popen[bytes]] = []
        network.hosts.append(self)  # before anything is made: what is half made is closed, too
        _ip("netns", "add", self._space)
        _ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self._space)
        _ip("link", "set", self.link, "master", network.name, "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            _ip("-n", self._space, *words)
        hide = "".join(f"mount --bind {self._empty} {folder} && " for folder in hidden)
        script = f"hostname {self.name} && mkdir -p /tmp/ray && mount --bind {ray} /tmp/ray && {hide}echo up && exec sleep infinity"
        apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
        self._holder = subprocess.Popen(["ip", "netns", "exec", self._space, *apart], stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "up\n"
        self._init = _child(self._holder.pid)

    def start(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a command there; what it prints goes to the end of `log`."""
        within = ["nsenter", f"--target={self._init}", "--net", "--pid", "--mount", "--uts", f"--wdns={cwd}"]
        with log.open("ab") as output:
            found = subprocess.Popen([*within, *map(str, command)], env={**env, "HOME": str(self.home)}, stdout=output, stderr=output)
        self._started.append(found)
        return found

    def run(
        self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path, timeout_s: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        within = ["nsenter", f"--target={self._init}", "--net", "--pid", "--mount", "--uts", f"--wdns={cwd}"]
        env = {**env, "HOME": str(self.home)}
        return subprocess.run([*within, *map(str, command)], env=env, capture_output=True, text=True, timeout=timeout_s, check=False)

    def cut(self) -> None:
        """Pull the plug of its network."""
        _ip("link", "set", self.link, "down")

    def heal(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self.link, "up")

    def close(self) -> None:
        """End all that runs there, then the host."""
        if self._init:
            os.kill(self._init, signal.SIGKILL)  # the first process of its namespace takes all others with it
        elif self._holder:
            self._holder.kill()
        for process in (*self._started, *([self._holder] if self._holder else [])):
            process.wait()
        if self._holder and self._holder.stdout:
            self._holder.stdout.close()
        for words in (("link", "del", self.link), ("netns", "del", self._space)):  # the kernel takes its time to end a namespace's links
            subprocess.run(["ip", *words], check=False, capture_output=True)


class Network:
    """A bridge that hosts hang on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        number = (os.getpid() + 7919 * next(_NETWORKS)) % 100_000  # a namespace that is still ending keeps its names
        self.name = f"hpo{number}"
        self.prefix = f"{NETWORK}.{number % 250 + 1}"
        self.hosts: list[Host] = []
        _ip("link", "add", self.name, "type", "bridge")
        _ip("link", "set", self.name, "up")

    def host(self, hidden: Sequence[Path] = ()) -> Host:
        """One more host, from which the `hidden` folders are hidden: they are empty there."""
        return Host(self, len(self.hosts) + 1, hidden)

    def close(self) -> None:
        """End all hosts, then the bridge."""
        for host in self.hosts:
            host.close()
        _ip("link", "del", self.name)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network for hosts, all gone at the end."""
    found = Network(folder)
    try:
        yield found
    finally:
        found.close()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


def _child(parent: int) -> int:
    """The first process of the namespace that `unshare --fork`, started by `ip netns exec` (which becomes it), made."""
    until = time.monotonic() + STARTED_S
    children = Path(f"/proc/{parent}/task/{parent}/children")
    while not (found := children.read_text().split()):
        assert time.monotonic() < until, "unshare forked nothing"
    return int(found[0])
