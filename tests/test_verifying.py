"""`verify` finds every kind of disagreement, and nothing to complain about where there is none; `repair` destroys nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpo import checkpoints
from hpo.doctor import Check
from hpo.events import Asked, Created, Ended, Event, Finished, Measured, Paused, Promoted
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalDamaged, JournalError, read
from hpo.lease import LeaseHeld
from hpo.replaying import replay_decisions
from hpo.results import StoredStudy
from hpo.sampling import ladders
from hpo.sampling.ladder_history import Entry
from hpo.session import Session
from hpo.specified import rules_of, sampler_of
from hpo.trial_files import trial_folder
from hpo.verifying import repair, verify
from tests.simulated_study import TRAINER, simulated, spec


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return simulated(tmp_path_factory.mktemp("home"), "sound", spec())


def wrong(folder: Path) -> dict[str, str]:
    return {check.name: check.found for check in checked(folder) if not check.ok}


def checked(folder: Path) -> list[Check]:
    return verify(folder, ask_mlflow=False)


def retold(study: StoredStudy, folder: Path, change: Callable[[list[Event]], list[Event]]) -> Path:
    """The study with other events, each line of its journal whole."""
    with Journal.create(folder / FILE_NAME) as journal:
        for event in change([record.event for record in study.records]):
            journal.append([event])
    return folder


def test_a_sound_study_is_found_sound_and_counted(study: StoredStudy) -> None:
    found = {check.name: check.found for check in checked(study.folder)}
    assert wrong(study.folder) == {}
    assert found["journal"] == f"{len(study.records)} lines, every checksum right, written by 1 process"
    assert found["trials"] == "16 trials started, 16 ended exactly once"
    assert found["epochs"] == f"{study.epochs} epochs, one value for each"
    assert found["best"].startswith(f"trial {study.best.trial}, ")
    assert found["sampler"].startswith("16 trials in Optuna's history")
    assert found["checkpoints"].startswith("0 of finished trials")


def last_of(events: list[Event], kind: type[Event]) -> int:
    return max(i for i, event in enumerate(events) if isinstance(event, kind))


def without(kind: type[Event]) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [event for i, event in enumerate(events) if i != last_of(events, kind)]


def doubled(kind: type[Event]) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [*events[:-1], events[last_of(events, kind)], events[-1]]


def other_best(events: list[Event]) -> list[Event]:
    end = events[-1]
    assert isinstance(end, Ended)
    return [*events[:-1], replace(end, best=(end.best or 0) + 1)]


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (without(Finished), "trials", "trial .* never ended, though the study did"),
        (doubled(Finished), "trials", "trial .* ended 2 times"),
        (doubled(Measured), "epochs", ".*epoch . follows epoch .*; trial .* epoch . follows its end.*"),
        (other_best, "best", "the journal ends with .* as the best; by its values it is .*"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_named(
    study: StoredStudy, tmp_path: Path, change: Callable[[list[Event]], list[Event]], check: str, message: str
) -> None:
    folder = retold(study, tmp_path / "sound", change)
    found = wrong(folder)
    assert set(found) == {check}
    assert re.fullmatch(message, found[check])


def test_an_epoch_that_is_missing_before_an_end_shows_in_the_decision_that_followed(study: StoredStudy, tmp_path: Path) -> None:
    """Each line agrees with the others, so `verify` cannot know; `replay` asks why the trial ended there."""

    def without_one(events: list[Event]) -> list[Event]:
        ends = {event.trial: i for i, event in enumerate(events) if isinstance(event, Finished) and event.rule == "max_epochs"}
        missing = next(ends[t.number] - 1 for t in study.trials if t.number in ends and t.number != study.best.trial)
        assert isinstance(events[missing], Measured)
        return [*events[:missing], *events[missing + 1 :]]

    folder = retold(study, tmp_path / "sound", without_one)
    assert wrong(folder) == {}
    sampler = sampler_of(study.spec)
    assert replay_decisions(rules_of(study.spec), sampler, read(folder / FILE_NAME)).divergence is not None


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """Trials that wait at rungs 2 and 6 for the ladders to promote them."""
    return simulated(tmp_path_factory.mktemp("home"), "paused", spec("sampler.name=ladders"))


def test_a_study_whose_trials_waited_is_sound_and_the_ladders_history_is_recomputed(paused: StoredStudy) -> None:
    found = {check.name: check.found for check in checked(paused.folder)}
    assert wrong(paused.folder) == {}
    assert found["trials"] == "16 trials started, 16 ended exactly once"
    assert found["sampler"] == "16 trials at the rungs 2, 9 in the ladders' history, values and failures the same"


def test_what_the_ladders_have_wrong_is_named(paused: StoredStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladders, "Entry", lambda rung, value, order: Entry(rung, value + 1, order))
    assert re.match(r"trial 0 is [a-z]+ with losses .* at the rungs, the ladders have", wrong(paused.folder)["sampler"])


def test_paused_trials_of_a_stopped_study_are_nothing_to_mend(paused: StoredStudy, tmp_path: Path) -> None:
    waits = next(i for i, r in enumerate(paused.records) if isinstance(r.event, Paused))
    folder = retold(paused, tmp_path / "stopped", lambda events: [*events[: waits + 1], Ended("interrupted", 0)])
    event = paused.records[waits].event
    assert isinstance(event, Paused)
    checkpoints.save(trial_folder(folder, event.trial) / "last-1.1", {"weights": [1.0]})
    checkpoints.save(trial_folder(folder, event.trial) / "best-1.1", {"weights": [1.0]})
    found = {check.name: check.found for check in checked(folder)}
    assert wrong(folder) == {}
    assert found["trials"].endswith(", 1 paused")
    assert found["checkpoints"] == "0 of finished trials, 1 to go on from, every checksum right"


def test_more_checkpoints_of_paused_trials_than_are_asked_for_are_named(paused: StoredStudy, tmp_path: Path) -> None:
    waits = [i for i, r in enumerate(paused.records) if isinstance(r.event, Paused)][1]
    folder = retold(paused, tmp_path / "stopped", lambda events: [replace_spec(events[0], {"paused": 0}), *events[1 : waits + 1]])
    for record in paused.records[: waits + 1]:
        if isinstance(record.event, Paused):
            checkpoints.save(trial_folder(folder, record.event.trial) / "last-1.1", {"weights": [1.0]})
    assert re.match(r"[12] paused trials? .*; checkpoints.paused is 0", wrong(folder)["checkpoints"])


def replace_spec(event: Event, checkpoints: dict[str, object]) -> Event:
    assert isinstance(event, Created)
    return replace(event, spec={**event.spec, "checkpoints": {**event.spec["checkpoints"], **checkpoints}})


def twice(kind: type[Event]) -> Callable[[list[Event]], list[Event]]:
    def change(events: list[Event]) -> list[Event]:
        first = next(i for i, event in enumerate(events) if isinstance(event, kind))
        return [*events[: first + 1], events[first], *events[first + 1 :]]

    return change


def early(events: list[Event]) -> list[Event]:
    """The first promoted trial trains on before its promotion."""
    first = next(i for i, event in enumerate(events) if isinstance(event, Promoted))
    promoted = events[first]
    assert isinstance(promoted, Promoted)
    following = next(i for i, e in enumerate(events) if i > first and isinstance(e, Measured) and e.trial == promoted.trial)
    return [*events[:first], events[following], events[first], *events[first + 1 : following], *events[following + 1 :]]


def test_an_epoch_of_a_trial_that_waits_is_named(paused: StoredStudy, tmp_path: Path) -> None:
    assert re.match(r"trial [0-9]+: epoch 3 follows its pause", wrong(retold(paused, tmp_path / "early", early))["epochs"])


def test_a_promotion_of_a_trial_that_does_not_wait_is_refused(paused: StoredStudy, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="contradicts itself"):
        checked(retold(paused, tmp_path / "twice", twice(Promoted)))


def test_a_study_that_was_cut_off_is_sound_and_says_what_is_left_to_do(study: StoredStudy, tmp_path: Path) -> None:
    content = (study.folder / FILE_NAME).read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(content[: len(content) * 2 // 3])
    found = {check.name: check for check in checked(folder)}
    assert all(check.ok for check in found.values())
    assert "was never finished nor acknowledged" in found["journal"].found
    assert "to be resumed" in found["trials"].found


def test_checkpoints_are_read_and_compared_with_the_journal(study: StoredStudy, tmp_path: Path) -> None:
    folder = retold(study, tmp_path / "sound", list)
    trial = study.trials[study.best.trial]
    best = trial_folder(folder, trial.number) / "best"
    label = {"epoch": study.best.epoch, "value": study.best.value}
    checkpoints.save(best, {"weights": [1.0], checkpoints.LABEL: label})
    assert wrong(folder) == {}
    checkpoints.save(best, {"weights": [1.0], checkpoints.LABEL: label | {"value": 99.0}})
    assert "with 99.0; the journal has" in wrong(folder)["checkpoints"]
    checkpoints.save(best, {"weights": [1.0], checkpoints.LABEL: label})
    checkpoints.save(best.with_name("last-1.1"), {"weights": [1.0]})
    assert "is left over from a trial that ended" in wrong(folder)["checkpoints"]


def test_a_damaged_checkpoint_is_set_aside_by_a_repair_and_kept(study: StoredStudy, tmp_path: Path) -> None:
    folder = retold(study, tmp_path / "sound", lambda events: events[:4])
    last = trial_folder(folder, 0) / "last-1.1"
    checkpoints.save(last, {"weights": [1.0]})
    assert wrong(folder) == {}
    assert repair(folder) == []
    manifest = last / "state.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"1.0", b"2.0"))
    assert "state.json" in wrong(folder)["checkpoints"]
    (line,) = repair(folder)
    assert "state.json" in line
    assert (last.with_name("damaged-last-1.1") / "state.json").exists()
    assert wrong(folder) == {}


def test_a_damaged_journal_is_named_and_a_repair_keeps_what_precedes_the_damage(study: StoredStudy, tmp_path: Path) -> None:
    folder = retold(study, tmp_path / "sound", list)
    content = (folder / FILE_NAME).read_bytes()
    (folder / FILE_NAME).write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    with pytest.raises(JournalDamaged):
        checked(folder)
    (line,) = repair(folder)
    kept = read(folder / FILE_NAME)
    assert 0 < len(kept) < len(study.records)
    assert [record.event for record in kept] == [record.event for record in study.records[: len(kept)]]
    assert f"behind line {len(kept)} were dropped" in line
    assert wrong(folder) == {}


def test_a_study_that_runs_is_not_repaired_and_its_changing_parts_are_not_compared(study: StoredStudy, tmp_path: Path) -> None:
    folder = retold(study, tmp_path / "sound", lambda events: [e for e in events if not isinstance(e, Ended)])
    with Journal.open(folder / FILE_NAME):
        assert [check.name for check in verify(folder)][-1] == "running"
        with pytest.raises(LeaseHeld):
            repair(folder)


def test_a_journal_of_whole_lines_that_make_no_study_is_refused(study: StoredStudy, tmp_path: Path) -> None:
    def later(events: list[Event]) -> list[Event]:
        return [replace(e, trial=e.trial + 1) if isinstance(e, Asked) else e for e in events]

    with pytest.raises(JournalError, match="contradicts itself: trial 1 asked for after 0 trials"):
        checked(retold(study, tmp_path / "sound", later))


def test_a_folder_that_no_trial_of_the_journal_owns_is_named_and_kept_out_of_the_way(study: StoredStudy, tmp_path: Path) -> None:
    """The journal lost its end, by a repair or by restoring an old copy: trials of the same number must not meet."""
    folder = retold(study, tmp_path / "sound", lambda events: events[:4])
    stranger = trial_folder(folder, 9) / "last-1.1"
    checkpoints.save(stranger, {"weights": [1.0]})
    assert "trials/00009 belongs to no trial of the journal" in wrong(folder)["checkpoints"]
    with Journal.open(folder / FILE_NAME) as journal:
        session = Session(study.spec, TRAINER, folder, journal)
        assert session.with_checkpoint == 0
    assert wrong(folder) == {}
    assert (folder / f"dropped-{journal.lease}" / "trials" / "00009" / "last-1.1").is_dir()


def test_what_a_trainer_keeps_in_its_folder_is_none_of_ours(study: StoredStudy, tmp_path: Path) -> None:
    folder = retold(study, tmp_path / "sound", list)
    own = [trial_folder(folder, 0) / name for name in ("best-model", "last-epoch", "hf")]
    for path in own:
        path.mkdir(parents=True)
        (path / "state.json").write_text("{}")
    assert wrong(folder) == {}
    assert repair(folder) == []
    with Journal.open(folder / FILE_NAME) as journal:
        Session(study.spec, TRAINER, folder, journal)
    assert all((path / "state.json").exists() for path in own)


def test_a_best_trial_without_its_checkpoint_is_named(study: StoredStudy, tmp_path: Path) -> None:
    folder = retold(study, tmp_path / "sound", list)
    other = next(t for t in study.trials if t.number != study.best.trial)
    label = {"epoch": other.measurements[0].epoch, "value": other.measurements[0].value}
    checkpoints.save(trial_folder(folder, other.number) / "best", {"weights": [1.0], checkpoints.LABEL: label})
    assert f"the best, trial {study.best.trial}, has no checkpoint, though others have" in wrong(folder)["checkpoints"]
