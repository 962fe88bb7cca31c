"""What trainers declare: built-ins, plug-ins that are never imported, and signatures."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from hpo.arguments import Argument
from hpo.declarations import builtins, check_space, declaration_from_signature, declared, find_declared, plugin_problems
from hpo.problem import SpecError
from hpo.spec import Spec, parse_spec, spec_from_dict
from hpo.trial import Direction

Metrics = Generator[dict[str, float], None, None]
Install = Callable[..., None]

DECLARATION = """\
tiny:
  summary: A plug-in
  metrics: {reward: maximize}
  hyperparameters:
    rate: {type: float, above: 0, high: 1}
    kind: {type: categorical, choices: [a, b], default: a}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution whose package raises when it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def one(package: str, declaration: str | bytes | None, *, entry: str = "{package}.mod:train", name: str = "tiny") -> None:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')")
        if declaration is not None:
            content = declaration if isinstance(declaration, bytes) else declaration.encode()
            (tmp_path / package / "hpo_trainers.yaml").write_bytes(content)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[hpo.trainers]\n{name} = {entry.format(package=package)}\n")
        importlib.invalidate_caches()

    return one


def test_the_built_in_trainer_is_declared() -> None:
    trainer = builtins()["image-mlp"]
    assert list(builtins()) == ["image-mlp"]
    assert trainer.entry == "trainers.image_mlp:train"
    assert trainer.metrics == {
        "val_accuracy": Direction.MAXIMIZE,
        "val_loss": Direction.MINIMIZE,
        "train_accuracy": Direction.MAXIMIZE,
        "train_loss": Direction.MINIMIZE,
    }
    assert {name: argument.default for name, argument in trainer.arguments.items()} == {
        "learning_rate": 1e-3,
        "weight_decay": 0,
        "dropout": 0,
        "width": 128,
        "dataset": "fashion-mnist",
        "max_epochs": 27,
        "batch_size": 128,
        "depth": 2,
        "optimizer": "adam",
        "decay": "decoupled",
        "train_size": None,
        "val_size": None,
    }
    assert not any(argument.required for argument in trainer.arguments.values())
    assert trainer.hyperparameters["learning_rate"].legal == "a number above 0, at most 10"
    assert trainer.settings["train_size"].legal == "a whole number at least 1 or null"
    assert trainer.settings["optimizer"].legal == "one of 'adam', 'sgd'"


@pytest.mark.parametrize(
    ("argument", "taken", "refused"),
    [
        (Argument("float", low=0, high=1), [0, 1, 0.5], [-0.1, 1.1, True, "0.5", None, float("nan"), [0.5]]),
        (Argument("float", above=0), [5e-324, 1e308], [0, -1, float("nan")]),
        (Argument("int", low=1), [1, 10**9], [0, 1.0, True, "1", None]),
        (Argument("bool"), [True, False], [0, 1, "true", None]),
        (Argument("text"), ["", "x"], [1, None]),
        (Argument("categorical", choices=("a", 1)), ["a", 1], ["b", 1.0, True, None]),
    ],
)
def test_what_an_argument_takes(argument: Argument, taken: list[object], refused: list[object]) -> None:
    assert all(argument.takes(value) for value in taken)
    assert not any(argument.takes(value) for value in refused)


def test_a_plug_in_is_declared_without_being_imported(install: Install) -> None:
    install("tiny_pkg", DECLARATION)
    assert plugin_problems() == ()
    assert list(declared()) == ["image-mlp", "tiny"]
    tiny = find_declared("tiny")
    assert tiny is not None
    assert (tiny.entry, tiny.metrics, tiny.max_epochs) == ("tiny_pkg.mod:train", {"reward": Direction.MAXIMIZE}, 10)
    assert tiny.hyperparameters["rate"].required
    assert not tiny.hyperparameters["kind"].required
    text = "{name: s, trainer: {name: tiny}, objective: {metric: reward, direction: maximize}, budget: {trials: 2}, space: {%s}}"
    assert parse_spec(text % "rate: {type: float, low: 0.1, high: 1}", "f").max_epochs == 10
    with pytest.raises(SpecError) as caught:
        parse_spec(text % "kind: {type: categorical, choices: [a, c]}", "f")
    assert sorted(problem.message for problem in caught.value.problems) == [
        "found the text 'c'; kind takes one of 'a', 'b'",
        "tiny needs rate (a number above 0, at most 1); fix it there or search it in space",
    ]
    assert "tiny_pkg" not in sys.modules


@pytest.mark.parametrize(
    ("declaration", "problem"),
    [
        (None, "plug-in bad_pkg: tiny: its package 'bad_pkg' has no file hpo_trainers.yaml, where a trainer is declared"),
        ("other: {}", "plug-in bad_pkg: {file}:1:1: declares no trainer 'tiny', which the entry point names"),
        ("[]", "plug-in bad_pkg: {file}:1:1: found a list; a mapping from trainer names to declarations is needed"),
        ("tiny: 3", "plug-in bad_pkg: {file}:1:7: tiny: found 3; a mapping is needed"),
        ("tiny: {sumary: x}", "plug-in bad_pkg: {file}:1:8: tiny.sumary: unknown key; did you mean `summary`?"),
        (
            "tiny: {hyperparameters: {x: {typ: int}}}",
            "plug-in bad_pkg: {file}:1:26: tiny.hyperparameters.x.type: missing; it has no default\n"
            "plug-in bad_pkg: {file}:1:30: tiny.hyperparameters.x.typ: unknown key; did you mean `type`?",
        ),
        ("tiny: {metrics: {a: up}}", "plug-in bad_pkg: {file}:1:21: tiny.metrics.a: found the text 'up'; allowed: maximize, minimize"),
        (
            "tiny: {hyperparameters: {x: {type: float, low: 1, default: 0}}}",
            "plug-in bad_pkg: {file}:1:60: tiny.hyperparameters.x.default: found 0, outside what is declared: a number at least 1",
        ),
        ("tiny: {settings: {x: {type: categorical}}}", "plug-in bad_pkg: {file}:1:22: tiny.settings.x: a categorical needs choices"),
        ("tiny: {settings: {x-y: {type: int}}}", "plug-in bad_pkg: {file}:1:24: tiny.settings.x-y: is not the name of a Python argument"),
        ("tiny: [", "plug-in bad_pkg: {file}:2:1: is not YAML: did not find expected node content (while parsing a flow node from 2:1)"),
        (b"tiny: \xff", "plug-in bad_pkg: {file}:1:7: is not UTF-8: byte 0xff at offset 6; save the file as UTF-8"),
    ],
)
def test_a_broken_plug_in_is_named_and_harms_nobody_else(
    install: Install, tmp_path: Path, declaration: str | bytes | None, problem: str
) -> None:
    install("bad_pkg", declaration)
    install("good_pkg", DECLARATION.replace("tiny:", "good:"), name="good")
    expected = problem.format(file=tmp_path / "bad_pkg" / "hpo_trainers.yaml")
    assert [str(found) for found in plugin_problems()] == expected.splitlines()
    assert list(declared()) == ["image-mlp", "good"]
    with pytest.raises(SpecError, match="the plug-in of trainer 'tiny' is broken: plug-in bad_pkg: "):
        parse_spec("{trainer: {name: tiny}}", "f")


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        ("tiny", "no_such_pkg.mod:train", "tiny: its package 'no_such_pkg' is not installed"),
        ("tiny", "pkg.mod", "tiny: its entry point is the text 'pkg.mod'; `package.module:function` is needed"),
        ("image-mlp", "{package}.mod:train", "image-mlp: another trainer has this name; that one is used"),
    ],
)
def test_an_entry_point_that_leads_nowhere(install: Install, name: str, entry: str, problem: str) -> None:
    install("odd_pkg", DECLARATION, name=name, entry=entry)
    assert [str(found) for found in plugin_problems()] == [f"plug-in odd_pkg: {problem}"]
    assert list(declared()) == ["image-mlp"]


def good(trial: Any, *, rate: float, width: int = 64, kind: str = "a", flag: bool = False) -> Metrics:
    """Learns.

    At length.
    """
    yield {}


def test_a_signature_is_a_declaration() -> None:
    found = declaration_from_signature(good)
    assert found.entry == f"{__name__}:good"
    assert found.summary == "Learns."
    assert found.hyperparameters == {
        "rate": Argument("float", required=True),
        "width": Argument("int", default=64),
        "kind": Argument("text", default="a"),
        "flag": Argument("bool", default=False),
    }
    assert found.max_epochs == 10


def no_generator(trial: Any, *, rate: float) -> dict[str, float]:
    return {}


def no_trial(*, rate: float) -> Metrics:
    yield {}


def nothing() -> Metrics:
    yield {}


def positional(trial: Any, rate: float, *more: float, **others: float) -> Metrics:
    yield {}


def unannotated(trial: Any, *, rate, sizes: list[int]) -> Metrics:  # type: ignore[no-untyped-def]
    yield {}


def wrong_default(trial: Any, *, width: int = 0.5) -> Metrics:  # type: ignore[assignment]
    yield {}


def unreadable(trial: Any, *, width: Nowhere) -> Metrics:  # type: ignore[name-defined]  # noqa: F821
    yield {}


TRIAL = "takes no trial; its first argument is the trial: def train(trial, *, learning_rate: float)"
KEYWORD = "is not keyword-only; write `*` after the trial and name every hyperparameter"
ANNOTATION = "needs one of the annotations float, int, str, bool"


@pytest.mark.parametrize(
    ("function", "problems"),
    [
        (no_generator, ["is not a generator function; a trainer yields a mapping of metrics after every epoch"]),
        (no_trial, [TRIAL]),
        (nothing, [TRIAL]),
        (positional, [f"'rate: float': {KEYWORD}", f"'*more: float': {KEYWORD}", f"'**others: float': {KEYWORD}"]),
        (unannotated, [f"rate: {ANNOTATION}", f"sizes: {ANNOTATION}"]),
        (wrong_default, ["width: has the default 0.5; a whole number is needed"]),
        (unreadable, ["has annotations that cannot be read (NameError: name 'Nowhere' is not defined)"]),
    ],
)
def test_what_a_trainer_function_may_not_be(function: Callable[..., Any], problems: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        declaration_from_signature(function)
    assert str(caught.value).splitlines() == [f"--trainer {__name__}:{function.__name__}: {problem}" for problem in problems]


def spec_with(settings: dict[str, Any], space: dict[str, Any]) -> Spec:
    objective = {"metric": "m", "direction": "minimize"}
    return spec_from_dict(
        {"name": "s", "trainer": {"name": "m:f", "settings": settings}, "objective": objective, "space": space, "budget": {"trials": 1}}
    )


RATE = {"rate": {"type": "float", "low": 0.1, "high": 1}}


@pytest.mark.parametrize(
    ("settings", "space", "problems"),
    [
        ({}, RATE, []),
        ({"rate": 1, "max_epochs": 3, "flag": True}, {"width": {"type": "int", "low": 1, "high": 2}}, []),
        ({"rate": 0.5}, {"kind": {"type": "categorical", "choices": ["x", "y"]}}, []),
        ({"width": 2.5}, RATE, [("trainer.settings.width", "found 2.5; width takes a whole number")]),
        ({"widht": 2}, RATE, [("trainer.settings.widht", "good has no such setting or hyperparameter; did you mean `width`?")]),
        (
            {},
            {"width": {"type": "int", "low": 1, "high": 2}},
            [("trainer.settings", "good needs rate (a number); fix it there or search it in space")],
        ),
        (
            {},
            RATE | {"width": {"type": "float", "low": 1, "high": 2}},
            [("space.width.type", "found float; width takes a whole number: use type int")],
        ),
        (
            {},
            RATE | {"kind": {"type": "int", "low": 1, "high": 2}},
            [("space.kind.type", "found int; kind takes text: use type categorical")],
        ),
        ({}, RATE | {"flag": {"type": "categorical", "choices": [1]}}, [("space.flag.choices[0]", "found 1; flag takes true or false")]),
        ({"rate": 1}, RATE, [("space.rate", "is fixed in trainer.settings and searched here; keep one of the two")]),
        (
            {},
            RATE | {"max_epochs": {"type": "int", "low": 1, "high": 2}},
            [("space.max_epochs", "is a setting, not a hyperparameter; fix it in trainer.settings")],
        ),
    ],
)
def test_a_spec_is_checked_against_a_signature(settings: dict[str, Any], space: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    found = check_space(spec_with(settings, space), declaration_from_signature(good))
    assert found == [(path, message.replace("good ", f"{__name__}:good ")) for path, message in problems]
