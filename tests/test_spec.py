"""The spec: what a file may say, and the exact words for everything that it may not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpo.durations import seconds
from hpo.space import Categorical, Float, Int
from hpo.spec import (
    Asha,
    Budget,
    Checkpoints,
    NoStopper,
    Patience,
    Resources,
    SamplerChoice,
    SpecError,
    Tracking,
    load_spec,
    parse_spec,
    spec_from_dict,
)
from hpo.stopping import Stopper
from hpo.trial import Direction
from hpo.yaml_source import parse_document

FOLDER = Path(__file__).parent.parent / "search_spaces"
PROMOTED, STOPPED = Asha(rule="promote", reduction_factor=4), Asha(rule="stop", reduction_factor=3)
BASE = """\
name: study
trainer:
  name: mlp
  settings: {dataset: digits, max_epochs: 9}
objective: {metric: val_accuracy, direction: maximize}
space:
  learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}
  dropout: {type: float, low: 0, high: 0.8, step: 0.2, grid: [0, 0.4]}
  width: {type: int, low: 32, high: 64, step: 8}
sampler: {name: tpe}
pruner: {name: asha, grace_epochs: 1, reduction_factor: 3}
stopper: {name: patience, epochs: 5}
budget: {trials: 20, time: 30m}
resources: {cpus: 1, gpus: auto}
"""
RATE = "learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}"
WIDTH = "width: {type: int, low: 32, high: 64, step: 8}"


def test_the_main_example_reads_as_it_is_written() -> None:
    spec = load_spec(FOLDER / "fashion.yaml")
    assert spec.name == "fashion"
    assert spec.trainer.name == "mlp"
    sizes = {"max_epochs": 27, "batch_size": 128, "depth": 2}
    assert spec.trainer.settings == {"dataset": "fashion-mnist", **sizes, "schedule": "cosine", "label_smoothing": 0.1}
    assert (spec.objective.metric, spec.objective.direction) == ("val_accuracy", Direction.MAXIMIZE)
    assert list(spec.space) == ["learning_rate", "weight_decay", "dropout", "width"]
    assert spec.space["learning_rate"] == Float(1e-4, 1e-1, log=True, grid=(3e-4, 1e-3, 3e-3))
    assert spec.space["width"] == Int(32, 1024, log=True, grid=(128, 512))
    assert spec.sampler == SamplerChoice("ladders")
    assert spec.pruner == Asha(rule="promote", grace_epochs=1, reduction_factor=4)
    assert spec.stopper == NoStopper()
    assert spec.budget == Budget(trials=200, time_s=1800.0, epochs=270)
    assert spec.resources == Resources(cpus=1.0, gpus="auto")
    assert spec.seed == 0
    assert spec.tracking == Tracking(uri=None, experiment="fashion", registered_model="fashion-mlp")
    assert spec.checkpoints == Checkpoints(every_s=30.0, keep=3)
    assert spec.max_epochs == 27


def test_what_is_left_out_has_a_default() -> None:
    text = "{name: s, trainer: {name: mlp}, objective: {metric: val_loss, direction: minimize}, budget: {trials: 1}, "
    spec = parse_spec(text + "space: {dropout: {type: categorical, choices: [0.1, 0.5]}}}", "f")
    assert spec.space == {"dropout": Categorical((0.1, 0.5))}
    assert (spec.sampler, spec.pruner, spec.stopper) == (SamplerChoice("ladders"), Asha(rule="promote", reduction_factor=4), NoStopper())
    assert spec.start == ()
    assert (spec.budget, spec.resources, spec.seed) == (Budget(1, None), Resources(1.0, "auto"), 0)
    assert spec.tracking == Tracking(None, "s", "s")
    assert spec.max_epochs == 27  # the trainer's declared default
    assert spec.trainer.settings == {"max_epochs": 27}


@pytest.mark.parametrize("file", ["fashion.yaml", "digits.yaml"])
def test_every_file_that_we_ship_is_valid_for_every_sampler(file: str) -> None:
    for sampler in ("ladders", "grid", "sweep", "random", "tpe", "gp", "cmaes", "qmc"):
        found = load_spec(FOLDER / file, overrides=[f"sampler.name={sampler}", "pruner={name: asha}"])
        assert (found.sampler.name, found.pruner) == (sampler, PROMOTED if sampler == "ladders" else STOPPED)


def test_the_files_that_we_ship_are_these() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.yaml")) == [
        "digits.yaml",
        "fashion.yaml",
        "fashion_convnet.yaml",
        "fashion_grid.yaml",
        "fashion_regularisation.yaml",
        "imdb.yaml",
        "mnist.yaml",
        "proben1.yaml",
        "sst2.yaml",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (RATE, "learning_rate: {type: float, low: 0.1, high: 0.1}"),  # a constant
        (WIDTH, "width: {type: int, low: 1, high: 16384, log: true}"),  # both bounds of the legal range
        (RATE, "weight_decay: {type: int, low: 0, high: 2}"),  # whole numbers are numbers
        (RATE, "weight_decay: {type: float, low: 0, high: 0.7, step: 0.1, grid: [0.3, 0.6]}"),  # steps, as floats have them
        (WIDTH, "width: {type: categorical, choices: [32, 64], grid: [64]}"),
        ("digits, ", "digits, train_size: null, val_size: 500, "),
        ("gpus: auto", "gpus: 0.25"),
        ("gpus: auto", "gpus: 4"),
        ("cpus: 1,", "cpus: 0.5,"),
        ("{name: asha, grace_epochs: 1, reduction_factor: 3}", "{name: none}"),
        ("{name: patience, epochs: 5}", "{name: none}"),
        ("epochs: 5}", "epochs: 5, min_improvement: 0.001, metric: val_loss, direction: minimize}"),
        ("epochs: 5}", "epochs: 5, metric: null, direction: maximize}"),
        ("{name: patience, epochs: 5}", "{name: gl}"),
        ("{name: patience, epochs: 5}", "{name: gl, threshold: 0, metric: train_loss}"),
        ("{name: patience, epochs: 5}", "{name: pq, threshold: 0.5, strip: 1, metric: null, training_metric: train_loss}"),
        ("{name: patience, epochs: 5}", "{name: up, strips: 1, strip: 1}"),
        ("time: 30m", "time: null"),
        ("grace_epochs: 1", "grace_epochs: 9"),
        ("name: study", "name: A_1.b-C"),
    ],
)
def test_what_is_allowed(old: str, new: str) -> None:
    assert old in BASE
    parse_spec(BASE.replace(old, new), "f.yaml")


def stopper(text: str, *, trainer: str = "mlp") -> Stopper:
    """The stopper of BASE (which maximizes val_accuracy), as the spec holds it."""
    changed = BASE.replace("{name: patience, epochs: 5}", text)
    if trainer == "mlp":
        return parse_spec(changed, "f.yaml").stopper
    plain = parse_document(changed, "f.yaml").data
    return spec_from_dict({**plain, "trainer": {"name": trainer, "settings": {"max_epochs": 9}}}).stopper


@pytest.mark.parametrize(
    ("trainer", "metric", "direction"),
    [
        ("mlp", "null", None),  # the objective and its own
        ("mlp", "val_accuracy", Direction.MAXIMIZE),
        ("mlp", "train_accuracy", Direction.MAXIMIZE),  # as declared
        ("mlp", "val_loss", Direction.MINIMIZE),
        ("m:f", "val_accuracy", Direction.MAXIMIZE),  # as the objective
        ("m:f", "anything", Direction.MINIMIZE),  # nobody knows it
        ("m:f", "anything, direction: maximize", Direction.MAXIMIZE),
    ],
)
def test_the_direction_of_a_watched_metric_is_written_out(trainer: str, metric: str, direction: Direction | None) -> None:
    found = stopper(f"{{name: patience, metric: {metric}}}", trainer=trainer)
    assert isinstance(found, Patience)
    assert found.direction is direction


def test_a_stopper_written_by_an_earlier_version_reads_as_it_did() -> None:
    assert stopper("{name: patience, epochs: 7}", trainer="m:f") == Patience(epochs=7)


@pytest.mark.parametrize("objective", ["{metric: val_loss, direction: maximize}", "{metric: train_loss, direction: maximize}"])
def test_a_criterion_for_losses_refuses_an_objective_that_is_maximized(objective: str) -> None:
    text = BASE.replace("{name: patience, epochs: 5}", "{name: pq}").replace("{metric: val_accuracy, direction: maximize}", objective)
    with pytest.raises(SpecError, match="which is better higher; pq needs a loss, 0 at best"):
        spec_from_dict({**parse_document(text, "f.yaml").data, "trainer": {"name": "m:f"}})


def mistakes() -> list[tuple[str, list[str]]]:
    """Each case of mistakes.txt: the change, and the problems it makes."""
    cases: list[tuple[str, list[str]]] = []
    for line in (Path(__file__).parent / "specs" / "mistakes.txt").read_text().splitlines():
        if line.startswith("    "):
            cases[-1][1].append(f"f.yaml:{line.strip()}")
        elif line and not line.startswith("#"):
            cases.append((line.replace("\\n", "\n"), []))
    return cases


def test_no_mistake_is_lost() -> None:
    cases = mistakes()
    assert len(cases) == 129
    assert all(problems for _, problems in cases)


@pytest.mark.parametrize(("change", "problems"), mistakes(), ids=[change for change, _ in mistakes()])
def test_a_mistake_is_told_in_these_words(change: str, problems: list[str]) -> None:
    if change.startswith("+ "):
        text = BASE + change.removeprefix("+ ") + "\n"
    else:
        old, new = change.split(" => ")
        assert old in BASE
        text = BASE.replace(old, new, 1)
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "f.yaml")
    assert str(caught.value).splitlines() == problems


def test_every_mistake_is_reported_in_one_pass_in_the_order_of_the_file() -> None:
    text = BASE
    for change in ["name: study => name: ..", "digits => digit", "maximize => max", "low: 1e-4 => low: 0", "high: 0.8 => high: .inf"]:
        text = text.replace(*change.split(" => "))
    for change in ["step: 8 => step: 7", "tpe => tep", "epochs: 5 => epoch: 5", "trials: 20 => trials: '20'", "30m => 30", "auto => -1"]:
        text = text.replace(*change.split(" => "))
    with pytest.raises(SpecError) as caught:
        parse_spec(text + "name: again\nseed: 1e999\n", "f.yaml")
    found = [(problem.line, problem.path) for problem in caught.value.problems]
    assert found == [
        (1, "name"),
        (4, "trainer.settings.dataset"),
        (5, "objective.direction"),
        (7, "space.learning_rate.low"),
        (8, "space.dropout.high"),
        (9, "space.width.step"),
        (10, "sampler.name"),
        (12, "stopper.epoch"),
        (13, "budget.trials"),
        (13, "budget.time"),
        (14, "resources.gpus"),
        (15, "name"),
        (16, "seed"),
    ]


@pytest.mark.parametrize("text", ["3", "[1, 2]", "text", "- a\n- b"])
def test_a_spec_is_a_mapping(text: str) -> None:
    with pytest.raises(SpecError, match=r"^f:1:1: found .*; a mapping is needed$"):
        parse_spec(text, "f")


def test_a_grid_larger_than_the_budget_is_refused_with_both_numbers() -> None:
    overrides = ["sampler.name=grid", "space.width.grid=[64, 128, 256]"]
    assert load_spec(FOLDER / "digits.yaml", overrides=overrides, trials=24).budget.trials == 24
    with pytest.raises(SpecError) as caught:
        load_spec(FOLDER / "digits.yaml", overrides=overrides, trials=23)
    advice = "allow 24, give fewer points, or use another sampler"
    assert str(caught.value) == f"--trials 23: budget.trials: the grid has 24 points and the budget 23 trials; {advice}"


def test_a_grid_of_all_integers_is_counted_not_listed() -> None:
    text = BASE.replace(RATE, "weight_decay: {type: int, low: 0, high: 10}").replace(WIDTH, "width: {type: int, low: 1, high: 16384}")
    start = time.perf_counter()
    with pytest.raises(SpecError, match="the grid has 360448 points and the budget 20 trials"):
        parse_spec(text.replace("tpe", "grid"), "f")
    with pytest.raises(SpecError):
        parse_spec(text.replace("tpe", "grid").replace("16384", "9007199254740992"), "f")
    assert time.perf_counter() - start < 0.5


def test_options_win_over_the_file_and_their_mistakes_are_placed_at_them() -> None:
    path = FOLDER / "digits.yaml"
    spec = load_spec(path, overrides=["seed=7", "trainer.settings.depth=3", "sampler={name: random}"], name="mine", trials=5, time="1h30m")
    assert (spec.name, spec.seed, spec.sampler.name, spec.trainer.settings["depth"]) == ("mine", 7, "random", 3)
    assert spec.budget == Budget(5, 5400.0)
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides=["seed=x", "foo=1", "space.width.low=0"], name="..", trials=0, time="30")
    assert sorted(str(caught.value).splitlines()) == [
        "--name ..: name: found the text '..'; a name is at most 64 of A-Z a-z 0-9 . _ - and starts with a letter, digit or _, "
        "because it becomes a folder",
        "--set foo=1: foo: unknown key; allowed: name, trainer, objective, space, start, sampler, pruner, stopper, budget, resources, "
        "seed, tracking, checkpoints, limits, finals",
        "--set seed=x: seed: found the text 'x'; a whole number is needed",
        "--set space.width.low=0: space.width.low: 0 has no logarithm; with `log: true`, low must be at least 1",
        "--time 30: budget.time: found 30 without a unit; write 30s, 30m, 30h or 30d",
        "--trials 0: budget.trials: found 0; at least 1 is needed",
    ]


def test_a_missing_file_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: not found; give the path of a YAML file$"):
        load_spec(tmp_path / "none.yaml")


def test_a_function_as_trainer_takes_any_names() -> None:
    overrides = ["space.anything={type: int, low: 1, high: 3}", "objective.metric=reward", "trainer.settings={rounds: 4}"]
    spec = load_spec(FOLDER / "digits.yaml", overrides=overrides, trainer_override="my_pkg.mod:train")
    assert spec.trainer.name == "my_pkg.mod:train"
    assert spec.trainer.settings == {"rounds": 4, "max_epochs": 10}
    assert spec_from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("entry", ["mod", "mod:", ":train", "my-mod:train", "a.b:c:d", "a b:c", "a:b\n"])
def test_a_function_is_named_with_its_module(entry: str) -> None:
    with pytest.raises(SpecError, match=r"`package.module:function`"):
        load_spec(FOLDER / "digits.yaml", trainer_override=entry)


def test_a_function_may_replace_a_trainer_that_is_not_named(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(BASE.replace("name: mlp", "").replace("dataset: digits, ", ""))
    assert load_spec(file, trainer_override="m:f").trainer.settings == {"max_epochs": 9}


def test_reading_a_spec_loads_no_heavy_library() -> None:
    heavy = ("torch", "ray", "mlflow", "optuna", "numpy", "pandas", "sklearn")
    code = f"import sys; from hpo.spec import load_spec; load_spec({str(FOLDER / 'fashion.yaml')!r}); "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "duration"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("0.5h", 1800), ("1d 2h 3m 4s", 93784)]
)
def test_times(text: str, duration: float) -> None:
    assert seconds(text) == duration
