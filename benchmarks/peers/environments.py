"""An environment of its own for each peer, under build/peers: made when it is missing, from the peer's pinned requirements."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "peers"
CONSTRAINTS = ROOT / "constraints.txt"


class PeerMissing(Exception):
    """This peer cannot be installed here: leave it out, and say so."""


@dataclass(frozen=True)
class Peer:
    """A script of this package, what to call it in tables, and the environment that runs it.

    `constrained` peers have the versions that we have (constraints.txt); the others what their own requirements allow.
    """

    name: str
    module: str
    says: str
    constrained: bool = True

    @property
    def requirements(self) -> Path:
        return HERE / f"{self.name}.txt"

    @property
    def folder(self) -> Path:
        return BUILD / self.name

    def program(self, name: str) -> str:
        """The path of a program in the peer's environment."""
        return str(self.folder / "bin" / name)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("plain", "plain", "Ray Tune, OptunaSearch, ASHAScheduler, MLflowLoggerCallback"),
        Peer("optuna", "optuna_processes", "Optuna's TPESampler and SuccessiveHalvingPruner, a process a core, MLflowCallback"),
        Peer("syne_tune", "syne_tune_local", "Syne Tune's LocalBackend and ASHA, no MLflow", constrained=False),
        Peer("tight", "tight", "our configurations and epochs in a hand-written loop: no search, no records"),
    )
}


def made(peer: Peer) -> Peer:
    """The peer, installed; PeerMissing with what pip said where that fails."""
    stamp, wanted = peer.folder / ".made", _wanted(peer)
    if stamp.exists() and stamp.read_text() == wanted:
        return peer
    print(f"installing {peer.name} in {peer.folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
    shutil.rmtree(peer.folder, ignore_errors=True)
    venv.create(peer.folder, with_pip=True)
    # torch first and alone: any other package that asks for torch would otherwise take the newest build there is
    _install(peer, "--constraint", str(CONSTRAINTS), "torch")
    _install(peer, *(["--constraint", str(CONSTRAINTS)] if peer.constrained else []), "--requirement", str(peer.requirements))
    stamp.write_text(wanted)
    return peer


def _install(peer: Peer, *what: str) -> None:
    command = [peer.program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise PeerMissing(f"{peer.name} cannot be installed: `pip install {what[-1]}` said: {said}")


def _wanted(peer: Peer) -> str:
    """Changes when the peer's environment has to be made anew."""
    return hashlib.sha256(peer.requirements.read_bytes() + CONSTRAINTS.read_bytes()).hexdigest()
