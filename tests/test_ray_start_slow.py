"""How the Ray of a search starts and ends: without processes that nobody asks, and with workers that are ready."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

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
        # whoever uses runtime environments gets them
        with_one = ray.remote(runtime_env={"env_vars": {"HPO_TEST_WORD": "given"}})(lambda: os.environ["HPO_TEST_WORD"])
        word = ray.get(with_one.remote())
left = list(commands(scratch).values())
print(json.dumps({"ready": process in started, "imported": imported, "programs": programs, "left": left, "word": word,
                  "preload": os.environ["RAY_preload_python_modules"]}))
"""


@needs_two_processors
def test_trials_find_workers_that_are_ready_and_nothing_runs_that_nobody_asks() -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "RAY_preload_python_modules": "chunk"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["ready"], found["imported"], found["left"], found["word"], found["preload"]) == (True, True, [], "given", "chunk")
    kinds = Counter(_kind(program.split()) for program in found["programs"])
    assert kinds == {"gcs_server": 1, "raylet": 1, "idle_agent.py": 1, "main.py": 1, "ray::IDLE": 2}, found["programs"]


def _kind(words: list[str]) -> str:
    """What a command runs: a program, or Python's script."""
    return next(word for word in words if not word.startswith("-") and "python" not in Path(word).name).rpartition("/")[2]


def _raylet(*agent: str) -> subprocess.Popen[str]:
    """A shell in the place of a raylet, which waits for the agent that it has started."""
    command = [sys.executable, "-I", "-S", str(idle_agent.__file__), *agent]
    return subprocess.Popen(["sh", "-c", '"$@" & echo $!; wait', "sh", *command], stdout=subprocess.PIPE, text=True)


def _ports(folder: Path, names: set[str], raylet: subprocess.Popen[str]) -> dict[str, int]:
    while {file.name for file in folder.iterdir()} != {f"{name}_abc" for name in names}:
        assert raylet.poll() is None
    return {name: int((folder / f"{name}_abc").read_text()) for name in names}


def test_the_dashboards_agent_idles_and_ends_with_its_raylet(tmp_path: Path) -> None:
    with _raylet("agent.py", "--listen-port=0", f"--session-dir={tmp_path}", "--node-id=abc", "--minimal") as raylet:
        assert raylet.stdout is not None
        process = int(raylet.stdout.readline())
        assert set(_ports(tmp_path, set(idle_agent.DASHBOARD), raylet).values()) == {-1}
        assert not [fd for fd in Path(f"/proc/{process}/fd").iterdir() if str(fd.readlink()).startswith("socket:")]
        raylet.kill()
        assert raylet.stdout.read() == ""  # comes to an end when the agent does, which holds the other end


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


LISTENING = """
import socket, sys
given = dict(word.removeprefix("--").split("=") for word in sys.argv[1:])
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((given["node-ip-address"], int(given["runtime-env-agent-port"])))
    listener.listen()
    listener.accept()
"""


def test_the_agent_of_runtime_environments_becomes_rays_own_which_listens_where_it_said(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    (tmp_path / "main.py").write_text(LISTENING)
    own = [str(tmp_path / "main.py"), "--node-ip-address=127.0.0.1", "--runtime-env-agent-port=0"]
    with _raylet(*own, f"--session-dir={folder}", "--node-id=abc") as raylet:
        port = _ports(folder, {idle_agent.RUNTIME_ENVIRONMENTS}, raylet)[idle_agent.RUNTIME_ENVIRONMENTS]
        while not _answers(port):  # it refuses until it does, and so the raylet takes it
            assert raylet.poll() is None
        assert raylet.wait() == 0
