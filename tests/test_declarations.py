"""What trainers declare: built-ins, plug-ins that are never imported, and signatures."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

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


def test_the_built_in_trainers_are_declared() -> None:
    trainer = builtins()["mlp"]
    assert list(builtins()) == ["mlp", "convnet", "simulated"]
    assert trainer.entry == "trainers.mlp:train"
    assert trainer.metrics == {
        "val_accuracy": Direction.MAXIMIZE,
        "val_loss": Direction.MINIMIZE,
        "train_accuracy": Direction.MAXIMIZE,
        "train_loss": Direction.MINIMIZE,
        "generalisation_gap": Direction.MINIMIZE,
    }
    assert trainer.max_epochs == 27
    assert {"depth", "widths", "activation"} <= trainer.hyperparameters.keys() - builtins()["convnet"].hyperparameters.keys()
    assert {"learning_rate", "shift"} <= trainer.hyperparameters.keys() & builtins()["convnet"].hyperparameters.keys()
    assert not any(argument.required for argument in trainer.arguments.values())
    assert trainer.hyperparameters["learning_rate"].legal == "a number above 0, at most 10"
    assert trainer.hyperparameters["widths"].legal == "text like 128-64 or null"
    assert trainer.settings["train_size"].legal == "a whole number at least 1 or null"
    assert trainer.settings["loss"].legal == "one of 'cross_entropy', 'squared_error'"


@pytest.mark.parametrize(
    ("argument", "taken", "refused"),
    [
        (Argument("float", low=0, high=1), [0, 1, 0.5], [-0.1, 1.1, True, "0.5", None, float("nan"), [0.5]]),
        (Argument("float", above=0), [5e-324, 1e308], [0, -1, float("nan")]),
        (Argument("int", low=1), [1, 10**9], [0, 1.0, True, "1", None]),
        (Argument("bool"), [True, False], [0, 1, "true", None]),
        (Argument("text"), ["", "x"], [1, None]),
        (Argument("text", pattern="[a-z]+[123]", example="cancer1"), ["a1", "glass3"], ["", "a", "a1 ", "a1\n", "1", "xa4", 1, None]),
        (Argument("categorical", choices=("a", 1)), ["a", 1], ["b", 1.0, True, None]),
    ],
)
def test_what_an_argument_takes(argument: Argument, taken: list[object], refused: list[object]) -> None:
    assert all(argument.takes(value) for value in taken)
    assert not any(argument.takes(value) for value in refused)


def test_a_plug_in_is_declared_without_being_imported(install: Install) -> None:
    install("tiny_pkg", DECLARATION)
    assert plugin_problems() == ()
    assert list(declared()) == ["mlp", "convnet", "simulated", "tiny"]
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


PATTERNS = [
    ("{type: text, pattern: a}", 22, ": `pattern` and `example` come together; give both"),
    ("{type: text, example: a}", 22, ": `pattern` and `example` come together; give both"),
    ("{type: int, pattern: a, example: a}", 43, ".pattern: is for text, not for int; drop it and `example`"),
    ("{type: text, pattern: a+, example: ab}", 57, ".example: found the text 'ab', which does not match the pattern"),
    ("{type: text, pattern: '(', example: a}", 44, ".pattern: is no regular expression (missing ), unterminated subpattern at position 0)"),
    ("{type: text, pattern: a, example: a, default: b}", 68, ".default: found the text 'b', outside what is declared: text like a"),
]
GROUPS = [
    ("tiny: {includes: _a}\n_a: {}", "1:18: tiny.includes: found the text '_a'; a list is needed"),
    ("tiny: {includes: [_dada]}\n_data: {}", "1:19: tiny.includes[0]: no group is called '_dada'; did you mean `_data`?"),
    ("tiny: {includes: [other]}\nother: {}", "1:19: tiny.includes[0]: no group is called 'other'; nothing is allowed here"),
    ("tiny: {includes: [_a, _a]}\n_a: {}", "1:23: tiny.includes[1]: '_a' is included already; keep one"),
    ("tiny: {includes: [_a]}\n_a: 3", "2:5: _a: found 3; a mapping is needed"),
    ("tiny: {includes: [_a]}\n_a: {entry: x, includes: [_a]}", "2:6: _a.entry: unknown key; allowed: metrics, hyperparameters, settings",
     "2:16: _a.includes: unknown key; allowed: metrics, hyperparameters, settings"),
    ("tiny: {includes: [_a], settings: {x: {type: int}}}\n_a: {settings: {x: {type: int}}}",
     "2:17: _a.settings.x: tiny itself declares it as well; keep one"),
    ("tiny: {includes: [_a, _b]}\n_a: {metrics: {m: minimize}}\n_b: {metrics: {m: minimize}}",
     "3:16: _b.metrics.m: _a, which tiny includes too, declares it as well; keep one"),
    ("tiny: {includes: [_a], hyperparameters: {x: {type: int}}}\n_a: {settings: {x: {type: int}}}",
     "1:1: tiny.settings.x: is declared as a hyperparameter too; keep one"),
    ("tiny: {includes: [_a]}\n_a: {settings: {x: {type: int, low: 1, default: 0}}}",
     "2:49: _a.settings.x.default: found 0, outside what is declared: a whole number at least 1"),
]  # fmt: skip


def test_a_group_is_part_of_each_trainer_that_includes_it_and_no_trainer(install: Install) -> None:
    rest = """
_a: {metrics: {loss: minimize}, settings: {max_epochs: {type: int, low: 1, default: 3}}}
_b: {hyperparameters: {depth: {type: int, default: 2}}}
"""
    install("tiny_pkg", DECLARATION.replace("  summary", "  includes: [_a, _b]\n  summary") + rest)
    tiny = find_declared("tiny")
    assert tiny is not None
    assert tiny.metrics == {"reward": Direction.MAXIMIZE, "loss": Direction.MINIMIZE}
    assert (list(tiny.hyperparameters), list(tiny.settings), tiny.max_epochs) == (["rate", "kind", "depth"], ["max_epochs"], 3)
    assert list(declared()) == ["mlp", "convnet", "simulated", "tiny"]


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
        *(
            (f"tiny: {{settings: {{x: {text}}}}}", f"plug-in bad_pkg: {{file}}:1:{place}: tiny.settings.x{problem}")
            for text, place, problem in PATTERNS
        ),
        *((text, "\n".join(f"plug-in bad_pkg: {{file}}:{line}" for line in problems)) for text, *problems in GROUPS),
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
    assert list(declared()) == ["mlp", "convnet", "simulated", "good"]
    with pytest.raises(SpecError, match="the plug-in of trainer 'tiny' is broken: plug-in bad_pkg: "):
        parse_spec("{trainer: {name: tiny}}", "f")


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        ("tiny", "no_such_pkg.mod:train", "tiny: its package 'no_such_pkg' is not installed"),
        ("tiny", "pkg.mod", "tiny: its entry point is the text 'pkg.mod'; `package.module:function` is needed"),
        ("mlp", "{package}.mod:train", "mlp: another trainer has this name; that one is used"),
    ],
)
def test_an_entry_point_that_leads_nowhere(install: Install, name: str, entry: str, problem: str) -> None:
    install("odd_pkg", DECLARATION, name=name, entry=entry)
    assert [str(found) for found in plugin_problems()] == [f"plug-in odd_pkg: {problem}"]
    assert list(declared()) == ["mlp", "convnet", "simulated"]


def good(
    trial: Any,
    *,
    rate: float,
    width: int = 64,
    kind: str = "a",
    flag: bool = False,
    shape: Literal["flat", "deep"] = "flat",
    cap: float | None = None,
    order: Optional[Literal[1, 2]] = None,  # noqa: UP045
) -> Metrics:
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
        "shape": Argument("categorical", choices=("flat", "deep"), default="flat"),
        "cap": Argument("float"),
        "order": Argument("categorical", choices=(1, 2)),
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


def endless(trial: Any, *, clip: float = math.inf, noise: float = math.nan) -> Metrics:
    yield {}


def annotated(trial: Any, *, rate: Annotated[float, []]) -> Metrics:  # what is beside the type has no hash
    yield {}


def null_without_default(trial: Any, *, a: int | None, b: int | None = 3, c: int | str = 3, d: Literal[None] = None) -> Metrics:
    yield {}


def wrong_choice(trial: Any, *, kind: Literal["a", "b"] = "c") -> Metrics:  # type: ignore[assignment]
    yield {}


def unreadable(trial: Any, *, width: Nowhere) -> Metrics:  # type: ignore[name-defined]  # noqa: F821
    yield {}


TRIAL = "takes no trial; its first argument is the trial: def train(trial, *, learning_rate: float)"
KEYWORD = "is not keyword-only; write `*` after the trial and name every hyperparameter"
ANNOTATION = "needs one of the annotations float, int, str, bool, Literal[...], or one of these with `| None`"
NULL = "may be None, so None has to be its default"


@pytest.mark.parametrize(
    ("function", "problems"),
    [
        (no_generator, ["is not a generator function; a trainer yields a mapping of metrics after every epoch"]),
        (no_trial, [TRIAL]),
        (nothing, [TRIAL]),
        (positional, [f"'rate: float': {KEYWORD}", f"'*more: float': {KEYWORD}", f"'**others: float': {KEYWORD}"]),
        (unannotated, [f"rate: {ANNOTATION}", f"sizes: {ANNOTATION}"]),
        (wrong_default, ["width: has the default 0.5; a whole number is needed"]),
        (wrong_choice, ["kind: has the default 'c'; one of 'a', 'b' is needed"]),
        (
            endless,
            [
                "clip: has the default inf; a finite number is needed, or `float | None = None` for no limit",
                "noise: has the default nan; a number is needed",
            ],
        ),
        (annotated, [f"rate: {ANNOTATION}"]),
        (null_without_default, [f"a: {NULL}", f"b: {NULL}", f"c: {ANNOTATION}", f"d: {ANNOTATION}"]),
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
        ({"cap": None, "order": None}, RATE, []),
        ({"cap": "1"}, RATE, [("trainer.settings.cap", "found the text '1'; cap takes a number or null: write 1 without quotes")]),
        ({"order": 3}, RATE, [("trainer.settings.order", "found 3; order takes one of 1, 2, null")]),
        ({"kind": 64}, RATE, [("trainer.settings.kind", "found 64; kind takes text: write it in quotes, '64'")]),
        ({"shape": "flt"}, RATE, [("trainer.settings.shape", "found the text 'flt'; did you mean `flat`?")]),
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
