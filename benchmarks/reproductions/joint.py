"""Beyond the published: what `hpo launch` reached, on the test split that is opened once, and on each published row's own split."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.reproductions import fashion
from benchmarks.reproductions.runs import Alone, followed, judged, mean_sd, outcomes, short, table
from hpo import checkpoints
from hpo.declarations import find_declared
from hpo.home import study_home
from hpo.results import Best, StoredStudy
from hpo.trial_files import trial_folder
from trainers import datasets, loop, mlp, seeds
from trainers.gradients import autograd
from trainers.losses import loss_of
from trainers.perceptron import write_gradient
from trainers.recipe import Recipe, Source, taken

# test accuracy that was aimed at, and what is known elsewhere
AIMS = {
    "imdb": (0.885, "logistic regression .879"),
    "sst2": (0.81, "bag of words .831"),
    "mnist": (0.986, "-"),
    "fashion": (0.90, "MLP 256-128-100: .883"),
    "fashion-convnet": (0.925, "-"),
}
SEEDS = 3
Arguments = dict[str, Any]


def chosen(name: str) -> tuple[StoredStudy, Best, Arguments]:
    """A study, its best trial and all arguments of that trial."""
    study = StoredStudy.open(study_home() / name)
    best = study.best
    if best is None:
        raise SystemExit(f"study {name} has no best trial yet; run `hpo launch search_spaces/{name.replace('-', '_')}.yaml` first")
    return study, best, {**study.spec.trainer.settings, **best.params}


def tested(name: str) -> list[str]:
    """The row of one study: its best trial's validation and test accuracy, trials, epochs, and seconds on this machine."""
    study, best, arguments = chosen(name)
    declaration = find_declared(study.spec.trainer.name)
    assert declaration is not None
    net = importlib.import_module(declaration.entry.partition(":")[0]).build(**arguments)
    net.load_state_dict(checkpoints.load(trial_folder(study.folder, best.trial) / "best")["model"])
    source, recipe = taken(Source, arguments), taken(Recipe, arguments)
    accuracy = judged(net, datasets.load_test(source), loss_of(recipe, datasets.shape(source)))[1]
    aim, elsewhere = AIMS[name]
    params = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in best.params.items())
    return [name, elsewhere, short(aim), short(best.value, 4), short(accuracy, 4), _cost(study), params]


def _cost(study: StoredStudy) -> str:
    epochs = sum(trial.epoch for trial in study.trials)
    minutes = (study.records[-1].at - study.records[0].at).total_seconds() / 60
    return f"{len(study.trials)} trials, {epochs:,} epochs, {minutes:.1f} min"


def run(names: list[str]) -> dict[str, str]:
    """The table of studies in Markdown, and the table of published rows for those studies that have one."""
    head = ["study", "elsewhere", "aim", "validation", "test, opened once", "cost", "chosen"]
    tables = {"joint": table(head, [tested(name) for name in names if name in AIMS])}
    rows = [ROWS[name]() for name in names if name in ROWS]
    return tables | ({"joint-rows": table(["published row", "published", "joint search", "cost"], rows)} if rows else {})


def _imdb() -> list[str]:
    """The chosen configuration trained on the published split for the number of epochs that the search chose."""
    study, best, arguments = chosen("imdb")
    found = mean_sd(outcomes(_train_published, [(arguments, best.epoch, seed) for seed in range(SEEDS)]))
    what = "IMDB, accuracy on the 25,000 reviews that the row was chosen on: u=16"
    return [what, ".892", f"{found} (trained on all 25,000; never chosen on them)", _cost(study)]


def _train_published(job: tuple[Arguments, int, int]) -> float:
    arguments, epochs, seed = job
    with seeds.seeded(seed):
        net = mlp.build(**arguments)
    split, trial = datasets.load_published(taken(Source, arguments)), Alone(seed, arguments["max_epochs"])
    training = loop.fit(trial, net, split, taken(Recipe, arguments), write_gradient if net.is_plain else autograd)
    return followed(trial, training, over=lambda history: len(history) >= epochs).last["val_accuracy"]


def _sst2() -> list[str]:
    study, best, _ = chosen("sst2")
    return ["SST-2, accuracy on dev: early stopping on dev", ".827", short(best.value, 4), _cost(study)]


def _mnist() -> list[str]:
    study, best, _ = chosen("mnist")
    loss = study.trials[best.trial].measurements[best.epoch - 1].metrics["val_loss"]
    return ["MNIST, validation loss: early stopping", "below .103", short(loss, 4), _cost(study)]


def _fashion_grid() -> list[str]:
    """The published images are not known: each row is trained on the study's images, and the best of them is what counts."""
    study, best, _ = chosen("fashion-grid")
    rows: list[fashion.Job] = [{"weight_decay": decay, "seed": 0} for decay in fashion.DECAYS]
    rows += [{"dropout": dropout, "seed": 0} for dropout in fashion.DROPOUTS]
    same = max(run.last["val_accuracy"] for run in outcomes(fashion.train, rows))
    what = "Fashion-MNIST, 1,000 images, accuracy on 500: the best row"
    return [what, f".8414; {short(same, 4)} on our images", short(best.value, 4), _cost(study)]


ROWS = {"imdb": _imdb, "sst2": _sst2, "mnist": _mnist, "fashion-grid": _fashion_grid}
