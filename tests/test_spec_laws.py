"""Laws of the spec: it survives being written down, and no content whatever raises anything but SpecError."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.durations import seconds, span
from hpo.spec import Spec, SpecError, load_spec, parse_spec, spec_from_dict

FASHION = Path(__file__).parent.parent / "search_spaces" / "fashion.yaml"

PIECES = [b"[", b"{", b": ", b"- ", b"&a ", b"*a", b"!x ", b"\t", b"\n", b"null", b"1e999", b".nan", b"-1", b"grid", b"'"]

names = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,20}", fullmatch=True).filter(
    lambda name: not name.startswith(("ml", "con", "prn", "aux", "nul", "com", "lpt"))  # MLflow's own, and Windows' devices
)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
scalars = st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]))
times = st.floats(1e-6, 1e9).map(span)
floats = st.tuples(finite, finite).map(lambda ab: {"type": "float", "low": min(ab), "high": max(ab)})
log_ints = st.tuples(st.integers(1, 99), st.integers(99, 2**53)).map(lambda ab: {"type": "int", "low": ab[0], "high": ab[1], "log": True})
choices = st.lists(scalars, min_size=1, max_size=5, unique=True).map(lambda values: {"type": "categorical", "choices": values})

STOPPERS = [
    {"name": "none"},
    {"name": "patience", "epochs": 2},
    {"name": "patience", "epochs": 2, "min_improvement": 0.1, "metric": "m", "direction": "maximize"},
    {"name": "patience", "metric": "m"},
    {"name": "gl", "threshold": 0.5},
    {"name": "pq", "strip": 3, "training_metric": "t"},
    {"name": "up", "strips": 3},
]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    asha = {"name": "asha", "grace_epochs": draw(st.integers(1, 9)), "reduction_factor": draw(st.integers(2, 5))}
    plain: dict[str, Any] = {
        "name": draw(names),
        "trainer": {
            "name": "m:f",
            "settings": {**draw(st.dictionaries(names, scalars, max_size=3)), "max_epochs": draw(st.integers(9, 99))},
        },
        "objective": {"metric": draw(names), "direction": draw(st.sampled_from(["maximize", "minimize"]))},
        "space": draw(st.dictionaries(names, floats | log_ints | choices, min_size=1, max_size=4)),
        "pruner": draw(st.sampled_from([asha, {"name": "none"}])),
        "stopper": draw(st.sampled_from(STOPPERS)),
        "budget": {"trials": draw(st.integers(1, 10**6)), "time": draw(st.none() | times)},
        "resources": {"gpus": draw(st.sampled_from([0, 0.3, 1, 2, "auto"]))},
        "seed": draw(st.integers(0, 2**53)),
        "checkpoints": {"every": draw(times)},
    }
    return spec_from_dict(plain)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spec") / "spec.yaml"


@settings(max_examples=150, deadline=None)
@given(spec=specs())
def test_a_spec_survives_its_dict_and_its_file(spec: Spec, file: Path) -> None:
    plain = spec.to_dict()
    text = json.dumps(plain, ensure_ascii=False)  # JSON is YAML
    file.write_text(text, encoding="utf-8")
    assert spec_from_dict(json.loads(text)) == spec
    assert load_spec(file, trainer_override="m:f") == spec
    assert spec.to_dict() == plain


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-9, 1e15))
def test_a_time_reads_back_as_the_same_number(duration: float) -> None:
    assert seconds(span(duration)) == duration


def survives(content: bytes) -> bool:
    """Whether the content is a Spec or a SpecError whose problems are placed and can be printed, in bounded processor time."""
    start = time.process_time()
    problems: list[Any] = []
    try:
        parse_spec(content, "f")
    except SpecError as error:
        problems = [*error.problems] or [None]
    placed = all(problem.line >= 1 and str(problem).encode().decode().isprintable() for problem in problems)
    return placed and time.process_time() - start < 5


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_mutation_of_a_file_is_a_spec_or_a_spec_error(data: st.DataObject) -> None:
    content = bytearray(FASHION.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.integers(0, 12))
        pieces = st.binary(max_size=4) | st.sampled_from(
            [b"[", b"{", b": ", b"- ", b"&a ", b"*a", b"!x ", b"\t", b"\n", b"null", b"1e999", b".nan", b"-1"]
        )
        content[start:end] = data.draw(pieces)
    assert survives(bytes(content))


keys = names | st.sampled_from(["name", "type", "low", "high", "log", "step", "grid", "choices", "time", "trials", "settings"])
leaves = st.none() | scalars | st.sampled_from([float("nan"), 10**40, "tpe", "asha", "float", "int", "categorical"])
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8)
PLACES = ["x", "name", "trainer", "trainer.settings", "objective", "space", "space.width", "sampler", "pruner", "stopper", "budget"]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*PLACES, "resources", "seed", "tracking", "checkpoints"]), anything)
def test_any_value_anywhere_is_a_spec_or_a_spec_error(where: str, value: Any) -> None:
    plain = yaml.safe_load(FASHION.read_text())
    parent = plain
    *above, last = where.split(".")
    for key in above:
        parent = parent[key]
    parent[last] = value
    assert survives(yaml.safe_dump(plain, allow_unicode=True).encode())
