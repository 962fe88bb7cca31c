"""Stands in for `hpo` where a batch script is tried: a "search" is a JSON file, and its "driver" writes a real journal.

{"name": "study", "epochs": 20, "epoch_s": 0.05, "exit": 0}: so many epochs, one line each, or until there is a file $STAND_INS/enough,
then that exit code; SIGTERM ends it with 75. What every call was given is a line of $STAND_INS/calls.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from hpo.events import Created, Ended, Measured, Resumed
from hpo.journal import Journal

HERE = Path(os.environ.get("STAND_INS", "."))
SEEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_TMPDIR", "HPO_HOME", "SLURMD_NODENAME")
JOB, RESTARTS = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")


def note(**more: object) -> None:
    """Write this call down."""
    env = {name: os.environ.get(name) for name in SEEN}
    line = json.dumps({"argv": sys.argv[1:], "job": JOB, "env": env, "umask": oct(os.umask(0o077)), **more}) + "\n"
    file = os.open(HERE / "calls.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())


def given(*words: str, flags: tuple[str, ...] = ("--json", "--or-resume", "--head")) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options, of which no others are known, and the search in the file that is named."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    if sys.argv[1] != "node":
        parser.add_argument("file", type=Path)
        words = ("--name", "--set", "--trials", *words)
    for word in words:
        parser.add_argument(word, action="store_true" if word in flags else "append" if word == "--set" else "store")
    options = parser.parse_args(sys.argv[2:])
    search = json.loads(options.file.read_text()) if sys.argv[1] != "node" else {}
    return options, search | ({"name": options.name} if search and options.name else {})


def validate() -> int:
    """hpo validate --json."""
    _, search = given("--json")
    if "mistake" in search:
        print(search["mistake"], file=sys.stderr)
        print(json.dumps({"valid": False}))
        return 2
    sections = {"checkpoints": {"every_s": 30.0, "storage": search.get("storage")}, "tracking": {"uri": None}}
    print(json.dumps({"valid": True, "spec": {"name": search["name"], **sections}}))
    return 0


def plan() -> int:
    """hpo plan --address --json: the nodes that are up."""
    options, _ = given("--json", "--address")
    there = [path.name for path in (HERE / "nodes").glob(f"{options.address}-*")]
    print(json.dumps({"there": there}))
    return 0 if there else 2


def node() -> int:
    """hpo node: answers at its port, until SIGTERM."""
    options, _ = given("--head", "--address", "--ip", "--port", "--cpus", "--gpus")
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    modes = [oct(path.stat().st_mode & 0o777) for path in (token, token.parent, Path(os.environ["RAY_TMPDIR"]))]
    note(modes=modes, token=token.read_text(), began=time.time())
    server = socket.create_server((options.ip, int(options.port))) if options.head else None
    address = f"{options.ip}:{options.port}" if options.head else options.address
    me = HERE / "nodes" / f"{address}-{os.environ['SLURMD_NODENAME']}"
    me.parent.mkdir(exist_ok=True)
    me.touch()
    (Path(os.environ["RAY_TMPDIR"]) / "session.log").touch()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            signal.pause()
    finally:
        me.unlink(missing_ok=True)
        if server:
            server.close()


def launch() -> int:
    """hpo launch --or-resume --address: trains epoch after epoch, and journals each."""
    options, search = given("--or-resume", "--address")
    note(cwd=str(Path.cwd()))
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(75))
    path = Path(os.environ["HPO_HOME"]) / search["name"] / "journal.jsonl"
    if not options.or_resume:
        return 2
    journal = Journal.open(path) if path.exists() else Journal.create(path)
    epoch = sum(isinstance(record.event, Measured) for record in journal.records)
    journal.append([Resumed("here", os.getpid(), {}, None, None, None) if journal.records else Created(search["name"], {}, {})])
    (HERE / f"driver-{JOB}-{os.getpgid(0)}").touch()
    began = epoch
    while epoch < search["epochs"] and not ending and not (HERE / "enough").exists():
        time.sleep(search.get("epoch_s", 0.05))
        epoch += 1
        journal.append([Measured(0, epoch, 0.5, {"value": 0.5}, 1.0)])
        (HERE / f"running-{JOB}").write_text(f"{JOB} {RESTARTS} {epoch - began}")
        (HERE / f"running-{JOB}").replace(HERE / "running")
    journal.append([Ended("interrupted" if ending else "budget", None)])
    (path.parent / "ray.log").write_text("what Ray said\n")
    return ending[0] if ending else int(search.get("exit", 0))


if __name__ == "__main__":
    sys.exit({"validate": validate, "plan": plan, "node": node, "launch": launch}[sys.argv[1]]())
