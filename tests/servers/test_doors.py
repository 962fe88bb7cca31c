"""Who gets what from the MLflow server that infra/mlflow/serve.sh starts, and from `hpo ui`: asked of the real ones, route by route."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from hpo.mlflow_app import CLOSED
from hpo.results import StoredStudy
from hpo.tracking import ui_command
from tests.chaos.mlflow_scene import free_port, until
from tests.chaos.real_study import ended
from tests.conftest import ROOT, Done, run_hpo
from tests.servers.mlflow_server import ADMIN, GuardedServer

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning"),
]
PUBLIC = {"/health", "/static-files/7", "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"}  # nothing of anybody's
FOREIGN = "evil.example:5000"
CANARY = "canary-9f31"  # in all that is the administrator's
Route = tuple[str, str]


def is_closed(path: str) -> bool:
    return any(part in path for part in CLOSED)


@pytest.fixture(scope="module")
def routes(server: GuardedServer) -> list[Route]:
    """Every method and path that the server knows."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.servers.routes"]
    done = subprocess.run(command, env=server.inside(), cwd=ROOT, capture_output=True, text=True, check=True)
    found = [(method, path) for method, path in json.loads(done.stdout)]
    assert len(found) > 900
    for known in ("/graphql", "/", "/get-artifact", "/api/2.0/mlflow/runs/search", "/ajax-api/2.0/mlflow/runs/search", "/signup"):
        assert known in {path for _, path in found}
    for known in CLOSED:
        assert any(known in path for _, path in found), f"{known} closes nothing"
    return found


@pytest.fixture
def visitor() -> Iterator[requests.Session]:
    """Somebody without a password."""
    with requests.Session() as session:
        session.trust_env = False  # no ~/.netrc
        yield session


def test_nothing_is_told_without_a_password(server: GuardedServer, routes: list[Route], visitor: requests.Session) -> None:
    wrong = []
    for method, path in routes:
        answer = visitor.request(method, f"{server.uri}{path}", timeout=60, allow_redirects=False)
        allowed = {404} if is_closed(path) else {200, 204, 404, 405} if path in PUBLIC else {401}
        if answer.status_code not in allowed:
            wrong.append((method, path, answer.status_code, answer.text[:80]))
    assert wrong == []


def test_a_wrong_password_is_none(server: GuardedServer, routes: list[Route], visitor: requests.Session) -> None:
    """A sample, for each takes the server a hash; a user who does not exist, too."""
    inner = [(method, path) for method, path in routes if path not in PUBLIC and not is_closed(path)]
    for method, path in random.Random(1).sample(inner, 60):
        visitor.auth = (random.Random(path).choice([ADMIN, "nobody"]), "a-wrong-password")
        assert visitor.request(method, f"{server.uri}{path}", timeout=60).status_code == 401, (method, path)


def test_what_runs_programs_is_closed_to_everybody(server: GuardedServer, routes: list[Route]) -> None:
    closed = [(method, path) for method, path in routes if is_closed(path)]
    assert len(closed) > 20
    for method, path in closed:
        assert server.ask(method, path, json={}).status_code == 404, (method, path)
    for path in ("issues/invoke", "scorer/invoke", "genai/evaluate/invoke"):  # of MLflow's own, by jobs
        answer = server.ask("POST", f"/ajax-api/3.0/mlflow/{path}", json={"experiment_id": "0"})
        assert answer.status_code >= 400, answer.text


def test_what_is_public_holds_no_secret(server: GuardedServer, visitor: requests.Session) -> None:
    for path in PUBLIC:
        text = visitor.get(f"{server.uri}{path}", timeout=60).text
        assert not [word for word in server.secrets if word in text]


@pytest.mark.parametrize("path", ["/", "/api/2.0/mlflow/experiments/search?max_results=1", "/graphql", "/static-files/7"])
def test_a_foreign_name_is_refused(path: str, server: GuardedServer) -> None:
    """A page of a stranger, whose name leads to this address now (DNS rebinding): the browser sends its name, and the password."""
    for name in (
        FOREIGN,
        "127.0.0.1",
        f"localhost:{server.port}",
        f"127.0.0.1:{server.port}.{FOREIGN}",
        "",
        f"127.0.0.1:{server.port + 1}",
    ):
        assert server.ask("GET", path, headers={"Host": name}).status_code in (400, 403), name
    assert server.ask("GET", path).status_code != 403


@pytest.mark.parametrize("path", ["/api/2.0/mlflow/experiments/create", "/ajax-api/2.0/mlflow/runs/create", "/api/2.0/mlflow/users/create"])
def test_a_foreign_page_changes_nothing(path: str, server: GuardedServer) -> None:
    answer = server.ask("POST", path, headers={"Origin": f"https://{FOREIGN}"}, json={"name": "x"})
    assert (answer.status_code, answer.text) == (403, "Cross-origin request blocked")
    assert FOREIGN not in answer.headers.get("Access-Control-Allow-Origin", "")


def test_no_password_is_in_the_process_list_or_the_log(server: GuardedServer) -> None:
    shown = b"".join(file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()).decode(errors="replace")
    assert "hpo-basic-auth" in shown
    log = server.log.read_text()
    assert not [word for word in server.secrets if word in shown or word in log]


def test_the_server_is_reached_by_loopback_alone(server: GuardedServer) -> None:
    assert listening(server.port) == {"0100007F"}


def listening(port: int) -> set[str]:
    """The addresses on which a port is listened on, in the kernel's words."""
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    return {line[1].rpartition(":")[0] for line in lines if line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == port}


@pytest.fixture(scope="module")
def ann(server: GuardedServer) -> dict[str, str]:
    """The environment of an ordinary user."""
    return server.client("ann", server.add_user("ann"))


@pytest.fixture(scope="module")
def search(server: GuardedServer, ann: dict[str, str], studies: Path) -> tuple[StoredStudy, Done]:
    """A study of hers, with a model."""
    words = ("--trials", "2", "--set", "finals=none", "--set", "trainer.settings.max_epochs=3", "--name", "of-ann", "--local")
    done = run_hpo(studies, "launch", str(ROOT / "search_spaces" / "digits.yaml"), *words, **ann)
    return StoredStudy.open(studies / "of-ann"), done


def test_a_study_of_a_user(search: tuple[StoredStudy, Done], ann: dict[str, str], studies: Path) -> None:
    study, done = search
    assert done.code == 0, done.err
    assert study.tracking is not None
    assert (study.tracking.done, study.tracking.champion_uri) == (True, "models:/digits-mlp/1"), study.tracking
    verified = run_hpo(studies, "verify", "of-ann", **ann)
    assert verified.code == 0, verified.out
    words = "import numpy, mlflow; print(mlflow.pyfunc.load_model('models:/digits-mlp/1').predict(numpy.zeros((3, 64), 'float32')).shape)"
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", words], env=os.environ | ann, capture_output=True, text=True, check=False
    )
    assert loaded.stdout.strip() == "(3, 10)", loaded.stderr[-2000:]


def test_a_user_sees_nobody_elses(
    search: tuple[StoredStudy, Done], server: GuardedServer, routes: list[Route], ann: dict[str, str]
) -> None:
    """Whatever is asked for by name or number, on whatever route, no answer holds a word of hers; and nothing of hers is changed."""
    study, _ = search
    assert study.tracking is not None
    experiment, run = study.tracking.experiment_id, study.tracking.parent_run_id
    hers = (CANARY, "of-ann", *planted(server, ann, experiment, run))
    assert len(hers) == 4
    told = wanted(experiment, run)
    with requests.Session() as session:
        session.auth, session.trust_env = ("eve", server.add_user("eve")), False
        for method, path in routes:
            if method in ("OPTIONS", "HEAD") or is_closed(path):
                continue
            place = path.replace("/7", f"/{experiment}" if "experiment" in path or "artifact" in path else f"/{run}")
            answer = session.request(method, f"{server.uri}{place}", params=told, json=told, timeout=60, allow_redirects=False)
            assert not [word for word in hers if word in answer.text], (method, place, answer.status_code, answer.text[:300])
        query = {"query": f'{{ mlflowGetRun(input: {{runId: "{run}"}}) {{ run {{ info {{ runName }} data {{ tags {{ key }} }} }} }} }}'}
        answer = session.post(f"{server.uri}/graphql", json=query, timeout=60)
        assert not [word for word in hers if word in answer.text], answer.text
        asked_by_ann = requests.post(f"{server.uri}/graphql", json=query, auth=of(ann), timeout=60)
        assert CANARY in asked_by_ann.text, asked_by_ann.text  # so it is the right question
    verified = run_hpo(study.folder.parent, "verify", study.name, **ann)
    assert verified.code == 0, verified.out


def of(client: dict[str, str]) -> tuple[str, str]:
    """A client's name and password."""
    return client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"]


def planted(server: GuardedServer, ann: dict[str, str], experiment: str, run: str) -> list[str]:
    """The numbers of her trials' runs, after the canary was written wherever tags are."""
    mark = {"key": CANARY, "value": CANARY}
    places = {
        "runs": {"run_id": run},
        "experiments": {"experiment_id": experiment},
        "registered-models": {"name": "digits-mlp"},
        "model-versions": {"name": "digits-mlp", "version": "1"},
    }
    for place, what in places.items():
        kind = "set-experiment-tag" if place == "experiments" else "set-tag"
        answer = server.ask("POST", f"/api/2.0/mlflow/{place}/{kind}", *of(ann), json=what | mark)
        assert answer.status_code == 200, answer.text
    found = server.ask("POST", "/api/2.0/mlflow/runs/search", *of(ann), json={"experiment_ids": [experiment]})
    assert CANARY in found.text
    return [number for one in found.json()["runs"] if (number := one["info"]["run_id"]) != run]


def wanted(experiment: str, run: str) -> dict[str, Any]:
    """What routes are asked by: everything that may name something, at once."""
    names = dict.fromkeys(("name", "model_name", "registered_model_name"), "digits-mlp")
    return {
        "experiment_id": experiment,
        "experiment_ids": [experiment],
        "experiment_name": "digits",
        "run_id": run,
        "run_uuid": run,
        "run_ids": [run],
        "path": "spec.json",
        "version": "1",
        "alias": "champion",
        "metric_key": "val_accuracy",
        "key": "hpo.state",
        "value": "changed",
        "max_results": 10,
        "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}],
        **names,
    }


def test_an_experiment_of_somebody_else_is_written_to_with_her_leave(
    search: tuple[StoredStudy, Done], server: GuardedServer, ann: dict[str, str], studies: Path
) -> None:
    """Without it the study says whose it is not; with it `hpo track` records the study, and its model is the next version of hers."""
    bob = server.client("bob", server.add_user("bob"))
    settings = ("finals=none", "trainer.settings.max_epochs=1", "tracking.patience=0.1s")
    words = ("--trials", "1", "--local", *(word for setting in settings for word in ("--set", setting)))
    done = run_hpo(studies, "launch", str(ROOT / "search_spaces" / "digits.yaml"), *words, "--name", "of-bob", **bob)
    assert done.code == 0, done.err
    assert "does not allow this user that" in " ".join(done.out.split())
    assert bob["MLFLOW_TRACKING_PASSWORD"] not in done.out + done.err
    found, _ = search
    assert found.tracking is not None
    for kind, name in (("experiment", found.tracking.experiment_id), ("registered_model", "digits-mlp")):
        leave = {"username": "bob", "resource_type": kind, "resource_id": name, "permission": "EDIT"}
        answer = server.ask("POST", "/api/3.0/mlflow/users/permissions/grant", *of(ann), json=leave)
        assert answer.status_code == 200, answer.text
    tracked = run_hpo(studies, "track", "of-bob", **bob)
    assert tracked.code == 0, tracked.out + tracked.err
    assert "digits-mlp/2" in tracked.out
    assert run_hpo(studies, "verify", "of-bob", **bob).code == 0


def test_a_pickled_model_is_refused(server: GuardedServer, tmp_path: Path) -> None:
    env = (
        os.environ | server.client() | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true", "PYTHONPATH": str(ROOT)}
    )  # of somebody who makes one
    command = [sys.executable, "-W", "ignore", "-m", "tests.servers.pickled", str(tmp_path / "ran")]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("refused: "), done.stdout + done.stderr[-2000:]
    assert "pickle" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_the_ui_of_one_person(studies: Path, search: object) -> None:
    """`hpo ui` asks nobody, and answers to its own name alone."""
    port = free_port()
    with (studies / "ui.log").open("wb") as log:
        process = subprocess.Popen(ui_command(studies, port=port), stdout=log, stderr=log, start_new_session=True, text=True)
    try:
        uri = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{uri}/health"), f"{studies / 'ui.log'}: it does not answer")
        assert listening(port) == {"0100007F"}
        for name, code in (
            (f"127.0.0.1:{port}", 200),
            (f"localhost:{port}", 200),
            (FOREIGN, 403),
            ("127.0.0.1", 403),
            (f"10.0.0.1:{port}", 403),
        ):
            assert requests.get(uri, headers={"Host": name}, timeout=60).status_code == code, name
        for path in ("/ajax-api/3.0/mlflow/assistant/config", "/ajax-api/3.0/jobs/search", "/gateway/7/mlflow/invocations"):
            assert requests.post(f"{uri}{path}", json={}, timeout=60).status_code == 404
        assert requests.get(f"{uri}/ajax-api/2.0/mlflow/experiments/search?max_results=1", timeout=60).status_code == 200
    finally:
        process.terminate()
        ended(process)


def answers(uri: str) -> bool:
    try:
        return requests.get(uri, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
