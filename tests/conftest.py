"""What several test modules share: a study home, and the command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpo import trust

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Hpo = Callable[..., Done]


needs_two_processors = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two processors: it counts on how many trials run side by side"
)


def run_hpo(home: Path, *words: str, **environment: str) -> Done:
    """`hpo WORDS` with its studies in `home`."""
    env = os.environ | {"HPO_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""} | environment
    if "MLFLOW_TRACKING_URI" not in environment:
        env.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(hpo_command(*words), capture_output=True, text=True, env=env, cwd=ROOT, timeout=280, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def hpo_command(*words: str) -> list[str]:
    """The command line on at most two processors, so that a test knows how many trials run side by side."""
    pinned = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2]); os.environ['HPO_TEST_DRIVER'] = str(os.getpid())"
    return [sys.executable, "-c", f"{pinned}; from hpo.cli import main; main()", *words]


@pytest.fixture(scope="session", autouse=True)
def _trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' own code is trusted; and what they launch is not kept among what the user trusts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        trust.vouch([trust.code("tests:any")])
        yield


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study home that the end-to-end tests share, so that MLflow's database is made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def hpo(home: Path) -> Hpo:
    """The command line on the shared home."""

    def run(*words: str, **environment: str) -> Done:
        return run_hpo(home, *words, **environment)

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in a trial's process; small products are slower on many threads than on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own for each test module: nothing is written to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
