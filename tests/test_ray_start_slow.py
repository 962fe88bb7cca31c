"""How the Ray of a search starts and ends: without processes that nobody asks, and with workers that are ready."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hpo.engine import idle_agent
from tests.conftest import ROOT, needs_two_processors

PROGRAM = """
import json, os, time
from pathlib import Path
from hpo.capacity import this_machine
from hpo.engine import ray_cluster, ray_loop
from hpo.engine.ray_processes import belonging
from hpo.interrupt import Interrupts
import ray
from ray.tune.execution import class_cache

def commands(scratch):
    found = {}
    for process in belonging(scratch):
        try:
            found[process] = Path(f"/proc/{process}/cmdline").read_text().replace(chr(0), " ")
        except OSError:
            pass
    return found

class Looking:
    def look(self):
        import sys
        return os.getpid(), "wave" in sys.modules

with Interrupts() as interrupts:
    with ray_cluster.cluster(this_machine(), interrupts, workers=2, modules=["wave"]) as scratch:
        while list(map(str.strip, (started := commands(scratch)).values())).count("ray::IDLE") < 2:
            time.sleep(0.01)
        with ray_loop.tune_as_needed():
            actor = class_cache._ActorClassCache().get(Looking).options(num_cpus=1).remote()
        process, imported = ray.get(actor.look.remote())
        programs = list(started.values())
print(json.dumps({"ready": process in started, "imported": imported, "programs": programs, "left": list(commands(scratch).values())}))
"""


@needs_two_processors
def test_trials_find_workers_that_are_ready_and_nothing_runs_that_nobody_asks() -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "RAY_preload_python_modules": "chunk"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["ready"], found["imported"], found["left"]) == (True, True, [])
    kinds = Counter(_kind(program.split()) for program in found["programs"])
    assert kinds == {"gcs_server": 1, "raylet": 1, "idle_agent.py": 2, "ray::IDLE": 2}, found["programs"]


def _kind(words: list[str]) -> str:
    """What a command runs: a program, or Python's script."""
    return next(word for word in words if not word.startswith("-") and "python" not in Path(word).name).rpartition("/")[2]


@pytest.mark.parametrize(
    ("own", "ports"),
    [
        (["--listen-port=0"], {"metrics_agent_port": "-1", "metrics_export_port": "-1", "dashboard_agent_listen_port": "-1"}),
        (["--runtime-env-agent-port=0"], {"runtime_env_agent_port": "1"}),
    ],
)
def test_an_idle_agent_says_ports_listens_at_none_and_ends_with_its_raylet(tmp_path: Path, own: list[str], ports: dict[str, str]) -> None:
    """The raylet here is a shell, which waits for what it started."""
    agent = [sys.executable, "-I", "-S", str(idle_agent.__file__), *own, f"--session-dir={tmp_path}", "--node-id=abc", "--minimal"]
    with subprocess.Popen(["sh", "-c", '"$@" & echo $!; wait', "sh", *agent], stdout=subprocess.PIPE, text=True) as raylet:
        assert raylet.stdout is not None
        process = int(raylet.stdout.readline())
        while {file.name for file in tmp_path.iterdir()} != {f"{name}_abc" for name in ports}:
            assert raylet.poll() is None
        assert {file.name.removesuffix("_abc"): file.read_text() for file in tmp_path.iterdir()} == ports
        assert not [fd for fd in Path(f"/proc/{process}/fd").iterdir() if str(fd.readlink()).startswith("socket:")]
        raylet.kill()
        assert raylet.stdout.read() == ""  # comes to an end when the agent does, which holds the other end


def test_nobody_answers_where_the_idle_agent_says_that_it_listens() -> None:
    with socket.socket() as asking:
        assert asking.connect_ex(("127.0.0.1", idle_agent.RUNTIME_ENVIRONMENTS["runtime_env_agent_port"])) != 0
