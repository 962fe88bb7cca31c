"""MLflow's record straight in a database: how it is reached, and what of its refusals is final."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo import databases, doctor, tracking
from hpo.databases import TIME_LIMITS, is_database, missing_driver, patient
from hpo.mlflow_words import text
from hpo.preparing import check_surroundings
from hpo.problem import SpecError
from hpo.spec import load_spec
from hpo.store import PASSING
from tests.conftest import ROOT

LIMITS = "&".join(f"{name}={value}" for name, value in TIME_LIMITS.items())
LINK = "(Background on this error at: https://sqlalche.me/e/21/"


@pytest.mark.parametrize(
    ("uri", "reached"),
    [
        ("postgresql://u:p@h:5432/db", f"postgresql+psycopg://u:p@h:5432/db?{LIMITS}"),
        ("postgresql+psycopg2://h/db", f"postgresql+psycopg2://h/db?{LIMITS}"),
        ("postgresql:///db", f"postgresql+psycopg:///db?{LIMITS}"),
        ("postgresql://u:p?%40#w@[::1]/db", f"postgresql+psycopg://u:p?%40#w@[::1]/db?{LIMITS}"),  # a password may hold anything but @
        ("postgresql+asyncpg://h/db", "postgresql+asyncpg://h/db"),
        ("sqlite:////home/mlflow.db", "sqlite:////home/mlflow.db"),
        ("https://u:p@h/mlflow", "https://u:p@h/mlflow"),
        ("mysql+pymysql://u:p@h/db", "mysql+pymysql://u:p@h/db"),
    ],
)
def test_no_postgresql_is_waited_for_without_end(uri: str, reached: str) -> None:
    assert patient(uri) == reached


def test_what_the_user_asked_for_stays() -> None:
    found = patient("postgresql://h/db?connect_timeout=3&sslmode=verify-full")
    assert "connect_timeout=3&" in found
    assert found.endswith("&sslmode=verify-full")
    assert patient(found) == found


@pytest.mark.parametrize(
    ("uri", "is_one"), [("sqlite:///x", True), ("postgresql+psycopg://h/d", True), ("mysql://h/d", True), ("http://h", False), ("", False)]
)
def test_a_database_is_told_from_a_server(uri: str, is_one: bool) -> None:
    assert is_database(uri) is is_one


def test_a_driver_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "find_spec", lambda _: None)
    assert missing_driver("postgresql://h/d") == "PostgreSQL's driver psycopg is not installed: pip install 'hpo[postgres]'"
    assert missing_driver("postgresql+pg8000://h/d") == "PostgreSQL's driver pg8000 is not installed: install it, or write postgresql://"
    assert not missing_driver("http://h")
    assert not missing_driver("sqlite:///x")


def test_without_the_driver_no_search_is_begun_and_the_doctor_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = load_spec(ROOT / "search_spaces" / "digits.yaml", overrides=["tracking.uri=postgresql://h/d"])
    monkeypatch.setattr(databases, "find_spec", lambda _: None)
    with pytest.raises(SpecError, match=r"tracking\.uri: .*pip install 'hpo\[postgres\]'"):
        check_surroundings(spec)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:planted@h/d")
    check = doctor._tracking(tmp_path)
    assert (check.ok, check.found) == (False, "postgresql://***@h/d")
    assert "hpo[postgres]" in check.mend


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "postgresql://me:planted@127.0.0.1:1/d", "postgresql+psycopg://127.0.0.1:1/d"])
def test_the_doctor_looks_whether_somebody_answers(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    check = doctor._tracking(tmp_path)
    assert not check.ok
    assert "Connection refused" in check.found
    assert "planted" not in str(check)


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        (f"(psycopg.errors.ReadOnlySqlTransaction) cannot execute INSERT in a read-only transaction\n{LINK}2j85)", True),
        (f"QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00 {LINK}3o7r)", True),
        (f"Can't reconnect until invalid transaction is rolled back. {LINK}8s2b)", True),
        (f"(psycopg.InterfaceError) connection already closed\n{LINK}rvf5)", True),
        (f"BAD_REQUEST: (psycopg.errors.ReadOnlySqlTransaction) cannot execute\n[SQL: UPDATE]\n{LINK}2j85)", True),  # a server's words
        (f"(psycopg.errors.UniqueViolation) duplicate key value\n{LINK}gkpj)", False),
        (f"(psycopg.DataError) PostgreSQL text fields cannot contain NUL\n{LINK}9h9h)", False),
        (f"(psycopg.errors.UndefinedColumn) column does not exist\n{LINK}f405)", False),
        ("Changing param values is not allowed.", False),
        (f"Changing param values is not allowed: {LINK}2j85) is not 3", False),  # a user's text is no word of the database
    ],
)
def test_what_a_database_refuses_for_now_is_not_given_up(said: str, passes: bool) -> None:
    assert bool(PASSING.search(said)) is passes


SERVER = 'connection to server at "10.0.0.7", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "short"),
    [
        (f'(psycopg.OperationalError) connection failed: {SERVER}FATAL:  password authentication failed for user "me"\n({LINK}',
         'postgresql://***@h/d: password authentication failed for user "me"'),
        (f"(psycopg.OperationalError) Multiple connection attempts failed. All failures were:\n- host: 'h', hostaddr: '::1': connection "
         f"failed: {SERVER}Connection refused\n\tIs the server running?\n- host: 'h', hostaddr: '127.0.0.1': connection failed: "
         f"{SERVER}FATAL:  sorry, too many clients already\n{LINK}", "postgresql://***@h/d: sorry, too many clients already"),
        (f"(psycopg.OperationalError) connection failed: {SERVER}Connection refused\n\tIs the server running on that host?",
         "postgresql://***@h/d: Connection refused"),
        ("(raised as a result of Query-invoked autoflush)\n(psycopg.errors.ReadOnlySqlTransaction) cannot execute INSERT\n[SQL: x]",
         "postgresql://***@h/d: cannot execute INSERT"),
        ("(psycopg.errors.AdminShutdown) terminating connection due to administrator command\n[SQL: SELECT 1]\nsecret",
         "postgresql://***@h/d: terminating connection due to administrator command"),
    ],
)  # fmt: skip
def test_what_a_database_says_is_told_in_a_line(said: str, short: str) -> None:
    assert tracking.in_short(said, "postgresql://me:secret@h/d") == short


@pytest.mark.parametrize(("value", "kept"), [("a\0b", "a\ufffdb"), ("a\udcffb", "a?b"), ("a\u00e4\U0001f600", "a\u00e4\U0001f600")])
def test_a_text_is_one_that_every_database_keeps(value: str, kept: str) -> None:
    assert text(value) == kept


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("(Caused by ResponseError('too many 503 error responses'))", "gives no answer: too many 503 error responses"),
        ("ConnectionResetError(104, 'Connection reset by peer')", "gives no answer: Connection reset by peer"),
        ("failed with error code 401 != 200. Response body: 'You are not'", tracking.SHUT["401"]),
        ("failed with error code 403 != 200. Response body: 'Permission denied'", tracking.SHUT["403"]),
    ],
)
def test_what_a_server_says_is_told_in_a_line(said: str, short: str) -> None:
    assert tracking.in_short(f"API request to endpoint /api/2.0 {said}", "http://me:secret@h") == f"http://***@h {short}"
