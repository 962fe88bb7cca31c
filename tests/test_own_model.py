"""The recipes of docs/your_own_model.md run as they stand there; the two adapters keep their word in the corners too."""

from __future__ import annotations

import gc
import importlib
import inspect
import math
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from hpo import checkpoints
from hpo.declarations import declaration_from_signature
from hpo.preparing import trainer_of as declared_trainer
from hpo.problem import SpecError
from hpo.spec import load_spec
from hpo.trainer import Metrics, TrainerError
from tests.conftest import ROOT, run_hpo
from tests.trials import Trial, dense_split
from trainers.module import builder_of, trainer_of
from trainers.splits import DenseRows, Part, SparseRows, Split
from trainers.stepwise import Closed, Report, epochs_of

DOCUMENT = (ROOT / "docs" / "your_own_model.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^<!-- (\w+\.py) -->\n```python\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE))
DATA = ["my_network.py", "my_data.py", "my_generator.py", "my_lightning.py", "my_skorch.py"]


pytestmark = pytest.mark.usefixtures("one_thread", "module_cache")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a file of the document by its name, or one with the given text."""
    monkeypatch.syspath_prepend(tmp_path)

    def load(name: str, code: str | None = None) -> ModuleType:
        (tmp_path / name).write_text(BLOCKS[name] if code is None else code)
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
        with warnings.catch_warnings():  # of the libraries' own imports
            warnings.simplefilter("ignore")
            return importlib.import_module(Path(name).stem)

    return load


def test_the_generator_of_the_document_is_tested_on_what_its_trials_never_saw(written: Callable[[str], ModuleType]) -> None:
    module = written("my_generator.py")
    scores = module.test_scores(module.build(width=8).eval())
    assert {len(values) for values in scores.values()} == {1797 - 1500}
    assert set(scores["test_accuracy"]) <= {0.0, 1.0}


def accuracies(epochs: Iterator[Metrics]) -> list[float]:
    return [metrics["val_accuracy"] for metrics in epochs]


# ---- the document


def test_the_document_has_these_files() -> None:
    assert list(BLOCKS) == DATA


@pytest.mark.parametrize(
    ("name", "arguments", "least"),
    [
        ("my_network.py", {"dataset": "digits", "learning_rate": 0.01, "width": 32, "batch_size": 32}, 0.85),
        ("my_data.py", {"learning_rate": 0.05, "width": 16, "batch_size": 32}, 0.75),
        ("my_generator.py", {"learning_rate": 0.01, "width": 32}, 0.85),
        ("my_lightning.py", {"learning_rate": 0.01, "width": 32}, 0.85),
        ("my_skorch.py", {"learning_rate": 0.01, "width": 32}, 0.85),
    ],
)
def test_a_recipe_trains_saves_and_builds(
    name: str, arguments: dict[str, Any], least: float, written: Callable[..., ModuleType], tmp_path: Path
) -> None:
    if name in ("my_lightning.py", "my_skorch.py"):
        pytest.importorskip(name[3:-3])
    code = written(name)
    declared = declaration_from_signature(code.train)
    assert declared.entry == f"{name[:-3]}:train"
    assert arguments.keys() <= declared.arguments.keys()
    trial = Trial(tmp_path, max_epochs=3)
    with warnings.catch_warnings():
        if name == "my_lightning.py":  # it warns of its own use of torch, and of data that are loaded by no further process
            warnings.simplefilter("ignore")
        found = accuracies(code.train(trial, **arguments))
    assert len(found) == 3
    assert found[-1] > least
    # what the champion is made of
    trial.write()
    saved = checkpoints.load(tmp_path)
    build = getattr(code.train, "build", code.build)
    parameters = inspect.signature(build).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    net = build(**{key: value for key, value in arguments.items() if takes_any or key in parameters})
    net.load_state_dict(saved["model"])
    rows = torch.export.Dim("rows", min=1)
    example = torch.as_tensor(saved["example"])
    program = torch.export.export(net.eval(), (example,), dynamic_shapes=({0: rows},))
    assert torch.equal(program.module()(example), net(example))


@pytest.mark.parametrize("name", ["my_network.py", "my_generator.py"])
def test_a_recipe_goes_on_bit_for_bit(name: str, written: Callable[..., ModuleType], tmp_path: Path) -> None:
    train = written(name).train
    arguments = {"learning_rate": 0.01, "width": 16} | ({"dataset": "digits", "train_size": 300} if name == "my_network.py" else {})
    whole = accuracies(train(Trial(tmp_path, max_epochs=4), **arguments))
    first = Trial(tmp_path, max_epochs=4)
    epochs = train(first, **arguments)
    begun = [next(epochs)["val_accuracy"] for _ in range(2)]
    first.write()
    epochs.close()
    assert begun + accuracies(train(Trial(tmp_path, max_epochs=4, restored=True), **arguments)) == whole


def test_lightning_is_quiet_and_leaves_nothing(
    written: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning")
    train = written("my_lightning.py").train
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        epochs = train(Trial(tmp_path, max_epochs=50), learning_rate=0.01, width=8)
        next(epochs)
        epochs.close()
    assert capfd.readouterr() == ("", "")
    assert list(folder.iterdir()) == []
    assert "epochs" not in [thread.name for thread in threading.enumerate()]


def test_a_network_of_ones_own_is_launched_and_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = next(block for block in re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE) if "name: my-network" in block)
    (tmp_path / "my_network.py").write_text(BLOCKS["my_network.py"])
    (tmp_path / "my_network.yaml").write_text(spec)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = ["launch", str(tmp_path / "my_network.yaml"), "--trainer", "my_network:train", "--trials", "2", "--local", "--json"]
    done = run_hpo(tmp_path / "runs", *words)
    assert done.code == 0, done.err
    assert done.json["best"]["value"] > 0.3
    assert done.json["best"]["model_uri"] == "models:/my-network/1"


# ---- trainer_of


def plain(columns: int, outputs: int, *, width: int = 8, kind: Literal["a", "b"] = "a", more: int | None = None) -> nn.Module:
    """A network of one's own.

    Of two layers.
    """
    return nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, outputs))


def split(x: Tensor | SparseRows, y: Tensor, outputs: int, image: tuple[int, int, int] | None = None) -> Split:
    rows = DenseRows(x) if isinstance(x, Tensor) else x
    part = Part(rows, y)
    return Split(train=part, val=part, outputs=outputs, image=image)


def two_classes() -> Split:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    return split(x, (x[:, 0] > 0).long(), 2)


def test_its_signature_is_the_networks_and_the_trainings() -> None:
    train = trainer_of(plain)
    declared = declaration_from_signature(train)
    assert inspect.isgeneratorfunction(train)
    assert declared.summary == "A network of one's own."
    kinds = {"width": "int", "kind": "categorical", "more": "int", "optimizer": "categorical", "dataset": "text", "flip": "bool"}
    assert {name: declared.hyperparameters[name].type for name in kinds} == kinds
    assert declared.hyperparameters["more"].nullable
    assert not {"columns", "outputs", "image"} & declared.hyperparameters.keys()
    fixed = declaration_from_signature(trainer_of(plain, data=two_classes))
    assert declared.hyperparameters.keys() - fixed.hyperparameters.keys() >= {"dataset", "path", "train_size"}


class Module(nn.Module):
    def __init__(self, image: tuple[int, int, int], outputs: int, channels: int = 2) -> None:
        super().__init__()
        self.image, self.layer = image, nn.Conv2d(image[0], channels, 3)
        self.out = nn.LazyLinear(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x.view(-1, *self.image)).flatten(1))  # type: ignore[no-any-return]


def test_a_class_is_a_build_and_its_given_arguments_are_not_searched(tmp_path: Path) -> None:
    train = trainer_of(Module)
    assert "channels" in inspect.signature(train).parameters
    found = list(train(Trial(tmp_path), dataset="digits", train_size=200, channels=3, learning_rate=0.01))
    assert found[1]["train_loss"] < found[0]["train_loss"]
    net = builder_of(Module)(dataset="digits", channels=3, learning_rate=0.01, momentum=0.5)
    assert isinstance(net, Module)
    assert net.image == (1, 8, 8)


@pytest.mark.parametrize("name", ["learning_rate", "dataset", "max_epochs", "trial", "l1"])
def test_an_argument_that_the_training_has_is_refused_by_name(name: str) -> None:
    names: dict[str, Any] = {"nn": nn, "__name__": "mine"}
    exec(f"def build(*, {name}: float = 0.1) -> nn.Module: ...", names)
    with pytest.raises(TypeError, match=f"mine:build takes '{name}', which is the training's own argument; give it another name"):
        trainer_of(names["build"])
    if name == "dataset":
        trainer_of(names["build"], data=two_classes)


def test_arguments_without_names_are_refused() -> None:
    def build(*widths: int, **more: float) -> nn.Module: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match=r"build takes \*widths: int, which names no hyperparameter"):
        trainer_of(build)


def test_a_network_instead_of_what_makes_one_is_refused() -> None:
    with pytest.raises(TypeError, match="a Linear is one network; a class or function is needed, which makes a new one for each trial"):
        trainer_of(nn.Linear(3, 2))  # type: ignore[arg-type]


MINE = """
from torch import nn
from trainers.module import trainer_of

def build(columns: int, outputs: int, width: int = 4) -> nn.Module:
    return nn.Linear(columns, outputs)

train = trainer_of(build)
"""


@pytest.mark.parametrize(
    ("space", "settings", "said"),
    [
        (
            "dropconnect: {type: float, low: 0.5, high: 1.5}",
            "train_size: 9",
            "space.dropconnect.high: found 1.5; dropconnect takes a number",
        ),
        ("l1: {type: float, low: -1, high: 1}", "train_size: 9", "space.l1.low: found -1; l1 takes a number from 0 to 10"),
        ("width: {type: int, low: 1, high: 9}", "report_every: 0", "report_every: found 0; report_every takes a whole number at least 1"),
        ("width: {type: int, low: 1, high: 9}", "batch_size: -3", "batch_size: found -3; batch_size takes a whole number from 1"),
        (
            "width: {type: int, low: 1, high: 9}",
            "dataset: digts",
            "trainer.settings.dataset: found the text 'digts'; did you mean `digits`?",
        ),
        ("width: {type: int, low: -9, high: 9}", "train_size: 9", ""),  # one's own have no range
    ],
)
def test_a_nonsensical_recipe_is_refused_before_a_trial_starts(
    space: str, settings: str, said: str, tmp_path: Path, written: Callable[..., ModuleType]
) -> None:
    written("limited.py", MINE)
    objective = "objective: {metric: val_accuracy, direction: maximize}"
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\n{objective}\ntrainer: {{settings: {{{settings}}}}}\nspace: {{{space}}}\nbudget: {{trials: 1}}\n")
    found = ""
    try:
        declared_trainer(load_spec(file, trainer_override="limited:train"))
    except SpecError as error:
        found = str(error)
    assert said in found
    assert bool(said) == bool(found)


def test_an_argument_that_nobody_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="widht"):
        next(trainer_of(plain, data=two_classes)(Trial(tmp_path), widht=3))


def fixed_outputs() -> nn.Module:
    return nn.Linear(3, 2)


def two_answers() -> nn.Module:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    return Two()


def wants_image(image: tuple[int, int, int]) -> nn.Module:
    return nn.Linear(image[1], 1)


def frozen() -> nn.Module:
    return nn.Linear(3, 1).requires_grad_(False)


def forgot_to_return() -> None:
    pass


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (fixed_outputs, r"maps \(2, 3\) to shape \(2, 2\); \(2, 1\) is needed \(two classes are one logit\)"),
        (two_answers, r"maps \(2, 3\) to tuple; \(2, 1\) is needed"),
        (wants_image, "wants_image needs images, and these examples are none"),
        (frozen, "the network of .*:frozen has no parameter to train; is everything frozen?"),
        (forgot_to_return, "forgot_to_return gives NoneType; an nn.Module is needed"),
    ],
)
def test_a_network_of_the_wrong_shape_is_told_so(build: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=words):
        next(trainer_of(build, data=two_classes)(Trial(tmp_path)))


def test_values_and_classes_get_the_outputs_that_they_need() -> None:
    x = torch.zeros(4, 3)
    cases: list[tuple[Split, int, dict[str, Any]]] = [
        (split(x, torch.tensor([0, 1, 0, 1]), 2), 1, {}),
        (split(x, torch.tensor([0, 1, 0, 1]), 2), 2, {"loss": "squared_error"}),
        (split(x, torch.tensor([0, 1, 2, 1]), 3), 3, {}),
        (split(x, torch.zeros(4, 2), 2), 2, {"loss": "squared_error"}),
    ]
    for data, outputs, arguments in cases:
        net = builder_of(plain, data=lambda data=data: data)(learning_rate=0.1, **arguments)  # type: ignore[misc]
        assert net(x).shape == (4, outputs)


def test_sparse_rows_reach_it_dense(tmp_path: Path) -> None:
    starts, indices = torch.tensor([0, 2, 3, 3, 6]), torch.tensor([0, 4, 1, 2, 3, 4], dtype=torch.int32)
    sparse = SparseRows(starts, indices, torch.tensor([1, 3, 2, 1, 1, 5], dtype=torch.uint8), 5)
    y = torch.tensor([0, 1, 0, 1])
    losses = []
    for x in (sparse, sparse.dense(slice(0, 4))):
        trial = Trial(tmp_path, max_epochs=3)
        losses.append([m["val_loss"] for m in trainer_of(plain, data=lambda x=x: split(x, y, 2))(trial, batch_size=2, learning_rate=0.1)])  # type: ignore[misc]
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize("build", [plain, lambda: nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Dropout(0.5), nn.LazyLinear(1))])
def test_a_seed_decides(build: Any, tmp_path: Path) -> None:
    train = trainer_of(build, data=two_classes)
    runs = [[m["val_loss"] for m in train(Trial(tmp_path, seed=seed), learning_rate=0.01)] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_parameter_that_no_output_needs_is_no_obstacle(tmp_path: Path) -> None:
    class Wasteful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 1), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)  # type: ignore[no-any-return]

    train = trainer_of(Wasteful, data=two_classes)
    for optimizer in ("sgd", "rmsprop", "adam", "adamw", "rprop"):
        regularised: dict[str, Any] = {"l1": 1e-4, "weight_decay": 1e-3, "max_norm": 3.0, "dropconnect": 0.1, "weight_noise": 0.01}
        found = list(train(Trial(tmp_path, max_epochs=3), optimizer=optimizer, batch_size=20, learning_rate=0.01, **regularised))
        assert len(found) == 3


# ---- epochs_of


def counting(told: list[str], epochs: int = 3) -> Callable[[Report], None]:
    def run(report: Report) -> None:
        try:
            for epoch in range(epochs):
                told.append(f"epoch {epoch}")
                report({"value": float(epoch)})
        finally:
            told.append("end")

    return run


def test_epochs_come_in_order_and_only_when_asked_for() -> None:
    told: list[str] = []
    epochs = epochs_of(counting(told))
    assert told == []
    for epoch in range(3):
        assert next(epochs) == {"value": float(epoch)}
        assert told[-1] == f"epoch {epoch}"
    assert list(epochs) == []
    assert told[-1] == "end"
    assert "epochs" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("way", ["close", "forget"])
def test_a_closed_generator_ends_its_thread(way: str) -> None:
    told: list[str] = []
    epochs: Generator[Metrics, None, None] | None = epochs_of(counting(told))
    assert epochs is not None
    next(epochs)
    if way == "close":
        epochs.close()
    epochs = None
    gc.collect()
    assert told == ["epoch 0", "end"]
    assert "epochs" not in [thread.name for thread in threading.enumerate()]


def test_one_that_is_never_started_starts_nothing() -> None:
    told: list[str] = []
    epochs_of(counting(told)).close()
    assert told == []


def test_whoever_catches_the_end_meets_it_again() -> None:
    ends = []

    def run(report: Report) -> None:
        for epoch in range(3):
            try:
                report({"value": float(epoch)})
            except BaseException as error:
                ends.append(type(error))

    epochs = epochs_of(run)
    next(epochs)
    epochs.close()
    assert ends == [Closed] * 3


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("after", [0, 2])
def test_what_it_raises_comes_out(error: BaseException, after: int) -> None:
    def run(report: Report) -> None:
        for epoch in range(after):
            report({"value": float(epoch)})
        raise error

    found = []
    with pytest.raises(type(error)) as caught:
        found.extend(epochs_of(run))
    assert caught.value is error
    assert "epochs" not in [thread.name for thread in threading.enumerate()]


def test_what_it_raises_when_it_is_closed_comes_out_of_close() -> None:
    def run(report: Report) -> None:
        try:
            report({"value": 0.0})
        finally:
            raise ValueError("in the cleaning up")

    epochs = epochs_of(run)
    next(epochs)
    with pytest.raises(ValueError, match="in the cleaning up"):
        epochs.close()


def test_an_interrupted_wait_ends_the_thread_at_its_next_report() -> None:
    """A Ctrl-C, or the watchdog's alarm, comes in the main thread in the middle of an epoch."""
    go_on, over = threading.Event(), threading.Event()

    def run(report: Report) -> None:
        try:
            report({"value": 0.0})
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            go_on.wait(60)
            report({"value": 1.0})
        finally:
            over.set()

    epochs = epochs_of(run)
    next(epochs)
    with pytest.raises(KeyboardInterrupt):
        next(epochs)
    go_on.set()
    assert over.wait(60)


def test_the_thread_is_as_its_maker_is() -> None:
    """One thread of torch for a trial, also in the thread of a framework."""
    found: list[int] = []

    def run(report: Report) -> None:
        torch.mm(torch.ones(4, 4), torch.ones(4, 4))
        found.append(torch.get_num_threads())
        report({"value": 0.0})

    list(epochs_of(run))
    assert found == [torch.get_num_threads()] == [1]


class Scaled(nn.Module):
    """Writes into its inputs, by way of a parameter."""

    def __init__(self, *, columns: int, outputs: int) -> None:
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.ones(columns)), nn.Linear(columns, outputs)

    def forward(self, x: Tensor) -> Tensor:
        assert torch.get_float32_matmul_precision()  # raises where a library was chosen behind the module's back
        x *= self.scale
        outputs: Tensor = self.out(x)
        return outputs


def test_a_module_may_write_into_its_inputs_and_ask_torch_how_it_multiplies(tmp_path: Path) -> None:
    split = dense_split()
    before = split.train.x.values.clone()
    epochs = trainer_of(Scaled, data=lambda: split)(Trial(tmp_path, max_epochs=2), learning_rate=0.01, batch_size=4)
    assert [math.isfinite(metrics["val_loss"]) for metrics in epochs] == [True, True]
    assert torch.equal(split.train.x.values, before)
