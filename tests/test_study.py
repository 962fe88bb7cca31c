"""The study's decisions, and that its journal tells all of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.events import Event, from_json, to_json
from hpo.rules import NoFurther, Rules
from hpo.sampling.simple import GridSampler, RandomSampler
from hpo.space import Float, Int
from hpo.stopping import GeneralisationLoss, Patience, Rises
from hpo.study import Study, replay
from hpo.trial import Decision, Direction, Measurement, State, trial_seed

SPACE = {"x": Float(0.0, 1.0)}
MAXIMIZE = Rules(Direction.MAXIMIZE, max_epochs=9, max_trials=50)


def measurement(epoch: int, value: float) -> Measurement:
    return Measurement(epoch, value, {"value": value}, 0.1)


def test_a_trial_is_complete_after_its_last_epoch() -> None:
    study = Study(MAXIMIZE, RandomSampler(SPACE, 0))
    number = study.ask().number
    assert study.report(number, [measurement(e, 0.5) for e in range(1, 9)]) is Decision.CONTINUE
    assert study.report(number, [measurement(9, 0.4)]) is Decision.STOP
    assert study.trials[number].state is State.COMPLETE
    assert study.trials[number].best(Direction.MAXIMIZE).epoch == 1


def test_a_trial_that_is_worse_than_the_top_third_is_pruned_with_the_numbers_behind_it() -> None:
    events: list[Event] = []
    study = Study(MAXIMIZE, RandomSampler(SPACE, 0), events.extend)
    for value in (0.9, 0.8):
        number = study.ask().number
        study.report(number, [measurement(1, value)])
    assert study.trials[1].state is State.PRUNED
    assert events[-1].detail == {"rung": 1, "value": 0.8, "rank": 2, "arrivals": 2, "quota": 1, "cutoff": 0.9}
    assert study.trials[1].reason == "rank 2 of 2 at epoch 1: 0.8, while the best 1 go on, down to 0.9"


def test_minimising_prunes_the_high_values() -> None:
    study = Study(Rules(Direction.MINIMIZE, 9, 50), RandomSampler(SPACE, 0))
    states = []
    for value in (0.5, 0.7, 0.3):
        number = study.ask().number
        study.report(number, [measurement(1, value)])
        states.append(study.trials[number].state)
    assert states == [State.RUNNING, State.PRUNED, State.RUNNING]


def test_patience_completes_a_trial_and_drops_what_it_trained_beyond() -> None:
    study = Study(Rules(Direction.MINIMIZE, 100, 5, reduction_factor=None, stopper=Patience(epochs=2)), RandomSampler(SPACE, 0))
    study.ask()
    assert study.report(0, [measurement(e, v) for e, v in enumerate((3, 2, 2.5, 2.2, 1.0, 0.5), start=1)]) is Decision.STOP
    trial = study.trials[0]
    assert (trial.state, trial.epoch, trial.best(Direction.MINIMIZE).value) == (State.COMPLETE, 4, 2)


def curve(val_losses: list[float]) -> list[Measurement]:
    """An accuracy that rises all the time, and a validation loss."""
    return [Measurement(n, n / 10, {"value": n / 10, "val_loss": loss}, 0.1) for n, loss in enumerate(val_losses, start=1)]


@pytest.mark.parametrize("reports", [[6], [1, 1, 1, 1, 1, 1], [2, 4]])
def test_a_loss_ends_a_trial_whose_value_is_that_of_its_best_epoch_by_the_objective(reports: list[int]) -> None:
    events: list[Event] = []
    rules = Rules(Direction.MAXIMIZE, 100, 5, reduction_factor=None, stopper=GeneralisationLoss(threshold=20))
    study = Study(rules, RandomSampler(SPACE, 0), events.extend)
    study.ask()
    measured = curve([0.5, 0.4, 0.41, 0.5, 0.3, 0.2])
    for length in reports:
        study.report(0, measured[:length])
        del measured[:length]
    assert (study.trials[0].state, study.trials[0].epoch) == (State.COMPLETE, 4)
    assert events[-1].rule == "gl"
    assert events[-1].reason == "GL 25 above 20 at epoch 4: val_loss 0.5, lowest 0.4 at epoch 2; its value is that of epoch 4, 0.4"
    assert study.loss(study.trials[0]) == -0.4


def test_a_trial_is_judged_at_its_rung_and_at_its_last_epoch_before_it_is_stopped() -> None:
    rules = Rules(Direction.MAXIMIZE, 3, 5, grace_epochs=2, stopper=Rises(strips=1, strip=1))
    study = Study(rules, RandomSampler(SPACE, 0))
    states = []
    for losses in ([0.1, 0.2], [0.1, 0.2], [0.3, 0.2, 0.4]):
        trial = study.ask()
        study.report(trial.number, [Measurement(m.epoch, 9.0 if len(losses) == 3 else m.value, m.metrics, 0.1) for m in curve(losses)])
        states.append((trial.state, trial.reason[:12]))
    assert states == [(State.COMPLETE, "UP: a strip "), (State.PRUNED, "rank 2 of 2 "), (State.COMPLETE, "trained all ")]


def test_a_repeated_epoch_changes_nothing_and_a_gap_is_refused() -> None:
    study = Study(MAXIMIZE, RandomSampler(SPACE, 0))
    study.ask()
    study.report(0, [measurement(1, 0.5), measurement(2, 0.6)])
    study.report(0, [measurement(1, 0.1), measurement(2, 0.1), measurement(3, 0.7)])
    assert [m.value for m in study.trials[0].measurements] == [0.5, 0.6, 0.7]
    with pytest.raises(ValueError, match="epoch 5 reported after epoch 3"):
        study.report(0, [measurement(5, 0.7)])


def test_a_finished_trial_stays_as_it_is() -> None:
    study = Study(MAXIMIZE, RandomSampler(SPACE, 0))
    study.ask()
    study.fail(0, "error", "boom")
    study.complete(0, "trainer", "done")
    study.prune(0, "time", "late")
    assert study.report(0, [measurement(1, 0.5)]) is Decision.STOP
    assert not study.retry(0, "died")
    assert (study.trials[0].state, study.trials[0].reason, study.trials[0].measurements) == (State.FAILED, "boom", [])


def test_a_diverged_trial_counts_as_the_worst_at_its_next_rung() -> None:
    events: list[Event] = []
    study = Study(MAXIMIZE, RandomSampler(SPACE, 0), events.extend)
    for value in (0.9, 0.8, 0.7, 0.6):
        study.report(study.ask().number, [measurement(1, value)])
    study.fail(study.ask().number, "metric", "value was nan at epoch 1")
    study.fail(study.ask().number, "error", "a bug in the trainer says nothing about its parameters")
    study.report(study.ask().number, [measurement(1, 0.85)])  # second of six with the diverged one: a third goes on
    assert study.trials[-1].state is State.RUNNING
    study.report(study.ask().number, [measurement(1, 0.1)])
    assert events[-1].detail["arrivals"] == 7


def test_a_worker_that_dies_too_often_fails_its_trial() -> None:
    study = Study(Rules(Direction.MAXIMIZE, 9, 5, retries=2), RandomSampler(SPACE, 0))
    study.ask()
    assert [study.retry(0, "SIGKILL") for _ in range(3)] == [True, True, False]
    assert study.trials[0].attempts == 3
    assert study.trials[0].reason == "its worker died 3 times, the last time of: SIGKILL"


def test_a_trainer_that_ends_without_a_value_failed() -> None:
    study = Study(MAXIMIZE, RandomSampler(SPACE, 0))
    study.ask()
    study.complete(0, "trainer", "ended")
    assert study.trials[0].state is State.FAILED


def test_budget_and_grid_end_the_asking() -> None:
    study = Study(Rules(Direction.MAXIMIZE, 9, 2), RandomSampler(SPACE, 0))
    assert [study.ask() is None for _ in range(3)] == [False, False, True]
    study = Study(MAXIMIZE, GridSampler({"x": Int(1, 2)}))
    assert [study.ask() and study.trials[-1].params for _ in range(3)] == [{"x": 1}, {"x": 2}, None]


def test_the_best_is_the_earliest_of_equals_and_never_a_failure() -> None:
    study = Study(Rules(Direction.MAXIMIZE, 9, 9, reduction_factor=None), RandomSampler(SPACE, 0))
    for value in (0.5, 0.9, 0.9, 0.99):
        study.report(study.ask().number, [measurement(1, value)])
    study.fail(3, "error", "boom")
    assert study.best().number == 1
    study.end("budget")
    assert study.ended.best == 1


def test_seeds_differ_between_trials_and_studies_and_are_the_same_tomorrow() -> None:
    assert trial_seed(0, 1) == 1639346027
    assert len({trial_seed(seed, number) for seed in range(20) for number in range(500)}) > 9_995


def test_nothing_takes_effect_that_was_not_recorded() -> None:
    def full(events: object) -> None:
        raise OSError("No space left on device")

    study = Study(MAXIMIZE, RandomSampler(SPACE, 0), full)
    with pytest.raises(OSError, match="space"):
        study.ask()
    assert study.trials == []


@given(st.data())
def test_a_replayed_journal_gives_the_same_study_and_the_same_next_decision(data: st.DataObject) -> None:
    rules = Rules(Direction.MAXIMIZE, 9, 30, stopper=Patience(epochs=3), retries=1)
    events: list[Event] = []
    study = Study(rules, RandomSampler(SPACE, 0), events.extend)
    for _ in range(data.draw(st.integers(1, 40))):
        running = [t for t in study.trials if not t.state.finished]
        if not running or data.draw(st.booleans()):
            study.ask()
            continue
        trial = data.draw(st.sampled_from(running))
        action = data.draw(st.sampled_from(["report", "report", "report", "fail", "retry"]))
        if action == "report":
            study.report(trial.number, [measurement(trial.epoch + 1, data.draw(st.sampled_from([0.1, 0.5, 0.5, 0.9])))])
        elif action == "fail":
            study.fail(trial.number, data.draw(st.sampled_from(["metric", "error"])), "why")
        else:
            study.retry(trial.number, "died")
    again = replay(rules, RandomSampler(SPACE, 0), [from_json(to_json(event)) for event in events])
    assert again.trials == study.trials
    assert repr(again._standings._rungs) == repr(study._standings._rungs)  # NaN is unlike itself
    asked, asked_again = study.ask(), again.ask()
    assert (asked and asked.params) == (asked_again and asked_again.params)


def test_reading_a_study_needs_no_sampler() -> None:
    assert replay(MAXIMIZE, NoFurther(), []).ask() is None


def test_a_metric_that_is_no_number_for_json_survives_the_journal() -> None:
    events: list[Event] = []
    study = Study(MAXIMIZE, RandomSampler(SPACE, 0), events.extend)
    study.ask()
    study.report(0, [Measurement(1, 0.5, {"value": 0.5, "train_loss": math.nan, "other": -math.inf}, 0.1)])
    metrics = from_json(to_json(events[-1])).metrics
    assert math.isnan(metrics["train_loss"])
    assert metrics["other"] == -math.inf
