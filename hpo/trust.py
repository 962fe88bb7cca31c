"""What a study asks for outside its own folder, and which of that this user vouches for. Runs and contacts nothing.

A journal may be a stranger's, and names code to import, servers to talk to, places to write to, secrets to read. None of it is done
for what stands in a journal alone: only for what this user launched a study with before, or trusted by `hpo trust`. That is kept in
the user's own state folder, where no study can bring it along.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpo import own_code
from hpo.home import HomeError
from hpo.places import Place, is_elsewhere
from hpo.references import OPENS
from hpo.results import StoredStudy
from hpo.spec import Spec
from hpo.tracking import absolute, public, read_state


class Untrusted(HomeError):
    """A study asks for what this user never vouched for: trust it, or leave it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One thing that a study asks for: code to run, an address of MLflow, a storage, a secret for its trainer, a cluster's job server.

    `what` is the file or address, empty where there is none on this machine; `said` says it as `run the code ...`.
    """

    kind: Literal["code", "mlflow", "storage", "secret", "jobs"]
    what: str
    said: str

    def __str__(self) -> str:
        return self.said


def demands(spec: Spec) -> list[Demand]:
    """All that a study of this spec asks for outside its folder."""
    found = []
    if own_code.is_code(spec.trainer.name):
        found.append(code(spec.trainer.name))
    if spec.tracking.uri:
        found.append(mlflow(spec.tracking.uri))
    if spec.checkpoints.storage:
        found.append(kept_in(spec.checkpoints.storage))
    for name, value in spec.trainer.settings.items():
        if isinstance(value, str) and OPENS in value:
            whose = f"{spec.trainer.name} as its {name}"
            found.append(Demand("secret", f"{value} to {whose}", f"give {value} to {whose}"))
    return found


def of_study(study: StoredStudy) -> list[Demand]:
    """All that a study asks for outside its folder."""
    return [*demands(study.spec), *of_record(study.folder)]


def of_record(study: Path) -> list[Demand]:
    """What the record of a study asks for, where it was moved by `hpo track --uri`."""
    state = read_state(study)
    return [mlflow(state.moved_to)] if state and state.moved_to else []


def of_environment() -> list[Demand]:
    """What the user's own environment asks for: a study recorded there is found there, though the variable is another one later."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return [mlflow(uri)] if uri else []


def code(trainer: str) -> Demand:
    """To run the trainer `module:function`."""
    found = str(own_code.location(trainer) or "")
    return Demand("code", found, f"run the code {trainer}" + (f" in {found}" if found else ", which is not to be found from here"))


def kept_in(storage: str) -> Demand:
    """To write, read and remove checkpoints there."""
    return Demand("storage", storage, f"keep checkpoints in {storage}")


def of_storage(root: Place) -> list[Demand]:
    """What a study asks for whose checkpoints are there: nothing for its own folder."""
    return [kept_in(str(root.parent))] if is_elsewhere(root) else []


def jobs(address: str) -> Demand:
    """To show the cluster's token to the job server there."""
    return Demand("jobs", address, f"ask the cluster at {address}")


def mlflow(uri: str) -> Demand:
    """To talk to MLflow there."""
    where = public(absolute(uri))
    return Demand("mlflow", where, f"talk to MLflow at {where}")


def doubted(found: Iterable[Demand]) -> list[Demand]:
    """Those that this user did not vouch for."""
    known = _vouched()
    return [demand for demand in found if not demand.what or _line(demand) not in known]


def require(found: Iterable[Demand], study: str) -> None:
    """Raise Untrusted, saying what is asked and how it is trusted, unless this user vouched for all of it."""
    if wanting := doubted(found):
        asked = "; ".join(map(str, wanting))
        raise Untrusted(f"study {study} wants to {asked}. You launched no study that did: if you trust it, say so by `hpo trust {study}`")


def vouch(found: Iterable[Demand]) -> None:
    """Remember that this user wants all of it done. Where that cannot be kept, this process alone knows it."""
    lines = dict.fromkeys(_line(demand) for demand in doubted(found) if demand.what)
    if not lines:
        return
    _said.update(lines)
    with suppress(OSError, RuntimeError):
        _file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(_file(), flags, 0o600), "a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))


_said: set[str] = set()  # in this process, whose state folder may be read-only


def _line(demand: Demand) -> str:
    return json.dumps({demand.kind: demand.what})


def _file() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path("~/.local/state").expanduser()) / "hpo" / "vouched.jsonl"


def _vouched() -> AbstractSet[str]:
    """The lines of the list and what was said here; a list that others can write counts for nothing."""
    try:
        return _said.union(_lines())
    except (OSError, ValueError, RuntimeError):  # the last: nobody knows where `~` is
        return frozenset(_said)


def _lines() -> Iterator[str]:
    with _file().open(encoding="utf-8") as file:
        about = os.fstat(file.fileno())
        if about.st_uid == os.geteuid() and not about.st_mode & 0o022:
            yield from (line.rstrip("\n") for line in file)
