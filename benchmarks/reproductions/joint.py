"""Beyond the published: opens the test split once for the best trial of a study that `hpo launch` ran, and says what it cost."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.reproductions.runs import judged, short, table
from hpo import checkpoints
from hpo.declarations import find_declared
from hpo.home import study_home
from hpo.results import StoredStudy
from hpo.trial_files import trial_folder
from trainers import datasets
from trainers.losses import loss_of
from trainers.recipe import Recipe, Source, taken

PUBLISHED = {
    "imdb": ("best row .892 on the reviews it was chosen on; logistic regression .879", 0.885),
    "sst2": ("dev .827; test .831", 0.81),
    "mnist": ("-", 0.986),
    "fashion": ("MLP 256-128-100: .883", 0.90),
    "fashion-convnet": ("-", 0.925),
}


def row_of(name: str) -> list[str]:
    """The row of one study: its best trial's validation and test accuracy, trials, epochs, and seconds on this machine."""
    study = StoredStudy.open(study_home() / name)
    best = study.best
    if best is None:
        raise SystemExit(f"study {name} has no best trial yet; run `hpo launch search_spaces/{name}.yaml` first")
    arguments: dict[str, Any] = {**study.spec.trainer.settings, **best.params}
    declaration = find_declared(study.spec.trainer.name)
    assert declaration is not None
    net = importlib.import_module(declaration.entry.partition(":")[0]).build(**arguments)
    net.load_state_dict(checkpoints.load(trial_folder(study.folder, best.trial) / "best")["model"])
    source, recipe = taken(Source, arguments), taken(Recipe, arguments)
    accuracy = judged(net, datasets.load_test(source), loss_of(recipe, datasets.shape(source)))[1]
    said, aim = PUBLISHED[name]
    epochs = sum(trial.epoch for trial in study.trials)
    seconds = (study.records[-1].at - study.records[0].at).total_seconds()
    cost = f"{len(study.trials)} trials, {epochs} epochs, {seconds / 60:.1f} min"
    chosen = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in best.params.items())
    return [name, said, f"{short(aim)}", short(best.value or 0.0, 4), short(accuracy, 4), cost, chosen]


def run(names: list[str]) -> dict[str, str]:
    """The table of studies in Markdown."""
    head = ["study", "published", "aim (test)", "validation", "test, opened once", "cost", "chosen"]
    return {"joint": table(head, [row_of(name) for name in names])}
