"""From a spec to a finished study: checks, a name, the first line of its journal, then the run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.capacity import place
from hpo.declarations import TrainerDeclaration
from hpo.events import Created
from hpo.ground import check_storage, ground
from hpo.home import HomeError, NameTaken, begin, is_running, study_home
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalError
from hpo.lease import LeaseHeld, holder
from hpo.preparing import check_surroundings, completed, defaults_of, git_commit, stored, trainer_of, versions
from hpo.problem import SpecError
from hpo.results import StoredStudy
from hpo.running import run
from hpo.session import Session
from hpo.site import Site, owner, site
from hpo.spec import Spec
from hpo.spec_difference import differences
from hpo.storage import of_new_study
from hpo.trust import demands, of_environment, vouch

if TYPE_CHECKING:
    from rich.console import Console


def launch_spec(
    spec: Spec,
    *,
    home: Path | None = None,
    exactly: bool = False,
    local: bool = False,
    where: Site | None = None,
    console: Console | None = None,
) -> StoredStudy:
    """Run the study that `spec` describes to its end and return it, MLflow told.

    Without `exactly`, a name that is taken gets a number. `local` runs the trials one by one in this process,
    otherwise `where` says on which cluster, if on any.
    `console` shows the progress. After Ctrl-C or SIGTERM the study is returned too, its state `interrupted`.

    Raises SpecError, CapacityError, DataError or HomeError before anything is started, JournalError if the disk
    fails; what was journaled until then stays.
    """
    home = home or study_home()
    if exactly and is_running(home / spec.name):  # said at once: a trainer may take seconds to import
        raise _taken(home / spec.name, spec)
    declaration = trainer_of(spec)
    where = where or site()
    on = ground(where, local=local)
    spec = _recorded(spec, declaration, where if on.address else Site())
    placement = place(spec.resources, on.there, 1 if local else spec.budget.trials)
    check_surroundings(spec, workers_here=on.address is None)
    check_storage(spec, on)
    vouch([*demands(spec), *of_environment()])
    created = Created(spec.name, spec.to_dict(), versions(), git_commit(spec.trainer.name), owner=owner())
    with _begun(spec, home, exactly=exactly, console=console) as journal:
        folder = journal.path.parent
        created = replace(created, study=folder.name, storage=of_new_study(spec.checkpoints.storage, folder.name))
        journal.append([created])
        session = Session(spec, declaration.entry, folder, journal, defaults_of(spec, declaration), created=created)
        signal = run(session, journal, placement, on, local=local, console=console)
    return StoredStudy.open(folder, signal)


def launch_or_resume(
    spec: Spec, *, home: Path | None = None, local: bool = False, where: Site | None = None, console: Console | None = None
) -> StoredStudy:
    """As `launch_spec` under exactly the spec's name; where that study exists, go on with it. HomeError if its spec is another.

    So the same command may be run again whenever its process died, by whatever watches over it.
    """
    from hpo.resuming import resume_study

    home = home or study_home()
    folder = home / spec.name
    if not (folder / FILE_NAME).exists() or not (folder / FILE_NAME).stat().st_size:
        return launch_spec(spec, home=home, exactly=True, local=local, where=where, console=console)
    there = StoredStudy.open(folder).spec
    again = stored(completed(spec, trainer_of(spec)), there.checkpoints.storage)  # the operator's default was that day's
    if changed := differences(there.to_dict(), again.to_dict()):
        way = f"go on with it as it was by `hpo resume {spec.name}`, or choose another name with --name"
        raise HomeError("\n".join([f"study {spec.name} exists already, of another spec; {way}", *(f"  {line}" for line in changed)]))
    vouch(demands(spec))
    return resume_study(folder, local=local, where=where, console=console)


def _recorded(spec: Spec, declaration: TrainerDeclaration, where: Site) -> Spec:
    """The spec as the journal has it: whole, with the storage of the cluster's operator where it names none and a cluster is joined."""
    return stored(completed(spec, declaration), where.cluster.storage)


def _begun(spec: Spec, home: Path, *, exactly: bool, console: Console | None) -> Journal:
    try:
        journal = begin(home, spec.name, exactly=exactly)
    except NameTaken as taken:
        raise _taken(taken.folder, spec) from None
    folder = journal.path.parent
    if console is not None and folder.name != spec.name:
        console.print(f"the name {spec.name} is taken: this study is [bold]{folder.name}[/bold]", highlight=False)
        with suppress(JournalError, SpecError):  # what cannot be read cannot be compared, and the new study is none the worse
            for line in _differing(StoredStudy.open(home / spec.name), spec):
                console.print(f"  {line}", highlight=False, markup=False)
        console.print(f"  to go on with the other one: hpo resume {spec.name}", highlight=False)
    return journal


def _taken(folder: Path, spec: Spec) -> HomeError | JournalError:
    """What there is under the name already, what differs from `spec`, and both ways on."""
    name, another = folder.name, "choose another name with --name (without --name you get a free one)"
    if is_running(folder):
        who = holder(folder / FILE_NAME) or "another process"
        return LeaseHeld(f"study {name} is running: {who}; stop it with `hpo stop {name}`, or {another}")
    try:
        study = StoredStudy.open(folder)
        lines = _differing(study, spec)
    except (JournalError, SpecError) as error:
        return HomeError(f"{folder} exists already, and cannot be read: {error}")
    ways = f"go on with it by `hpo resume {name}`, or {another}"
    return HomeError("\n".join([f"study {name} exists already: it {study.standing}, with {len(study.trials)} trials; {ways}", *lines]))


def _differing(study: StoredStudy, spec: Spec) -> list[str]:
    changed = differences(study.spec.to_dict(), spec.to_dict())
    return ["its spec differs:", *(f"  {line}" for line in changed)] if changed else ["its spec is the same"]
