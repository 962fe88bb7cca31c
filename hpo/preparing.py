"""What must be right before a study is run, new or again: its trainer, its data, its tracking server's address."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo import data, own_code, storage
from hpo.databases import missing_driver
from hpo.declarations import TrainerDeclaration, builtins, declaration_from_signature, find_declared, plugin_mistakes
from hpo.problem import Problem, SpecError, dotted, quoted
from hpo.redaction import hidden
from hpo.references import SecretError, read, references
from hpo.space import Params
from hpo.spec import Spec, TrainerChoice
from hpo.start_points import resolved, start_mistakes, sweep_centre
from hpo.tracking import address, public, uri_mistake
from hpo.trainer import TrainerError


def trainer_of(spec: Spec) -> TrainerDeclaration:
    """The trainer's declaration; what --trainer names is imported and checked here. SpecError where it does not fit.

    Whose spec it is has been asked before (`hpo.trust`): a journal may name anything.
    """
    if not own_code.is_code(spec.trainer.name):
        declared = find_declared(spec.trainer.name)
        if declared is None:  # a new spec names a known one; a study may come from another machine
            message = f"no trainer is called {spec.trainer.name!r} here; install the package that brings it"
            raise SpecError([Problem("spec", 0, 0, "trainer.name", message)])
        if found := list(plugin_mistakes(spec.trainer.settings, spec.space, declared)):
            raise SpecError([Problem("spec", 0, 0, dotted(path), message) for path, message in found])
        return declared
    from hpo.arguments import check_space
    from hpo.engine.worker import resolve

    place = f"--trainer {spec.trainer.name}"
    if study := own_code.study_around(own_code.location(spec.trainer.name)):
        message = f"its module lies in {study}, the folder of a study, of which nothing is ever run; move it out of there"
        raise SpecError([Problem(place, 0, 0, "", message)])
    own_code.look_here()
    try:
        trainer = resolve(spec.trainer.name)
        declaration = _limited(declaration_from_signature(trainer), getattr(trainer, "training_arguments", ()))
    except TrainerError as error:
        raise SpecError([Problem(place, 0, 0, "", str(error))]) from error
    problems = check_space(spec, declaration)
    if problems:
        raise SpecError([Problem(place, 0, 0, path, message) for path, message in problems])
    return declaration


def _limited(declaration: TrainerDeclaration, shared: Collection[str]) -> TrainerDeclaration:
    """The declaration, its `shared` arguments those of the built-in trainers: with legal ranges, which a signature cannot say."""
    ours = {name: argument for trainer in builtins().values() for name, argument in trainer.arguments.items() if name in shared}
    return replace(declaration, hyperparameters={**declaration.hyperparameters, **ours})


def completed(spec: Spec, declaration: TrainerDeclaration) -> Spec:
    """The spec with every argument that is neither fixed nor searched fixed at its declared default, for the record too.

    A user's own files get absolute paths: the study may go on in another folder, and workers have theirs.
    """
    defaults = {name: argument.default for name, argument in declaration.arguments.items() if argument.default is not None}
    settings = {name: value for name, value in defaults.items() if name not in spec.space} | dict(spec.trainer.settings)
    if settings.get("dataset") == "file":
        named = ("path", "target") if str(settings.get("path")).endswith(".npy") else ("path",)
        settings |= {name: str(_absolute(Path(str(settings[name])))) for name in named if settings.get(name)}
    return replace(spec, trainer=TrainerChoice(spec.trainer.name, settings), start=_started(spec, declaration))


def stored(spec: Spec, default: str | None) -> Spec:
    """The spec with the storage that its checkpoints are kept in, for the record too: its own, or else that `default` of the machines."""
    if spec.checkpoints.storage is not None or default is None:
        return spec
    try:
        return replace(spec, checkpoints=replace(spec.checkpoints, storage=storage.checked(default)))
    except ValueError as error:
        raise SpecError([Problem("the default storage", 0, 0, "checkpoints.storage", str(error))]) from error


def _started(spec: Spec, declaration: TrainerDeclaration) -> tuple[Params, ...]:
    """The first points, whole: those of a spec whose trainer was not known when it was read may lack the trainer's defaults."""
    if spec.sampler.name == "sweep":
        return tuple({**sweep_centre(spec.space, declaration), **point} for point in spec.start)
    if found := list(start_mistakes(spec.start, spec.space, declaration)):
        raise SpecError([Problem("spec", 0, 0, dotted(path), message) for path, message in found])
    return resolved(spec.start, spec.space, declaration)


def defaults_of(spec: Spec, declaration: TrainerDeclaration) -> Params | None:
    """The trainer's own values of what is searched, with which the finals compare the winner; None where one has no default."""
    arguments = declaration.arguments
    found = {name: arguments[name].default for name in spec.space if name in arguments}
    values = {name: value for name, value in found.items() if value is not None}
    return {name: values[name] for name in spec.space} if values.keys() == spec.space.keys() else None


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError:  # `~name` of nobody: that it is not there, is said where it is looked for
        return path.absolute()


def check_surroundings(spec: Spec, *, workers_here: bool = True) -> None:
    """A built-in trainer's dataset is here, MLflow's address is one, secrets and storage can be reached; DataError or SpecError if not.

    Those of the trainer are asked for where `workers_here` says that this machine is the workers', too.
    """
    _check_dataset(spec.trainer.settings)
    _check_secrets(spec, workers_here=workers_here)
    if why := storage.unreachable(spec.checkpoints.storage):
        raise SpecError([Problem("spec", 0, 0, "checkpoints.storage", why)])
    check_address(spec)
    if missing := missing_driver(spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")):
        raise SpecError([Problem("spec", 0, 0, "tracking.uri", missing)])


def check_address(spec: Spec) -> None:
    """SpecError where MLFLOW_TRACKING_URI is asked for MLflow's address, and holds none."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    mistake = uri_mistake(uri) if uri and spec.tracking.uri is None else ""
    if mistake:
        raise SpecError([Problem("MLFLOW_TRACKING_URI", 0, 0, "", f"{quoted(public(uri))} {mistake}")])


def _check_secrets(spec: Spec, *, workers_here: bool) -> None:
    """Each secret can be had, and is hidden by this process from now on; what only workers can have is remembered as unknown."""
    problems = []
    hidden.add_environment(os.environ)
    for name, value in spec.trainer.settings.items():
        for reference in references(value) if isinstance(value, str) else ():
            try:
                read(reference)
            except SecretError as error:
                hidden.miss(str(reference))
                problems += [Problem("spec", 0, 0, f"trainer.settings.{name}", str(error))] if workers_here else []
    try:
        address(spec.tracking.uri or "")
    except SecretError as error:
        problems.append(Problem("spec", 0, 0, "tracking.uri", str(error)))
    if problems:
        raise SpecError(problems)


def have_dataset(arguments: Mapping[str, Any]) -> None:
    """A built-in trainer's dataset is on this machine, fetched by the first worker here if it was not; DataError if that fails."""
    name = arguments.get("dataset")
    if isinstance(name, str) and name in data.DATASETS and data.find(name) is None:
        data.get(name)  # locked by name: the others wait, and find it


def _check_dataset(settings: Mapping[str, Any]) -> None:
    """What can be said of the data before a trial starts: it is there, and what is asked of it exists; a user's file is read whole."""
    name = settings.get("dataset")
    if name == "file" and "split_seed" in settings:  # as the built-in trainers mean it
        from trainers import tables
        from trainers.recipe import Source, taken

        examples = tables.decode(taken(Source, settings))
        if examples.y.dtype.kind == "f" and settings.get("loss") == "cross_entropy":
            message = f"{settings['target']} holds values, not classes, and cross_entropy learns classes; set squared_error"
            raise SpecError([Problem("spec", 0, 0, "trainer.settings.loss", message)])
    elif isinstance(name, str) and name in data.DATASETS:
        if name == "proben1" and "problem" in settings:
            from trainers import proben1

            try:
                proben1.refuse_unknown(str(settings["problem"]))
            except data.DataError as error:
                raise SpecError([Problem("spec", 0, 0, "trainer.settings.problem", str(error))]) from error
        data.locate(name)


def versions() -> Mapping[str, str]:
    """What this study runs on."""
    found = {"python": platform.python_version()}
    for package in ("hpo", "torch", "ray", "optuna", "mlflow", "numpy", "scipy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit(trainer: str) -> str | None:
    """The commit of the current folder; None outside a checkout. With `-dirty` if there are uncommitted changes in code of one's own.

    Only there: to look for changes, git runs what the folder's own settings name (a monitor, filters), and it may be a stranger's.
    """
    dirty = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        command = dirty if own_code.is_code(trainer) else ["git", "rev-parse", "--verify", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
