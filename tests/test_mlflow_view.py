"""The saved view, the note and the colours of a study in MLflow follow from its journal alone, and people's own changes stay."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpo.attachments import ATTEMPTS, Attachments
from hpo.events import Asked, Chosen, Created, Ended, Event, Finished, Measured, Nominated, Paused, Promoted, Resumed
from hpo.events import Tested as Scores  # pytest takes what is called Test... for tests
from hpo.mlflow_runs import COLOUR_TAG, NOTE_TAG, STUDY
from hpo.mlflow_view import LONGEST, TAG, address, view
from hpo.mlflow_words import model_name
from hpo.projection import Projection
from hpo.sending import recognise, send
from hpo.trial import DEFAULTS, FINALS_FROM, State
from tests.test_tracking import SPEC, Memory, folded, measured, records, sent, story

FINAL = FINALS_FROM
CHOICE = {
    "runs": 2,
    "mean": 0.85,
    "sd": 0.02,
    "freedom": 1,
    "low": 0.8,
    "high": 0.9,
    "selected_on": 0.9,
    "gap": 0.05,
    "not_told_apart": "4 -1",
}
ONE_RUN = {"runs": 1, "mean": 0.85}
TEST = Scores(FINAL, 400, {"test_accuracy": (0.84, 0.81, 0.87)})


def with_finals(*, tested: Scores = TEST, end: str = "budget") -> list[Event]:
    """The story, its best trial trained again twice and chosen."""
    events = [event for event in story() if not isinstance(event, Ended)]
    events += [Finished(5, State.PRUNED, "budget", "the study ended"), Nominated("budget", [0], 2, 6)]
    for number, value in ((FINAL, 0.84), (FINAL + 1, 0.86)):
        events += [Asked(number, {"width": 32, "dropout": 0.0}, 7, replicates=0), Measured(number, 1, value, {"val_accuracy": value}, 0.5)]
        events += [Finished(number, State.COMPLETE, "max_epochs", "trained all")]
    return [*events, Chosen(0, FINAL, CHOICE), tested, Ended(end, FINAL)]


def state(projection: Projection) -> dict[str, Any]:
    kept = json.loads(view(projection).content)["state"]
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(kept[8:])) if kept.startswith("deflate;") else kept)
    return found


def created(**changes: Any) -> Projection:
    return folded([Created("fashion", SPEC | changes, {})])


# --- the view --------------------------------------------------------------------------------------------------------


def test_a_view_has_all_trials_the_best_first_and_what_was_searched() -> None:
    projection = created()
    found = view(projection)
    assert found.tag == f"{TAG}hpo-{projection.study_id}"
    started = projection.runs[STUDY].started_ms
    told = {name: value for name, value in json.loads(found.content).items() if name != "state"}
    assert told == {"name": "fashion: all trials", "createdAt": started, "updatedAt": started}
    shown = state(projection)
    assert shown["searchFilter"] == f"tags.`hpo.study_id` = '{projection.study_id}' and tags.`hpo.trial` != 'study'"
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`best_val_accuracy`", False)
    columns = [
        "attributes.`Models`",
        "metrics.`best_val_accuracy`",
        "metrics.`epochs`",
        "params.`width`",
        "params.`dropout`",
        "tags.`hpo.state`",
    ]
    assert shown["selectedColumns"] == columns
    parallel, line = shown["compareRunCharts"]
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (["width", "dropout"], ["best_val_accuracy"])
    assert (line["metricKey"], line["xAxisKey"]) == ("val_accuracy", "step")
    assert {chart["metricSectionId"] for chart in (parallel, line)} == {section["uuid"] for section in shown["compareRunSections"]}


def test_a_view_puts_the_lowest_first_where_low_is_good_and_takes_names_as_mlflow_has_them() -> None:
    changed = created(objective={"metric": "val:loss", "direction": "minimize"}, space={"a:b": {}})
    shown = state(changed)
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`best_val_loss`", True)
    assert "params.`a_b`" in shown["selectedColumns"]


def test_a_view_of_a_wide_space_still_fits_into_a_tag() -> None:
    wide = created(space={f"a_parameter_with_a_long_name_{at}": {} for at in range(200)})
    assert len(view(wide).content) <= LONGEST
    assert len(state(wide)["compareRunCharts"][0]["selectedParams"]) == 200


def test_a_views_address_leads_past_the_start_page() -> None:
    assert address("http://h:5", "3", "abc") == "http://h:5/#/experiments/3/runs?viewStateShareKey=hpo-abc&workflowType=machine_learning"


# --- the runs --------------------------------------------------------------------------------------------------------


def test_a_trials_colour_says_how_it_ended() -> None:
    store = sent(folded(with_finals()))
    colours = {key: store.shown(key)["tags"].get(COLOUR_TAG) for key in ("0", "1", "2", "final-0", STUDY)}
    assert colours == {"0": "#1b7f4d", "1": "#9aa5b1", "2": "#c0392b", "final-0": "#1f4e79", STUDY: None}
    assert COLOUR_TAG not in sent(folded(story(end=None))).shown("5")["tags"]


def test_the_studys_source_is_its_trainer() -> None:
    tags = sent(folded(story())).shown(STUDY)["tags"]
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("mlp", "LOCAL")


def points(events: Sequence[Event], key: str = "0") -> list[tuple[str, float, int]]:
    run = sent(folded([Created("s", SPEC, {}), Asked(0, {}, 1), *events])).shown(key)
    names = ("epochs", "best_val_accuracy", "last_val_accuracy", "seconds")
    return sorted((p.name, p.value, p.step) for p in run["points"] if p.name in names)


def test_a_trial_that_waits_has_what_it_is_sorted_by_and_once_only() -> None:
    waiting: list[Event] = [*measured(0, 0.5, 0.4), Paused(0, 2)]
    so_far = [("best_val_accuracy", 0.5, 1), ("epochs", 2, 2)]
    assert points(waiting) == so_far
    end = [("last_val_accuracy", 0.4, 2), ("seconds", 1.0, 2)]
    assert points([*waiting, Finished(0, State.PRUNED, "paused", "it still waited")]) == so_far + end
    assert points([*waiting, Ended("interrupted", 0)]) == so_far + end
    went_on: list[Event] = [
        *waiting,
        Promoted(0, 2),
        Measured(0, 3, 0.7, {"val_accuracy": 0.7}, 0.5),
        Finished(0, State.COMPLETE, "max_epochs", ""),
    ]
    final = [("best_val_accuracy", 0.7, 3), ("epochs", 3, 3), ("last_val_accuracy", 0.7, 3), ("seconds", 1.5, 3)]
    assert points(went_on) == sorted(so_far + final)


def test_what_was_told_of_a_waiting_trial_is_not_told_again_by_a_process_that_sent_it() -> None:
    projection, store = folded([Created("s", SPEC, {}), Asked(0, {}, 1), *measured(0, 0.5), Paused(0, 1)]), Memory()
    send(projection, store, everything=True)
    whole = [
        Created("s", SPEC, {}),
        Asked(0, {}, 1),
        *measured(0, 0.5),
        Paused(0, 1),
        Finished(0, State.PRUNED, "paused", ""),
        Ended("budget", 0),
    ]
    other = folded(whole)
    recognise(other, store)
    send(other, store, everything=True)
    assert store.runs == sent(folded(whole)).runs
    assert len([p for p in store.shown("0")["points"] if p.name == "epochs"]) == 1


@pytest.mark.parametrize(("run", "model"), [("digits-0017", "digits-0017"), ("a.b-final-1", "a_b-final-1"), ("it's 5%", "it_s 5_")])
def test_a_model_is_called_like_its_run(run: str, model: str) -> None:
    assert model_name(run) == model


# --- the note --------------------------------------------------------------------------------------------------------


def note(events: Sequence[Event]) -> str:
    return str(sent(folded(events)).shown(STUDY)["tags"][NOTE_TAG])


def test_the_note_of_finals_says_what_was_chosen_and_how_good_it_is() -> None:
    assert note(with_finals()).splitlines() == [
        "The model is that of **fashion-final-0**: val_accuracy 0.84 at epoch 1. It trained trial 0 again, which won the finals.",
        "",
        "- **val_accuracy, replicated**: 0.85 (95 % interval 0.8 to 0.9), the mean of 2 fresh runs",
        "- **optimism gap**: 0.05: the search chose it by 0.9, which overstated it",
        "- **test split**: test_accuracy 0.84 (95 % interval 0.81 to 0.87), 400 examples",
        "- **not told apart from**: trial 4, the defaults",
        "- **trials**: 6: 2 complete, 2 pruned, 2 failed",
        "- **epochs**: 9 in the search, 2 in the finals",
        "- **ended by**: budget",
    ]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (story(), "the best of all epochs of the search, and so an optimistic value"),
        (story(), "- **test split**: not opened for this model"),
        (with_finals(tested=Scores(FINAL, note="the trainer offers none")), "- **test split**: no scores: the trainer offers none"),
        (with_finals(tested=Scores(0, 400, {"test_accuracy": (0.9, 0.8, 1.0)})), "- **test split**: not opened for this model"),
        ([Created("s", SPEC, {}), Ended("time")], "No trial was measured"),
        ([*with_finals(), Resumed("h", 1, {}, trials=9), Ended("budget", 0)], "The model is that of **fashion-0000**"),
        ([*with_finals()[:-3], Chosen(DEFAULTS, FINAL, ONE_RUN), Ended("budget", FINAL)], "trained the defaults again"),
        ([*with_finals()[:-3], Chosen(0, FINAL, ONE_RUN), Ended("budget", FINAL)], "replicated**: 0.85, in one fresh run"),
    ],
)  # fmt: skip
def test_the_note_says_what_is_not_known(events: list[Event], said: str) -> None:
    assert said in note(events)


@pytest.mark.parametrize("when", ["while it ran", "after its end"])
@pytest.mark.parametrize("process", ["the same", "another"])
def test_a_description_that_somebody_wrote_stays(when: str, process: str) -> None:
    events = [*story(), Resumed("h", 1, {}), Ended("budget", 0)]
    cut = len(story()) - (when == "while it ran")
    projection, store = folded(events[:cut]), Memory()
    sent(projection, store)
    store.shown(STUDY)["tags"][NOTE_TAG] = "mine"
    if process == "the same":
        for record in records(events)[cut:]:
            projection.apply(record)
    else:
        projection = folded(events)
        recognise(projection, store)
    send(projection, store, everything=True)
    assert store.shown(STUDY)["tags"][NOTE_TAG] == "mine"
    assert store.shown(STUDY)["tags"]["hpo.state"] == "budget"


def test_a_note_of_ours_is_replaced_when_the_study_went_on() -> None:
    store = sent(folded(story(end="interrupted")))
    assert "**ended by**: interrupted" in store.shown(STUDY)["tags"][NOTE_TAG]
    sent(folded([*story(end="interrupted"), Resumed("h", 1, {}), Ended("budget", 0)]), store)
    assert "**ended by**: budget" in store.shown(STUDY)["tags"][NOTE_TAG]


# --- what is attached ------------------------------------------------------------------------------------------------


class Shelf:
    """Keeps what it is given; the first `refusals` calls of each kind fail."""

    def __init__(self, **refusals: int) -> None:
        self.refusals = refusals
        self.calls: list[str] = []
        self.kept: list[str] = []

    def _take(self, kind: str, name: str) -> None:
        self.calls.append(kind)
        if self.calls.count(kind) <= self.refusals.get(kind, 0):
            raise PermissionError(f"no {kind}")
        self.kept.append(name)

    def attach(self, run_id: str, document: Any, name: str) -> None:  # noqa: ARG002
        self._take("attach", name)

    def offer(self, tag: str, content: str) -> None:  # noqa: ARG002
        self._take("offer", tag)

    def put(self, run_id: str, file: Path, folder: str) -> None:  # noqa: ARG002
        self._take("put", f"{folder}/{file.name}")

    def has(self, run_id: str, file: str) -> bool:  # noqa: ARG002
        return file in self.kept


def attachments() -> tuple[Attachments, list[str]]:
    said: list[str] = []
    return Attachments(said.append, lambda _: None), said


def test_a_view_is_saved_once() -> None:
    shelf, (attached, said) = Shelf(), attachments()
    for _ in range(3):
        attached.view(shelf, created())
    assert (len(shelf.kept), len(shelf.calls), said) == (1, 1, [])


def test_a_server_that_refuses_experiment_tags_holds_nothing_up() -> None:
    shelf, (attached, said) = Shelf(offer=99), attachments()
    for _ in range(2 * ATTEMPTS):
        attached.view(shelf, created())
    assert len(shelf.calls) == len(said) == ATTEMPTS
    assert "PermissionError: no offer" in said[0]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    files = [tmp_path / name for name in ("a.png", "index.html")]
    monkeypatch.setattr("hpo.attachments._drawn", lambda _: files)
    return files


def test_a_report_is_kept_file_by_file_its_page_last_each_time_it_is_drawn(drawn: list[Path], tmp_path: Path) -> None:
    shelf, (attached, said) = Shelf(put=ATTEMPTS - 1), attachments()
    attached.report(shelf, created(), tmp_path)
    assert (shelf.kept, said) == (["report/a.png", "report/index.html"], [])
    attached.report(shelf, created(), tmp_path, again=False)
    assert len(shelf.kept) == len(drawn)
    attached.report(shelf, created(), tmp_path)
    assert len(shelf.kept) == 2 * len(drawn)


def test_artifacts_that_are_refused_cost_the_report_and_nothing_else(drawn: list[Path], tmp_path: Path) -> None:
    shelf, (attached, said) = Shelf(put=99, attach=99), attachments()
    attached.report(shelf, created(), tmp_path)
    assert (len(shelf.calls), len(said)) == (ATTEMPTS, 1)
    assert f"{drawn[0].name} could not be stored" in said[0]
    for _ in range(ATTEMPTS - 1):
        with pytest.raises(PermissionError):
            attached.spec(shelf, created())
    attached.spec(shelf, created())
    assert "spec.json could not be stored" in said[1]
    attached.report(shelf, created(), tmp_path)  # who does not take the spec is not asked to take pictures
    assert shelf.calls.count("put") == ATTEMPTS


def test_a_report_that_cannot_be_drawn_is_said_to_be(tmp_path: Path) -> None:
    shelf, (attached, said) = Shelf(), attachments()
    attached.report(shelf, created(), tmp_path / "nowhere")
    assert shelf.calls == []
    assert said[0].startswith("the report could not be drawn: ")
