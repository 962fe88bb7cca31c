"""`verify` finds every kind of disagreement, and nothing to complain about where there is none; `repair` destroys nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpo import checkpoints
from hpo.doctor import Check
from hpo.events import Asked, Ended, Event, Finished, Measured
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalDamaged, JournalError, read
from hpo.lease import LeaseHeld
from hpo.replaying import replay_decisions
from hpo.results import StoredStudy
from hpo.sampling import make_sampler
from hpo.session import Session, rules_of
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
        (without(Finished), "trials", "trial 15 never ended, though the study did"),
        (doubled(Finished), "trials", "trial 15 ended 2 times"),
        (doubled(Measured), "epochs", ".*epoch . follows epoch .*; trial .* epoch . follows its end.*"),
        (other_best, "best", "the journal ends with trial .* as the best; by its values it is trial .*"),
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
    folder = retold(study, tmp_path / "sound", without(Measured))
    assert wrong(folder) == {}
    sampler = make_sampler(study.spec.sampler.name, study.spec.space, study.spec.objective.direction, study.spec.seed)
    assert replay_decisions(rules_of(study.spec), sampler, read(folder / FILE_NAME)).divergence is not None


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
    assert (folder / f"dropped-{journal.lease}" / "00009" / "last-1.1").is_dir()


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
    assert f"the best trial, {study.best.trial}, has no checkpoint, though others have" in wrong(folder)["checkpoints"]
