"""Whole launches on real Ray and a real MLflow store: journal, Optuna's history, MLflow and exit code together."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState

from hpo.events import Asked, Ended, Finished, Measured, Retried
from hpo.journal import FILE_NAME
from hpo.journal_format import read
from hpo.results import StoredStudy
from hpo.rules import NoFurther
from hpo.sampling.with_optuna import OptunaSampler
from hpo.specified import rules_of, sampler_of
from hpo.study import Study
from hpo.trial import Direction, State
from tests.conftest import ROOT, Hpo, needs_two_processors

pytestmark = needs_two_processors
SPECS = ROOT / "tests" / "specs"
TRAINERS = "tests.small_trainers"
STATUS = {State.COMPLETE: "FINISHED", State.PRUNED: "KILLED", State.FAILED: "FAILED"}
OPTUNA = {State.COMPLETE: TrialState.COMPLETE, State.PRUNED: TrialState.PRUNED, State.FAILED: TrialState.FAIL}


def runs_of(home: Path, study: str) -> tuple[Run, dict[int, Run]]:
    """The parent run of a study and its trials' runs by number."""
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`hpo.study` = '{study}'", max_results=1000)
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(children) == len(found) - 1
    return parents[0], {int(run.data.tags["hpo.trial"]): run for run in children}


def test_a_good_a_pruned_a_nan_and_a_raising_trial_are_what_they_are_everywhere(hpo: Hpo, home: Path) -> None:
    done = hpo("launch", str(SPECS / "mixed.yaml"), "--trainer", f"{TRAINERS}:mixed", "--json")
    assert done.code == 0, done.err
    assert done.err == ""  # no terminal, no progress; and no wall of warnings
    stored = StoredStudy.open(home / "mixed")
    by_kind = {kind: [t for t in stored.trials if t.params["kind"] == kind] for kind in ("good", "bad", "nan", "raising")}

    # the journal
    assert len(stored.trials) == 16
    assert all(by_kind.values())
    assert State.COMPLETE in {t.state for t in by_kind["good"]}
    bad = {ladder: {t.state for t in by_kind["bad"] if t.ladder == ladder} for ladder in ("random", "tpe")}
    assert all(states <= {State.PRUNED, State.COMPLETE} for states in bad.values())  # the first in its ladder has nobody to lose against
    assert any(State.PRUNED in states for states in bad.values())
    assert {(t.state, t.reason) for t in by_kind["nan"]} == {(State.FAILED, "value was nan at epoch 2")}
    assert {t.state for t in by_kind["raising"]} == {State.FAILED}
    assert all(t.reason.startswith("RuntimeError: boom at small_trainers.py:") for t in by_kind["raising"])

    # Optuna's history
    sampler = OptunaSampler("tpe", stored.spec.space, Direction.MAXIMIZE, stored.spec.seed)
    for ours, theirs in zip(stored.trials, sampler.history(stored.trials), strict=True):
        assert theirs.state is OPTUNA[ours.state]
        assert theirs.intermediate_values == {m.epoch: m.value for m in ours.measurements}

    # MLflow
    parent, runs = runs_of(home, "mixed")
    assert parent.info.status == "FINISHED"
    assert sorted(runs) == list(range(16))
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    for trial in stored.trials:
        run = runs[trial.number]
        assert run.info.status == STATUS[trial.state]
        assert run.data.tags["hpo.state"] == trial.state.value
        assert run.data.tags["hpo.reason"] == trial.reason
        assert {"x", "kind"} <= run.data.params.keys()
        history = client.get_metric_history(run.info.run_id, "value") if trial.measurements else []
        assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [(m.epoch, m.value) for m in trial.measurements]
        if trial.state is State.PRUNED:
            assert run.data.metrics["best_value"] == trial.best(Direction.MAXIMIZE).value

    # the command's own words
    assert done.json["trials"] == {state.value: count for state, count in stored.counts.items()}
    assert done.json["best"]["value"] == stored.best.value
    assert hpo("best", "mixed", "--json").json == done.json["best"]
    table = hpo("trials", "mixed", "--json").json
    assert [row["state"] for row in table] == [t.state.value for t in stored.trials]


def test_the_sampler_was_told_the_truth_while_it_ran(home: Path) -> None:
    """Every suggestion in the journal of the one-worker study above is made again from the history as it was then."""
    stored = StoredStudy.open(home / "mixed")
    sampler = sampler_of(stored.spec)
    study, asked = Study(rules_of(stored.spec), NoFurther()), 0
    for record in stored.records:
        if isinstance(record.event, Asked):
            assert sampler.suggest(record.event.trial, study.trials) == record.event.params
            asked += 1
        study.apply(record.event)
    assert asked == 16


def test_the_same_single_worker_launch_gives_the_same_trials_and_values(hpo: Hpo, home: Path) -> None:
    done = hpo("launch", str(SPECS / "mixed.yaml"), "--trainer", f"{TRAINERS}:mixed", "--json")
    assert done.json["study"] == "mixed-2"  # the name was taken
    first, second = (StoredStudy.open(home / name).trials for name in ("mixed", "mixed-2"))
    assert [(t.params, t.seed, t.state, [m.value for m in t.measurements]) for t in first] == [
        (t.params, t.seed, t.state, [m.value for m in t.measurements]) for t in second
    ]


def test_a_worker_that_is_killed_is_replaced_and_its_trial_goes_on_from_its_checkpoint(hpo: Hpo, home: Path) -> None:
    done = hpo("launch", str(SPECS / "plain.yaml"), "--trainer", f"{TRAINERS}:dying", "--name", "dying", "--json")
    assert done.code == 0, done.err
    events = [record.event for record in read(home / "dying" / FILE_NAME)]
    assert [(e.trial, e.attempt) for e in events if isinstance(e, Retried)] == [(1, 2)]
    measured = [(e.trial, e.epoch) for e in events if isinstance(e, Measured)]
    assert len(measured) == len(set(measured)) == 6 * 6  # nothing lost, nothing doubled
    assert sorted(e.trial for e in events if isinstance(e, Finished)) == [0, 1, 2, 3, 4, 5]
    restarted = [e for e in events if isinstance(e, Measured) and e.trial == 1][-1]
    assert restarted.metrics["started_at"] >= 1  # not at its beginning
    _, runs = runs_of(home, "dying")
    assert runs[1].data.tags["hpo.attempt"] == "2"
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_only_checkpoints_of_the_best_trials_stay(home: Path) -> None:
    stored = StoredStudy.open(home / "dying")
    ranked = sorted(stored.trials, key=lambda t: (stored.study.loss(t), t.number))
    kept = {int(path.parent.name) for path in (home / "dying").glob("trials/*/best")}
    assert kept == {t.number for t in ranked[:3]}
    assert not list((home / "dying").glob("trials/*/last"))
    assert stored.best.checkpoint is not None


def test_if_every_trial_fails_the_exit_code_is_3_and_says_why(hpo: Hpo, home: Path) -> None:
    done = hpo("launch", str(SPECS / "plain.yaml"), "--trainer", f"{TRAINERS}:silent", "--name", "none")
    assert done.code == 3
    assert "no trial succeeded:\n  trial 0 and 5 more: the trainer ended before its first epoch" in done.err
    assert StoredStudy.open(home / "none").counts[State.FAILED] == 6
    _, runs = runs_of(home, "none")
    assert {run.info.status for run in runs.values()} == {"FAILED"}
    best = hpo("best", "none")
    assert (best.code, best.out) == (3, "")


@pytest.mark.parametrize("words", [(), ("--local",)])
def test_ctrl_c_ends_with_130_and_leaves_a_journal_that_tells_what_was_running(hpo: Hpo, home: Path, words: tuple[str, ...]) -> None:
    name = "interrupted-local" if words else "interrupted"
    done = hpo("launch", str(SPECS / "plain.yaml"), "--trainer", f"{TRAINERS}:interrupting", "--name", name, *words)
    assert done.code == 130, done.err
    events = [record.event for record in read(home / name / FILE_NAME)]
    assert isinstance(events[-1], Ended)
    assert events[-1].reason == "interrupted"
    states = {trial.number: trial.state for trial in StoredStudy.open(home / name).trials}
    assert states[2] is State.RUNNING
    assert State.COMPLETE in states.values()
    assert hpo("track", name).code == 0  # there may have been no time for all of it
    _, runs = runs_of(home, name)
    assert "RUNNING" not in {run.info.status for run in runs.values()}
    resumed = hpo("resume", name, *words, "--json", HPO_TEST_DRIVER_SPARED="1")
    assert resumed.code == 0, resumed.err
    assert {trial.state for trial in StoredStudy.open(home / name).trials} == {State.COMPLETE}
    assert hpo("verify", name).code == hpo("replay", name).code == 0


def test_time_that_is_spent_ends_the_search_and_prunes_its_running_trials(hpo: Hpo, home: Path) -> None:
    """Trials that take for ever: 20 s are enough for Ray to start and for the first epochs, and then it is over."""
    words = ["--trainer", f"{TRAINERS}:endless", "--name", "late", "--time", "20s", "--set", "trainer.settings.max_epochs=1000000"]
    done = hpo("launch", str(SPECS / "plain.yaml"), *words, "--json")
    assert done.code == 0, done.err
    stored = StoredStudy.open(home / "late")
    assert stored.state == done.json["state"] == "time"
    assert {(t.state, t.reason) for t in stored.trials} == {(State.PRUNED, "the study's time was spent")}
    assert len(stored.trials) == 2  # one a slot: nothing was asked for ahead
    _, runs = runs_of(home, "late")
    assert {run.info.status for run in runs.values()} == {"KILLED"}
    workers = {m.metrics["pid"] for t in stored.trials for m in t.measurements}
    assert len(workers) == 2


def test_a_trial_is_tried_again_however_its_worker_ends(hpo: Hpo, home: Path) -> None:
    """A worker that dies between two trials, while it is cleaned up for the next, costs no trial."""
    done = hpo("launch", str(SPECS / "plain.yaml"), "--trainer", f"{TRAINERS}:dying_after", "--name", "between", "--json")
    assert done.code == 0, done.err
    stored = StoredStudy.open(home / "between")
    assert {t.state for t in stored.trials} == {State.COMPLETE}
    assert len(stored.trials) == 6
    assert max(t.attempts for t in stored.trials) == 2


def test_a_search_does_not_need_its_mlflow_server(hpo: Hpo, home: Path) -> None:
    """Nothing listens on port 1: the trials run, the command says what is missing, and the journal has it all."""
    server = "http://127.0.0.1:1"
    words = ["--trainer", f"{TRAINERS}:quadratic", "--name", "alone", "--set", "tracking.patience=1s"]
    done = hpo("launch", str(SPECS / "plain.yaml"), *words, MLFLOW_TRACKING_URI=server)
    assert done.code == 0, done.err
    assert "MLflow does not have all of it" in done.out
    assert StoredStudy.open(home / "alone").counts[State.COMPLETE] == 6


def test_nothing_of_ray_is_left_behind(hpo: Hpo, home: Path) -> None:
    assert hpo("launch", str(SPECS / "plain.yaml"), "--trainer", f"{TRAINERS}:quadratic", "--name", "tidy").code == 0
    for lock in Path("/tmp").glob("hpo-ray-*/driver.lock"):  # of studies that run beside this test
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert {path.name for path in (home / "tidy").iterdir()} <= {
        FILE_NAME, "journal.lock", "ray.log", "tracking.log", "tracking.json", "tracking.lock", "trials", "report",
    }  # fmt: skip


def test_digits_from_the_command_to_a_champion_that_loads_back(hpo: Hpo, home: Path) -> None:
    done = hpo("launch", str(ROOT / "search_spaces" / "digits.yaml"), "--trials", "8", "--json")
    assert done.code == 0, done.err
    assert done.json["best"]["value"] > 0.9
    assert done.json["best"]["model_uri"] == "models:/digits-mlp/1"
    shapes = (
        "import mlflow, numpy as np\n"
        f"mlflow.set_tracking_uri({done.json['best']['tracking_uri']!r})\n"
        "model = mlflow.pyfunc.load_model('models:/digits-mlp@champion')\n"
        "print([model.predict(np.zeros((rows, 64), np.float32)).shape for rows in (1, 2, 512)])"
    )
    env = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    loaded = subprocess.run([sys.executable, "-c", shapes], capture_output=True, text=True, env=env, timeout=100, check=False)
    assert loaded.stdout.strip() == "[(1, 10), (2, 10), (512, 10)]", loaded.stderr
    client = MlflowClient(done.json["best"]["tracking_uri"])
    version = client.get_model_version_by_alias("digits-mlp", "champion")
    assert int(version.version) == 1
    assert version.tags["hpo.study"] == "digits"
    _, runs = runs_of(home, "digits")
    assert {"learning_rate", "weight_decay", "dropout", "width", "batch_size", "depth"} <= set.intersection(
        *(set(run.data.params) for run in runs.values())
    )
    assert len(runs) == 8
    assert json.loads(hpo("status", "digits", "--json").out)[0]["recorded"] is True
