"""`ray up infra/ray/cluster.yaml` for once done: three hosts with sshd, a search on two of them, and all of it taken down. Slow, root."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.hosts import Host, Network, network, why_not
from tests.cluster.places import wait_for

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
MISSING = "" if SSHD and shutil.which("ssh") and shutil.which("rsync") else "not installed: openssh-server or rsync"
FIRST_SETUP = "make -C ~/hpo venv"  # fetches packages
REFUSED, UNSPOKEN = {401, 403}, {"UNIMPLEMENTED", "UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}

pytest.importorskip("grpc", reason="Ray's own protocol is gRPC: pip install '.[cluster]'")
pytestmark = [pytest.mark.skipif(bool(why_not() or MISSING), reason=why_not() or MISSING), pytest.mark.timeout(900)]


class Site:
    """A desk, where `ray up` is typed, a head and a worker: hosts with a home of their own each, and the same key."""

    def __init__(self, net: Network, folder: Path) -> None:
        self.desk, self.head, self.worker = net.host(), net.host(), net.host()
        self.folder, self.token = folder, secrets.token_hex(32)
        self.env = {
            "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
        }
        for name in ("door", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        says = f"Port 22\nHostKey {folder}/door\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        (folder / "sshd_config").write_text(says)
        Path("/run/sshd").mkdir(exist_ok=True)
        for host in net.hosts:
            self._open(host)
        self.file = folder / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(self._filled_in()))

    def _open(self, host: Host) -> None:
        """Let ssh in, to a home of the host's own."""
        people = self.folder / f"{host.name}-passwd"
        lines = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        people.write_text("".join(":".join([*line[:5], str(host.home) if line[2] == "0" else line[5], *line[6:]]) + "\n" for line in lines))
        assert host.run(["mount", "--bind", people, "/etc/passwd"], self.env, ROOT).returncode == 0
        (host.home / ".bashrc").write_text(f'export PATH="{self.env["PATH"]}"\n')
        host.start([str(SSHD), "-D", "-e", "-f", self.folder / "sshd_config"], self.env, ROOT, self.folder / f"{host.name}-sshd.log")

    def _filled_in(self) -> dict[str, Any]:
        """The file with what is the site's own; the environment that has hpo is there already."""
        file = yaml.safe_load((ROOT / "infra" / "ray" / "cluster.yaml").read_text())
        was = file["provider"]["head_ip"]
        file["provider"] |= {"head_ip": self.head.address, "worker_ips": [self.worker.address]}
        file["auth"] |= {"ssh_user": "root", "ssh_private_key": str(self.folder / "key")}
        code, shared, token = self.folder / "code", self.folder / "shared", self.desk.home / ".hpo" / "cluster-token"
        shutil.copytree(ROOT / "search_spaces", code / "search_spaces")
        shared.mkdir()
        token.parent.mkdir()
        token.write_text(self.token)
        token.chmod(0o600)
        file["file_mounts"]["~/hpo"] = str(code)
        assert file["setup_commands"].pop(0) == FIRST_SETUP
        text = yaml.safe_dump(file, width=10_000)
        assert text.count(f"--node-ip-address={was} ") == text.count(" /mnt/hpo ") == 1
        filled: dict[str, Any] = yaml.safe_load(
            text.replace(f"address={was} ", f"address={self.head.address} ").replace("/mnt/hpo", str(shared))
        )
        return filled

    def ray(self, command: str, *words: str, timeout_s: float = 300) -> str:
        """What `ray COMMAND FILE` prints at the desk, of which nothing may fail."""
        done = self.desk.run([BIN / "ray", command, *words[:-1], self.file, *words[-1:]], self.env, self.folder, timeout_s)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)

    def nodes(self, token: bool = True) -> str:
        """What `ray status` says on the head."""
        mode = {"RAY_AUTH_MODE": "token"} if token else {}
        return self.head.run([BIN / "ray", "status", f"--address={self.head.address}:6379"], self.env | mode, self.folder).stdout


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with network(tmp_path / "network") as net:
        yield Site(net, tmp_path)


def ports(host: Host, env: Mapping[str, str]) -> list[int]:
    """The TCP ports that anything but sshd listens at."""
    listed = host.run(["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"], env, ROOT).stdout.splitlines()
    return sorted({int(line.split()[3].rpartition(":")[2]) for line in listed if "sshd" not in line})


def test_a_cluster_of_a_list_from_up_to_down(site: Site) -> None:
    site.ray("up", "--yes", "--no-config-cache")
    wait_for(lambda: "/4.0 CPU" in site.nodes() or f"/{2.0 * (os.cpu_count() or 1)} CPU" in site.nodes(), "the worker to join", 180)
    assert "CPU" not in site.nodes(token=False)

    for host in (site.head, site.worker):
        token = host.home / ".ray" / "auth_token"
        assert token.read_text() == site.token
        assert [stat.S_IMODE(path.stat().st_mode) for path in (token, token.parent)] == [0o600, 0o700]
        open_ports = ports(host, site.env)
        assert len(open_ports) >= 4
        words = [sys.executable, "-m", "tests.cluster.stranger", host.address, *map(str, open_ports)]
        answers = json.loads(site.desk.run(words, site.env, ROOT).stdout)
        asked = [answer for answer in answers.values() if "closed" not in answer]
        assert len(asked) >= 3
        for answer in asked:
            assert {status for status in answer["http"].values() if isinstance(status, int)} <= REFUSED, answer
            assert answer["grpc"].keys() <= UNSPOKEN, answer
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        assert site.token not in _read(command)

    few = "--set budget.trials=6 --set trainer.settings.max_epochs=3 --set finals=none"
    said = site.ray("exec", f"hpo launch hpo/search_spaces/digits.yaml {few}", timeout_s=600)
    assert "digits is done" in said
    assert "runs/digits" in site.ray("exec", "ls -d runs/digits")
    assert list((site.folder / "shared").glob("digits-*/trials/*/best"))
    assert "no mistake" in site.ray("exec", "hpo verify digits && echo no mistake")

    site.ray("down", "--yes")
    wait_for(lambda: not ports(site.head, site.env), "the head to end")
    wait_for(lambda: not ports(site.worker, site.env), "the worker to miss its head", 180)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
