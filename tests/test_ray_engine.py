"""Real Ray, in a process of its own: how it ends however it is ended, who dies with it, and who is replaced."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory

from hpo.engine import ray_deaths, ray_processes
from hpo.engine.ray_deaths import Death, death
from hpo.engine.ray_processes import LOCK, PREFIX, ROOT, Scratch, belonging, sweep
from hpo.events import Asked, Ended, Event, Measured, Paused, Promoted, Retried
from hpo.journal import FILE_NAME
from hpo.journal_format import read
from hpo.replaying import replay_decisions
from hpo.results import StoredStudy
from hpo.sampling.with_optuna import misfits
from hpo.specified import rules_of, sampler_of
from hpo.trial import State
from hpo.trial_files import trial_folder
from hpo.verifying import verify
from tests.conftest import ROOT as REPOSITORY
from tests.conftest import Hpo, hpo_command, needs_two_processors
from tests.promotion_trainers import curve, drawn, notes

SPEC = REPOSITORY / "tests" / "specs" / "plain.yaml"
SOON_S = 120.0  # how long a test waits for what has to come, on a machine however busy
ROOM = 2  # how much longer than promised it may take on a busy machine


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + SOON_S
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


class Driver:
    """`hpo launch` with two trials side by side, and all that comes of it; nothing outlives the context."""

    def __init__(self, home: Path, name: str, trainer: str, *words: str) -> None:
        env = os.environ | {"HPO_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
        env.pop("MLFLOW_TRACKING_URI", None)
        entry = trainer if ":" in trainer else f"tests.ray_trainers:{trainer}"
        words = ("launch", str(SPEC), "--trainer", entry, "--name", name, *words)
        self.folder = home / name
        self.running = subprocess.Popen(
            hpo_command(*words), env=env, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.seen: set[int] = set()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        for process in {self.running.pid, *self.look()}:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        self.running.communicate()

    @property
    def scratch(self) -> Path | None:
        """The scratch folder that this driver has locked."""
        for folder in ROOT.glob(f"{PREFIX}*"):
            with suppress(OSError):
                if (folder / LOCK).read_text() == f"{self.running.pid}\n":
                    return folder
        return None

    def look(self) -> set[int]:
        """The processes of its Ray, remembered also when they have lost their parents."""
        family = descendants(self.running.pid) - {p for p in descendants(self.running.pid) if "hpo.shipper" in command_of(p)}
        self.seen |= family | (belonging(self.scratch) if self.scratch else set())
        return self.seen

    def wait_until_both_train(self) -> None:
        wait_for(lambda: len(list(self.folder.glob("trials/*/third"))) == 2 or self.running.poll() is not None)
        assert self.running.poll() is None, self.running.communicate()
        assert len(self.look()) >= 5  # gcs, raylet, its agents, two workers

    def end(self) -> tuple[int, float, str]:
        """Exit code, seconds until it came, and what was printed to standard error."""
        began = time.monotonic()
        _, err = self.running.communicate(timeout=SOON_S)
        return self.running.returncode, time.monotonic() - began, err

    @property
    def events(self) -> list[Event]:
        return [record.event for record in read(self.folder / FILE_NAME)]


def descendants(process: int) -> set[int]:
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                parents[int(path.name)] = ray_processes._parent(int(path.name))
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def command_of(process: int) -> str:
    """Empty for a process that is gone, or that only its parent has to take note of."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def assert_nothing_is_left(driver: Driver, scratch: Path) -> None:
    wait_for(lambda: not any(map(command_of, driver.seen)))  # killed, but perhaps not buried yet
    assert belonging(scratch) == set()
    assert not scratch.exists()


@needs_two_processors
@pytest.mark.parametrize(
    ("trainer", "number", "code"),
    [("sleeping", signal.SIGINT, 130), ("busy", signal.SIGTERM, 75), ("forking", signal.SIGTERM, 75)],
)
def test_a_signal_in_mid_epoch_ends_everything_in_time_and_loses_nothing(
    home: Path, trainer: str, number: signal.Signals, code: int
) -> None:
    with Driver(home, f"ended-{trainer}", trainer) as driver:
        driver.wait_until_both_train()
        scratch = driver.scratch
        assert scratch is not None
        os.killpg(driver.running.pid, number)  # as a terminal or a service manager does: Ray's daemons get it as well
        ended, took_s, err = driver.end()
        assert (ended, err) == (code, "")
        assert took_s < 5 * ROOM
        assert driver.events[-1] == Ended("interrupted", driver.events[-1].best if isinstance(driver.events[-1], Ended) else None)
        measured = [(event.trial, event.epoch) for event in driver.events if isinstance(event, Measured)]
        assert sorted(measured) == [(0, 1), (0, 2), (1, 1), (1, 2)]  # all that was acknowledged, and once
        assert not [event for event in driver.events if isinstance(event, Retried)]  # its workers' deaths are no trial's
        assert_nothing_is_left(driver, scratch)


@needs_two_processors
@pytest.mark.parametrize("stage", ["folder", "daemons", "connected", "asked"])
def test_sigterm_while_ray_starts_is_resumable_and_leaves_nothing(home: Path, stage: str) -> None:
    def reached() -> bool:
        scratch = driver.scratch
        if scratch is None:
            return False
        match stage:
            case "folder":
                return True
            case "daemons":
                return bool(belonging(scratch))
            case "connected":  # being connected, with Ray's own C++ handler of SIGTERM in place
                return any(scratch.glob("session_latest/logs/python-core-driver-*"))
        return any(isinstance(event, Asked) for event in driver.events)  # actors start

    with Driver(home, f"starting-{stage}", "sleeping") as driver:
        wait_for(lambda: reached() or driver.running.poll() is not None)
        scratch = driver.scratch
        assert scratch is not None
        driver.look()
        driver.running.send_signal(signal.SIGTERM)
        code, took_s, err = driver.end()
        assert (code, err) == (75, "")
        assert took_s < 5 * ROOM
        last = driver.events[-1]
        assert isinstance(last, Ended)
        assert last.reason == "interrupted"
        assert_nothing_is_left(driver, scratch)


@needs_two_processors
def test_a_second_ctrl_c_is_immediate_and_leaves_no_process(home: Path) -> None:
    with Driver(home, "twice", "sleeping") as driver:
        driver.wait_until_both_train()
        scratch = driver.scratch
        assert scratch is not None
        driver.running.send_signal(signal.SIGINT)
        wait_for(lambda: isinstance(driver.events[-1], Ended))  # the first one is being obeyed
        driver.running.send_signal(signal.SIGINT)
        code, took_s, _ = driver.end()
        assert code in (-signal.SIGINT, 130)
        assert took_s < ROOM
        assert_nothing_is_left(driver, scratch)


@needs_two_processors
def test_workers_die_with_a_driver_that_is_killed_and_the_next_launch_sweeps_what_is_left(home: Path) -> None:
    with Driver(home, "killed", "forking") as driver:
        driver.wait_until_both_train()
        scratch = driver.scratch
        assert scratch is not None
        workers = [int(path.read_text()) for path in driver.folder.glob("trials/*/third")]
        driver.running.kill()
        assert driver.end()[0] == -signal.SIGKILL
        wait_for(lambda: not any(map(command_of, workers)))  # on their own: they must not write when the study is resumed
        assert belonging(scratch)  # Ray's agents, and what the trainers started
        sweep()
        assert_nothing_is_left(driver, scratch)


ORPHAN = """
import os, time
mother = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == mother:
    time.sleep(0.01)
from hpo.capacity import this_machine
from hpo.engine import ray_cluster
from hpo.interrupt import Interrupts
with Interrupts() as interrupts:
    for _ in range(2):
        with ray_cluster.cluster(this_machine(), interrupts):
            pass
        print("came out of it", flush=True)
"""


def test_a_driver_whose_parent_is_gone_outlives_its_cluster() -> None:
    """As under nohup, setsid or a service manager: Ray takes a driver's parent for its raylet, and init for a dead one."""
    found = subprocess.run([sys.executable, "-c", ORPHAN], cwd=REPOSITORY, capture_output=True, text=True, timeout=SOON_S, check=True)
    assert found.stdout.splitlines() == ["came out of it"] * 2, found.stderr


@needs_two_processors
def test_a_worker_that_is_killed_is_back_in_time_and_repeats_at_most_one_interval(home: Path) -> None:
    with Driver(home, "replaced", "steady", "--trials", "2", "--set", "trainer.settings.max_epochs=12") as driver:

        def by(trial: int) -> list[Measured]:
            if not (driver.folder / FILE_NAME).exists():
                return []
            return [event for event in driver.events if isinstance(event, Measured) and event.trial == trial]

        wait_for(lambda: len(by(0)) >= 3)
        killed = int(by(0)[-1].metrics["process"])
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        wait_for(lambda: by(0)[-1].metrics["process"] != killed)
        assert time.monotonic() - began < 10 * ROOM
        assert driver.end()[0] == 0
        before, after = ([m for m in by(0) if (m.metrics["process"] == killed) is first] for first in (True, False))
        assert before[-1].epoch - after[0].metrics["restored"] <= 1
        assert [m.epoch for m in by(0)] == [m.epoch for m in by(1)] == list(range(1, 13))  # none missing, none twice
        retried = [event for event in driver.events if isinstance(event, Retried)]
        assert retried == [Retried(0, 2, f"worker process {killed} was killed, perhaps for want of memory, or crashed")]


@needs_two_processors
def test_a_worker_that_crashes_leaves_a_log_and_its_reason_names_it(hpo: Hpo, home: Path) -> None:
    done = hpo("launch", str(SPEC), "--trainer", "tests.ray_trainers:crashing", "--name", "crashed")
    assert done.code == 0, done.err
    stored = StoredStudy.open(home / "crashed")
    assert {trial.state for trial in stored.trials} == {State.COMPLETE}
    log = home / "crashed" / "trials" / "00001" / "worker-1.1.log"
    (retried,) = [record.event for record in stored.records if isinstance(record.event, Retried)]
    assert retried.reason.endswith(f" crashed: Segmentation fault (see {log})")
    assert "in crashing\n" in log.read_text()  # the line of the trainer


@needs_two_processors
def test_a_worker_that_ray_kills_for_want_of_memory_costs_no_trial(hpo: Hpo, home: Path) -> None:
    """The limit is set three gigabytes above what is used now, and a trial takes six."""
    total, used = get_system_memory(), get_used_memory()
    if total - used < 10e9:
        pytest.skip("needs 10 GB of free memory")
    limit = {"RAY_memory_usage_threshold": f"{(used + 3e9) / total:.4f}", "RAY_memory_monitor_refresh_ms": "100"}
    done = hpo("launch", str(SPEC), "--trainer", "tests.ray_trainers:hoarding", "--name", "hoarding", "--set", "limits.retries=9", **limit)
    assert done.code == 0, done.err
    stored = StoredStudy.open(home / "hoarding")
    assert {trial.state for trial in stored.trials} == {State.COMPLETE}
    reasons = {record.event.reason.split(":")[0] for record in stored.records if isinstance(record.event, Retried)}
    assert all(reason.endswith(" was killed because memory ran out") for reason in reasons)
    assert reasons


@needs_two_processors
def test_a_trial_that_hangs_fails_alone_and_its_worker_is_replaced(hpo: Hpo, home: Path) -> None:
    words = ["--trainer", "tests.ray_trainers:stuck", "--name", "stuck", "--set", "limits.trial_timeout=2s"]
    done = hpo("launch", str(SPEC), *words)
    assert done.code == 0, done.err
    states = {trial.number: trial.state for trial in StoredStudy.open(home / "stuck").trials}
    assert states == {number: State.FAILED if number == 1 else State.COMPLETE for number in range(6)}


@needs_two_processors
def test_hpo_stop_from_another_terminal_ends_a_study_as_sigterm_does(hpo: Hpo, home: Path) -> None:
    with Driver(home, "halted", "sleeping") as driver:
        driver.wait_until_both_train()
        scratch = driver.scratch
        assert scratch is not None
        done = hpo("stop", "halted")
        assert done.code == 0, done.err
        assert str(driver.running.pid) in done.out
        assert driver.end()[0] == 75
        assert_nothing_is_left(driver, scratch)


PROMOTING = (
    *("--set", "pruner.name=asha", "--set", "pruner.rule=promote", "--set", "trainer.settings.max_epochs=9"),
    *("--set", "checkpoints.every=1h", "--set", "budget.trials=14", "--set", "pruner.reduction_factor=3"),
)  # rungs at 1 and 3; nothing is written between them


def assert_every_segment_went_on_from_its_checkpoint(study: StoredStudy) -> None:
    """All that was measured is what a trial that nothing interrupts measures, and its trainer was never asked for an epoch in vain."""
    for trial in study.trials:
        x = trial.params["x"]
        assert isinstance(x, float)
        assert [(m.value, m.metrics["draw"]) for m in trial.measurements] == [
            (curve(x, trial.seed, m.epoch), drawn(trial.seed, m.epoch)) for m in trial.measurements
        ]
        assert [m.metrics["start"] for m in trial.measurements] == [max(r for r in (0, 1, 3) if r < m.epoch) for m in trial.measurements]


def assert_all_agree(study: StoredStudy) -> None:
    """Journal, checkpoints and MLflow, every decision made again, and the view that Optuna's samplers have."""
    assert [check for check in verify(study.folder) if not check.ok] == []
    assert replay_decisions(rules_of(study.spec), sampler_of(study.spec), study.records).divergence is None
    assert misfits(study.spec.space, study.spec.objective.direction, study.trials) == []
    assert {trial.state for trial in study.trials} == {State.COMPLETE, State.PRUNED}
    assert list(study.folder.glob("trials/*/last-*")) == []


@needs_two_processors
def test_promoted_trials_go_on_bit_for_bit_though_a_worker_dies_on_the_way(hpo: Hpo, home: Path) -> None:
    done = hpo("launch", str(SPEC), "--trainer", "tests.promotion_trainers:dying_in_a_segment", "--name", "promoted", *PROMOTING)
    assert done.code == 0, done.err
    study = StoredStudy.open(home / "promoted")
    events = [record.event for record in study.records]
    (retried,) = [event for event in events if isinstance(event, Retried)]
    assert sum(isinstance(event, Promoted) for event in events) >= 5
    assert study.trials[retried.trial].deaths == 1
    assert_every_segment_went_on_from_its_checkpoint(study)
    for trial in study.trials:
        trained = Counter(note.epoch for note in notes(trial_folder(study.folder, trial.number)))
        assert set(trained) == set(range(1, trial.epoch + 1))
        assert trained.total() - trial.epoch == (trial.number == retried.trial)  # what the dead worker had trained behind its rung
    assert_all_agree(study)


@needs_two_processors
def test_a_driver_that_is_killed_while_trials_wait_is_resumed_and_they_go_on(hpo: Hpo, home: Path) -> None:
    with Driver(home, "waiting", "tests.promotion_trainers:tracing", *PROMOTING) as driver:

        def waiting() -> int:
            kinds = Counter(type(event) for event in driver.events) if (driver.folder / FILE_NAME).exists() else Counter[type[Event]]()
            return kinds[Paused] - kinds[Promoted]

        wait_for(lambda: waiting() >= 4)
        driver.running.kill()
        driver.end()
        before = driver.events
    done = hpo("resume", "waiting", "--local")
    assert done.code == 0, done.err
    assert re.search(r"resuming waiting: .*, [0-9]+ wait for their promotion", done.err)
    study = StoredStudy.open(home / "waiting")
    assert [record.event for record in study.records][: len(before)] == before
    assert_every_segment_went_on_from_its_checkpoint(study)
    twice = 0
    for trial in study.trials:
        trained = Counter(note.epoch for note in notes(trial_folder(study.folder, trial.number)))
        known = {event.epoch for event in before if isinstance(event, Measured) and event.trial == trial.number}
        assert not [epoch for epoch, times in trained.items() if times > 1 and epoch in known and epoch <= 3]
        twice += trained.total() > trial.epoch
    assert twice <= 2  # those that ran
    assert_all_agree(study)


DIED = """Failure # 1 (occurred at 2026-11-20_09-28-01)
The actor died unexpectedly before finishing this task.
\tclass_name: Worker
\tactor_id: 3783a6d43a2a188e1de74a9d01000000
\tpid: 27003
\tnamespace: 5aec8bf0-3361-497a-8aa2-ed6dd76ba0b2
\tip: 192.0.2.2
"""
EXIT = f"{DIED}The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
NODE = f"{DIED}The actor died because its node has died. Node Id: 94b033f6410ba1b165c4283bb47ce5e88f130fa26c39da901f666287\n"
OUT_OF_MEMORY = """Failure # 1 (occurred at 2026-11-20_09-30-11)
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: ce68557648b8) was 3.57GB used \
/ 23.54GB limit (0.151652)
OOM kill reason: Memory usage 3805794304B exceeded threshold of 3791476736B (15.0% of 25276510208B limit)
Considered workers: [
Selected to kill: (Actor(1d2dafd0a02210e9b253a1ca01000000): job ID=01000000, pid=27003, actual memory used=2.58GB)
]
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
27003\t2.58\tray::Worker.step
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # a signal, a crash, or os._exit: Ray sees a closed socket
        (
            f"{EXIT}Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
            "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly "
            "due to SIGSEGV or another unexpected error.",
            Death("worker process 27003 was killed, perhaps for want of memory, or crashed", 27003),
        ),
        (
            f"{EXIT}Worker exits unexpectedly. Worker exits with an exit code 1. The process receives a SIGTERM.",
            Death("worker process 27003 was ended by SIGTERM", 27003),
        ),
        (
            f"{EXIT}Worker exits unexpectedly. Worker exits with an exit code 3.",
            Death("worker process 27003 ended with exit code 3", 27003),
        ),
        (OUT_OF_MEMORY, Death("worker process 27003 was killed because memory ran out: 3.57GB used / 23.54GB", 27003)),
        (  # Ray 2.9
            f"{DIED}Task was killed due to the node running low on memory.\n\nMemory on the node (IP: 192.0.2.2, ID: ce68) where the "
            "lease (actor ID: 1d2d, name=Worker.__init__, pid=27003, memory used=2.58GB) was running was 13.51GB / 14.17GB (0.953)",
            Death("worker process 27003 was killed because memory ran out: 13.51GB / 14.17GB", 27003),
        ),
        # a machine that goes: announced, ended on purpose, vanished
        (
            f"{NODE}\tthe actor's node was preempted: spot instance reclaimed",
            Death("its machine was taken away: spot instance reclaimed", 27003, preempted=True),
        ),
        (
            f"{NODE}\tthe actor's node was terminated expectedly: received SIGTERM",
            Death("its machine was taken away: received SIGTERM", 27003, preempted=True),
        ),
        (
            f"{NODE}\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats",
            Death("its machine died: health check failed due to missing too many heartbeats", 27003),
        ),
        (
            "The actor died unexpectedly before finishing this task.\n\tclass_name: \n\tactor_id: 13577d01911f6c6434a93ae901000000\n\n",
            Death("its machine was preempted", 27003, preempted=True),
        ),
        (
            "The actor eb4db1e1fb38777be60220cb01000000 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket "
            "closed rpc_code: 14. The task may or may not have been executed on the actor.",
            Death("worker process 27003 could not be reached any more", 27003),
        ),
        ("ray.exceptions.Unheard\n\n  of: tomorrow\n", Death("worker process 27003 died: of: tomorrow", 27003)),
        ("", Death("worker process 27003 died", 27003)),
    ],
)
def test_what_ray_says_of_a_dead_worker_becomes_a_reason(said: str, expected: Death) -> None:
    assert death(said, 27003) == expected


def test_a_worker_of_which_nothing_is_known_died_too() -> None:
    assert death("") == Death("its worker process died")


def test_the_end_of_a_workers_output_is_kept_without_rays_marks(tmp_path: Path) -> None:
    logs, kept = tmp_path / "logs", tmp_path / "trials" / "00001" / "worker-1.1.log"
    logs.mkdir()
    found = Death("worker process 7 was killed", 7)
    (logs / "worker-abc-01000000-7.err").write_text(":job_id:01000000\n:actor_name:Worker\n")
    (logs / "worker-abc-01000000-77.err").write_text("another worker's\n")
    assert ray_deaths.with_log(found, logs, kept) == found  # it said nothing
    assert not kept.exists()
    (logs / "worker-abc-01000000-7.out").write_text("x" * 10**6 + "\nthe end\n")
    assert ray_deaths.with_log(found, logs, kept).reason == f"worker process 7 was killed (see {kept})"
    assert kept.read_text().endswith("xxx\nthe end\n")
    assert kept.stat().st_size == ray_deaths.LOG_BYTES
    kept.unlink()
    kept.mkdir()
    assert ray_deaths.with_log(found, logs, kept).reason == "worker process 7 was killed (its log could not be kept: Is a directory)"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str, **streams: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", code], **streams))  # type: ignore[call-overload]
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


FOR_EVER = "import time; time.sleep(600)"


def test_a_scratch_folder_is_swept_when_its_driver_is_gone_and_not_before(
    root: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    hold = f"from pathlib import Path; from hpo.engine.ray_processes import Scratch; s = Scratch(Path({str(root)!r})); print(flush=True)"
    driver = start(f"{hold}; {FOR_EVER}", stdout=subprocess.PIPE)
    assert driver.stdout is not None
    driver.stdout.readline()
    (folder,) = root.iterdir()
    with (folder / "worker.out").open("wb") as stream:
        worker = start(FOR_EVER, stdout=stream)
    with (folder / "worker.out").open("rb") as stream:
        reader = start(FOR_EVER, stdin=stream)
    sweep(root)
    assert (folder.exists(), worker.poll()) == (True, None)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    sweep(root)
    assert not folder.exists()
    assert worker.wait() == -signal.SIGKILL
    assert reader.poll() is None  # who only looks at a log is none of Ray's


def test_a_folder_without_a_lock_is_swept_only_if_it_is_empty(root: Path) -> None:
    (root / f"{PREFIX}empty").mkdir()
    (root / f"{PREFIX}older" / "session").mkdir(parents=True)
    (root / "other").mkdir()
    sweep(root)
    assert {path.name for path in root.iterdir()} == {f"{PREFIX}older", "other"}


def test_a_cleared_scratch_is_gone_with_whoever_prints_there_and_their_children(
    root: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    scratch = Scratch(root)
    parent = "import subprocess, sys; c = subprocess.Popen(['sleep', '600'], stdout=2); print(c.pid, file=sys.stderr, flush=True); c.wait()"
    with (scratch.folder / "worker.out").open("wb") as stream:
        worker = start(parent, stdout=stream, stderr=subprocess.PIPE)
    assert worker.stderr is not None
    child = int(worker.stderr.readline())
    assert belonging(scratch.folder) == {worker.pid, child}
    scratch.clear()
    assert list(root.iterdir()) == []
    assert worker.wait() == -signal.SIGKILL
    worker.stderr.close()
    wait_for(lambda: not command_of(child))
    scratch.clear()  # again, as a second signal may do
