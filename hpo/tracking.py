"""Where a study's MLflow record is, what became of it, and how its shipper and the UI are started. Imports no mlflow.

The record is a projection of the journal, made by a process of its own (`hpo.shipper`): training never waits for it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hpo import addresses
from hpo.durable import replace_file
from hpo.redaction import hidden
from hpo.references import OPENS, SecretError, is_reference, masked, revealed_address, unmasked

STATE_FILE = "tracking.json"
LOG_FILE = "tracking.log"
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
APPLICATION = "hpo"  # MLflow's own, as hpo/mlflow_app.py leaves it
PATIENCE_S = 60.0
GAVE_UP = 75  # the shipper's exit code when MLflow does not have everything and it will not try on
_ONE_REFERENCE = re.compile(r"\x00[0-9]+\x00")  # as `masked` leaves it
NO_ANSWER = (
    r"\[Errno -?[0-9]+\] [^\"')]+|Read timed out|timeout exception|closed connection without response|Connection reset by peer"
    r"|too many 50[234] error responses"  # its database is away, or what is behind a proxy
)
SHUT = {
    "401": "does not know this user or password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "403": "does not allow this user that: ask whose experiment or model it is for EDIT, or set tracking.experiment to another name",
}
SAID_BY_A_DATABASE = (r"FATAL: +([^\n]+)", r"connection to server [^\n]* failed: ([^\n]+)", r"\(psycopg2?\.[\w.]+\) ([^\n]+)")


@dataclass(frozen=True, slots=True)
class TrackingState:
    """What the shipper last said: a view, made anew from the journal and MLflow whenever a shipper runs.

    `shipped` is the number of the last journal line that MLflow has; `done` says that nothing is left to do. The
    champion is a version of a registered model, loaded by `champion_uri`; `champion_note` says why there is none, or
    why it is not more than the checkpoint's files. `moved_to` is where `hpo track --uri` moved the record; all of it goes
    there since.
    """

    uri: str
    experiment_id: str = ""
    parent_run_id: str = ""
    shipped: int = 0
    done: bool = False
    champion_name: str = ""
    champion_version: str = ""
    champion_uri: str = ""
    champion_note: str = ""
    error: str = ""
    moved_to: str = ""


def read_state(folder: Path) -> TrackingState | None:
    """The state of the study in `folder`; None where no shipper has said anything that this version reads."""
    try:
        state = TrackingState(**json.loads((folder / STATE_FILE).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return state if _is_sound(state) else None


def _is_sound(state: TrackingState) -> bool:
    """Whether all is of its kind, and what says where something is could be such a place: the file may be a stranger's."""
    kinds = {"uri": str} | {field.name: type(field.default) for field in fields(state) if field.name != "uri"}
    if any(type(getattr(state, name)) is not kind for name, kind in kinds.items()):
        return False
    places = [uri.replace("***@", "secret:secret@").replace("***", "secret") for uri in (state.uri, state.moved_to) if uri]
    is_model = re.fullmatch(r"(?:models:/[^/]+/[0-9]+)?", state.champion_uri) is not None
    return is_model and not any(map(uri_mistake, places))


def write_state(folder: Path, state: TrackingState) -> None:
    """Replace the state in one step, and have it on the disk: where a record was moved to is written nowhere else."""
    replace_file(folder / STATE_FILE, (json.dumps(asdict(state), indent=1) + "\n").encode())


def tracking_uri(home: Path, uri: str | None, moved_to: str = "") -> str:
    """Where the record was moved to, else the spec's own URI, else MLFLOW_TRACKING_URI, else the database in the study home."""
    return moved_to or uri or os.environ.get("MLFLOW_TRACKING_URI") or database_uri(home)


def public(uri: str) -> str:
    """The URI without the password that it may hold, to be shown and kept; a reference to one stays."""
    uri, references = masked(uri)
    before, at, rest = uri.rpartition("@")
    scheme, slashes, who = before.partition("://")
    _, colon, password = who.partition(":")
    shown = f"{scheme}://***@{rest}" if at and slashes and colon and not _ONE_REFERENCE.fullmatch(password) else uri
    shown = re.sub(rf"(?i)([?&][^=&]*password=)(?!{_ONE_REFERENCE.pattern}(?:&|$))[^&]*", r"\1***", shown)
    return unmasked(shown, references)


def without_secrets(text: str, uri: str) -> str:
    """`text` without what this process hides, and with the user and password of `uri` blotted out, wherever it quotes them."""
    text, found = hidden(text), urlsplit(uri)
    for secret in (found.netloc.rpartition("@")[0], found.password, unquote(found.password or "")):
        text = text.replace(secret, "***") if secret and OPENS not in secret else text
    return text


def address(uri: str) -> str:
    """Where a store is, secrets in the place of their references, as it is understood in any working directory.

    SecretError where one cannot be had, or what they make is no address of MLflow.
    """
    found = revealed_address(uri)
    if OPENS in uri and (mistake := uri_mistake(found)):
        whole = f"{uri} holds no address of MLflow, which is reached by {', '.join(addresses.SCHEMES)}"
        raise SecretError(whole if is_reference(uri) else f"{public(uri)}, with what its references hold, {mistake}")
    return absolute(found)


def in_short(text: str, uri: str) -> str:
    """What MLflow's client said of the store at `uri`, in a line, without passwords, and without layers where it was not let in."""
    text = without_secrets(text, uri)
    cause = re.search(NO_ANSWER, text)
    if cause and "API request" in text:
        return f"{public(uri)} gives no answer: {cause[0]}"
    if shut := re.search(r"API request .* failed with error code (401|403)", text):
        return f"{public(uri)} {SHUT[shut[1]]}"
    for words in SAID_BY_A_DATABASE:
        if said := re.search(words, text):
            return f"{public(uri)}: {said[1]}"
    return text.partition("\n")[0][:500]


def uri_mistake(uri: str) -> str:
    """Why MLflow could never be reached at `uri`, as far as that can be said before its secrets are known; empty if it may be."""
    if is_reference(uri):
        return ""
    return addresses.mistake(unmasked(masked(uri)[0], ["secret"] * uri.count(OPENS)))


def database_uri(home: Path) -> str:
    """The SQLite database that the studies of a home share."""
    return f"sqlite:///{home.resolve() / DATABASE}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite database; None for anything else."""
    kind, _, path = uri.partition("://")
    name = path.removeprefix("/").partition("?")[0]
    return Path(name).resolve() if kind.partition("+")[0] == "sqlite" and name not in ("", ":memory:") else None


def absolute(uri: str) -> str:
    """The URI as it is understood in any working directory."""
    file = sqlite_file(uri)
    return f"sqlite:///{file}" if file else uri


def holds_password(uri: str) -> bool:
    """Whether the URI is not to be kept."""
    return public(uri) != uri


def is_remote(uri: str) -> bool:
    """Whether somebody else may still do what was given up waiting for: any server, of MLflow or of a database."""
    return urlsplit(uri).scheme.partition("+")[0] != "sqlite"


def environment() -> dict[str, str]:
    """What every MLflow process of ours runs with.

    No retries: a lost answer and a repeated `create_run` make two runs; the shipper looks before it repeats. A request
    that got no answer in 10 s is given up, unless the variable says otherwise.
    """
    return {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONSAFEPATH": "1",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
    }


@contextmanager
def surroundings(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that hold inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


def start_shipper(folder: Path, patience_s: float = PATIENCE_S) -> subprocess.Popen[bytes]:
    """Start the process that brings the study in `folder` into MLflow; its words go to `tracking.log` there.

    It ends by itself: when the journal's Ended line is shipped (with the champion, unless it was an interruption), when its
    stdin closes (its parent died, or has nothing more to say: keep the Popen alive until then) and what there is was
    shipped, or `patience_s` after that without a success. Exit code 0 says that MLflow has everything, GAVE_UP that it has
    not; anything else is its own death. Ctrl-C does not reach it. `hpo.shipping` looks after it.
    """
    with (folder / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "hpo.shipper", str(folder), "--patience", str(patience_s)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=os.environ | environment(),
            start_new_session=True,
        )


def make_database(home: Path) -> None:
    """Have the study home's database made, whole or not at all, if there is none; in a process of its own, for it takes MLflow."""
    uri = database_uri(home)
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        home.mkdir(parents=True, exist_ok=True)
        code = "import sys; from hpo.opening import open_store; open_store(sys.argv[1], 'Default')"
        subprocess.run([sys.executable, "-P", "-c", code, uri], env=os.environ | environment(), check=False, capture_output=True)


def ui_command(home: Path, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves the MLflow UI of a study home to who calls it by its own name, whichever page he comes from.

    It has one worker (several make every request 40 ms slower), and nothing of MLflow's that runs programs.
    """
    settings = [f"{name}={value}" for name, value in environment().items()]
    places = ["--backend-store-uri", database_uri(home), "--artifacts-destination", str(home.resolve() / ARTIFACTS)]
    names = ",".join(f"{name}:{port}" for name in (f"[{host}]" if ":" in host else host, "localhost"))
    doors = ["--host", host, "--port", str(port), "--allowed-hosts", names, "--x-frame-options", "DENY"]
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--app-name", APPLICATION, *places, *doors, "--workers", "1"]
    return ["/usr/bin/env", *settings, *command]
