"""Every study can be drawn, whatever state it is in, and the pictures show what was measured, on the axes that were searched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from hpo.importance import importance
from hpo.pictures import CHARTS, against, curves, draw, parallel, progress, style
from hpo.pictures.measured import best_so_far, finals_span, searched
from hpo.pictures.picture import Drawn, Picture
from hpo.pictures.time import IDLE, at_once, spent
from hpo.results import StoredStudy
from hpo.space import Categorical, Float, Int, Parameter
from hpo.trial import Direction, State
from tests.drawn_studies import COMPLETE, FAILED, HOSTILE, MIXED, PRUNED, STORIES, Story, finals, written

FINALS = Story([(COMPLETE, [0.5, 0.9]), (COMPLETE, [0.6, 0.8]), (PRUNED, [0.2])])


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pixels: what is asked of a picture here does not depend on them."""
    monkeypatch.setattr(style, "DPI", 40)
    monkeypatch.setattr(style, "SVG_DPI", 40)


def figure(found: Drawn | str) -> Figure:
    assert isinstance(found, Drawn)
    return found.figure


def lines(drawn: Figure) -> list[LineCollection]:
    return [one for one in drawn.axes[0].collections if isinstance(one, LineCollection)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def stored(home: Path, name: str) -> StoredStudy:
    """The study of that name, written down once."""
    return StoredStudy.open(home / name) if (home / name).exists() else written(home / name, STORIES[name])


@pytest.fixture(scope="module")
def hostile(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Picture]]:
    """A study's charts, all of whose names are odd."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        yield draw(stored(home, "hostile"), tmp_path_factory.mktemp("hostile"))


EMPTY = {
    "none": set(CHARTS),
    "only-asked": set(CHARTS),
    "failed-at-once": set(CHARTS),
    "all-failed": {"progress", "importance"},  # curves, but no value that counts
}
ALL_BUT_IMPORTANCE = {"one", "mixed", "minimised", "extreme", "not-finite-beside", "one-parameter", "constant"}


def test_a_chart_is_laid_out_once_and_drawn_once_for_each_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def counted(kind: type, name: str) -> None:
        call = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *given, **named: (done.append(name), call(*given, **named))[1])

    counted(Figure, "draw")
    counted(ConstrainedLayoutEngine, "execute")
    drawn = [one for one in draw(stored(home, "mixed"), tmp_path) if not one.lacking]
    assert len(drawn) == len(CHARTS) - 1
    assert Counter(done) == {"draw": 2 * len(drawn), "execute": len(drawn)}


@pytest.mark.parametrize("name", [name for name in STORIES if name != "hostile"])
def test_every_study_can_be_drawn_or_it_is_said_why_not(name: str, home: Path, tmp_path: Path) -> None:
    pictures = draw(stored(home, name), tmp_path)
    assert [one.name for one in pictures] == list(CHARTS)
    assert {one.name for one in pictures if one.lacking} == EMPTY.get(name, {"importance"} if name in ALL_BUT_IMPORTANCE else set())
    for one in pictures:
        if one.lacking:
            assert (one.png, one.svg) == (None, None)
        else:
            assert one.png is not None
            assert one.svg is not None
            assert one.png.read_bytes().startswith(b"\x89PNG")
            assert "</svg>" in one.svg.read_text()
            assert one.caption.endswith(".")


def test_a_chart_of_an_earlier_report_does_not_stay_where_it_cannot_be_drawn_now(home: Path, tmp_path: Path) -> None:
    draw(stored(home, "one"), tmp_path)
    assert (tmp_path / "curves.png").exists()
    draw(stored(home, "none"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_drawing_twice_gives_the_same_bytes(hostile: list[Picture], home: Path, tmp_path: Path) -> None:
    again = draw(stored(home, "hostile"), tmp_path)
    assert [one.name for one in hostile] == list(CHARTS)
    for one, other in zip(hostile, again, strict=True):
        assert one.svg is not None
        assert other.svg is not None
        assert one.svg.read_bytes() == other.svg.read_bytes()
        assert "<dc:date>" not in one.svg.read_text()


def test_names_are_written_as_they_are(hostile: list[Picture]) -> None:
    (path,) = [one.svg for one in hostile if one.name == "against"]
    assert path is not None
    drawn = path.read_text()
    assert ">$rate_1 (log)</text>" in drawn
    assert ">val_$x_1$</text>" in drawn
    assert "<script" not in drawn
    assert style.shortened(HOSTILE, 34).replace("<", "&lt;").replace(">", "&gt;") in drawn


@pytest.mark.parametrize("name", ["mixed", "minimised", "choices", "extreme", "twelve", "only-pruned", "all-the-same"])
def test_every_measured_trial_is_a_line_in_parallel_coordinates(name: str, home: Path) -> None:
    study = stored(home, name)
    (drawn,) = lines(figure(parallel.chart(study)))
    paths = drawn.get_paths()
    assert len(paths) == len(searched(study)) == sum(bool(values) for _, values in STORIES[name].runs)
    assert all(len(path.vertices) == len(study.spec.space) + 1 for path in paths)
    assert all(-0.04 <= y <= 1.04 for path in paths for _, y in path.vertices.tolist())


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_best_trial_is_drawn_last_and_darkest_and_ends_on_top(direction: str, tmp_path: Path) -> None:
    runs = [(COMPLETE, [0.01 * (7 * at % 30)]) for at in range(30)] + [(FAILED, [9.0 if direction == "maximize" else -9.0])]
    (drawn,) = lines(figure(parallel.chart(written(tmp_path / "study", Story(runs, direction=direction)))))
    heights = [path.vertices.tolist()[-1][1] for path in drawn.get_paths()][1:]  # the failed one lies below all
    assert heights == sorted(heights)
    assert drawn.get_colors()[:, :3].sum(axis=1).argmin() == len(runs) - 1


def test_the_finals_are_no_trials_of_the_search(tmp_path: Path) -> None:
    study = written(tmp_path / "finals", FINALS, finals(0.6, 0.5))
    (drawn,) = lines(figure(parallel.chart(study)))
    assert len(drawn.get_paths()) == 3
    assert best_so_far(study) == [0.5, 0.9, 0.9, 0.9, 0.9]
    span = finals_span(study)
    assert span is not None
    assert (span.begin, span.epochs) == (5, 8)
    assert dict(spent(study).training) == {"complete trials": 6.0, "pruned trials": 1.5, "finals": 12.0}
    drawn_progress = progress.chart(study)
    assert isinstance(drawn_progress, Drawn)
    assert "finals begin (8 epochs more)" in drawn_progress.caption
    assert "finals" in [text.get_text() for text in drawn_progress.figure.axes[0].texts]


@pytest.mark.parametrize(
    ("parameter", "is_log"),
    [
        (Float(1e-4, 1.0, log=True), True),
        (Float(1e-4, 1.0), False),
        (Int(1, 64, log=True), True),
        (Int(1, 64), False),
        (Categorical((1, 2)), False),
        (Float(0.5, 0.5, log=True), False),  # one value has no axis
    ],
)
def test_an_axis_is_logarithmic_just_where_the_range_is(parameter: Parameter, is_log: bool, tmp_path: Path) -> None:
    plain: dict[str, object] = {"type": parameter.type}
    plain |= {"choices": list(parameter.choices)} if isinstance(parameter, Categorical) else {"low": parameter.low, "high": parameter.high}
    plain |= {"log": True} if not isinstance(parameter, Categorical) and parameter.log else {}
    value = parameter.choices[0] if isinstance(parameter, Categorical) else parameter.low
    study = written(tmp_path / "study", Story([(COMPLETE, [0.5])], {"p": plain}, [{"p": value}]))
    (axes,) = figure(against.chart(study)).axes
    assert axes.get_xscale() == ("log" if is_log else "linear")


def test_training_and_validation_are_taken_at_the_best_epoch_and_early_ends_are_known(tmp_path: Path) -> None:
    story = Story([(COMPLETE, [0.2, 0.9, 0.5]), (PRUNED, [0.3]), (PRUNED, [0.3, 0.4])], metric="val_accuracy", more={"train_accuracy": 0.7})
    study = written(tmp_path / "study", story)
    found = against.points(study, searched(study), "x")
    assert [(p.val, p.train, p.short) for p in found] == [(0.9, 0.7, False), (0.3, 0.7, True), (0.4, 0.7, False)]


@pytest.mark.parametrize("name", ["pairs", "not-finite-beside", "mixed"])
def test_training_is_shown_where_it_was_measured(name: str, home: Path) -> None:
    study = stored(home, name)
    found = against.points(study, searched(study), "x")
    assert all((point.train is not None) is (name == "pairs") for point in found)


def test_every_state_has_curves_of_its_own(home: Path) -> None:
    drawn = figure(curves.chart(stored(home, "mixed")))
    assert sum(len(one.get_paths()) for one in lines(drawn)) == sum(bool(values) for _, values in MIXED)
    (legend,) = drawn.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["complete (1)", "pruned (1)", "paused (1)", "running (1)", "failed (1)", "best: trial 0", "rung"]
    strokes = [(curves.STROKES[state].dashes, curves.STROKES[state].mark) for state in State]
    assert len(set(strokes)) == len(State)  # told apart without their colours


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([COMPLETE, PRUNED, FAILED]), st.lists(st.floats(-9, 9), max_size=4)), max_size=8),
    st.sampled_from(Direction),
)
def test_best_so_far_counts_every_epoch_and_never_gets_worse(
    tmp_path_factory: pytest.TempPathFactory, runs: Sequence[tuple[State, list[float]]], direction: Direction
) -> None:
    found = best_so_far(written(tmp_path_factory.mktemp("any") / "study", Story(runs, direction=direction)))
    assert len(found) == sum(len(values) for _, values in runs)
    known = [direction.loss(value) for value in found if value is not None]
    assert known == sorted(known, reverse=True)
    sound = [direction.loss(value) for state, values in runs if state is not FAILED for value in values]
    assert known[-1:] == ([min(sound)] if sound else [])


@given(st.lists(st.floats(-1e99, 1e99), min_size=1, max_size=30), st.sampled_from(Direction))
def test_a_window_has_room_and_holds_the_best_and_half_of_all(values: list[float], direction: Direction) -> None:
    shown = style.window(values, direction)
    assert shown.low < shown.high
    best = direction.loss(min(map(direction.loss, values)))
    assert shown.inside(best) == best
    assert shown.beyond <= len(values) // 2


def test_what_one_diverged_trial_measured_does_not_press_the_others_into_a_line() -> None:
    shown = style.window([0.1, 0.2, 0.3, 1e9], Direction.MINIMIZE)
    assert (shown.low, shown.beyond) == (0.1, 1)
    assert shown.high < 2


def test_importance_finds_the_parameter_that_decides(tmp_path: Path) -> None:
    params = [{"x": (37 * at % 100) / 100, "rate": 10.0 ** -(at * 13 % 40 / 10), "width": 1 + at * 29 % 64} for at in range(100)]
    study = written(tmp_path / "study", Story([(COMPLETE, [1 - abs(one["x"] - 0.3)]) for one in params], params=params))
    found = importance(study)
    assert found.lacking == ""
    assert (found.trials, found.best) == (100, 10)
    assert sum(one.share for one in found.shares) == pytest.approx(1)
    first, *others = found.shares
    assert first.parameter == "x"
    assert first.share > max(0.6, 2 * first.by_chance)
    assert all(one.share < 2 * first.by_chance for one in others)
    assert importance(study) == found


def test_importance_is_not_claimed_of_few_trials(home: Path) -> None:
    found = importance(stored(home, "mixed"))
    assert found.shares == ()
    assert "20" in found.lacking


def test_time_is_that_of_the_epochs_and_the_rest_of_the_slots(home: Path) -> None:
    study = stored(home, "mixed")
    found = spent(study)
    assert sum(seconds for _, seconds in found.training) == 1.5 * sum(len(values) for _, values in MIXED)
    assert found.slots == at_once(record.event for record in study.records) == 2  # the one that runs on, and the next
    assert found.idle_s is None  # this journal was written in no time
    assert IDLE not in [name for name, _ in found.training]
