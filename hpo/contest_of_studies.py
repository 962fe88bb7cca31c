"""Studies that exist, grouped into arms and paired into rounds, so that they can be compared. Reads, never writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from hpo.contest import Contest, Run, contest, points_of, run_of, searched
from hpo.home import HomeError
from hpo.results import StoredStudy
from hpo.spec_difference import differences
from hpo.tournament import essence

SEARCHING = ("sampler", "pruner", "start", "budget", "finals", "checkpoints", "limits")  # how it is searched: what arms are there to vary


class NotComparable(HomeError):
    """These studies have no common ground: compare others."""


def of_studies(name: str, studies: Sequence[StoredStudy]) -> Contest:
    """The contest of studies that exist; those that differ only in seed, name and tracking are repeats of one arm.

    The first study's arm is the first. Raises NotComparable.
    """
    _check(studies)
    groups: list[list[StoredStudy]] = []
    for study in studies:
        mine = next((group for group in groups if essence(group[0].spec) == essence(study.spec)), None)
        groups.append([study]) if mine is None else mine.append(study)
    if len(groups) < 2:
        names = ", ".join(study.name for study in studies)
        raise NotComparable(f"{names}: one arm, not two: they differ in no more than seed, name and tracking; name another study, too")
    by_label, epochs = dict(zip(_labels(groups), groups, strict=True)), _common_epochs(studies)
    arms, remarks = _paired({label: [run_of(study, epochs) for study in group] for label, group in by_label.items()})
    first_label, (first, *_) = next(iter(by_label.items()))
    for label, group in list(by_label.items())[1:]:
        remarks += [f"{label} is trained otherwise than {first_label}: {line}" for line in _other_settings(first, group[0])]
    said = f"compared at {epochs:,} epochs, to which every search came that had points left"
    return contest(name, first.spec.objective, epochs, arms, [said, *remarks])


def _check(studies: Sequence[StoredStudy]) -> None:
    names = [study.name for study in studies]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise NotComparable(f"{', '.join(doubled)}: named twice; name each study once")
    first = studies[0].spec.objective
    for study in studies[1:]:
        found = study.spec.objective
        if found != first:
            both = f"{study.name} is after {found.metric} ({found.direction}), {names[0]} after {first.metric} ({first.direction})"
            raise NotComparable(f"{both}; only studies of one objective can be compared")


def _other_settings(first: StoredStudy, study: StoredStudy) -> list[str]:
    """How the task of `study` is another than that of `first`: trainer, space, stopper, resources."""
    there, here = ({key: value for key, value in essence(one.spec).items() if key not in SEARCHING} for one in (first, study))
    return differences(there, here)


def _common_epochs(studies: Sequence[StoredStudy]) -> int:
    """What the shortest search spent that had points left and trained anything; where there is none, what the longest spent."""
    spent = [(searched(study), _is_exhausted(study)) for study in studies]
    return min((epochs for epochs, exhausted in spent if epochs and not exhausted), default=max(epochs for epochs, _ in spent))


def _is_exhausted(study: StoredStudy) -> bool:
    points = points_of(study)
    return points is not None and len(study.study.trials) >= points


def _labels(groups: Sequence[Sequence[StoredStudy]]) -> list[str]:
    """What the names of a group begin with, less what all begin with; the first name where that is nothing, or another group's."""
    found = [_beginning([study.name for study in group]) for group in groups]
    labels = [text if text and found.count(text) == 1 else group[0].name for text, group in zip(found, groups, strict=True)]
    common = _same(labels)
    return [label[common.rfind("-") + 1 :] for label in labels]


def _beginning(names: Sequence[str]) -> str:
    """`fashion-tpe` of fashion-tpe-r1 and fashion-tpe-r2; a single name as it is."""
    if len(names) == 1:
        return names[0]
    return _same(names).removesuffix("-r").rstrip("-._")


def _same(names: Sequence[str]) -> str:
    return "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))


def _paired(arms: Mapping[str, Sequence[Run]]) -> tuple[Mapping[str, Sequence[Run | None]], list[str]]:
    """The runs of each arm by round: paired by seed where all arms have the same seeds, else in the order given."""
    seeds = [sorted(run.seed for run in runs) for runs in arms.values()]
    if all(mine == seeds[0] for mine in seeds) and len(set(seeds[0])) == len(seeds[0]):
        return {label: sorted(runs, key=lambda run: run.seed) for label, runs in arms.items()}, []
    rounds = max(map(len, arms.values()))
    remarks = ["the arms have different seeds: repeats are paired in the order in which they are named"]
    if min(map(len, arms.values())) < rounds:
        remarks.append("repeats without a partner in every other arm are shown, and left out of the tests")
    return {label: [*runs, *[None] * (rounds - len(runs))] for label, runs in arms.items()}, remarks
