"""The record of a study in MLflow, seen by a person: a real server, a real browser; what is asserted is what is visible."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Run  # noqa: E402

from hpo.mlflow_view import address  # noqa: E402
from hpo.results import StoredStudy  # noqa: E402
from hpo.trial import State, Trial  # noqa: E402
from tests.browser.conftest import SCREENSHOTS  # noqa: E402
from tests.browser.pages import Mlflow  # noqa: E402

expect = sync_api.expect
SEARCHED = ("learning_rate", "weight_decay", "dropout", "width")
BEST = "best_val_accuracy"
STATUS = {State.COMPLETE: "FINISHED", State.PRUNED: "KILLED", State.FAILED: "FAILED"}


@pytest.fixture(scope="module")
def client(study: StoredStudy) -> MlflowClient:
    assert study.tracking is not None
    return MlflowClient(study.tracking.uri)


@pytest.fixture(scope="module")
def nested(study: StoredStudy, client: MlflowClient) -> list[Run]:
    """The runs of the study's trials, those of its finals among them, as many as the journal has."""
    assert study.tracking is not None
    found = client.search_runs([study.tracking.experiment_id], f"tags.`mlflow.parentRunId` = '{study.tracking.parent_run_id}'")
    assert len(study.trials) >= 12
    assert len(study.study.finals) > 1
    assert len(found) == len(everything(study))
    return list(found)


def everything(study: StoredStudy) -> list[Trial]:
    """The trials of the search and those of the finals."""
    return [*study.trials, *study.study.finals]


def best_names(runs: list[Run], value: float) -> set[str]:
    return {name(run) for run in runs if run.data.metrics.get(BEST) == value}


def name(run: Run) -> str:
    return str(run.info.run_name)


def study_id(study: StoredStudy, client: MlflowClient) -> str:
    assert study.tracking is not None
    return client.get_run(study.tracking.parent_run_id).data.tags["hpo.study_id"]


def test_the_study_is_found_and_shows_its_trials_with_their_states(mlflow: Mlflow, study: StoredStudy, nested: list[Run]) -> None:
    states = Counter(trial.state for trial in everything(study))
    assert all(states[state] for state in STATUS)
    mlflow.open_experiment("digits")
    expect(mlflow.names()).to_have_text([study.name])
    mlflow.expand(study.name)
    mlflow.choose_columns("Dataset", "Source", BEST, "epochs", "learning_rate", "dropout", "width", "hpo.state")
    for run in nested:
        expect(mlflow.row(name(run)).first).to_be_visible()
    mlflow.shoot("study")
    shown = Counter(mlflow.cell(name(run), "tags.`hpo.state`").inner_text() for run in nested)
    assert shown == {state.value: count for state, count in states.items()}


@pytest.mark.parametrize("state", STATUS)
def test_trials_are_found_by_their_status(mlflow: Mlflow, study: StoredStudy, nested: list[Run], state: State) -> None:
    expected = {name(run) for run in nested if run.info.status == STATUS[state]}
    assert len(expected) == sum(trial.state is state for trial in everything(study)) > 0
    mlflow.open_experiment("digits")
    mlflow.expand(study.name)
    mlflow.search(f"attributes.status = '{STATUS[state]}'")
    expect(mlflow.names()).to_have_count(len(expected) + 1)  # the study's run is shown with them
    assert set(mlflow.names().all_inner_texts()) == expected | {study.name}
    mlflow.page.get_by_role("link", name=sorted(expected)[0], exact=True).click()
    expect(mlflow.page.get_by_text(STATUS[state].capitalize(), exact=True)).to_be_visible()
    mlflow.shoot(f"trial-{state.value}")


def test_all_trials_are_compared_in_parallel_coordinates(mlflow: Mlflow, study: StoredStudy, nested: list[Run]) -> None:
    mlflow.open_experiment("digits")
    mlflow.expand(study.name)
    expect(mlflow.names()).to_have_count(len(nested) + 1)
    mlflow.tick_nested(len(nested))
    mlflow.compare()
    expect(mlflow.page.get_by_text(f"Comparing {len(nested)} Runs from 1 Experiment")).to_be_visible()
    axes = mlflow.plot_in_parallel(SEARCHED, BEST)
    mlflow.shoot("parallel-coordinates")
    found = {axis.label: axis for axis in axes}
    assert found.keys() == {*SEARCHED, BEST}
    assert not any(axis.words for axis in axes)  # `unknown` stands for a parameter that a run lacks
    for parameter in SEARCHED:
        expected = sorted(float(trial.params[parameter]) for trial in everything(study))
        assert sorted(found[parameter].values) == pytest.approx(expected)
    measured = [trial.best(study.spec.objective.direction) for trial in everything(study)]
    assert None not in measured  # for a run without a value MLflow makes one up, just above the highest
    assert sorted(found[BEST].values) == pytest.approx(sorted(best.value for best in measured if best))


def test_the_saved_view_shows_every_trial_with_charts(mlflow: Mlflow, study: StoredStudy, nested: list[Run], client: MlflowClient) -> None:
    mlflow.open_experiment("digits")
    mlflow.open_view(f"{study.name}: all trials")
    expect(mlflow.names()).to_have_count(len(nested))  # without the study's own run
    best = [trial.best(study.spec.objective.direction) for trial in everything(study)]
    leaders = best_names(nested, max(found.value for found in best if found))
    mlflow.shoot("view")
    expect(mlflow.top()).to_have_text(re.compile(f"^({'|'.join(map(re.escape, leaders))})$"))
    mlflow.page.set_viewport_size({"width": 1400, "height": 1180})  # room for both
    mlflow.show_charts()
    expect(mlflow.page.get_by_text("Parallel Coordinates")).to_be_visible()
    mlflow.wait_for_lines(len(nested))
    expect(mlflow.page.locator(".js-plotly-plot").first).to_be_visible()  # the curves
    mlflow.shoot("view-charts")


def test_the_views_address_opens_it_for_whoever_has_never_been_there(
    newcomer: Page, server: str, study: StoredStudy, nested: list[Run], client: MlflowClient
) -> None:
    assert study.tracking is not None
    newcomer.goto(address(server, study.tracking.experiment_id, study_id(study, client)))
    expect(Mlflow(newcomer, SCREENSHOTS).names()).to_have_count(len(nested))


def test_the_champion_has_a_page_that_leads_to_its_trial(mlflow: Mlflow, study: StoredStudy, client: MlflowClient) -> None:
    assert study.tracking is not None
    model, version = study.tracking.champion_name, study.tracking.champion_version
    mlflow.open_model(model)
    expect(mlflow.page.get_by_text("@ champion")).to_be_visible()
    mlflow.page.get_by_role("link", name=f"Version {version}", exact=True).click()
    expect(mlflow.page.get_by_role("heading", name=f"Version {version}")).to_be_visible()
    expect(mlflow.page.get_by_text("@ champion")).to_be_visible()
    mlflow.shoot("champion")
    source = client.get_run(str(client.get_model_version(model, version).run_id))
    assert source.data.tags["hpo.trial"].startswith("final-")
    mlflow.page.get_by_role("link", name=name(source), exact=True).first.click()  # the other is to its logged model, of the same name
    expect(mlflow.page.get_by_role("heading", name=name(source))).to_be_visible()
    expect(mlflow.page.get_by_role("link", name=model).first).to_be_visible()
    expect(mlflow.page.get_by_text(f"{model}/{version}")).to_be_visible()  # the tag hpo.champion
    mlflow.shoot("champion-trial")
    mlflow.page.get_by_role("link", name=study.name, exact=True).click()  # its parent
    expect(mlflow.page.get_by_text("Child runs", exact=True)).to_be_visible()
    mlflow.shoot("study-run")


def test_the_studys_run_keeps_its_spec_and_its_report(mlflow: Mlflow, study: StoredStudy, client: MlflowClient) -> None:
    mlflow.open_experiment("digits")
    mlflow.names().click()  # the study's run, the only one while it is not expanded
    mlflow.page.get_by_role("tab", name="Artifacts").click()
    mlflow.page.get_by_text("spec.json").click()
    expect(mlflow.page.get_by_text(re.compile('"learning_rate"')).first).to_be_visible()
    mlflow.shoot("spec")
    mlflow.page.get_by_text("report", exact=True).click()
    mlflow.page.get_by_text("index.html", exact=True).click()
    page = mlflow.page.frame_locator("iframe")
    expect(page.get_by_role("heading", name=study.name)).to_be_visible()
    expect(page.get_by_text("fresh run").first).to_be_visible()
    mlflow.shoot("report")
    assert study.tracking is not None
    pictures = [file.path for file in client.list_artifacts(study.tracking.parent_run_id, "report") if file.path.endswith(".png")]
    assert len(pictures) > 3
    for picture in pictures:
        mlflow.page.get_by_text(picture.removeprefix("report/"), exact=True).click()
        expect(mlflow.page.get_by_alt_text(picture)).to_be_visible()
        mlflow.shoot(picture.replace("/", "-").removesuffix(".png"))


def test_the_studys_run_and_the_model_say_what_was_chosen(mlflow: Mlflow, study: StoredStudy, client: MlflowClient) -> None:
    assert study.tracking is not None
    mlflow.open_experiment("digits")
    mlflow.names().click()
    expect(mlflow.page.get_by_text("replicated:")).to_be_visible()
    expect(mlflow.page.get_by_text(f"trials: {len(study.trials)}: ")).to_be_visible()
    mlflow.shoot("note")
    mlflow.open_model(study.tracking.champion_name)
    mlflow.page.get_by_role("link", name=f"Version {study.tracking.champion_version}", exact=True).click()
    expect(mlflow.page.get_by_text("replicated:")).to_be_visible()
