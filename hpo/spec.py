"""The spec of a study: a YAML file in, a checked `Spec` out, every mistake at once. The only place that sees raw config."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from hpo.arguments import name_mistakes, value_mistakes
from hpo.declarations import DEFAULT_MAX_EPOCHS, TrainerDeclaration, contradictions
from hpo.document import Document
from hpo.durations import span
from hpo.metric_checks import directed, metric_mistakes, stopper_mistakes
from hpo.problem import Path, Place, Problem, SpecError, shown
from hpo.references import ADDRESS, WAYS, reference_mistakes
from hpo.schema import AtLeastOne, NotNegative, Reader, Scalar, key_of, keys_of
from hpo.sections import (
    PRUNERS,
    STOPPERS,
    Asha,
    Budget,
    Checkpoints,
    Finals,
    Limits,
    NoPruner,
    Objective,
    Resources,
    SamplerChoice,
    StudyName,
    Tracking,
    TrainerChoice,
    meant,
    suited,
    suited_asha,
)
from hpo.space import Categorical, Float, Int, Parameter, Params, Value
from hpo.spec_checks import grid_mistakes, parameter_mistakes, pruner_mistakes, sampler_mistakes
from hpo.spec_trainer import declaration_of, trainer_name
from hpo.start_points import resolved, start_mistakes, sweep_centre
from hpo.stopping import NoStopper, Patience, Stopper
from hpo.tracking import holds_password
from hpo.yaml_source import override, parse_document, read_document

__all__ = [
    "Asha", "Budget", "Checkpoints", "Finals", "Limits", "NoPruner", "NoStopper", "Objective", "Patience", "Problem", "Resources",
    "SamplerChoice", "Spec", "SpecError", "Tracking", "TrainerChoice", "load_spec", "parse_spec", "spec_from_dict",
]  # fmt: skip

PLAIN: dict[str, Any] = {
    "name": StudyName,
    "objective": Objective,
    "sampler": SamplerChoice,
    "budget": Budget,
    "resources": Resources,
    "seed": NotNegative,
    "tracking": Tracking,
    "checkpoints": Checkpoints,
    "limits": Limits,
}
NO_FINALS = "none"
CHOSEN: dict[str, Mapping[str, Any]] = {"pruner": PRUNERS, "stopper": STOPPERS}
PARAMETERS: dict[str, type[Parameter]] = {"float": Float, "int": Int, "categorical": Categorical}
SECONDS = (("budget", "time_s"), ("checkpoints", "every_s"), ("tracking", "patience_s"), ("limits", "trial_timeout_s"))
REQUIRED = ("name", "trainer", "objective", "space", "budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything that a study is launched from."""

    name: str
    trainer: TrainerChoice
    objective: Objective
    space: dict[str, Parameter]
    start: tuple[Params, ...] = ()
    sampler: SamplerChoice
    pruner: Asha | NoPruner
    stopper: Stopper = field(default_factory=NoStopper)
    budget: Budget
    resources: Resources = field(default_factory=Resources)
    seed: int = 0
    tracking: Tracking = field(default_factory=Tracking)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    limits: Limits = field(default_factory=Limits)
    finals: Finals | None = field(default_factory=Finals)

    @property
    def max_epochs(self) -> int:
        """After how many epochs a trial is complete."""
        return int(self.trainer.settings["max_epochs"])

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON-ready data in the file's own shape, defaults written out; `spec_from_dict` reads it back."""
        plain = dataclasses.asdict(self)
        plain["objective"]["direction"] = self.objective.direction.value
        plain["trainer"]["settings"] = dict(self.trainer.settings)
        if isinstance(self.stopper, Patience) and self.stopper.direction:
            plain["stopper"]["direction"] = self.stopper.direction.value
        for section, key in SECONDS:
            seconds = plain[section].pop(key)
            plain[section][key_of(key)] = None if seconds is None else span(seconds)
        plain["finals"] = plain["finals"] or NO_FINALS
        plain["start"] = [dict(point) for point in self.start]
        for name, parameter in self.space.items():
            fields = {"type": parameter.type, **dataclasses.asdict(parameter)}
            listed = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
            plain["space"][name] = {key: value for key, value in listed.items() if value is not None and value is not False}
        return plain


def load_spec(
    path: str | FilePath,
    *,
    overrides: Sequence[str] = (),
    trainer_override: str | None = None,
    name: str | None = None,
    trials: int | None = None,
    time: str | None = None,
    epochs: int | None = None,
) -> Spec:
    """The checked spec of a file; `overrides` are `a.b=c` texts, the others the values of the options of those names.

    `trainer_override` is a `pkg.mod:function`; what it takes is then checked at launch, by `check_space`.
    Raises SpecError with every mistake of the file and the options.
    """
    document = read_document(path)
    for assignment in overrides:
        override(document, assignment)
    options: tuple[tuple[str, Path, Any], ...] = (
        ("--trainer", ("trainer", "name"), trainer_override),
        ("--name", ("name",), name),
        ("--trials", ("budget", "trials"), trials),
        ("--time", ("budget", "time"), time),
        ("--epochs", ("budget", "epochs"), epochs),
    )
    for option, where, value in options:
        if value is not None:
            document.put(where, value, Place.option(option, value))
    return _checked(document, code_allowed=trainer_override is not None)


def parse_spec(text: str | bytes, file: str) -> Spec:
    """The checked spec of a YAML text; `file` is the name that mistakes are placed in."""
    return _checked(parse_document(text, file), code_allowed=False)


def spec_from_dict(plain: Mapping[str, Any]) -> Spec:
    """The spec that `Spec.to_dict` wrote. Its trainer is not looked up: it may be a function, or not installed here.

    One of a version that knew no finals has none.
    """
    return _checked(Document("spec", {"finals": NO_FINALS} | copy.deepcopy(dict(plain))), code_allowed=True, recorded=True)


def _checked(document: Document, *, code_allowed: bool, recorded: bool = False) -> Spec:
    """The spec of a document; one that is `recorded` may hold a password, which earlier versions took."""
    reader = Reader(document)
    if reader.mapping(()) is None:
        raise SpecError(document.problems)
    for path, message in reference_mistakes(document.data):
        document.reject(path, message)
    if not recorded and holds_password(str(document.at(ADDRESS) or "")):
        document.reject(ADDRESS, f"holds a password, which would be recorded with the spec; write {WAYS} in its place")
    trainer = trainer_name(reader, code_allowed=code_allowed)
    declaration = None if code_allowed or trainer is None else declaration_of(trainer, document)
    reader.homes = _homes(declaration)
    reader.known_keys((), [f.name for f in dataclasses.fields(Spec)], REQUIRED)
    present = document.data
    parts: dict[str, Any] = {name: reader.read(kind, (name,)) for name, kind in PLAIN.items() if name in present}
    if "finals" in present:
        parts["finals"] = _finals(reader)
    parts |= {name: reader.read_one_of(kinds, "name", (name,)) for name, kinds in CHOSEN.items() if name in present}
    if "start" in present and not isinstance(present["start"], list):
        reader.document.reject(("start",), f"found {shown(present['start'])}; a list of points is needed")
    settings, space = _settings(reader), _space(reader)
    _cross_check(reader, parts, settings, space, declaration)
    if document.problems or trainer is None:
        raise SpecError(document.problems)
    fixed = {name: value for name, value in settings.items() if value is not None}
    fixed.setdefault("max_epochs", declaration.max_epochs if declaration else DEFAULT_MAX_EPOCHS)
    tracking: Tracking = parts.get("tracking") or Tracking()
    name = parts["name"]
    named = dataclasses.replace(tracking, experiment=tracking.experiment or name, registered_model=tracking.registered_model or name)
    stopper = directed(parts.get("stopper") or NoStopper(), parts["objective"], declaration)
    readable, sampler = _readable(space), meant(parts.get("sampler") or SamplerChoice())
    pruner = suited(parts.get("pruner") or Asha(), sampler.name)
    start = resolved(document.data.get("start", []), readable, declaration)
    if sampler.name == "sweep" and not start:
        start = (sweep_centre(readable, declaration),)
    parts |= {"trainer": TrainerChoice(trainer, fixed), "space": readable, "stopper": stopper, "tracking": named}
    return Spec(**parts | {"sampler": sampler, "pruner": pruner, "start": start})


def _finals(reader: Reader) -> Finals | None:
    found = reader.document.data["finals"]
    if found == NO_FINALS:
        return None
    if isinstance(found, dict):
        finals: Finals | None = reader.read(Finals, ("finals",))
        return finals
    reader.document.reject(("finals",), f"found {shown(found)}; a mapping or `{NO_FINALS}` is needed")
    return None


def _homes(declaration: TrainerDeclaration | None) -> dict[str, str]:
    homes = dict.fromkeys(keys_of(*PARAMETERS.values()), "under space.<hyperparameter>")
    if declaration:
        homes |= dict.fromkeys(declaration.hyperparameters, "under space (to search it) or trainer.settings (to fix it)")
    homes |= dict.fromkeys(declaration.settings if declaration else ("max_epochs",), "under trainer.settings")
    sections = {"trainer": [TrainerChoice], **{name: list(kinds.values()) for name, kinds in CHOSEN.items()}}
    sections |= {name: [kind] for name, kind in {**PLAIN, "finals": Finals}.items() if dataclasses.is_dataclass(kind)}
    taken: set[str] = set()  # by a section: what two of them have belongs under either
    for section, kinds in sections.items():
        for key in keys_of(*kinds):
            homes[key] = f"{homes[key]} or under {section}" if key in taken else f"under {section}"
            taken.add(key)
    homes |= {f.name: "at the top level" for f in dataclasses.fields(Spec)}
    return {key: home for key, home in homes.items() if key not in ("name", "type")}


def _settings(reader: Reader) -> dict[str, Value | None]:
    path = ("trainer", "settings")
    if not isinstance(reader.document.at(("trainer",)), dict):
        return {}
    reader.known_keys(("trainer",), keys_of(TrainerChoice))
    if "settings" not in reader.document.data["trainer"]:
        return {}
    found = reader.mapping(path) or {}
    kinds = {"max_epochs": AtLeastOne}
    return {name: reader.read(kinds.get(name, Scalar), (*path, name)) for name in found}


def _space(reader: Reader) -> dict[str, Parameter | None]:
    if "space" not in reader.document.data:
        return {}
    found = reader.mapping(("space",))
    if found == {}:
        reader.document.complain(("space",), "found no hyperparameter; at least one must be searched")
    return {name: _parameter(reader, ("space", name)) for name in found or {}}


def _parameter(reader: Reader, path: Path) -> Parameter | None:
    parameter: Parameter | None = reader.read_one_of(PARAMETERS, "type", path)
    if parameter is not None:
        reader.report((path + below, message) for below, message in parameter_mistakes(parameter))
    return parameter


def _readable(space: Mapping[str, Parameter | None]) -> dict[str, Parameter]:
    return {name: parameter for name, parameter in space.items() if parameter}


def _cross_check(
    reader: Reader,
    parts: Mapping[str, Any],
    settings: Mapping[str, Value | None],
    space: Mapping[str, Parameter | None],
    declaration: TrainerDeclaration | None,
) -> None:
    sampler, pruner, objective, stopper = (parts.get(name) for name in ("sampler", "pruner", "objective", "stopper"))
    if declaration:
        reader.report(name_mistakes(settings, space, declaration), on_keys=True)
        reader.report(value_mistakes(settings, space, declaration))
        if reader.sound(("trainer",)) and reader.sound(("space",)):
            reader.report(contradictions(settings, space, declaration))
        metric = reader.document.at(("objective", "metric"))
        if isinstance(metric, str) and metric:
            reader.report(metric_mistakes(("objective", "metric"), metric, objective.direction if objective else None, declaration))
    if stopper:
        reader.report(stopper_mistakes(stopper, objective, declaration))
    if sampler and sampler.name == "grid":
        countable = reader.sound(("space",)) and None not in space.values()
        reader.report(grid_mistakes(_readable(space), parts.get("budget") if countable else None))
    max_epochs = settings.get("max_epochs", declaration.max_epochs if declaration else DEFAULT_MAX_EPOCHS)
    chosen = meant(sampler or SamplerChoice())
    if isinstance(pruner, Asha):
        reader.report(pruner_mistakes(suited_asha(pruner, chosen.name), chosen.name, max_epochs if isinstance(max_epochs, int) else None))
    start = reader.document.data.get("start", [])
    if isinstance(start, list) and None not in space.values():
        reader.report(sampler_mistakes(chosen, start))
        reader.report(start_mistakes(start, _readable(space), declaration))
