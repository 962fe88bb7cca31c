"""Whole studies recorded in a real PostgreSQL, by a real MLflow server and straight, whatever becomes of the two meanwhile.

Rules: a study never stops for its record and ends with 0; afterwards journal, Optuna's history and MLflow agree, to the row.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from hpo.events import Measured
from hpo.mending import Tracked
from hpo.opening import open_store
from hpo.recording import TrackingError, track
from hpo.replaying import replay_decisions
from hpo.results import StoredStudy
from hpo.specified import rules_of, sampler_of
from hpo.tracking import LOG_FILE, read_state, surroundings
from hpo.verifying import verify
from tests.chaos.outcome import Tally
from tests.chaos.real_study import Real, check_study, ended, wait_until
from tests.conftest import needs_two_processors
from tests.servers.conftest import SERVED, STRAIGHT
from tests.servers.mlflow_server import GuardedServer
from tests.servers.postgres import ROLE, Postgres

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning"),
]
WRONG = "planted-word-that-is-wrong"
SHORT = {"trials": 2, "epochs": 4, "local": True, "patience": "0.1s"}
SAID = {  # by the server, by the database
    "the password is wrong": (
        "does not know this user or password: set MLFLOW_TRACKING_USERNAME",
        "password authentication failed for user",
    ),
    "the database is away": ("gives no answer: too many 503 error responses", "Connection refused"),
}
ROWS = """
SELECT s.value, k.value, count(*) FROM runs
JOIN tags s ON s.run_uuid = runs.run_uuid AND s.key = 'hpo.study'
JOIN tags k ON k.run_uuid = runs.run_uuid AND k.key = 'hpo.trial'
WHERE runs.lifecycle_stage = 'active' GROUP BY 1, 2
"""


def by_server(studies: Path, name: str, server: GuardedServer, password: str | None = None, **more: Any) -> Real:
    """A study that is recorded by the server, as the administrator."""
    secrets = server.client(password=password) | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    return Real(studies / f"{name}-files", name, studies, **{"uri": server.uri, "secrets": secrets, "patience": "120s", **more})


def straight(studies: Path, name: str, postgres: Postgres, password: str | None = None, **more: Any) -> Real:
    """A study that writes to the database itself; libpq takes the password from the environment."""
    uri, secrets = postgres.uri(STRAIGHT, password=""), {"PGPASSWORD": password or postgres.passwords[ROLE]}
    return Real(studies / f"{name}-files", name, studies, **{"uri": uri, "secrets": secrets, "patience": "120s", **more})


def words_of(study: Real) -> str:
    """What the study's commands printed, without line breaks."""
    return " ".join(study.log.read_text().split())


def measured(study: Real) -> int:
    return sum(isinstance(record.event, Measured) for record in study.records())


def agree(study: Real, *, replayed: bool = False) -> None:
    """`hpo verify` is clean, and `hpo replay`; both without a process of their own, which would take most of the time."""
    with surroundings(study.secrets):
        assert [str(check) for check in verify(study.home / study.name) if not check.ok] == []
    if replayed:
        found = StoredStudy.open(study.home / study.name)
        assert replay_decisions(rules_of(found.spec), sampler_of(found.spec), found.records).divergence is None


def tracked(study: Real, patience_s: float = 60.0) -> Tracked:
    """What `hpo track` does."""
    with surroundings(study.secrets):
        return track(study.home / study.name, None, patience_s)


def keys(postgres: Postgres, database: str, study: Real) -> dict[str, int]:
    """How often the database has each run of the study."""
    return {key: count for name, key, count in postgres.execute(ROWS, database=database) if name == study.name}


def once_each(postgres: Postgres, database: str, study: Real) -> None:
    """The database has every run of the study, once."""
    found = keys(postgres, database, study)
    assert set(found.values()) == {1}
    assert len(found) == 1 + len({record.event.trial for record in study.records() if isinstance(record.event, Measured)})


Fault = tuple[str, Callable[[], object], Callable[[], object]]


def faults(postgres: Postgres, server: GuardedServer) -> list[Fault]:
    """By name: how it begins, how it is mended. After the last one the server has to be waited for."""
    return [
        ("killed", postgres.kill, postgres.start),
        ("killed", postgres.kill, postgres.start),
        ("killed", postgres.kill, postgres.start),
        ("stopped at once", lambda: postgres.stop(signal.SIGQUIT), postgres.start),
        ("stopped cleanly", postgres.stop, postgres.start),
        ("too many connections", lambda: postgres.refuse(more=True), lambda: postgres.refuse(more=False)),
        ("in recovery", lambda: (postgres.stop(), postgres.demote()), postgres.promote),
        ("server killed", server.kill, server.begin_again),
    ]


@needs_two_processors
@pytest.mark.parametrize("seed", [int(os.environ.get("HPO_TEST_SEED", "1"))])
def test_studies_go_on_whatever_becomes_of_the_record(seed: int, postgres: Postgres, server: GuardedServer, studies: Path) -> None:
    """Two on Ray at once, one by the server and one straight; the moments of the faults are counted in measured epochs."""
    chance = random.Random(seed)
    both = [by_server(studies, "by-server", server, trials=10), straight(studies, "straight", postgres, trials=10)]
    running = [study.launch() for study in both]
    goal, met = 2, []
    for name, begin, mend in chance.sample(known := faults(postgres, server), len(known)):
        if await_epochs(both, running, goal):
            break
        begin()
        goal += chance.randrange(1, 4)
        await_epochs(both, running, goal)
        mend()
        met.append(name)
        goal += chance.randrange(1, 4)
    assert [ended(process) for process in running] == [0, 0], [study.log.read_text()[-2000:] for study in both]
    assert len(met) >= 6, met
    tally = Tally()
    for study, database in zip(both, (SERVED, STRAIGHT), strict=True):
        assert (state := read_state(studies / study.name)) is not None
        assert state.done
        assert "Error" in (studies / study.name / LOG_FILE).read_text()  # it noticed something
        check_study(tally, study, [], study.log)
        assert study.is_over()
        agree(study, replayed=True)
        once_each(postgres, database, study)
    assert not any(tally.wrong.values()), tally


def await_epochs(both: Sequence[Real], running: Sequence[subprocess.Popen[str]], goal: int) -> bool:
    """Return when each study measured so many epochs; whether one is over."""
    over = lambda: any(process.poll() is not None for process in running)  # noqa: E731
    wait_until(lambda: over() or min(map(measured, both)) >= goal, f"{goal} epochs")
    return over()


def test_studies_of_several_people_on_one_server(postgres: Postgres, server: GuardedServer, studies: Path) -> None:
    """Three at once, of one experiment and one registered model; the database is killed while they run."""
    three = [by_server(studies, f"person-{number}", server, trials=3, epochs=4, local=True) for number in range(3)]
    running = [study.launch() for study in three]
    wait_until(lambda: all(measured(study) >= 2 for study in three), "epochs of all three")
    postgres.kill()
    postgres.start()
    assert [ended(process) for process in running] == [0, 0, 0]
    for study in three:
        agree(study)
        once_each(postgres, SERVED, study)


def test_a_database_that_lets_nobody_in_is_asked_once(postgres: Postgres, studies: Path) -> None:
    """MLflow by itself would ask ten times, for 100 s, in which nothing else is heard of."""
    before = postgres.log.read_text().count("password authentication failed")
    with pytest.raises(SQLAlchemyError, match="password authentication failed"):
        open_store(postgres.uri(STRAIGHT, password=WRONG), "any", studies)
    assert postgres.log.read_text().count("password authentication failed") == before + 1


@pytest.mark.parametrize("cause", ["the password is wrong", "the database is away"])
def test_a_record_that_cannot_be_written(cause: str, postgres: Postgres, server: GuardedServer, studies: Path) -> None:
    """The studies go on, say so in a line without the password, and end with 0; `hpo track` sends it all, and twice is once."""
    password = WRONG if cause == "the password is wrong" else None
    names = [f"{way}-{cause.split()[1]}" for way in ("by-server", "straight")]
    both = [by_server(studies, names[0], server, password, **SHORT), straight(studies, names[1], postgres, password, **SHORT)]
    if password is None:
        postgres.stop()
    try:
        assert [ended(process) for process in [study.launch() for study in both]] == [0, 0]
        for study, words in zip(both, SAID[cause], strict=True):
            text = words_of(study)
            assert text.count("MLflow does not have all of it") == text.count(words) == 1, text
            written = [file for file in (studies / study.name).rglob("*") if file.is_file()]
            assert len(written) > 3
            assert WRONG not in text + "".join(file.read_text(errors="replace") for file in written)
            with pytest.raises(TrackingError, match=re.escape(words)):
                tracked(study, patience_s=0.1)
    finally:
        if password is None:
            postgres.start()
    again = [by_server(studies, names[0], server), straight(studies, names[1], postgres)]
    for study, database in zip(again, (SERVED, STRAIGHT), strict=True):
        assert tracked(study).changed
        assert not tracked(study).changed
        agree(study)
        once_each(postgres, database, study)
