"""First points: the trainer's defaults and the user's guesses, as points of the space."""

from __future__ import annotations

import pytest

from hpo.arguments import Argument, TrainerDeclaration
from hpo.space import Categorical, Float, Int, Parameter, Value
from hpo.spec import spec_from_dict
from hpo.start_points import resolved, start_mistakes, sweep_centre


def trainer(default: Value | None) -> TrainerDeclaration:
    return TrainerDeclaration("tiny", "tiny:train", hyperparameters={"x": Argument("float", default=default)})


@pytest.mark.parametrize(
    ("parameter", "default", "point"),
    [
        (Float(0.0, 1.0), 0.3, 0.3),
        (Float(1e-6, 1e-1, log=True), 0, 1e-6),  # what has no logarithm, too
        (Float(0.0, 0.8, step=0.2), 0.33, 0.4),
        (Float(0.0, 1.0), 7, 1.0),
        (Int(32, 64, step=8), 128, 64),
        (Int(32, 64, step=8), 41, 40),
        (Int(1, 100, log=True), 37, 37),
        (Categorical(("a", "b")), "b", "b"),
    ],
)
def test_a_default_is_the_nearest_point_of_the_space(parameter: Parameter, default: Value, point: Value) -> None:
    space, declaration = {"x": parameter}, trainer(default)
    assert not list(start_mistakes(["defaults"], space, declaration))
    (found,) = resolved(["defaults"], space, declaration)
    assert found == {"x": pytest.approx(point) if isinstance(point, float) else point}
    assert type(found["x"]) is type(point)
    assert sweep_centre(space, declaration) == found


@pytest.mark.parametrize(
    ("parameter", "default", "message"),
    [
        (Float(0.0, 1.0), None, "has no x, and tiny has no default for it; give it a value here"),
        (Categorical(("a", "b")), "c", "tiny's default of x is no point of the space: the text 'c' is not among the choices"),
    ],
)
def test_what_no_default_can_fill_in_is_told(parameter: Parameter, default: Value | None, message: str) -> None:
    ((path, found),) = start_mistakes(["defaults"], {"x": parameter}, trainer(default))
    assert path == ("start", 0)
    assert found.startswith(message)


def test_a_guess_goes_before_the_default_and_equal_points_stand_once() -> None:
    space = {"x": Float(0.0, 1.0)}
    assert resolved([{"x": 1}, "defaults", {"x": 0.3}], space, trainer(0.3)) == ({"x": 1.0}, {"x": 0.3})


def test_they_survive_the_journal() -> None:
    spec = spec_from_dict(
        {
            "name": "s",
            "trainer": {"name": "mlp"},
            "objective": {"metric": "val_loss", "direction": "minimize"},
            "space": {"width": {"type": "int", "low": 1, "high": 9}, "dropout": {"type": "float", "low": 0.0, "high": 0.5}},
            "start": [{"width": 3, "dropout": 0}],
            "budget": {"trials": 4},
        }
    )
    assert spec.start == ({"width": 3, "dropout": 0.0},)
    assert spec_from_dict(spec.to_dict()) == spec
