"""Makes a trainer of a function, or class, that builds a network: the loop, the data and the checkpoints are `trainers.loop`'s."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, Protocol, get_type_hints

import torch
from torch import Tensor, nn

from hpo.trainer import Metrics, RunningTrial, Trainer, TrainerError
from trainers import datasets, loop, seeds
from trainers.losses import loss_of
from trainers.recipe import Recipe, Source, names, taken
from trainers.splits import Part, Split
from trainers.testing import test_scores

GIVEN = ("columns", "outputs", "image")  # what a network is told of the examples

Build = Callable[..., nn.Module]


class Shaped(Protocol):
    """What a network must fit: a dataset's Shape, or a Split."""

    @property
    def columns(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def image(self) -> tuple[int, int, int] | None: ...
    @property
    def classifies(self) -> bool: ...


def trainer_of(build: Build, *, data: Callable[[], Split] | None = None) -> Trainer:
    """A trainer of the networks that `build` makes: `train = trainer_of(build)` is what `--trainer my_code:train` names.

    `build` is a function, or an nn.Module class, that takes keyword arguments annotated float, int, str, bool, a Literal, or
    one of these `| None`. Every one of them is a hyperparameter, and so is every field of Recipe (how it is trained) and
    Source (on what). Those called `columns`, `outputs` and `image` are none: they are given from the examples, as the
    number of inputs, of outputs (one for two classes, else one a class or value), and (channels, height, width).
    `data` fixes the examples instead: a function without arguments, called in the trial's process, and Source is left out.

    The network maps float32 [N, columns] to [N, outputs]. The trainer yields the metrics of `trainers.loop.fit`; the champion is
    built from its attribute `build`, and tested by its `test_scores` unless `data` is given. Raises TypeError where `build` cannot
    be searched over.
    """
    described = (Recipe,) if data else (Recipe, Source)
    signature = _signature(build, described)

    def train(trial: RunningTrial, **arguments: Any) -> Generator[Metrics, None, None]:
        signature.bind(trial, **arguments)
        split = _on(data(), trial.device) if data else datasets.load(taken(Source, arguments), trial.device)
        recipe = taken(Recipe, arguments)
        with seeds.seeded(trial.seed):
            net = _built(build, split, arguments)
            if not isinstance(net, nn.Module):
                raise TrainerError(f"{_place(build)} gives {type(net).__name__}; an nn.Module is needed")
            net = net.to(trial.device)
            _check(build, net, split, loss_of(recipe, split).outputs)  # within: lazy layers draw their weights here
        yield from loop.fit(trial, net, split, recipe)

    train.__module__, train.__qualname__ = build.__module__, "train"
    train.__doc__ = inspect.getdoc(build)
    train.__signature__ = signature  # type: ignore[attr-defined]
    train.build = builder_of(build, data=data)  # type: ignore[attr-defined]
    train.test_scores = None if data else test_scores  # type: ignore[attr-defined]
    train.training_arguments = names(*described)  # type: ignore[attr-defined]  # hpo.preparing gives these their legal ranges
    return train


def builder_of(build: Build, *, data: Callable[[], Split] | None = None) -> Build:
    """`build` with the arguments of a trial: those that it does not take are ignored, the examples' shape is filled in."""

    def complete(**arguments: Any) -> nn.Module:
        return _built(build, data() if data else datasets.shape(taken(Source, arguments)), arguments)

    return complete


def _signature(build: Build, described: tuple[type, ...]) -> inspect.Signature:
    """`(trial, *, ...)` with what `build` takes and the fields of these dataclasses."""
    taken_already = names(*described) | {"trial", "max_epochs"}
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in _parameters(build).values() if p.name not in GIVEN]
    for parameter in own:
        if parameter.name in taken_already:
            raise TypeError(f"{_place(build)} takes {parameter.name!r}, which is the training's own argument; give it another name")
    fields = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=parameter.default, annotation=get_type_hints(kind)[name])
        for kind in described
        for name, parameter in inspect.signature(kind).parameters.items()
    ]
    return inspect.Signature([inspect.Parameter("trial", inspect.Parameter.POSITIONAL_OR_KEYWORD), *own, *fields])


def _parameters(build: Build) -> Mapping[str, inspect.Parameter]:
    if isinstance(build, nn.Module):
        raise TypeError(f"a {type(build).__name__} is one network; a class or function is needed, which makes a new one for each trial")
    parameters = inspect.signature(build, eval_str=True).parameters
    for parameter in parameters.values():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"{_place(build)} takes {parameter}, which names no hyperparameter; name every argument")
    return parameters


def _built(build: Build, shape: Shaped, arguments: Mapping[str, Any]) -> nn.Module:
    parameters = _parameters(build)
    if "image" in parameters and shape.image is None:
        raise TrainerError(f"{_place(build)} needs images, and these examples are none; choose another dataset or trainer")
    outputs = loss_of(taken(Recipe, arguments), shape).outputs
    given = {"columns": shape.columns, "outputs": outputs, "image": shape.image}
    return build(**{name: value for name, value in {**arguments, **given}.items() if name in parameters})


def _check(build: Build, net: nn.Module, split: Split, outputs: int) -> None:
    """Try two rows, so that a network of the wrong shape, or with nothing to learn, is told apart from a loss that fails."""
    example = split.val.x.dense(slice(0, 2))
    with torch.no_grad():
        found = net.eval()(example)
    expected = (len(example), outputs)
    if not isinstance(found, Tensor) or found.shape != expected:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        hint = "two classes are one logit" if outputs == 1 and split.outputs == 2 else "take an argument `outputs`"
        raise TrainerError(f"the network of {_place(build)} maps {tuple(example.shape)} to {got}; {expected} is needed ({hint})")
    if not any(p.requires_grad for p in net.parameters()):
        raise TrainerError(f"the network of {_place(build)} has no parameter to train; is everything frozen?")


def _on(split: Split, device: str) -> Split:
    train, val = (Part(part.x.to(device), part.y.to(device)) for part in (split.train, split.val))
    return replace(split, train=train, val=val)


def _place(build: Build) -> str:
    return f"{build.__module__}:{getattr(build, '__qualname__', build)}"
