"""From a spec to a finished study: checks, the journal, the engine, MLflow's shipper, the end. The one place that starts things."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpo import data
from hpo.capacity import Placement, place, this_machine
from hpo.declarations import declaration_from_signature, find_declared
from hpo.errors import EngineError
from hpo.events import Created
from hpo.home import claim, study_home
from hpo.interrupt import Interrupts
from hpo.journal import FILE_NAME, Journal, JournalError
from hpo.problem import Problem, SpecError
from hpo.results import StoredStudy
from hpo.session import Session
from hpo.spec import Spec, TrainerChoice
from hpo.tracking import public, start_shipper, uri_mistake
from hpo.trainer import TrainerError

if TYPE_CHECKING:
    from rich.console import Console

    from hpo.arguments import TrainerDeclaration


def launch_spec(
    spec: Spec,
    *,
    home: Path | None = None,
    exactly: bool = False,
    local: bool = False,
    console: Console | None = None,
) -> StoredStudy:
    """Run the study that `spec` describes to its end and return it, MLflow told.

    Without `exactly`, a name that is taken gets a number. `local` runs the trials one by one in this process.
    `console` shows the progress. After Ctrl-C the study is returned too, its state `interrupted`.

    Raises SpecError, CapacityError, DataError or HomeError before anything is started, JournalError if the disk
    fails; what was journaled until then stays.
    """
    declaration = _declaration(spec)
    spec = _completed(spec, declaration)
    placement = place(spec.resources, this_machine(), 1 if local else spec.budget.trials)
    _check_data(spec)
    _check_tracking(spec)
    folder = claim(home or study_home(), spec.name, exactly=exactly)
    if console is not None and folder.name != spec.name:
        console.print(f"the name {spec.name} is taken: this study is [bold]{folder.name}[/bold]", highlight=False)
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([Created(folder.name, spec.to_dict(), versions(), git_commit())])
        shipper = start_shipper(folder, spec.tracking.patience_s)
        try:
            session = Session(spec, declaration.entry, folder, journal)
            _search(session, placement, local=local, console=console)
        finally:
            journal.close()
            if shipper.stdin is not None:
                shipper.stdin.close()
            _await(shipper, console)
    return StoredStudy.open(folder)


def _search(session: Session, placement: Placement, *, local: bool, console: Console | None) -> None:
    from hpo.progress import quiet, watched

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(placement.cpus))))  # torch's threads: as many as a trial's CPUs
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        session.shield = interrupts.shielded
        try:
            if local:
                from hpo.engine import local as here

                reason = here.run(session, "cuda:0" if placement.gpus else "cpu")
            else:
                terminal = stack.enter_context(quiet(session.folder / "ray.log"))
                from hpo.engine import ray_tune

                if console is not None:
                    stack.callback(setattr, console, "file", console.file)
                    console.file = terminal
                    stack.enter_context(watched(session, console))
                with ray_tune.cluster(this_machine()) as scratch:
                    interrupts.install()
                    reason = ray_tune.run(session, placement, scratch)
                    if reason == "budget":  # nothing runs any more: MLflow's last part and Ray's end go side by side
                        session.end(reason)
        except (KeyboardInterrupt, SystemExit):  # the latter is what Ray makes of SIGTERM while it starts
            reason = "interrupted"
        except JournalError:
            raise
        except Exception as error:  # the border to Ray, which may fail in any way: the study ends with that reason
            session.end("error")
            traceback.print_exc()  # into ray.log, unless this is --local
            log = "" if local else f" (see {session.folder / 'ray.log'})"
            raise EngineError(f"the search broke off: {type(error).__name__}: {error}{log}") from error
        if session.study.ended is None:
            with interrupts.shielded():
                session.end(reason)


def _declaration(spec: Spec) -> TrainerDeclaration:
    """The trainer's declaration; what --trainer names is imported and checked here."""
    if ":" not in spec.trainer.name:
        declared = find_declared(spec.trainer.name)
        assert declared is not None  # checked with the spec
        return declared
    from hpo.arguments import check_space
    from hpo.engine.worker import resolve

    place = f"--trainer {spec.trainer.name}"
    sys.path.append(str(Path.cwd()))
    try:
        declaration = declaration_from_signature(resolve(spec.trainer.name))
    except TrainerError as error:
        raise SpecError([Problem(place, 0, 0, "", str(error))]) from error
    problems = check_space(spec, declaration)
    if problems:
        raise SpecError([Problem(place, 0, 0, path, message) for path, message in problems])
    return declaration


def _completed(spec: Spec, declaration: TrainerDeclaration) -> Spec:
    """The spec with every argument that is neither fixed nor searched fixed at its declared default, for the record too."""
    defaults = {name: argument.default for name, argument in declaration.arguments.items() if argument.default is not None}
    settings = {name: value for name, value in defaults.items() if name not in spec.space} | dict(spec.trainer.settings)
    return replace(spec, trainer=TrainerChoice(spec.trainer.name, settings))


def _check_data(spec: Spec) -> None:
    """A built-in trainer's dataset is on this machine; DataError, which names all ways to get it, if not."""
    name = spec.trainer.settings.get("dataset")
    if isinstance(name, str) and name in data.DATASETS:
        data.locate(name)


def _check_tracking(spec: Spec) -> None:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    mistake = uri_mistake(uri) if uri and spec.tracking.uri is None else ""
    if mistake:
        raise SpecError([Problem("MLFLOW_TRACKING_URI", 0, 0, "", f"{public(uri)} {mistake}")])


def _await(shipper: subprocess.Popen[bytes], console: Console | None) -> None:
    """Wait until MLflow has everything, or the shipper gives a server up; Ctrl-C leaves it to finish by itself."""
    showing = console.status("recording in MLflow") if console is not None and console.is_terminal else nullcontext()
    with suppress(KeyboardInterrupt), showing:
        shipper.wait()


def versions() -> Mapping[str, str]:
    """What this study runs on."""
    found = {"python": platform.python_version()}
    for package in ("hpo", "torch", "ray", "optuna", "mlflow", "numpy", "scipy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the current folder, with `-dirty` if there are uncommitted changes; None outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
